"""A function or a bound method as a module: what holds its networks, so that modes, devices and optimizers see them."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn
from torch.distributions import Distribution

from ...contract import PyroProgram

DEPTH = 4  # how deep wrappers, closures and objects are looked into for networks


class Adopted(nn.Module):
    """A program that is no module, with the networks that it runs as its parts; `adopt` makes it.

    Parameters that only `pyro.param` statements know are no part of it: the trace names them when it runs.

    Args:
        program: a function, a bound method, a `functools.partial`, a program inside Pyro's handlers.
    """

    def __init__(self, program: Callable[..., Any]):
        super().__init__()
        self._program = (program,)  # no part: a bound method's module is one already
        self.networks = nn.ModuleList(networks_of(program))

    @property
    def program(self) -> Callable[..., Any]:
        """What was adopted."""
        return self._program[0]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.program)

    def forward(self, *batch: Any) -> Any:
        """Run the program; see `PyroProgram`."""
        return self.program(*batch)

    def extra_repr(self) -> str:
        """The name of the program."""
        return getattr(self.program, "__qualname__", type(self.program).__name__)


class FreshPlates(nn.Module):
    """An EasyGuide that forgets the plates of a run that failed: the next run would take them up.

    Args:
        guide: the EasyGuide.
    """

    def __init__(self, guide: EasyGuide):
        super().__init__()
        self.guide = guide

    def forward(self, *batch: Any) -> Any:
        """Run the guide; see `PyroProgram`."""
        try:
            return self.guide(*batch)
        finally:
            self.guide.plates.clear()


@dataclass(frozen=True)
class Pair:
    """A model and its guide, as `dgm.adopt(vae)` reads them off an object.

    Attributes:
        model, guide: the two programs.
    """

    model: Any
    guide: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.guide))


def adopt(owner: Any) -> Pair:
    """The pair of an object with the methods `model` and `guide`, such as Pyro's own VAE, or of two programs.

    No estimate and no objective needs it: `ELBO(vae.model, vae.guide)` and `nll(vae.model, vae.guide, x)` take bound
    methods, functions, PyroModules and AutoGuides as they are.

    Args:
        owner: an object with `model` and `guide`, or a tuple of two programs.

    Raises:
        TypeError: for what has no two programs.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        >>> pair = adopt((model, lambda x: None))
        >>> pair.model
        Adopted(
          model
          (networks): ModuleList()
        )
    """
    model, guide = owner if isinstance(owner, tuple) and len(owner) == 2 else (None, None)
    if model is None:
        model, guide = getattr(owner, "model", None), getattr(owner, "guide", None)
    if not (callable(model) and callable(guide)):
        raise TypeError(
            f"adopt: expected an object with the methods model and guide, got {type(owner).__name__}. "
            "Fix: adopt((model, guide)), of two programs."
        )
    return Pair(as_module(model), as_module(guide))


def as_module(program: Any) -> Any:
    """A program as a module: itself if it is one, or is no program at all.

    A module that is run by its own `__call__` and has no `forward`, such as a messenger guide of Pyro, is adopted.
    """
    is_other = isinstance(program, (type, Distribution))  # a distribution names no site
    if is_other or not callable(program):
        return program
    if isinstance(program, EasyGuide):
        return FreshPlates(program)
    if isinstance(program, nn.Module) and not _is_called_alone(program):
        return program
    return Adopted(program)


def _is_called_alone(module: nn.Module) -> bool:
    has_no_forward = type(module).forward is nn.Module.forward
    return has_no_forward and isinstance(module, GuideMessenger)


def networks_of(program: Any) -> list[nn.Module]:
    """The modules that a program runs, as far as its owner, closure, arguments and global names tell.

    One that is a part of another is not named again.
    """
    found: dict[int, nn.Module] = {}
    _collect(program, found, DEPTH, set())
    parts = set()
    for module in found.values():
        parts |= {id(part) for part in module.modules() if part is not module}
    return [module for key, module in found.items() if key not in parts]


def _collect(value: Any, found: dict[int, nn.Module], depth: int, seen: set[int]) -> None:
    if isinstance(value, nn.Module):
        found[id(value)] = value
        return
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    for part in _parts(value):
        _collect(part, found, depth - 1, seen)


def _parts(value: Any) -> Iterable[Any]:
    """What a callable or a container holds."""
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, FunctionType):
        return _parts_of_function(value)
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    is_plain = isinstance(value, (Tensor, type, str, bytes, int, float)) or inspect.ismodule(value)
    return () if is_plain else getattr(value, "__dict__", {}).values()


def _parts_of_function(function: FunctionType) -> list[Any]:
    parts: list[Any] = [*(function.__defaults__ or ()), getattr(function, "__wrapped__", None)]
    for cell in function.__closure__ or ():
        try:
            parts.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            continue
    for name in _names(function.__code__):
        parts.append(function.__globals__.get(name))
    return parts


def _names(code: CodeType) -> set[str]:
    """The global names in a function, and in those defined inside it."""
    # Not `co_names`, which has the names of attributes as well
    loads = [step for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"]
    names = {step.argval for step in loads}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def is_adopted(program: PyroProgram) -> bool:
    """Whether a program keeps parameters where only a run finds them: a function, or a guide that Pyro makes."""
    if not isinstance(program, nn.Module):
        return False
    return any(isinstance(module, (Adopted, AutoGuide, EasyGuide)) for module in program.modules())
