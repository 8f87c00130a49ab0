"""Scores pushed along a flow equal those of an inversion, and path gradients those of sticking the landing."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from cases import BIJECTORS, over
from torch.func import functional_call

import pyro_dgm as dgm
from pyro_dgm.flows import (
    Autoregressive,
    Coupling,
    FixedAffine,
    Inverse,
    LogisticMixture,
    LULinear,
    Permutation,
    Spline,
)

D = 5


def placed_affine():
    layer = FixedAffine(D)
    layer.place(torch.randn(D), torch.randn(D, D).tril(-1) + torch.eye(D))
    return layer


LAYERS = {
    "coupling": lambda: Coupling(D, hidden=(16,)),
    "flipped coupling": lambda: Coupling(D, hidden=(16,), flip=True),
    "spline coupling": lambda: Coupling(D, hidden=(16,), transformer=Spline()),
    "mixture coupling": lambda: Coupling(D, hidden=(16,), transformer=LogisticMixture(3)),
    "autoregressive": lambda: Autoregressive(D, hidden=(16,)),
    "autoregressive, reversed": lambda: Autoregressive(D, hidden=(16,), reverse=True),
    "spline autoregressive": lambda: Autoregressive(D, hidden=(16,), transformer=Spline()),
    "inverse autoregressive": lambda: Inverse(Autoregressive(D, hidden=(16,))),
    "LU": lambda: LULinear(D),
    "permutation": lambda: Permutation(D),
    "fixed affine": placed_affine,
    "realnvp": lambda: dgm.realnvp(D, layers=4, hidden=(16,)),
    "iaf": lambda: dgm.iaf(D, layers=2, hidden=(16,)),
}
INVERTIBLE = {name: build for name, build in BIJECTORS.items() if build().inverse_calls is not None}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
in_float64 = pytest.mark.parametrize("dtype", ["float64"], indirect=True)


def moved(module):
    """The module away from its start, where many layers are the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def score_by_inversion(flow, y):
    """d log q(y) / dy with detached parameters: one pass of the inverse."""
    tensors = {name: tensor.detach() for name, tensor in flow.state_dict().items()}
    y = y.detach().requires_grad_()
    log_q = Scorer(flow)
    tensors = {f"flow.{name}": tensor for name, tensor in tensors.items()}
    (score,) = torch.autograd.grad(functional_call(log_q, tensors, (y,)).sum(), y)
    return score


class Scorer(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, y):
        return self.flow().log_prob(y)


@in_float64
@layers
@pytest.mark.filterwarnings("ignore::pyro_dgm.flows.DirectionWarning")
def test_the_pushed_score_is_that_of_an_inversion(make, dtype):
    flow = moved(dgm.Flow(dgm.StandardNormal(D), make()))
    drawn = flow.draw_with_score(7)
    torch.testing.assert_close(drawn.score, score_by_inversion(flow, drawn.y), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(drawn.log_q, flow().log_prob(drawn.y))
    assert not drawn.score.requires_grad


@in_float64
@pytest.mark.parametrize(**over(INVERTIBLE))
def test_every_bijector_pushes_a_score_as_its_inverse_does(build, dtype):
    r"""$\partial_y (\log p(x) + \log|\det \partial x / \partial y|)$ at given contexts, images included."""
    case = build()
    layer, context = case.bijector, case.at(3)
    x = case.value(3).requires_grad_()
    score = torch.randn_like(x)
    y, log_det, pushed = layer.push_score(x, score, context)
    torch.testing.assert_close((y, log_det), tuple(layer(x, context)))
    given = y.detach().requires_grad_()
    found, inverse_log_det = layer.inverse(given, context)
    log_p = (found * score).sum() + inverse_log_det.expand(3).sum()
    (expected,) = torch.autograd.grad(log_p, given)
    torch.testing.assert_close(pushed, expected, rtol=1e-6, atol=1e-6)


def skewed_log_p(z):
    return -(z.square().square().sum(-1) + z[..., 0] * z[..., 1])


@in_float64
@layers
@pytest.mark.filterwarnings("ignore::pyro_dgm.flows.DirectionWarning")
def test_the_path_gradient_is_that_of_sticking_the_landing(make, dtype):
    """Of log q(z) - log p(z), for every parameter of layers that have some, to 1e-6."""
    flow = moved(dgm.Flow(dgm.StandardNormal(D), [LULinear(D), *dgm.flows.Stack(make())]))
    parameters = list(flow.parameters())
    drawn = flow.draw_with_score(7)
    ours = (drawn.path_log_prob - skewed_log_p(drawn.y)).sum()
    fast = torch.autograd.grad(ours, parameters, retain_graph=True)
    score = score_by_inversion(flow, drawn.y)
    theirs = ((score * drawn.y).sum(-1) - skewed_log_p(drawn.y)).sum()
    landing = torch.autograd.grad(theirs, parameters)
    for one, other in zip(fast, landing, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@in_float64
@pytest.mark.parametrize("make", [LAYERS["realnvp"], LAYERS["iaf"]], ids=["realnvp", "iaf"])
@pytest.mark.filterwarnings("ignore::pyro_dgm.flows.DirectionWarning")
def test_the_path_gradient_is_zero_draw_by_draw_at_the_exact_posterior(make, dtype):
    flow = moved(dgm.Flow(dgm.StandardNormal(D), make()))
    exact = copy.deepcopy(flow).requires_grad_(False)
    drawn = flow.draw_with_score(7)
    losses = drawn.path_log_prob - exact().log_prob(drawn.y)
    torch.testing.assert_close(losses, torch.zeros_like(losses))
    for loss in losses:
        for gradient in torch.autograd.grad(loss, list(flow.parameters()), retain_graph=True):
            torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


def test_an_autoregressive_flow_runs_each_network_once():
    flow = dgm.Flow(dgm.StandardNormal(D), dgm.iaf(D, layers=2))
    calls = []
    for layer in flow.bijector:
        layer.made.register_forward_hook(lambda *_: calls.append(1))
    flow.draw_with_score(7)
    assert len(calls) == 2
    flow().log_prob(torch.zeros(7, D))
    assert len(calls) == 2 + 2 * D


def test_a_flow_at_a_context_and_over_a_learned_base_is_scored():
    base = dgm.Conditional(dist.Normal, dgm.mlp(3, 2 * D))
    flow = moved(dgm.Flow(base, dgm.realnvp(D, layers=2, context=3)))
    context = torch.randn(4, 3)
    drawn = flow.draw_with_score(7, context)
    y = drawn.y.detach().requires_grad_()
    (score,) = torch.autograd.grad(flow(context).log_prob(y).sum(), y)
    torch.testing.assert_close(drawn.score, score, rtol=1e-4, atol=1e-4)
    assert drawn.log_q.shape == (7, 4)


def test_a_fixed_affine_refuses_what_is_no_place():
    with pytest.raises(ValueError, match=r"FixedAffine: expected a finite loc .* Fix: layer.place"):
        FixedAffine(2).place(torch.zeros(2), -torch.eye(2))
