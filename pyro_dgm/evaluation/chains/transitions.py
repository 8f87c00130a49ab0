r"""One transition of Hamiltonian Monte Carlo, on a density of any (chain, datum) pairs that are independent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


def transition(log_f: LogDensity, zeta: Tensor, step: Tensor, num: int) -> tuple[Tensor, Tensor]:
    r"""One draw of HMC, $\zeta \mapsto \zeta'$, which leaves f invariant for every (chain, datum).

    Args:
        log_f: log density `(K, N)` of coordinates `(K, N, D)`.
        zeta: where the chains are.
        step: leapfrog steps of every datum and dim `(N, D)`; each trajectory takes 0.8 to 1.2 times as much.
        num: largest number of steps; each transition takes 1 to `num` of them, so that it is no period of the density.

    Returns:
        the next coordinates and the acceptance probabilities `(K, N)`.
    """
    step = step * (0.8 + 0.4 * torch.rand_like(zeta[..., :1]))
    momentum = torch.randn_like(zeta)
    value, gradient = value_and_gradient(log_f, zeta)
    energy = _kinetic(momentum) - value
    length = int(torch.randint(1, num + 1, (), device="cpu"))  # no device waits for it

    proposal = zeta
    momentum = momentum + step / 2 * gradient
    for i in range(length):
        proposal = proposal + step * momentum
        value, gradient = value_and_gradient(log_f, proposal)
        is_last = i == length - 1
        momentum = momentum + (step / 2 if is_last else step) * gradient

    # A trajectory that leaves the numbers has no energy, and is refused.
    log_accept = (energy + value - _kinetic(momentum)).clamp(max=0)
    accept = log_accept.exp().nan_to_num(0.0)
    is_accepted = torch.rand_like(accept) < accept
    return torch.where(is_accepted[..., None], proposal, zeta), accept


def value_and_gradient(log_f: LogDensity, zeta: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\log f$ `(K, N)` and $\nabla \log f$ `(K, N, D)`; the pairs are independent, so that of the sum does."""
    with torch.enable_grad():
        zeta = zeta.detach().requires_grad_()
        value = log_f(zeta)
        (gradient,) = torch.autograd.grad(value.sum(), zeta)
    return value.detach(), gradient


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.double().square().sum(-1) / 2
