"""Configuration files: what they say, and the parts that they build, each of its kind."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from ..files.errors import FileError
from ..files.manifest import Manifest
from ..files.reading import read_file
from ..programs.vae import VAE
from .data.datasets import Data
from .kinds import check_kinds
from .trust import explain, only_trusted

CONFIG = "config.yaml"
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


def build_parts(config: dict[str, Any], path: Path, trust: Sequence[str]) -> tuple[VAE, Data]:
    """The model and the data of a configuration; nothing else in it is looked at.

    Raises:
        FileError: for an entry of another kind, or of a module that is not trusted.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(_parts)
    entries = {name: config[name] for name in ("vae", "data") if name in config}
    with only_trusted(trust):
        try:
            settings = parser.parse_object(entries)
            check_kinds(settings, _parts)
            parts = instantiate(parser, settings, ("vae", "data"))
        except (ArgumentError, ValueError) as error:
            got, _, fix = explain(str(error).strip()).rstrip(".").partition(". Fix: ")
            raise FileError(path, "a model and data to build", got, fix or FIX) from error
    return parts["vae"], parts["data"]


def instantiate(
    parser: ArgumentParser, settings: Namespace, names: Iterable[str]
) -> dict[str, Any]:
    """The parts of a configuration, built one by one.

    Raises:
        ValueError: if one can't be built, with its name.
    """
    parts = {}
    for name in names:
        only = Namespace({name: settings[name]})
        parts[name] = build(name, partial(parser.instantiate, only))[name]
    return parts


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
        raise ValueError(f"{name}: {explain(str(error).strip())}") from error


def _parts(vae: VAE, data: Data) -> None:
    """The parts that a run is evaluated with.

    Args:
        vae: the model and its guide.
        data: the data.
    """


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
