"""The bracket of bidirectional Monte Carlo against exact evidence."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, WITHOUT_CHAINS, over
from conftest import in_float64
from toys import ExactGuide, GlobalMean, LinearGaussian, Series, Written, linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.chains.coordinates import Posterior
from pyro_dgm.evaluation.likelihood.bidirectional import _simulate

SMALL = {"num_data": 40, "num": 8, "leapfrog": 4}


def assert_bracket(found, log_evidence, gap):
    """Mean bounds on the right sides of the evidence within 5 standard errors over the data, and as close as stated."""
    for excess in (log_evidence - found.lower, found.upper - log_evidence):
        assert excess.mean() > -5 * excess.std() / len(excess) ** 0.5
    assert found.mean_gap.value > -5 * found.mean_gap.stderr
    assert found.mean_gap.value < gap


def test_the_evidence_of_a_linear_gaussian_model_lies_between_the_bounds():
    model = LinearGaussian(latent=3, observed=6)
    found = dgm.bdmc(model, steps=150, **SMALL)
    assert (
        found.lower.shape
        == found.upper.shape
        == found.lower_error.shape
        == found.upper_error.shape
        == (40,)
    )
    assert found.lower.dtype == torch.float64
    assert_bracket(found, model.log_evidence(found.data[0]), gap=0.3)


def test_a_short_walk_has_a_wide_gap_and_both_bounds_are_off():
    """Each by more than 5 standard errors: neither side is the evidence by construction."""
    model = LinearGaussian(latent=3, observed=6)
    wide = dgm.bdmc(model, steps=5, num_data=400, num=2, leapfrog=4)
    exact = model.log_evidence(wide.data[0])
    for excess in (exact - wide.lower, wide.upper - exact):
        assert excess.mean() > 5 * excess.std() / 20
    assert wide.mean_gap.value > dgm.bdmc(model, steps=40, **SMALL).mean_gap.value


@pytest.mark.slow
def test_the_inverse_weights_of_the_way_back_are_unbiased():
    r"""$E[p(x) v] = 1$ over 30,000 pairs of x and one exact draw z* of its posterior, with few temperatures."""
    model = LinearGaussian(latent=1, observed=2, scale=1.5)
    found = dgm.bdmc(model, num_data=30_000, num=1, steps=4, leapfrog=3, chunk=400_000)
    relative = (model.log_evidence(found.data[0]) - found.upper).exp()
    error = relative.std() / 30_000**0.5
    assert (relative.mean() - 1).abs() < 5 * error
    assert error < 0.02
    assert relative.std() > 0.05


@in_float64
def test_the_exact_guide_closes_the_gap():
    model = LinearGaussian()
    found = dgm.bdmc(model, start=ExactGuide(model), num_data=5, num=2, steps=4)
    exact = model.log_evidence(found.data[0])
    torch.testing.assert_close(found.lower, exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.upper, exact, rtol=0, atol=1e-8)
    assert found.mean_gap.value == pytest.approx(0, abs=1e-8)


def test_a_start_at_an_inexact_guide_brackets_as_well():
    model = LinearGaussian()
    found = dgm.bdmc(model, start=ExactGuide(model, shift=0.5, spread=1.5), steps=40, **SMALL)
    assert_bracket(found, model.log_evidence(found.data[0]), gap=0.3)


def test_a_latent_on_the_half_line_brackets_its_evidence():
    """Gamma rate and Poisson counts: the evidence is negative binomial."""

    def run(program, x=None):
        with dgm.data_plate(x):
            rate = pyro.sample("z", dist.Gamma(torch.tensor(2.0), torch.tensor(0.5)))
            return pyro.sample("x", dist.Poisson(rate), obs=x)

    found = dgm.bdmc(Written(run), steps=40, **SMALL)
    exact = dist.GammaPoisson(torch.tensor(2.0), torch.tensor(0.5)).log_prob(found.data[0])
    assert_bracket(found, exact, gap=0.2)


def test_a_program_with_a_further_plate_brackets_its_evidence():
    """The program reads data `(N, steps)` and records them transposed: they come back as it reads them."""
    model = Series()
    found = dgm.bdmc(model, steps=80, **SMALL)
    assert found.data[0].shape == (40, 3)
    assert_bracket(found, model.log_evidence(found.data[0]), gap=0.6)


def test_a_dequantized_model_brackets_the_mass_of_its_levels():
    model = dgm.dequantized(dgm.DensityModel(dgm.Conditional(dist.Normal, torch.nn.Linear(1, 4))))
    context = torch.randn(5, 1)
    found = dgm.bdmc(model, context, steps=40, **SMALL)
    x, c = found.data
    assert torch.equal(x, x.floor())
    assert x.shape == (200, 2)
    law = model.model.density(c).base_dist
    with torch.no_grad():
        exact = (law.cdf(x + 1) - law.cdf(x)).log().sum(-1)
    assert_bracket(found, exact, gap=0.3)


def test_the_simulated_pairs_are_draws_of_the_joint_with_their_context():
    density = dgm.LatentVariableModel(dgm.StandardNormal(2), Offset())
    context = torch.tensor([[0.0], [100.0], [-100.0]])
    with torch.no_grad():
        (x, c), truth = _simulate(density, 4, (context,))
    assert x.shape == (12, 2)
    assert torch.equal(c, context.repeat(4, 1))
    assert ((x - truth["z"] - c).abs() < 1).all()


class Offset(torch.nn.Module):
    def forward(self, z, c):
        return dist.Normal(z + c, 0.1).to_event(1)


@in_float64
def test_the_truth_of_every_pair_stays_with_its_datum():
    """The joint density of the simulated (z*, x), read back datum by datum, is that of the run that made them."""
    model = Series()
    with torch.no_grad():
        batch, truth = _simulate(model, 5, ())
        posterior = Posterior(model, batch)
        zeta = posterior.coordinates(
            {n: z.movedim(0, posterior.depth - 1)[None] for n, z in truth.items() if n != "x"}, 1
        )
        point = posterior(zeta)
    offset = model.offset.detach()
    expected = dist.Normal(0.0, 1.0).log_prob(truth["z"][:, 0])
    expected = expected + dist.Normal(truth["z"] + offset, 1.0).log_prob(truth["u"]).sum(1)
    expected = expected + dist.Normal(truth["u"], 0.5).log_prob(batch[0]).sum(1)
    torch.testing.assert_close(point.log_joint[0], expected)


@pytest.mark.parametrize(
    **over({n: b for n, b in PAIRS.items() if n not in WITHOUT_CHAINS and n != "vae_labels"})
)
def test_every_pair_has_finite_bounds(build):
    case = build()
    found = dgm.bdmc(case.model, num_data=3, num=2, steps=3, leapfrog=1)
    assert found.lower.isfinite().all()
    assert found.upper.isfinite().all()
    assert found.lower.shape == found.upper.shape == (3,)


def test_labels_are_a_context():
    case = PAIRS["vae_labels"]()
    _, label = case.batch(3)
    found = dgm.bdmc(case.model, label, num_data=2, num=2, steps=3, leapfrog=1, start=case.guide)
    assert found.gap.shape == (6,)
    assert torch.equal(found.data[1], label.repeat(2, *[1] * (label.dim() - 1)))


@pytest.mark.parametrize("chunk", [pytest.param(2, marks=pytest.mark.slow), 30, 20_000])
@pytest.mark.slow
def test_chunks_change_the_noise_but_not_the_law(chunk):
    """Forty data, for the spread of nine is too small a sample to trust its own error bar."""
    model = LinearGaussian(latent=1, observed=2)
    found = dgm.bdmc(model, num_data=40, num=4, steps=12, leapfrog=3, chunk=chunk)
    assert found.gap.shape == (40,)
    assert_bracket(found, model.log_evidence(found.data[0]), gap=0.6)


@in_float64
@pytest.mark.parametrize("chunk", [2, 30, 20_000])
@pytest.mark.slow
def test_every_datum_keeps_its_own_evidence_in_all_chunks(chunk):
    """From an exact guide there is no noise."""
    model = LinearGaussian()
    found = dgm.bdmc(model, start=ExactGuide(model), num_data=9, num=4, steps=3, chunk=chunk)
    exact = model.log_evidence(found.data[0])
    torch.testing.assert_close(found.lower, exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.upper, exact, rtol=0, atol=1e-8)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae = toy_vae()
    before, small = torch.get_rng_state(), {"num_data": 3, "num": 2, "steps": 3, "start": vae.guide}
    first = dgm.bdmc(vae.model, **small)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert not first.upper.requires_grad
    assert torch.equal(dgm.bdmc(vae.model, **small).gap, first.gap)
    assert not torch.equal(dgm.bdmc(vae.model, seed=1, **small).gap, first.gap)


def test_the_gap_has_the_standard_error_of_the_data():
    model, _, _ = linear_gaussian()
    found = dgm.bdmc(model, num_data=6, num=2, steps=3)
    torch.testing.assert_close(found.gap, found.upper - found.lower)
    assert found.mean_gap.stderr == pytest.approx(found.gap.std().item() / 6**0.5)
    assert (
        f"of 6 simulated data from {found.lower.mean():.3f} to {found.upper.mean():.3f} nats"
        in str(found)
    )


def test_it_is_a_table_of_one_row_per_datum():
    model, _, _ = linear_gaussian()
    found = dgm.bdmc(model, num_data=6, num=2, steps=3)
    table = found.to_dataframe()
    errors = ["lower_error", "upper_error", "lower_ess", "upper_ess"]
    assert list(table.columns) == ["lower", "upper", "gap", *errors]
    assert table["gap"].to_list() == found.gap.tolist()
    assert "6 simulated data" in found._repr_html_()


def test_programs_that_are_none_raise():
    vae = toy_vae()
    with pytest.raises(TypeError, match="Fix: vae.model or vae.guide in place of vae"):
        dgm.bdmc(vae)
    with pytest.raises(TypeError, match="Fix: vae.model, vae.guide in place of vae"):
        dgm.bdmc(vae.model, start=vae)


@pytest.mark.parametrize("name", ["num_data", "num", "steps", "leapfrog", "chunk"])
def test_no_draws_raise(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.bdmc(LinearGaussian(), **{name: 0})


def test_models_that_can_not_be_walked_raise():
    with pytest.raises(ValueError, match="site 'mu': expected a site inside the plate 'data'"):
        dgm.bdmc(GlobalMean(), num_data=3, steps=2)
    with pytest.raises(ValueError, match="expected a latent site, got the observed"):
        dgm.bdmc(dgm.DensityModel(dgm.StandardNormal(2)), num_data=3, steps=2)


def test_a_model_may_return_nothing():
    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert dgm.bdmc(Written(run), num_data=3, steps=2).data[0].shape == (3,)
