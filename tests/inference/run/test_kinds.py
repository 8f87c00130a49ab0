"""Factors, deterministic values and scales of a program mean the same on all roads: a table of programs and entries."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from house.answers import numbers
from house.entries import OF_PRIOR, ON_DATA, TRAINED
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.reparam import LocScaleReparam
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.sites.kinds import (
    Kind,
    is_auxiliary,
    is_deterministic,
    is_enumerated,
    own_scale,
    plate_scale,
)

C = -3.0  # the log of a constant factor
D = 9  # numbers in each datum of the table of entries


class Parts(dgm.Program):
    """A linear-Gaussian program of which some parts are there or not; all of them keep the contract.

    Args:
        dim: of x; z has two dims.
        factor: log factor, of z in the model, of z and its own parameter in the guide.
        named: whether there are deterministic values.
        scale: of `poutine.scale`.
        size: of the data plate.
    """

    def __init__(
        self, dim, *, factor=None, named=False, scale=1.0, size=None, reparameterized=True
    ):
        super().__init__()
        self.factor, self.named, self.scale, self.size = factor, named, scale, size
        self.reparameterized = reparameterized
        self.net = nn.Linear(*self.dims(dim))
        self.weight = nn.Parameter(torch.tensor(0.3))
        with torch.no_grad():
            self.net.weight.copy_(
                0.3 * torch.arange(self.net.weight.numel()).reshape(self.net.weight.shape).sin()
            )
            self.net.bias.zero_()

    def name(self, z):
        if self.named:
            pyro.deterministic(f"{type(self).__name__} twice", 2.0 * z, event_dim=1)
            pyro.deterministic(f"{type(self).__name__} whole", 2.0 * z)
            pyro.deterministic(f"{type(self).__name__} number", torch.tensor(1.0))

    def weigh(self, z):
        if self.factor is not None:
            pyro.factor("f", self.factor(self, z), has_rsample=self.reparameterized)

    def forward(self, x=None):
        if self.named:
            pyro.deterministic(f"{type(self).__name__} global", self.weight.exp())
        with dgm.data_plate(x, size=self.size), poutine.scale(scale=self.scale):
            return self.run(x)


class Model(Parts):
    @staticmethod
    def dims(dim):
        return 2, dim

    def run(self, x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        self.name(z)
        self.weigh(z)
        return pyro.sample("x", dist.Normal(self.net(z), 0.5).to_event(1), obs=x)


class Guide(Parts):
    @staticmethod
    def dims(dim):
        return dim, 2

    def run(self, x):
        z = pyro.sample("z", dist.Normal(self.net(x), 0.4).to_event(1))
        self.name(z)
        self.weigh(z)


def constant(program, z):
    return C * torch.ones(z.shape[:-1])


def learned(program, z):
    return program.weight * z.square().sum(-1)


def data(dim=D, num=6):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(5))


def run_with(entry, model, guide, seed=0):
    batch = () if entry in OF_PRIOR else (data(),)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (OF_PRIOR | ON_DATA)[entry](model, guide, *batch)


def strings(result):
    """A result as text, without the seconds that a fit took and what a factor adds."""
    if isinstance(result, dict):
        return {name: strings(value) for name, value in result.items() if name != "seconds"}
    if isinstance(result, (list, tuple)):
        return [strings(value) for value in result]
    return str(result.tolist() if isinstance(result, torch.Tensor) else result)


# -- the table: programs and entries --------------------------------------------------------------
ENTRIES = [name for name in ON_DATA | OF_PRIOR if name != "interpolate"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_deterministic_values_change_nothing(entry):
    plain = run_with(entry, Model(D), Guide(D))
    named = run_with(entry, Model(D, named=True), Guide(D, named=True))
    if entry not in ("preflight", "to_arviz"):  # these two tell of them
        assert strings(named) == strings(plain)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name not in TRAINED])
@pytest.mark.parametrize("factor", [constant, learned])
def test_a_factor_of_the_guide_is_in_no_estimate(entry, factor):
    plain = run_with(entry, Model(D), Guide(D))
    weighed = run_with(entry, Model(D), Guide(D, factor=factor))
    if entry != "preflight":
        assert strings(weighed) == strings(plain)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name not in TRAINED])
def test_a_scale_of_the_programs_is_in_no_estimate(entry):
    plain = run_with(entry, Model(D), Guide(D))
    scaled = run_with(entry, Model(D, scale=0.1), Guide(D, scale=0.1))
    assert strings(scaled) == strings(plain)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_constant_factor_of_the_model_runs_everywhere(entry):
    found = run_with(entry, Model(D, factor=constant), Guide(D))
    plain = run_with(entry, Model(D), Guide(D))
    assert len(numbers(found)) >= len(numbers(plain))  # terms of the factor may come in addition
    if all(bool(v.isfinite().all()) for v in numbers(plain)):
        assert all(bool(v.isfinite().all()) for v in numbers(found))
    if entry in ("nll", "marginal_nll", "ais"):
        torch.testing.assert_close(found.per_datum, plain.per_datum - C)


DRAWS_OF_THE_MODEL = ("generate", "sbc", "tarp", "bdmc", "aggregate_test", "to_arviz", "fit of GAN")


@pytest.mark.parametrize("entry", ENTRIES)
def test_draws_of_a_model_with_a_factor_are_refused_by_name(entry):
    model, guide = Model(D, factor=learned), Guide(D)
    if entry not in DRAWS_OF_THE_MODEL:
        run_with(entry, model, guide)
        return
    with pytest.raises(ValueError, match=r"site 'f': expected a model that draws.*Fix: hmc"):
        run_with(entry, model, guide)


# -- the right numbers ----------------------------------------------------------------------------
class Line(dgm.Program):
    r"""$z \sim N(0, 1)$, $x \mid z \sim N(z, 0.5^2)$, and a constant factor: $\log p(x) = \log N(x; 0, 1.25) + c$."""

    def __init__(self, log_f=None):
        super().__init__()
        self.log_f = log_f

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
            if self.log_f is not None:
                pyro.factor("f", self.log_f * torch.ones(z.shape[:-1]))
            return pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


class LineGuide(dgm.Program):
    """The exact posterior, and a constant factor."""

    def __init__(self, log_f=None):
        super().__init__()
        self.log_f = log_f

    def forward(self, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.8 * x, 0.2**0.5).to_event(1))
            if self.log_f is not None:
                pyro.factor("f", self.log_f * torch.ones(len(x)), has_rsample=False)


def exact_nll(x):
    return -dist.Normal(0.0, 1.25**0.5).log_prob(x)[:, 0].double()


@pytest.mark.parametrize(("of_model", "of_guide"), [(None, C), (C, None), (C, C / 2)])
def test_an_exact_pair_with_factors_has_the_exact_numbers(of_model, of_guide):
    model, guide, x = Line(of_model), LineGuide(of_guide), data(1, 20)
    exact, c = exact_nll(x), of_model or 0.0
    result = dgm.nll(model, guide, x, num=30)
    torch.testing.assert_close(result.per_datum, exact - c, rtol=1e-5, atol=1e-5)
    assert result.ess.min() > 30 - 1e-2, "the guide is exact, whatever it weighs"
    particles = dgm.draw(model, guide, x, num=3)
    assert set(particles.log_q) == {"z"}
    for log_f in particles.factors.values():
        assert torch.equal(log_f, torch.full((3, 20), C))
    for objective in (dgm.ELBO(model, guide), dgm.IWELBO(model, guide, 5)):
        terms = objective.terms(x)
        nelbo = exact.mean() - c
        torch.testing.assert_close(terms["nelbo"].double(), nelbo, rtol=1e-5, atol=1e-5)
        loss = nelbo + (of_guide or 0.0)
        torch.testing.assert_close(terms["loss"].double(), loss, rtol=1e-5, atol=1e-5)
        expected = {"loss", "nelbo"}
        if of_model is not None:
            expected.add("factor[f]")
            assert terms["factor[f]"].item() == pytest.approx(-C)
        if of_guide is not None:
            expected.add("guide_factor[f]")
            assert terms["guide_factor[f]"].item() == pytest.approx(of_guide)
        assert {name for name in terms if not name.startswith(("rec", "kl"))} == expected
        assert not any(name in terms for name in ("rec[f]", "kl[f]"))


def test_a_factor_of_the_model_shifts_annealing_and_the_joint_of_chains():
    x = data(1, 3)
    settings = {"num": 3, "steps": 4, "leapfrog": 2}
    plain, weighed = dgm.ais(Line(), x, **settings), dgm.ais(Line(C), x, **settings)
    torch.testing.assert_close(weighed.per_datum, plain.per_datum - C)
    settings = {"num": 4, "chains": 2, "warmup": 4, "leapfrog": 2}
    plain, weighed = dgm.hmc(Line(), x, **settings), dgm.hmc(Line(C), x, **settings)
    torch.testing.assert_close(weighed.log_joint, plain.log_joint + C)


# -- the loss is that of Pyro ---------------------------------------------------------------------
PROGRAMS = {
    "factor of the guide": (Model, Guide, {}, {"factor": learned}),
    "factor of the guide, not reparameterized": (
        Model, Guide, {}, {"factor": learned, "reparameterized": False},
    ),
    "factor of the model": (Model, Guide, {"factor": learned}, {}),
    "factors of both": (Model, Guide, {"factor": learned}, {"factor": learned}),
    "deterministic": (Model, Guide, {"named": True}, {"named": True}),
    "scale": (Model, Guide, {"scale": 0.3}, {"scale": 0.6}),
    "scale as a tensor": (Model, Guide, {"scale": torch.tensor(0.3)}, {"scale": torch.tensor(0.6)}),
    "a scale for each datum": (
        Model, Guide, {"scale": torch.linspace(0.1, 2.0, 6)}, {"scale": torch.linspace(0.1, 2.0, 6)},
    ),
    "all, one of many batches": (
        Model, Guide,
        {"factor": learned, "named": True, "scale": 0.3, "size": 60},
        {"factor": learned, "scale": 0.6, "size": 60, "reparameterized": False},
    ),
}  # fmt: skip


def pair_of(case):
    model, guide, of_model, of_guide = PROGRAMS[case]
    return model(3, **of_model), guide(3, **of_guide)


def by_pyro(model, guide, x, num, size):
    pyro.clear_param_store()
    for program in (model, guide):
        program.zero_grad(set_to_none=True)
    elbo = Trace_ELBO(num_particles=num, vectorize_particles=num > 1, max_plate_nesting=1)
    with fork_rng(seed=1):
        loss = elbo.loss(model, guide, x)
    with fork_rng(seed=1):
        elbo.differentiable_loss(model, guide, x).backward()
    return loss / size, gradients(model, guide, 1 / size)


def gradients(model, guide, factor=1.0):
    found = {}
    for role, program in (("model", model), ("guide", guide)):
        for name, p in program.named_parameters():
            found[f"{role}.{name}"] = None if p.grad is None else factor * p.grad.clone()
    return {name: g for name, g in found.items() if g is not None and g.any()}


def check_against_pyro(objective, x, num):
    size = objective.size or len(x)
    loss, expected = by_pyro(objective.model, objective.guide, x, num, size)
    objective.zero_grad(set_to_none=True)
    with fork_rng(seed=1):
        found = objective(x)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(
        gradients(objective.model, objective.guide), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide but not model")
@pytest.mark.parametrize("num", [1, 4])
@pytest.mark.parametrize("case", PROGRAMS)
def test_the_elbo_has_value_and_gradient_of_trace_elbo(case, num):
    model, guide = pair_of(case)
    objective = dgm.ELBO(model, guide, num, size=model.size)
    objective.preflight(data(3))
    check_against_pyro(objective, data(3), num)


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide but not model")
@pytest.mark.parametrize("case", PROGRAMS)
def test_the_weighted_bound_of_one_draw_has_value_and_gradient_of_trace_elbo(case):
    model, guide = pair_of(case)
    objective = dgm.IWELBO(model, guide, 1, size=model.size)
    objective.preflight(data(3))
    check_against_pyro(objective, data(3), 1)


@pytest.mark.parametrize("case", PROGRAMS)
@pytest.mark.parametrize(
    "estimator", [dgm.training.StickingTheLanding(), dgm.training.DoublyReparameterized()], ids=repr
)
def test_all_estimators_of_the_gradient_have_the_same_value(case, estimator):
    model, guide = pair_of(case)
    found = []
    for option in (None, estimator):
        objective = dgm.IWELBO(model, guide, 5, size=model.size, estimator=option)
        objective.preflight(data(3))
        with fork_rng(seed=1):
            found.append(objective.terms(data(3)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("case", PROGRAMS)
def test_the_bound_is_free_of_scales_and_of_factors_of_the_guide(case):
    model, guide = pair_of(case)
    model_factor = {"factor": model.factor} if model.factor else {}
    plain = Model(3, size=model.size, **model_factor), Guide(3, size=model.size)
    for objective in (dgm.ELBO, dgm.IWELBO):
        found = []
        for pair in ((model, guide), plain):
            with fork_rng(seed=1):
                found.append(objective(*pair, 4, size=model.size).terms(data(3))["nelbo"])
        torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_free_bits_and_beta_leave_factors_alone(analytic_kl):
    model, guide = Model(3, factor=learned), Guide(3, factor=learned)
    objective = dgm.ELBO(
        model, guide, beta={"z": 0.5}, free_bits={"z": 50.0}, analytic_kl=analytic_kl
    )
    objective.preflight(data(3))
    terms = objective.terms(data(3))
    expected = terms["rec[x]"] + terms["factor[f]"] + terms["guide_factor[f]"] + 0.5 * 50.0
    torch.testing.assert_close(terms["loss"], expected)


def test_a_loss_of_pyro_takes_factors_and_deterministic_values():
    model = Model(3, factor=learned, named=True)
    guide = Guide(3, factor=learned)
    x = data(3)
    objective = dgm.PyroObjective(model, guide, Trace_ELBO(max_plate_nesting=1))
    objective.preflight(x)
    found = []
    for loss in (objective, dgm.ELBO(model, guide)):
        with fork_rng(seed=1):
            found.append(loss(x))
    torch.testing.assert_close(found[0], found[1])


def test_sleep_adds_the_factor_of_the_guide_to_its_loss():
    x, terms = data(3), []
    for factor in (None, constant):
        objective = dgm.Sleep(Model(3), Guide(3, factor=factor))
        objective.preflight(x)
        with fork_rng(seed=1):
            terms.append(objective.terms(x))
    assert terms[1]["loss"].item() == pytest.approx(terms[0]["loss"].item() + C)
    assert terms[1]["guide_factor[f]"].item() == pytest.approx(C)


def test_sleep_refuses_a_model_whose_factor_weighs_its_draws():
    with pytest.raises(ValueError, match=r"site 'f': expected a model that draws from its own"):
        dgm.Sleep(Model(3, factor=learned), Guide(3)).preflight(data(3))


# -- what is told of them -------------------------------------------------------------------------
def test_the_structure_names_every_kind():
    structure = dgm.preflight(
        Model(3, factor=learned, named=True), Guide(3, factor=learned, named=True), data(3)
    )
    kinds = {}
    for site in structure.sites:
        kinds.setdefault(site.kind, []).append(site.name)
    assert kinds[Kind.LATENT] == ["z"]
    assert kinds[Kind.OBSERVED] == ["x"]
    assert kinds[Kind.FACTOR] == kinds[Kind.GUIDE_FACTOR] == ["f"]
    values = ["twice", "whole", "number", "global"]
    assert sorted(kinds[Kind.DETERMINISTIC]) == sorted(
        [f"{role} {name}" for role in ("Guide", "Model") for name in values]
    )
    assert "factor of the guide ['f']" in str(structure)


def test_an_export_names_deterministic_values_and_factors():
    model, guide = Model(3, factor=constant, named=True), Guide(3, named=True)
    tree = dgm.to_arviz(model, guide, data(3), num=30, chunk=60)
    posterior = tree["posterior"]
    for role in ("Model", "Guide"):
        for name in ("twice", "whole"):
            assert (posterior[f"{role} {name}"].values == 2 * posterior["z"].values).all()
        assert posterior[f"{role} number"].shape == (3, 10, 6)
        value = posterior[f"{role} global"]
        assert (value.dims, value.shape) == (("chain", "draw"), (3, 10))
        assert value.values == pytest.approx(math.exp(0.3))
    assert (tree["sample_stats"]["factor[f]"].values == C).all()
    of_data = ("observed_data", "conditional_log_likelihood")
    for group in (*of_data, "posterior_predictive", "prior_predictive"):
        assert "f" not in tree[group]
        assert not [name for name in tree[group] if name.startswith(("Model", "Guide"))]


# -- what is refused ------------------------------------------------------------------------------
def test_a_factor_outside_the_plate_is_refused_by_estimates_of_each_datum():
    class Regularized(Model):
        def forward(self, x=None):
            pyro.factor("penalty", -self.weight.square())
            return super().forward(x)

    with pytest.raises(
        ValueError, match=r"site 'penalty': expected a pyro.factor inside the plate"
    ):
        dgm.nll(Regularized(3), Guide(3), data(3), num=3)
    objective = dgm.ELBO(Regularized(3, size=60), Guide(3, size=60), size=60)
    objective.preflight(data(3))
    check_against_pyro(objective, data(3), 1)


def test_an_auto_guide_has_the_density_that_its_auxiliary_site_scores():
    model, x = Line(), data(1)
    guide = pyro.infer.autoguide.AutoNormal(model, init_scale=0.3)
    particles = dgm.draw(model, guide, x, num=50)
    assert set(particles.log_q) == {"z_unconstrained", "z"}
    z = particles.values["z"]
    with torch.no_grad():
        loc = pyro.param("AutoNormal.locs.z")
    log_q = dist.Normal(loc, 0.3).log_prob(z)[..., 0]
    log_p = dist.Normal(0.0, 1.0).log_prob(z)[..., 0] + dist.Normal(z, 0.5).log_prob(x)[..., 0]
    torch.testing.assert_close(particles.log_weight, log_p - log_q)
    result = dgm.nll(model, guide, x, num=3000)
    difference = result.per_datum - exact_nll(x)
    is_told = result.khat < 0.5
    assert is_told.any()
    assert (difference.abs() < 5 * result.monte_carlo + 1e-3)[is_told].all()
    pyro.clear_param_store()  # AutoNormal leaves its parameters there


# -- how they are told ----------------------------------------------------------------------------
def test_the_scale_of_a_plate_and_that_of_the_program_are_told_apart():
    def program():
        with pyro.plate("data", 60, subsample=torch.arange(6), dim=-1), poutine.scale(scale=0.3):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("others", 7, dim=-1):
            pyro.sample("y", dist.Normal(0.0, 1.0))

    trace = poutine.trace(program).get_trace()
    z, y = trace.nodes["z"], trace.nodes["y"]
    assert (plate_scale(z), own_scale(z)) == (10.0, pytest.approx(0.3))
    assert (plate_scale(y), own_scale(y)) == (1.0, 1.0)


def test_marks_of_pyro_are_told_apart():
    def program():
        pyro.factor("f", torch.tensor(1.0))
        pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    trace = poutine.trace(program).get_trace()
    assert [is_auxiliary(trace.nodes[name]) for name in "fac"] == [False, True, False]
    assert [is_enumerated(trace.nodes[name]) for name in "fac"] == [False, False, True]


def test_a_value_that_a_reparameterization_computes_is_a_named_value_and_a_point_is_none():
    def program():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(2.0, 3.0))
            pyro.sample("c", dist.Delta(torch.zeros(3)), obs=torch.zeros(3))
            pyro.sample("m", dist.Normal(0.0, 1.0).mask(False), obs=torch.zeros(3))

    nodes = poutine.trace(poutine.reparam(program, {"z": LocScaleReparam(0.0)})).get_trace().nodes
    assert [is_deterministic(nodes[name]) for name in "zcm"] == [True, False, False]
    torch.testing.assert_close(nodes["z"]["value"], 2.0 + 3.0 * nodes["z_decentered"]["value"])
