r"""From a flow prior to a flow posterior and back: $KL(q \| T_\# p) = KL(T^{-1}_\# q \| p)$."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from ..display.representation import SettingsFirst
from .flows.bijector import Bijector, Inverse
from .flows.flow import Flow
from .requirements import require_conditional
from .vae import VAE


class Pushforward(SettingsFirst):
    r"""$T_\# q(\cdot \mid c)$: the distribution of $T(z)$ with $z \sim q(\cdot \mid c)$. Exact.

    T is the same at every context.

    Args:
        conditional: q.
        bijector: T, without a context.

    Shape:
        c as of the conditional  ->  a `TransformedDistribution` of the same shapes.
    """

    def __init__(self, conditional: nn.Module, bijector: Bijector):
        super().__init__()
        require_conditional("conditional", conditional, "Conditional(dist.Normal, net)")
        self.conditional = conditional
        self.bijector = bijector

    def forward(self, *contexts: Tensor) -> dist.TransformedDistribution:
        distribution = self.conditional(*contexts)
        return dist.TransformedDistribution(distribution, [self.bijector.transform()])


class Pullback(SettingsFirst):
    r"""$p(\cdot \mid T(z), c)$: the conditional of a point that T has mapped, as a decoder of the noise.

    Args:
        conditional: p.
        bijector: T, without a context; it acts on the first argument.

    Shape:
        z `(*batch, D)`, further contexts  ->  the distribution $p(\cdot \mid T(z), c)$.
    """

    def __init__(self, conditional: nn.Module, bijector: Bijector):
        super().__init__()
        require_conditional("conditional", conditional, "Normal(net)")
        self.conditional = conditional
        self.bijector = bijector

    def forward(self, z: Tensor, *contexts: Tensor) -> dist.TorchDistribution:
        return self.conditional(self.bijector.transform()(z), *contexts)


def absorb_prior(vae: VAE) -> VAE:
    r"""$(q,\ T_\# p,\ p(x \mid z)) \mapsto (T^{-1}_\# q,\ p,\ p(x \mid T(\epsilon)))$, the same VAE.

    A flow-prior VAE becomes one with the flow's base as its prior, a flow posterior and a composed decoder.
    The bound of every datum and the samples stay what they were, under common noise. Both VAEs share their
    parameters.

    The decoder now runs T in its sampling direction: with `maf` that takes D network calls per layer, with
    coupling layers one.

    Raises:
        ValueError: if the prior is no `Flow`, or one that depends on a context.

    References:
        Chen et al. 2017, *Variational lossy autoencoder*, arXiv:1611.02731 (section 3.2); Papamakarios et al.
        2021, arXiv:1912.02762 (section 2.3.2: the same KL on both sides of a flow).
    """
    prior, likelihood = vae.generator.prior, vae.generator.likelihood
    if not isinstance(prior, Flow) or _depends_on_a_context(prior):
        raise ValueError(
            "absorb_prior: expected a flow prior without a context, got "
            f"{type(prior).__name__}. Fix: VAE(Flow(StandardNormal(D), realnvp(D, 4)), …)."
        )
    return vae.replace(
        prior=prior.base,
        likelihood=Pullback(likelihood, prior.bijector),
        encoder=Pushforward(vae.guide.encoder, Inverse(prior.bijector)),
    )


def _depends_on_a_context(flow: Flow) -> bool:
    if flow.embed is not None:
        return True
    layers = flow.bijector.modules()
    return any(layer.context > 0 for layer in layers if isinstance(layer, Bijector))


def expose_prior(vae: VAE) -> VAE:
    r"""$(T^{-1}_\# q,\ p,\ p(x \mid T(\epsilon))) \mapsto (q,\ T_\# p,\ p(x \mid z))$: undoes `absorb_prior`.

    Raises:
        ValueError: if the VAE's decoder and encoder do not hold one flow, as `absorb_prior` leaves them.
    """
    likelihood, encoder = vae.generator.likelihood, vae.guide.encoder
    if (
        not isinstance(likelihood, Pullback)
        or not isinstance(encoder, Pushforward)
        or not _is_inverse_of(encoder.bijector, likelihood.bijector)
    ):
        raise ValueError(
            "expose_prior: expected a decoder and an encoder that share one flow, got "
            f"{type(likelihood).__name__} and {type(encoder).__name__}. "
            "Fix: expose_prior(absorb_prior(vae))."
        )
    return vae.replace(
        prior=Flow(vae.generator.prior, likelihood.bijector),
        likelihood=likelihood.conditional,
        encoder=encoder.conditional,
    )


def _is_inverse_of(bijector: Bijector, other: Bijector) -> bool:
    return isinstance(bijector, Inverse) and bijector.bijector is other
