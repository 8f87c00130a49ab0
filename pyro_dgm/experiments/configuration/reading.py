"""Configuration files: what they say, as plain containers; and one error for every part that can't be built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from ...files.errors import FileError
from ...files.manifest import Manifest
from ...files.reading import read_file
from ..runs.layout import CONFIG
from .trust import explain
from .wording import own_words, with_owner

FIX = "the config.yaml that pyro-dgm fit wrote into a run directory"
T = TypeVar("T")


def read_config(path: str | Path) -> dict[str, Any]:
    """What a configuration file says, as plain containers; nothing in it is looked up or built.

    Raises:
        FileError: if it is missing, empty or no mapping in YAML.
    """
    return _parse(read_file(path, "a configuration in YAML", FIX), Path(path))


def read_run_config(folder: Path) -> dict[str, Any]:
    """What a run was started with, as it was written.

    Raises:
        FileError: if it is missing, empty, or changed since.
    """
    fix = f"{FIX}; to change a run, pyro-dgm fit --config={folder / CONFIG} --out=NEW"
    content = Manifest(folder).read(CONFIG, "a run directory with config.yaml", fix)
    return _parse(content, folder / CONFIG)


def build(name: str, make: Callable[[], T]) -> T:
    """What a part of a configuration builds.

    Raises:
        ValueError: if that fails, with the name of the part.
    """
    try:
        return make()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a constructor raises of its arguments
        said = own_words(explain(str(error).strip()))
        raise ValueError(with_owner(name, said)) from error


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    what = "a configuration in YAML"
    try:
        found = yaml.safe_load(content.decode())
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        got = " ".join(str(error).split()).rstrip(".")
        raise FileError(path, what, got, FIX) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FileError(path, f"{what}, names with values", f"a {type(found).__name__}", FIX)
    return found
