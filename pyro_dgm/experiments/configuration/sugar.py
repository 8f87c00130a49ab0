"""What may be said shorter: a path for data, `file.py:Name` for an own program, names of loggers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

FILE = ".py:"


def plain_flag(flag: str) -> list[str]:
    """A flag as the parser takes it.

    Example:
        >>> plain_flag("--model=mymodel.py:Pair")
        ['--model=Own', '--model.program=mymodel.Pair']
        >>> plain_flag("--epochs=3")
        ['--epochs=3']
        >>> plain_flag("--loggers=PrintEvery,TensorBoard")
        ['--loggers+=PrintEvery', '--loggers+=TensorBoard']
    """
    name, _, value = flag.partition("=")
    name = name.removeprefix("--")
    if name == "data" and is_path(value):
        return ["--data=File", f"--data.path={Path(value).resolve()}"]
    if name == "loggers" and value[:1] not in ("[", "{"):
        return [f"--loggers+={logger}" for logger in map(_importable, value.split(","))]
    if FILE in value and name != "data.path":
        path = import_path(value)
        return (
            ["--model=Own", f"--model.program={path}"] if name == "model" else [f"--{name}={path}"]
        )
    return [flag]


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What a file says, as the parser takes it."""
    found = {name: _plain(value) for name, value in settings.items()}
    data, model = settings.get("data"), settings.get("model")
    if isinstance(data, str) and is_path(data):
        found["data"] = _class("File", path=str(Path(data).resolve()))
    if isinstance(model, str) and FILE in model:
        found["model"] = _class("Own", program=import_path(model))
    if isinstance(found.get("loggers"), str | dict):
        found["loggers"] = [found["loggers"]]
    return found


def is_path(value: str) -> bool:
    """Whether data are named by a file or a folder: what exists, or has a separator or a suffix."""
    path = Path(value)
    is_class = all(part.isidentifier() for part in value.split("."))
    return path.exists() or "/" in value or (path.suffix != "" and not is_class)


def import_path(value: str) -> str:
    """The import path of `folder/file.py:Name`, whose folder can be imported from afterwards."""
    file, _, name = value.partition(":")
    folder = str(Path(file).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return f"{Path(file).stem}.{name}"


def _importable(value: str) -> str:
    return import_path(value) if FILE in value else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _importable(value) if isinstance(value, str) else value


def _class(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}
