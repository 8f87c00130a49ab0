"""The evidence lower bound of a pair with enumerated sites: their sum is Pyro's, `TraceEnum_ELBO`."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from ...contract import PyroProgram
from ..process.states import eval_mode, fork_rng
from ..run.traces import PairTrace, run_pair
from ..sites.kinds import has_own_scale, is_enumerated
from ..sites.measures import bound_name, point_sites
from .pyro_elbos import loss_of_pyro


@dataclass(frozen=True)
class Sums:
    """What a training loss sums over.

    Attributes:
        sites: names of the enumerated sites; none for a pair that draws all its latents.
        depth: number of plates.
        bound: name of the bound that the loss is; `None` where the loss has terms that no bound has.
    """

    sites: tuple[str, ...] = ()
    depth: int = 1
    bound: str | None = None

    @classmethod
    def of(cls, model: PyroProgram, guide: PyroProgram, batch: tuple[Any, ...]) -> Sums | None:
        """Found by one run of the pair, which leaves no trace.

        `None` of one that fails: whoever runs it next says why, and what it sums over is not known.
        """
        try:
            with torch.no_grad(), eval_mode(model, guide), fork_rng(*batch):
                pair = run_pair(model, guide, batch)
        except Exception:  # whatever a user's program raises
            return None
        return cls.of_pair(pair)

    @classmethod
    def of_pair(cls, pair: PairTrace) -> Sums:
        """Found in a run of the pair."""
        drawn = [name for name, site in pair.latent.items() if is_enumerated(site)]
        points = point_sites(pair.guide_sites, pair.model_sites)
        bound = None if _has_further_terms(pair) else bound_name(points)
        return cls((*pair.summed, *drawn), pair.depth, bound)

    def check(self, beta: Sized, free_bits: Sized, *, analytic_kl: bool) -> None:
        """Refuse what weighs the cost of one site: the sum has no such share.

        Raises:
            ValueError: for β, free bits or a closed-form KL beside summed sites.
        """
        given = {"beta": len(beta), "free_bits": len(free_bits), "analytic_kl": analytic_kl}
        found = [option for option, value in given.items() if value]
        if self.sites and found:
            raise ValueError(
                f"ELBO: expected no {found[0]} beside the summed sites {list(self.sites)}, got {found}: the loss of a "
                f"sum is one figure. Fix: without {found[0]}; or without infer={{'enumerate': …}} at those sites, "
                "as latents that are drawn."
            )

    def loss(
        self, model: nn.Module, guide: nn.Module, batch: tuple[Any, ...], num_particles: int
    ) -> Tensor:
        """The loss of `TraceEnum_ELBO`, summed over the data."""
        elbo = TraceEnum_ELBO(num_particles=num_particles, max_plate_nesting=self.depth)
        return loss_of_pyro(elbo, model, guide, batch)

    def named(self, loss: Tensor) -> dict[str, Tensor]:
        """The terms of a loss in nats per datum."""
        return {"loss": loss} if self.bound is None else {"loss": loss, self.bound: loss}


def _has_further_terms(pair: PairTrace) -> bool:
    """Whether the loss has factors of the guide, or a scale of the programs' own."""
    sites = (*pair.joint.values(), *pair.scored.values())
    return bool(pair.trained) or any(has_own_scale(site) for site in sites)
