"""The kit that holds a user's bijector to the laws: layers pass it, and a broken one is told what it breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from cases import BIJECTORS, ONE_WAY, randomize
from torch import nn
from torch.distributions import SigmoidTransform

import pyro_dgm as dgm

H = (16,)
LAYERS: dict[str, Callable[[int], dgm.flows.Bijector]] = {
    "coupling": lambda d: dgm.flows.Coupling(d, hidden=H),
    "additive": lambda d: dgm.flows.Coupling(d, hidden=H, transformer=dgm.flows.Additive()),
    "realnvp": lambda d: dgm.realnvp(d, 2, hidden=H),
    "spline_coupling": lambda d: dgm.spline_coupling(d, 2, hidden=H),
    "maf": lambda d: dgm.maf(d, 2, hidden=H),
    "iaf": lambda d: dgm.iaf(d, 2, hidden=H),
    "spline_maf": lambda d: dgm.spline_maf(d, 1, hidden=H),
    "spline_iaf": lambda d: dgm.spline_iaf(d, 1, hidden=H),
    "lu_linear": lambda d: dgm.flows.LULinear(d),
    "orthogonal": lambda d: dgm.flows.Orthogonal(d, 2),
    "act_norm": lambda d: dgm.flows.ActNorm(d),
    "planar": lambda d: dgm.flows.planar(d, 2),
    "sylvester": lambda d: dgm.flows.sylvester(d, 2, num_units=2),
    "sigmoid": lambda d: dgm.Pointwise(SigmoidTransform()),
}
SLOW = {
    "maf": 64,
    "iaf": 64,
    "spline_maf": 16,
    "spline_iaf": 16,
}  # from this size on: D network calls, each traced


def marked(values: dict[str, tuple], slow: set[str]) -> list:
    return [
        pytest.param(*v, id=n, marks=pytest.mark.slow if n in slow else ())
        for n, v in values.items()
    ]


REGISTERED = {name: (build,) for name, build in {**BIJECTORS, **ONE_WAY}.items()}
SIZED = {f"{name}-{dim}": (build, dim) for name, build in LAYERS.items() for dim in (2, 16, 64)}


@pytest.mark.parametrize("build", marked(REGISTERED, {"spline_maf_of_context", "spline_iaf"}))
def test_every_bijector_of_the_library_passes(build):
    case = build()
    dgm.flows.assert_bijector(case.bijector, case.dim, case.context)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "dim"),
    marked(SIZED, {f"{n}-{d}" for n, least in SLOW.items() for d in (2, 16, 64) if d >= least}),
)
def test_every_layer_passes_at_small_and_large_sizes(build, dim):
    dgm.flows.assert_bijector(build(dim), dim)


def test_the_bijector_and_the_users_random_state_are_left_as_they_are():
    bijector = randomize(dgm.realnvp(4, 2, 3, H))
    before, random = copy.deepcopy(bijector.state_dict()), torch.get_rng_state()
    dgm.flows.assert_bijector(bijector, 4, 3)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(
        torch.equal(t, before[n]) and t.dtype == before[n].dtype
        for n, t in bijector.state_dict().items()
    )
    assert all(p.grad is None for p in bijector.parameters())


# Broken layers -------------------------------------------------------------------------------------------------------


class Scale(dgm.flows.Bijector):
    """y = e^s x, as it should be; what is broken overrides one of its parts."""

    def __init__(self, dim: int = 3):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x, context=None):
        return self.log_scale.exp() * x, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, y, context=None):
        return (-self.log_scale).exp() * y, -self.log_scale.sum().expand(y.shape[:-1])


class WrongSign(Scale):
    """log-det of the other sign, in both directions: the round trip is blind for it."""

    def forward(self, x, context=None):
        y, log_det = super().forward(x)
        return y, -log_det

    def inverse(self, y, context=None):
        x, log_det = super().inverse(y)
        return x, -log_det


class WrongSignOfTheInverse(Scale):
    def inverse(self, y, context=None):
        x, log_det = super().inverse(y)
        return x, -log_det


class NotTheInverse(Scale):
    def inverse(self, y, context=None):
        return super().inverse(y + 0.1)


class LogDetPerCoordinate(Scale):
    def forward(self, x, context=None):
        return super().forward(x)[0], self.log_scale.expand(x.shape)


class LogDetWithoutBatch(Scale):
    def forward(self, x, context=None):
        return super().forward(x)[0], self.log_scale.sum()


class MeanOfTheBatch(Scale):
    """Data of one batch see each other."""

    def forward(self, x, context=None):
        moved = x - x.reshape(-1, x.shape[-1]).mean(0) if x.dim() > 1 else x
        return super().forward(moved)[0], super().forward(x)[1]


class StaleForward(Scale):
    """The scale is kept for the tensor that was last seen, as transforms keep their last pair (x, y)."""

    last = (None, None)

    def forward(self, x, context=None):
        if self.last[0] is not x:
            self.last = x, self.log_scale.detach().clone()
            return super().forward(x)
        return self.last[1].exp() * x, self.last[1].sum().expand(x.shape[:-1])


class StaleInverse(Scale):
    last = (None, None)

    def inverse(self, y, context=None):
        if self.last[0] is not y:
            self.last = y, self.log_scale.detach().clone()
            return super().inverse(y)
        return (-self.last[1]).exp() * y, -self.last[1].sum().expand(y.shape[:-1])


class KeptGraph(Scale):
    """Like the layers of Pyro: the log-det of the last call, with its history."""

    def forward(self, x, context=None):
        y, self.kept = super().forward(x)
        return y, self.kept


class Branch(Scale):
    def forward(self, x, context=None):
        return super().forward(x) if bool(x.sum() > -1e9) else super().forward(2 * x)


class PlainTensor(Scale):
    """What is no parameter and no buffer stays behind on `.to` and in a state dict."""

    def __init__(self, dim: int = 3):
        super().__init__(dim)
        self.shift = torch.randn(dim, dtype=torch.float32)

    def forward(self, x, context=None):
        y, log_det = super().forward(x)
        return y + self.shift, log_det

    def inverse(self, y, context=None):
        return super().inverse(y - self.shift)


class Float64(Scale):
    def forward(self, x, context=None):
        return super().forward(x * torch.ones(3, dtype=torch.float64))


class InfiniteGradient(Scale):
    def forward(self, x, context=None):
        y, log_det = super().forward(x)
        return y, log_det + 0 * (self.log_scale - self.log_scale).sqrt().sum()


class IgnoredContext(Scale):
    """It needs a context of the batch shape of x and does not broadcast."""

    def forward(self, x, context=None):
        y, log_det = super().forward(x)
        return y + context.reshape(x.shape[:-1] + (1,)), log_det

    def inverse(self, y, context=None):
        return super().inverse(y - context.reshape(y.shape[:-1] + (1,)))


BROKEN: dict[type[dgm.flows.Bijector], str] = {
    WrongSign: "log det is that of the jacobian",
    WrongSignOfTheInverse: "round trip",
    NotTheInverse: "round trip",
    LogDetPerCoordinate: "shapes and dtypes",
    LogDetWithoutBatch: "shapes and dtypes",
    MeanOfTheBatch: "round trip",
    StaleInverse: "no stale value after an update",
    StaleForward: "no stale value after an update",
    KeptGraph: "a deep copy after use computes alike",
    Branch: "vmap equals its own batch|traces into one graph",
    PlainTensor: "a state dict carries everything",
    Float64: "shapes and dtypes",
    InfiniteGradient: "gradients are finite",
}


def test_the_layer_that_the_broken_ones_are_made_of_passes():
    dgm.flows.assert_bijector(Scale(), 3)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.__name__)
def test_a_broken_layer_fails_by_the_name_of_the_law_that_it_breaks(broken):
    with pytest.raises(
        AssertionError,
        match=rf"(?s){broken.__name__}, torch\.float\d\d, law '({BROKEN[broken]})': .*Fix: \w",
    ):
        dgm.flows.assert_bijector(broken(), 3)


def test_a_layer_that_does_not_broadcast_its_context_fails():
    with pytest.raises(AssertionError, match="law '(shapes and dtypes|leading dims broadcast)'"):
        dgm.flows.assert_bijector(IgnoredContext(), 3, 1)


def test_a_one_way_layer_is_held_to_its_forward_direction():
    class Planar(dgm.flows.Planar):
        def forward(self, x, context=None):
            y, log_det = super().forward(x, context)
            return y, log_det + 0.1

    dgm.flows.assert_bijector(dgm.flows.Planar(3), 3)
    with pytest.raises(
        AssertionError, match="Planar, torch.float64, law 'log det is that of the jacobian'"
    ):
        dgm.flows.assert_bijector(Planar(3), 3)


def test_a_context_of_another_size_than_the_layers_is_an_error_of_the_first_law():
    with pytest.raises(
        AssertionError, match="law 'shapes and dtypes': .*expected a context of size 3, got 2"
    ):
        dgm.flows.assert_bijector(dgm.flows.Coupling(4, context=3), 4, 2)
