"""Every number that is handed over is one, finite and in its range, or it is refused by name."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR
from toys import same_toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.process.numbers import check_count, check_number
from pyro_dgm.inference.process.states import fork_rng

NONSENSE = (-1.0, float("nan"), float("inf"), True, "a", None, nn.Linear(1, 1))


def objective(**options):
    vae = same_toy_vae()
    return dgm.ELBO(vae.model, vae.guide, **options)


def trainer(**options):
    return dgm.SVITrainer(objective(), **options)


def beta(value):
    return objective(beta={"z": value})


def free_bits(value):
    return objective(free_bits={"z": value})


def gan(**options):
    return dgm.GANTrainer(same_toy_vae().generator, dgm.mlp(3, 8, 1), **options)


def hybrid(weight):
    return dgm.HybridTrainer(objective(), dgm.mlp(3, 8, 1), weight=weight)


def refit(lr):
    return dgm.refit_prior(same_toy_vae(), torch.randn(4, 3), dgm.MixturePrior(2, 2), lr=lr)


# What takes a real number, and the nonsense that is a value of it all the same.
NUMBERS = {
    "lr": (lambda v: trainer(lr=v), "SVITrainer: expected .*lr", ()),
    "clip": (lambda v: trainer(clip=v), "SVITrainer: expected .*clip", (None,)),
    "ema": (lambda v: trainer(ema=v), r"Ema: expected .*a decay in \[0, 1\)", (None,)),
    "beta": (beta, "expected .*beta", (None,)),
    "Constant": (dgm.training.Constant, "Constant: expected a finite value", ()),
    "start": (partial(dgm.LinearWarmup, 5), "LinearWarmup: expected a finite value", ()),
    "free_bits": (free_bits, "free_bits: expected nats", (None,)),
    "Player.lr": (lambda v: dgm.gan.Player(lr=v), "Player: expected .*lr", ()),
    "Player.clip": (lambda v: dgm.gan.Player(clip=v), "Player: expected .*clip", (None,)),
    "R1": (dgm.R1, "R1: expected .*gamma", ()),
    "R2": (dgm.gan.R2, "R2: expected .*gamma", ()),
    "GradientPenalty": (dgm.gan.GradientPenalty, "GradientPenalty: expected .*weight", ()),
    "weight": (hybrid, "GANTrainer: expected .*weight", ()),
    "AdamFit.lr": (lambda v: dgm.gan.AdamFit(lr=v), "AdamFit: expected .*lr", ()),
    "refit_prior.lr": (refit, "SVITrainer: expected .*lr", ()),
}


@pytest.mark.parametrize(("make", "message", "meant"), NUMBERS.values(), ids=list(NUMBERS))
def test_nonsense_in_place_of_a_number_is_refused_by_name(make, message, meant):
    for value in NONSENSE:
        if value in meant:
            continue
        with pytest.raises((TypeError, ValueError), match=f"{message}.*, got .*Fix: "):
            make(value)


def fit(**options):
    return trainer().fit(torch.randn(8, 3), **{"progress": False, **options})


COUNTS = {
    "patience": (
        lambda v: fit(monitor="train_loss", patience=v),
        "fit: expected patience",
        (None,),
    ),
    "max_skips": (lambda v: fit(max_skips=v), "fit: expected max_skips", ()),
    "batch_size": (
        partial(dgm.training.Batches, torch.randn(8, 3)),
        "Batches: expected batch_s",
        (),
    ),
    "LinearWarmup": (dgm.LinearWarmup, "LinearWarmup: expected num_steps", ()),
    "Cyclical": (dgm.training.Cyclical, "Cyclical: expected .*num_steps", ()),
    "ELBO": (lambda v: objective(num_particles=v), "ELBO: expected num_particles", ()),
    "size": (lambda v: objective(size=v), "ELBO: expected size", (None,)),
    "n_critic": (lambda v: dgm.gan.Alternating(n_critic=v), "Alternating: expected n_critic", ()),
    "AdamFit": (dgm.gan.AdamFit, "AdamFit: expected epochs", ()),
    "LBFGSFit": (dgm.gan.LBFGSFit, "LBFGSFit: expected iterations", ()),
}


@pytest.mark.parametrize(("make", "message", "meant"), COUNTS.values(), ids=list(COUNTS))
def test_nonsense_in_place_of_a_count_is_refused_by_name(make, message, meant):
    for value in (*NONSENSE, -1, 2.5):
        if value in meant:
            continue
        with pytest.raises((TypeError, ValueError), match=f"{message}.*, got .*Fix: "):
            make(value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1), torch.tensor(0.5), 1])
def test_numbers_of_other_libraries_are_numbers(value):
    check_number("f", "x", value, least=0, above=0, fix="x=1")
    with pytest.raises(ValueError, match=rf"f: expected x > {value}"):
        check_number("f", "x", value, above=float(value), fix="x=1")
    x = torch.zeros(4, 3)
    with fork_rng(seed=0):
        found = objective(beta={"z": float(value)})(x)
    with fork_rng(seed=0):
        terms = objective().terms(x)
    torch.testing.assert_close(found, terms["rec[x]"] + float(value) * terms["kl[z]"])


def test_counts_of_other_libraries_are_counts():
    check_count("f", "n", np.int64(3), fix="n=1")
    losses = []
    for num in (3, np.int64(3)):
        with fork_rng(seed=0):
            losses.append(objective(num_particles=num)(torch.zeros(4, 3)))
    assert torch.equal(*losses)


# Schedules ---------------------------------------------------------------------------------------


class Falling(dgm.training.Schedule):
    """1 − t / T, which does not stop at 0."""

    def __init__(self, num_steps):
        super().__init__()
        self.register_buffer("step", torch.zeros(()))
        self.num_steps = num_steps

    def forward(self):
        return 1 - self.step / self.num_steps

    def advance(self):
        self.step += 1


class Odd(dgm.training.Schedule):
    """A schedule that gives what it is told to."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected a 0-dim tensor from Odd, got None"),
        (1.0, "expected a 0-dim tensor from Odd, got 1.0"),
        (torch.ones(2), r"expected a 0-dim tensor from Odd, got \(2,\)"),
        (torch.tensor(-0.1), "expected a finite value >= 0 from Odd, got -0.1, which would reward"),
        (torch.tensor(torch.nan), "expected a finite value >= 0 from Odd, got nan"),
    ],
)
def test_a_schedule_without_a_weight_is_refused_before_the_first_step(value, message):
    trained = dgm.SVITrainer(objective(beta={"z": Odd(value)}))
    with pytest.raises((TypeError, ValueError), match=f"beta of 'z': {message}.*Fix: "):
        trained.fit(torch.randn(8, 3), progress=False)
    assert trained.num_steps == 0


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_schedule_that_falls_below_zero_is_found_in_the_run(adversarial):
    bound = objective(beta={"z": Falling(5)})
    trained = dgm.HybridTrainer(bound, dgm.mlp(3, 8, 1)) if adversarial else dgm.SVITrainer(bound)
    with pytest.raises(
        ValueError, match=r"beta of 'z': expected a finite .* from Falling, got -0.6, which"
    ):  # found by the look after 8 steps
        trained.fit(torch.randn(80, 3), batch_size=2, progress=False)
    assert trained.num_steps == 0  # where its last good epoch ended


@pytest.mark.parametrize(
    ("schedule", "got"),
    [
        (lambda optimizer: None, "NoneType"),
        (lambda optimizer: 0.9, "float"),
        (lambda optimizer: ReduceLROnPlateau(optimizer), "ReduceLROnPlateau"),
        (StepLR, None),
    ],
)
def test_a_schedule_of_the_learning_rate_that_is_none_is_refused(schedule, got):
    if got is None:
        other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        with pytest.raises(ValueError, match="expected a schedule of the trainer's own optimizer"):
            trainer(schedule=lambda _: StepLR(other, 1))
        return
    with pytest.raises(TypeError, match=f"learning-rate scheduler.*got one that builds {got}. Fix"):
        trainer(schedule=schedule)


def test_a_learning_rate_that_climbs_is_found_after_its_epoch():
    trained = trainer(schedule=lambda optimizer: LambdaLR(optimizer, lambda epoch: 1.5 - epoch))
    with pytest.raises(ValueError, match=r"schedule: .* rate >= 0 after epoch 2, got -0.0005. Fix"):
        trained.fit(torch.randn(8, 3), epochs=4, progress=False)
