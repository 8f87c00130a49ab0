"""Annotated data, h5ad: counts of genes in cells, with a batch for each cell."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ....files.errors import FileError
from ....files.reading import describe
from .arrays import BATCH_NAMES
from .content import ALL, Asked, Content, require_name, require_names
from .stored import first_bytes, one_line
from .tables import LABEL_COLUMNS, column_as_array


def read_h5ad(path: Path, asked: Asked) -> Content:
    """X or a layer of annotated data, dense; labels and context are columns of obs.

    Raises:
        ImportError: without anndata.
        FileError: for a file that can't be read.
        ValueError: for a layer or a column that is not there.
    """
    what = "annotated data (h5ad)"
    start = first_bytes(path, what)
    try:
        import anndata
    except ImportError as error:
        raise ImportError(
            f"{path}: expected anndata to read h5ad, got none. Fix: pip install anndata."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of anndata, about names that are there twice and the like
            stored = anndata.read_h5ad(path)
    except Exception as error:
        got = f"{describe(start)} that can't be read: {one_line(error)}"
        raise FileError(path, what, got, "write it again by adata.write_h5ad(path)") from error
    return content_of_annotated(path, stored, asked)


def content_of_annotated(path: Path, stored: Any, asked: Asked) -> Content:
    """An AnnData in memory as data and what stands beside them."""
    if asked.layer is not None:
        require_name("layer", asked.layer, list(stored.layers), path)
    counts = stored.X if asked.layer is None else stored.layers[asked.layer]
    if counts is None:
        layers = list(stored.layers)
        fix = f"--data.layer={layers[0]}" if layers else "adata.X = counts"
        raise FileError(path, "counts in X", "none", fix)
    is_sparse = hasattr(counts, "toarray")
    x = np.asarray(counts.toarray() if is_sparse else counts)
    columns = list(stored.obs.columns)
    labels, context = _found(columns, asked)
    if labels is not None:
        require_name("labels", labels, columns, path)
    require_names("context", context, columns, path)
    beside = {
        name: {ALL: column_as_array(stored.obs[name])}
        for name in dict.fromkeys([labels, *context])
        if name
    }
    said = []
    if is_sparse:
        said.append(f"data: sparse counts, dense in memory: {x.nbytes / 2**20:.0f} MiB")
    names = [str(name) for name in stored.var_names]
    return Content(path, {ALL: x}, beside, names, labels=labels, said=said, options=("layer",))


def _found(columns: list[str], asked: Asked) -> tuple[str | None, list[str]]:
    """Labels and context: those asked for, else columns of a usual name."""
    labels = asked.labels
    if labels is None:
        labels = next((name for name in columns if name.lower() in LABEL_COLUMNS), None)
    if asked.context is not None:
        return labels, list(asked.context)
    usual = [name for name in columns if name.lower() in BATCH_NAMES]
    return labels, usual[:1]
