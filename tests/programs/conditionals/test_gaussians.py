"""Correlated normals: their covariance by hand, and the posterior that a diagonal one misses."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from torch import Tensor, nn
from torch.nn.functional import softplus
from toys import LinearGaussian

import pyro_dgm as dgm


def raw_full(dim: int) -> int:
    return dim + dim * (dim + 1) // 2


# Density -------------------------------------------------------------------------------------------------------------


@in_float64
def test_the_entries_of_the_root_stand_row_by_row():
    raw = torch.randn(5, raw_full(3))
    law = dgm.MultivariateNormal(nn.Identity(), 3)(raw)
    expected = torch.zeros(5, 3, 3)
    for i in range(3):
        expected[:, i, i] = 1
    expected[:, 1, 0], expected[:, 2, 0], expected[:, 2, 1] = (
        raw[:, 6 + i] / 3**0.5 for i in range(3)
    )
    expected = (softplus(raw[:, 3:6]) + 1e-6)[..., None] * expected
    torch.testing.assert_close(law.scale_tril, expected)
    torch.testing.assert_close(law.loc, raw[:, :3])
    value = torch.randn(4, 5, 3)
    by_torch = torch.distributions.MultivariateNormal(raw[:, :3], expected @ expected.mT)
    torch.testing.assert_close(law.log_prob(value), by_torch.log_prob(value))


@in_float64
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_low_rank_covariance_is_factor_times_factor_plus_diagonal(rank):
    raw = torch.randn(5, (2 + rank) * 3)
    law = dgm.LowRankMultivariateNormal(nn.Identity(), 3, rank)(raw)
    factor = torch.stack([raw[:, 6 + i * rank : 6 + (i + 1) * rank] for i in range(3)], dim=1)
    covariance = factor @ factor.mT + torch.diag_embed(softplus(raw[:, 3:6]) + 1e-6)
    torch.testing.assert_close(law.covariance_matrix, covariance)
    value = torch.randn(4, 5, 3)
    by_torch = torch.distributions.MultivariateNormal(raw[:, :3], covariance)
    torch.testing.assert_close(law.log_prob(value), by_torch.log_prob(value))


@in_float64
def test_in_one_dim_the_full_covariance_is_a_scale():
    raw, value = torch.randn(6, 2), torch.randn(6, 1)
    law = dgm.MultivariateNormal(nn.Identity(), 1)(raw)
    expected = dgm.Conditional(dist.Normal, nn.Identity())(raw)
    torch.testing.assert_close(law.log_prob(value), expected.log_prob(value))


@in_float64
@pytest.mark.parametrize("build", [lambda: (dgm.MultivariateNormal(nn.Identity(), 3), 9),
                                   lambda: (dgm.LowRankMultivariateNormal(nn.Identity(), 3, 2), 12)],
                         ids=["full", "low_rank"])  # fmt: skip
def test_density_and_draws_have_the_gradient_of_finite_differences(build):
    module, width = build()
    raw, value = torch.randn(2, width, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, v: module(r).log_prob(v), (raw, value))

    def drawn(r: Tensor) -> Tensor:
        torch.manual_seed(0)
        return module(r).rsample()

    assert torch.autograd.gradcheck(drawn, (raw,))


@both_dtypes
@pytest.mark.parametrize("raw", [-20.0, 0.0, 20.0])
def test_any_diagonal_gives_a_finite_density_of_own_draws_with_finite_gradients(raw, dtype):
    """At a raw −20 the scale is the floor, 1e-6; the variance of the low-rank law likewise."""
    for module, width in (
        (dgm.MultivariateNormal(nn.Identity(), 3), raw_full(3)),
        (dgm.LowRankMultivariateNormal(nn.Identity(), 3, 1), 9),
    ):
        outputs = torch.zeros(8, width)
        outputs[:, 3:6] = raw
        outputs.requires_grad_()
        law = module(outputs)
        log_p = law.log_prob(law.rsample())
        assert bool(log_p.isfinite().all())
        (gradient,) = torch.autograd.grad(log_p.sum(), outputs)
        assert bool(gradient.isfinite().all())


def test_draws_have_the_covariance_of_the_law():
    """Of 40,000 draws against L Lᵀ: standard error sqrt((C_ij² + C_ii C_jj) / n) each, 5 allowed."""
    num = 40_000
    for module, width in (
        (dgm.MultivariateNormal(nn.Identity(), 3), 9),
        (dgm.LowRankMultivariateNormal(nn.Identity(), 3, 2), 12),
    ):
        law = module(torch.randn(width))
        covariance, variance = law.covariance_matrix, law.covariance_matrix.diagonal()
        drawn = law.sample((num,)).T.cov()
        standard_error = ((covariance.square() + variance[:, None] * variance) / num).sqrt()
        assert bool(((drawn - covariance).abs() <= 5 * standard_error).all())


# As a posterior ------------------------------------------------------------------------------------------------------


def correlated() -> tuple[LinearGaussian, Tensor]:
    """A model whose posterior has the correlation −0.9."""
    model = LinearGaussian(scale=0.7)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.8], [0.8, 1.0], [1.0, 1.0], [0.5, 0.6]]))
    precision = torch.eye(2) + model.weight.detach().T @ model.weight.detach() / 0.49
    return model, precision.inverse()


def fitted(model: LinearGaussian, x: Tensor, encoder: nn.Module) -> Tensor:
    """−ELBO of each datum after training the guide alone."""
    guide = dgm.AmortizedGuide(encoder)
    model.requires_grad_(False)
    nn.init.zeros_(encoder.net.weight)
    objective, steps = dgm.ELBO(model, guide, num_particles=8), 800
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(x).backward()
        optimizer.step()
        schedule.step()
    return dgm.nll(model, guide, x, num=2000).nelbo


ENCODERS = {
    "full": lambda: dgm.MultivariateNormal(nn.Linear(4, 5), 2),
    "low_rank": lambda: dgm.LowRankMultivariateNormal(nn.Linear(4, 6), 2, 1),
    "diagonal": lambda: dgm.Conditional(dist.Normal, nn.Linear(4, 4)),
}


@in_float64
@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.slow
def test_a_correlated_encoder_reaches_the_evidence_and_a_diagonal_one_misses_it_by_the_closed_form(
    family,
):
    """KL of the best diagonal normal = ½ log (Π Λ_ii / det Λ), Λ the precision; 0.03 nats are left to training."""
    model, covariance = correlated()
    x, precision = model.data(40), covariance.inverse()
    gap = fitted(model, x, ENCODERS[family]()) + model.log_evidence(x)
    kl = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert float(kl) > 0.5
    expected = float(kl) if family == "diagonal" else 0.0
    assert abs(float(gap.mean()) - expected) < 0.03


@in_float64
def test_with_the_exact_posterior_in_its_weights_every_draw_weighs_the_evidence():
    model, covariance = correlated()
    root = torch.linalg.cholesky(covariance)
    net = nn.Linear(4, 5)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[:2] = covariance @ model.weight.T / 0.49
        net.bias[:2] = -net.weight[:2] @ model.bias
        net.bias[2:4] = (root.diagonal() - 1e-6).expm1().log()
        net.bias[4] = 2**0.5 * root[1, 0] / root[1, 1]
    x = model.data(6)
    particles = dgm.draw(model, dgm.AmortizedGuide(dgm.MultivariateNormal(net, 2)), x, num=5)
    torch.testing.assert_close(particles.log_weight.detach(), model.log_evidence(x).expand(5, 6))


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_network_of_another_width_is_refused_with_the_fix():
    expected = r"MultivariateNormal: expected a network output \(\*batch, "
    with pytest.raises(
        ValueError,
        match=expected + r"14\), which is D \+ D \(D \+ 1\) / 2; got \(7, 8\)\. Fix: .* 14\)",
    ):
        dgm.MultivariateNormal(nn.Linear(3, 8), dim=4)(torch.zeros(7, 3))
    with pytest.raises(
        ValueError,
        match="LowRank" + expected + r"16\), which is \(2 \+ R\) D; got \(7, 8\)\. Fix: .* 16\)",
    ):
        dgm.LowRankMultivariateNormal(nn.Linear(3, 8), dim=4, rank=2)(torch.zeros(7, 3))


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_outside_one_to_dim_is_refused(rank):
    with pytest.raises(ValueError, match=rf"expected 1 <= rank <= dim=4, got {rank}\. Fix: rank=2"):
        dgm.LowRankMultivariateNormal(nn.Linear(3, 16), dim=4, rank=rank)


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_an_own_draw_is_scored_exactly_though_the_covariance_is_ill_conditioned(dtype):
    """D = 40 with entries of L as after ten MNIST steps: solving for the noise was wrong by 10^26 nats."""
    dim = 40
    entries = 50 * torch.randn(dim * (dim - 1) // 2)
    raw = torch.cat([torch.randn(dim), torch.full((dim,), -4.0), entries])
    law = dgm.MultivariateNormal(nn.Identity(), dim)(raw)
    state = torch.get_rng_state()
    z = law.rsample((100,))
    torch.set_rng_state(state)
    eps = torch.randn(100, dim, dtype=raw.dtype)
    expected = dist.Normal(0.0, 1.0).log_prob(eps).sum(-1) - law.scale_tril.diagonal().log().sum()
    torch.testing.assert_close(law.log_prob(z), expected)
    assert not torch.allclose(law.log_prob(z.clone()), expected), (
        "the way back is exact: this test is idle"
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: dgm.MultivariateNormal(nn.Linear(3, 2), dim=0),
        lambda: dgm.LowRankMultivariateNormal(nn.Linear(3, 2), dim=0, rank=1),
    ],
)
def test_a_size_below_one_is_refused(build):
    with pytest.raises(ValueError, match=r"expected dim >= 1, got 0\. Fix: .*dim=8"):
        build()


def test_the_representation_shows_the_settings():
    full = dgm.MultivariateNormal(nn.Linear(3, 5), dim=2, floor=0.1)
    assert "dim=2, floor=0.1" in repr(full)
    low_rank = dgm.LowRankMultivariateNormal(nn.Linear(3, 8), dim=2, rank=2)
    assert "dim=2, rank=2, floor=1e-06" in repr(low_rank)
