"""Planar and Sylvester layers: the formulas of their papers by hand, invertibility, and the guide that they are for."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from cases import ONE_WAY, over, randomize
from conftest import both_dtypes, in_float64
from torch import Tensor, nn
from toys import LinearGaussian

import pyro_dgm as dgm


def set_to(layer: dgm.flows.Bijector, **values: Tensor) -> dgm.flows.Bijector:
    with torch.no_grad():
        for name, value in values.items():
            layer.params.starts[name].copy_(value)
    return layer


# Planar --------------------------------------------------------------------------------------------------------------


@in_float64
def test_a_planar_layer_by_hand():
    """w = (1, 2), u = (0.3, −0.1), so w·u = 0.1 and û = u + (log(1 + (e − 1) e^0.1) − 1 − 0.1) w / 5."""
    w, u, x = torch.tensor([1.0, 2.0]), torch.tensor([0.3, -0.1]), torch.tensor([0.5, -0.2])
    layer = set_to(dgm.flows.Planar(2), w=w, u=u, b=torch.tensor(0.4))
    wanted = math.log(1 + (math.e - 1) * math.exp(0.1)) - 1
    u_hat = u + (wanted - 0.1) * w / 5
    h = math.tanh(0.5 - 0.4 + 0.4)
    y, log_det = layer(x)
    torch.testing.assert_close(y, x + u_hat * h)
    torch.testing.assert_close(log_det, torch.tensor(math.log(1 + (1 - h**2) * wanted)))
    torch.testing.assert_close((w * u_hat).sum(), torch.tensor(wanted))


@in_float64
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 20.0])
def test_a_planar_layer_is_invertible_at_any_weights(scale):
    """Along w it is monotone, and across w it shifts in one direction."""
    for _ in range(20):
        layer = set_to(
            dgm.flows.Planar(3), w=torch.randn(3), u=scale * torch.randn(3), b=torch.randn(())
        )
        w = layer.params.starts["w"].detach()
        t = torch.linspace(-6, 6, 2001)
        x = t[:, None] * w / w.square().sum() + torch.randn(3)
        y, log_det = layer(x)
        along = (y @ w).detach()
        assert bool((along.diff() > 0).all())
        assert bool(log_det.isfinite().all())
        across = torch.linalg.qr(torch.stack([w, *torch.randn(2, 3)], dim=1))[0][:, 1:]
        u_across = ((y - x) @ across).detach()
        h = ((x @ w) + layer.params.starts["b"]).tanh().detach()
        torch.testing.assert_close(u_across, h[:, None] * (u_across / h[:, None])[0])


@both_dtypes
@pytest.mark.parametrize("slope", [-1000.0, -30.0, -10.0, 10.0, 1000.0])
def test_the_log_det_of_a_planar_layer_is_finite_where_its_slope_is_steepest(slope, dtype):
    """At w·x + b = 0 the log-det is log(1 + w·û), and w·û must stay above −1 in floats too."""
    layer = set_to(
        dgm.flows.Planar(2),
        w=torch.tensor([1.0, 0.0]),
        u=torch.tensor([slope, 0.0]),
        b=torch.tensor(0.0),
    )
    x = torch.tensor([[0.0, 0.0], [1e-5, 0.0], [1.0, 0.0], [-30.0, 2.0]]).requires_grad_()
    y, log_det = layer(x)
    assert bool(log_det.isfinite().all())
    (y.sum() + log_det.sum()).backward()
    assert all(bool(t.grad.isfinite().all()) for t in (x, *layer.parameters()))


# Sylvester -----------------------------------------------------------------------------------------------------------


@in_float64
def test_a_sylvester_layer_by_hand():
    r"""With one reflection of e₁ the columns of Q are (−e₁, e₂); $y = x + Q R \tanh(\tilde R Q^\top x + b)$."""
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    outer, inner = torch.tensor([[0.3, 0.7], [9.0, -0.2]]), torch.tensor([[0.5, -0.4], [9.0, 0.6]])
    b, x = torch.tensor([0.1, -0.3]), torch.tensor([0.4, -0.7, 1.1])
    layer = set_to(
        dgm.flows.Sylvester(3, num_units=2), vectors=vectors, outer=outer, inner=inner, b=b
    )
    q = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    r = torch.tensor([[math.tanh(0.3), 0.7], [0.0, math.tanh(-0.2)]])
    r_tilde = torch.tensor([[math.tanh(0.5), -0.4], [0.0, math.tanh(0.6)]])
    h = (r_tilde @ q.T @ x + b).tanh()
    y, log_det = layer(x)
    torch.testing.assert_close(y, x + q @ r @ h)
    torch.testing.assert_close(log_det, (1 + (1 - h**2) * (r * r_tilde).diagonal()).log().sum())
    torch.testing.assert_close(
        log_det, (torch.eye(2) + torch.diag(1 - h**2) @ r_tilde @ r).logdet()
    )


@in_float64
def test_one_unit_of_a_sylvester_layer_is_planar():
    r"""u = r q, w = r̃ q: the same map and the same determinant."""
    layer = randomize(dgm.flows.Sylvester(3, num_units=1))
    start, x = layer.params.starts, torch.randn(6, 3)
    v = start["vectors"][0]
    q = torch.eye(3)[0] - 2 * v * v[0] / v.square().sum()
    r, r_tilde = start["outer"][0, 0].tanh(), start["inner"][0, 0].tanh()
    h = (x @ (r_tilde * q) + start["b"]).tanh()
    y, log_det = layer(x)
    torch.testing.assert_close(y, x + r * q * h[:, None])
    torch.testing.assert_close(log_det, (1 + (1 - h**2).squeeze(-1) * r * r_tilde).log())


@in_float64
@pytest.mark.parametrize("num", [1, 2, 4])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_sylvester_layer_is_invertible_at_any_weights(num, scale):
    """Its Jacobian has a positive determinant, and Newton finds the point that was mapped."""
    layer = randomize(dgm.flows.Sylvester(4, num_units=num), scale)
    x = 2 * torch.randn(20, 4)
    y = layer(x)[0].detach()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))(x)
    assert bool((torch.linalg.det(jacobian) > 0).all())
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, layer(x)[1])
    found = x + 0.01 * torch.randn(20, 4)
    for _ in range(30):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))(found)
        found = (found - torch.linalg.solve(jacobian, layer(found)[0] - y)).detach()
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


@both_dtypes
@pytest.mark.parametrize("raw", [5.0, 20.0, 1000.0])
def test_the_log_det_of_a_sylvester_layer_is_finite_at_huge_weights(raw, dtype):
    """At h = 0 it is Σ log(1 + R_mm R̃_mm), and the product must stay above −1 in floats too."""
    layer = set_to(dgm.flows.Sylvester(2), outer=raw * torch.eye(2), inner=-raw * torch.eye(2))
    x = torch.tensor([[0.0, 0.0], [1.0, -30.0]])
    y, log_det = layer(x)
    assert bool(log_det.isfinite().all())
    (y.sum() + log_det.sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())


# Both ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [dgm.flows.planar, dgm.flows.sylvester])
@pytest.mark.parametrize("context", [0, 3])
def test_a_fresh_stack_is_the_identity(build, context):
    x, c = torch.randn(7, 4), torch.randn(7, 3) if context else None
    y, log_det = build(4, 3, context)(x, c)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-12 if x.dtype == torch.float64 else 1e-6)
    torch.testing.assert_close(
        log_det, torch.zeros(7), rtol=0, atol=1e-12 if x.dtype == torch.float64 else 1e-6
    )
    assert len(build(4, 3, context)) == 3


@pytest.mark.parametrize("build", [dgm.flows.planar, dgm.flows.sylvester])
def test_the_context_decides_the_layer(build):
    stack, x = randomize(build(4, 2, 3)), torch.randn(4)
    one, other = (stack(x, c)[0] for c in torch.randn(2, 3))
    assert not torch.allclose(one, other)
    for given in (None, torch.zeros(2)):
        with pytest.raises(
            ValueError, match=f"expected a context of size 3, got {'none' if given is None else 2}"
        ):
            stack(x, given)
    with pytest.raises(ValueError, match="expected a context of size 0, got 3"):
        build(4, 1)(x, torch.zeros(3))


@pytest.mark.parametrize(**over(ONE_WAY))
def test_the_inverse_is_refused_with_the_fix(build):
    case = build()
    with pytest.raises(
        NotImplementedError,
        match=r"has no inverse\. Fix: realnvp, spline_coupling or maf, which go both",
    ):
        case.bijector.inverse(torch.randn(5, case.dim), case.at(5))


@in_float64
@pytest.mark.parametrize("build", [dgm.flows.planar, dgm.flows.sylvester])
@pytest.mark.slow
def test_as_a_posterior_it_comes_closer_to_the_evidence_than_its_base(build):
    """A correlated posterior −0.8: a diagonal base misses it, a few layers across the diagonal don't."""
    model = LinearGaussian(scale=0.7)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.8], [0.8, 1.0], [1.0, 1.0], [0.5, 0.6]]))
    model.requires_grad_(False)
    x, gaps = model.data(30), []
    for layers in (0, 4):
        encoder: nn.Module = dgm.Conditional(dist.Normal, nn.Linear(4, 4))
        encoder = dgm.Flow(encoder, build(2, layers, 4)) if layers else encoder
        guide = dgm.AmortizedGuide(encoder)
        objective = dgm.ELBO(model, guide, num_particles=8)
        optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
        for _ in range(250):
            optimizer.zero_grad()
            objective(x).backward()
            optimizer.step()
        gaps.append(float((dgm.nll(model, guide, x, num=500).nelbo + model.log_evidence(x)).mean()))
    assert gaps[0] > 0.5
    assert -0.02 < gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize("num", [0, 5])
def test_units_outside_one_to_dim_are_refused(num):
    with pytest.raises(
        ValueError, match=rf"Sylvester: expected 1 <= num_units <= dim=4, got {num}"
    ):
        dgm.flows.Sylvester(4, num_units=num)
