"""Linear layers against the matrices that they stand for, and the context that moves them."""

from __future__ import annotations

import pytest
import torch
from cases import randomize
from conftest import both_dtypes, in_float64
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.programs.flows.linear import ContextParameters, reflected

LAYERS = {
    "lu": lambda context: dgm.flows.LULinear(4, context),
    "orthogonal": lambda context: dgm.flows.Orthogonal(4, context=context),
    "act_norm": lambda context: dgm.flows.ActNorm(4, context),
}
layers = pytest.mark.parametrize("layer", LAYERS)


# Parameters of a context ---------------------------------------------------------------------------------------------


def three(context: int = 2, hidden=()) -> ContextParameters:
    """Named against the order of the alphabet, which a ParameterDict follows."""
    starts = {"zeta": torch.randn(3), "alpha": torch.randn(2, 4), "mid": torch.randn(())}
    return ContextParameters(context, hidden, **starts)


@in_float64
def test_parameters_come_in_the_order_that_was_given_and_not_in_that_of_their_names():
    params = three()
    zeta, alpha, mid = params(torch.randn(5, 6, 2))
    assert (zeta.shape, alpha.shape, mid.shape) == ((5, 6, 3), (5, 6, 2, 4), (5, 6))
    for found, name in zip((zeta, alpha, mid), ("zeta", "alpha", "mid"), strict=True):
        assert torch.equal(found, params.starts[name].expand_as(found)), (
            "at the start a context moves nothing"
        )


@both_dtypes
@pytest.mark.parametrize("hidden", [(), (8,)], ids=str)
def test_a_context_moves_every_parameter_and_none_by_more_than_three(hidden, dtype):
    for scale, context in ((0.3, torch.randn(50, 2)), (100.0, 100 * torch.randn(50, 2))):
        params = randomize(three(hidden=hidden), scale)
        shifts = [
            (found - params.starts[n]).detach()
            for n, found in zip(params.names, params(context), strict=True)
        ]
        assert all(float(shift.abs().max()) < 3.001 for shift in shifts)
        assert scale > 1 or all(float(shift.std(0).min()) > 0 for shift in shifts)


@in_float64
def test_the_shift_is_that_of_the_formula():
    params, context = randomize(three(hidden=(8,))), torch.randn(5, 2)
    raw = params.net(context)
    expected = params.starts["zeta"] + 3 * (raw[:, :3] / 3).tanh()
    torch.testing.assert_close(params(context)[0], expected)


@pytest.mark.parametrize(
    ("given", "got"), [(None, "none"), (torch.zeros(5, 3), "3"), (torch.zeros(5, 1), "1")]
)
def test_a_context_of_another_size_is_refused_with_the_fix(given, got):
    fix = rf"expected a context of size 2, got {got}\. Fix: Flow\(…, embed=net\) with 2 outputs"
    with pytest.raises(ValueError, match=fix):
        three()(given)
    for build in LAYERS.values():
        layer = build(2)
        for direction in (layer.forward, layer.inverse):
            with pytest.raises(ValueError, match=fix):
                direction(torch.zeros(5, 4), given)


@layers
def test_a_layer_without_a_context_passes_over_one(layer):
    bijector, x = randomize(LAYERS[layer](0)), torch.randn(5, 4)
    torch.testing.assert_close(bijector(x, torch.randn(5, 3)), bijector(x))
    assert (bijector.num_forward, bijector.num_inverse) == (0, 0)
    assert (LAYERS[layer](3).num_forward, LAYERS[layer](3).num_inverse) == (1, 1)


@in_float64
@layers
def test_a_fresh_layer_is_the_identity_at_every_context(layer):
    for context in (0, 3):
        bijector, x = LAYERS[layer](context), torch.randn(5, 4)
        y, log_det = bijector(x, torch.randn(5, 3) if context else None)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_det, torch.zeros(5))


@in_float64
@layers
def test_every_context_has_a_map_of_its_own(layer):
    bijector = randomize(LAYERS[layer](3))
    x, context = torch.randn(4), torch.randn(6, 3)
    y, _ = bijector(x, context)
    for i in range(6):
        torch.testing.assert_close(y[i], bijector(x, context[i])[0])
    assert float(y.std(0).min().detach()) > 0


# The matrices --------------------------------------------------------------------------------------------------------


@in_float64
def test_an_lu_layer_is_the_product_of_its_factors():
    layer, x = randomize(dgm.flows.LULinear(4)), torch.randn(5, 4)
    start = layer.params.starts
    lower = torch.eye(4)
    upper = torch.diag(start["log_diagonal"].exp())
    for i in range(4):
        for j in range(4):
            if j < i:
                lower[i, j] = start["entries"][i, j]
            elif j > i:
                upper[i, j] = start["entries"][i, j]
    y, log_det = layer(x)
    torch.testing.assert_close(y, x @ (lower @ upper).T + start["bias"])
    torch.testing.assert_close(log_det, (lower @ upper).slogdet().logabsdet.expand(5))
    torch.testing.assert_close(layer.inverse(y)[0], x)


@in_float64
def test_householder_vectors_give_the_product_of_their_reflections():
    vectors = torch.randn(3, 4)
    expected = torch.eye(4)
    for v in vectors:
        expected = (torch.eye(4) - 2 * torch.outer(v, v) / (v @ v)) @ expected
    torch.testing.assert_close(reflected(vectors), expected)
    torch.testing.assert_close(reflected(3 * vectors), expected)
    torch.testing.assert_close(reflected(torch.stack([vectors, vectors]))[1], expected)


@in_float64
def test_all_pairs_of_reflections_reach_any_rotation():
    """Fitted to a random rotation of four dims with the default number of pairs."""
    target = torch.linalg.qr(torch.randn(4, 4))[0]
    target[0] *= target.det()
    layer, x = dgm.flows.Orthogonal(4), torch.eye(4)
    assert layer.params.starts["vectors"].shape == (4, 4)
    randomize(layer, 0.5)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (layer(x)[0] - x @ target.T).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert float((layer(x)[0] - x @ target.T).abs().max().detach()) < 1e-4


@in_float64
def test_act_norm_with_a_context_standardizes_the_data_at_its_start():
    layer, x = dgm.flows.ActNorm(3, context=2), 5 + 2 * torch.randn(100, 3)
    layer.initialize(x)
    y, log_det = layer(x, torch.randn(100, 2))
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-10, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(3))
    torch.testing.assert_close(log_det, -x.std(0).log().sum().expand(100))


def test_a_flow_of_linear_layers_fits_a_correlated_normal():
    """Its entropy in closed form; 0.02 nats are left to training on 2,000 data."""
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.0]])
    law = torch.distributions.MultivariateNormal(torch.tensor([3.0, -1.0]), covariance)
    flow = dgm.Flow(dgm.StandardNormal(2), [dgm.flows.ActNorm(2), dgm.flows.LULinear(2)])
    trainer = dgm.SVITrainer(dgm.ELBO(dgm.DensityModel(flow), dgm.EmptyGuide()), lr=0.03)
    trainer.fit(law.sample((2000,)), epochs=15, batch_size=100, progress=False)
    z = law.sample((50_000,))
    with torch.no_grad():
        assert float((law.log_prob(z) - flow().log_prob(z)).mean()) < 0.02


def test_a_parameter_dict_keeps_the_starts_in_the_state_dict():
    one, other = three(), three()
    other.load_state_dict(one.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(one(torch.zeros(2)), other(torch.zeros(2)), strict=True)
    )
    assert isinstance(one.starts, nn.ParameterDict)
