"""What a pair and its counts must be, checked where they are handed over."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from pyro.poutine.guide import GuideMessenger
from torch import nn
from torch.distributions import Distribution

PROGRAM_OF = {  # how a conditional, or a distribution, becomes a program
    "model": "LatentVariableModel(prior, likelihood), or DensityModel(p_x) with EmptyGuide()",
    "guide": "AmortizedGuide(Conditional(dist.Normal, net))",
}


class RunsPrograms:
    """A module that runs a model and a guide and is neither, such as a loss: refused in their place."""


def check_programs(model: Any, guide: Any) -> None:
    """Refuse what is no program, such as a VAE in place of one; `None` stands for no program."""
    if model is None and guide is None:
        raise TypeError("expected a Pyro program, a model or a guide, got None. Fix: vae.guide.")
    if model is None:
        check_program(guide, "guide")
    elif guide is None:
        check_program(model, "model")
    else:
        check_pair(model, guide)


def check_pair(model: Any, guide: Any, fix: str = "vae.model, vae.guide in place of vae") -> None:
    """Refuse what is no pair of programs, such as a VAE in place of its two programs."""
    if not (is_program(model) and is_program(guide)):
        mended = fix_of_program("model", model) or fix_of_program("guide", guide) or fix
        raise TypeError(
            f"expected a model and its guide, got {describe(model)} and {describe(guide)}. "
            f"Fix: {mended}."
        )


def check_program(program: Any, role: str = "model") -> None:
    """Refuse what can't be run, such as a VAE in place of a program; `None` stands for no program."""
    if program is not None and not is_program(program):
        mended = fix_of_program(role, program) or "vae.model or vae.guide in place of vae"
        raise TypeError(
            f"expected a Pyro program, a model or a guide, got {describe(program)}. Fix: {mended}."
        )


def is_program(value: Any) -> bool:
    """Whether it is a function or a module that can be run and returns no distribution.

    A VAE has no forward of its own: it holds two programs. A messenger guide of Pyro has none either, and is one.
    """
    if isinstance(value, (type, Distribution, RunsPrograms)):
        return False
    if not isinstance(value, nn.Module) or isinstance(value, GuideMessenger):
        return callable(value)
    forward = value.forward
    if getattr(forward, "__func__", forward) is nn.Module.forward:
        return False
    return not returns_distribution(forward)


def fix_of_program(role: str, value: Any) -> str | None:
    """The fix of an objective, a class, a distribution or a conditional in place of a program, or `None`.

    Args:
        role: "model" or "guide".
        value: what was handed over in this role.
    """
    if isinstance(value, RunsPrograms):
        return f"objective.{role} in place of the objective"
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"an instance, {value.__name__}(…)"
    if isinstance(value, type):
        return PROGRAM_OF[role]
    is_conditional = isinstance(value, nn.Module) and returns_distribution(value.forward)
    if isinstance(value, Distribution) or is_conditional:
        return PROGRAM_OF[role]
    return None


def returns_distribution(forward: Callable[..., Any]) -> bool:
    """Whether a forward says in its signature that it returns a distribution, as a conditional does."""
    returned = getattr(forward, "__annotations__", {}).get("return")
    if isinstance(returned, str):  # as `from __future__ import annotations` leaves it
        name = returned.rpartition(".")[2]
        if name.endswith("Distribution"):
            return True
        returned = getattr(forward, "__globals__", {}).get(name)
    return isinstance(returned, type) and issubclass(returned, Distribution)


def describe(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return type(value).__name__


def require_positive(**counts: int) -> None:
    """Refuse counts below 1, and what is no number."""
    for name, count in counts.items():
        if not isinstance(count, Real):
            raise TypeError(
                f"{name}: expected a number, at least 1, got {describe(count)}. Fix: {name}=1 or more."
            )
        if not isinstance(count, Integral):
            raise TypeError(
                f"{name}: expected a whole number, got {count!r}. Fix: {name}={max(1, round(count))}."
            )
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}. Fix: {name}=1 or more.")


def refuse_one(role: str, program: Any, fix: str) -> None:
    """Refuse one program where a pair is asked for.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"expected a model and its guide, got a {role} alone, {describe(program)}. Fix: {fix}."
    )
