"""Help on a part of an experiment: what a place takes, and the settings of a class, on one screen."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from ..configuration.answers import ALSO, default_class, find_class, near
from ..configuration.experiment import schema
from ..configuration.modules import make_importable
from ..configuration.said import class_and_settings, settings_said
from ..configuration.sugar import Folders, plain_flag
from ..configuration.trust import modules_in, only_trusted, take_trust
from ..configuration.wanted import MANY, Place, places_of
from .signatures import told_arguments

HELP = ".help"
WIDTH = 100


def asks_for_help(word: str) -> bool:
    """Whether a flag asks for help on a part, as `--model.help=VAE` or `--model.prior.help` does."""
    return word.startswith("--") and word.partition("=")[0].endswith(HELP)


def help_of_part(arguments: Sequence[str]) -> str:
    """What the first such flag asks for; the other flags say which classes stand around it.

    A class of one's own is trusted by being asked for, a module that other flags name by `--trust` or by its file.

    Raises:
        ValueError: for a place or a class that there is not, with the nearest one.
    """
    words, trust = take_trust(arguments)
    folders: Folders = {}
    flags = [plain for word in words for plain in plain_flag(word, folders)]
    asked = next(flag for flag in flags if asks_for_help(flag))
    path, _, name = asked.removeprefix("--").partition("=")
    others = [w for w in flags if w.startswith("--") and "=" in w and not asks_for_help(w)]
    trusted = [*trust, *folders, *modules_in([asked])]
    for module in trusted:
        make_importable(module, folders)
    with only_trusted(trusted):
        place, told = _place(path.removesuffix(HELP).split("."), settings_said(others))
        owner = find_class(place, name) if name else None
        if owner is None and len(place.names) == 1:
            owner = default_class(place)
        if owner is not None:
            return _of_class(place, owner)
        if not _held(place).kinds:
            return _of_value(place, told)
        default = None if place.is_required else default_class(place)
        of_default = f"\n\n{_of_class(place, default)}" if default is not None else ""
        return _of_place(place) + of_default


def _place(keys: Sequence[str], said: Mapping[str, Any]) -> tuple[Place, str]:
    """The place of a path, inside of the classes that stand around it, and what is said of it there."""
    owner: Any = schema
    value: Any = said
    place: Place | None = None
    told = ""
    for key in keys:
        inside = places_of(owner, place.path, place.num_given) if place else places_of(owner, "")
        if key not in inside:
            where = f"--{place.path}={owner.__name__}" if place else "fit"
            fix = near(key, inside) or f"another class before it, see {where}"
            raise ValueError(f"{where}: expected one of {list(inside)}, got '{key}'. Fix: {fix}.")
        place = inside[key]
        told = told_arguments(owner).get(key, "")
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
        name, value = class_and_settings(value)
        owner = find_class(place, name) if name else default_class(place)
        if owner is None and place.kinds:
            owner = find_class(place, place.example)
    assert place is not None
    return place, told


def _of_value(place: Place, told: str) -> str:
    """What a place without classes takes: what it is, and a value that would do."""
    lines = [
        f"--{place.path}{_default(place)}: {told}",
        f"      {place.wanted}, such as --{place.path}={place.example}",
    ]
    return "\n".join(_wrapped(lines))


def _held(place: Place) -> Place:
    """The place itself, or that of one entry of a list."""
    return Place(place.path, place.held(Sequence)) if place.holds(Sequence) else place


def _of_place(place: Place) -> str:
    held = _held(place)
    names = held.names
    if not 0 < len(names) < 4 * MANY:
        return "\n".join(_wrapped([f"--{place.path}: {place.wanted}"]))
    lines = [f"--{place.path}: {_kinds_of(place, held)}", ""]
    for name in names:
        try:
            sentence = _first_sentence(find_class(held, name))
        except ValueError:  # of a module that is not trusted, or a name that several classes have
            continue
        lines.append(f"  {name}: {sentence}" if sentence else f"  {name}")
    lines += ["", f"--{place.path}.help=CLASS for the settings of a class."]
    return "\n".join(_wrapped(lines))


def _kinds_of(place: Place, held: Place) -> str:
    """What a place takes, without the names of the classes."""
    kinds = " or ".join(kind.__name__ for kind in held.kinds)
    also = [ALSO[place.path]] if place.path in ALSO else []
    nothing = ["null"] if place.takes_null else []
    number = "a list, each " if held is not place else ""
    return ", or ".join([f"{number}{kinds} by name", *also, *nothing])


def _first_sentence(owner: Any) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = (inspect.getdoc(owner) or "").partition("\n\n")[0]
    sentence = " ".join(paragraph.split()).partition(". ")[0].rstrip(".")
    return "" if sentence.startswith(":") else sentence  # arguments alone


def _of_class(place: Place, owner: Any) -> str:
    told = told_arguments(owner)
    lines = [
        f"--{place.path}={owner.__name__}: {(inspect.getdoc(owner) or '').partition(chr(10))[0]}"
    ]
    for name, inner in places_of(owner, place.path, place.num_given).items():
        lines.append(f"  --{inner.path}{_default(inner)}: {told.get(name, '')}")
        if inner.kinds and len(inner.names) > 1:
            lines.append(f"      {inner.wanted}")
    return "\n".join(_wrapped(lines))


def _default(place: Place) -> str:
    return "" if place.is_required else f" (default {_shown(place.default)})"


def _shown(default: Any) -> str:
    is_plain = default is None or isinstance(default, bool | int | float | str | list | tuple)
    return str(default) if is_plain else getattr(default, "__name__", type(default).__name__)


def _wrapped(lines: Sequence[str]) -> list[str]:
    """Lines of one screen's width, the further ones of a line indented."""
    found: list[str] = []
    for line in lines:
        found += wrap(line, WIDTH, subsequent_indent=" " * 6, break_long_words=False) or [""]
    return found
