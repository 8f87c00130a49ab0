"""Objectives over K importance weights: exact under the exact posterior, ordered on a loose guide."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro.infer import RenyiELBO
from toys import ExactGuide, LinearGaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.objectives.weighted import Weighted


def losses(
    objective: dgm.training.Objective, x: torch.Tensor, num: int = 400
) -> tuple[float, float]:
    """Mean loss over draws, and its standard error."""
    with torch.no_grad():
        values = torch.stack([objective(x) for _ in range(num)])
    return float(values.mean()), float(values.std() / num**0.5)


@in_float64
@pytest.mark.parametrize(
    "make", [dgm.IWELBO, lambda *a: dgm.Renyi(*a, 0.5), lambda *a: dgm.Renyi(*a, -2.0)]
)
def test_every_bound_is_the_log_evidence_under_the_exact_posterior(make):
    model = LinearGaussian()
    x, guide = model.data(20), ExactGuide(model)
    terms = make(model, guide).terms(x)
    torch.testing.assert_close(terms["loss"], -model.log_evidence(x).mean())
    torch.testing.assert_close(terms["nelbo"], -model.log_evidence(x).mean())


@in_float64
@pytest.mark.slow
def test_the_bounds_are_ordered_by_particles_and_by_alpha():
    """ELBO <= R_0.5 <= IW_8 <= IW_64 <= log p(x), each within 5 standard errors."""
    model = LinearGaussian()
    x, guide = model.data(50), ExactGuide(model, shift=0.4, spread=1.5)
    chain = [
        dgm.IWELBO(model, guide, 1),
        dgm.Renyi(model, guide, 0.5, 8),
        dgm.IWELBO(model, guide, 8),
    ]
    found = [losses(o, x) for o in [*chain, dgm.IWELBO(model, guide, 64)]]
    found.append((-float(model.log_evidence(x).mean()), 0.0))
    for (loose, a), (tight, b) in zip(found[:-1], found[1:], strict=True):
        assert loose - tight > -5 * (a**2 + b**2) ** 0.5
    assert found[0][0] - found[-1][0] > 0.3  # the guide is loose: the order says something


@in_float64
def test_renyi_passes_from_the_importance_weighted_bound_to_the_elbo():
    model = LinearGaussian()
    x, guide = model.data(5), ExactGuide(model, shift=0.3)
    for alpha, name in ((0.0, "loss"), (1 - 1e-7, "nelbo")):
        torch.manual_seed(3)
        expected = dgm.IWELBO(model, guide, 8).terms(x)[name]
        torch.manual_seed(3)
        torch.testing.assert_close(
            dgm.Renyi(model, guide, alpha, 8)(x), expected, rtol=1e-5, atol=1e-5
        )


@in_float64
def test_one_particle_is_the_elbo_in_value_and_gradient():
    model = LinearGaussian()
    x, guide = model.data(6), ExactGuide(model, shift=0.3)
    found = []
    for objective in (
        dgm.ELBO(model, guide),
        dgm.IWELBO(model, guide, 1),
        dgm.Renyi(model, guide, 0.3, 1),
    ):
        torch.manual_seed(1)
        loss = objective(x)
        found.append([loss, *torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])])
    for others in found[1:]:
        for ours, elbo in zip(others, found[0], strict=True):
            torch.testing.assert_close(ours, elbo)


class Rows(dgm.Program):
    r"""$z_{ij} \sim N(0, 1)$ in two plates, $x_{ij} \sim N(z_{ij}, 1)$: exact evidence $N(0, 2)$."""

    def __init__(self, *, observe: bool = True):
        super().__init__()
        self.observe = observe

    def forward(self, x=None):
        with pyro.plate("rows", 3, dim=-2), dgm.data_plate(x):
            law = dist.Normal(0.0, 1.0) if self.observe else dist.Normal(x.T / 2, 0.5**0.5)
            z = pyro.sample("z", law)
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x.T) if self.observe else z


def test_more_plates_are_learned_from_a_preflight():
    """Particles go to the left of both plates; under the exact posterior the loss is the evidence."""
    x = torch.randn(5, 3)
    objective = dgm.IWELBO(Rows(), Rows(observe=False), 4)
    objective.preflight(x)
    exact = -dist.Normal(0.0, 2**0.5).log_prob(x).sum(1).mean()
    torch.testing.assert_close(objective(x).to(exact.dtype), exact)


@in_float64
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0, -1.0])
def test_the_bound_is_that_of_pyro_where_pyro_has_one(alpha):
    model = LinearGaussian()
    x, guide = model.data(7), ExactGuide(model, shift=0.4, spread=1.2)
    theirs = RenyiELBO(alpha=alpha, num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(2)
    expected = theirs.loss(model, guide, x) / len(x)
    torch.manual_seed(2)
    ours = dgm.Renyi(model, guide, alpha, 6)(x)
    torch.testing.assert_close(float(ours.detach()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_trainer_takes_the_bound_and_compiles_it():
    model = LinearGaussian()
    guide, x = ExactGuide(model, shift=0.5, spread=1.3), model.data(200)
    before = -float(model.log_evidence(x).mean())
    trainer = dgm.SVITrainer(dgm.IWELBO(model, guide, 4), lr=1e-2, compile=True)
    trainer.fit(x, epochs=5, progress=False)
    assert -float(model.log_evidence(x).mean()) < before


def test_a_guide_without_reparameterized_draws_is_refused():
    model = LinearGaussian()

    class Discrete(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                pyro.sample("z", dist.Poisson(torch.ones(2)).to_event(1))

    with pytest.raises(
        ValueError, match=r"site 'z': expected reparameterized draws.*Fix: PyroObjective"
    ):
        dgm.IWELBO(model, Discrete())(torch.zeros(3, 4))


def test_senseless_arguments_are_refused():
    model = LinearGaussian()
    guide = ExactGuide(model)
    with pytest.raises(ValueError, match="IWELBO: expected num_particles >= 1, got 0. Fix"):
        dgm.IWELBO(model, guide, 0)
    with pytest.raises(ValueError, match=r"Renyi: expected alpha other than 1.*Fix: ELBO"):
        dgm.Renyi(model, guide, 1)
    with pytest.raises(
        ValueError, match=r"Renyi: expected a finite alpha, got nan. Fix: alpha=0.5"
    ):
        dgm.Renyi(model, guide, float("nan"))


def test_the_abstract_bound_says_what_to_override():
    vae = toy_vae()
    with pytest.raises(
        NotImplementedError, match=r"Weighted has no bound. Fix: def bound\(self, log_w"
    ):
        Weighted(vae.model, vae.guide)(torch.zeros(2, 3))


@pytest.mark.parametrize("has_globals", [False, True])
def test_a_sum_is_refused_where_nobody_has_checked_the_pair(has_globals):
    def latent():
        if has_globals:
            return pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        return torch.zeros(())

    def model(x):
        z = latent()
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)
            pyro.sample("y", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"IWELBO: expected latents that the guide draws.*Fix: "):
        dgm.IWELBO(model, lambda x: latent(), 3)(torch.randn(4))
