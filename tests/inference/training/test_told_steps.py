"""Training tells of every step by its number and terms, many at once, and costs nothing where nobody asks."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.training.running import AT_ONCE, RunningMeans, Values


def trainer(compile: bool = False) -> dgm.SVITrainer:
    torch.manual_seed(0)
    encoder = dgm.Conditional(dist.Normal, nn.Linear(3, 4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(nn.Linear(2, 3)), encoder)
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=compile)


def told(trainer, num_data: int = 20, epochs: int = 2, **options) -> list[tuple[int, dict]]:
    steps: list[tuple[int, dict]] = []
    x = torch.randn(num_data, 3, generator=torch.Generator().manual_seed(1))
    trainer.fit(
        x,
        epochs=epochs,
        batch_size=4,
        progress=False,
        on_step=lambda step, terms: steps.append((step, terms)),
        **options,
    )
    return steps


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_terms_of_the_steps_of_an_epoch_have_the_means_of_its_row(compile):
    own = trainer(compile)
    steps = told(own, 20)
    assert [step for step, _ in steps] == list(range(1, 11))
    for epoch, row in enumerate(own.history):
        for name in ("loss", "nelbo", "kl[z]"):
            values = [terms[name] for _, terms in steps[5 * epoch : 5 * epoch + 5]]
            assert sum(values) / 5 == pytest.approx(row[f"train_{name}"], rel=1e-6)


def test_steps_are_handed_over_in_their_order_many_at_once():
    """An epoch of 75 steps: 64 of them together, and the rest at its end."""
    own = trainer()
    steps = told(own, 300, epochs=1)
    assert [step for step, _ in steps] == list(range(1, 76))


def test_a_further_fit_counts_on():
    own = trainer()
    told(own, 20)
    assert [step for step, _ in told(own, 20)] == list(range(11, 21))


def test_the_steps_after_a_checkpoint_in_the_middle_of_an_epoch_are_counted_on(tmp_path):
    first = trainer()
    told(first, 20, epochs=1, checkpoint=tmp_path / "a.pt", checkpoint_every=2, checkpoint_keep=3)
    second = trainer()
    second.resume(tmp_path / "a.pt.1")  # after 4 of the 5 steps
    assert [step for step, _ in told(second, 20, epochs=1)] == [5]


def test_nothing_is_read_before_many_steps_are_there_or_the_means_are_asked_for():
    steps: list[int] = []
    means = RunningMeans().hand_over(lambda step, terms: steps.append(step), 0)
    for _ in range(AT_ONCE - 1):
        means.add(Values(["loss"], torch.ones(1)), 2)
    assert steps == []
    means.add(Values(["loss"], torch.ones(1)), 2)
    assert steps == list(range(1, AT_ONCE + 1))
    means.add({}, 2)  # a step that was passed over
    means.add({"loss": torch.ones(()), "late": torch.ones(())}, 2)
    assert means.means() == {"loss": 1.0, "late": 2 / (2 * (AT_ONCE + 1))}
    assert steps[-1] == AT_ONCE + 2
