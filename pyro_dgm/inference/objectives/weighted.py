"""Objectives over K importance weights of every datum: the importance-weighted bound and Rényi's."""

from __future__ import annotations

from math import log
from typing import Any

from torch import Tensor, nn

from ..process.ambient import TURN
from ..process.numbers import check_count, check_number
from ..run.particles import Particles
from ..run.structure import Structure, full_size
from ..run.traces import log_density, plate_scaled_sum
from ..sites.measures import bound_name, point_sites
from .factors import guide_costs, weight_of_loss, weight_of_set
from .gradients import Estimator, Reparameterized
from .objective import Objective, check_observed, check_reparameterized


class Weighted(Objective):
    r"""A loss of the log weights $\log w_k = \log p(x, z_k) - \log q(z_k \mid x)$; abstract.

    A subclass gives `bound`. Where all data share a draw the weights are those of the set, $\log w_k = \log p(\theta_k)
    - \log q(\theta_k) + \sum_i \log p(x_i, z_{ik} \mid \theta_k) - \log q(z_{ik} \mid x_i, \theta_k)$, and the bound on
    $\log p(X)$ is divided by N; else N/B of a plate is not seen. The loss has a `poutine.scale` of the programs on
    their log densities and the factors of the guide, as `Trace_ELBO` has them; the weights of `nelbo` have neither.
    """

    is_linear = False  # in the log weights, so that a sum over a minibatch, times N/B, is unbiased

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module | None = None,
        num_particles: int = 16,
        size: int | None = None,
        estimator: Estimator | None = None,
    ):
        super().__init__(model, guide, size)
        owner = type(self).__name__
        check_count(owner, "num_particles", num_particles, fix="num_particles=16")
        if estimator is None:
            estimator = Reparameterized()
        if not isinstance(estimator, Estimator):
            raise TypeError(
                f"{owner}: expected an estimator of the gradient, got {estimator!r}. "
                "Fix: DoublyReparameterized()."
            )
        self.num_particles = num_particles
        self.estimator = estimator

    def bound(self, log_w: Tensor) -> Tensor:
        r"""The bound on $\log p(x)$ of every datum `(N,)`, or of the set `(1,)`, from log weights `(K, N)`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no bound. "
            "Fix: def bound(self, log_w), which returns (N,) bounds, in the subclass; or IWELBO."
        )

    def extra_repr(self) -> str:
        """The settings."""
        return f"num_particles={self.num_particles}, size={self.size}"

    def preflight(self, *batch: Any) -> Structure:  # noqa: D102
        structure = super().preflight(*batch)
        self._refuse_sums(structure.summed)
        _, guide = self._programs(batch)
        self.estimator.check(guide, *batch, depth=structure.depth)
        if structure.has_globals:
            self._refuse_part(structure.globals, structure.full_size)
        return structure

    @TURN.taken()
    def terms(self, *batch: Any) -> dict[str, Tensor]:  # noqa: D102
        particles = self.estimator.draw(
            *self._programs(batch), *batch, num=self.num_particles, depth=self._depth
        )
        pair = particles.pair
        self._refuse_sums(tuple(pair.summed))
        check_observed(pair.observed | pair.factors)
        for name, site in pair.latent.items():
            check_reparameterized(name, site)
        if particles.shared_q:
            self._refuse_part(tuple(particles.shared_q), full_size(pair.model_sites))
            terms = self._terms_of_set(particles, self._num_data(batch))
        else:
            terms = self._terms_of_data(particles)
        weight = 1 / (self.num_particles * self._num_data(batch))
        for name, cost in guide_costs(pair).items():
            terms[f"guide_factor[{name}]"] = cost * weight
            terms["loss"] = terms["loss"] + terms[f"guide_factor[{name}]"]
        return terms

    def _terms_of_data(self, particles: Particles) -> dict[str, Tensor]:
        """The means over data that share no draw."""
        terms = {"loss": -self.bound(weight_of_loss(particles)).mean()}
        terms[_name_of_bound(particles)] = -particles.log_weight.mean()
        for name, log_f in particles.factors.items():
            terms[f"factor[{name}]"] = -log_f.mean()
        return terms

    def _terms_of_set(self, particles: Particles, num_data: int) -> dict[str, Tensor]:
        """The bound of a set whose data share a draw, divided by their number."""
        terms = {"loss": -self.bound(weight_of_loss(particles)).sum() / num_data}
        terms[_name_of_bound(particles)] = -weight_of_set(particles).mean() / num_data
        for name, site in particles.pair.factors.items():
            log_f = plate_scaled_sum(site, log_density(site))
            terms[f"factor[{name}]"] = -log_f / (self.num_particles * num_data)
        return terms

    def _refuse_sums(self, summed: tuple[str, ...]) -> None:
        """Refuse sites that are summed over."""
        if summed:
            raise ValueError(
                f"{type(self).__name__}: expected latents that the guide draws, got {list(summed)}, which are summed "
                "over. Fix: ELBO(model, guide), which sums; or without infer={'enumerate': …}."
            )

    def _refuse_part(self, shared: tuple[str, ...], full_size: int | None) -> None:
        """Refuse a minibatch of data that share a draw: the log of a mean of weights is no sum over data."""
        if full_size is None or self.is_linear or self.num_particles == 1:
            return
        owner, num = type(self).__name__, self.num_particles
        raise ValueError(
            f"{owner}: expected all {full_size} data at once, for all of them share {list(shared)}, got a minibatch "
            f"and num_particles={num}: only the bound of one particle is a sum over data, which N/B scales. Fix: "
            f"fit(x, batch_size={full_size}); or num_particles=1, of any estimator; or ELBO(model, guide, {num})."
        )


def _name_of_bound(particles: Particles) -> str:
    pair = particles.pair
    return bound_name(point_sites(pair.guide_sites, pair.model_sites))


class IWELBO(Weighted):
    r"""$-\mathcal L_K = -E[\log \frac1K \sum_k p(x, z_k) / q(z_k \mid x)]$, in nats per datum.

    An upper bound of the NLL that falls with K, from the −ELBO at K = 1 to the NLL itself. With its own
    gradient the signal-to-noise ratio of the encoder's falls as $1/\sqrt K$; with `DoublyReparameterized()`
    it grows. At K = 1, `StickingTheLanding()` gives the ELBO a gradient that is zero, draw by draw, at the
    exact posterior.

    Args:
        model: the model, a module.
        guide: its guide, with reparameterized sites.
        num_particles: K.
        size: number of data in the full set if the programs declare one.
        estimator: of the gradient, default `Reparameterized()`; the value is the same under one seed.

    Terms:
        loss: what is minimized; nelbo: the −ELBO from the same draws, `njoint` for a guide that is a point mass;
        `factor[f]` and `guide_factor[f]` as in
        `ELBO`.

    Where all data share a draw, as of globals θ, the weights are those of the set, and it is
    $-\frac1N E[\log \frac1K \sum_k w_k] \ge -\frac1N \log p(X)$, of all data at once. At K = 1 it is a sum over data,
    and minibatches of plates that know N are scaled by N/B.

    Raises:
        TypeError: for what is no pair of programs, see `Objective`; if `estimator` is no `Estimator`.
        ValueError: for a guide site without reparameterized draws; for a minibatch of data that share a draw, at
            K > 1; for a factor that all data share where they share no draw.

    References:
        Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519; Rainforth et al. 2018, arXiv:1802.04537.
    """

    def extra_repr(self) -> str:
        """The settings."""
        return f"{super().extra_repr()}, estimator={self.estimator}"

    def bound(self, log_w: Tensor) -> Tensor:  # noqa: D102
        return log_w.logsumexp(0) - log(self.num_particles)


class AveragedELBO(Weighted):
    r"""$-\mathrm{ELBO} = -E[\frac1K \sum_k \log w_k]$, in nats per datum: `IWELBO` of one particle from K draws.

    An upper bound of the NLL, the same for every K, of minibatches as well: it is a sum over data, scaled by N/B.

    Args:
        model: the model, a module.
        guide: its guide, with reparameterized sites.
        num_particles: K.
        size: number of data in the full set if the programs declare one.
        estimator: of the gradient: `Reparameterized()`, `StickingTheLanding()` or `PathGradient()`, which are unbiased.

    Raises:
        TypeError, ValueError: as `IWELBO`, minibatches apart.
    """

    is_linear = True

    def bound(self, log_w: Tensor) -> Tensor:  # noqa: D102
        return log_w.mean(0)


class Renyi(Weighted):
    r"""$-\mathcal L_\alpha = -\frac{1}{1 - \alpha} E[\log \frac1K \sum_k w_k^{1 - \alpha}]$, nats per datum.

    The −ELBO at K = 1 and as $\alpha \to 1$; `IWELBO` at $\alpha = 0$. For $\alpha \ge 0$ an upper bound of
    the NLL for every K; for $\alpha < 0$ none: it falls below the NLL as K grows.

    Args:
        model: the model, a module.
        guide: its guide, with reparameterized sites.
        alpha: the order α, not 1.
        num_particles: K.
        size: number of data in the full set if the programs declare one.

    Terms:
        loss: what is minimized; nelbo: the −ELBO from the same draws, `njoint` for a guide that is a point mass;
        `factor[f]` and `guide_factor[f]` as in
        `ELBO`.

    Raises:
        ValueError: if `alpha` is 1 or not finite; for a guide site without reparameterized draws; for a minibatch of
            data that share a draw, at K > 1.

    References:
        Li, Turner 2016, *Rényi divergence variational inference*, arXiv:1602.02311.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        alpha: float,
        num_particles: int = 16,
        size: int | None = None,
    ):
        super().__init__(model, guide, num_particles, size)
        check_number("Renyi", "alpha", alpha, fix="alpha=0.5, or IWELBO")
        if alpha == 1:
            raise ValueError(
                "Renyi: expected alpha other than 1, where the bound is the ELBO, got 1. "
                "Fix: ELBO(model, guide)."
            )
        self.alpha = alpha

    def extra_repr(self) -> str:
        """The settings."""
        return f"alpha={self.alpha:g}, {super().extra_repr()}"

    def bound(self, log_w: Tensor) -> Tensor:  # noqa: D102
        power = 1 - self.alpha
        log_mean = (power * log_w).logsumexp(0) - log(self.num_particles)
        return log_mean / power
