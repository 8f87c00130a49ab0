"""Transforms of torch and Pyro as bijectors: their own values, and nothing that they kept from the last call."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from cases import over, randomize
from conftest import in_float64
from pyro.distributions import transforms
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    SigmoidTransform,
    TanhTransform,
    transform_to,
)

import pyro_dgm as dgm

SCALAR: dict[str, Callable] = {
    "sigmoid": SigmoidTransform,
    "tanh": TanhTransform,
    "exp": ExpTransform,
    "affine": lambda: AffineTransform(
        torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([2.0, -1.0, 0.5, 3.0])
    ),
    "affine_of_vectors": lambda: AffineTransform(0.2, 0.7, event_dim=1),
    "composed": lambda: ComposeTransform(
        [AffineTransform(0.2, 0.7), TanhTransform(), AffineTransform(0.0, 2.0)]
    ),
    "inverse": lambda: SigmoidTransform().inv.inv.inv.inv,
    "cached": lambda: SigmoidTransform(cache_size=1),
}
PYRO: dict[str, Callable] = {
    "affine_autoregressive": lambda: transforms.affine_autoregressive(4, hidden_dims=[8]),
    "affine_coupling": lambda: transforms.affine_coupling(4, hidden_dims=[8]),
    "planar": lambda: transforms.planar(4),
    "radial": lambda: transforms.radial(4),
    "sylvester": lambda: transforms.sylvester(4),
    "spline": lambda: transforms.spline(4),
    "spline_coupling": lambda: transforms.spline_coupling(4, 2, hidden_dims=[8]),
    "spline_autoregressive": lambda: transforms.spline_autoregressive(4, hidden_dims=[8]),
    "householder": lambda: transforms.householder(4, 2),
    "matrix_exponential": lambda: transforms.matrix_exponential(4),
    "compose": lambda: transforms.ComposeTransformModule(
        [
            transforms.affine_coupling(4, hidden_dims=[8]),
            transforms.affine_autoregressive(4, hidden_dims=[8]),
        ]
    ),
}
TWO_WAY = {n: b for n, b in PYRO.items() if n not in ("planar", "radial", "sylvester")}
CONDITIONAL: dict[str, Callable] = {
    "planar": lambda: transforms.conditional_planar(4, 3, hidden_dims=[8]),
    "affine_coupling": lambda: transforms.conditional_affine_coupling(4, 3, hidden_dims=[8]),
    "affine_autoregressive": lambda: transforms.conditional_affine_autoregressive(
        4, 3, hidden_dims=[8]
    ),
    "spline": lambda: transforms.conditional_spline(4, 3, hidden_dims=[8]),
}
ALL = {**SCALAR, **PYRO}


def made(build: Callable) -> dgm.Pointwise:
    return randomize(dgm.Pointwise(build()), 0.1)


# Values --------------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize(**over(SCALAR))
def test_a_transform_of_numbers_acts_on_every_coordinate_and_its_log_dets_are_summed(build):
    transform, bijector = build(), made(build)
    x = transform_to(bijector.domain)(torch.randn(5, 4))
    y, log_det = bijector(x)
    torch.testing.assert_close(y, transform(x))
    slopes = torch.func.vmap(torch.func.jacrev(lambda v: transform(v)))(x).diagonal(
        dim1=-2, dim2=-1
    )
    torch.testing.assert_close(log_det, slopes.abs().log().sum(-1))
    back, back_log_det = bijector.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_log_det, -log_det)


@in_float64
@pytest.mark.parametrize(**over({n: b for n, b in PYRO.items() if n != "sylvester"}))
def test_a_transform_of_pyro_has_the_log_det_of_its_jacobian(build):
    """Not so Pyro's Sylvester (1.9.2), whose own log-det is another number; `dgm.flows.sylvester` has the right one."""
    bijector, x = made(build), torch.randn(3, 4)
    y, log_det = bijector(x)
    torch.testing.assert_close(y, bijector.wrapped(x))
    assert log_det.shape == (3,)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: bijector(v)[0], x[i])
        torch.testing.assert_close(log_det[i], jacobian.slogdet().logabsdet, rtol=1e-6, atol=1e-4)


@in_float64
@pytest.mark.parametrize(**over(TWO_WAY))
def test_a_foreign_point_is_inverted_and_scored(build):
    bijector, y = made(build), torch.randn(5, 4)
    x, log_det = bijector.inverse(y)
    again, back = bijector(x.detach().clone())
    torch.testing.assert_close(again, y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det, -back, rtol=1e-4, atol=1e-4)


@in_float64
@pytest.mark.parametrize(**over(CONDITIONAL))
def test_a_conditional_transform_is_conditioned_on_the_context_of_its_row(build):
    bijector, x, context = made(build), torch.randn(5, 4), torch.randn(5, 3)
    y, log_det = bijector(x, context)
    for i in range(5):
        transform = bijector.wrapped.condition(context[i])
        expected = transform(x[i])
        torch.testing.assert_close(y[i], expected)
        torch.testing.assert_close(log_det[i], transform.log_abs_det_jacobian(x[i], expected).sum())
    particles, _ = bijector(x.expand(2, 5, 4), context)
    torch.testing.assert_close(particles, y.expand(2, 5, 4))


@in_float64
def test_a_sigmoid_turns_a_normal_into_a_logit_normal():
    flow = dgm.Flow(dgm.StandardNormal(3), [dgm.Pointwise(SigmoidTransform())])
    value = torch.rand(6, 3)
    logit_normal = dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0).to_event(1), [SigmoidTransform()]
    )
    torch.testing.assert_close(flow().log_prob(value), logit_normal.log_prob(value))
    assert bool(flow().support.check(flow().sample((9,))).all())
    assert not bool(flow().support.check(torch.full((3,), 1.5)))


def test_the_sets_of_a_transform_are_those_of_its_vectors():
    layer = dgm.Pointwise(SigmoidTransform())
    assert layer.domain.event_dim == layer.codomain.event_dim == 1
    assert bool(layer.codomain.check(torch.full((4,), 0.5)))
    assert not bool(layer.codomain.check(torch.full((4,), 2.0)))
    assert dgm.Pointwise(transforms.affine_coupling(4)).domain.event_dim == 1


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over(ALL))
def test_nothing_of_a_call_is_kept(build):
    """A tensor with a history on the module would make a copy fail and hold the graph of the batch."""
    bijector, x = made(build), torch.full((5, 4), 0.3).requires_grad_()
    for call in (bijector, bijector.inverse):
        try:
            call(x)
        except NotImplementedError:
            continue
        kept = [
            name
            for module in (
                *bijector.modules(),
                bijector.wrapped,
                *getattr(bijector.wrapped, "parts", ()),
            )
            for name, value in vars(module).items()
            for tensor in (value if isinstance(value, tuple) else (value,))
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad
        ]
        assert not kept, f"{kept} of the last call are kept"


@pytest.mark.parametrize(**over(ALL))
def test_a_layer_can_be_copied_after_use(build):
    bijector, x = made(build), torch.full((5, 4), 0.3)
    before = bijector(x)
    torch.testing.assert_close(copy.deepcopy(bijector)(x), before)


def test_pyros_own_transform_cannot_be_copied_after_use():
    transform = transforms.affine_coupling(4, hidden_dims=[8])
    transform(torch.randn(5, 4))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(transform)


@pytest.mark.parametrize(**over(PYRO))
def test_the_same_tensor_has_another_density_after_an_update_and_a_second_backward(build):
    bijector, x = made(build), torch.randn(5, 4)
    optimizer, seen = torch.optim.SGD(bijector.parameters(), lr=0.1), []
    for _ in range(3):
        y, log_det = bijector(x)
        loss = ((y - 1).square().sum(-1) - log_det).mean()
        seen.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        witness = copy.deepcopy(bijector)
        torch.testing.assert_close(bijector(x), witness(x.clone()))
    assert len(set(seen)) == 3


def test_a_flow_of_pyro_layers_fits_its_data():
    x = 2 + 0.3 * torch.randn(300, 2)
    flow = dgm.Flow(dgm.StandardNormal(2), [dgm.Pointwise(transforms.affine_coupling(2, hidden_dims=[8])),
                                            dgm.flows.Permutation(2),
                                            dgm.Pointwise(transforms.affine_coupling(2, hidden_dims=[8]))])  # fmt: skip
    before = float(flow().log_prob(x).mean().detach())
    dgm.SVITrainer(dgm.ELBO(dgm.DensityModel(flow), dgm.EmptyGuide()), lr=0.02).fit(
        x, epochs=10, progress=False
    )
    assert float(flow().log_prob(x).mean().detach()) > before + 1


# Directions and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_a_transform_without_an_inverse_says_so(name):
    bijector = made(PYRO[name])
    with pytest.raises(NotImplementedError, match="has no inverse"):
        bijector.inverse(torch.randn(5, 4))
    flow = dgm.Flow(dgm.StandardNormal(4), [bijector])
    value = flow().rsample((5,))
    assert value.shape == (5, 4)
    law = flow()
    own = law.rsample((5,))
    assert bool(law.log_prob(own).isfinite().all())
    with pytest.raises(NotImplementedError, match="has no inverse"):
        flow().log_prob(torch.randn(5, 4))


def test_transforms_without_a_network_cost_no_network_call():
    assert (
        dgm.Pointwise(SigmoidTransform()).num_forward,
        dgm.Pointwise(SigmoidTransform()).num_inverse,
    ) == (0, 0)
    assert dgm.Pointwise(transforms.affine_coupling(4)).num_forward == 1


def test_a_conditional_transform_without_a_context_is_refused_with_the_fix():
    bijector = made(CONDITIONAL["planar"])
    with pytest.raises(
        ValueError,
        match=r"ConditionalPlanar: expected a context, got none\. Fix: bijector\(x, context\)",
    ):
        bijector(torch.randn(5, 4))


def test_a_transform_of_matrices_is_refused():
    with pytest.raises(
        ValueError, match="Pointwise: expected a transform of numbers or vectors, got one on"
    ):
        dgm.Pointwise(transforms.CholeskyTransform())


def test_a_transform_that_changes_the_size_of_its_event_is_refused():
    with pytest.raises(
        ValueError, match=r"keeps the size of its event, got one from \(5, 4\) to \(5, 5\)"
    ):
        dgm.Pointwise(torch.distributions.StickBreakingTransform())(torch.randn(5, 4))
