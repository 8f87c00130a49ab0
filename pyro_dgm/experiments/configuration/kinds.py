"""A place in a configuration takes its kind alone: a subclass, or a function that says that it returns one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from types import UnionType
from typing import Any, Union

from jsonargparse import Namespace


def check_kinds(settings: Namespace, function: Callable[..., Any]) -> None:
    """Refuse a function where an argument asks for another kind, before anything is called.

    The parser compares classes with what an argument asks for; a function it takes for a factory and calls it.

    Args:
        settings: parsed, and not yet built.
        function: whose arguments they are.

    Raises:
        ValueError: for a function that does not say that it returns the kind, with the path to it.
    """
    hints = _hints(function)
    for name, value in vars(settings).items():
        _check(value, hints.get(name), name)


def _check(value: Any, hint: Any, path: str) -> None:
    if isinstance(value, Namespace) and "class_path" in value:
        found = _find(value.class_path)
        check_function(found, value.class_path, hint, path)
        arguments = _hints(found)
        for name, argument in vars(value.get("init_args") or Namespace()).items():
            _check(argument, arguments.get(name), f"{path}.init_args.{name}")
    elif isinstance(value, Namespace | Mapping):
        items = vars(value) if isinstance(value, Namespace) else value
        for name, item in items.items():
            _check(item, hint, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check(item, hint, f"{path}[{number}]")
    elif inspect.isroutine(value) and not _takes_any_function(hint):
        check_function(value, f"{value.__module__}.{value.__qualname__}", hint, path)


def check_function(found: Any, name: str, hint: Any, path: str) -> None:
    """A function returns what is asked for, by its own annotation."""
    if inspect.isclass(found):
        return
    asked = _kinds(hint)
    returned = _kinds(_hints(found).get("return"))
    if returned and all(issubclass(kind, asked) for kind in returned):
        return
    names = " or ".join(kind.__name__ for kind in asked) or "no function"
    raise ValueError(
        f"{path}: expected {names}, or a function that is annotated to return it, got '{name}'. "
        f"Fix: def {name.rpartition('.')[2]}(…) -> {names}, or a class of that kind."
    )


def _takes_any_function(hint: Any) -> bool:
    """Whether a function may return anything, as that of `Own`, which looks at what it returns."""
    if typing.get_origin(hint) in (Union, UnionType):
        return any(_takes_any_function(option) for option in typing.get_args(hint))
    is_function = typing.get_origin(hint) is Callable
    return is_function and typing.get_args(hint)[-1] is Any


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes that an annotation asks for; of a function that it returns, of containers that they hold."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if inspect.isclass(hint) and origin is None:
        return () if hint in (object, type(None)) else (hint,)
    if origin in (Union, UnionType, list, tuple):
        return _all_kinds(arguments)
    if origin is type or origin is None:
        return ()
    if inspect.isclass(origin) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return _kinds(arguments[-1]) if arguments else ()
    return _all_kinds(arguments)


def _all_kinds(hints: tuple[Any, ...]) -> tuple[type, ...]:
    kinds: tuple[type, ...] = ()
    for hint in hints:
        kinds += _kinds(hint)
    return kinds


def _hints(function: Any) -> dict[str, Any]:
    """Name of each argument → what it asks for; none where that can't be found out."""
    owner = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError, AttributeError):
        return {}


def _find(path: str) -> Any:
    """What an import path leads to; the parser has imported it already."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:  # a method of a class
        outer, _, owner = module.rpartition(".")
        return getattr(getattr(import_module(outer), owner), name)
