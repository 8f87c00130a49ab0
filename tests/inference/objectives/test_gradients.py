"""Gradient estimators: one value, equal expectations where theory says so, and no noise at the exact posterior."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import in_float64
from torch import nn
from toys import (
    BatchNorm,
    ExactGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    Written,
    captured,
    loss_and_grad,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.compiled.compilation import Compiled, Eager

PATHWISE = [dgm.StickingTheLanding(), dgm.DoublyReparameterized()]
ESTIMATORS = [dgm.training.Reparameterized(), *PATHWISE]


def named(estimator):
    return type(estimator).__name__


def gradients_of(guide, objective, x, num):
    """Gradients of the guide `(num, P)`, one draw of the objective's noise each."""
    rows = []
    for _ in range(num):
        found = torch.autograd.grad(objective(x), [*guide.parameters()])
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def loose(estimator, num_particles=8, num=400):
    """Draws of the gradient of a loose guide, averaged over 50 copies of each datum."""
    with fork_rng(seed=2):
        model = LinearGaussian()
        guide, x = ExactGuide(model, shift=0.4, spread=1.5), model.data(3).repeat(50, 1)
        return gradients_of(
            guide, dgm.IWELBO(model, guide, num_particles, estimator=estimator), x, num
        )


def in_standard_errors(one, other):
    """Difference of two means, component by component, in its standard errors."""
    return (one.mean(0) - other.mean(0)) / (
        one.var(0) / len(one) + other.var(0) / len(other)
    ).sqrt()


# One value -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
@pytest.mark.parametrize(
    **over({name: pair for name, pair in PAIRS.items() if name != "vae_one_way"})
)
def test_the_value_is_that_of_the_plain_bound_under_one_seed(build, estimator):
    case = build()
    batch = case.batch(4)
    plain, other = (dgm.IWELBO(case.model, case.guide, 3, estimator=e) for e in (None, estimator))
    (expected, slopes), (loss, found) = (loss_and_grad(o, *batch) for o in (plain, other))
    torch.testing.assert_close(loss, expected)
    own = {
        f"model.{n}"
        for n, p in case.model.named_parameters()
        if id(p) not in set(map(id, case.guide.parameters()))
    }
    for name in own:  # and so is the model's gradient
        torch.testing.assert_close(found[name], slopes[name], msg=name)


@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
def test_the_gradient_of_the_model_is_exactly_that_of_the_plain_bound(estimator):
    model = LinearGaussian()
    guide, x = ExactGuide(model, shift=0.4, spread=1.5), model.data(5)
    (_, plain), (_, found) = (
        loss_and_grad(dgm.IWELBO(model, guide, 8, estimator=e), x) for e in (None, estimator)
    )
    assert torch.equal(found["model.weight"], plain["model.weight"])
    assert torch.equal(found["model.bias"], plain["model.bias"])
    assert not torch.allclose(found["guide.map"], plain["guide.map"])


# The gradient --------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
@pytest.mark.parametrize("num_particles", [1, 8])
def test_the_gradient_of_the_exact_posterior_is_zero_at_every_draw(num_particles, estimator):
    model = LinearGaussian()
    guide, x = ExactGuide(model), model.data(5)
    plain = gradients_of(guide, dgm.IWELBO(model, guide, num_particles), x, 10)
    found = gradients_of(guide, dgm.IWELBO(model, guide, num_particles, estimator=estimator), x, 10)
    assert found.abs().max() < 1e-13
    assert plain.abs().amax(1).min() > 0.05


@in_float64
def test_the_gradient_of_one_draw_is_the_formula():
    r"""$\sum_k \tilde w_k^p \partial_z \log w_k\, \partial_\phi z_k$, p = 1 and 2, for a shift of the mean: ∂z = 1."""
    model = LinearGaussian()
    guide, x = ExactGuide(model, shift=0.4, spread=1.5), model.data(1)
    with fork_rng(seed=0):
        z = dgm.draw(model, guide, x, num=5).values["z"].detach().requires_grad_()
    law = dist.MultivariateNormal(
        ((x - guide.bias) @ guide.map.T + guide.shift).detach(), scale_tril=guide.root
    )
    likelihood = dist.Normal(z @ model.weight.T + model.bias, model.scale)
    log_w = (
        dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + likelihood.log_prob(x).sum(-1) - law.log_prob(z)
    )
    slope, weights = torch.autograd.grad(log_w.sum(), z)[0], log_w.detach().softmax(0)[..., None]
    for estimator, power in zip(PATHWISE, (1, 2), strict=True):
        _, found = loss_and_grad(dgm.IWELBO(model, guide, 5, estimator=estimator), x)
        torch.testing.assert_close(found["guide.shift"], -(weights**power * slope).sum((0, 1)))


@in_float64
def test_the_doubly_reparameterized_gradient_is_unbiased_and_has_the_smaller_variance():
    """Means over 400 draws within 5 standard errors of their difference, in each of the guide's 10 numbers."""
    plain, doubly = loose(dgm.training.Reparameterized()), loose(dgm.DoublyReparameterized())
    assert in_standard_errors(doubly, plain).abs().max() < 5
    assert (doubly.var(0) < 0.5 * plain.var(0)).all()


@in_float64
@pytest.mark.slow
def test_sticking_the_landing_is_unbiased_for_one_particle_and_biased_for_more():
    """Within 5 standard errors at K = 1; more than 10 away at K = 8."""
    one = in_standard_errors(
        loose(dgm.StickingTheLanding(), 1), loose(dgm.training.Reparameterized(), 1)
    )
    assert one.abs().max() < 5
    eight = in_standard_errors(loose(dgm.StickingTheLanding()), loose(dgm.DoublyReparameterized()))
    assert eight.abs().max() > 10


class Nested(dgm.Program):
    r"""A guide of `BareModel` whose second draw hangs on the first by a steep nonlinear map, with a learned scale."""

    def __init__(self):
        super().__init__()
        self.middle, self.top, self.log_scale = (
            nn.Linear(4, 3),
            dgm.mlp(3, 4, 2),
            nn.Parameter(torch.zeros(())),
        )

    def forward(self, x=None):
        with dgm.data_plate(x):
            middle = pyro.sample(
                "z1", dist.Normal(self.middle(x), 0.6 * self.log_scale.exp()).to_event(1)
            )
            pyro.sample(
                "z2", dist.Normal(4 * self.top(middle), 0.9 * self.log_scale.exp()).to_event(1)
            )


@in_float64
@pytest.mark.parametrize("num_particles", [1, 6])
@pytest.mark.slow
def test_a_guide_of_two_sites_gets_the_right_gradient_in_expectation(num_particles):
    """The path through a later draw carries its weight once: within 5 standard errors of the plain gradient."""
    model, guide = PAIRS["two_latents_bare"]().model, Nested()
    x, found = torch.randn(1, 4).expand(100, 4), []
    for estimator in (dgm.training.Reparameterized(), dgm.DoublyReparameterized()):
        objective = dgm.IWELBO(model, guide, num_particles, estimator=estimator)
        found.append(gradients_of(guide, objective, x, 300))
    assert in_standard_errors(*found).abs().max() < 5


@in_float64
@pytest.mark.parametrize("pair", ["vae_realnvp", "vae_vamp", "vae_dequantized", "vae_absorbed"])
@pytest.mark.slow
def test_flows_shared_parameters_and_noise_sites_get_the_right_gradient_in_expectation(pair):
    """Over all parameters, also those that model and guide share, in 20 random directions of 5 standard errors."""
    case = PAIRS[pair]()
    batch, found = tuple(b[:1].expand(60, *b.shape[1:]) for b in case.batch(1)), []
    for estimator in (dgm.training.Reparameterized(), dgm.DoublyReparameterized()):
        objective, rows = dgm.IWELBO(case.model, case.guide, 4, estimator=estimator), []
        for _ in range(150):
            slopes = torch.autograd.grad(objective(*batch), [*objective.parameters()])
            rows.append(torch.cat([g.flatten() for g in slopes]))
        found.append(torch.stack(rows))
    directions = torch.randn(found[0].shape[1], 20)
    assert in_standard_errors(*(f @ directions for f in found)).abs().max() < 5


def test_weights_reach_the_draws_of_a_further_plate():
    """One gradient of the guide over all sites, doubly reparameterized within 5 standard errors of the plain one."""
    x, model, guide, found = torch.randn(1, 3).expand(60, 3), Series(), SeriesGuide(), []
    for estimator in (dgm.training.Reparameterized(), dgm.DoublyReparameterized()):
        objective = dgm.IWELBO(model, guide, 4, estimator=estimator)
        assert objective.preflight(x).depth == 2
        found.append(gradients_of(guide, objective, x, 200))
    assert in_standard_errors(*found).abs().max() < 5


def stored_guide(program, x):
    with dgm.data_plate(x):
        loc = pyro.param("loc", torch.tensor(0.3)) * program.weight
        pyro.sample("z", dist.Normal(loc, torch.tensor(0.8)).expand([len(x), 2]).to_event(1))


@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
def test_parameters_of_pyros_store_are_detached_as_those_of_a_module(estimator):
    """The chain rule of loc · weight makes their gradients proportional, unless one of them keeps its score."""
    model, guide = LinearGaussian(), Written(stored_guide)
    loss = dgm.IWELBO(model, guide, 4, estimator=estimator)(model.data(5))
    loc = pyro.param("loc").unconstrained()
    slopes = torch.autograd.grad(loss, [loc, guide.weight])
    torch.testing.assert_close(slopes[0] * loc, slopes[1] * guide.weight)
    pyro.clear_param_store()


# In a graph, and in training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
@pytest.mark.parametrize(
    "pair", ["vae_normal", "vae_realnvp", "vae_vamp", "vae_dequantized", "two_latents_bare"]
)
def test_the_captured_graph_equals_the_program_in_value_and_gradient(pair, estimator):
    case = PAIRS[pair]()
    batch = case.batch(4)
    objective = dgm.IWELBO(case.model, case.guide, 3, estimator=estimator)
    graph, trained, fixed = captured(objective, *batch)
    for x in (batch, case.batch(4)):
        with fork_rng(seed=5):
            terms, gradients = graph(trained, fixed, x)
        loss, expected = loss_and_grad(objective, *x, seed=5)
        torch.testing.assert_close(terms["loss"], loss)
        torch.testing.assert_close(
            {n.removeprefix("costs."): g for n, g in gradients.items()}, expected
        )


@pytest.mark.slow
def test_compiled_kernels_equal_the_program_under_fixed_noise():
    import torch._inductor.config as inductor_config

    vae, x, found = toy_vae(), torch.randn(6, 3), []
    objective = dgm.IWELBO(vae.model, vae.guide, 4, estimator=dgm.DoublyReparameterized())
    with inductor_config.patch(fallback_random=True), pyro.validation_enabled(False):
        for road in (Eager(objective), Compiled(objective)):
            with fork_rng(seed=0):
                terms = road.backward(x)
            found.append((terms, {n: p.grad.clone() for n, p in objective.named_parameters()}))
    torch.testing.assert_close(*found)


def test_nothing_is_read_on_the_host():
    """On meta tensors a read of a value would raise."""
    vae = toy_vae()
    objective = dgm.IWELBO(vae.model, vae.guide, 3, estimator=dgm.DoublyReparameterized())
    objective.preflight(torch.randn(5, 3))
    objective.to("meta")
    with pyro.validation_enabled(False):
        loss = objective.terms(torch.empty(5, 3, device="meta"))["loss"]
        loss.backward()
    assert loss.is_meta


def test_a_trainer_validates_without_gradients():
    vae, x = toy_vae(), torch.randn(16, 3)
    objective = dgm.IWELBO(vae.model, vae.guide, 3, estimator=dgm.DoublyReparameterized())
    row = dgm.SVITrainer(objective, lr=1e-2).fit(x, x, epochs=2, progress=False)[-1]
    plain = dgm.IWELBO(vae.model, vae.guide, 3)
    trainer = dgm.SVITrainer(plain)
    assert dgm.SVITrainer(objective).evaluate(x) == pytest.approx(trainer.evaluate(x))
    assert row["val_loss"] <= row["val_nelbo"]


class Normalized(dgm.Program):
    """A guide with batch normalization or dropout in its network."""

    def __init__(self, layer):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2))

    def forward(self, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


def test_statistics_of_a_guide_move_once_in_a_step():
    vae, x, found = toy_vae(), torch.randn(6, 3), []
    for estimator in ESTIMATORS:
        with fork_rng(seed=3):
            guide = Normalized(BatchNorm(4))
        dgm.IWELBO(vae.model, guide, 2, estimator=estimator)(x)
        found.append(dict(guide.named_buffers()))
    assert int(found[0]["net.1.num_batches_tracked"]) == 1
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


# What it refuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
def test_a_guide_with_dropout_is_refused_and_the_plain_bound_takes_it(estimator):
    vae, guide, x = toy_vae(), Normalized(nn.Dropout(0.1)), torch.randn(6, 3)
    with pytest.raises(
        ValueError, match=rf"{named(estimator)}: expected a guide that scores.*Fix: no dropout"
    ):
        dgm.SVITrainer(dgm.IWELBO(vae.model, guide, 2, estimator=estimator)).fit(x, progress=False)
    dgm.SVITrainer(dgm.IWELBO(vae.model, guide, 2)).fit(x, progress=False)


def test_a_guide_that_cannot_score_given_points_is_refused():
    case = PAIRS["vae_one_way"]()
    objective = dgm.IWELBO(case.model, case.guide, 2, estimator=dgm.StickingTheLanding())
    with pytest.raises(NotImplementedError, match="has no inverse. Fix: realnvp"):
        objective.preflight(*case.batch(4))


def test_a_flow_that_scores_slowly_says_so():
    case = PAIRS["vae_flow"]()
    objective = dgm.IWELBO(case.model, case.guide, 2, estimator=dgm.StickingTheLanding())
    with pytest.warns(dgm.flows.DirectionWarning, match="scoring a given point"):
        objective(*case.batch(4))


def test_the_name_of_an_estimator_is_a_type_error_with_the_fix():
    vae = toy_vae()
    with pytest.raises(
        TypeError, match=r"IWELBO: expected an estimator of the gradient, got 'stl'. Fix: Doubly"
    ):
        dgm.IWELBO(vae.model, vae.guide, 2, estimator="stl")


def test_the_abstract_estimator_has_no_draw():
    vae = toy_vae()
    with pytest.raises(NotImplementedError, match=r"Estimator has no draw. Fix: def draw"):
        dgm.IWELBO(vae.model, vae.guide, 2, estimator=dgm.training.Estimator())(torch.zeros(2, 3))
