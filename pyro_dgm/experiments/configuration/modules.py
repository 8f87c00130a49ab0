"""Modules of one's own: where they are, made importable once they are trusted, and found again from a run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from ..spelling import nearest
from .trust import ROOTS

FILE = ".py:"


def module_of(value: str, key: str) -> tuple[str, str, Path]:
    """The module, the import path and the folder of `folder/file.py:Name`; nothing is imported.

    Raises:
        ValueError: for a file that does not exist, or whose name is no module's of one's own.
    """
    file, _, name = value.partition(":")
    path = Path(file).resolve()
    if not path.is_file():
        others = [other.name for other in path.parent.glob("*.py")]
        near = nearest(path.name, others)
        fix = f"did you mean '{near}:{name}'" if near else "the path to it"
        raise ValueError(
            f"{key}: expected a Python file, got '{file}', which does not exist. Fix: {fix}."
        )
    is_taken = path.stem in sys.stdlib_module_names or path.stem in ROOTS
    if not path.stem.isidentifier() or is_taken:
        raise ValueError(
            f"{key}: expected a file with the name of a module of your own, got '{file}'. "
            f"Fix: rename it, such as my_program.py."
        )
    return path.stem, f"{path.stem}.{name}", path.parent


def make_importable(module: str, folders: Mapping[str, str | Path]) -> None:
    """Let a trusted module be imported from its folder, or from the current one, behind all that can be already.

    Raises:
        ValueError: where its name leads to another file.
    """
    folder = Path(folders.get(module, Path.cwd()))
    top = module.split(".")[0]
    here = (folder / f"{top}.py", folder / top / "__init__.py")
    found = file_of(top)
    if found is None:
        if any(path.exists() for path in here) and str(folder) not in sys.path:
            sys.path.append(str(folder))
            importlib.invalidate_caches()
    elif module in folders and found not in [path.resolve() for path in here]:
        raise ValueError(
            f"{module}: expected {here[0]}, got {found}, which has the same name and is imported "
            f"first. Fix: rename {here[0].name}."
        )


def require_module(module: str) -> None:
    """Refuse to trust a name that leads to no module, once `make_importable` has looked for it.

    Raises:
        ValueError: with where it was looked for.
    """
    top = module.split(".")[0]
    if not top.isidentifier() or top in sys.modules or find_spec(top) is not None:
        return  # what is no name is refused elsewhere
    raise ValueError(
        f"trust: expected a module that can be imported, got '{module}'. Fix: run it in the folder "
        f"of {top}.py, or put that into PYTHONPATH."
    )


def folders_of(modules: Iterable[str]) -> dict[str, str]:
    """The folder that each module is imported from, to find it again in another process."""
    found = {}
    for module in modules:
        file = file_of(module.split(".")[0])
        if file is not None:
            is_package = file.name == "__init__.py"
            found[module] = str(file.parents[1] if is_package else file.parent)
    return found


def file_of(module: str) -> Path | None:
    """The file that the name of a module leads to, without importing it."""
    importlib.invalidate_caches()
    try:
        spec = find_spec(module)
    except ValueError:  # a module that was made by hand
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin else None
