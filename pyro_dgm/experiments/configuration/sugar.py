"""What may be said shorter: a path for data, `file.py:Name` for an own program, names of loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.readers.locating import has_known_suffix
from .modules import FILE, module_of

Folders = dict[str, Path]  # of the modules that are named by their files


def plain_flag(flag: str, folders: Folders) -> list[str]:
    """A flag as the parser takes it.

    Args:
        flag: `--name=value`.
        folders: gets the folder of each module that is named by its file.

    Example:
        >>> plain_flag("--epochs=3", {})
        ['--epochs=3']
        >>> plain_flag("--loggers=PrintEvery,TensorBoard", {})
        ['--loggers+=PrintEvery', '--loggers+=TensorBoard']
    """
    name, _, value = flag.partition("=")
    name = name.removeprefix("--")
    if name == "data" and is_path(value):
        return ["--data=File", f"--data.path={Path(value).resolve()}"]
    if name == "loggers" and value[:1] not in ("[", "{"):
        loggers = [_importable(logger, name, folders) for logger in value.split(",")]
        return [f"--loggers+={logger}" for logger in loggers]
    if FILE in value and name != "data.path":
        path = _import_path(value, name, folders)
        return (
            ["--model=Own", f"--model.program={path}"] if name == "model" else [f"--{name}={path}"]
        )
    return [flag]


def plain_settings(settings: dict[str, Any], folders: Folders) -> dict[str, Any]:
    """What a file says, as the parser takes it; `folders` as in `plain_flag`."""
    found = {name: _plain(value, name, folders) for name, value in settings.items()}
    data, model = settings.get("data"), settings.get("model")
    if isinstance(data, str) and is_path(data):
        found["data"] = _class("File", path=str(Path(data).resolve()))
    if isinstance(model, str) and FILE in model:
        found["model"] = _class("Own", program=found["model"])
    if isinstance(found.get("loggers"), str | dict):
        found["loggers"] = [found["loggers"]]
    return found


def is_path(value: str) -> bool:
    """Whether data are named by a file or a folder: what exists, or has a separator or a suffix of files of data.

    Example:
        >>> is_path("cells.npz"), is_path("mydata.MyData"), is_path("mydata.py:MyData")
        (True, False, False)
    """
    if value.startswith("{") or FILE in value:  # a class and its settings, or a class in a file
        return False
    path = Path(value)
    is_class = all(part.isidentifier() for part in value.split("."))
    has_suffix = path.suffix != "" and not is_class
    return path.exists() or "/" in value or has_suffix or has_known_suffix(value)


def _import_path(value: str, key: str, folders: Folders) -> str:
    module, path, folder = module_of(value, key)
    folders[module] = folder
    return path


def _importable(value: str, key: str, folders: Folders) -> str:
    return _import_path(value, key, folders) if FILE in value else value


def _plain(value: Any, key: str, folders: Folders) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item, f"{key}.{name}", folders) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, key, folders) for item in value]
    if isinstance(value, str) and FILE in value:
        return _import_path(value, key, folders)
    return value


def _class(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}
