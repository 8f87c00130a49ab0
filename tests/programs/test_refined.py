"""Draws refined by the ratio have the law of the data: by chains, and by importance weights."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro import poutine
from torch import nn

import pyro_dgm as dgm


class Shift(nn.Module):
    def forward(self, z):
        return z + 1


class Quadratic(nn.Module):
    r"""$\log \mathcal N(y; 0, 1) - \log \mathcal N(y; 1, 1) = \frac12 - y$ for the generator y = z + 1."""

    def forward(self, y):
        return 0.5 - y


def shifted(dim=1):
    return dgm.LatentVariableModel(dgm.StandardNormal(dim), dgm.Deterministic(Shift()))


def narrow(y):
    r"""The ratio of $\mathcal N(0, \frac14)$ to $\mathcal N(1, 1)$, quadratic in y."""
    return dist.Normal(0.0, 0.5).log_prob(y) - dist.Normal(1.0, 1.0).log_prob(y)


def within_five(x, mean, deviation, ess):
    """Mean and deviation of normal draws, within 5 standard errors."""
    assert abs(x.mean() - mean) < 5 * deviation / ess**0.5
    assert abs(x.std() - deviation) < 5 * deviation / (2 * ess) ** 0.5


@in_float64
@pytest.mark.parametrize(
    ("log_ratio", "deviation"), [(Quadratic(), 1.0), (narrow, 0.5)], ids=["shifted", "narrow"]
)
def test_chains_draw_from_the_law_of_the_data(log_ratio, deviation):
    refined = dgm.distributions.Refined(shifted(), log_ratio)
    run = dgm.hmc(refined, torch.zeros(1, 1), num=100, chains=60, warmup=50, leapfrog=5)
    y = run.draws["z"].flatten() + 1
    assert run.worst_rhat < 1.05
    assert run.least_ess > 500
    within_five(y, 0.0, deviation, run.least_ess)


@in_float64
def test_importance_weights_against_the_generator_are_the_ratios():
    """Self-normalised moments; 5 standard errors of the weighted mean."""
    generator, num = shifted(), 20_000
    prior = poutine.block(generator, hide=["x"])
    particles = dgm.draw(
        dgm.distributions.Refined(generator, narrow), prior, torch.zeros(1, 1), num=num
    )
    y = particles.values["z"].flatten() + 1
    torch.testing.assert_close(particles.log_weight.flatten(), narrow(y))
    weight = particles.log_weight.flatten().softmax(0)
    mean = (weight * y).sum()
    assert abs(mean) < 5 * (weight * (y - mean)).norm()
    square = (weight * y.square()).sum()
    assert abs(square - 0.25) < 5 * (weight * (y.square() - square)).norm()


def test_pyro_resamples_it():
    pyro.set_rng_seed(0)
    posterior = pyro.infer.Importance(
        dgm.distributions.Refined(shifted(), narrow), num_samples=500
    ).run()
    weight = posterior.get_normalized_weights()
    y = torch.stack([trace.nodes["_RETURN"]["value"] for trace in posterior.exec_traces]).flatten()
    mean = (weight * y).sum()
    assert abs(mean) < 5 * (weight * (y - mean)).norm()


def test_the_factor_stands_in_the_data_plate_and_the_observation_is_gone():
    refined = dgm.distributions.Refined(shifted(3), lambda y: y.sum(1))
    trace = poutine.trace(refined).get_trace(torch.full((4, 3), 9.0))
    trace.compute_log_prob()
    assert "x" not in trace.nodes
    factor = trace.nodes["log_ratio_x"]
    assert [frame.name for frame in factor["cond_indep_stack"]] == ["data"]
    z = trace.nodes["z"]["value"]
    assert torch.equal(factor["log_prob"], (z + 1).sum(1))
    assert torch.equal(trace.nodes["_RETURN"]["value"], z + 1)  # and not the 9s


def test_a_noisy_observation_gives_its_mean():
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(nn.Linear(2, 3)))
    trace = poutine.trace(dgm.distributions.Refined(generator, nn.Linear(3, 1))).get_trace(
        torch.zeros(4, 3)
    )
    assert torch.equal(
        trace.nodes["_RETURN"]["value"], generator.likelihood.net(trace.nodes["z"]["value"])
    )


def test_without_data_it_makes_one_draw():
    assert dgm.distributions.Refined(shifted(3), nn.Linear(3, 1))(None).shape == (1, 3)


def test_images_and_labels_reach_the_critic_with_one_batch_dim():
    net = nn.Sequential(nn.Linear(2 + 1, 4), nn.Unflatten(-1, (1, 2, 2)))
    generator = dgm.LatentVariableModel(
        dgm.StandardNormal(2), dgm.Deterministic(dgm.Concat(net), event_dim=3)
    )
    label = torch.arange(5.0)[:, None]
    seen = []

    def log_ratio(y, c):
        seen.append((y.shape, c))
        return y.flatten(1).sum(1, keepdim=True) + 100 * c

    refined = dgm.distributions.Refined(generator, log_ratio)
    particles = dgm.draw(
        refined,
        poutine.block(generator, hide=["x"]),
        torch.zeros(5, 1, 2, 2),
        label,
        num=3,
        depth=1,
    )
    shape, context = seen[-1]
    assert shape == (15, 1, 2, 2)
    assert torch.equal(context, label.repeat(3, 1))
    assert particles.log_weight.shape == (3, 5)
    assert (particles.log_weight.diff(dim=1) > 50).all()


def judged(game, constant=0.5):
    """A trainer whose critic is the best one of the generator y = z + 1, up to a constant."""
    critic, decoder = nn.Linear(1, 1), nn.Linear(1, 1)
    for parameter, value in zip(
        (*critic.parameters(), *decoder.parameters()), (-1.0, constant, 1.0, 1.0), strict=True
    ):
        nn.init.constant_(parameter, value)
    generator = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Deterministic(decoder))
    return dgm.GANTrainer(generator, critic, game)


@in_float64
def test_chains_take_the_ratio_from_the_trainer_itself():
    trainer = judged(dgm.NonSaturating())
    refined = dgm.distributions.Refined(trainer.generator, trainer.log_ratio)
    run = dgm.hmc(refined, torch.zeros(1, 1), num=60, chains=40, warmup=40, leapfrog=5)
    assert run.worst_rhat < 1.05
    within_five(run.draws["z"].flatten() + 1, 0.0, 1.0, run.least_ess)


def test_the_constant_of_the_ratio_comes_from_a_run_that_the_program_does_not_see():
    """The critic of pairs asks for fakes of the same program, in the midst of its plates."""
    trainer = judged(dgm.PairedRelativistic(), constant=0.7)
    refined = dgm.distributions.Refined(trainer.generator, trainer.log_ratio)
    trace = poutine.trace(refined).get_trace(torch.zeros(4, 1))
    trace.compute_log_prob()
    assert [name for name in trace.nodes if name not in ("_INPUT", "_RETURN", "data")] == [
        "z",
        "log_ratio_x",
    ]
    ratio, y = trace.nodes["log_ratio_x"]["log_prob"], trace.nodes["_RETURN"]["value"]
    standard_error = (
        (torch.e - 1) / 10_000
    ) ** 0.5  # of log E e^{-y}: Var e^{-y} / (E e^{-y})² = e − 1
    assert (ratio - (0.5 - y).flatten()).abs().max() < 5 * standard_error
    run = dgm.hmc(refined, torch.zeros(1, 1), num=4, chains=2, warmup=5, leapfrog=3)
    assert len(run.draws["z"].unique()) > 4


def test_a_game_without_a_ratio_is_refused_by_its_trainer():
    trainer = judged(dgm.gan.Hinge())
    with pytest.raises(ValueError, match="log density ratio.*sign"):
        dgm.distributions.Refined(trainer.generator, trainer.log_ratio)(torch.zeros(2, 1))


def test_a_trainer_in_place_of_its_ratio_is_refused():
    with pytest.raises(
        TypeError,
        match=r"as a function of y, got GANTrainer. Fix: Refined\(generator, trainer.log_rati",
    ):
        dgm.distributions.Refined(shifted(), judged(dgm.NonSaturating()))


def test_a_program_without_the_site_is_refused():
    with pytest.raises(ValueError, match="expected a program with the site 'y', got one without"):
        dgm.distributions.Refined(shifted(), Quadratic(), observed="y")(torch.zeros(2, 1))


def test_a_ratio_that_is_not_one_number_per_draw_is_refused():
    with pytest.raises(
        ValueError, match=r"expected one number per draw, \(2,\) or \(2, 1\), got shape \(2, 3\)"
    ):
        dgm.distributions.Refined(shifted(3), lambda y: y)(torch.zeros(2, 3))


def test_the_representation_shows_the_settings():
    refined = dgm.distributions.Refined(shifted(), nn.Linear(1, 1))
    assert refined.extra_repr() == "observed='x'"
