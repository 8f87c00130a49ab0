"""The steps of `fit` by graphs that are bound once are those of `step`, which looks everything up anew."""

import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR
from toys import toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.training.loop import Loop

SETTINGS = {
    "plain": {},
    "clip": {"clip": 0.1},
    "ema": {"ema": 0.9},
    "schedule": {"schedule": lambda optimizer: ExponentialLR(optimizer, 0.5)},
    "AdamW": {"optimizer": lambda p: AdamW(p, lr=0.01, fused=True)},
    "Adam": {"optimizer": lambda p: Adam(p, lr=0.01)},
    "SGD": {"optimizer": lambda p: SGD(p, lr=0.01, momentum=0.9), "clip": 1.0},
}


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch):
    without_kernels(monkeypatch)


def run(settings, *, bound, epochs=3):
    """Weights, averages and optimizer after a run over 22 data in batches of 4, the last of them ragged."""
    torch.manual_seed(0)
    vae = toy_vae()
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.LinearWarmup(10)})
    trainer = dgm.SVITrainer(objective, compile=True, **settings)
    if not bound:
        trainer.steps = lambda: Loop.steps(trainer)
    x = torch.randn(22, 3)
    history = trainer.fit(x, x, epochs=epochs, batch_size=4, progress=False)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
    return rows, objective.state_dict(), trainer.optimizer.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_bound_steps_are_steps(name):
    rows, weights, optimizer = run(SETTINGS[name], bound=True)
    same_rows, same_weights, same_optimizer = run(SETTINGS[name], bound=False)
    assert rows == same_rows
    assert all(torch.equal(weights[key], same_weights[key]) for key in same_weights)
    torch.testing.assert_close(optimizer, same_optimizer, rtol=0, atol=0)


def test_a_step_of_a_subclass_is_the_one_that_fit_takes():
    class Counting(dgm.SVITrainer):
        """Counts its steps."""

        num = 0

        def step(self, *batch):
            self.num += 1
            return super().step(*batch)

    vae = toy_vae()
    trainer = Counting(dgm.ELBO(vae.model, vae.guide), compile=True)
    trainer.fit(torch.randn(8, 3), epochs=2, batch_size=4, progress=False)
    assert trainer.num == 4


def test_a_parameter_that_is_frozen_between_epochs_stays():
    vae = toy_vae()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=0.1, compile=True)
    x = torch.randn(8, 3)
    frozen = next(vae.model.parameters())
    kept = []

    def freeze(row):
        frozen.requires_grad_(requires_grad=False)
        kept.append(frozen.detach().clone())

    trainer.fit(x, epochs=3, batch_size=4, on_epoch=freeze, progress=False)
    assert torch.equal(kept[0], kept[2])
