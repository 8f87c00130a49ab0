"""What is taken for the data plate, and for a program's own network."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.adoption.programs import networks_of

net = nn.Linear(1, 1)  # which no program here runs


class Holder:
    """An object whose attribute has the name of a global."""

    def __init__(self):
        self.net = nn.Linear(2, 2)


holder = Holder()


def program(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(holder.net(x), 1.0).to_event(1), obs=x)


def test_an_attribute_is_not_taken_for_the_global_of_its_name():
    assert networks_of(program) == [holder.net]


@pytest.mark.parametrize("num", [3, 40])
def test_a_plate_as_large_as_the_data_are_many_by_chance_is_not_theirs(num):
    """Data along dim −2 have no figure each; their columns are none, though there are as many."""

    def guide(x):
        with pyro.plate("pixels", num, dim=-1), pyro.plate("rows", len(x), dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def model(x):
        with pyro.plate("pixels", num, dim=-1), pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="expected a site inside the plate 'data'"):
        dgm.nll(model, guide, torch.randn(num, num), num=10)


def test_a_compiled_sum_is_refused_by_name():
    def model(x):
        loc = pyro.param("loc", torch.tensor([0.0, 1.0]))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[c], 1.0), obs=x)

    trainer = dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide()), compile=True)
    with pytest.raises(ValueError, match=r"got \['c'\], which are summed over.*Fix: compile=False"):
        trainer.fit(torch.randn(8), epochs=1, progress=False)
    pyro.clear_param_store()
