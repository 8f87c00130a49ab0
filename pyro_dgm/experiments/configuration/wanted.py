"""What a place of an experiment takes, by the annotation it has: classes, plain types, and the names of them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union

from jsonargparse._parameter_resolvers import get_signature_parameters
from jsonargparse._typehints import (
    get_all_subclass_paths,
    get_subclass_or_closed_types,
    type_to_str,
)
from torch import Tensor

MANY = 32  # classes that are listed; of more (all modules of torch) the nearest alone
PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}
FIRST = {"model": "VAE", "data": "Digits"}  # classes to begin with
EXAMPLES = {int: "10", float: "0.1", bool: "true", str: "NAME"}


@dataclass(frozen=True)
class Place:
    """A place that takes a value.

    Attributes:
        path: its keys, joined by dots.
        hint: the annotation.
        default: what stands there when nothing is said.
    """

    path: str
    hint: Any
    default: Any = inspect.Parameter.empty

    @property
    def is_required(self) -> bool:
        """Whether something must be said."""
        return self.default is inspect.Parameter.empty

    @property
    def options(self) -> list[Any]:
        """The types that it takes, one by one."""
        return _options(self.hint)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes of which it takes one, or a function that returns one."""
        found = get_subclass_or_closed_types(self.hint, callable_return=True) or ()
        return tuple(dict.fromkeys(kind for kind in found if inspect.isclass(kind)))

    @property
    def takes_any_function(self) -> bool:
        """Whether it takes whatever can be imported and called."""
        return not self.kinds and any(is_function(option) for option in self.options)

    @property
    def takes_null(self) -> bool:
        """Whether nothing may stand there."""
        return any(option in (NoneType, None, Any) for option in self.options)

    def holds(self, container: type) -> bool:
        """Whether it takes a container of that kind."""
        origins = [typing.get_origin(option) for option in self.options]
        return any(inspect.isclass(o) and issubclass(o, container) for o in origins)

    def held(self, container: type) -> Any:
        """What each that such a container holds is."""
        kept: list[Any] = []
        for option in self.options:
            origin = typing.get_origin(option)
            if inspect.isclass(origin) and issubclass(origin, container):
                kept += [hint for hint in typing.get_args(option)[-1:] if hint is not Ellipsis]
                kept += typing.get_args(option)[:1] if not kept else []
        return Union[tuple(kept)] if kept else Any

    @property
    def num_given(self) -> int:
        """How many first arguments are given later, and not by a file."""
        for option in self.options:
            arguments = typing.get_args(option)
            if is_function(option) and arguments and isinstance(arguments[0], list):
                return len(arguments[0])
        return 0

    @property
    def names(self) -> list[str]:
        """Short names of the classes that it takes, which files and flags use."""
        names: dict[str, None] = {}
        for kind in self.kinds:
            paths = get_all_subclass_paths(kind)
            for path in paths:
                name = path.rpartition(".")[2]
                if name != kind.__name__ or len(paths) == 1 or not _needs_tensors(kind):
                    names[name] = None
        return list(names)

    @property
    def wanted(self) -> str:
        """What it takes, in words."""
        if not self.kinds:
            return " or ".join(dict.fromkeys(_words(option) for option in self.options))
        kinds = " or ".join(kind.__name__ for kind in self.kinds)
        names = self.names
        known = f"{kinds}: {', '.join(names)}" if 1 < len(names) <= MANY else kinds
        plain = [_words(option) for option in self.options if _is_plain(option)]
        return " or ".join(dict.fromkeys([known, *plain]))

    @property
    def example(self) -> str:
        """A value that would do."""
        if isinstance(self.default, int | float | str) and not isinstance(self.default, Enum):
            return (
                str(self.default).lower() if isinstance(self.default, bool) else str(self.default)
            )
        if self.path in FIRST:
            return FIRST[self.path]
        for option in self.options:
            if typing.get_origin(option) in (list, tuple, Sequence):
                is_list = isinstance(self.default, list | tuple) and bool(self.default)
                return f"[{','.join(map(str, self.default))}]" if is_list else "[…]"
            if option in EXAMPLES:
                return EXAMPLES[option]
            if choices_of(option):
                return choices_of(option)[0]
        kinds = [kind.__name__ for kind in self.kinds]
        others = [name for name in self.names if name not in kinds]
        return next(iter([*others, *kinds]), "…")

    def example_for(self, value: Any) -> str:
        """A value that would do in place of another: a text as a list of one, where texts are listed."""
        is_item = self.held(Sequence) is str and isinstance(value, str) and value[:1] not in "[{"
        return f"[{value}]" if is_item else self.example

    def flag(self, value: str) -> str:
        """The flag that says a value there, in quotes where a shell would take its brackets for a pattern."""
        flag = f"--{self.path}={value}"
        return f"'{flag}'" if "[" in flag else flag


def places_of(owner: Callable[..., Any], path: str, num_given: int = 0) -> dict[str, Place]:
    """The settings of a class or a function by name, without its first ones that are given later."""
    parameters = get_signature_parameters(owner, "__init__" if inspect.isclass(owner) else None)
    settings = [p for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY]
    found = {}
    for parameter in settings[num_given:]:
        here = f"{path}.{parameter.name}" if path else parameter.name
        found[parameter.name] = Place(here, parameter.annotation, parameter.default)
    return found


def _needs_tensors(kind: type) -> bool:
    """Whether a class takes tensors, which no flag says."""
    parameters = get_signature_parameters(kind, "__init__")
    return any(p.annotation is Tensor and p.default is inspect.Parameter.empty for p in parameters)


def choices_of(option: Any) -> list[str]:
    """The words of a type that has a few, and no others."""
    if typing.get_origin(option) is typing.Literal:
        return [str(choice) for choice in typing.get_args(option)]
    if inspect.isclass(option) and issubclass(option, Enum):
        return [choice.name for choice in option]
    return []


def is_function(option: Any) -> bool:
    """Whether a type is that of functions."""
    origin = typing.get_origin(option) or option
    return origin is Callable or origin is type


def _is_plain(option: Any) -> bool:
    return option in PLAIN or bool(choices_of(option))


def _options(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (Union, UnionType):
        return [found for option in typing.get_args(hint) for found in _options(option)]
    return [hint]


def _words(option: Any) -> str:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if option in PLAIN:
        return PLAIN[option]
    if choices_of(option):
        return f"one of {', '.join(choices_of(option))}"
    if is_function(option):
        return "a class or a function by its import path"
    if origin in (list, tuple, Sequence):
        return f"a list, each {_each(arguments)}" if arguments else "a list"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return (
            f"names with values, each {_each(arguments[1:])}" if arguments else "names with values"
        )
    return str(type_to_str(option)) if not inspect.isclass(option) else option.__name__


def _each(arguments: Sequence[Any]) -> str:
    kept = [argument for argument in arguments if argument is not Ellipsis]
    return " or ".join(dict.fromkeys(_words(o) for argument in kept for o in _options(argument)))
