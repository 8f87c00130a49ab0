"""What programs make when they first run, and networks that a program only reaches, are those of all data."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.effect import AutoNormalMessenger
from torch import nn

import pyro_dgm as dgm

NUM = 12
SCALE = 0.5


@pytest.fixture(autouse=True)
def clean_store():
    yield
    pyro.clear_param_store()


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, SCALE), obs=x)


def guide(x):
    """The posterior, a parameter for each datum."""
    precision = 1 + 1 / SCALE**2
    loc = pyro.param("loc", lambda: x / SCALE**2 / precision)
    scale = pyro.param("scale", lambda: torch.full((len(x),), precision**-0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, scale))


def evidence(x):
    return dist.Normal(0.0, math.sqrt(1 + SCALE**2)).log_prob(x)


@pytest.mark.parametrize(
    "verb", [dgm.preflight, dgm.nll, dgm.encode], ids=lambda verb: verb.__name__
)
def test_a_statement_has_the_shape_of_all_data(verb):
    programs = (guide,) if verb is dgm.encode else (model, guide)
    verb(*programs, torch.randn(NUM))
    assert pyro.param("loc").shape == (NUM,)


def test_a_parameter_for_each_datum_is_read_at_its_datum():
    """The guide is exact: every log weight is the log evidence of its datum."""
    x = torch.randn(NUM)
    for chunk in (20_000, 5):
        found = dgm.nll(model, guide, x, num=3, chunk=chunk).per_datum
        assert torch.allclose(found, -evidence(x), rtol=0, atol=1e-10)


class OfCodes(EasyGuide):
    def guide(self, x):
        group = self.group(match="z")
        with self.plate("data", len(x)):
            loc = pyro.param("loc", lambda: torch.zeros(len(x), 1), event_dim=1)
            group.sample("zs", dist.Normal(loc, SCALE).to_event(1))


def test_an_easy_guide_is_left_as_it_was_found():
    """It keeps the plates of a run on a few data that failed, and the user's next run would meet them."""
    x, easy = torch.randn(NUM), OfCodes(model)
    dgm.preflight(model, easy, x)
    assert not easy.plates
    SVI(model, easy, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)


def test_a_messenger_guide_is_a_program():
    x, messenger = torch.randn(NUM), AutoNormalMessenger(model)
    data = dgm.Batches(x, NUM, shuffle=False)  # it has a parameter for each datum
    objective = dgm.ELBO(model, messenger)
    before = dgm.SVITrainer(objective, lr=0.05).fit(data, epochs=400, progress=False)
    assert before.rows[-1]["train_loss"] < before.rows[0]["train_loss"]
    assert dgm.nll(model, messenger, x, num=500).mean == pytest.approx(
        -evidence(x).mean().item(), abs=0.05
    )


class WithDropout:
    """A class with the methods model and guide, that holds a network whose modes differ."""

    def __init__(self):
        self.net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, SCALE).to_event(1), obs=x)

    def guide(self, x):
        precision = 1 + 1 / SCALE**2
        with pyro.plate("data", len(x)):
            loc = self.net(x) * math.sqrt(1 + 1e-5) / SCALE**2 / precision
            pyro.sample("z", dist.Normal(loc, precision**-0.5).to_event(1))


def test_the_networks_of_a_bound_method_are_in_evaluation_mode():
    """Then the guide is exact, and every log weight the log evidence; afterwards the modes are what they were."""
    x, pair = torch.randn(NUM, 1), WithDropout()
    found = dgm.nll(pair.model, pair.guide, x, num=3).per_datum
    assert torch.allclose(found, -evidence(x[:, 0]), rtol=0, atol=1e-10)
    assert pair.net.training
    assert pair.net[1].num_batches_tracked == 0


class WithOptions:
    """Programs with further arguments that are no data."""

    def model(self, x, mask=None, factor=1.0, settings=None):
        with pyro.plate("batch", len(x)), pyro.poutine.scale(scale=factor):
            z = pyro.sample("z", dist.Normal(0.0, settings["scale"]))
            pyro.sample("x", dist.Normal(z, SCALE), obs=x)

    def guide(self, x, mask=None, factor=1.0, settings=None):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("batch", len(x)), pyro.poutine.scale(scale=factor):
            precision = 1 / settings["scale"] ** 2 + 1 / SCALE**2
            pyro.sample("z", dist.Normal(loc + x / SCALE**2 / precision, precision**-0.5))


def test_arguments_that_are_no_data_go_with_every_minibatch():
    x, pair = torch.randn(NUM), WithOptions()
    options = (None, 0.5, {"scale": 2.0})
    trainer = dgm.SVITrainer(dgm.ELBO(pair.model, pair.guide), lr=0.05)
    row = trainer.fit((x, *options), epochs=20, batch_size=5, progress=False).rows[-1]
    assert row["train_loss"] == pytest.approx(0.5 * row["train_nelbo"], rel=1e-6)
    score = dgm.nll(pair.model, pair.guide, x, *options, num=2000)
    exact = -dist.Normal(0.0, math.sqrt(4 + SCALE**2)).log_prob(x).mean().item()
    assert score.mean == pytest.approx(exact, abs=0.01)


def test_a_guide_of_pyro_looks_at_the_model_with_the_arguments_that_it_is_given():
    def of_keyword(x, *, y=None):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(b * x, SCALE), obs=y)

    x = torch.randn(NUM)
    y = 0.5 * x
    guide = AutoNormal(of_keyword, init_scale=1.0)  # wider than the posterior
    pair = partial(of_keyword, y=y), partial(guide, y=y)
    assert dgm.preflight(*pair, x).latent == ("b",)
    covariance = torch.outer(x, x) + SCALE**2 * torch.eye(NUM)
    exact = dist.MultivariateNormal(torch.zeros(NUM), covariance).log_prob(y).item()
    found = dgm.evidence(*pair, x, num=4000)
    assert found.value == pytest.approx(exact, abs=5 * found.stderr)
