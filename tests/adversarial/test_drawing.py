"""Fakes are what the program makes: equal to Pyro's own trace of it, draw by draw."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from pyro import poutine
from torch import nn
from toys import Series, Written

import pyro_dgm as dgm
from pyro_dgm.adversarial.drawing import Fakes
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.run.traces import observed_sites, vectorized


def traced(case, batch, seed=3):
    """Distribution and value of the observation in Pyro's trace of a generating program."""
    (name,) = observed_sites(poutine.trace(case.model).get_trace(*batch))
    with fork_rng(seed=seed):
        program = vectorized(case.model, 1 if len(batch) > 1 else len(batch[0]), 1)
        site = poutine.trace(program).get_trace(None, *batch[1:]).nodes[name]
    return site["fn"], site["value"]


def drawn(case, batch, seed=3, **options):
    fakes = Fakes(case.model, **options)
    fakes.inspect(*batch)
    with fork_rng(seed=seed):
        return fakes(*batch)


@pytest.mark.parametrize(**over(PAIRS))
def test_fakes_without_noise_are_the_means_of_a_trace(build):
    case = build()
    batch = case.batch(5)
    law, _ = traced(case, batch)
    try:
        mean = law.mean
    except NotImplementedError:
        with pytest.raises(
            ValueError,
            match=r"site 'x': expected a distribution with a mean.*Fix: GANTrainer\(…, noise=True\)",
        ):
            drawn(case, batch)
        return
    fake = drawn(case, batch)
    assert fake.shape == batch[0].shape
    torch.testing.assert_close(
        fake, mean.reshape(fake.shape), rtol=0, atol=0, equal_nan=True
    )  # Categorical has none


@pytest.mark.parametrize(**over(PAIRS))
def test_fakes_with_noise_are_the_draws_of_a_trace(build):
    case = build()
    batch = case.batch(5)
    law, value = traced(case, batch)
    if not law.has_rsample:
        with pytest.raises(
            ValueError, match=r"site 'x': expected reparameterized draws.*Fix: noise=False"
        ):
            drawn(case, batch, noise=True)
        return
    assert torch.equal(drawn(case, batch, noise=True), value.reshape(batch[0].shape))


def test_some_pairs_have_means_and_some_have_draws():
    """The two tests above would pass if every pair raised."""
    cases = [build() for build in PAIRS.values()]
    laws = [traced(case, case.batch(2))[0] for case in cases]
    assert sum(law.has_rsample for law in laws) >= 8
    assert sum(not law.has_rsample for law in laws) > 0


def test_further_plates_stand_behind_the_data():
    x = torch.randn(4, 3)
    fake = Fakes(Series(), noise=True)(x)
    assert fake.shape == x.shape
    assert Series().steps == 3


def test_fakes_of_labels_belong_to_their_labels():
    likelihood = dgm.Normal(dgm.Concat(nn.Linear(2, 1)), scale=0.1)
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), likelihood)
    with torch.no_grad():
        likelihood.net.net.weight.copy_(torch.tensor([[1e-6, 5.0]]))
        likelihood.net.net.bias.zero_()
    labels = torch.arange(6.0)[:, None]
    torch.testing.assert_close(
        Fakes(model)(torch.zeros(6, 1), labels), 5 * labels, rtol=0, atol=1e-4
    )


def test_gradients_reach_prior_and_likelihood_and_with_noise_the_scale():
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2, hidden=(4,)))
    likelihood = dgm.Normal(dgm.mlp(2, 4, 3))
    model = dgm.LatentVariableModel(prior, likelihood)
    for noise, num in ((False, 1), (True, 0)):
        model.zero_grad(set_to_none=True)
        Fakes(model, noise=noise)(torch.zeros(5, 3)).square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert len(without) == num, without


def test_the_first_call_takes_no_noise_from_the_run_and_moves_no_weight():
    case = PAIRS["vae_normal"]()
    first, second = Fakes(case.model), Fakes(case.model)
    second.inspect(*case.batch(3))
    x = case.batch(4)[0]
    with fork_rng(seed=1):
        one = first(x)
    with fork_rng(seed=1):
        other = second(x)
    assert torch.equal(one, other)


def test_a_program_may_return_nothing_and_name_its_site_as_it_likes():
    def run(program, x):
        with pyro.plate("data", 1 if x is None else len(x), dim=-1):
            z = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("picture", dist.Normal(program.weight * z, 1.0).to_event(1), obs=x)

    assert Fakes(Written(run))(torch.zeros(7, 2)).shape == (7, 2)


def test_a_critic_in_place_of_the_generator_says_so():
    with pytest.raises(
        ValueError,
        match=r"one observed site.*got \[\].*is it the critic\? GANTrainer\(generator, critic",
    ):
        Fakes(dgm.mlp(3, 1))(torch.zeros(3, 3))


def test_several_observed_sites_raise():
    def run(program, x):
        with dgm.data_plate(x):
            for name in ("x", "y"):
                pyro.sample(name, dist.Normal(program.weight, 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"expected one observed site, .* got \['x', 'y'\]. Fix: pyro.sample"
    ):
        Fakes(Written(run))(torch.zeros(3))


def test_a_program_that_generates_without_its_site_says_so():
    def run(program, x):
        if x is not None:
            with dgm.data_plate(x):
                pyro.sample("x", dist.Normal(program.weight, 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"site 'x': expected a draw of it when .* Fix: pyro.sample\('x', …, obs=x"
    ):
        Fakes(Written(run))(torch.zeros(3))


def test_fakes_show_their_settings():
    assert repr(Fakes(Series(), noise=True)) == "Fakes(Series, noise=True)"
