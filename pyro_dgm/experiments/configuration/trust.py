"""What a configuration may name: classes and functions of torch, Pyro and this package, and what the caller trusts."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings

from .wording import in_one_line, own_words

# What a configuration names classes and functions for.
PARTS = ("model", "data", "objective", "trainer", "adversarial", "loggers")
ROOTS = ("pyro_dgm", "pyro", "torch")
# Parts of torch that load code or files, start processes, or hold what does; no model is built from them.
REFUSED = (
    "torch.load",
    "torch.save",
    "torch.serialization",
    "torch.hub",
    "torch.jit",
    "torch.package",
    "torch.export",
    "torch.compile",
    "torch.compiler",
    "torch.utils",
    "torch.ops",
    "torch.classes",
    "torch._ops",
    "torch._classes",
    "torch._inductor",
    "torch._dynamo",
    "torch.testing",
    "torch.multiprocessing",
    "torch.distributed",
    "torch.onnx",
)
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
KEY = re.compile(r'Parser key "([^"]+)"')
DENIED = re.compile(r"Importing '([\w.]+)' is not allowed, denied by .*?\. Add .*? to allow it\.")


@contextmanager
def only_trusted(trust: Sequence[str] = ()) -> Iterator[None]:
    """While it lasts, import paths lead into torch, Pyro, this package and what is trusted, and nowhere else.

    A path is looked at before anything is imported, and what it led to by its own name: `torch.os.system` is
    `posix.system`. Which kind an argument takes (a subclass, or a function that says that it returns one) is checked by
    the parser beside that. A class in a place of any type is left a dict, and not built.

    Args:
        trust: modules and packages that may be named as well, such as `["mymodel"]`.

    Raises:
        ValueError: for a name that is no module's.
    """
    for name in trust:
        if not all(part.isidentifier() for part in name.split(".")) or name == "jsonargparse":
            raise ValueError(
                f"trust: expected names of modules, got '{name}'. Fix: --trust=mymodel."
            )
    before = dict(parsing_settings)
    set_parsing_settings(
        import_path_denylist=["*", *REFUSED],
        import_path_allowlist=[*ROOTS, *trust],
        instantiate_subclass_spec_in_any=False,
    )
    try:
        with warnings.catch_warnings():
            # The parser looks each class up under its shortest path, pyro_dgm.Objective among them.
            warnings.filterwarnings("ignore", message=r"dgm\.\w+ has moved")
            yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)


def explain(message: str) -> str:
    """An error of the parser; of what is not trusted in the words of this package, with its key and one fix.

    The parser tries each type that a place takes, and says of each that it was denied.
    """
    found = DENIED.search(message)
    if found is None:
        return message
    key = ".".join(KEY.findall(message[: found.start()]))
    return f"{key}: {refusal(found[1])}" if key else refusal(found[1])


def with_fix(message: str) -> str:
    """An error of the parser with what helps, where it does not say so itself."""
    message = in_one_line(own_words(explain(message)))
    if "Fix:" in message:
        return message
    if "No module named" in message:
        fix = "run it where the module is by python -m pyro_dgm, or install the module"
    else:
        part = next(iter(KEY.findall(message)), "model")
        of_part = f"--{part}.help=CLASS for the settings of a class" if part in PARTS else "--help"
        fix = f"what the key takes, see {of_part}"
    return f"{message.rstrip().rstrip('.')}. Fix: {fix}."


def refusal(path: str, message: str = "") -> str:
    """Why a path is not followed; `message` may name what it led to by its own name."""
    path = next(iter(DENIED.findall(message)), path)
    expected = f"expected a part of {', '.join(ROOTS)}, or of a module that you trust, got '{path}'"
    if path.startswith(tuple(f"{name}." for name in (*ROOTS, "posix", "builtins"))) or (
        path.split(".")[0] in sys.stdlib_module_names
    ):
        return (
            f"{expected}, of which no model is built. Fix: a class of the kind that is asked for."
        )
    return f"{expected}, which was not imported. Fix: --trust={path.split('.')[0]}, if it is yours."


def take_trust(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--trust=NAME` or `--trust NAME`, and its names.

    It is taken before anything is parsed, so that no file can say it.
    """
    rest: list[str] = []
    trusted: list[str] = []
    for argument in arguments:
        if rest and rest[-1] == "--trust":
            rest.pop()
            trusted += argument.split(",")
        elif argument.startswith("--trust="):
            trusted += argument.removeprefix("--trust=").split(",")
        else:
            rest.append(argument)
    return rest, trusted


def trusted_by(
    parse: Callable[[Sequence[str]], object],
    flags: Sequence[str],
    find: Callable[[str], None],
    trust: Sequence[str] = (),
) -> list[str]:
    """Modules that flags name where a class or a function is asked for, which is the caller's word.

    A value that only looks like an import path, such as that of `--data.folder=./evil.v1`, is none: the parser never
    asks for it. Nothing is built.

    Args:
        parse: parses the flags behind what files say, without what these name of the modules that it is given.
        flags: what they are.
        find: makes a module importable, once it is trusted.
        trust: modules that are trusted already.
    """
    candidates = modules_in(flags)
    found: list[str] = []
    while candidates:
        try:
            with only_trusted([*trust, *found]):
                parse(candidates)
        except Exception as error:  # also what a module of the user's own raises: it is told later
            asked = [path.split(".")[0] for path in DENIED.findall(str(error))]
            new = [name for name in asked if name in candidates and name not in found]
            if new:
                found += new
                for name in new:
                    find(name)
                continue
        break
    return found


def without_modules(settings: Any, modules: Sequence[str]) -> Any:
    """What a file says, without the classes and functions that it names of some modules.

    Example:
        >>> without_modules({"model": {"class_path": "evil.VAE"}, "epochs": 3}, ["evil"])
        {'epochs': 3}
    """
    if isinstance(settings, Mapping):
        kept = {}
        for name, value in settings.items():
            if not _is_of(value, modules):
                kept[name] = without_modules(value, modules)
        return kept
    if isinstance(settings, list):
        return [without_modules(value, modules) for value in settings if not _is_of(value, modules)]
    return settings


def _is_of(value: Any, modules: Sequence[str]) -> bool:
    """Whether a setting is a class or a function of one of some modules, or may be taken for one."""
    name = value.get("class_path") if isinstance(value, Mapping) else value
    return isinstance(name, str) and name.split(".")[0] in modules


def modules_in(arguments: Sequence[str]) -> list[str]:
    """Modules that values of flags may name, by their looks; never those of Python itself.

    Example:
        >>> modules_in(["fit", "--model=mymodel.my_vae", "--objective=os.system", "--config", "run.yaml"])
        ['mymodel']
    """
    found: dict[str, None] = {}
    flag = ""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.startswith("--"):
            flag = name.removeprefix("--").split(".")[0]
        else:
            value = argument
        for path in DOTTED.findall(value) if flag in PARTS else ():
            found[path.split(".")[0]] = None
    never = {*sys.stdlib_module_names, *ROOTS, "jsonargparse"}
    return [name for name in found if name not in never]
