r"""One transition of Hamiltonian Monte Carlo, on a density of any (chain, datum) pairs that are independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]
ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


def transition(
    gradient_at: ValueAndGradient, zeta: Tensor, step: Tensor, num: int
) -> tuple[Tensor, Tensor]:
    r"""One draw of HMC, $\zeta \mapsto \zeta'$, which leaves f invariant for every (chain, datum).

    Args:
        gradient_at: log density `(K, N)` and its gradient at coordinates `(K, N, D)`, as `by_autograd` has them.
        zeta: where the chains are.
        step: leapfrog steps of every datum and dim `(N, D)`; each trajectory takes 0.8 to 1.2 times as much.
        num: largest number of steps; each transition takes 1 to `num` of them, so that it is no period of the density.

    Returns:
        the next coordinates and the acceptance probabilities `(K, N)`.
    """
    jitter = 0.8 + 0.4 * torch.rand_like(zeta[..., :1])
    momentum = torch.randn_like(zeta)
    value, gradient = gradient_at(zeta)
    length = int(torch.randint(1, num + 1, (), device="cpu"))  # no device waits for it
    begin = _State(zeta, momentum, value, gradient)
    end = _leapfrog(gradient_at, begin, step * jitter, length)
    energy = _kinetic(begin.momentum) - begin.value
    # A trajectory that leaves the numbers has no energy, and is refused.
    log_accept = (energy + end.value - _kinetic(end.momentum)).clamp(max=0)
    accept = log_accept.exp().nan_to_num(0.0)
    is_accepted = torch.rand_like(accept) < accept
    return torch.where(is_accepted[..., None], end.zeta, zeta), accept


@dataclass(frozen=True)
class _State:
    """Where a trajectory is.

    Attributes:
        zeta: coordinates `(K, N, D)`.
        momentum: `(K, N, D)`.
        value: log density `(K, N)`.
        gradient: of the log density `(K, N, D)`.
    """

    zeta: Tensor
    momentum: Tensor
    value: Tensor
    gradient: Tensor


def _leapfrog(gradient_at: ValueAndGradient, state: _State, step: Tensor, num: int) -> _State:
    """The trajectory after `num` steps, at least one; a momentum takes half a step first and last."""
    zeta, value, gradient = state.zeta, state.value, state.gradient
    momentum = state.momentum + step / 2 * gradient
    for i in range(num):
        if i > 0:
            momentum = momentum + step * gradient
        zeta = zeta + step * momentum
        value, gradient = gradient_at(zeta)
    momentum = momentum + step / 2 * gradient
    return _State(zeta, momentum, value, gradient)


def by_autograd(log_f: LogDensity) -> ValueAndGradient:
    """`value_and_gradient` of a log density, as a function of the coordinates."""
    return partial(value_and_gradient, log_f)


def value_and_gradient(log_f: LogDensity, zeta: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\log f$ `(K, N)` and $\nabla \log f$ `(K, N, D)`; the pairs are independent, so that of the sum does."""
    with torch.enable_grad():
        zeta = zeta.detach().requires_grad_()
        value = log_f(zeta)
        (gradient,) = torch.autograd.grad(value.sum(), zeta)
    return value.detach(), gradient


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.double().square().sum(-1) / 2
