"""Programs of one's own: a composition under `pyro_dgm.VAE`, or what gives a model and a guide."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...inference.adoption.programs import adopt
from ...programs import vae as programs
from ..data.datasets import Data
from ..spelling import nearest
from .recipe import ModelAndGuide, Recipe

FOREIGN = ("torch", "pyro", "pyro_dgm", "builtins")
CATALOGUE = "pyro_dgm.experiments.catalogue."


@dataclass(frozen=True)
class Composition(Recipe):
    """A VAE written out as in Python, whose sizes are those that you say.

    Args:
        vae: `pyro_dgm.VAE`, or a function that returns one.
    """

    vae: programs.VAE

    def build(self, data: Data) -> programs.VAE:  # noqa: D102
        return self.vae


@dataclass(frozen=True)
class Own(Recipe):
    """A program of your own: a class or a function that gives a model and a guide.

    What it gives has `model` and `guide`, which are modules, methods or functions, or it is a tuple of the two. It is
    called with those of `data`, `dim`, `event_shape`, `levels`, `num_context` and `size` (how many training data there
    are) that its signature names.

    Args:
        program: import path of the class or function, such as `mymodel.MyVAE`.
        arguments: further arguments by name.

    Raises:
        TypeError: for what gives no model and guide.
        ValueError: for an argument that it does not take, or one that it needs and does not get.
    """

    program: type | Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        module = str(getattr(self.program, "__module__", None) or "builtins")
        is_foreign = module.split(".")[0] in FOREIGN and not module.startswith(CATALOGUE)
        if is_foreign or not _is_written_in_python(self.program):
            raise ValueError(
                f"program: expected a class or a function of your own, got {_name(self.program)} "
                f"of {module}. Fix: --model.program=mymodel.MyVAE."
            )

    def build(self, data: Data) -> nn.Module:  # noqa: D102
        given = arguments_for(self.program, facts_of(data), self.arguments)
        made = self.program(**given)
        try:
            pair = adopt(made)
        except TypeError as error:
            raise TypeError(
                f"program: expected {_name(self.program)} to give an object with model and guide, "
                f"or a tuple of the two, got {type(made).__name__}. "
                "Fix: return model, guide."
            ) from error
        if isinstance(made, nn.Module) and made.model is pair.model and made.guide is pair.guide:
            return made
        return ModelAndGuide(pair.model, pair.guide)


def facts_of(data: Data) -> dict[str, Any]:
    """What a program may ask for by the name of its argument."""
    return {
        "data": data,
        "dim": data.dim,
        "event_shape": data.event_shape,
        "levels": data.levels,
        "num_context": data.num_context,
        "size": len(data.train),
    }


def arguments_for(
    program: Callable[..., Any], facts: Mapping[str, Any], further: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments that a program is called with: facts that it names, and further ones.

    Raises:
        ValueError: for one that it does not take, or one that it needs and does not get.
    """
    parameters = inspect.signature(program).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    taken = [
        name
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        _refuse_unknown(program, further, taken)
    given = {name: facts[name] for name in taken if name in facts} | dict(further)
    missing = [
        n for n in taken if n not in given and parameters[n].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(
            f"arguments: expected {', '.join(missing)}, which {_name(program)} needs, "
            f"got {sorted(given)}. Fix: --model.arguments.{missing[0]}=…; what the data say goes "
            f"by the names {', '.join(facts)}."
        )
    return given


def _refuse_unknown(program: Callable[..., Any], further: Iterable[str], taken: list[str]) -> None:
    for name in further:
        if name in taken:
            continue
        close = nearest(name, taken)
        fix = f"did you mean '{close}'?" if close else "leave it out."
        raise ValueError(
            f"arguments: expected those of {_name(program)}, which are {taken}, got '{name}'. Fix: {fix}"
        )


def _is_written_in_python(program: Any) -> bool:
    return inspect.isclass(program) or inspect.isfunction(program) or inspect.ismethod(program)


def _name(program: Any) -> str:
    return getattr(program, "__qualname__", type(program).__name__)
