"""Which flag an error comes from, where a part refuses a number that a flag has set: each is tried at its default."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from jsonargparse._util import import_object

from .said import CLASS, SETTINGS
from .wanted import places_of

FIX = "Fix: "


@dataclass(frozen=True)
class Setting:
    """A number, or a list of numbers, that is not its default.

    Attributes:
        path: that of its flag.
        key: where it is in the settings of its part.
        default: what it is if nothing is said.
    """

    path: str
    key: str
    default: Any

    def put_back(self, settings: Namespace) -> Namespace:
        """The settings of the part with the default in its place."""
        changed = settings.clone()
        changed[self.key] = self.default
        return changed


def with_flag(
    part: str, settings: Any, owner: Any, message: str, attempt: Callable[[Namespace], str]
) -> str:
    """An error with the flag whose number it refuses, and its default as the fix; as it is where that is none.

    Args:
        part: name of the part.
        settings: those it has.
        owner: the class of the part, where the settings do not name it.
        message: the error.
        attempt: the error of other settings, empty without one.
    """
    if not isinstance(settings, Namespace) or f"{FIX}--" in message:
        return message
    found = list(_changed(part, "", settings, owner))
    found.sort(key=lambda one: re.search(rf"\b{one.path.rpartition('.')[2]}\b", message) is None)
    for setting in found:
        if attempt(setting.put_back(settings)) != message:
            said = message.removeprefix(f"{part}: ").partition(FIX)[0]
            return f"{setting.path}: {said}{FIX}--{setting.path}={_word(setting.default)}."
    return message


def _changed(path: str, key: str, settings: Any, owner: Any) -> Iterator[Setting]:
    """The numbers inside of settings that are not their defaults."""
    values = settings
    if CLASS in settings:
        owner = import_object(settings[CLASS])
        key = f"{key}{SETTINGS}."
        values = settings.get(SETTINGS) or Namespace()
    places = places_of(owner, path) if owner is not None else {}
    for name, value in vars(values).items():
        here = f"{path}.{name}"
        if isinstance(value, Namespace):
            kinds = places[name].kinds if name in places else ()
            yield from _changed(here, f"{key}{name}.", value, kinds[0] if kinds else None)
        elif name in places and not places[name].is_required and _is_number(value):
            default = places[name].default
            if _plain(default) != _plain(value):
                yield Setting(here, f"{key}{name}", default)


def _is_number(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _word(value: Any) -> str:
    """A value as a flag says it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)
