"""The first mistake in what files and flags say: its path, what was expected there, and the nearest name.

The parser decides what is a mistake; here it is found again in the tree of settings, beside the annotations of the
constructors, because the parser's own words grow with each type that it has tried.
"""

from __future__ import annotations

import traceback
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse._common import ImportDenied
from jsonargparse._typehints import resolve_class_path_by_name
from jsonargparse._util import import_object

from ..data.readers.locating import nearest_file
from ..spelling import nearest
from .kinds import check_function
from .modules import file_of
from .said import CLASS, SETTINGS, Word, class_and_settings, settings_said
from .trust import ROOTS, refusal
from .wanted import MANY, Place, choices_of, places_of

# What a place takes beside the classes of its kind.
ALSO = {"model": "file.py:Name", "data": "a file or a folder"}
NULLS = ("null", "~", "")
SHOWN = 60  # letters of a value


def mistake_of(arguments: Sequence[str], owner: Callable[..., Any]) -> str | None:
    """The first mistake of plain arguments, as an error says it; `None` where none is found.

    Args:
        arguments: what the parser has refused.
        owner: the function whose arguments they set.
    """
    known = places_of(owner, "")
    for argument in arguments:
        name, is_joined, _ = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            return (
                f"{argument}: expected flags as --NAME=VALUE, with two hyphens, got '{argument}'. "
                "Fix: pyro-dgm fit --help, for their names."
            )
        if not is_joined and name.split(".")[0] in known:
            return f"{name}: expected --{name}=VALUE, got '{argument}'. Fix: say the value, or leave it out."
    return mistake_in(settings_said(arguments), owner)


def mistake_in(settings: Mapping[str, Any], owner: Callable[..., Any]) -> str | None:
    """The first mistake of nested settings, as an error says it; `None` where none is found."""
    try:
        _check_settings("", settings, owner, 0)
    except Mistake as mistake:
        return str(mistake)
    return None


class Mistake(ValueError):
    """A value that a place does not take."""


def _mistake(path: str, expected: str, got: Any, fix: str) -> Mistake:
    shown = got if isinstance(got, Shown) else repr(str(got) if isinstance(got, Word) else got)
    if len(shown) > SHOWN and not isinstance(got, Shown):
        shown = f"{shown[:SHOWN]}…"
    return Mistake(f"{path}: expected {expected}, got {shown}. Fix: {fix}.")


class Shown(str):
    """What was got, in words already."""


def _check_settings(
    path: str, settings: Mapping[str, Any], owner: Callable[..., Any], num_given: int
) -> None:
    """Each name is a setting of a class or function, and its value is what that takes."""
    places = places_of(owner, path, num_given)
    what = f"a setting of {owner.__name__}" if path else "a part of an experiment"
    for name in settings:
        if name not in places:
            here = f"{path}.{name}" if path else str(name)
            fix = near(str(name), places) or (
                f"leave it out, or see pyro-dgm fit --{path}.help={owner.__name__}"
                if path
                else "pyro-dgm fit --help"
            )
            known = f"{what}: {', '.join(places)}" if places else f"none, {owner.__name__} has none"
            raise _mistake(here, known, str(name), fix)
    for name, value in settings.items():
        _check(places[name], value)
    for name, place in places.items():
        if place.is_required and name not in settings:
            raise _mistake(place.path, _wanted(place), Shown("nothing"), place.flag(place.example))


def _check(place: Place, value: Any) -> None:
    """A value is what a place takes, and each that it holds."""
    is_class = bool(place.kinds) or place.takes_any_function
    if is_null(value):
        _check_plain(place, value)
    elif isinstance(value, list) and place.holds(Sequence):
        for number, item in enumerate(value):
            _check(Place(f"{place.path}[{number}]", place.held(Sequence)), item)
        _check_plain(place, value)
    elif isinstance(value, Mapping) and CLASS not in value and place.holds(Mapping):
        for name, item in value.items():
            _check(Place(f"{place.path}.{name}", place.held(Mapping)), item)
        _check_plain(place, value)
    elif (
        is_class and isinstance(value, str | Mapping) and not _is_taken(place, value, is_spec=False)
    ):
        _check_class(place, value)
    else:
        _check_plain(place, value)


def _check_plain(place: Place, value: Any) -> None:
    """What the parser itself takes; else the words of the type, and a word that is near if it has a few."""
    if isinstance(value, float) and not isfinite(value):
        raise _mistake(place.path, "a finite number", value, place.flag(place.example))
    is_wrong = is_null(value) and not place.takes_null
    if not is_wrong and _is_taken(place, value, is_spec=True):
        return
    words = [word for option in place.options for word in choices_of(option)]
    flag = place.flag(place.example_for(value))
    said = f"{place.example} there" if "[" in place.path else flag
    fix = near(str(value), words) or said
    raise _mistake(place.path, _wanted(place), value, fix)


def _is_taken(place: Place, value: Any, *, is_spec: bool) -> bool:
    """Whether the parser takes a value there, by its type alone."""
    if not is_spec and isinstance(value, Mapping):
        return False
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=place.hint)
        if isinstance(value, Word):
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": value})
    except (ArgumentError, ValueError, TypeError, ImportError, AttributeError):
        return False
    except Exception:  # a module of the user's own that can't be imported
        return False
    return True


def _check_class(place: Place, value: Any) -> None:
    """The class that is named is one of the place's kind, and takes its settings."""
    name, settings = class_and_settings(value)
    if isinstance(value, Mapping) and CLASS in value:
        _check_names(place, value)
    if name is None and CLASS not in value:
        found = default_class(place)
        if found is None:
            raise _mistake(place.path, _wanted(place), value, place.flag(place.example))
    else:
        found = find_class(place, name)
    if settings or isinstance(found, type):
        _check_settings(place.path, settings, found, place.num_given)


def _check_names(place: Place, spec: Mapping[str, Any]) -> None:
    """Beside the class stand its settings, and nothing else."""
    for name in spec:
        if name not in (CLASS, SETTINGS, "dict_kwargs"):
            fix = f"{place.path}.{SETTINGS}.{name}"
            raise _mistake(f"{place.path}.{name}", f"{CLASS} and {SETTINGS} alone", name, fix)


def is_null(value: Any) -> bool:
    """Whether nothing is said, in a file or by a flag."""
    return value is None or (isinstance(value, Word) and value in NULLS)


def default_class(place: Place) -> Any:
    """The class that a place has when none is named."""
    default = None if place.is_required else place.default
    if isinstance(default, type):
        return default
    if isinstance(default, place.kinds):
        return type(default)
    has_names = len(place.names) == 1 and place.kinds
    return place.kinds[0] if has_names else None


def find_class(place: Place, name: Any) -> Any:
    """What a class path leads to.

    Raises:
        Mistake: if it leads nowhere, where nobody may go, or to another kind.
    """
    kinds: Any = place.kinds
    path = resolve_class_path_by_name(kinds, name) if isinstance(name, str) else ""
    if not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise _mistake(place.path, _wanted(place), name, _nearest_class(place, str(name)))
    try:
        found = import_object(path)
    except ImportDenied as error:
        raise Mistake(f"{place.path}: {refusal(path, str(error))}") from error
    except Exception as error:  # whatever a module of the user's own raises
        raise _not_imported(place, path, error) from error
    if place.takes_any_function:
        return found
    is_class = isinstance(found, type)
    if not callable(found) or (is_class and not issubclass(found, place.kinds)):
        fix = _nearest_class(place, str(name))
        if is_class and path.split(".")[0] not in ROOTS and "Own" not in place.names:
            fix = f"class {found.__name__}({kinds[0].__name__}), a subclass"
        raise _mistake(place.path, _wanted(place), str(name), fix)
    if not is_class:
        try:
            check_function(found, path, place.hint, place.path)
        except ValueError as error:
            raise Mistake(str(error)) from error
    return found


def _not_imported(place: Place, path: str, error: Exception) -> Mistake:
    """Why an import path leads nowhere: a name that is not there, a module that is not, or an error inside of it."""
    module = _longest_module(path)
    if isinstance(error, AttributeError | ImportError) and module is not None:
        missing = path.removeprefix(f"{module.__name__}.").split(".")[0]
        if not hasattr(module, missing):
            return _missing_name(place, module, missing)
    root = path.split(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == root:
        expected = f"{_wanted(place)}, or a name in a module that can be imported"
        fix = (
            f"run it in the folder of {root}.py, or say FOLDER/{root}.py:{path.rpartition('.')[2]}"
        )
        got = Shown(f"'{path}', and no such file") if place.path == "data" else path
        return _mistake(place.path, expected, got, fix)
    said = " ".join(str(error).split()).rstrip(".")
    got = Shown(f"{type(error).__name__}: {said}{_place_of(error, root)}")
    return _mistake(place.path, f"{root} to be imported without an error", got, "mend that line")


def _missing_name(place: Place, module: ModuleType, missing: str) -> Mistake:
    public = [name for name in dir(module) if not name.startswith("_")]
    own = [n for n in public if getattr(vars(module).get(n), "__module__", "") == module.__name__]
    file = Path(getattr(module, "__file__", None) or module.__name__).name
    where = module.__name__ if file == "__init__.py" else file
    expected = f"a name in {where}"
    if own and len(own) <= MANY:
        expected = f"{expected}: {', '.join(own)}"
    fix = near(missing, own or public) or f"a class or a function of {where}"
    return _mistake(place.path, expected, missing, fix)


def _longest_module(path: str) -> ModuleType | None:
    """The module that a path goes through, as far as there is one."""
    parts = path.split(".")
    for num in range(len(parts) - 1, 0, -1):
        try:
            return import_module(".".join(parts[:num]))
        except ImportError:
            continue
        except Exception:  # an error inside of it, which is told as such
            return None
    return None


def _place_of(error: Exception, module: str) -> str:
    """File and line of an error inside a module of the user's own."""
    if isinstance(error, SyntaxError):
        return "" if error.filename and "line" in str(error) else f" ({error.filename})"
    frames = traceback.extract_tb(error.__traceback__)
    last = ([one for one in frames if Path(one.filename) == file_of(module)] or frames)[-1]
    return f" ({last.filename}, line {last.lineno})"


def _nearest_class(place: Place, name: str) -> str:
    names = place.names
    if "Own" in names and "." in name and name.split(".")[0] not in ROOTS:
        return f"--{place.path}=Own --{place.path}.program={name}, for a program of your own"
    close = near(name.rpartition(".")[2], names)
    if close is None and place.path == "data" and (file := nearest_file(Path(name))):
        return f"--data={file}"
    return close or (f"--{place.path}={place.example}" if names else "a class of that kind")


def _wanted(place: Place) -> str:
    also = ALSO.get(place.path)
    return f"{place.wanted}, or {also}" if also else place.wanted


def near(name: str, names: Iterable[str]) -> str | None:
    """A fix by the nearest of some names, if one is near."""
    found = nearest(name, names)
    return f"did you mean '{found}'" if found else None
