"""Discrete latents through Pyro's estimators: exact evidence, training, and what weights make of such pairs."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn
from toys import Series, SeriesGuide, same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

SUMMED = {"enumerate": "parallel"}


class Clusters(dgm.Program):
    r"""$c \sim \pi$, $z \mid c \sim N(\mu_c, I)$, $x \mid z \sim N(z, s^2 I)$: three clusters in the plane."""

    scale = 0.5

    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4, 0.1]))
        self.loc = nn.Parameter(torch.tensor([[-2.0, 0.0], [1.5, 1.0], [0.5, -1.5]]))

    def forward(self, x=None):
        with dgm.data_plate(x, size=self.size):
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=SUMMED)
            z = pyro.sample("z", dist.Normal(self.loc[c], 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, self.scale).to_event(1), obs=x)

    def log_joint(self, x):
        r"""$\log \pi_c + \log N(x; \mu_c, (1 + s^2) I)$, `(N, 3)`."""
        law = dist.Normal(self.loc, (1 + self.scale**2) ** 0.5).to_event(1)
        return self.logits.log_softmax(0) + law.log_prob(x[:, None])

    def log_evidence(self, x):
        return self.log_joint(x).logsumexp(1)


class Posterior(dgm.Program):
    r"""$q(c \mid x)\, q(z \mid x, c)$, the exact posterior of `Clusters`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x=None):
        variance = self.model.scale**2
        with dgm.data_plate(x, size=self.model.size):
            c = pyro.sample("c", dist.Categorical(logits=self.model.log_joint(x)), infer=SUMMED)
            loc = (variance * self.model.loc[c] + x) / (1 + variance)
            pyro.sample("z", dist.Normal(loc, (variance / (1 + variance)) ** 0.5).to_event(1))


class Mixture(Clusters):
    r"""The same evidence with z integrated out: the discrete site is all there is."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=SUMMED)
            scale = (1 + self.scale**2) ** 0.5
            return pyro.sample("x", dist.Normal(self.loc[c], scale).to_event(1), obs=x)


class Encoder(dgm.Program):
    """q(z | x) alone."""

    def __init__(self):
        super().__init__()
        self.loc, self.scale = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(self.loc(x), self.scale.exp()).to_event(1))


def data(num=6):
    return dgm.generate(Clusters(), num, seed=3)


def enumerated(model, guide, **options):
    return dgm.PyroObjective(model, guide, TraceEnum_ELBO(max_plate_nesting=1, **options))


# The loss ------------------------------------------------------------------------------------------------------------


@both_dtypes
def test_the_loss_of_a_mixture_is_its_negative_log_evidence_in_value_and_gradient(dtype):
    model, x = Mixture(), data()
    loss, exact = enumerated(model, dgm.EmptyGuide())(x), -model.log_evidence(x).mean()
    torch.testing.assert_close(loss, exact)
    parameters = [model.logits, model.loc]
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(exact, parameters)
    )


@pytest.mark.parametrize("options", [{}, {"num_particles": 3, "vectorize_particles": True}])
def test_the_loss_under_the_exact_posterior_is_the_negative_log_evidence_at_every_draw(options):
    model, x = Clusters(), data()
    torch.testing.assert_close(
        enumerated(model, Posterior(model), **options)(x), -model.log_evidence(x).mean()
    )


@pytest.mark.slow
def test_a_guide_of_the_continuous_site_alone_gives_an_upper_bound():
    """By 5 standard errors of 200 draws."""
    model, x = Clusters(), data()
    with torch.no_grad():
        losses = torch.stack([enumerated(model, Encoder())(x) for _ in range(200)])
    assert losses.mean() - 5 * losses.std() / 200**0.5 > -model.log_evidence(x).mean()


def test_the_loss_of_a_minibatch_is_divided_by_the_size():
    model, x = Clusters(size=60), data()
    objective = dgm.PyroObjective(
        model, Posterior(model), TraceEnum_ELBO(max_plate_nesting=1), size=60
    )
    objective.preflight(x)
    torch.testing.assert_close(objective(x), -model.log_evidence(x).mean())


def test_any_estimator_of_pyro_will_do():
    vae, x = same_toy_vae(), torch.randn(5, 3)
    for elbo, ours in (
        (Trace_ELBO(max_plate_nesting=1), dgm.ELBO(vae.model, vae.guide)),
        (
            TraceMeanField_ELBO(max_plate_nesting=1),
            dgm.ELBO(vae.model, vae.guide, analytic_kl=True),
        ),
    ):
        objective, found = dgm.PyroObjective(vae.model, vae.guide, elbo), []
        assert objective.preflight(x).latent == ("z",)
        for one in (objective, ours):
            with fork_rng(seed=2):
                found.append(one(x))
        torch.testing.assert_close(*found)


# Training ------------------------------------------------------------------------------------------------------------


def test_a_trainer_finds_the_clusters():
    """The mean loss of the data falls from that of moved clusters to below that of the true ones."""
    x, model = data(400), Mixture()
    best = -model.log_evidence(x).mean().item()
    with torch.no_grad():
        model.loc += torch.tensor([[0.5, 0.8], [-0.6, 0.7], [0.4, 0.9]])
    before = -model.log_evidence(x).mean().item()
    trainer = dgm.SVITrainer(enumerated(model, dgm.EmptyGuide()), lr=0.05)
    history = trainer.fit(x, x, epochs=30, batch_size=100, progress=False)
    assert before > best + 0.1
    assert history[-1]["val_loss"] < best
    assert trainer.best["value"] == pytest.approx(-model.log_evidence(x).mean().item())


def test_guide_and_model_train_together_with_the_discrete_site_in_the_model_alone():
    x, model = data(200), Clusters()
    trainer = dgm.SVITrainer(enumerated(model, Encoder()), lr=0.02)
    history = trainer.fit(x, epochs=15, batch_size=50, progress=False)
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.3


def test_compiling_it_is_an_error_with_the_fix():
    trainer = dgm.SVITrainer(enumerated(Mixture(), dgm.EmptyGuide()), compile=True)
    with pytest.raises(ValueError, match=r"compile: .*which are summed over.*Fix: compile=False"):
        trainer.fit(data(), progress=False)


# Preflight -----------------------------------------------------------------------------------------------------------


def test_preflight_sees_the_other_sites_and_leaves_weights_and_seeds_alone():
    objective, x = enumerated(Clusters(), Encoder()), data()
    before = torch.get_rng_state()
    report = objective.preflight(x)
    assert (report.latent, report.observed, report.depth) == (("z",), ("x",), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert objective.training
    assert objective.model.training


def test_preflight_refuses_data_as_ever():
    with pytest.raises(ValueError, match="expected finite values, got 1 NaN"):
        enumerated(Clusters(), Encoder()).preflight(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match="expected data of event shape"):
        enumerated(Mixture(), dgm.EmptyGuide()).preflight(torch.zeros(4, 3))


class NoBroadcast(Clusters):
    """Squeezes the dim of the summed values away."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=SUMMED)
            assert c.shape == (len(x),), "this program takes one c per datum"
            return pyro.sample("x", dist.Normal(self.loc[c], 1.0).to_event(1), obs=x)


def test_preflight_runs_the_sum():
    with pytest.raises(
        ValueError, match=r"run by themselves, but not under TraceEnum_ELBO: .*one c per datum"
    ):
        enumerated(NoBroadcast(), dgm.EmptyGuide()).preflight(data())


def test_an_estimator_that_does_not_sum_is_refused_for_a_site_of_the_model_alone():
    objective = dgm.PyroObjective(Clusters(), Encoder(), Trace_ELBO(max_plate_nesting=1))
    with pytest.raises(
        ValueError, match=r"expected the same latent sites, got \['c', 'z'\].*TraceEnum_ELBO"
    ):
        objective.preflight(data())


def test_more_plates_than_the_estimator_knows_are_refused():
    x = torch.randn(5, 3)
    for options in ({}, {"num_particles": 2, "vectorize_particles": True}):
        one, two = (
            dgm.PyroObjective(Series(), SeriesGuide(), Trace_ELBO(max_plate_nesting=n, **options))
            for n in (1, 2)
        )
        with pytest.raises(
            ValueError, match=r"expected max_plate_nesting=2 .*got 1. Fix: Trace_ELBO\(max_plate_n"
        ):
            one.preflight(x)
        assert two.preflight(x).depth == 2


def test_what_is_no_estimator_is_refused():
    model = Mixture()
    for wrong in (TraceEnum_ELBO, "enumerate", RenyiELBO(max_plate_nesting=1)):
        with pytest.raises(
            TypeError, match=r"expected one of Pyro's estimators.*Fix: TraceEnum_ELBO\(max_plate"
        ):
            dgm.PyroObjective(model, dgm.EmptyGuide(), wrong)


@pytest.mark.parametrize("options", [{}, {"num_particles": 2, "vectorize_particles": True}])
def test_preflight_finds_how_many_plates_an_estimator_has_to_know(options):
    x, elbo = torch.randn(5, 3), Trace_ELBO(**options)
    objective = dgm.PyroObjective(Series(), SeriesGuide(), elbo)
    assert objective.preflight(x).depth == 2
    assert objective.elbo.max_plate_nesting == 2 + len(options) // 2
    assert elbo.max_plate_nesting == float("inf")  # that of the caller's may guess for another pair
    with torch.no_grad():
        assert objective(x).isfinite()


def test_an_estimator_without_plates_sums():
    model, x = Clusters(), data()
    objective = dgm.PyroObjective(model, Posterior(model), TraceEnum_ELBO())
    torch.testing.assert_close(objective(x), -model.log_evidence(x).mean())
    assert objective.preflight(x).summed == ("c",)
    torch.testing.assert_close(objective(x), -model.log_evidence(x).mean())


# Likelihood ----------------------------------------------------------------------------------------------------------


@both_dtypes
def test_the_nll_of_a_pair_that_draws_its_discrete_site_is_right(dtype):
    model, x = Clusters(), data(20)
    result = dgm.nll(model, Posterior(model), x, num=10)
    torch.testing.assert_close(
        result.per_datum, -model.log_evidence(x).detach().double(), rtol=1e-5, atol=1e-5
    )


def test_the_nll_of_a_loose_guide_is_right_within_its_error():
    """A guide over both sites that is not exact; 5 standard errors of the mean over the data."""

    class Loose(Posterior):
        def forward(self, x=None):
            with dgm.data_plate(x):
                pyro.sample(
                    "c", dist.Categorical(logits=0.5 * self.model.log_joint(x)), infer=SUMMED
                )
                pyro.sample("z", dist.Normal(x, 0.8).to_event(1))

    model, x = Clusters(), data(20)
    result = dgm.nll(model, Loose(model), x, num=4000)
    exact = -model.log_evidence(x).detach().double()
    standard_error = result.monte_carlo.square().sum().sqrt() / len(x)
    assert (result.per_datum - exact).mean().abs() < 5 * standard_error
    assert standard_error < 0.02


def test_the_nll_of_a_pair_that_sums_its_discrete_site_is_exact_in_it():
    """The site is the model's alone; 5 standard errors of the mean over the data."""
    model, guide, x = Clusters(), Encoder(), data(20)
    with torch.no_grad():
        guide.loc.weight.copy_(torch.eye(2))
        guide.loc.bias.zero_()
        guide.scale.fill_(-0.2)
    result = dgm.nll(model, guide, x, num=4000)
    exact = -model.log_evidence(x).detach().double()
    standard_error = result.monte_carlo.square().sum().sqrt() / len(x)
    assert (result.per_datum - exact).mean().abs() < 5 * standard_error
    assert standard_error < 0.02
    of_mixture = dgm.nll(Mixture(), dgm.EmptyGuide(), x, num=10)
    torch.testing.assert_close(of_mixture.per_datum, exact, rtol=1e-5, atol=1e-5)
    assert of_mixture.kind.value == "exact"


def test_a_minibatch_of_a_plate_that_knows_the_full_set_has_the_loss_of_a_datum():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", size=400, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.1))

    x, found = torch.randn(40), []
    for objective in (dgm.ELBO(model, guide), dgm.PyroObjective(model, guide, Trace_ELBO())):
        objective.preflight(x)
        torch.manual_seed(1)
        found.append(objective(x).item())
    pyro.clear_param_store()
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_the_sum_of_a_pair_without_parameters_is_a_loss_without_a_gradient():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=SUMMED)
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    x = torch.randn(6)
    found = dgm.ELBO(model, dgm.EmptyGuide())(x)
    masses = torch.tensor([0.7, 0.3]).log()
    exact = (masses + dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(x[:, None])).logsumexp(1)
    torch.testing.assert_close(found, -exact.mean(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected an objective with parameters.*Fix: "):
        dgm.SVITrainer(dgm.ELBO(model, dgm.EmptyGuide())).fit(x, epochs=1)
