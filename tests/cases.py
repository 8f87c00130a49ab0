"""The registries that the laws run over: one line here buys a class every law of `test_laws.py`.

A registry maps a name to a builder without arguments; a builder makes fresh modules in the default dtype.
Batches and contexts are drawn from the global random state, which every test seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    SigmoidTransform,
    TanhTransform,
    biject_to,
    transform_to,
)
from torch.nn.functional import one_hot

import pyro_dgm as dgm

zuko = dgm.flows.import_zuko()
_ZUKO: dict[str, Any] = {"transforms": 2, "hidden_features": (8,)}


def randomize(module: Any, scale: float = 0.3) -> Any:
    """Move every parameter away from its start: at the identity a flow would satisfy any law."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


def plane(law: Any, reach: float = 7.0, num: int = 561) -> tuple[Tensor, Tensor]:
    r"""A grid over a law's support and the weights of its quadrature, $m + s \sinh t$: hundreds of s into the tails.

    A bounded support is the image of the plane.

    Shape:
        grid `(num², *event)` for a law with two coordinates, weights `(num²,)`.
    """
    onto = biject_to(law.support)
    draws = onto.inv(law.sample((4000,))).reshape(-1, 2)
    low, centre, high = draws.quantile(torch.tensor([0.16, 0.5, 0.84]).to(draws), dim=0)
    spread, t = (high - low) / 2, torch.linspace(-reach, reach, num).to(draws)
    grid = torch.cartesian_prod(*(m + s * t.sinh() for m, s in zip(centre, spread, strict=True)))
    weights = torch.cartesian_prod(t.cosh(), t.cosh()).prod(-1) * spread.prod() * (t[1] - t[0]) ** 2
    points = grid.reshape(-1, *law.event_shape)
    values = onto(points)
    weights = (
        weights * onto.log_abs_det_jacobian(points, values).reshape(len(points), -1).sum(-1).exp()
    )
    return values[weights > 0], weights[weights > 0]


def dequantizer(dim: int, context: int) -> nn.Module:
    """A conditional flow from the unit cube onto itself."""
    end = dgm.Pointwise(SigmoidTransform())
    couplings = dgm.spline_coupling(dim, 2, 4, (8,))
    return dgm.Flow(
        dgm.UnitUniform(dim),
        [dgm.Inverse(end), *couplings, end],
        embed=dgm.Concat(dgm.mlp(context, 4)),
    )


# Conditionals --------------------------------------------------------------------------------------------------------


@dataclass
class ConditionalCase:
    """A conditional, the event shapes of its contexts, the event shape of its law.

    `levels` is the number of values of one coordinate if the law is discrete, or so many of the counts 0, 1, 2, … that
    those beyond have a probability below 1e-9, which the law of masses checks.
    """

    module: nn.Module
    event: tuple[int, ...]
    context: tuple[tuple[int, ...], ...] = ()
    levels: int | None = None

    def contexts(self, *batch: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(*batch, *shape) for shape in self.context)


def _pixelcnn(shape: tuple[int, ...], levels: int, context: int) -> nn.Module:
    network = dgm.nn.GatedPixelCNN(shape, 2 * shape[0], context, channels=4, blocks=2)
    emission = dgm.DiscretizedLogistic(nn.Identity(), levels, event_dim=3)
    return dgm.PixelCNN(network, emission, scale=dgm.nn.Rescale(0, levels - 1))


def _one_logit(dim: int, context: int = 0) -> dgm.flows.MADE:
    return dgm.flows.MADE(dim, context, (8,), num_params=1)


class _FourMoments(nn.Module):
    """Raises raw degrees of freedom by 6: the law of densities compares moments, which must exist."""

    def forward(self, raw: Tensor) -> Tensor:
        return raw + 6 * (torch.arange(6, device=raw.device) < 2)


CONDITIONALS: dict[str, Callable[[], ConditionalCase]] = {
    "standard_normal": lambda: ConditionalCase(dgm.StandardNormal(2), (2,)),
    "standard_normal_of_context": lambda: ConditionalCase(dgm.StandardNormal(2), (2,), ((3,),)),
    "standard_normal_image": lambda: ConditionalCase(dgm.StandardNormal((2, 1, 1)), (2, 1, 1)),
    "standard_normal_image_of_context": lambda: ConditionalCase(
        dgm.StandardNormal((1, 1, 2)), (1, 1, 2), ((3, 1, 2),)
    ),
    "conditional_normal": lambda: ConditionalCase(
        dgm.Conditional(dist.Normal, nn.Linear(3, 4)), (2,), ((3,),)
    ),
    "conditional_gumbel": lambda: ConditionalCase(
        dgm.Conditional(dist.Gumbel, dgm.mlp(3, 4)), (2,), ((3,),)
    ),
    "conditional_joined": lambda: ConditionalCase(
        dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(5, 8, 4))), (2,), ((3,), (2,))
    ),
    "conditional_image": lambda: ConditionalCase(
        dgm.Conditional(dist.Normal, dgm.ConvDecoder(3, (2, 1, 2), (4,)), event_dim=3),
        (1, 1, 2),
        ((3,),),
    ),
    "conditional_of_image": lambda: ConditionalCase(
        dgm.Conditional(dist.Normal, dgm.ConvEncoder((1, 5, 5), 4, (3, 4))), (2,), ((1, 5, 5),)
    ),
    "normal_around_generator": lambda: ConditionalCase(
        dgm.Normal(dgm.distributions.MeanOf(dgm.Deterministic(dgm.mlp(3, 8, 2))), scale=0.7),
        (2,),
        ((3,),),
    ),
    "normal": lambda: ConditionalCase(dgm.Normal(dgm.gated_mlp(3, 8, 2), scale=0.7), (2,), ((3,),)),
    "bernoulli": lambda: ConditionalCase(dgm.Bernoulli(dgm.mlp(3, 2)), (2,), ((3,),), levels=2),
    "observed": lambda: ConditionalCase(
        dgm.distributions.Observed(dgm.Bernoulli(dgm.mlp(3, 2))), (2,), ((3,),), levels=2
    ),
    "bernoulli_image": lambda: ConditionalCase(
        dgm.Bernoulli(dgm.ConvDecoder(3, (1, 2, 2), (4,)), event_dim=3),
        (1, 2, 2),
        ((3,),),
        levels=2,
    ),
    "categorical": lambda: ConditionalCase(
        dgm.Categorical(dgm.mlp(3, 2 * 5), 5), (2,), ((3,),), levels=5
    ),
    "discretized_logistic": lambda: ConditionalCase(
        dgm.DiscretizedLogistic(dgm.mlp(3, 8, 2 * 2), 7), (2,), ((3,),), levels=7
    ),
    "autoregressive_bernoulli": lambda: ConditionalCase(
        dgm.distributions.AutoregressiveBernoulli(_one_logit(2)), (2,), levels=2
    ),
    "autoregressive_bernoulli_of_context": lambda: ConditionalCase(
        dgm.distributions.AutoregressiveBernoulli(_one_logit(2, 3), net=dgm.mlp(3, 8, 2)),
        (2,),
        ((3,),),
        levels=2,
    ),
    "pixelcnn": lambda: ConditionalCase(_pixelcnn((1, 2, 2), 3, 0), (1, 2, 2), levels=3),
    "pixelcnn_of_context": lambda: ConditionalCase(
        _pixelcnn((2, 2, 2), 2, 3), (2, 2, 2), ((3,),), levels=2
    ),
    "discretized_normal": lambda: ConditionalCase(
        dgm.DiscretizedNormal(dgm.mlp(3, 8, 2 * 2), 7, 0.1), (2,), ((3,),), levels=7
    ),
    "discretized_logistic_mixture": lambda: ConditionalCase(
        dgm.DiscretizedLogisticMixture(dgm.mlp(3, 3 * 4 * 2), 7, 4), (2,), ((3,),), levels=7
    ),
    "discretized_logistic_mixture_image": lambda: ConditionalCase(
        dgm.DiscretizedLogisticMixture(
            dgm.ConvDecoder(3, (3 * 2, 1, 2), (4,)), 6, 2, 0.1, event_dim=3
        ),
        (1, 1, 2),
        ((3,),),
        levels=6,
    ),
    "colour": lambda: ConditionalCase(
        dgm.ColourLogisticMixture(
            dgm.ConvDecoder(3, (10 * 2, 1, 1), (4,)), levels=6, num_components=2
        ),
        (3, 1, 1),
        ((3,),),
        levels=6,
    ),
    "colour_of_two_channels": lambda: ConditionalCase(
        dgm.ColourLogisticMixture(
            dgm.ConvDecoder(3, (6 * 3, 1, 2), (4,)), 4, 3, channels=2, min_scale=0.1
        ),
        (2, 1, 2),
        ((3,),),
        levels=4,
    ),
    "laplace": lambda: ConditionalCase(dgm.Laplace(dgm.mlp(3, 8, 4)), (2,), ((3,),)),
    "student_t": lambda: ConditionalCase(
        dgm.StudentT(nn.Sequential(dgm.mlp(3, 6), _FourMoments())), (2,), ((3,),)
    ),
    "continuous_bernoulli": lambda: ConditionalCase(
        dgm.ContinuousBernoulli(dgm.mlp(3, 8, 2)), (2,), ((3,),)
    ),
    "binomial": lambda: ConditionalCase(dgm.Binomial(dgm.mlp(3, 2), 6), (2,), ((3,),), levels=7),
    "poisson": lambda: ConditionalCase(dgm.Poisson(dgm.mlp(3, 2)), (2,), ((3,),), levels=64),
    "poisson_image": lambda: ConditionalCase(
        dgm.Poisson(dgm.ConvDecoder(3, (1, 1, 2), (4,)), event_dim=3), (1, 1, 2), ((3,),), levels=64
    ),
    "negative_binomial": lambda: ConditionalCase(
        dgm.NegativeBinomial(dgm.mlp(3, 4)), (2,), ((3,),), levels=300
    ),
    "zero_inflated_poisson": lambda: ConditionalCase(
        dgm.ZeroInflatedPoisson(dgm.mlp(3, 4)), (2,), ((3,),), levels=64
    ),
    "zero_inflated_negative_binomial": lambda: ConditionalCase(
        dgm.ZeroInflatedNegativeBinomial(dgm.mlp(3, 6)), (2,), ((3,),), levels=300
    ),
    "conditional_fixed": lambda: ConditionalCase(
        dgm.Conditional(dist.StudentT, dgm.mlp(3, 4), fixed={"df": torch.tensor([6.0, 9.0])}),
        (2,),
        ((3,),),
    ),
    "flow_maf": lambda: ConditionalCase(
        dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,))), (2,)
    ),
    "flow_iaf": lambda: ConditionalCase(
        dgm.Flow(dgm.StandardNormal(2), dgm.iaf(2, 2, hidden=(8,))), (2,)
    ),
    "flow_realnvp": lambda: ConditionalCase(
        dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(8,))), (2,)
    ),
    "flow_iaf_of_context": lambda: ConditionalCase(
        dgm.Flow(
            dgm.Conditional(dist.Normal, dgm.mlp(4, 4)),
            dgm.iaf(2, 2, context=4, hidden=(8,)),
            embed=dgm.mlp(3, 8, 4),
        ),
        (2,),
        ((3,),),
    ),
    "flow_realnvp_of_context": lambda: ConditionalCase(
        dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, context=3, hidden=(8,))), (2,), ((3,),)
    ),
    "flow_over_full_covariance": lambda: ConditionalCase(
        dgm.Flow(
            dgm.MultivariateNormal(dgm.mlp(3, 5), 2), dgm.realnvp(2, 2, context=3, hidden=(8,))
        ),
        (2,),
        ((3,),),
    ),
    "flow_image_of_context": lambda: ConditionalCase(
        dgm.Flow(dgm.StandardNormal((1, 1, 2)), dgm.image_realnvp((1, 1, 2), 2, 3, 4, 1)),
        (1, 1, 2),
        ((3, 1, 2),),
    ),
    "multivariate_normal": lambda: ConditionalCase(
        dgm.MultivariateNormal(dgm.mlp(3, 5), 2), (2,), ((3,),)
    ),
    "low_rank": lambda: ConditionalCase(
        dgm.LowRankMultivariateNormal(dgm.mlp(3, 6), 2, 1), (2,), ((3,),)
    ),
    "mixture_prior": lambda: ConditionalCase(dgm.MixturePrior(2, 4), (2,)),
    "vamp_prior": lambda: ConditionalCase(
        dgm.VampPrior(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)), torch.randn(5, 3)), (2,)
    ),
    "vamp_prior_of_context": lambda: ConditionalCase(
        dgm.VampPrior(dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(5, 4))), torch.randn(5, 3)),
        (2,),
        ((2,),),
    ),
    "vamp_prior_of_flow": lambda: ConditionalCase(
        dgm.VampPrior(
            dgm.Flow(
                dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
                dgm.realnvp(2, 2, context=3, hidden=(8,)),
            ),
            torch.randn(5, 3),
        ),
        (2,),
    ),
    "aggregate_prior": lambda: ConditionalCase(
        dgm.AggregatePrior(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)), torch.randn(7, 3)), (2,)
    ),
    "flow_over_mixture": lambda: ConditionalCase(
        dgm.Flow(dgm.MixturePrior(2, 3), dgm.maf(2, 2, hidden=(8,))), (2,)
    ),
    "pushforward": lambda: ConditionalCase(
        dgm.distributions.Pushforward(
            dgm.Conditional(dist.Normal, dgm.mlp(3, 4)), dgm.Inverse(dgm.realnvp(2, 2, hidden=(8,)))
        ),
        (2,),
        ((3,),),
    ),
    "pullback": lambda: ConditionalCase(
        dgm.distributions.Pullback(dgm.Normal(dgm.mlp(2, 8, 2)), dgm.realnvp(2, 2, hidden=(8,))),
        (2,),
        ((2,),),
    ),
    "unit_uniform": lambda: ConditionalCase(dgm.UnitUniform(), (2,), ((2,),)),
    "flow_dequantizer": lambda: ConditionalCase(dequantizer(2, 3), (2,), ((2,), (1,))),
    "zuko_maf": lambda: ConditionalCase(dgm.flows.Zuko(zuko.flows.MAF(2, **_ZUKO)), (2,)),
    "zuko_maf_of_context": lambda: ConditionalCase(
        dgm.flows.Zuko(zuko.flows.MAF(2, 3, **_ZUKO)), (2,), ((3,),)
    ),
    "flow_of_joined_contexts": lambda: ConditionalCase(
        dgm.Flow(
            dgm.StandardNormal(2),
            dgm.maf(2, 2, context=4, hidden=(8,)),
            embed=dgm.Concat(dgm.mlp(5, 8, 4)),
        ),
        (2,),
        ((3,), (2,)),
    ),
}


# Bijectors -----------------------------------------------------------------------------------------------------------


@dataclass
class BijectorCase:
    """A bijector, the size or shape of its event and of its context (0 for none), and the calls of each direction."""

    bijector: dgm.flows.Bijector
    dim: int | tuple[int, ...]
    context: int | tuple[int, ...] = 0
    forward_calls: int = 1
    inverse_calls: int | None = 1

    def event(self, direction: str = "forward") -> tuple[int, ...]:
        """The event shape of what a direction takes."""
        event = (self.dim,) if isinstance(self.dim, int) else self.dim
        return event if direction == "forward" else tuple(self.bijector.forward_shape(event))

    def value(self, *batch: int, direction: str = "forward") -> Tensor:
        """A point of the domain, or of the codomain for the inverse."""
        of = self.bijector.domain if direction == "forward" else self.bijector.codomain
        return transform_to(of)(torch.randn(*batch, *self.event(direction)))

    def at(self, *batch: int) -> Tensor | None:
        """A context, or `None` for a bijector without one."""
        shape = (self.context,) if isinstance(self.context, int) else self.context
        return torch.randn(*batch, *shape) if self.context else None

    def base(self, *batch: int, device: Any = None) -> Any:
        """A standard normal over the events that enter `forward`."""
        zeros = torch.zeros(*batch, *self.event(), device=device)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(len(self.event()))


def _bijector(bijector: Callable[[], Any], *args: Any, **kwargs: Any) -> Callable[[], BijectorCase]:
    return lambda: BijectorCase(randomize(bijector()), *args, **kwargs)


def _placed_affine() -> dgm.flows.FixedAffine:
    layer = dgm.flows.FixedAffine(4)
    layer.place(torch.randn(4), torch.randn(4, 4).tril(-1) + torch.diag(torch.rand(4) + 0.5))
    return layer


_H = (16,)
BIJECTORS: dict[str, Callable[[], BijectorCase]] = {
    "permutation": _bijector(lambda: dgm.flows.Permutation(4, (2, 0, 3, 1)), 4, 0, 0, 0),
    "affine_coupling": _bijector(lambda: dgm.flows.Coupling(5, hidden=_H), 5),
    "affine_coupling_flipped": _bijector(lambda: dgm.flows.Coupling(5, hidden=_H, flip=True), 5),
    "affine_coupling_of_context": _bijector(lambda: dgm.flows.Coupling(4, 3, _H), 4, 3),
    "affine_coupling_of_one_dim": _bijector(lambda: dgm.flows.Coupling(1, 3, _H), 1, 3),
    "autoregressive": _bijector(lambda: dgm.flows.Autoregressive(4, hidden=_H), 4, 0, 1, 4),
    "autoregressive_reversed": _bijector(
        lambda: dgm.flows.Autoregressive(4, 3, (16, 12), reverse=True), 4, 3, 1, 4
    ),
    "autoregressive_of_one_dim": _bijector(lambda: dgm.flows.Autoregressive(1, 3, _H), 1, 3),
    "inverse": _bijector(lambda: dgm.Inverse(dgm.flows.Autoregressive(4, 3, _H)), 4, 3, 4, 1),
    "realnvp": _bijector(lambda: dgm.realnvp(4, 3, hidden=_H), 4, 0, 3, 3),
    "realnvp_of_context": _bijector(lambda: dgm.realnvp(5, 3, 3, _H), 5, 3, 3, 3),
    "iaf": _bijector(lambda: dgm.iaf(4, 2, hidden=_H), 4, 0, 2, 2 * 4),
    "iaf_of_context": _bijector(lambda: dgm.iaf(4, 3, 3, _H), 4, 3, 3, 3 * 4),
    "maf": _bijector(lambda: dgm.maf(4, 2, hidden=_H), 4, 0, 2 * 4, 2),
    "maf_of_context": _bijector(lambda: dgm.maf(4, 3, 3, _H), 4, 3, 3 * 4, 3),
    "additive_coupling": _bijector(
        lambda: dgm.flows.Coupling(5, 3, _H, dgm.flows.Additive()), 5, 3
    ),
    "mixture_coupling": _bijector(
        lambda: dgm.flows.Coupling(5, 0, (4,), dgm.flows.LogisticMixture(3)), 5
    ),
    "mixture_coupling_of_context": _bijector(
        lambda: dgm.flows.Coupling(4, 3, (4,), dgm.flows.LogisticMixture(3)), 4, 3
    ),
    "spline_coupling": _bijector(lambda: dgm.spline_coupling(5, 2, hidden=_H), 5, 0, 2, 2),
    "spline_coupling_of_context": _bijector(lambda: dgm.spline_coupling(4, 2, 3, _H), 4, 3, 2, 2),
    "spline_iaf": _bijector(lambda: dgm.spline_iaf(3, 2, hidden=_H), 3, 0, 2, 2 * 3),
    "spline_maf_of_context": _bijector(lambda: dgm.spline_maf(3, 2, 3, _H), 3, 3, 2 * 3, 2),
    "fixed_affine": _bijector(_placed_affine, 4, 0, 0, 0),
    "lu_linear": _bijector(lambda: dgm.flows.LULinear(4), 4, 0, 0, 0),
    "lu_linear_of_context": _bijector(lambda: dgm.flows.LULinear(4, 3), 4, 3),
    "orthogonal_of_context": _bijector(
        lambda: dgm.flows.Stack([dgm.flows.ActNorm(4), dgm.flows.Orthogonal(4, 1, 3)]), 4, 3
    ),
    "act_norm_of_context": _bijector(lambda: dgm.flows.ActNorm(4, 3, _H), 4, 3, 1, 1),
    "pointwise": _bijector(lambda: dgm.Pointwise(SigmoidTransform()), 4, 0, 0, 0),
    "pointwise_of_parts": _bijector(
        lambda: dgm.Pointwise(
            ComposeTransform([AffineTransform(0.2, 0.7, event_dim=1), TanhTransform()])
        ),
        4,
        0,
        0,
        0,
    ),
    "pointwise_pyro": _bijector(lambda: dgm.Pointwise(transforms.affine_coupling(4)), 4),
    "pointwise_pyro_of_context": _bijector(
        lambda: dgm.Pointwise(transforms.conditional_affine_coupling(4, 3)), 4, 3
    ),
    "orthogonal": _bijector(
        lambda: dgm.flows.Stack([dgm.flows.ActNorm(4), dgm.flows.Orthogonal(4)]), 4, 0, 0, 0
    ),
    "act_norm": _bijector(lambda: dgm.flows.ActNorm(4), 4, 0, 0, 0),
    "mixed_stack": _bijector(
        lambda: dgm.flows.Stack(
            [
                dgm.flows.Coupling(4, hidden=_H),
                dgm.flows.Permutation(4),
                dgm.flows.Autoregressive(4, hidden=_H),
            ]
        ),
        4,
        0,
        1 + 1,
        1 + 4,
    ),
    "image_coupling": _bijector(
        lambda: dgm.flows.ImageCoupling(dgm.flows.checkerboard_mask((2, 4, 4)), 0, 4, 1), (2, 4, 4)
    ),
    "image_coupling_of_context": _bijector(
        lambda: dgm.flows.ImageCoupling(dgm.flows.channel_mask((3, 2, 4)), 2, 4, 1),
        (3, 2, 4),
        (2, 2, 4),
    ),
    "image_coupling_of_one_pixel": _bijector(
        lambda: dgm.flows.ImageCoupling(dgm.flows.channel_mask((1, 1, 1)), 2, 4, 1),
        (1, 1, 1),
        (2, 1, 1),
    ),
    "additive_image_coupling": _bijector(
        lambda: dgm.flows.ImageCoupling(
            dgm.flows.channel_mask((2, 2, 2), flip=True), 0, 4, 1, dgm.flows.Additive()
        ),
        (2, 2, 2),
    ),
    "spline_image_coupling": _bijector(
        lambda: dgm.flows.ImageCoupling(
            dgm.flows.checkerboard_mask((1, 4, 4), flip=True), 1, 4, 1, dgm.flows.Spline(4)
        ),
        (1, 4, 4),
        (1, 4, 4),
    ),
    "mixture_image_coupling": _bijector(
        lambda: dgm.flows.ImageCoupling(
            dgm.flows.checkerboard_mask((2, 2, 2)), 0, 2, 1, dgm.flows.LogisticMixture(3)
        ),
        (2, 2, 2),
    ),
    "image_realnvp_of_context": _bijector(
        lambda: dgm.image_realnvp((2, 4, 4), 3, 1, 4, 1), (2, 4, 4), (1, 4, 4), 3, 3
    ),
    "levels": _bijector(lambda: dgm.Levels(17), 4, 0, 0, 0),
    "levels_of_images": _bijector(lambda: dgm.Levels(256, 0.05, event_dim=3), (1, 2, 3), 0, 0, 0),
    "multiscale_realnvp": _bijector(
        lambda: dgm.multiscale_realnvp((1, 4, 4), (4, 4, 4), layers=1, blocks=1),
        16,
        0,
        1 + 1 + 2,
        1 + 1 + 2,
    ),
    "factor_out_of_context": _bijector(
        lambda: dgm.flows.FactorOut(
            (3, 2, 2),
            dgm.flows.Stack([dgm.flows.Coupling(4, 2, (4,)), dgm.flows.Unflatten((1, 2, 2))]),
        ),
        12,
        2,
    ),
    "act_norm_of_images": _bijector(
        lambda: dgm.flows.PerPixel(dgm.flows.ActNorm(2)), (2, 3, 2), 0, 0, 0
    ),
    "one_by_one_convolution": _bijector(
        lambda: dgm.flows.PerPixel(dgm.flows.LULinear(3)), (3, 2, 2), 0, 0, 0
    ),
    "linear_of_pixels_of_context": _bijector(
        lambda: dgm.flows.PerPixel(dgm.flows.LULinear(2, 3)), (2, 2, 3), (3, 2, 3)
    ),
    "squeeze": _bijector(lambda: dgm.flows.Squeeze((2, 4, 6)), (2, 4, 6), 0, 0, 0),
    "inverse_squeeze": _bijector(
        lambda: dgm.Inverse(dgm.flows.Squeeze((2, 4, 4))), (8, 2, 2), 0, 0, 0
    ),
    "unflatten": _bijector(
        lambda: dgm.flows.Stack([dgm.flows.LULinear(8), dgm.flows.Unflatten((2, 2, 2))]), 8, 0, 0, 0
    ),
}

ONE_WAY: dict[str, Callable[[], BijectorCase]] = {
    "planar": _bijector(lambda: dgm.flows.planar(4, 2), 4, 0, 0, None),
    "planar_of_context": _bijector(lambda: dgm.flows.planar(4, 2, 3), 4, 3, 2, None),
    "sylvester": _bijector(lambda: dgm.flows.sylvester(4, 2), 4, 0, 0, None),
    "sylvester_of_context": _bijector(
        lambda: dgm.flows.sylvester(4, 2, 3, _H, num_units=2), 4, 3, 2, None
    ),
}


# Pairs ---------------------------------------------------------------------------------------------------------------


@dataclass
class PairCase:
    """A model, its guide, and `batch(n)`, the arguments of both: the observation first, then contexts."""

    model: nn.Module
    guide: nn.Module
    batch: Callable[[int], tuple[Tensor, ...]]


def _levels(num_levels: int, dim: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randint(num_levels, (n, dim)),)


def _vae(prior: nn.Module, likelihood: nn.Module, encoder: nn.Module, batch: Callable) -> PairCase:
    vae = dgm.VAE(prior, likelihood, encoder)
    return PairCase(vae.model, vae.guide, batch)


def vae_normal() -> PairCase:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(4, 8, 2 * 2))
    return _vae(
        dgm.StandardNormal(2),
        dgm.Normal(dgm.mlp(2, 8, 4), scale=0.8),
        encoder,
        lambda n: (torch.randn(n, 4),),
    )


def vae_bernoulli() -> PairCase:
    encoder = dgm.Conditional(dist.Normal, dgm.gated_mlp(6, 8, 2 * 2))
    likelihood = dgm.Bernoulli(dgm.gated_mlp(2, 8, 6))
    return _vae(
        dgm.StandardNormal(2),
        likelihood,
        encoder,
        lambda n: (torch.bernoulli(torch.full((n, 6), 0.5)),),
    )


def vae_categorical() -> PairCase:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 8, 2 * 2))
    return _vae(
        dgm.StandardNormal(2),
        dgm.Categorical(dgm.mlp(2, 8, 3 * 5), levels=5),
        encoder,
        _levels(5, 3),
    )


def vae_flow() -> PairCase:
    prior = dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,)))
    likelihood = dgm.DiscretizedLogistic(dgm.mlp(3, 8, 2 * 4), levels=9)
    base = dgm.Conditional(dist.Normal, dgm.mlp(5, 2 * 3))
    encoder = dgm.Flow(base, dgm.iaf(3, 2, context=5, hidden=(8,)), embed=dgm.mlp(4, 8, 5))
    return _vae(prior, likelihood, encoder, _levels(9, 4))


def vae_realnvp() -> PairCase:
    prior = dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 2, hidden=(8,)))
    base = dgm.Conditional(dist.Normal, dgm.mlp(5, 2 * 3))
    encoder = dgm.Flow(base, dgm.realnvp(3, 2, context=5, hidden=(8,)), embed=dgm.mlp(4, 8, 5))
    return _vae(prior, dgm.Normal(dgm.mlp(3, 8, 4)), encoder, lambda n: (torch.randn(n, 4),))


def vae_zuko() -> PairCase:
    flow = zuko.flows.MAF(2, 4, **_ZUKO)
    encoder = dgm.flows.Zuko(zuko.lazy.Flow(flow.transform.inv, flow.base))
    prior = dgm.flows.Zuko(zuko.flows.NSF(2, **_ZUKO))
    return _vae(prior, dgm.Normal(dgm.mlp(2, 8, 4)), encoder, lambda n: (torch.randn(n, 4),))


def vae_vamp() -> PairCase:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(4, 8, 2 * 2))
    prior = dgm.VampPrior(encoder, torch.randn(5, 4))
    return _vae(prior, dgm.Normal(dgm.mlp(2, 8, 4)), encoder, lambda n: (torch.randn(n, 4),))


def vae_absorbed() -> PairCase:
    """A mixture under a flow, absorbed by a full-covariance encoder and the decoder."""
    prior = dgm.Flow(dgm.MixturePrior(2, 3), dgm.realnvp(2, 2, hidden=(8,)))
    encoder = dgm.MultivariateNormal(dgm.mlp(4, 8, 5), 2)
    vae = dgm.absorb_prior(dgm.VAE(prior, dgm.Normal(dgm.mlp(2, 8, 4)), encoder))
    return PairCase(vae.model, vae.guide, lambda n: (torch.randn(n, 4),))


def vae_one_way() -> PairCase:
    """A guide whose flow can't score given points."""
    base = dgm.LowRankMultivariateNormal(dgm.mlp(5, 3 * 4), 3, 2)
    encoder = dgm.Flow(
        base, [*dgm.flows.planar(3, 2, 5), *dgm.flows.sylvester(3, 1, 5)], dgm.mlp(4, 8, 5)
    )
    return _vae(
        dgm.StandardNormal(3), dgm.Normal(dgm.mlp(3, 8, 4)), encoder, lambda n: (torch.randn(n, 4),)
    )


def vae_labels() -> PairCase:
    likelihood = dgm.Normal(dgm.Concat(dgm.mlp(2 + 3, 8, 4)))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(4 + 3, 8, 2 * 2)))

    def batch(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 4), one_hot(torch.randint(3, (n,)), 3).to(torch.get_default_dtype())

    return _vae(dgm.StandardNormal(2), likelihood, encoder, batch)


def vae_conv() -> PairCase:
    shape, channels = (1, 5, 6), (3, 4)
    likelihood = dgm.Bernoulli(dgm.ConvDecoder(2, shape, channels), event_dim=3)
    encoder = dgm.Conditional(dist.Normal, dgm.ConvEncoder(shape, 2 * 2, channels))
    return _vae(
        dgm.StandardNormal(2),
        likelihood,
        encoder,
        lambda n: (torch.bernoulli(torch.full((n, *shape), 0.5)),),
    )


def vae_pixelcnn() -> PairCase:
    shape = (1, 2, 3)
    network = dgm.nn.GatedPixelCNN(shape, 1, context=4, channels=4, blocks=2)
    likelihood = dgm.PixelCNN(
        network, dgm.Bernoulli(nn.Identity(), event_dim=3), embed=dgm.mlp(2, 4)
    )
    encoder = dgm.Conditional(dist.Normal, dgm.ConvEncoder(shape, 2 * 2, (4,)))
    return _vae(
        dgm.StandardNormal(2),
        likelihood,
        encoder,
        lambda n: (torch.bernoulli(torch.full((n, *shape), 0.5)),),
    )


def density_flow() -> PairCase:
    density = dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,)))
    return PairCase(dgm.DensityModel(density), dgm.EmptyGuide(), lambda n: (torch.randn(n, 3),))


def density_dequantized() -> PairCase:
    density = dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 2, hidden=(8,)))
    model = dgm.dequantized(dgm.DensityModel(density))
    return PairCase(model, dgm.NoiseGuide(dequantizer(3, 3)), _levels(4, 3))


def vae_dequantized() -> PairCase:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(4, 8, 2 * 2))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, 4)), encoder, dequantizer(4, 4))
    return PairCase(vae.model, vae.guide, _levels(5, 4))


def density_image() -> PairCase:
    density = dgm.Flow(
        dgm.StandardNormal((1, 2, 2)), dgm.image_realnvp((1, 2, 2), 2, hidden=4, blocks=1)
    )
    return PairCase(
        dgm.DensityModel(density), dgm.EmptyGuide(), lambda n: (torch.randn(n, 1, 2, 2),)
    )


def vae_image_flow() -> PairCase:
    """A flow likelihood of images of levels, conditional on z, and a flow over their noise."""
    shape, cube = (1, 4, 4), dgm.Levels(1, alpha=0.0, event_dim=3)
    couplings = {n: dgm.image_realnvp(shape, 2, context=n, hidden=4, blocks=1) for n in (1, 2)}
    likelihood = dgm.Flow(
        dgm.StandardNormal(shape),
        [*couplings[2], dgm.Levels(5, event_dim=3)],
        dgm.ConvDecoder(2, (2, 4, 4), (3,)),
    )
    noise = dgm.Flow(
        dgm.UnitUniform(shape), [dgm.Inverse(cube), *couplings[1], cube], dgm.nn.Rescale(0, 4)
    )
    encoder = dgm.Conditional(dist.Normal, dgm.ConvEncoder(shape, 2 * 2, (3,)))
    vae = dgm.VAE(dgm.StandardNormal(2), likelihood, encoder, noise)
    return PairCase(vae.model, vae.guide, lambda n: (torch.randint(5, (n, *shape)),))


class BareModel(nn.Module):
    r"""A stranger's model: $p(z_2)\, p(z_1 \mid z_2)\, p(x \mid z_1)$, written with Pyro alone."""

    def __init__(self):
        super().__init__()
        self.middle, self.bottom = nn.Linear(2, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor | None = None) -> Tensor:
        with pyro.plate("data", 1 if x is None else len(x), dim=-1):
            top = pyro.sample("z2", dist.Normal(self.middle.weight.new_zeros(2), 1.0).to_event(1))
            middle = pyro.sample("z1", dist.Normal(self.middle(top), 0.5).to_event(1))
            return pyro.sample("x", dist.Normal(self.bottom(middle), 0.3).to_event(1), obs=x)


class BareGuide(nn.Module):
    r"""A stranger's guide: $q(z_1 \mid x)\, q(z_2 \mid z_1)$."""

    def __init__(self):
        super().__init__()
        self.middle, self.top = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor | None = None) -> None:
        with pyro.plate("data", len(x), dim=-1):
            middle = pyro.sample("z1", dist.Normal(self.middle(x), 0.4).to_event(1))
            pyro.sample("z2", dist.Normal(self.top(middle), 0.7).to_event(1))


def two_latents_bare() -> PairCase:
    return PairCase(BareModel(), BareGuide(), lambda n: (torch.randn(n, 4),))


PAIRS: dict[str, Callable[[], PairCase]] = {
    "vae_normal": vae_normal,
    "vae_bernoulli": vae_bernoulli,
    "vae_categorical": vae_categorical,
    "vae_flow": vae_flow,
    "vae_realnvp": vae_realnvp,
    "vae_zuko": vae_zuko,
    "vae_vamp": vae_vamp,
    "vae_absorbed": vae_absorbed,
    "vae_one_way": vae_one_way,
    "vae_labels": vae_labels,
    "vae_conv": vae_conv,
    "vae_pixelcnn": vae_pixelcnn,
    "density_flow": density_flow,
    "density_dequantized": density_dequantized,
    "vae_dequantized": vae_dequantized,
    "density_image": density_image,
    "vae_image_flow": vae_image_flow,
    "two_latents_bare": two_latents_bare,
}


def over(registry: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Arguments of `pytest.mark.parametrize` that run a test over a registry: `@parametrize(**over(PAIRS))`."""
    return {"argnames": "build", "argvalues": list(registry.values()), "ids": list(registry)}


# Pairs whose latents no chain can walk over: they have none, or a guide that can't be scored at given values.
WITHOUT_CHAINS = ("density_flow", "density_image", "vae_one_way")
