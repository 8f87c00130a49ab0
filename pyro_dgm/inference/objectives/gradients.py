r"""Gradient estimators of the importance-weighted bound: the same value under one seed, other gradients.

With $\log w_k = \log p_\theta(x, z_k) - \log q_\phi(z_k \mid x)$, $z_k = T(\varepsilon_k; \phi)$ and
$\tilde w_k = w_k / \sum_j w_j$, all of them give the model
$\sum_k \tilde w_k\, \partial_\theta \log p_\theta$.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.func import functional_call

from ..process.states import fork_rng, named_tensors
from ..run.particles import Particles, by_place, draw
from ..run.traces import PairTrace, latent_sites, plate_value, vectorized
from .factors import weight_of_loss

LogDensities = dict[str, Tensor]


class Estimator:
    r"""An estimator of the gradient of the importance-weighted bound; abstract: a subclass gives `draw`.

    It draws K particles whose log weights carry the gradient; the value of the bound is the same for all
    estimators.
    """

    def draw(
        self, model: nn.Module, guide: nn.Module, *batch: Any, num: int, depth: int
    ) -> Particles:
        r"""K draws; the gradient of $\log \sum_k w_k$ of their log weights is the estimator's."""
        raise NotImplementedError(
            f"{type(self).__name__} has no draw. "
            "Fix: def draw(self, model, guide, *batch, num, depth), which returns Particles, "
            "or estimator=Reparameterized()."
        )

    def check(self, guide: nn.Module, *batch: Any, depth: int) -> None:
        """Refuse a guide that the estimator can't take; called once, before training."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Reparameterized(Estimator):
    r"""$\sum_k \tilde w_k (\partial_z \log w_k\, \partial_\phi z_k - \partial_\phi \log q_\phi(z_k))$.

    The derivative of the bound itself, unbiased for every K. Its noise does not vanish at the exact
    posterior: the score $\partial_\phi \log q_\phi$ is zero in the mean alone.

    References:
        Kingma, Welling 2014, arXiv:1312.6114; Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519.
    """

    def draw(  # noqa: D102
        self, model: nn.Module, guide: nn.Module, *batch: Any, num: int, depth: int
    ) -> Particles:
        return draw(model, guide, *batch, num=num, depth=depth)


class Pathwise(Estimator):
    """An estimator without the score of the guide, which is scored apart from its draws; abstract."""

    def draw(  # noqa: D102
        self, model: nn.Module, guide: nn.Module, *batch: Any, num: int, depth: int
    ) -> Particles:
        return _draw_and_score(model, guide, batch, num, depth)

    def check(self, guide: nn.Module, *batch: Any, depth: int) -> None:  # noqa: D102
        check_scoring(self, guide, batch, depth)


class StickingTheLanding(Pathwise):
    r"""$\sum_k \tilde w_k\, \partial_z \log w_k\, \partial_\phi z_k$: the score of the guide is left out.

    Zero, draw by draw, where the guide is the exact posterior. Unbiased at K = 1, the gradient of the ELBO,
    since the score has mean zero there; for K > 1 the weights depend on z and it is **biased**:
    `DoublyReparameterized` is not.

    The guide is scored a second time, at its own draws and with detached parameters: it must score given
    points, and use no random numbers beside its sites. An autoregressive flow that samples in one pass
    (`iaf`) takes D passes to score and gives a `DirectionWarning`; coupling layers cost one pass both ways.

    Raises:
        ValueError: in `preflight`, for a guide that draws random numbers while it scores, such as dropout.

    References:
        Roeder, Wu, Duvenaud 2017, *Sticking the landing*, arXiv:1703.09194.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, IWELBO, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> IWELBO(vae.model, vae.guide, 1, estimator=StickingTheLanding())(torch.ones(5, 9)).shape
        torch.Size([])
    """


class DoublyReparameterized(Pathwise):
    r"""$\sum_k \tilde w_k^2\, \partial_z \log w_k\, \partial_\phi z_k$: the guide's score is reparameterized.

    Unbiased for every K, since $E[f\, \partial_\phi \log q_\phi(z)] = E[\partial_z f\, \partial_\phi z]$, and
    its signal-to-noise ratio grows with K where that of `Reparameterized` falls. Zero, draw by draw, where
    the guide is the exact posterior; at K = 1 it is `StickingTheLanding`, with the same second scoring, cost
    and conditions.

    Raises:
        ValueError: in `preflight`, for a guide that draws random numbers while it scores, such as dropout.

    References:
        Tucker, Lawson, Gu, Maddison 2019, *Doubly reparameterized gradient estimators*, arXiv:1810.04152.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, IWELBO, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> IWELBO(vae.model, vae.guide, 8, estimator=DoublyReparameterized())(torch.ones(5, 9)).shape
        torch.Size([])
    """

    def draw(  # noqa: D102
        self, model: nn.Module, guide: nn.Module, *batch: Any, num: int, depth: int
    ) -> Particles:
        particles = super().draw(model, guide, *batch, num=num, depth=depth)
        # The bound's own derivative brings the first w̃, to θ and z alike; the second one belongs to z alone.
        weights = weight_of_loss(particles).detach().softmax(0)
        for site in particles.pair.scored.values():
            draws = site["value"]
            if draws.requires_grad:
                event_dim = len(site["fn"].event_shape)
                draws.register_hook(partial(_scale_gradient, weights, event_dim))
        return particles


def _draw_and_score(
    model: nn.Module, guide: nn.Module, batch: tuple[Any, ...], num: int, depth: int
) -> Particles:
    r"""K draws with $\log q$ scored apart: no gradient reaches the guide's parameters but through z."""
    drawing = poutine.trace(vectorized(guide, num, depth)).get_trace(*batch)
    guide_trace = _view_draws(drawing)
    replayed = poutine.replay(vectorized(model, num, depth), trace=guide_trace)
    model_trace = poutine.trace(replayed).get_trace(*batch)
    pair = PairTrace(guide_trace, model_trace)
    log_p, shared_p = by_place(pair.joint)
    _, (log_q, shared_q) = score_guide(guide, batch, num, depth, guide_trace)
    values = {name: plate_value(site) for name, site in pair.latent.items()}
    return Particles(values, log_p, log_q, pair, shared_p, shared_q)


def _view_draws(trace: Trace) -> Trace:
    """A copy of the trace whose draws are tensors of their own.

    A later site of the guide depends on the first tensor, and a hook on it would weigh that path too.
    """
    copied = trace.copy()
    for name, site in latent_sites(trace).items():
        draw_of_its_own = site["value"].view_as(site["value"])
        copied.nodes[name] = cast(Any, {**site, "value": draw_of_its_own})
    return copied


def score_guide(
    guide: nn.Module,
    batch: tuple[Any, ...],
    num: int,
    depth: int,
    given: Trace | None = None,
    *,
    without: str | None = None,
) -> tuple[Trace, tuple[LogDensities, LogDensities]]:
    """A run of the guide, at given draws or its own, and what `by_place` says of its draws but one.

    Its parameters are detached, and its buffers stay as they are.
    """
    scorer = _GuideScorer(guide, without)
    tensors = {}
    for name, tensor in named_tensors(scorer):
        # Buffers are cloned: batch normalization would else move its statistics twice in one step.
        tensors[name] = tensor.detach() if tensor.requires_grad else tensor.clone()
    return functional_call(scorer, tensors, (batch, num, depth, given), tie_weights=False)


class _GuideScorer(nn.Module):
    """A guide that scores itself inside one forward, while `functional_call` holds its tensors.

    Running it there would not be enough: a flow runs its networks when it is scored.
    """

    def __init__(self, guide: nn.Module, without: str | None):
        super().__init__()
        self.guide = guide
        self.without = without

    def forward(
        self, batch: tuple[Any, ...], num: int, depth: int, given: Trace | None
    ) -> tuple[Trace, tuple[LogDensities, LogDensities]]:
        program = vectorized(self.guide, num, depth)
        if given is not None:
            program = poutine.replay(program, trace=given)
        with _DetachParams():
            trace = poutine.trace(program).get_trace(*batch)
            sites = latent_sites(trace)
            sites.pop(self.without or "", None)
            return trace, by_place(sites)


class _DetachParams(Messenger):
    """Detaches what `pyro.param` returns, which no module holds."""

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        msg["value"] = msg["value"].detach()


def _scale_gradient(weights: Tensor, event_dim: int, gradient: Tensor) -> Tensor:
    """A gradient `(K, …, N, *event)` times weights `(K, N)`."""
    num, size = weights.shape
    num_further = gradient.dim() - event_dim - 2
    shape = (num, *[1] * num_further, size, *[1] * event_dim)
    return gradient * weights.to(gradient.dtype).reshape(shape)


def check_scoring(
    estimator: Estimator, guide: nn.Module, batch: tuple[Any, ...], depth: int
) -> None:
    """Refuse a guide that draws random numbers while its own draws are scored."""
    with fork_rng(*batch), torch.no_grad():
        given, _ = score_guide(guide, batch, 1, depth)
        before = _random_state(batch)
        score_guide(guide, batch, 1, depth, given)
        after = _random_state(batch)
    if not torch.equal(before, after):
        raise ValueError(
            f"{type(estimator).__name__}: expected a guide that scores its draws without random "
            "numbers beside its sites, got some: it would be scored at other noise than it was "
            "drawn with, and the bound be none. "
            "Fix: no dropout in the guide, or estimator=Reparameterized()."
        )


def _random_state(batch: tuple[Any, ...]) -> Tensor:
    """The state of the CPU's generator, and of those of the GPUs that hold the batch."""
    devices = {b.device.index for b in batch if isinstance(b, Tensor) and b.is_cuda}
    states = [torch.get_rng_state()]
    for device in sorted(devices):
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)
