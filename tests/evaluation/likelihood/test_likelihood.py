import dataclasses
from functools import partial
from math import log, sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import both_dtypes
from pyro import poutine
from toys import (
    ExactGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    Written,
    linear_gaussian,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.vectorization.rows import enclosing_plate


@both_dtypes
@pytest.mark.parametrize(
    ("num", "chunk"), [(1, 1), (1, 100), (2, 4), (4, 6), (7, 3), (50, 17), (50, 20_000)]
)
def test_nll_equals_log_evidence_under_the_exact_posterior(dtype, num, chunk):
    """Also with fewer draws than data (defect 1) and chunks that divide neither."""
    model, guide, x = linear_gaussian()
    found = dgm.nll(model, guide, x, num=num, chunk=chunk)
    assert found.per_datum.dtype == torch.float64
    torch.testing.assert_close(found.per_datum, -model.log_evidence(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.nelbo, -model.log_evidence(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found.ess, torch.full((6,), float(num), dtype=torch.float64), rtol=1e-5, atol=0
    )


def inexact(**options):
    model = LinearGaussian()
    return model, ExactGuide(model, **{"shift": 0.4, "spread": 1.2, **options}), model.data(5)


@pytest.mark.slow
def test_nll_has_the_sign_of_a_cost_and_bounds_the_evidence_from_above():
    """Defect 1. Mean over 5 data of 400 repetitions with 5 draws each."""
    model, guide, x = inexact()
    repeated = torch.stack([dgm.nll(model, guide, x, num=5, seed=s).per_datum for s in range(400)])
    gap = (repeated + model.log_evidence(x)).mean(1)
    assert gap.mean() > 5 * gap.std() / 20


def test_more_draws_come_closer_to_the_evidence():
    model, guide, x = inexact()
    few, many = (dgm.nll(model, guide, x, num=num, chunk=50_000) for num in (10, 40_000))
    exact = -model.log_evidence(x)
    assert ((many.per_datum - exact).abs() < 5 * many.monte_carlo).all()
    assert (many.per_datum - exact).abs().mean() < (few.per_datum - exact).abs().mean()
    assert (many.nelbo > many.per_datum).all()


def test_it_is_the_mean_of_the_weights_not_of_their_logarithms(dtype):
    """Defects 2 and 3: −log mean w over the guide's own draws, weighed by hand."""
    model, guide, x = inexact(shift=0.1)
    draws = []
    guide.register_forward_hook(lambda _, __, z: draws.append(z))
    found = dgm.nll(model, guide, x, num=300)
    z = draws[-1].double()
    model, guide, x = model.double(), guide.double(), x.double()
    log_w = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_w = log_w + dist.Normal(z @ model.weight.T + model.bias, model.scale).log_prob(x).sum(-1)
    loc = (x - guide.bias) @ guide.map.T + guide.shift
    log_w = log_w - dist.MultivariateNormal(loc, scale_tril=guide.root).log_prob(z)
    weights = log_w.detach().exp()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    same = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    same(found.per_datum, -weights.mean(0).log())
    same(found.nelbo, -weights.log().mean(0))
    same(found.ess, weights.sum(0) ** 2 / (weights**2).sum(0))
    expected = weights.std(0) / sqrt(300) / weights.mean(0)
    is_reliable = found.khat <= dgm.diagnostics.khat_threshold(300)
    assert is_reliable.any()
    same(found.monte_carlo[is_reliable], expected[is_reliable])
    assert found.monte_carlo[~is_reliable].isnan().all()
    kl = -dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.MultivariateNormal(
        loc, scale_tril=guide.root
    ).log_prob(z)
    same(found.kl, kl.detach().mean(0))


@pytest.mark.slow
def test_chunks_change_the_noise_and_not_the_law():
    """Means of 300 repetitions of 12 draws, in one chunk and in chunks of 7 (draw, datum) pairs."""
    model, guide, x = inexact()
    means, variances = [], []
    for chunk in (20_000, 7):
        repeated = torch.stack(
            [dgm.nll(model, guide, x, num=12, chunk=chunk, seed=s).per_datum for s in range(300)]
        )
        means.append(repeated.mean(0))
        variances.append(repeated.var(0) / 300)
    assert ((means[0] - means[1]).abs() < 5 * (variances[0] + variances[1]).sqrt()).all()


def test_at_most_chunk_pairs_are_in_memory():
    """Of the model; the guide makes its 150 draws at once, for a block of 2,000 pairs has one noise."""
    model, guide, x = inexact()
    sizes = {model: [], guide: []}

    def count(program, batch, _):
        plate = enclosing_plate()
        if plate is not None:
            sizes[program].append(plate.size * len(batch[0]))

    for program in sizes:
        program.register_forward_hook(count)
    dgm.nll(model, guide, x, num=30, chunk=40)
    assert sizes[guide][-1] == 150
    assert sizes[model][-4:] == [40, 40, 40, 30]
    assert max(sizes[model]) <= 40


@pytest.mark.slow
def test_the_monte_carlo_error_is_the_spread_of_repetitions():
    """400 repetitions; the relative error of a standard deviation is 1/sqrt(800) = 0.035."""
    model, guide, x = inexact()
    found = [dgm.nll(model, guide, x, num=400, seed=s) for s in range(400)]
    spread = torch.stack([f.per_datum for f in found]).std(0)
    stated = torch.stack([f.monte_carlo for f in found]).mean(0)
    assert ((stated / spread - 1).abs() < 5 * 0.035).all()


def test_the_monte_carlo_error_of_one_draw_is_unknown():
    model, guide, x = inexact()
    assert dgm.nll(model, guide, x, num=1).monte_carlo.isnan().all()


def test_stderr_is_the_spread_over_the_data():
    model, guide, x = inexact()
    found = dgm.nll(model, guide, x, num=30)
    assert found.mean == pytest.approx(found.per_datum.mean().item())
    assert found.stderr == pytest.approx(found.per_datum.std().item() / sqrt(5))


def test_stderr_is_the_spread_of_the_mean_over_data_sets():
    """500 data sets of 50 data; the relative error of a standard deviation is 1/sqrt(1000) = 0.032."""
    model = LinearGaussian()
    x = dgm.generate(model, 500 * 50, seed=3)
    values = dgm.nll(model, ExactGuide(model), x, num=1).per_datum.view(500, 50)
    stated = (values.std(1) / sqrt(50)).pow(2).mean().sqrt()
    assert (stated / values.mean(1).std() - 1).abs() < 5 * 0.032


def test_stderr_of_one_datum_is_unknown():
    model, guide, x = inexact()
    assert (
        dgm.nll(model, guide, x[:1], num=30).stderr != dgm.nll(model, guide, x[:1], num=30).stderr
    )


def test_ess_is_at_most_the_number_of_draws_and_follows_its_formula():
    model, guide, x = inexact(shift=0.1)
    found = dgm.nll(model, guide, x, num=300)
    assert ((found.ess >= 1) & (found.ess <= 300)).all()
    relative = (300 / found.ess - 1) / 299
    is_reliable = found.khat <= dgm.diagnostics.khat_threshold(300)
    assert is_reliable.any()
    torch.testing.assert_close(found.monte_carlo[is_reliable], relative.sqrt()[is_reliable])


def test_the_string_says_what_kind_of_number_it_is():
    model, guide, x = inexact()
    text = str(dgm.nll(model, guide, x, num=60))
    assert "nats per datum" in text
    assert "upper bound" in text
    assert "5 data, 60 draws" in text


@pytest.mark.parametrize(**over(PAIRS))
def test_nll_of_every_pair_is_finite_and_below_the_negative_elbo(build):
    case = build()
    found = dgm.nll(case.model, case.guide, *case.batch(5), num=20, chunk=30)
    assert found.per_datum.shape == found.nelbo.shape == found.ess.shape == found.khat.shape == (5,)
    assert found.per_datum.isfinite().all()
    assert (found.per_datum <= found.nelbo + 1e-9).all()


def test_nll_of_a_density_is_exact():
    case = PAIRS["density_flow"]()
    (x,) = case.batch(5)
    found = dgm.nll(case.model, case.guide, x, num=3)
    torch.testing.assert_close(found.per_datum, -case.model.density().log_prob(x).double())
    assert (found.monte_carlo < 1e-6).all()


def test_the_context_stays_with_its_datum_over_blocks():
    density = dgm.Conditional(dist.Normal, dgm.mlp(2, 6))
    model, (x, c) = dgm.DensityModel(density), (torch.randn(9, 3), torch.randn(9, 2))
    found = dgm.nll(model, dgm.EmptyGuide(), x, c, num=2, chunk=4).per_datum
    torch.testing.assert_close(found, -density(c).log_prob(x).double())


def test_the_density_of_a_flow_prior_is_used():
    """Defects 5 and 11: against quadrature of p(z) p(x|z) over a grid."""
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,)))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model = dgm.LatentVariableModel(prior, dgm.Normal(dgm.mlp(2, 8, 3)))
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)))
    with torch.no_grad():
        guide.encoder.net[0].weight.zero_()
        guide.encoder.net[0].bias.copy_(
            torch.tensor([0.0, 0.0, 2.5, 2.5])
        )  # N(0, 2.6²): wider than the posterior
        x, edge = torch.randn(4, 3), torch.linspace(-9, 9, 901)
        grid = torch.cartesian_prod(edge, edge)
        log_joint = prior().log_prob(grid)[:, None] + model.likelihood(grid[:, None]).log_prob(x)
        exact = -(log_joint.logsumexp(0) + 2 * log(edge[1] - edge[0]))
    found = dgm.nll(model, guide, x, num=20_000, chunk=100_000)
    assert ((found.per_datum - exact).abs() < 5 * found.monte_carlo).all()
    assert (found.monte_carlo < 0.05).all()


def test_a_program_with_a_further_plate_has_its_evidence():
    model, guide, x = Series(), SeriesGuide(), torch.randn(5, 3)
    found = dgm.nll(model, guide, x, num=20_000, chunk=100_000)
    assert ((found.per_datum + model.log_evidence(x)).abs() < 5 * found.monte_carlo).all()
    assert (found.monte_carlo < 0.1).all()


def test_nll_sees_neither_beta_nor_size_nor_scales_nor_masks_of_ones():
    """Defect 12, bitwise."""
    x, found = torch.randn(6, 4), []
    for size in (None, 6000):
        with fork_rng(seed=2):
            model = LinearGaussian(size=size)
            guide = ExactGuide(model, shift=0.3)
        found.append(dgm.nll(model, guide, x, num=9).per_datum)
    scaled = poutine.mask(poutine.scale(model, scale=0.1), mask=torch.ones((), dtype=torch.bool))
    found.append(dgm.nll(scaled, guide, x, num=9).per_datum)
    objective = dgm.ELBO(model, guide, beta={"z": 0.01}, size=6000)
    found.append(dgm.nll(objective.model, objective.guide, x, num=9).per_datum)
    assert all(torch.equal(values, found[0]) for values in found)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae, x = toy_vae(), torch.randn(5, 3)
    vae.guide.eval()
    before, modes = torch.get_rng_state(), [m.training for m in vae.modules()]
    first = dgm.nll(vae.model, vae.guide, x, num=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in vae.modules()] == modes
    assert all(p.grad is None for p in vae.parameters())
    assert not first.per_datum.requires_grad
    torch.rand(3)
    assert torch.equal(dgm.nll(vae.model, vae.guide, x, num=5).per_datum, first.per_datum)
    assert not torch.equal(
        dgm.nll(vae.model, vae.guide, x, num=5, seed=1).per_datum, first.per_datum
    )


@pytest.mark.parametrize("name", ["num", "chunk"])
def test_no_draws_raise(name):
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.nll(model, guide, x, **{name: 0})


def test_an_exact_score_speaks_of_no_draws_and_trusts_every_datum():
    case = PAIRS["density_flow"]()
    score = dgm.nll(case.model, case.guide, *case.batch(5), num=1000)
    assert "k-hat" not in str(score)
    assert score.share_unreliable == 0
    assert score.num == 2


def test_the_share_of_unreliable_data_uses_the_threshold_of_its_number_of_draws():
    model, guide, x = linear_gaussian()
    score = dgm.nll(model, guide, x, num=100)
    bad = dataclasses.replace(score, khat=torch.tensor([0.4, 0.6, 0.8]))
    assert bad.share_unreliable == pytest.approx(2 / 3)  # the threshold at 100 draws is 0.5
    assert "with k-hat > 0.50" in str(bad)


def test_too_few_draws_for_a_khat_speak_of_none():
    model, guide, x = linear_gaussian()
    assert str(dgm.nll(model, guide, x, num=20)).endswith("no k-hat below 21 draws)")
    assert str(dgm.nll(model, guide, x, num=21)).endswith("of the data with k-hat > 0.24)")


def test_bad_data_raise():
    model, guide, x = linear_gaussian()
    with pytest.raises(ValueError, match="expected finite values, got 24"):
        dgm.nll(model, guide, x * torch.nan)
    with pytest.raises(ValueError, match="expected at least one datum"):
        dgm.nll(model, guide, x[:0])


@pytest.mark.parametrize(
    ("pair", "value"), [("vae_flow", 17), ("vae_flow", 0.5), ("vae_bernoulli", 0.5)]
)
def test_data_outside_the_support_raise_and_get_no_number(pair, value):
    case = PAIRS[pair]()
    x = torch.zeros_like(case.batch(400)[0], dtype=torch.get_default_dtype())
    x[390, 1] = value
    with pytest.raises(ValueError, match="site 'x': expected"):
        dgm.nll(case.model, case.guide, x, num=3)


def test_an_observed_site_of_all_data_at_once_has_no_figure_of_each():
    def model(_, x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mu.expand(4), 1.0).to_event(1), obs=x)

    def guide(_, x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"site 'x': expected a site inside the plate 'data'.*Fix: evidence"
    ):
        dgm.nll(Written(model), Written(guide), torch.randn(4), num=3)
