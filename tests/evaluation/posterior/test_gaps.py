"""The inference gap in two parts, against closed forms of the linear-Gaussian model."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import in_float64
from torch import nn
from torch.distributions import kl_divergence
from torch.utils.data import DataLoader, TensorDataset
from toys import (
    ExactGuide,
    GlobalMean,
    GlobalMeanGuide,
    Series,
    SeriesGuide,
    linear_gaussian,
    toy_vae,
)

import pyro_dgm as dgm


class Exact:
    """A linear-Gaussian VAE: its evidence, its posterior, and the diagonal normal nearest to it."""

    def __init__(self, shift: float, spread: float):
        decoder, scale = nn.Linear(2, 4), 0.7
        decoder.weight.data = torch.tensor([[1.0, 0.8], [0.8, 1.0], [0.5, 0.9], [1.0, 0.2]])
        weight, bias = decoder.weight.detach(), decoder.bias.detach()
        self.precision = torch.eye(2) + weight.T @ weight / scale**2
        self.evidence = dist.MultivariateNormal(bias, weight @ weight.T + scale**2 * torch.eye(4))
        encoder = nn.Linear(4, 4)
        with (
            torch.no_grad()
        ):  # the mean of the posterior moved, and the scales of the nearest diagonal times a factor
            encoder.weight[:2] = torch.linalg.solve(self.precision, weight.T) / scale**2
            encoder.bias[:2] = -encoder.weight[:2] @ bias + shift
            encoder.weight[2:] = 0
            encoder.bias[2:] = torch.expm1(self.precision.diagonal() ** -0.5 * spread).log()
        self.vae = dgm.VAE(
            dgm.StandardNormal(2),
            dgm.Normal(decoder, scale),
            dgm.Conditional(dist.Normal, encoder, floor=1e-12),
        )

    @property
    def approximation(self) -> float:
        r"""$KL$ of the nearest diagonal to the posterior: $\frac12 (\sum_d \log P_{dd} - \log |P|)$."""
        return float(self.precision.diagonal().log().sum() - self.precision.logdet()) / 2


@in_float64
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.6, 1.4)])
@pytest.mark.slow
def test_both_gaps_are_those_of_the_closed_forms(shift, spread):
    """Means over 40 data; 5 standard errors of 2,000 draws, and 0.01 nats for an ascent that stops."""
    exact = Exact(shift, spread)
    x = exact.evidence.sample((40,))
    truth = dgm.results.GivenNLL(-exact.evidence.log_prob(x).detach())
    found = dgm.gaps(exact.vae.model, exact.vae.guide, x, num=2000, num_steps=300, truth=truth)
    moved = torch.full((2,), shift)
    amortization = moved @ exact.precision @ moved / 2 + 2 * (
        spread**2 / 2 - 0.5 - torch.tensor(spread).log()
    )
    draws = dgm.draw(exact.vae.model, exact.vae.guide, x, num=2000).log_weight.detach()
    error = 5 * float((draws.var(0) / 2000).mean() / 40) ** 0.5 + 0.01
    assert abs(found.amortization.value - float(amortization)) < error
    assert abs(found.approximation.value - exact.approximation) < error
    assert exact.approximation > 0.05  # else the second line says nothing
    weighed = dgm.gaps(exact.vae.model, exact.vae.guide, x, num=2000, num_steps=300).approximation
    assert abs(weighed.value - exact.approximation) < 5 * weighed.stderr + 0.01
    assert found.inference.value == pytest.approx(
        found.amortization.value + found.approximation.value
    )
    assert "q* the best diagonal normal of each datum; 40 data)" in str(found)


@in_float64
def test_a_truth_of_the_same_data_takes_the_place_of_importance_sampling():
    exact = Exact(0.3, 1.0)
    x = exact.evidence.sample((6,))
    truth = dgm.ais(exact.vae.model, x, num=2, steps=3, start=exact.vae.guide)
    found = dgm.gaps(exact.vae.model, exact.vae.guide, x, num=20, num_steps=5, truth=truth)
    expected = dgm.nll(exact.vae.model, exact.vae.guide, x, num=20).nelbo - truth.per_datum
    torch.testing.assert_close(
        found.amortization_per_datum + found.approximation_per_datum, expected
    )
    with pytest.raises(
        ValueError, match=r"gaps: expected a truth of 5 data, got one of 6\. Fix: the same x"
    ):
        dgm.gaps(exact.vae.model, exact.vae.guide, x[:5], num=20, num_steps=1, truth=truth)


# Any pair ------------------------------------------------------------------------------------------------------------


@in_float64
def test_the_exact_posterior_has_no_gap():
    """Its log weights are constant, so that only the ascent's noise is left."""
    model, guide, x = linear_gaussian()
    found = dgm.gaps(model, guide, x, num=400)
    assert found.amortization_per_datum.abs().max() < 0.02
    assert (found.amortization_per_datum + found.approximation_per_datum).abs().max() < 0.02
    assert "affine image" in found.kind


@in_float64
@pytest.mark.parametrize(
    ("shift", "spread"), [(0.5, 1.0), (0.0, 0.4), (-0.4, 1.8)], ids=["shifted", "narrow", "wide"]
)
def test_wrong_moments_of_a_full_covariance_are_all_amortization(shift, spread):
    r"""$KL = \frac12 m^T P m + \frac D2 (s^2 - 1) - D \log s$, and nothing is left to approximation."""
    model, _, x = linear_gaussian()
    guide = ExactGuide(model, shift, spread)
    found = dgm.gaps(model, guide, x, num=3000)
    moved, precision = torch.full((2,), shift), (guide.root @ guide.root.T / spread**2).inverse()
    exact = moved @ precision @ moved / 2 + spread**2 - 1 - 2 * torch.tensor(spread).log()
    draws = dgm.draw(model, guide, x, num=3000).log_weight.detach()
    error = 5 * float((draws.var(0) / 3000).mean() / 6) ** 0.5 + 0.01
    assert abs(found.amortization.value - float(exact)) < error
    assert found.approximation_per_datum.abs().max() < 0.02
    assert exact > 0.3  # the check can fail


class Scaled(nn.Module):
    r"""A linear-Gaussian model of one number in units of a thousandth, far from 0; its posterior moved and narrowed."""

    def __init__(self, unit, offset):
        super().__init__()
        self.unit, self.offset = unit, offset

    def model(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.tensor(self.offset), self.unit))
            return pyro.sample("x", dist.Normal((z - self.offset) / self.unit, 0.5), obs=x)

    def guide(self, x=None):
        with dgm.data_plate(x):
            pyro.sample(
                "z",
                dist.Normal(self.offset + self.unit * (0.8 * x + 0.6), 0.2**0.5 * 0.5 * self.unit),
            )


@in_float64
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e-3, 5.0), (1e4, -1e5)])
def test_the_unit_and_the_origin_of_a_latent_do_not_matter(unit, offset):
    pair, x = Scaled(unit, offset), torch.tensor([-1.0, 0.3, 2.0])
    found = dgm.gaps(pair.model, pair.guide, x, num=2000, num_steps=200)
    expected = dgm.gaps(Scaled(1.0, 0.0).model, Scaled(1.0, 0.0).guide, x, num=2000, num_steps=200)
    torch.testing.assert_close(
        found.amortization_per_datum, expected.amortization_per_datum, rtol=1e-4, atol=1e-4
    )
    exact = 0.6**2 / 0.2 / 2 + 0.25 / 2 - 0.5 + torch.tensor(2.0).log()
    assert abs(found.amortization.value - float(exact)) < 0.1
    assert found.approximation_per_datum.abs().max() < 0.02


def best_of_the_bare_family(case, x):
    r"""$\min KL(q' \| p)$ over the affine images of both conditionals of the stranger's guide, in closed form.

    $z_1 \sim N(m, 0.4^2 e^{2 s})$, $z_2 \mid z_1 \sim N(a + e^r (V z_1 + v), 0.7^2 e^{2 r})$: jointly normal.
    """
    mean, covariance = posterior_of_the_bare_model(case.model, x)
    weight = case.guide.top.weight.detach()
    place = [torch.zeros(len(x), n, requires_grad=True) for n in (3, 3, 2, 2)]
    optimizer = torch.optim.LBFGS(
        place, max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def divergence():
        m, s, a, r = place
        slope = r.exp()[:, :, None] * weight
        first, second = (
            0.4**2 * torch.diag_embed((2 * s).exp()),
            0.7**2 * torch.diag_embed((2 * r).exp()),
        )
        cross = slope @ first
        joint = torch.cat(
            [torch.cat([first, cross.mT], 2), torch.cat([cross, cross @ slope.mT + second], 2)], 1
        )
        moved = torch.cat([m, a + (slope @ m[..., None])[..., 0]], 1)
        return kl_divergence(
            dist.MultivariateNormal(moved, joint),
            dist.MultivariateNormal(mean, covariance.expand(len(x), 5, 5)),
        )

    def step():
        optimizer.zero_grad()
        loss = divergence().sum()
        loss.backward()
        return loss

    optimizer.step(step)
    return divergence().detach()


def posterior_of_the_bare_model(model, x):
    """Mean and covariance of (z1, z2) given x."""
    a, c = model.middle.weight.detach(), model.bottom.weight.detach()
    lift = torch.cat([torch.eye(3), -a], 1)  # z1 - a z2 = b + noise
    precision = lift.T @ lift / 0.25 + torch.diag(torch.tensor([0.0, 0, 0, 1, 1]))
    precision[:3, :3] += c.T @ c / 0.09
    linear = (lift.T @ model.middle.bias.detach() / 0.25).expand(len(x), 5).clone()
    linear[:, :3] += (x - model.bottom.bias.detach()) @ c / 0.09
    covariance = precision.inverse()
    return linear @ covariance, covariance


@in_float64
def test_two_latents_of_a_stranger_reach_the_best_image_of_both_conditionals():
    case = PAIRS["two_latents_bare"]()
    (x,) = case.batch(5)
    truth = dgm.results.GivenNLL(-evidence_of_the_bare_model(case.model, x))
    found = dgm.gaps(case.model, case.guide, x, num=4000, num_steps=600, lr=0.2, truth=truth)
    exact = best_of_the_bare_family(case, x)
    assert (
        (found.approximation_per_datum - exact).abs() < 0.02 + 5 * (2 * exact / 4000).sqrt()
    ).all()
    assert exact.mean() > 0.1
    assert (found.amortization_per_datum > 1).all()
    assert "affine image" in found.kind  # q(z2 | z1) keeps its slope


def evidence_of_the_bare_model(model, x):
    with torch.no_grad():
        a, c = model.middle.weight, model.bottom.weight
        covariance = c @ (a @ a.T + 0.25 * torch.eye(3)) @ c.T + 0.09 * torch.eye(4)
        return dist.MultivariateNormal(model.bottom(model.middle.bias), covariance).log_prob(x)


@in_float64
def test_a_site_of_a_further_plate_is_refined_for_each_of_its_rows():
    r"""The best mean field of a normal with precision P loses $\frac12 (\sum_d \log P_{dd} - \log |P|)$."""
    model, guide, x = Series(), SeriesGuide(), torch.randn(4, 3)
    truth = dgm.results.GivenNLL(-model.log_evidence(x))
    found = dgm.gaps(model, guide, x, num=4000, truth=truth)
    precision = torch.diag(torch.tensor([4.0, 5, 5, 5]))
    precision[0, 1:] = precision[1:, 0] = -1
    exact = (precision.diagonal().log().sum() - precision.logdet()) / 2
    assert exact > 0.05
    assert (
        (found.approximation_per_datum - exact).abs() < 0.02 + 5 * (2 * exact / 4000).sqrt()
    ).all()
    assert "diagonal normal" in found.kind


@in_float64
def test_a_bounded_latent_moves_in_free_coordinates():
    r"""A lognormal guide of a lognormal posterior: the exact law is an image of it, so that no gap is left."""

    def model(x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.LogNormal(torch.tensor(0.3), 0.8))
            return pyro.sample("x", dist.Normal(z.log(), 0.5), obs=x)

    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.LogNormal(0.2 * x, 0.9))

    x = torch.tensor([-1.0, 0.5, 1.5])
    found = dgm.gaps(model, guide, x, num=2000)
    total = found.amortization_per_datum + found.approximation_per_datum
    precision = 1 / 0.64 + 1 / 0.25
    mean = (0.3 / 0.64 + x / 0.25) / precision
    exact = kl_divergence(dist.Normal(0.2 * x, 0.9), dist.Normal(mean, precision**-0.5))
    error = 5 * (dgm.draw(model, guide, x, num=2000).log_weight.var(0) / 2000).sqrt()
    assert ((total - exact).abs() < error + 0.01).all()
    assert found.approximation_per_datum.abs().max() < 0.02


REFUSED = {"density_flow", "density_image"}  # without latents


@pytest.mark.parametrize(**over({n: b for n, b in PAIRS.items() if n not in REFUSED}))
def test_every_pair_has_its_gaps(build):
    """Noise sites, flows that can't score and labels among them; the inference gap is that of `nll`, to the bit."""
    case = build()
    batch = case.batch(3)
    truth = dgm.results.GivenNLL(torch.zeros(3, dtype=torch.float64))
    found = dgm.gaps(case.model, case.guide, *batch, num=8, num_steps=2, truth=truth)
    total = found.amortization_per_datum + found.approximation_per_datum
    torch.testing.assert_close(total, dgm.nll(case.model, case.guide, *batch, num=8).nelbo)
    assert found.amortization_per_datum.isfinite().all()
    assert (found.amortization_per_datum != 0).any()


@in_float64
def test_the_noise_of_a_dequantized_pair_is_refined_as_well():
    r"""Uniform noise under $v \sim N(0.8, 0.1^2)$ loses $KL(U \| p(u \mid x))$; its image finds the mass."""

    def density(x=None):
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Normal(torch.tensor([0.8]), 0.1).to_event(1), obs=x)

    x, u = torch.zeros(4, 1), (torch.arange(10_000) + 0.5) / 10_000
    law = dist.Normal(0.8, 0.1)
    truth = dgm.results.GivenNLL(
        -(law.cdf(torch.tensor(1.0)) - law.cdf(torch.tensor(0.0))).log().expand(4)
    )
    found = dgm.gaps(
        dgm.dequantized(density), dgm.NoiseGuide(dgm.UnitUniform()), x, num=4000, truth=truth
    )
    total = -law.log_prob(u).mean() - truth.per_datum[0]
    assert (
        (found.amortization_per_datum + found.approximation_per_datum - total).abs()
        < 5 * 9 / 4000**0.5
    ).all()
    assert (found.approximation_per_datum > 0).all()
    assert (found.approximation_per_datum < 0.3).all()
    assert total > 5


@in_float64
def test_blocks_of_data_give_the_gaps_of_the_whole():
    vae, x = toy_vae(), torch.randn(5, 3)
    whole = dgm.gaps(vae.model, vae.guide, x, num=100, num_steps=60)
    parts = dgm.gaps(
        vae.model, vae.guide, x, num=100, num_steps=60, chunk=150
    )  # 2 data for the ascent, 1 for bounds
    variance = dgm.draw(vae.model, vae.guide, x, num=100).log_weight.detach().var(0)
    error = 5 * (2 * 2 * variance / 100).sqrt() + 0.1
    assert ((parts.amortization_per_datum - whole.amortization_per_datum).abs() < error).all()
    assert not torch.equal(parts.amortization_per_datum, whole.amortization_per_datum)


def test_a_vae_in_place_of_its_two_programs_raises():
    vae, x = toy_vae(), torch.randn(3, 3)
    with pytest.raises(
        TypeError, match=r"got VAE and Tensor. Fix: vae.model, vae.guide in place of vae"
    ):
        dgm.gaps(vae, x)


def test_a_truth_that_is_no_cost_per_datum_raises():
    vae, x = toy_vae(), torch.randn(3, 3)
    with pytest.raises(
        TypeError, match=r"expected truth= as an estimate .*got Tensor\. Fix: truth=ais\(model, x\)"
    ):
        dgm.gaps(vae.model, vae.guide, x, truth=torch.zeros(3))


def test_data_may_be_an_array_or_a_loader():
    vae, x = toy_vae(), torch.randn(5, 3)
    few = {"num": 20, "num_steps": 3, "chunk": 150}
    expected = dgm.gaps(vae.model, vae.guide, x, **few)
    for data in (x.numpy(), DataLoader(TensorDataset(x), batch_size=2), [(x[:2],), (x[2:],)]):
        found = dgm.gaps(vae.model, vae.guide, data, **few)
        assert torch.equal(found.amortization_per_datum, expected.amortization_per_datum)
        assert torch.equal(found.approximation_per_datum, expected.approximation_per_datum)


def test_images_that_are_not_flattened_raise_with_the_fix():
    vae = toy_vae()
    with pytest.raises(ValueError, match=r"(?s)batch of shapes .*Fix: x\.flatten\(1\)"):
        dgm.gaps(vae.model, vae.guide, torch.randn(4, 3, 1))


def test_its_table_has_a_row_for_each_datum():
    vae, x = toy_vae(), torch.randn(5, 3)
    found = dgm.gaps(vae.model, vae.guide, x, num=20, num_steps=3)
    table = found.to_dataframe()
    assert list(table.columns) == ["amortization", "approximation", "inference"]
    assert table["amortization"].tolist() == found.amortization_per_datum.tolist()
    assert table["inference"].mean() == pytest.approx(found.inference.value)
    assert "inference gap" in found._repr_html_()


@in_float64
def test_both_guides_are_drawn_with_the_noise_of_the_likelihood():
    """An ascent of no size leaves the guide as it was: no gap of amortization."""
    vae, x = toy_vae(), torch.randn(5, 3)
    found = dgm.gaps(vae.model, vae.guide, x, num=20, num_steps=1, lr=0.0, chunk=50, seed=4)
    assert found.amortization_per_datum.abs().max() < 1e-12


def test_a_model_without_latents_raises():
    with pytest.raises(
        ValueError, match=r"gaps: expected a guide with a latent site, got none. Fix: dgm.nll"
    ):
        dgm.gaps(dgm.DensityModel(dgm.StandardNormal(2)), dgm.EmptyGuide(), torch.zeros(3, 2))


def test_a_global_site_raises():
    with pytest.raises(
        ValueError, match="site 'mu': expected a site inside the plate 'data', got a global one"
    ):
        dgm.gaps(GlobalMean(), GlobalMeanGuide(), torch.randn(4))


@pytest.mark.parametrize("name", ["num", "num_steps", "chunk"])
def test_counts_below_one_raise(name):
    vae = toy_vae()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.gaps(vae.model, vae.guide, torch.randn(3, 3), **{name: 0})
