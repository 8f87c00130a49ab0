"""Images of laws against change of variables, and what can't be refined."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro import poutine
from toys import Written, toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.chains.charts import chart_of
from pyro_dgm.evaluation.posterior.refinement import (
    AffineImage,
    RefinedGuide,
    concatenate,
    is_mean_field_normal,
    refine,
)
from pyro_dgm.inference.process.states import evaluation_mode
from pyro_dgm.inference.run.traces import latent_sites, vectorized

LAWS = {
    "normal": lambda: dist.Normal(torch.zeros(3, 2), 1.0).to_event(1),
    "scalar": lambda: dist.StudentT(4.0, torch.zeros(3), 0.5),
    "gamma": lambda: dist.Gamma(2.0 * torch.ones(3, 2), 3.0).to_event(1),
    "beta": lambda: dist.Beta(2.0 * torch.ones(3), 1.5),
    "simplex": lambda: dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]).expand(3, 3)),
    "lognormal": lambda: dist.LogNormal(torch.zeros(3), 0.7),
}


def image_of(law):
    """An image with random constants for each of 3 data."""
    chart = chart_of("z", law, whiten=False)
    event_dim = len(chart.shape) - 1
    return AffineImage(
        *(torch.randn(chart.shape) * 0.4 + offset for offset in (0.2, 0.8, 0.5, 0.1)), event_dim
    ), chart


@in_float64
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_an_image_has_the_density_of_the_change_of_variables(law):
    """In coordinates: log q'(ζ') = log q(ζ) - Σ s, both sides made densities of z by their own determinants."""
    law = law()
    image, chart = image_of(law)
    moved = image.pushforward("z", law).log_prob

    def density(value, at):
        """Log density of ζ."""
        log_p = at(value)
        log_det = chart.onto.log_abs_det_jacobian(chart.onto.inv(value), value)
        return log_p + (log_det.sum(-1) if log_det.dim() > 1 else log_det)

    z = law.sample()
    to = image.centre + image.log_scale.exp() * (
        chart.of(z) - image.centre + image.unit * image.shift
    )
    scales = image.log_scale.reshape(3, -1).sum(-1)
    torch.testing.assert_close(density(chart.onto(to), moved), density(z, law.log_prob) - scales)


@in_float64
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_draws_are_the_images_of_draws_and_stay_in_the_support(law):
    law = law()
    image, chart = image_of(law)
    with pyro.validation_enabled(False):
        torch.manual_seed(1)
        z = law.expand((5, 3)).rsample()
        torch.manual_seed(1)
        moved = image.pushforward("z", law).expand((5, 3)).rsample()
    to = image.centre + image.log_scale.exp() * (
        chart.of(z) - image.centre + image.unit * image.shift
    )
    torch.testing.assert_close(moved, chart.onto(to))
    assert law.support.check(moved).all()


def test_an_image_at_some_data_is_that_of_their_rows():
    image, _ = image_of(LAWS["normal"]())
    torch.testing.assert_close(image.at(slice(1, 3)).shift, image.shift[1:])
    parts = concatenate([image.at(slice(0, 1)), image.at(slice(1, 3))])
    torch.testing.assert_close(parts.centre, image.centre)


def test_a_later_site_sees_the_moved_draw_of_the_earlier():
    def guide(x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("y", dist.Normal(z, 1e-6))

    shifted = AffineImage(
        torch.zeros(2), torch.ones(2), torch.tensor([100.0, -100.0]), torch.zeros(2), 0
    )
    trace = poutine.trace(RefinedGuide({"z": shifted})(guide)).get_trace(torch.zeros(2))
    z, y = (trace.nodes[name]["value"] for name in ("z", "y"))
    assert ((z - torch.tensor([100.0, -100.0])).abs() < 10).all()
    torch.testing.assert_close(y, z, atol=1e-4, rtol=0)


def test_a_masked_law_keeps_its_mask():
    law = LAWS["normal"]()
    image, mask = image_of(law)[0], torch.tensor([True, False, True])
    masked, z = image.pushforward("z", law.mask(mask)), law.sample()
    expected = torch.where(mask, image.pushforward("z", law).log_prob(z), torch.zeros(()))
    torch.testing.assert_close(masked.log_prob(z), expected)


def test_a_masked_datum_is_not_moved():
    def run(program, x=None):
        with dgm.data_plate(x), poutine.mask(mask=torch.tensor([True, False])):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return None if x is None else pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(program, x=None):
        with dgm.data_plate(x), poutine.mask(mask=torch.tensor([True, False])):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    found = dgm.gaps(Written(run), Written(guide), torch.tensor([2.0, 2.0]), num=20, num_steps=50)
    assert found.amortization_per_datum[0] > 1
    assert found.amortization_per_datum[1] == found.approximation_per_datum[1] == 0


def test_the_ascent_needs_no_gradient_of_the_weights_and_leaves_them():
    vae, x = toy_vae(), torch.randn(4, 3)
    before = {n: p.clone() for n, p in vae.named_parameters()}
    with evaluation_mode(vae.model, vae.guide, seed=0):
        found = refine(
            vae.model, vae.guide, (x,), 1, num_steps=3, lr=0.1, chunk=130
        )  # in blocks of 2 data
    image = found.images["z"]
    assert image.shift.shape == image.log_scale.shape == (4, 2)
    assert not image.shift.requires_grad
    assert (image.shift != 0).all()
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in vae.named_parameters())


def mean_field(run):
    with torch.no_grad():
        return is_mean_field_normal(
            latent_sites(poutine.trace(vectorized(run, 4, 1)).get_trace(torch.randn(3)))
        )


def test_a_mean_field_normal_is_told_from_other_guides():
    def guide(later):
        def run(x):
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(x, 1.0))
                pyro.sample("y", later(x, z))

        return run

    assert mean_field(guide(lambda x, z: dist.Normal(x[:, None] * torch.ones(2), 1.0).to_event(1)))
    assert mean_field(guide(lambda x, z: dist.Normal(x, 1.0).mask(torch.tensor(True))))
    assert not mean_field(guide(lambda x, z: dist.Normal(z, 1.0)))
    assert not mean_field(guide(lambda x, z: dist.Normal(x, 0.1 + z.square())))
    assert not mean_field(guide(lambda x, z: dist.StudentT(4.0, x, 1.0)))
    assert not mean_field(
        guide(lambda x, z: dist.MultivariateNormal(torch.zeros(3, 2), torch.eye(2)))
    )


# What can't be refined -----------------------------------------------------------------------------------------------


def gaps_of(law, prior=None):
    """The gaps of a guide with one law for all data."""

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", prior or dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(program, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", law)

    return dgm.gaps(Written(model), Written(guide), torch.randn(3), num=4, num_steps=2)


def test_a_point_mass_raises():
    with pytest.raises(
        ValueError, match="site 'z': expected a density over every dim in the guide, got Delta"
    ):
        gaps_of(dist.Delta(torch.zeros(2)).to_event(1))


def test_a_mask_inside_an_event_raises():
    masked = dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, False])).to_event(1)
    with pytest.raises(
        ValueError, match="expected a density over every dim in the guide, got MaskedDistribution"
    ):
        gaps_of(masked)


def test_a_law_without_reparameterized_draws_raises():
    parts = dist.Normal(torch.zeros(2, 2), 1.0).to_event(1)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts)
    with pytest.raises(
        ValueError, match=r"site 'z': expected reparameterized draws.*got MixtureSameFamily"
    ):
        gaps_of(mixture)


def test_a_discrete_latent_raises():
    coin = dist.Bernoulli(torch.full((2,), 0.5)).to_event(1)
    with pytest.raises(
        ValueError, match="site 'z': expected a continuous latent, got a discrete one"
    ):
        gaps_of(coin, prior=coin)
