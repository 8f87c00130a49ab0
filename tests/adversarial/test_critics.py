"""One logit per datum, and layers of spectral norm one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.adversarial.critics import Scores, logits


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_logits_are_one_number_per_datum(shape):
    found = torch.randn(shape)
    assert torch.equal(logits(lambda x: found, torch.zeros(5, 2)), found.flatten())


def test_logits_take_the_context():
    x, c = torch.randn(5, 2), torch.randn(5, 1)
    assert torch.equal(logits(lambda x, c: x[:, :1] + c, x, c), x[:, 0] + c[:, 0])


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_logits_have_float32_at_least(dtype, expected):
    assert logits(lambda x: x[:, 0], torch.zeros(5, 2, dtype=dtype)).dtype == expected


@pytest.mark.parametrize("shape", [(5, 2), (), (1,), (5, 1, 1)])
def test_a_critic_of_another_shape_raises(shape):
    with pytest.raises(
        ValueError,
        match=r"one logit per datum, \(5,\) or \(5, 1\), got shape .* Fix: end the critic",
    ):
        logits(lambda x: torch.zeros(shape), torch.zeros(5, 2))


def test_a_critic_that_returns_no_tensor_raises():
    with pytest.raises(ValueError, match=r"got Normal from data of shape \(5, 2\)"):
        logits(lambda x: torch.distributions.Normal(0.0, 1.0), torch.zeros(5, 2))


def test_scores_run_the_critic_once_for_each_tensor():
    calls = []
    scores = Scores(lambda x, c: calls.append(x) or (x * c)[:, 0], torch.tensor(2.0))
    x, y = torch.randn(2, 5, 3)
    assert scores(x) is scores(x)
    assert torch.equal(scores(y), 2 * y[:, 0])
    assert len(calls) == 2
    assert torch.equal(scores(x.clone()), scores(x))


def test_spectral_norm_makes_every_layer_one_lipschitz():
    critic = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 1)
    )
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(20)
    assert dgm.nn.spectral_norm(critic) is critic
    for _ in range(50):
        critic(torch.randn(2, 1, 4, 4))
    for layer in (critic[0], critic[3], critic[5]):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(
            1, abs=1e-3
        )


def test_spectral_norm_of_a_critic_without_layers_raises():
    with pytest.raises(
        ValueError,
        match=r"expected a critic with linear or convolutional layers, got Flatten without",
    ):
        dgm.nn.spectral_norm(nn.Flatten())


def test_spectral_norm_of_what_is_no_module_raises():
    with pytest.raises(
        TypeError,
        match=r"spectral_norm: expected a critic, got the class Linear. Fix: critic = spectral_norm\(",
    ):
        dgm.nn.spectral_norm(nn.Linear)
