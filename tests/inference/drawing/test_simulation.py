"""Data from the model, with the latents that they came from."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import in_float64
from pyro import poutine
from toys import LinearGaussian, Series, Written, linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.drawing.simulation import log_joint, simulate, site_draws
from pyro_dgm.inference.run.traces import latent_sites

WITH_LATENTS = {n: b for n, b in PAIRS.items() if n not in ("density_flow", "density_image")}


@in_float64
@pytest.mark.parametrize(**over(WITH_LATENTS))
@torch.no_grad()
def test_the_joint_density_of_what_is_simulated_is_that_of_the_program_given_it(build):
    case = build()
    context = case.batch(5)[1:]
    sites = [*latent_sites(poutine.trace(case.guide).get_trace(*case.batch(2)))]
    x, z = simulate(case.model, 5, context, sites, 1)
    assert len(x) == 5
    found = log_joint(case.model, (x, *context), z, 1)
    trace = poutine.trace(poutine.condition(case.model, data=z)).get_trace(x, *context)
    trace.compute_log_prob()
    expected = sum(
        s["log_prob"] for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"
    )
    torch.testing.assert_close(found, expected.double(), rtol=1e-10, atol=1e-10)


@in_float64
@torch.no_grad()
def test_it_is_the_joint_of_normals_with_and_without_a_further_plate():
    model = LinearGaussian()
    x, z = simulate(model, 7, (), ["z"], 1)
    exact = dist.Normal(0.0, 1.0).log_prob(z["z"]).sum(-1)
    exact = exact + dist.Normal(z["z"] @ model.weight.T + model.bias, model.scale).log_prob(x).sum(
        -1
    )
    torch.testing.assert_close(log_joint(model, (x,), z, 1), exact)
    series = Series()
    x, z = simulate(series, 7, (), ["z", "u"], 2)
    assert z["z"].shape == (7, 1)
    assert z["u"].shape == x.shape == (7, 3)
    exact = dist.Normal(0.0, 1.0).log_prob(z["z"][:, 0]) + dist.Normal(z["z"] + 0.2, 1.0).log_prob(
        z["u"]
    ).sum(-1)
    exact = exact + dist.Normal(z["u"], 0.5).log_prob(x).sum(-1)
    torch.testing.assert_close(log_joint(series, (x,), z, 2), exact)


def test_draws_have_the_data_behind_the_particles_and_keep_plates_of_size_one():
    from pyro_dgm.inference.run.traces import vectorized

    sites = latent_sites(poutine.trace(vectorized(Series(), 4, 2)).get_trace(torch.randn(5, 3)))
    assert site_draws(sites["z"]).shape == (4, 5, 1)
    assert site_draws(sites["u"]).shape == (4, 5, 3)
    assert torch.equal(site_draws(sites["u"])[2, 1], sites["u"]["value"][2, :, 1])


def test_data_that_are_fewer_than_the_rows_of_the_context_raise():
    def careless(_, x, c):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def encoder(_, x, c):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    model, guide, x = Optional(careless), Optional(encoder), torch.randn(30, 2)
    message = r"expected 30 data, one for each row of its further arguments, got 1\. Fix: data_plate\(x, c\)"
    for call in (
        lambda: dgm.sbc(model, guide, x, num_data=30),
        lambda: dgm.bdmc(model, x, num_data=1, num=2, steps=2),
        lambda: dgm.aggregate_test(model, guide, x, x),
        lambda: dgm.generate(model, 2, x),
    ):
        with pytest.raises(ValueError, match=message):
            call()


class Optional(Written):
    """A program whose second argument may be left out."""

    def forward(self, x=None, c=None):
        return self.run(self, x, c)


@pytest.mark.parametrize("name", ["sbc", "bdmc"])
def test_data_in_place_of_a_context_raise_with_the_fix(name):
    vae, x = toy_vae(), torch.randn(5, 3)
    call = {
        "sbc": lambda: dgm.sbc(vae.model, vae.guide, x),
        "bdmc": lambda: dgm.bdmc(vae.model, x),
    }[name]
    with pytest.raises(
        ValueError,
        match=r"expected model\(None, c\) to make data; .*Fix: leave the data x",
    ):
        call()


@pytest.mark.parametrize("pair", ["exact", "vae", "bare"])
def test_swapped_programs_are_asked_about(pair):
    bare, vae = PAIRS["two_latents_bare"](), toy_vae()
    pairs = {
        "exact": linear_gaussian()[:2],
        "vae": (vae.model, vae.guide),
        "bare": (bare.model, bare.guide),
    }
    model, guide = pairs[pair]
    with pytest.raises(
        ValueError,
        match=r"expected model\(None\) to make data.*[^.]\. Are model and guide swapped\? Fix",
    ):
        dgm.sbc(guide, model)


def test_a_context_that_is_left_out_raises_with_the_fix():
    case = PAIRS["vae_labels"]()
    with pytest.raises(
        ValueError, match=r"expected model\(None\) to make data.*Fix: .*sbc\(model, guide, c\)"
    ):
        dgm.sbc(case.model, case.guide, num_data=5)
