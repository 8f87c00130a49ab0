"""Learning rates of both sides by epoch: each by a schedule of its own, saved, resumed, and agreed on."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch._inductor
from torch.optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from toys import assert_equal, everything, same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

HALVED = partial(StepLR, step_size=2, gamma=0.5)
FALLING = partial(ExponentialLR, gamma=0.1)


def data(num=12):
    with fork_rng(seed=11):
        return torch.randn(num, 3)


def build(generator=None, critic=None, seed=1, n_critic=1, **options):
    """A trainer whose sides have schedules, and whose weights are a function of the seed."""
    players = dgm.gan.Player(1e-2, schedule=generator), dgm.gan.Player(2e-2, schedule=critic)
    play = dgm.gan.Alternating(*players, n_critic=n_critic)
    with fork_rng(seed=seed):
        net = dgm.mlp(3, 8, 1)
    return dgm.GANTrainer(same_toy_vae(seed).generator, net, play=play, **options)


def fit(trainer, **options):
    return trainer.fit(data(), **{"epochs": 5, "batch_size": 4, "progress": False, **options})


def rates(trainer):
    return [moved.optimizer.param_groups[0]["lr"] for moved in trainer.moved]


def test_each_side_has_a_schedule_that_steps_once_an_epoch():
    trainer, found = build(HALVED, FALLING), []
    fit(trainer, on_epoch=lambda _: found.append(rates(trainer)))
    for epoch, (generator, critic) in enumerate(found, start=1):
        assert generator == pytest.approx(1e-2 * 0.5 ** (epoch // 2))
        assert critic == pytest.approx(2e-2 * 0.1**epoch)


def test_a_side_without_a_schedule_keeps_its_rate():
    trainer = build(critic=FALLING)
    fit(trainer, epochs=2)
    assert rates(trainer) == pytest.approx([1e-2, 2e-4])


def test_a_rate_of_zero_leaves_a_side_where_it_is():
    trainer = build(critic=partial(LambdaLR, lr_lambda=lambda epoch: 1.0 * (epoch < 1)))
    fit(trainer, epochs=1)
    critic = [p.detach().clone() for p in trainer.critic.parameters()]
    generator = [p.detach().clone() for p in trainer.generator.parameters()]
    fit(trainer, epochs=2)
    pairs = zip(critic, trainer.critic.parameters(), strict=True)
    assert all(torch.equal(before, now) for before, now in pairs)
    pairs = zip(generator, trainer.generator.parameters(), strict=True)
    assert not all(torch.equal(before, now) for before, now in pairs)


def test_the_rate_of_a_generator_that_has_not_moved_yet_changes_without_a_warning():
    """Three steps an epoch, of which the fifth is the generator's first; warnings are errors here."""
    trainer, found = build(HALVED, n_critic=5), []
    fit(trainer, on_epoch=lambda _: found.append(trainer.num_generator_steps))
    assert found == [0, 1, 1, 2, 3]
    assert rates(trainer)[0] == pytest.approx(1e-2 * 0.25)


@pytest.mark.parametrize("compile_", [False, True])
def test_a_run_with_schedules_that_is_resumed_equals_one_that_never_stopped(
    compile_, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_, **__: graph)
    make = partial(build, HALVED, partial(OneCycleLR, max_lr=0.05, total_steps=8), ema=0.9)
    first, second = make(compile=compile_), make(seed=99, compile=compile_)
    whole = make(compile=compile_)
    fit(whole, epochs=7)
    fit(first, epochs=3, checkpoint=tmp_path / "gan.pt")
    second.resume(tmp_path / "gan.pt")
    fit(second, epochs=4)
    assert_equal(everything(second), everything(whole))
    assert rates(second) == rates(whole)


@pytest.mark.parametrize(
    ("saved", "own"), [((HALVED, None), (None, None)), ((None, HALVED), (HALVED, HALVED))]
)
def test_a_checkpoint_agrees_on_who_has_a_schedule(saved, own, tmp_path):
    fit(build(*saved), checkpoint=tmp_path / "gan.pt")
    with pytest.raises(ValueError, match=r"(?s)resume: .*'s schedule.*Fix: the same .*schedule="):
        build(*own).resume(tmp_path / "gan.pt")


def test_a_scheduler_in_place_of_a_function_is_refused():
    parameter = torch.nn.Parameter(torch.zeros(1))
    built = StepLR(torch.optim.SGD([parameter], lr=0.1), 1)
    with pytest.raises(TypeError, match=r"Player: expected a function .* got StepLR.*Fix: Player"):
        dgm.gan.Player(schedule=built)
    with pytest.raises(ValueError, match=r"GANTrainer: .* schedule of the trainer's own optimizer"):
        build(lambda optimizer: built)


@pytest.mark.parametrize("schedule", [ReduceLROnPlateau, lambda optimizer: 5])
def test_what_builds_no_scheduler_that_steps_by_itself_is_refused(schedule):
    with pytest.raises(TypeError, match=r"GANTrainer: expected .* learning-rate scheduler.*Fix: "):
        build(critic=schedule)
