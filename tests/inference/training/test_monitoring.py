"""Patience begins when every warm-up has ended, and no weighted loss of a warm-up is the best."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng


def data(num=12):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


class Scripted(dgm.ELBO):
    """An ELBO that reports losses from a list for the validation data, which are 5; three steps are an epoch."""

    def __init__(self, name, values, **options):
        vae = same_toy_vae()
        super().__init__(vae.model, vae.guide, **options)
        self.name, self.script = name, list(values)

    def terms(self, *batch):
        found = super().terms(*batch)
        if len(batch[0]) == 5:
            found[self.name] = torch.tensor(self.script.pop(0))
        return found


def run(values, epochs=20, name="nelbo", trainer=None, **options):
    objective = Scripted(name, values, **options.pop("objective", {}))
    fitted = dgm.SVITrainer(objective, **(trainer or {}))
    options = {"monitor": f"val_{name}", "batch_size": 4, "progress": False, **options}
    fitted.fit(data(), dgm.Batches(data(5), 5), epochs=epochs, **options)
    return fitted


RISING = [float(value) for value in range(1, 30)]  # the first epoch is the best


def warming_up(num_epochs, schedule=dgm.LinearWarmup):
    return {"beta": {"z": schedule(3 * num_epochs)}}


def test_patience_is_counted_from_the_end_of_the_warm_up_of_beta():
    assert run(RISING, patience=2).num_epochs == 3
    assert run(RISING, patience=2, objective=warming_up(6)).num_epochs == 8


def test_patience_is_counted_from_the_end_of_the_cycles_of_beta():
    def cycles(num_steps):
        return dgm.training.Cyclical(num_steps, cycles=2)

    assert run(RISING, patience=2, objective=warming_up(6, cycles)).num_epochs == 8


def test_patience_is_counted_from_the_end_of_the_warm_up_of_the_learning_rate():
    def rising(optimizer):
        return LambdaLR(optimizer, lambda epoch: min(1.0, (epoch + 1) / 6))

    assert run(RISING, patience=2, trainer={"schedule": rising}).num_epochs == 7
    falling = {"schedule": lambda optimizer: StepLR(optimizer, 1, 0.5)}
    assert run(RISING, patience=2, trainer=falling).num_epochs == 3


def test_patience_of_a_resumed_run_is_counted_from_the_same_epoch(tmp_path):
    def build():
        return dgm.SVITrainer(Scripted("nelbo", RISING, **warming_up(6)))

    options = {"monitor": "val_nelbo", "batch_size": 4, "progress": False, "patience": 2}
    first, second = build(), build()
    first.fit(data(), dgm.Batches(data(5), 5), 7, checkpoint=tmp_path / "run.pt", **options)
    second.resume(tmp_path / "run.pt")
    second.objective.script = RISING[7:]
    second.fit(data(), dgm.Batches(data(5), 5), 9, **options)
    assert second.num_epochs == 8


def test_the_best_nelbo_may_be_one_of_the_warm_up():
    assert run(RISING, patience=2, objective=warming_up(6)).best["epoch"] == 1


def test_the_best_weighted_loss_is_none_of_the_warm_up():
    trainer = run(RISING, epochs=9, name="loss", objective=warming_up(6))
    assert trainer.best["epoch"] == 7
    assert trainer.best["value"] == 7.0


def test_a_weighted_loss_that_is_never_warm_leaves_the_last_weights():
    trainer = run(RISING, epochs=4, name="loss", objective=warming_up(6))
    assert trainer.best == {}


def test_a_warm_up_of_a_bound_in_a_game_counts_as_well():
    bound = Scripted("nelbo", RISING, **warming_up(4))
    trainer = dgm.HybridTrainer(bound, dgm.mlp(3, 8, 1))
    options = {"patience": 2, "batch_size": 4, "progress": False}
    trainer.fit(data(), dgm.Batches(data(5), 5), 20, **options)
    assert trainer.num_epochs == 6


@pytest.mark.parametrize(
    ("schedule", "num_steps"),
    [(dgm.LinearWarmup(3), 3), (dgm.training.Cyclical(4, 2), 4), (dgm.training.Constant(0.5), 0)],
)
def test_a_schedule_has_ended_when_its_value_stays(schedule, num_steps):
    for _ in range(num_steps):
        assert not schedule.has_ended()
        schedule.advance()
    assert schedule.has_ended()
