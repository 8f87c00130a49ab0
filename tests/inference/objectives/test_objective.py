"""What every objective refuses when it is built, and how it prints itself."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from toys import toy_vae
from written_for_rows import twins

import pyro_dgm as dgm

OBJECTIVES = {
    "ELBO": dgm.ELBO,
    "IWELBO": dgm.IWELBO,
    "Renyi": lambda model, guide=None: dgm.Renyi(model, guide, 0.5),
    "Sleep": dgm.Sleep,
    "PyroObjective": lambda model, guide=None: dgm.PyroObjective(
        model, guide, Trace_ELBO(max_plate_nesting=1)
    ),
}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def encoder():
    return dgm.Conditional(dist.Normal, dgm.mlp(3, 4))


NO_PROGRAMS = {
    "class": (lambda: dgm.AmortizedGuide, "the class AmortizedGuide", "an instance, Amort"),
    "objective_class": (lambda: dgm.ELBO, "the class ELBO", "LatentVariableModel|AmortizedGuide"),
    "family": (lambda: dist.Normal, "the class Normal", "LatentVariableModel|AmortizedGuide"),
    "objective": (
        lambda: dgm.ELBO(toy_vae().model, toy_vae().guide),
        "ELBO, which holds two programs",
        r"\w+\(objective.model, objective.guide\)",
    ),
    "distribution": (
        lambda: dist.Normal(torch.zeros(2), 1.0),
        "Normal, which names no site",
        "LatentVariableModel|AmortizedGuide",
    ),
    "prior": (
        lambda: dgm.StandardNormal(2),
        "StandardNormal, a conditional: its forward returns a distribution",
        "LatentVariableModel|AmortizedGuide",
    ),
    "flow": (
        lambda: dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, 1)),
        "Flow, a conditional",
        "LatentVariableModel|AmortizedGuide",
    ),
    "encoder": (encoder, "Conditional, a conditional", "LatentVariableModel|AmortizedGuide"),
}


@every_objective
@pytest.mark.parametrize("role", ["model", "guide"])
@pytest.mark.parametrize("mistake", NO_PROGRAMS)
def test_what_is_no_program_is_refused_when_the_objective_is_built(name, role, mistake):
    vae = toy_vae()
    build, got, fix = NO_PROGRAMS[mistake]
    programs = {"model": vae.model, "guide": vae.guide} | {role: build()}
    message = rf"{name}: expected the {role} as a Pyro program, a module or a function, got {got}.*Fix: ({fix})"
    with pytest.raises(TypeError, match=message):
        OBJECTIVES[name](**programs)


@every_objective
def test_a_model_without_its_guide_and_a_vae_are_refused_with_the_fix(name):
    vae = toy_vae()
    with pytest.raises(
        TypeError,
        match=rf"{name}: expected a model and its guide, got VAE alone. "
        rf"Fix: .*{name}\(vae.model, vae.guide\)",
    ):
        OBJECTIVES[name](vae)
    with pytest.raises(TypeError, match=rf"got LatentVariableModel alone. Fix: {name}\(model, gu"):
        OBJECTIVES[name](vae.model)
    for programs in ({"model": vae, "guide": vae.guide}, {"model": vae.model, "guide": vae}):
        with pytest.raises(TypeError, match=r"expected a Pyro program.*got VAE. Fix: vae.model or"):
            OBJECTIVES[name](**programs)


@pytest.mark.parametrize("name", ["ELBO", "IWELBO", "Renyi"])
@pytest.mark.parametrize("check", ["loss", "preflight"])
def test_a_swapped_pair_is_refused_by_the_first_loss_and_by_preflight(name, check):
    vae = toy_vae()
    objective = OBJECTIVES[name](vae.guide, vae.model)
    entry = objective if check == "loss" else objective.preflight
    with pytest.raises(
        ValueError,
        match=r"(?s)expected an observed site, got none.*swapped\?.*Fix: the model first",
    ):
        entry(torch.randn(5, 3))


def test_a_network_that_annotates_a_tensor_is_no_conditional():
    """A program says nothing of a distribution in its signature, whatever else it returns."""

    class Model(nn.Module):
        def forward(self, x: torch.Tensor | None = None) -> "torch.Tensor":
            return x

    assert dgm.ELBO(Model(), dgm.EmptyGuide()).size is None


def test_the_repr_of_an_objective_is_its_configuration():
    vae = toy_vae()
    pair = vae.model, vae.guide
    lines = {
        "ELBO": repr(dgm.ELBO(*pair, 3, beta={"z": dgm.LinearWarmup(10)}, free_bits={"z": 0.5})),
        "IWELBO": repr(dgm.IWELBO(*pair, 8, estimator=dgm.DoublyReparameterized())),
        "Renyi": repr(dgm.Renyi(*pair, 0.5, size=60)),
        "PyroObjective": repr(dgm.PyroObjective(*pair, Trace_ELBO(max_plate_nesting=1))),
    }
    for name, settings in {
        "ELBO": "num_particles=3, size=None, analytic_kl=False",
        "IWELBO": "num_particles=8, size=None, estimator=DoublyReparameterized()",
        "Renyi": "alpha=0.5, num_particles=16, size=60",
        "PyroObjective": "Trace_ELBO(max_plate_nesting=1, num_particles=1), size=None",
    }.items():
        assert lines[name].splitlines()[0] == f"{name}({settings},"
    assert "(z): LinearWarmup(10)" in lines["ELBO"]
    assert "(z): FreeBits(0.5)" in lines["ELBO"]
    assert repr(dgm.training.FreeBits(torch.ones(2))) == "FreeBits(shape=(2,))"


def test_a_loss_of_no_rows_is_refused_with_the_call_that_works():
    def model(*batch):
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    bound = dgm.ELBO(model, lambda *batch: None)
    for batch, kinds in (((), r"\[\]"), (({"x": 1.0},), r"\['dict'\]")):
        with pytest.raises(
            ValueError, match=rf"ELBO: expected .* for each datum, got {kinds}\. Fix"
        ):
            bound(*batch)


def test_how_particles_are_run_is_found_anew_after_a_run_that_failed():
    """Kept from a batch that failed, the fastest mode would be a softmax over the data from then on."""
    (model, guide), _ = twins("softmax")
    x = torch.rand(6, 3)
    losses = []
    for first in (None, x[:, :-1]):
        objective = dgm.ELBO(model, guide, num_particles=2)
        if first is not None:
            with pytest.raises((RuntimeError, ValueError)):
                objective(first)
        pyro.set_rng_seed(5)
        losses.append(objective(x))
    torch.testing.assert_close(*losses)


def test_a_loss_that_nobody_has_checked_is_that_of_a_datum_of_the_full_set():
    """A plate of another name that takes 4 of 40."""

    def run(x, obs=None):
        with pyro.plate("points", 40, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            if obs is not None:
                pyro.sample("x", dist.Normal(z, 1.0), obs=obs)

    x = torch.randn(4)
    for objective in (
        dgm.ELBO(lambda x: run(x, x), run),
        dgm.PyroObjective(lambda x: run(x, x), run, Trace_ELBO(max_plate_nesting=1)),
    ):
        torch.manual_seed(0)
        found = objective(x)
        objective.preflight(x)
        torch.manual_seed(0)
        torch.testing.assert_close(found, objective(x))


@pytest.mark.parametrize("objective", [dgm.ELBO, dgm.IWELBO])
def test_particles_of_a_loss_that_nobody_has_checked_stand_outside_all_plates(objective):
    def model(y):
        with pyro.plate("items", 4, dim=-1):
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("students", len(y), dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("answers", 4, dim=-1):
                pyro.sample("y", dist.Bernoulli(logits=a - b), obs=y)

    def guide(y):
        with pyro.plate("items", 4, dim=-1):
            pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("students", len(y), dim=-2):
            pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))

    y = torch.ones(6, 4)
    unchecked = objective(model, guide, num_particles=3)
    torch.manual_seed(0)
    found = unchecked(y)
    unchecked.preflight(y)
    torch.manual_seed(0)
    torch.testing.assert_close(found, unchecked(y))
