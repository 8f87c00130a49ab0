"""What a part must be, checked where it is handed over: a conditional, a network, a program, a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_origin, get_type_hints

import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from .program import Program

DISTRIBUTIONS = (Distribution, dist.Distribution)
NUMBERS = (Tensor, tuple, list, dict)  # what networks and bijectors return


def require_conditional(argument: str, value: Any, example: str) -> None:
    """Refuse what is no conditional: a distribution, a class, a program, a network, a function.

    A module is judged by the type that its forward says it returns. What it returns where it says nothing is
    seen when it runs, by `distribution_of`.

    Args:
        argument: name of the argument, which starts the message.
        value: what was given.
        example: a right value as code, for the message.

    Raises:
        TypeError: with the argument, what it got, and `argument=example` as the fix.

    Example:
        >>> from pyro_dgm import StandardNormal
        >>> require_conditional("prior", StandardNormal, "StandardNormal(8)")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: prior: expected ...; got the class StandardNormal. Fix: prior=StandardNormal(8).
    """
    refused = not isinstance(value, nn.Module) or isinstance(value, Program)
    if refused or _lacks_a_forward(value) or _returns_numbers(value):
        raise TypeError(
            f"{argument}: expected a conditional, a module whose forward returns a distribution; "
            f"got {describe(value)}. Fix: {argument}={example}."
        )


def distribution_of(argument: str, conditional: nn.Module, *context: Tensor) -> Any:
    r"""$p(\cdot \mid c)$, refused if the module returns something else, as a network returns a tensor.

    Raises:
        TypeError: if the module returns no distribution.
    """
    distribution = conditional(*context)
    if not isinstance(distribution, DISTRIBUTIONS):
        raise TypeError(
            f"{argument}: expected a conditional, a module whose forward returns a distribution; "
            f"got {type(conditional).__name__}, which returned {type(distribution).__name__}. "
            f"Fix: {argument}=Conditional(dist.Normal, net)."
        )
    return distribution


def require_network(owner: str, value: Any) -> None:
    """Refuse what maps no tensor to raw parameters: a distribution, a class, a conditional, a program.

    Args:
        owner: the conditional that asks for the network.
        value: what was given.

    Raises:
        TypeError: with what it got, and the fix.
    """
    refused = isinstance(value, (*DISTRIBUTIONS, type, Program)) or not callable(value)
    if refused or _lacks_a_forward(value) or _returns_a_distribution(value):
        raise TypeError(
            f"{owner}: expected a network, which maps a context to raw parameters; "
            f"got {describe(value)}. Fix: net=mlp(num_in, hidden, num_out)."
        )


def require_program(owner: str, value: Any, fix: str, fix_of_conditional: str) -> None:
    """Refuse what is no program: a VAE, which holds two, a conditional, a distribution, a class, a number.

    Args:
        owner: who asks for the program.
        value: what was given.
        fix: the right call in place of one with a VAE, as code.
        fix_of_conditional: the right call in place of one with a conditional.

    Raises:
        TypeError: with what it got, and the fix.
    """
    is_conditional = isinstance(value, DISTRIBUTIONS) or _returns_a_distribution(value)
    refused = isinstance(value, type) or not callable(value)
    if is_conditional or refused or _lacks_a_forward(value):
        raise TypeError(
            f"{owner}: expected a program, which draws its sites by pyro.sample; "
            f"got {describe(value)}. Fix: {fix_of_conditional if is_conditional else fix}."
        )


def require_sizes(owner: str, **sizes: int | Sequence[int]) -> None:
    """Refuse sizes below 1; a size may be a shape.

    Raises:
        ValueError: with the first such size, and the fix.
    """
    for name, size in sizes.items():
        shape = size if isinstance(size, Sequence) else (size,)
        if any(length < 1 for length in shape):
            raise ValueError(f"{owner}: expected {name} >= 1, got {size}. Fix: {name}=8.")


def describe(value: Any) -> str:
    """What a value is, in the words of a message."""
    name = type(value).__name__
    if isinstance(value, DISTRIBUTIONS):
        return f"the distribution {value}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Program):
        return f"the program {name}"
    if _lacks_a_forward(value):
        return f"{name}, which has no forward"
    if _returns_a_distribution(value):
        return f"the conditional {name}"
    if _returns_numbers(value):
        return f"{name}, whose forward returns a {_returned_type(value).__name__}"
    return name


def _lacks_a_forward(value: Any) -> bool:
    """Whether it is a module that can't be run, as a VAE, which holds two programs."""
    return isinstance(value, nn.Module) and _forward(value) is nn.Module.forward


def _returns_a_distribution(value: Any) -> bool:
    return issubclass(_returned_type(value), DISTRIBUTIONS)


def _returns_numbers(value: Any) -> bool:
    return issubclass(_returned_type(value), NUMBERS)


def _returned_type(value: Any) -> type:
    """The type that a module's forward is annotated to return; `object` where it does not say."""
    if not isinstance(value, nn.Module):
        return object
    forward = _forward(value)
    if isinstance(value, nn.Sequential) and forward is nn.Sequential.forward and len(value):
        return _returned_type(value[-1])
    try:
        returned = get_type_hints(forward).get("return")
    except (NameError, TypeError, AttributeError):
        return object  # a script, or a type that is imported for type checkers alone
    returned = get_origin(returned) or returned
    return returned if isinstance(returned, type) else object


def _forward(module: nn.Module) -> Any:
    """The function behind a module's `forward`, without the module."""
    return getattr(module.forward, "__func__", module.forward)
