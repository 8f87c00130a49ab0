"""A function's signature and docstring as a command: its help fits on one screen."""

from __future__ import annotations

import inspect
import re
import typing
from argparse import SUPPRESS, ArgumentError, ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from ..spelling import nearest

ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


class CommandParser(ArgumentParser):
    """A parser whose mistakes are errors with the nearest flag."""

    def error(self, message: str) -> typing.NoReturn:  # noqa: D102
        raise ValueError(f"{message}. Fix: {self.prog} --help")


def command_parser(name: str, function: Callable[..., Any]) -> CommandParser:
    """The parser of a verb: required arguments by their place, the others as flags.

    Args:
        name: of the command.
        function: whose signature and docstring it has.
    """
    first, _, _ = (inspect.getdoc(function) or "").partition("\n")
    parser = CommandParser(prog=f"pyro-dgm {name}", description=first, allow_abbrev=False)
    told = told_arguments(function)
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD and _has_words(hints[parameter.name]):
            _add(parser, parameter, hints[parameter.name], told.get(parameter.name, ""))
    return parser


def parse_command(parser: CommandParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The arguments of a verb, or an error that names the nearest flag.

    Raises:
        ValueError: for a flag that there is not, a value of another type, an argument that is missing.
    """
    try:
        found, rest = parser.parse_known_args(list(arguments))
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    if rest:
        raise ValueError(_unknown(parser, rest[0]))
    given = vars(found)
    return {name: value for name, value in given.items() if value is not None}


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """A function with arguments by name, also those that it takes by their place alone.

    Example:
        >>> call(lambda *numbers, base: [base + number for number in numbers], {"numbers": [1, 2], "base": 10})
        [11, 12]
    """
    places: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            places = arguments.pop(parameter.name)
    return function(*places, **arguments)


def told_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Name → what a docstring says of an argument, on one line.

    Example:
        >>> def double(x):
        ...     '''Twice a number.
        ...
        ...     Args:
        ...         x: the number,
        ...             any at all.
        ...     '''
        >>> told_arguments(double)
        {'x': 'the number, any at all.'}
    """
    told: dict[str, str] = {}
    text = inspect.getdoc(function) or ""
    _, _, entries = text.partition("Args:\n")
    name = ""
    for line in entries.split("\n"):
        if line and not line.startswith("    "):
            break
        entry = ENTRY.match(line)
        if entry:
            name = entry[1]
            told[name] = entry[2]
        elif name and line.strip():
            told[name] += f" {line.strip()}"
    return told


def _add(parser: CommandParser, parameter: inspect.Parameter, hint: Any, told: str) -> None:
    kind, is_many = _kind(hint)
    help_line = told.replace("%", "%%")
    if parameter.kind is parameter.VAR_POSITIONAL:
        parser.add_argument(parameter.name, nargs="+", type=kind, help=help_line)
    elif parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY:
        parser.add_argument(f"--{parameter.name}", type=kind, required=True, help=help_line)
    elif parameter.default is parameter.empty:
        parser.add_argument(
            parameter.name, nargs="+" if is_many else None, type=kind, help=help_line
        )
    elif kind is bool:
        parser.add_argument(
            f"--{parameter.name}",
            action=BooleanOptionalAction,
            default=SUPPRESS,
            help=help_line,
        )
    else:
        parser.add_argument(
            f"--{parameter.name}",
            type=kind,
            action="append" if is_many else "store",
            default=SUPPRESS,
            help=help_line,
            metavar=getattr(kind, "__name__", "VALUE").upper(),
        )


def _kind(hint: Any) -> tuple[Callable[[str], Any], bool]:
    """How a word becomes a value of a type, and whether there are many of them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        simple = [kind for kind in arguments if kind in (int, float, bool, str, Path)]
        if simple:
            return simple[0], False
        return _kind(arguments[0])
    if origin is not None and arguments:
        return _kind(arguments[0])[0], True
    return (hint, False) if hint in (int, float, bool, str) else (str, False)


def _has_words(hint: Any) -> bool:
    """Whether a command line can say it: not a list of objects."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) not in (None, typing.Union, UnionType)
    return not is_list or any(kind in (int, float, bool, str, Path) for kind in arguments)


def _unknown(parser: CommandParser, flag: str) -> str:
    name = flag.split("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    near = nearest(name, known)
    fix = f"did you mean {near}" if near else f"{parser.prog} --help"
    return f"expected one of its flags, got {name}. Fix: {fix}"
