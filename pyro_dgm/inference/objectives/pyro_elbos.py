"""Pyro's own estimators as objectives, for models whose discrete latents are summed out."""

from __future__ import annotations

from copy import copy
from math import isinf
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceTMC_ELBO
from torch import Tensor, nn

from ...contract import PyroProgram
from ..process.ambient import TURN
from ..process.states import eval_mode, fork_rng
from ..run.own_pass import Precisely
from ..run.structure import Structure, preflight
from ..sites.kinds import is_enumerated
from .objective import Objective, given


class PyroObjective(Objective):
    r"""$-E_q[\log \sum_c p(x, z, c) - \log q(z \mid x)]$, the loss of one of Pyro's ELBOs, nats per datum.

    With `TraceEnum_ELBO` a site with `infer={"enumerate": "parallel"}` is summed out exactly: a discrete c,
    in the model alone, in the guide, or in both programs. Its values arrive in a dim to the left of the
    plates, so that networks must broadcast, as for particles; the cost grows with the number of values. With
    `TraceGraph_ELBO` a discrete site that is drawn has the gradient of its score, less its baseline. Eager only: Pyro
    reads tensors on the host, to pass over values of probability zero and to look for NaN.
    `ELBO(model, guide)` has this loss by itself for such a pair, and `nll` sums over the same sites.

    Args:
        model: the model, a module.
        guide: its guide, a module.
        elbo: the estimator, such as `TraceEnum_ELBO()`; without `max_plate_nesting`, `preflight` finds it.
        size: number of data in the full set if the programs declare one.

    Terms:
        loss: what is minimized: Pyro's loss, divided by the number of data.

    Raises:
        TypeError: if `elbo` is no estimator with a differentiable loss.
        ValueError: in `preflight`, for programs with more plates than the estimator knows, with a site to sum
            over that it would draw, or that break the contract.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_dgm import DensityModel, EmptyGuide, Flow, StandardNormal, maf
        >>> model = DensityModel(Flow(StandardNormal(3), maf(3, layers=1)))
        >>> PyroObjective(model, EmptyGuide(), Trace_ELBO(max_plate_nesting=1))(torch.zeros(5, 3)).shape
        torch.Size([])
    """

    def __init__(self, model: nn.Module, guide: nn.Module, elbo: ELBO, size: int | None = None):
        super().__init__(model, guide, size)
        # RenyiELBO and ReweightedWakeSleep have gradients of their own making, and no such loss.
        if not isinstance(elbo, ELBO) or not _has_loss(elbo):
            raise TypeError(
                "PyroObjective: expected one of Pyro's estimators with a differentiable_loss, "
                f"got {elbo!r}. Fix: TraceEnum_ELBO(max_plate_nesting=1)."
            )
        self.elbo: Any = elbo

    def extra_repr(self) -> str:
        """The estimator, with the plates that it knows and its particles, and the size."""
        nesting = f"max_plate_nesting={self.elbo.max_plate_nesting}"
        particles = f"num_particles={self.elbo.num_particles}"
        return f"{type(self.elbo).__name__}({nesting}, {particles}), size={self.size}"

    def preflight(self, *batch: Any) -> Structure:
        """Check the pair, then Pyro's loss itself with validation on."""
        model: PyroProgram = self.model
        guide: PyroProgram = self.guide
        if isinstance(self.elbo, TraceTMC_ELBO):
            model = _hide_sampled_sites(model)
            guide = _hide_sampled_sites(guide)
        with eval_mode(self.model, self.guide):
            structure = preflight(model, guide, *batch, size=self.size)
            self._full_size, self._is_known = structure.full_size, True
            self._summed[given(batch)] = structure.summed
            self._check_sums(structure)
            self._check_depth(structure.depth)
            self._check_loss(batch)
        return structure

    def _check_sums(self, structure: Structure) -> None:
        """Refuse an estimator that would draw a site of the model alone."""
        if isinstance(self.elbo, (TraceEnum_ELBO, TraceTMC_ELBO)):
            return
        summed = [name for name in structure.summed if name not in structure.latent]
        if summed:
            latent = sorted([*structure.latent, *summed])
            raise ValueError(
                f"model and guide: expected the same latent sites, got {latent} in the model and "
                f"{sorted(structure.latent)} in the guide: {type(self.elbo).__name__} sums over none. "
                "Fix: TraceEnum_ELBO(), which sums over them, or ELBO(model, guide)."
            )

    def _check_depth(self, depth: int) -> None:
        """Refuse programs with more plates than the estimator knows beside its own; tell one that knows none."""
        own = 1 if self.elbo.vectorize_particles and self.elbo.num_particles > 1 else 0
        if isinf(self.elbo.max_plate_nesting):
            self.elbo = copy(self.elbo)
            self.elbo.max_plate_nesting = depth + own
        known = self.elbo.max_plate_nesting - own
        if depth > known:
            name = type(self.elbo).__name__
            raise ValueError(
                f"PyroObjective: expected max_plate_nesting={depth} for programs "
                f"with {depth} plates, got {known}. Fix: {name}(max_plate_nesting={depth})."
            )

    def _check_loss(self, batch: tuple[Any, ...]) -> None:
        """Refuse programs that run by themselves, but not over a dim of summed values."""
        try:
            with fork_rng(*batch), pyro.validation_enabled(True):
                self.terms(*batch)
        except Exception as error:  # whatever a user's program raises
            raise ValueError(
                "the programs run by themselves, but not under "
                f"{type(self.elbo).__name__}: expected networks that broadcast over a dim of "
                f"summed values to the left of the plates; got: {error}\n"
                "Fix: index dims from the right, and join inputs with Concat(net)(x, z) "
                "in place of torch.cat."
            ) from error

    @TURN.taken()
    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        self._learn(batch)
        if isinstance(self.elbo, TraceGraph_ELBO):
            total = self._graph_loss(batch)
        else:
            total = loss_of_pyro(self.elbo, self.model, self.guide, batch)
        return {"loss": total / self._num_data(batch)}

    def _graph_loss(self, batch: tuple[Any, ...]) -> Tensor:
        """Pyro's loss with Pyro's gradient, which `TraceGraph_ELBO` takes of a surrogate of another value.

        Making the surrogate moves its baselines, which is left to training.
        """
        with torch.enable_grad():  # Pyro refuses a loss without one; validation asks for none
            model, guide = Precisely()(self.model), Precisely()(self.guide)
            if not self.model.training:
                return torch.as_tensor(self.elbo.loss(model, guide, *batch))
            bound, surrogate = self.elbo._loss_and_surrogate_loss(model, guide, batch, {})
            loss = surrogate - (surrogate + bound).detach()
        return loss if torch.is_grad_enabled() else loss.detach()


def _has_loss(elbo: ELBO) -> bool:
    return isinstance(elbo, TraceGraph_ELBO) or callable(getattr(elbo, "differentiable_loss", None))


def loss_of_pyro(elbo: Any, model: nn.Module, guide: nn.Module, batch: tuple[Any, ...]) -> Tensor:
    """The loss of one of Pyro's estimators, summed over the data, with a gradient where gradients are on."""
    programs = Precisely()(model), Precisely()(guide)
    with torch.enable_grad():  # Pyro refuses a loss without one; validation asks for none
        try:
            loss = elbo.differentiable_loss(*programs, *batch)
        except ValueError as error:
            if "differentiated" not in str(error):
                raise
            return torch.as_tensor(elbo.loss(*programs, *batch))  # of programs without parameters
    return loss if torch.is_grad_enabled() else loss.detach()


def _hide_sampled_sites(program: PyroProgram) -> PyroProgram:
    """The program whose sites to take a few draws of at once are drawn, and seen by nobody."""
    return poutine.block(program, hide_fn=is_enumerated)
