"""Annealed importance sampling against exact evidence: Gaussian, by quadrature, of two sites, of levels."""

from itertools import pairwise
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, WITHOUT_CHAINS, over, randomize
from conftest import both_dtypes
from one_number import LAWS, nodes, one_number, quadrature
from toys import ExactGuide, LinearGaussian, Series, Written, linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.chains.coordinates import Posterior
from pyro_dgm.evaluation.chains.transitions import transition
from pyro_dgm.evaluation.likelihood.annealing import sigmoid_schedule
from pyro_dgm.evaluation.likelihood.walks import AnnealingPath, plan_walk

SMALL = {"num": 32, "steps": 150, "leapfrog": 5}


def assert_within(found, log_evidence, at_most=0.3):
    """Within 5 standard errors, which are small enough for the check to fail."""
    assert ((found.per_datum + log_evidence).abs() < 5 * found.monte_carlo + 1e-6).all()
    assert (found.monte_carlo < at_most).all()


@pytest.mark.slow
def test_it_is_within_a_fifth_of_a_nat_of_the_evidence_from_a_very_loose_start():
    """Importance sampling from the prior, the same start, is 100 nats off."""
    model, _, x = linear_gaussian(latent=6, observed=12)
    exact = -model.log_evidence(x)
    assert (dgm.ais(model, x, num=64, steps=1).per_datum - exact).mean() > 10
    found = dgm.ais(model, x, num=64, steps=600, leapfrog=5)
    assert abs(found.mean - exact.mean().item()) < 0.2
    assert_within(found, -exact, 0.5)


@pytest.mark.parametrize("steps", [2, 5])
def test_the_weights_are_unbiased(steps):
    """The mean of w / p(x) is 1 within 5 standard errors over 20,000 chains, with few temperatures and a bad start."""
    model, _, x = linear_gaussian(latent=1, observed=2, scale=1.5)
    found = dgm.ais(model, x, num=20_000, steps=steps, leapfrog=3, chunk=200_000)
    relative = (found.log_weight - model.log_evidence(x)).exp()
    error = relative.std(0) / 20_000**0.5
    assert ((relative.mean(0) - 1).abs() < 5 * error).all()
    assert (error < 0.05).all()
    assert (relative.std(0) > 0.05).all()


def test_a_step_that_depends_on_where_its_chain_stands_would_bias_the_weights():
    """Why there is a pilot: chains to the right of 0 stay where they are, and the mean of w / p(x) is not 1."""
    model, _, x = linear_gaussian(latent=1, observed=2, scale=1.0)
    with torch.no_grad():
        path = AnnealingPath(Posterior(model, (x,)), None)
        zeta = path.draw(40_000)
        walk = plan_walk(path, sigmoid_schedule(3), 3)
        fair, _ = walk(zeta)
        biased = torch.zeros_like(fair)
        for before, beta in pairwise(walk.betas):
            biased += (beta - before) * path.ends(zeta)[1]
            moved, _ = transition(path.at(beta), zeta, walk.steps[0][:, None] * walk.scale, 3)
            zeta = torch.where(zeta > 0, zeta, moved)
    for log_w, unbiased in ((fair, True), (biased, False)):
        relative = (log_w - model.log_evidence(x)).exp()
        near = (relative.mean(0) - 1).abs() < 5 * relative.std(0) / 200
        assert near.all() if unbiased else not near.any()


@both_dtypes
def test_weights_are_the_evidence_when_the_guide_is_exact(dtype):
    model, guide, x = linear_gaussian()
    found = dgm.ais(model, x, num=3, steps=7, start=guide)
    assert found.per_datum.dtype == found.log_weight.dtype == torch.float64
    torch.testing.assert_close(
        found.log_weight, model.log_evidence(x).expand(3, 6), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        found.ess, torch.full((6,), 3.0, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_one_temperature_is_importance_sampling_from_the_start():
    model = LinearGaussian()
    guide, x = ExactGuide(model, shift=0.3, spread=1.2), model.data(4)
    found = dgm.ais(model, x, num=20_000, steps=1, start=guide, chunk=100_000)
    expected = dgm.nll(model, guide, x, num=20_000, chunk=100_000)
    assert found.acceptance.isnan().all()
    error = (found.monte_carlo.square() + expected.monte_carlo.square()).sqrt()
    assert ((found.per_datum - expected.per_datum).abs() < 5 * error).all()
    torch.testing.assert_close(found.ess, expected.ess, rtol=0.1, atol=0)


@pytest.mark.slow
def test_it_bounds_the_cost_from_above_and_tightens_with_the_temperatures():
    model = LinearGaussian(scale=0.3)
    x = model.data(200)
    exact = -model.log_evidence(x)
    gaps = [
        dgm.ais(model, x, num=4, steps=steps, leapfrog=4).per_datum - exact
        for steps in (5, 40, 200)
    ]
    means, errors = (
        [f(gap).item() for gap in gaps] for f in (torch.mean, lambda g: g.std() / 200**0.5)
    )
    assert means[0] > means[1] > means[2] > -5 * errors[2]
    assert means[0] > 5 * errors[0]
    assert means[2] < 0.5


@pytest.mark.parametrize(("law", "bounds"), LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("whiten", [True, False], ids=["white", "plain"])
def test_evidence_of_one_number_is_that_of_quadrature(law, bounds, whiten):
    x = torch.tensor([-0.3, 0.2, 0.9])
    log_evidence, _, _ = quadrature(law, x, nodes(*bounds))
    found = dgm.ais(one_number(law), x, whiten=whiten, num=64, steps=20, leapfrog=3)
    assert_within(found, log_evidence)


@pytest.mark.slow
def test_two_latents_of_a_stranger_have_their_evidence_from_either_start():
    case = PAIRS["two_latents_bare"]()
    (x,) = case.batch(3)
    with torch.no_grad():
        a, c = case.model.middle.weight, case.model.bottom.weight
        middle = a @ a.T + 0.25 * torch.eye(3)
        law = dist.MultivariateNormal(
            case.model.bottom(case.model.middle.bias), c @ middle @ c.T + 0.09 * torch.eye(4)
        )
        exact = law.log_prob(x)
    for start in (None, case.guide):
        assert_within(dgm.ais(case.model, x, start=start, **SMALL), exact)


def test_a_program_with_a_further_plate_has_its_evidence():
    model, x = Series(), torch.randn(3, 3)
    assert_within(dgm.ais(model, x, **SMALL), model.log_evidence(x))


def test_the_mass_of_levels_is_the_integral_over_the_noise_in_the_unit_cube():
    """P(x) of a dequantized normal is a difference of its CDF, exactly."""
    law = dist.Normal(torch.tensor([1.2, 2.5]), torch.tensor([0.4, 1.5]))
    model = dgm.dequantized(dgm.DensityModel(dgm.Conditional(dist.Normal, Constant(law))))
    x, context = torch.tensor([[1.0, 2.0], [0.0, 5.0], [3.0, 2.0]]), torch.zeros(3, 1)
    exact = (law.cdf(x + 1) - law.cdf(x)).log().sum(-1)
    assert_within(dgm.ais(model, x, context, num=64, steps=40, leapfrog=3), exact)


class Constant(torch.nn.Module):
    """Raw parameters of a `Conditional` that gives one normal law at every context."""

    def __init__(self, law):
        super().__init__()
        raw = (law.scale - 1e-6).expm1().log()
        self.register_buffer("raw", torch.cat([law.loc, raw]))

    def forward(self, context):
        return self.raw.expand(*context.shape[:-1], 4)


def test_the_evidence_under_a_flow_prior_is_that_of_a_grid_in_both_spaces():
    prior = randomize(dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,))))
    model = dgm.LatentVariableModel(prior, dgm.Normal(dgm.mlp(2, 8, 3), scale=0.5))
    x, edge = torch.randn(3, 3), torch.linspace(-9, 9, 901)
    with torch.no_grad():
        grid = torch.cartesian_prod(edge, edge)
        log_joint = prior().log_prob(grid)[:, None] + model.likelihood(grid[:, None]).log_prob(x)
        exact = log_joint.logsumexp(0) + 2 * log(edge[1] - edge[0])
    for whiten in (True, False):
        assert_within(dgm.ais(model, x, whiten=whiten, num=64, steps=30, leapfrog=3), exact)


# Laws of estimates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over({n: b for n, b in PAIRS.items() if n not in WITHOUT_CHAINS}))
@pytest.mark.parametrize("guided", [False, True], ids=["prior", "guide"])
def test_every_pair_has_finite_weights(build, guided):
    case = build()
    found = dgm.ais(
        case.model, *case.batch(2), num=3, steps=3, leapfrog=1, start=case.guide if guided else None
    )
    assert (
        found.per_datum.shape
        == found.monte_carlo.shape
        == found.ess.shape
        == found.acceptance.shape
        == (2,)
    )
    assert found.log_weight.shape == (3, 2)
    assert found.per_datum.isfinite().all()
    assert (found.acceptance > 0).all()


@pytest.mark.parametrize("chunk", [1, 7, 40, 20_000])
@pytest.mark.slow
def test_chunks_change_the_noise_but_not_the_law(chunk):
    """Also chunks that hold fewer pairs than one datum has chains."""
    model, _, x = linear_gaussian(latent=1, observed=2)
    found = dgm.ais(model, x[:3], num=16, steps=40, leapfrog=2, chunk=chunk)
    assert found.log_weight.shape == (16, 3)
    assert ((found.per_datum + model.log_evidence(x[:3])).abs() < 5 * found.monte_carlo).all()


def test_neither_beta_nor_size_nor_masks_of_ones_change_it():
    model, _, x = linear_gaussian()
    first = dgm.ais(model, x, num=3, steps=4)
    model.size = 6000
    scaled = pyro.poutine.mask(
        pyro.poutine.scale(model, scale=0.1), mask=torch.ones((), dtype=torch.bool)
    )
    assert torch.equal(dgm.ais(model, x, num=3, steps=4).per_datum, first.per_datum)
    assert torch.equal(dgm.ais(scaled, x, num=3, steps=4).per_datum, first.per_datum)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae, x = toy_vae(), torch.randn(3, 3)
    before = torch.get_rng_state()
    first = dgm.ais(vae.model, x, num=3, steps=4, start=vae.guide)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert not first.log_weight.requires_grad
    torch.rand(3)
    again, other = (dgm.ais(vae.model, x, num=3, steps=4, start=vae.guide, seed=s) for s in (0, 1))
    assert torch.equal(again.log_weight, first.log_weight)
    assert not torch.equal(other.log_weight, first.log_weight)


def test_the_mean_has_the_standard_error_of_the_data_and_the_summary_says_what_it_is():
    model, _, x = linear_gaussian()
    found = dgm.ais(model, x, num=4, steps=5)
    assert found.mean == pytest.approx(found.per_datum.mean().item())
    assert found.stderr == pytest.approx(found.per_datum.std().item() / 6**0.5)
    assert "upper bound in expectation; 6 data, 4 chains x 5 temperatures" in str(found)


def test_it_is_a_table_of_one_row_per_datum():
    model, _, x = linear_gaussian()
    found = dgm.ais(model, x, num=4, steps=5)
    table = found.to_dataframe()
    assert list(table.columns) == ["per_datum", "monte_carlo", "ess", "acceptance"]
    assert table["per_datum"].to_list() == found.per_datum.tolist()
    assert "4 chains x 5 temperatures" in found._repr_html_()


def test_batches_of_a_loader_are_their_concatenation():
    model, guide, x = linear_gaussian()
    whole = dgm.ais(model, x, num=3, steps=4, start=guide)
    loaded = dgm.ais(model, [x[:4], x[4:]], num=3, steps=4, start=guide)
    assert torch.equal(loaded.log_weight, whole.log_weight)


def test_the_schedule_is_symmetric_and_finest_at_its_ends():
    betas = dgm.diagnostics.sigmoid_schedule(10)
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 11)
    assert all(a + b == pytest.approx(1.0) for a, b in zip(betas, reversed(betas), strict=True))
    assert betas[1] - betas[0] < betas[6] - betas[5]
    linear = dgm.diagnostics.sigmoid_schedule(4, sharpness=1e-4)
    assert linear == pytest.approx((0, 0.25, 0.5, 0.75, 1.0), abs=1e-6)


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["num", "steps", "leapfrog", "chunk"])
def test_no_draws_raise(name):
    model, _, x = linear_gaussian()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.ais(model, x, **{name: 0})


def test_programs_that_are_none_raise():
    vae, x = toy_vae(), torch.randn(3, 3)
    with pytest.raises(TypeError, match="Fix: vae.model, vae.guide in place of vae"):
        dgm.ais(vae.model, x, start=vae)
    with pytest.raises(
        TypeError, match=r"a program too many\. Fix: .* ais\(model, x, start=guide\)"
    ):
        dgm.ais(vae.model, vae.guide, x)


def test_bad_data_raise_before_the_first_walk():
    case = PAIRS["vae_bernoulli"]()
    x = torch.zeros_like(case.batch(400)[0], dtype=torch.get_default_dtype())
    x[390, 1] = 0.5
    with pytest.raises(ValueError, match="site 'x': expected binary values"):
        dgm.ais(case.model, x, num=3, chunk=3, steps=10_000)
    with pytest.raises(ValueError, match="expected finite values, got 1"):
        dgm.ais(case.model, torch.full((1, 1), torch.nan))


def test_a_guide_with_another_density_at_each_run_raises():
    vae = toy_vae()
    refined = dgm.SemiAmortizedGuide(vae.guide.encoder, vae.model, num_steps=3)
    with pytest.raises(
        ValueError, match="start: expected a guide whose density is a fixed function of x and z"
    ):
        dgm.ais(vae.model, torch.randn(2, 3), start=refined, steps=3)


def test_a_guide_that_scores_its_own_draws_alone_raises():
    case = PAIRS["vae_one_way"]()
    with pytest.raises(NotImplementedError, match="has no inverse"):
        dgm.ais(case.model, *case.batch(2), start=case.guide, steps=3)


def test_a_guide_of_other_sites_raises():
    model, _, x = linear_gaussian()
    with pytest.raises(ValueError, match="expected the same latent sites"):
        dgm.ais(model, x, start=dgm.EmptyGuide(), steps=3)


def test_models_that_can_not_be_walked_raise():
    def coin(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="site 'z': expected a continuous latent"):
        dgm.ais(Written(coin), torch.zeros(2))
    with pytest.raises(ValueError, match="expected a latent site, got the observed"):
        dgm.ais(dgm.DensityModel(dgm.StandardNormal(2)), torch.zeros(2, 2))
