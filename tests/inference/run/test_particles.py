import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import both_dtypes
from pyro import poutine
from toys import (
    ExactGuide,
    GlobalMean,
    GlobalMeanGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    linear_gaussian,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng


@both_dtypes
def test_log_weight_equals_log_evidence_at_every_particle_under_the_exact_posterior(dtype):
    model, guide, x = linear_gaussian()
    log_w = dgm.draw(model, guide, x, num=50).log_weight
    assert log_w.dtype == torch.float64
    assert x.dtype == dtype
    torch.testing.assert_close(log_w, model.log_evidence(x).expand(50, 6), rtol=0, atol=1e-5)


def test_log_weight_spreads_under_an_inexact_guide():
    model = LinearGaussian()
    log_w = dgm.draw(model, ExactGuide(model, shift=0.3), model.data(6), num=50).log_weight
    assert (log_w.std(0) > 1e-2).all()


@pytest.mark.parametrize(**over(PAIRS))
def test_log_weight_is_the_sum_of_the_sites(build):
    case = build()
    particles = dgm.draw(case.model, case.guide, *case.batch(4), num=3)
    total = sum(v.double() for v in particles.log_p.values())
    total = total - sum(v.double() for v in particles.log_q.values())
    assert particles.log_weight.shape == (3, 4)
    torch.testing.assert_close(particles.log_weight, total)
    torch.testing.assert_close(particles.log_joint - particles.log_guide, total)


@pytest.mark.parametrize(**over(PAIRS))
def test_particles_equal_a_loop_over_single_draws(build):
    case = build()
    batch = case.batch(4)
    particles = dgm.draw(case.model, case.guide, *batch, num=3)
    for k in range(3):
        value = {name: z[k] for name, z in particles.values.items()}
        one = poutine.trace(poutine.condition(case.model, data=value)).get_trace(*batch)
        one.compute_log_prob()
        joint = sum(one.nodes[name]["log_prob"] for name in particles.log_p)
        torch.testing.assert_close(particles.log_joint[k], joint.double())


def test_observations_are_distributions_of_batch_shape_particles_by_data():
    model, guide, x = linear_gaussian()
    laws = dgm.draw(model, guide, x, num=5).observations
    assert list(laws) == ["x"]
    assert laws["x"].batch_shape == (5, 6)


def test_a_further_plate_is_summed_into_the_weight_of_its_datum():
    model, guide, x = Series(), SeriesGuide(), torch.randn(5, 3)
    particles = dgm.draw(model, guide, x, num=4)
    assert particles.log_p["u"].shape == particles.log_weight.shape == (4, 5)
    assert particles.values["u"].shape == (4, 3, 5)
    z, u = particles.values["z"], particles.values["u"]
    expected = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z[:, None] + 0.2, 1.0).log_prob(
        u
    ).sum(1)
    expected = expected + dist.Normal(u, 0.5).log_prob(x.T).sum(1)
    torch.testing.assert_close(particles.log_joint, expected.double())


def test_draws_do_not_see_the_size_of_the_full_set():
    x = torch.randn(6, 4)
    weights = []
    for size in (None, 6000):
        with fork_rng(seed=2):
            model = LinearGaussian(size=size)
            weights.append(dgm.draw(model, ExactGuide(model), x, num=9).log_weight)
    assert torch.equal(*weights)


def test_draws_do_not_see_scales_nor_masks_of_ones():
    model, guide, x = linear_gaussian()
    ones = poutine.mask(poutine.scale(model, scale=0.1), mask=torch.ones(6, dtype=torch.bool))
    with fork_rng(seed=2):
        bare = dgm.draw(model, guide, x, num=9).log_weight
    with fork_rng(seed=2):
        assert torch.equal(dgm.draw(ones, guide, x, num=9).log_weight, bare)


def test_a_masked_datum_leaves_no_weight_of_its_observation():
    model, guide, x = linear_gaussian()
    mask = torch.arange(6) != 2
    particles = dgm.draw(poutine.mask(model, mask=mask), guide, x, num=3)
    assert (particles.log_p["x"][:, 2] == 0).all()
    assert (particles.log_p["x"][:, mask] != 0).all()


def test_finding_the_plate_depth_takes_no_random_numbers():
    model, guide, x = linear_gaussian()
    with fork_rng(seed=2):
        known = dgm.draw(model, guide, x, num=3, depth=1).log_weight
    with fork_rng(seed=2):
        assert torch.equal(dgm.draw(model, guide, x, num=3).log_weight, known)


def test_a_global_site_has_a_weight_of_all_data_and_none_of_each():
    guide, x = GlobalMeanGuide(), torch.randn(4)
    particles = dgm.draw(GlobalMean(), guide, x, num=3)
    with pytest.raises(
        ValueError,
        match=r"site 'mu': expected a site inside the plate 'data', got a global one.*Fix: evidence",
    ):
        _ = particles.log_weight
    mu, z = particles.values["mu"], particles.values["z"]
    loc = guide.slope * x + 0.1 * mu[:, None]
    local = dist.Normal(mu[:, None], 1.0).log_prob(z) + dist.Normal(z, 0.5).log_prob(x)
    local = local - dist.Normal(loc, 0.5).log_prob(z)
    shared = dist.Normal(0.0, 1.0).log_prob(mu) - dist.Normal(guide.loc, 0.4).log_prob(mu)
    torch.testing.assert_close(particles.local_log_weight, local.double())
    torch.testing.assert_close(particles.log_weight_of_set, (shared + local.sum(-1)).double())


def test_a_model_without_latents_has_the_exact_density_as_weight():
    case = PAIRS["density_flow"]()
    (x,) = case.batch(5)
    particles = dgm.draw(case.model, case.guide, x, num=3)
    assert particles.values == {}
    assert not particles.log_guide.any()
    torch.testing.assert_close(
        particles.log_weight, case.model.density().log_prob(x).double().expand(3, 5)
    )
