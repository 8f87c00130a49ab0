"""Tables as data: names, labels, context, missing values, splits by file, and what is refused."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from written import everything, multiset

from pyro_dgm.datasets import File, Kind
from pyro_dgm.files.errors import FileError

RNG = np.random.default_rng(0)
BITS = (RNG.random((40, 3)) < 0.4).astype(int)
REALS = RNG.normal(size=(40, 3))


def write_csv(path, columns, delimiter=",", header=True):
    rows = [delimiter.join(columns)] if header else []
    for row in zip(*columns.values(), strict=True):
        rows.append(delimiter.join(map(str, row)))
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def columns_of(table, names="abc"):
    return {name: list(table[:, place]) for place, name in enumerate(names)}


def test_columns_of_zeros_and_ones_are_binary(tmp_path):
    data = File(write_csv(tmp_path / "t.csv", columns_of(BITS)))
    assert (data.kind, data.levels, data.names) == (Kind.BINARY, 2, ["a", "b", "c"])
    assert multiset(everything(data)) == multiset(BITS)
    assert (
        data.said[0] == "data: 40 rows of 3 columns (a, b, c), int64, 0 and 1: binary (--data.kind)"
    )


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("data", ",")]
)
@pytest.mark.parametrize("header", [True, False])
def test_delimiters_and_headers_are_found(tmp_path, suffix, delimiter, header):
    path = write_csv(tmp_path / f"t.{suffix}", columns_of(REALS), delimiter, header)
    data = File(path)
    assert multiset(everything(data)) == multiset(REALS)
    assert data.names == (["a", "b", "c"] if header else ["0", "1", "2"])


def test_labels_and_context_are_no_data(tmp_path):
    site = ["north", "south"] * 20
    columns = {**columns_of(REALS), "site": site, "age": range(20, 60), "class": ["x", "y"] * 20}
    path = write_csv(tmp_path / "t.csv", columns)
    data = File(path, context=["site", "age"])
    assert (data.names, data.event_shape) == (["a", "b", "c"], (3,))
    assert data.classes == ["x", "y"]
    one_hot, age = data.context["train"]
    assert (one_hot.shape[1], age.shape[1], data.num_context) == (2, 40, 42)
    where = [REALS.tolist().index(row) for row in data.test.tolist()]
    assert data.context["test"][0].argmax(1).tolist() == [row % 2 for row in where]


def test_the_first_column_of_pandas_without_a_name_is_left_out(tmp_path):
    path = write_csv(tmp_path / "t.csv", {"": range(40), **columns_of(REALS)})
    data = File(path)
    assert data.names == ["a", "b", "c"]
    assert any("the numbers of the rows, is left out" in line for line in data.said)


@pytest.mark.parametrize("index", [True, False])
def test_tables_of_pandas_without_names_are_read_as_it_writes_them(tmp_path, index):
    import pandas as pd

    order = np.random.default_rng(0).permutation(40)
    pd.DataFrame(REALS).iloc[order].to_csv(tmp_path / "t.csv", index=index)
    data = File(str(tmp_path / "t.csv"))
    assert data.names == ["0", "1", "2"]
    assert multiset(everything(data)) == multiset(REALS)


def test_files_beside_each_other_are_splits(tmp_path):
    parts = {"ts": BITS[:20], "valid": BITS[20:30], "test": BITS[30:]}
    for word, part in parts.items():
        write_csv(tmp_path / f"nltcs.{word}.data", columns_of(part), header=False)
    data = File(str(tmp_path / "nltcs"))
    folder = tmp_path / "deeper" / "nltcs"
    folder.mkdir(parents=True)
    for file in tmp_path.glob("*.data"):
        (folder / file.name).write_bytes(file.read_bytes())
    np.testing.assert_array_equal(File(str(folder)).train, data.train)
    np.testing.assert_array_equal(data.train, BITS[:20])
    np.testing.assert_array_equal(data.val, BITS[20:30])
    np.testing.assert_array_equal(data.test, BITS[30:])


def test_a_folder_of_splits_is_one_data_set(tmp_path):
    for word, part in {"train": REALS[:30], "test": REALS[30:]}.items():
        write_csv(tmp_path / f"{word}.csv", columns_of(part))
    data = File(str(tmp_path))
    np.testing.assert_array_equal(data.test, REALS[30:])
    assert [len(data.train), len(data.val)] == [27, 3]
    assert any("splits by file: test.csv, train.csv" in line for line in data.said)


def test_splits_with_other_columns_are_refused(tmp_path):
    write_csv(tmp_path / "train.csv", columns_of(REALS))
    write_csv(tmp_path / "test.csv", columns_of(REALS, "abd"))
    with pytest.raises(FileError, match=r"expected the columns of .*, got others: \['c', 'd'\]"):
        File(str(tmp_path))


def missing_table(table):
    holes = np.random.default_rng(1).random(table.shape) < 0.3
    text = np.where(holes, "", table.astype(str))
    return holes, columns_of(text)


@pytest.mark.parametrize(
    ("table", "kind"), [(BITS, Kind.BINARY), (REALS, Kind.REAL), (BITS * 3, Kind.COUNTS)]
)
def test_missing_values_become_zeros_and_a_mask(tmp_path, table, kind):
    holes, columns = missing_table(table)
    data = File(write_csv(tmp_path / "t.csv", columns), missing="mask")
    assert (data.kind, data.has_mask, data.num_context) == (kind, True, 3)
    mask = np.concatenate([np.asarray(data.context[s][-1]) for s in ("train", "val", "test")])
    filled = np.where(holes, 0, table)
    both = np.concatenate([filled, ~holes], axis=1).astype(float)
    assert multiset(np.concatenate([everything(data), mask], axis=1)) == multiset(both)
    assert mask.dtype == np.bool_
    assert any(f"missing: {holes.mean():.1%} of the numbers" in line for line in data.said)


def test_missing_values_are_refused_with_their_place_unless_a_mask_is_asked_for(tmp_path):
    columns = columns_of(REALS.astype(str))
    columns["b"][7] = ""
    with pytest.raises(
        FileError,
        match=r"t\.csv: expected a number in every place, got 1 missing \(NaN\), the first in "
        r"column 'b', row 8\. Fix: --data\.missing=mask",
    ):
        File(write_csv(tmp_path / "t.csv", columns))


def test_a_mask_that_is_asked_for_is_there_without_missing_values(tmp_path):
    data = File(write_csv(tmp_path / "t.csv", columns_of(REALS)), missing="mask")
    assert bool(data.context["train"][-1].all())
    assert data.has_mask


def test_standardized_numbers_say_what_their_density_lacks(tmp_path):
    holes, columns = missing_table(REALS * [1.0, 10.0, 0.1] + 5)
    path = write_csv(tmp_path / "t.csv", columns)
    raw = File(path, missing="mask")
    data = File(path, missing="mask", standardize=True)
    mask = data.context["train"][-1]
    torch.testing.assert_close(mask, raw.context["train"][-1])
    spreads = []
    for place in range(3):
        seen = data.train[mask[:, place], place]
        of_file = raw.train[mask[:, place], place]
        torch.testing.assert_close(seen, (of_file - of_file.mean()) / of_file.std(correction=0))
        spreads.append(of_file.std(correction=0))
    assert bool((data.train[~mask] == 0).all())
    nats = torch.stack(spreads).log().sum().item()
    assert any(f"{nats:+.4g} nats more" in line for line in data.said)
    bits = write_csv(tmp_path / "bits.csv", columns_of(BITS))
    with pytest.raises(ValueError, match=r"data\.standardize: expected real numbers, got binary"):
        File(bits, standardize=True)


@pytest.mark.parametrize(
    ("columns", "options", "match"),
    [
        ({"a": [1, 2] * 20, "name": ["u", "v"] * 20}, {}, r"'u' in column 'name', row 1\. Fix: '--data\.context=."),
        ({"a": ["1", "?"] * 20}, {}, r"got '\?' in column 'a', row 2\. Fix: an empty cell in place of '\?'"),
        ({"a": [1, 2] * 20}, {"array": "a"}, r"data\.array: expected none for .*t\.csv"),
        ({"a": [1, 2] * 20}, {"labels": "b"}, r"data\.labels: .*one of: a; got 'b'"),
        ({"a": [1, 2] * 20}, {"labels": "a"}, r"expected a column of data, got labels and context alone"),
        ({"a": [1, 2] * 20, "site": ["n", ""] * 20}, {"context": ["site"]}, r"got none in 'site', row 2"),
        ({"a": [1.5, "inf"] * 20}, {}, r"expected finite numbers, got inf in column 'a', row 2"),
        ({"a": []}, {}, r"expected rows of numbers, got 0 rows"),
        ({"a": [""] * 30, "b": [""] * 30}, {"missing": "mask"}, r"expected numbers, got missing ones alone"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused_with_column_and_row(tmp_path, columns, options, match):
    with pytest.raises(ValueError, match=match):
        File(write_csv(tmp_path / "t.csv", columns), **options)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"t\.csv: expected a table in csv form, got an empty file"),
        ("a,b\n1,2\n1,2,3\n", r"t\.csv: .*can't be read: .*Expected 2 fields in line 3, saw 3"),
        ('a,b\n1,"2\n', r"t\.csv: .*got one that can't be read"),
        ("\0\0\1\2", r"t\.csv: expected a table in csv form, got .*Fix: give it the suffix"),
    ],
)
def test_damaged_tables_are_named(tmp_path, text, match):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FileError, match=match):
        File(str(tmp_path / "t.csv"))


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(FileError, match=r"t\.csv: .*can't be read: .*utf-8"):
        File(str(tmp_path / "t.csv"))


def test_parquet_is_read_as_csv_is(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow reads parquet")
    import pandas as pd

    pd.DataFrame({**columns_of(REALS), "site": ["n", "s"] * 20}).to_parquet(tmp_path / "t.parquet")
    data = File(str(tmp_path / "t.parquet"), context=["site"])
    assert multiset(everything(data)) == multiset(REALS)
    assert data.num_context == 2
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(FileError, match=r"bad\.parquet: expected a table in parquet form"):
        File(str(tmp_path / "bad.parquet"))


@pytest.mark.parametrize(("suffix", "module"), [("parquet", "pyarrow"), ("h5ad", "anndata")])
def test_a_format_whose_extra_is_not_installed_says_so(tmp_path, monkeypatch, suffix, module):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / f"t.{suffix}").write_bytes(b"x" * 100)
    with pytest.raises(ImportError, match=rf"expected {module} .*Fix: pip install {module}\."):
        File(str(tmp_path / f"t.{suffix}"))


def annotated():
    """Counts of genes in cells, as AnnData holds them."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (40, 5)).astype(np.float32)
    obs = pd.DataFrame({"batch": ["p", "q"] * 20, "cell_type": ["t", "b", "t", "b"] * 10})
    obs.index = obs.index.astype(str)
    names = [f"gene{number}" for number in range(5)]
    return counts, csr_matrix(counts), obs, names


def check_counts(data, counts):
    assert multiset(everything(data)) == multiset(counts)
    assert (data.kind, data.num_context, data.names[0]) == (Kind.COUNTS, 2, "gene0")


def test_annotated_data_are_counts_with_a_batch(tmp_path, monkeypatch):
    """A module of anndata's name, which is not installed where the tests run, gives the parts of an AnnData."""
    counts, sparse, obs, names = annotated()
    stored = SimpleNamespace(X=sparse, layers={"raw": 2 * counts}, obs=obs, var_names=names)
    module = SimpleNamespace(read_h5ad=lambda path: stored)
    monkeypatch.setitem(sys.modules, "anndata", module)
    path = tmp_path / "cells.h5ad"
    path.write_bytes(b"x")
    check_counts(File(str(path)), counts)
    check_counts(File(str(path), layer="raw"), 2 * counts)
    data = File(str(path), labels="cell_type", context=[])
    assert (data.classes, data.num_context) == (["b", "t"], 0)
    with pytest.raises(ValueError, match=r"data\.layer: .*got 'rwa', did you mean 'raw'"):
        File(str(path), layer="rwa")
    with pytest.raises(
        ValueError, match=r"data\.labels: .*got 'celltype', did you mean 'cell_type'"
    ):
        File(str(path), labels="celltype")


@pytest.mark.filterwarnings("ignore")  # of anndata as it writes
def test_annotated_data_of_anndata_itself_are_read(tmp_path):
    anndata = pytest.importorskip("anndata", reason="anndata reads h5ad")
    import pandas as pd

    counts, sparse, obs, names = annotated()
    stored = anndata.AnnData(sparse, obs=obs, var=pd.DataFrame(index=names))
    stored.layers["raw"] = 2 * counts
    anndata.settings.allow_write_nullable_strings = True
    stored.write_h5ad(tmp_path / "cells.h5ad")
    check_counts(File(str(tmp_path / "cells.h5ad")), counts)
    check_counts(File(str(tmp_path / "cells.h5ad"), layer="raw"), 2 * counts)
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "cells.h5ad").read_bytes()[:500])
    with pytest.raises(FileError, match=r"cut\.h5ad: expected annotated data \(h5ad\), got .*read"):
        File(str(tmp_path / "cut.h5ad"))
