"""Coverage by distance to reference points: exact guides pass, wrong ones fail, and no density is asked for."""

from math import sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS
from conftest import both_dtypes, in_float64
from scipy.stats import kstest
from toys import ExactGuide, GlobalMean, GlobalMeanGuide, LinearGaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.posterior.coverage import whiten
from pyro_dgm.evaluation.posterior.simulated_pairs import SimulatedPair
from pyro_dgm.inference.drawing.prior_sessions import session_of_prior


class Forgetful(dgm.Program):
    """The prior as a guide."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))


@both_dtypes
def test_an_exact_guide_passes():
    model = LinearGaussian()
    found = dgm.tarp(model, ExactGuide(model), num_data=4000)
    assert found.names[:5] == ("fixed[0]", "fixed[1]", "fixed[2]", "fixed[3]", "of x[0]")
    assert found.ranks.shape == found.uniform.shape == (4000, 8)
    assert found.passed(0.001)


@pytest.mark.slow
def test_p_values_of_an_exact_guide_are_uniform():
    """200 repetitions with 100 data and 9 draws: Kolmogorov's test at one in a hundred thousand."""
    model = LinearGaussian()
    guide = ExactGuide(model)
    runs = [dgm.tarp(model, guide, num_data=100, num_draws=9, seed=s) for s in range(200)]
    p = torch.stack([found.p_values for found in runs])
    assert min(kstest(column, "uniform").pvalue for column in p.T) > 1e-5
    assert kstest([found.joint["means"] for found in runs], "uniform").pvalue > 1e-5


@pytest.mark.parametrize("wrong", [{"shift": 0.1}, {"spread": 0.8}, {"spread": 1.25}])
@both_dtypes
def test_a_wrong_mean_or_scale_fails(wrong):
    model = LinearGaussian()
    assert not dgm.tarp(model, ExactGuide(model, **wrong), num_data=4000).passed(0.001)


def test_a_guide_that_forgets_x_fails_by_references_that_follow_x_alone():
    """The prior covers what does not depend on x, at every level."""
    found = dgm.tarp(LinearGaussian(), Forgetful(), num_data=2000)
    assert found.adjusted[4:].min() < 1e-10
    assert found.p_values[:4].min() > 1e-4


@in_float64
def test_coverage_is_the_share_of_balls():
    """Five standard errors at 4,000 data."""
    model = LinearGaussian()
    found = dgm.tarp(model, ExactGuide(model), num_data=4000)
    for level in (0.1, 0.5, 0.9):
        error = 5 * sqrt(level * (1 - level) / 4000)
        assert ((found.coverage(level) - level).abs() < error).all()
    assert found.to_dataframe()["coverage_50"].tolist() == found.coverage(0.5).tolist()
    assert "TARP, 4000 data × 99 draws, 8 statistics" in str(found)
    assert "95% ball" in str(found)


def test_what_is_done_with_a_block_does_not_change_the_next():
    """So that `sbc` and `tarp` of one seed read the same simulation."""
    model = LinearGaussian()
    runs = []
    for num_used in (1, 50):
        with session_of_prior(model, ExactGuide(model), num=9, chunk=90, seed=3) as pair:
            blocks = []
            for block in SimulatedPair.of(pair, "tarp").blocks(30):
                torch.rand(num_used)
                blocks.append(block.draws)
            runs.append(torch.cat(blocks, 1))
    assert runs[0].shape == (9, 30, 2)
    assert torch.equal(*runs)


@in_float64
def test_whitened_points_have_no_mean_and_no_correlation_but_what_is_shrunk():
    points = torch.randn(500, 3, 2) @ torch.tensor([[2.0, 1.0], [0.0, 1.0]]) + 5
    white = whiten(points)
    torch.testing.assert_close(white.mean(0), torch.zeros(3, 2))
    covariance = torch.einsum("jni,jnk->nik", white, white) / 500
    assert (covariance - torch.eye(2)).abs().max() < 0.02
    order = torch.randperm(500)
    torch.testing.assert_close(whiten(points[order]), white[order])


def test_constant_numbers_and_more_dims_than_draws_are_taken():
    points = torch.randn(4, 3, 9, dtype=torch.float64)
    points[..., 2] = 1.0
    assert whiten(points).isfinite().all()


def test_few_data_have_no_tests_of_all_references():
    model = LinearGaussian()
    found = dgm.tarp(model, ExactGuide(model), num_data=79, num_draws=9)
    assert found.joint == {}
    assert found.smallest == found.adjusted.min().item()
    assert "TARP, 79 data" in str(found)


def test_bad_arguments_raise():
    model = LinearGaussian()
    for name in ("num_data", "num_draws", "num_references", "chunk"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.tarp(model, ExactGuide(model), **{name: 0})
    case = PAIRS["density_flow"]()
    with pytest.raises(ValueError, match=r"tarp: expected a guide with latent sites, got \[\]"):
        dgm.tarp(case.model, case.guide)
    with pytest.raises(TypeError, match=r"got VAE and VAE\. Fix: vae\.model, vae\.guide"):
        dgm.tarp(toy_vae(), toy_vae())
    with pytest.raises(ValueError, match=r"got \['mu'\], which all data share.*Fix: vsbc"):
        dgm.tarp(GlobalMean(), GlobalMeanGuide(), num_data=5)
