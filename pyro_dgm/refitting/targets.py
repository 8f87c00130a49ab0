"""What `fit_posterior` climbs: a guide and its posterior; here the density of all latents at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import PyroProgram
from ..inference.adoption.programs import as_module
from ..inference.process.states import eval_mode, fork_rng
from ..inference.sites.described import names_of_numbers
from ..programs.flow_guide import FlowGuide
from .log_density import LogDensity, Values
from .newton import Normal, best_normal
from .verdict import Verdict

SPREAD_OF_STARTS = 1.0


class Target(ABC):
    r"""A guide and the posterior that it is fitted to; abstract.

    Attributes:
        guide: trained in place.
        betas: of Adam.
    """

    guide: FlowGuide
    betas = (0.9, 0.999)

    @abstractmethod
    def best_normal(self, start: Tensor) -> Normal:
        """The normal to begin at, found from a location of the flow, `(D,)`."""

    @abstractmethod
    def descend(self, num_particles: int, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Set the gradients of some parameters to those of the −ELBO from K draws.

        Returns:
            the −ELBO in nats, and the share of draws with a finite density, `(2,)`; nothing is read on the host.
        """

    @abstractmethod
    def judge(self, num: int, seed: int) -> Verdict:
        """The verdict on the guide as it is, by so many draws."""

    @abstractmethod
    def draws(self, num: int, seed: int) -> Values:
        """Latent or `pyro.deterministic` site → draws `(num, *shape)`."""

    def moving(self, share: float) -> list[nn.Parameter]:
        """The parameters that are trained when this share of the steps is done: all of the guide."""
        return [p for p in self.guide.parameters() if p.requires_grad]

    def place(self, *, elsewhere: bool) -> None:
        """Put the flow at the best normal from its initial location, or from a random place around it."""
        start = self.guide.affine.loc.clone()
        if elsewhere:
            start = start + SPREAD_OF_STARTS * torch.randn_like(start)
        normal = self.best_normal(start)
        self.guide.place(normal.loc, normal.scale_tril)


class AllLatents(Target):
    r"""$\log p(x, z)$ of all latents at once, by the flow alone.

    Args:
        model: a program with continuous latents.
        guide: a `FlowGuide` of all of them.
        args: of both.
    """

    def __init__(self, model: PyroProgram, guide: FlowGuide, args: tuple[Any, ...]):
        self.guide = guide
        self.density = LogDensity(model, guide, args)

    def best_normal(self, start: Tensor) -> Normal:  # noqa: D102
        return best_normal(self.density, start)

    def descend(self, num_particles: int, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Fast path gradients of the draws that have a finite density; the others give no direction."""
        drawn = self.guide.posterior_flow().draw_with_score(num_particles)
        log_p, slope = self.density.gradient(drawn.y)
        # A draw outside the domain of the density, or of its floats, says nothing of the direction.
        finite = log_p.isfinite() & slope.isfinite().all(-1) & drawn.score.isfinite().all(-1)
        direction = torch.where(finite[:, None], drawn.score - slope, 0.0)
        cost = torch.where(finite, drawn.log_q.detach() - log_p, 0.0).sum() / finite.sum()
        for parameter in parameters:
            parameter.grad = None
        drawn.y.backward(direction / num_particles)
        return torch.stack([cost, finite.to(cost).mean()])

    @torch.no_grad()
    def judge(self, num: int, seed: int) -> Verdict:  # noqa: D102
        posterior = self.guide.get_posterior()
        u = posterior.sample((num,))
        log_weight = self.density.evaluate(u) - posterior.log_prob(u)
        return verdict_on(log_weight, self.density.quantities(u))

    def draws(self, num: int, seed: int) -> Values:  # noqa: D102
        with fork_rng(self.guide.affine.loc, seed=seed), eval_mode(as_module(self.density.model)):
            return self.density.quantities(self.guide.get_posterior().sample((num,)))


def verdict_on(log_weight: Tensor, values: Values) -> Verdict:
    """The verdict on draws of some quantities, name → `(K, *shape)`, with log weights `(K,)`."""
    names, columns = [], []
    for name, value in values.items():
        names += names_of_numbers(name, value.shape[1:])
        columns.append(value.reshape(len(value), -1))
    return Verdict.of(log_weight, names, torch.cat(columns, dim=-1))
