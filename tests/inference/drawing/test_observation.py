"""The observation of a model is read from its site, whatever the program returns."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from toys import Written

import pyro_dgm as dgm

RETURNED = {
    "the site": lambda z, x: x,
    "its location": lambda z, x: 2.0 * z,
    "the latent": lambda z, x: z,
    "nothing": lambda z, x: None,
    "both": lambda z, x: (z, x),
    "a site by name": lambda z, x: {"x": x},
}


class Line(dgm.Program):
    r"""$z \sim N(0, 1)$, $x \mid z \sim N(2 z, 0.5^2)$, so that $x \sim N(0, 4.25)$; returns what it likes."""

    def __init__(self, returned="the site"):
        super().__init__()
        self.returned = RETURNED[returned]

    def forward(self, x=None, *context):
        with dgm.data_plate(x, *context):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
            x = pyro.sample("x", dist.Normal(2.0 * z, 0.5).to_event(1), obs=x)
            return self.returned(z, x)


class LineGuide(dgm.Program):
    r"""The exact posterior, $N(8 x / 17, 1 / 17)$."""

    def forward(self, x=None, *context):
        with dgm.data_plate(x, *context):
            pyro.sample("z", dist.Normal(8.0 * x / 17.0, 17.0**-0.5).to_event(1))


@pytest.mark.parametrize("returned", RETURNED)
def test_a_model_generates_its_observed_site(returned):
    x, same = dgm.generate(Line(returned), 50), dgm.generate(Line(), 50, site="x")
    assert torch.equal(x, same)
    context = torch.zeros(3, 2)
    x = dgm.generate(Line(returned), 4, context)
    assert torch.equal(x, dgm.generate(Line(), 4, context, site="x"))
    mean = dgm.generate(Line(returned), 50, mean=True)
    assert torch.equal(mean, 2.0 * dgm.generate(Line(), 50, site="z"))


@pytest.mark.parametrize("returned", RETURNED)
def test_an_exact_guide_is_calibrated_whatever_is_returned(returned):
    result = dgm.sbc(Line(returned), LineGuide(), num_data=200, num_draws=19)
    same = dgm.sbc(Line(), LineGuide(), num_data=200, num_draws=19)
    assert torch.equal(result.ranks, same.ranks)


@pytest.mark.parametrize("returned", ["its location", "the latent", "nothing"])
def test_simulated_data_of_every_estimate_are_those_of_the_observed_site(returned):
    settings = {"num_data": 4, "num": 3, "steps": 4, "leapfrog": 2}
    bdmc, same = dgm.bdmc(Line(returned), **settings), dgm.bdmc(Line(), **settings)
    assert torch.equal(bdmc.data[0], same.data[0])
    z = torch.arange(3.0)[:, None]
    torch.testing.assert_close(dgm.decode(Line(returned), z), 2.0 * z)
    x = dgm.generate(Line(), 6)
    losses = []
    for model in (Line(returned), Line()):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            losses.append(dgm.Sleep(model, LineGuide())(x))
    assert torch.equal(*losses)


def test_a_check_is_the_same_whatever_is_returned():
    x = dgm.generate(Line(), 30)
    settings = {"num": 25, "limit": 20, "num_simulated": 20}
    first = dgm.check(Line(), LineGuide(), x, **settings)
    second = dgm.check(Line("its location"), LineGuide(), x, **settings)
    assert str(first) == str(second)


def test_a_transformed_observation_is_read_as_the_program_takes_it():
    def run(program, x):
        with dgm.data_plate(x):
            log_x = pyro.sample(
                "log_x", dist.Normal(program.weight, 1.0), obs=None if x is None else x.log()
            )
            return log_x.exp()

    draws = dgm.generate(Written(run), 20)
    torch.testing.assert_close(draws, dgm.generate(Written(run), 20, site="log_x").exp())


def two_parts(program, x, *, joined=True):
    first, second = (None, None) if x is None else (x[:, :1], x[:, 1:])
    with dgm.data_plate(x):
        first = pyro.sample(
            "a", dist.Normal(program.weight, 1.0).expand([1]).to_event(1), obs=first
        )
        second = pyro.sample("b", dist.Normal(first, 1.0).to_event(1), obs=second)
        return torch.cat([first, second], -1) if joined else first + second


def test_several_observed_sites_are_read_as_a_whole_or_refused_by_name():
    model = Written(two_parts)
    draws = dgm.generate(model, 20)
    torch.testing.assert_close(draws[:, :1], dgm.generate(model, 20, site="a"))
    torch.testing.assert_close(draws[:, 1:], dgm.generate(model, 20, site="b"))
    model = Written(lambda program, x: two_parts(program, x, joined=False))
    with pytest.raises(
        ValueError, match=r"expected one observed site.*got \['a', 'b'\].*Fix: .*site='x'"
    ):
        dgm.generate(model, 20)
    assert dgm.generate(model, 20, site="b").shape == (20, 1)


def test_a_tensor_that_is_no_draw_of_a_site_is_refused():
    def run(program, x):
        with dgm.data_plate(x):
            return 2.0 * pyro.sample("z", dist.Normal(program.weight, 1.0))

    with pytest.raises(ValueError, match=r"a Tensor that it would not observe. Fix: pyro.sample"):
        dgm.generate(Written(run), 5)


def test_a_program_without_data_gives_what_it_draws_last():
    def prior(program, x):
        with dgm.data_plate(x):
            a = pyro.sample("a", dist.Normal(program.weight, 1.0))
            return pyro.sample("b", dist.Normal(a, 1.0))

    draws = dgm.generate(Written(prior), 5)
    assert torch.equal(draws, dgm.generate(Written(prior), 5, site="b"))


def test_a_dequantized_model_gives_its_levels():
    def run(_, x):
        with dgm.data_plate(x):
            law = dist.Normal(torch.zeros(2), 5.0).to_event(1)
            pyro.sample("x", law, obs=x)
            return law.mean

    model = dgm.dequantized(Written(run))
    draws = dgm.generate(model, 20)
    assert torch.equal(draws, dgm.generate(model, 20, site="x"))
    assert torch.equal(draws, draws.round())
    assert draws.std() > 1
