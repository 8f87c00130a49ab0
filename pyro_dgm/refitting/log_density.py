"""The log density of a program at latents in unconstrained coordinates, many points at once."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ..contract import PyroProgram
from ..inference.run.traces import latent_sites, log_density, scored_sites, sites_of
from ..inference.sites.kinds import is_deterministic
from ..programs.flow_guide import FlowGuide

Values = dict[str, Tensor]
NUM_ROWS = 1000  # points of one block, for the memory of large data


class LogDensity:
    r"""$u \mapsto \log p(x, T(u)) + \log|\det \partial T / \partial u|$, in nats, for u `(K, D)`.

    All K points run in one batch (`torch.vmap`), whatever the shapes within the program; a program that can't be
    batched, as one with a branch that depends on a latent, runs point by point.

    Args:
        model: a program with continuous latents.
        guide: its guide, which knows the coordinates; it is called once if it has not been.
        args: of both.
        is_scaled: whether scales are part of it, N/B of plates and `poutine.scale`; if not, a part of the data has
            a density of its own.

    Raises:
        ValueError: for a plate that draws a subsample, whose density is random.
    """

    def __init__(
        self,
        model: PyroProgram,
        guide: FlowGuide,
        args: tuple[Any, ...],
        *,
        is_scaled: bool = True,
    ):
        self.model = model
        self.guide = guide
        self.args = args
        self.is_scaled = is_scaled
        with torch.no_grad(), poutine.block():
            guide(*args)
        if is_scaled:
            self._refuse_subsamples()
        self._refuse_noise()
        self.is_batched = self._can_be_batched()

    @property
    def dim(self) -> int:
        """The number D of coordinates."""
        return self.guide.latent_dim

    def __call__(self, u: Tensor) -> Tensor:
        """Log densities `(K,)`."""
        with pyro.validation_enabled(False):
            if self.is_batched:
                return torch.vmap(self.at)(u)
            return torch.stack([self.at(row) for row in u])

    def at(self, u: Tensor) -> Tensor:
        """The log density of one point `(D,)`, 0-dim; validation stands in its way under `torch.func`."""
        values, log_det = self._values(u)
        trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args)
        if self.is_scaled:
            return trace.log_prob_sum() + log_det
        log_p = [log_density(site).sum() for site in scored_sites(trace).values()]
        return torch.stack(log_p).sum() + log_det

    def gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\log p$ `(K,)` and $\partial_u \log p$ `(K, D)`, plain numbers."""
        with torch.enable_grad():
            given = u.detach().requires_grad_()
            log_p = self(given)
            (slope,) = torch.autograd.grad(log_p.sum(), given)
        return log_p.detach(), slope

    @torch.no_grad()
    def evaluate(self, u: Tensor) -> Tensor:
        """Log densities `(K,)` without a gradient, block by block."""
        return torch.cat([self(block) for block in u.split(NUM_ROWS)])

    @torch.no_grad()
    def quantities(self, u: Tensor) -> Values:
        """Latent or `pyro.deterministic` site → values `(K, *shape)`."""
        blocks = []
        with pyro.validation_enabled(False):
            for block in u.split(NUM_ROWS):
                if self.is_batched:
                    blocks.append(torch.vmap(self._quantities_at)(block))
                    continue
                blocks += [_with_row(self._quantities_at(row)) for row in block]
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}

    def _values(self, u: Tensor) -> tuple[Values, Tensor]:
        """The latents of one point by site, and the log-det of their transforms."""
        values = {}
        log_det = u.new_zeros(())
        for site, unconstrained in self.guide._unpack_latent(u):
            transform = biject_to(site["fn"].support)
            value = transform(unconstrained)
            log_det = log_det + transform.log_abs_det_jacobian(unconstrained, value).sum()
            values[site["name"]] = value
        return values, log_det

    def _quantities_at(self, u: Tensor) -> Values:
        values, _ = self._values(u)
        trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args)
        found = dict(values)
        for name, site in sites_of(trace).items():
            if is_deterministic(site):
                found[name] = site["value"]
        return found

    def _refuse_subsamples(self) -> None:
        for name, frame in self.guide._prototype_frames.items():
            if frame.full_size is not None and frame.full_size != frame.size:
                raise ValueError(
                    f"fit_posterior: expected a model of all its data, got the plate '{name}' with "
                    f"{frame.size} of {frame.full_size}. Fix: no subsample_size in pyro.plate('{name}', …), "
                    "or pyro.infer.SVI(model, FlowGuide(model), …)."
                )

    @torch.no_grad()
    def _refuse_noise(self) -> None:
        """Refuse a model that draws what the guide does not: a density at new draws each time has no gradient."""
        start = self.guide.affine.loc
        values, _ = self._values(start)
        trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args)
        drawn = list(latent_sites(trace))
        with pyro.validation_enabled(False):
            log_p, again = self.at(start), self.at(start)
        if drawn or not torch.allclose(log_p, again, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"fit_posterior: expected a model whose latents are all drawn by the guide, {list(values)}, got "
                f"one that draws {drawn or 'hidden numbers'} beside them. Fix: log_prob of a mixture, as "
                "dist.MixtureSameFamily, in place of a discrete site, or SVITrainer(ELBO(model, FlowGuide(model))), "
                "which sums over one of infer={'enumerate': 'parallel'}; no dropout, no poutine.block."
            )

    def _can_be_batched(self) -> bool:
        """Whether two points in one batch have the densities that they have alone."""
        start = self.guide.affine.loc
        points = torch.stack([start, start + 0.1])
        self.is_batched = True
        with torch.no_grad():
            try:
                together = self(points)
            except (RuntimeError, ValueError, NotImplementedError):  # what torch.vmap can't batch
                return False
            self.is_batched = False
            return torch.allclose(together, self(points), rtol=1e-4, equal_nan=True)


def _with_row(values: Values) -> Values:
    return {name: value[None] for name, value in values.items()}
