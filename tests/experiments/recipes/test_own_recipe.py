"""Programs of one's own: whatever gives a model and a guide, called by the names of its arguments."""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from experiments.recipes.synthetic import synthetic
from torch import nn

from pyro_dgm import ELBO, VAE, Bernoulli, Conditional, StandardNormal, mlp
from pyro_dgm.experiments.catalogue.programs import Hierarchical, PlainVAE
from pyro_dgm.experiments.recipes.own import Composition, Own


class Methods(nn.Module):
    """As Pyro's tutorial writes it: model and guide are methods."""

    def __init__(self, dim: int, hidden: int = 4):
        super().__init__()
        self.decoder, self.encoder = mlp(2, hidden, dim), mlp(dim, hidden, 4)

    def model(self, x=None):
        with pyro.plate("data", 1 if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        loc, raw = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def functions(dim, size, event_shape, hidden=4):
    assert (size, event_shape) == (24, (4, 4))
    both = Methods(dim, hidden)

    def model(x=None):
        return both.model(x)

    def guide(x):
        return both.guide(x)

    return model, guide


def modules(data, levels, num_context):
    assert (levels, num_context) == (2, 0)
    prior, net = StandardNormal(2), mlp(data.dim, 4)
    return VAE(prior, Bernoulli(mlp(2, data.dim)), Conditional(dist.Normal, net))


@dataclass
class Holder:
    """No module: an object that holds the networks."""

    dim: int

    def __post_init__(self):
        self.both = Methods(self.dim)
        self.model, self.guide = self.both.model, self.both.guide


class Plain:
    """No module and no dataclass."""

    def __init__(self, **arguments):
        self.both = Methods(arguments["dim"])

    def model(self, x=None):
        return self.both.model(x)

    def guide(self, x):
        return self.both.guide(x)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (Methods, {"hidden": 5}),
        (functions, {}),
        (modules, {}),
        (Holder, {}),
        (Plain, {"dim": 16}),
        (PlainVAE, {"latent": 2, "hidden": 4}),
    ],
)
def test_whatever_gives_a_model_and_a_guide_trains_with_all_weights_in_the_state_dict(
    program, arguments
):
    data = synthetic("binary")
    programs = Own(program, arguments).build(data)
    assert isinstance(programs, nn.Module)
    objective = ELBO(programs.model, programs.guide)
    objective.preflight(data.train)
    objective(data.train).backward()
    weights = list(programs.parameters())
    assert len(weights) == (4 if program is modules else 8)  # of one layer each, or of two
    assert all(p.grad.isfinite().all() for p in weights)
    kept = {tensor.data_ptr() for tensor in programs.state_dict().values()}
    assert kept >= {p.data_ptr() for p in weights}


def test_a_vae_is_handed_on_as_it_is():
    assert isinstance(Own(modules).build(synthetic("binary")), VAE)


def test_weights_come_back_into_a_program_that_was_built_anew():
    one, other = (Own(functions).build(synthetic("binary")) for _ in range(2))
    other.load_state_dict(one.state_dict())
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_hierarchical_program_of_the_catalogue_has_two_latent_layers():
    data = synthetic("levels")
    programs = Own(Hierarchical, {"lower": 3, "upper": 2, "hidden": 8}).build(data)
    structure = ELBO(programs.model, programs.guide).preflight(data.train)
    assert sorted(structure.latent) == ["z1", "z2"]


def test_an_argument_that_is_given_wins_over_what_the_data_say():
    class Kept(Methods):
        def __init__(self, dim, levels=None):
            super().__init__(dim)
            self.levels = levels

    made = Own(Kept, {"levels": 9}).build(synthetic("binary")).model.networks[0]
    assert made.levels == 9


def needs(dim, depth):
    return dim, depth


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (Methods, {"hiden": 5}, r"got 'hiden'. Fix: did you mean 'hidden'\?"),
        (Methods, {"colour": 5}, r"which are \['dim', 'hidden'\], got 'colour'. Fix: leave it out"),
        (
            needs,
            {},
            r"expected depth, which needs needs, got \['dim'\].*Fix: --model.arguments.depth=…",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_nearest_name(program, arguments, message):
    with pytest.raises(ValueError, match=message):
        Own(program, arguments).build(synthetic("binary"))


def test_what_gives_no_pair_is_refused_with_the_fix():
    with pytest.raises(TypeError, match=r"model and guide.*got int. Fix: return model, guide"):
        Own(_seven).build(synthetic("binary"))


def _seven():
    return 7


@pytest.mark.parametrize(
    "program", [torch.from_file, nn.Linear, pyro.clear_param_store, print, VAE]
)
def test_what_is_nobodys_own_is_not_called(program):
    with pytest.raises(ValueError, match=r"of your own, got .*Fix: --model.program=mymodel.MyVAE"):
        Own(program)


def test_a_composition_is_the_vae_that_was_written_out():
    vae = modules(synthetic("binary"), 2, 0)
    assert Composition(vae).build(synthetic("binary")) is vae
