"""Monitors: the warnings of a game that goes wrong."""

from __future__ import annotations

import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from toys import Dirac, Slope

import pyro_dgm as dgm
from pyro_dgm.adversarial.monitoring.limits import Limits, limit_warnings

over = pytest.mark.parametrize


def dirac(gamma):
    sgd = dgm.gan.Player(optimizer=partial(torch.optim.SGD, lr=0.1))
    penalties = (dgm.R1(gamma),) if gamma else ()
    return dgm.GANTrainer(
        Dirac(), Slope(), penalties=penalties, play=dgm.gan.Simultaneous(sgd, sgd)
    )


SWINGS = partial(
    dgm.gan.Limits,
    identity=torch.inf,
    strong=1.0,
    weak=-1.0,
    spread=0.0,
    duplicates=1.0,
    coverage=-1.0,
)


def fitted(trainer, monitors, x, epochs=64, batch_size=4):
    trainer.fit(x, epochs=epochs, batch_size=batch_size, on_epoch=monitors, progress=False)
    return monitors.rows


def test_the_dirac_game_without_a_penalty_oscillates():
    """Eigenvalues ±i/2 at h = 0.1: a period of 126 steps, which the losses, even in θψ, go round in 63: 16 epochs."""
    trainer, x = dirac(0.0), torch.zeros(16, 1)
    with pytest.warns(dgm.gan.MonitorWarning) as caught:
        rows = fitted(trainer, dgm.gan.Monitors(trainer, x, limits=SWINGS()), x)
    assert any(
        "a loss swings with index" in str(w.message) and "R1" in str(w.message) for w in caught
    )
    assert rows[-1]["oscillation"] > 0.5
    assert rows[-1]["period"] == 16.0


def test_the_dirac_game_with_critical_damping_does_not():
    trainer, x = dirac(1.0), torch.zeros(16, 1)
    rows = fitted(trainer, dgm.gan.Monitors(trainer, x, limits=SWINGS(), patience=0), x)
    assert max(rows.column("oscillation")[20:]) < 0.1
    assert (
        abs(trainer.generator.theta.item()) < 1e-3
    )  # 0.95 a step: 256 of them leave 2e-6, times a polynomial


class Line(dgm.Program):
    r"""$x = m + s z$ in two dims."""

    def __init__(self, m, s):
        super().__init__()
        self.m, self.s = nn.Parameter(torch.tensor(m)), nn.Parameter(torch.tensor(s))

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Delta(self.m + self.s * z).to_event(1), obs=x)


class Linear(nn.Module):
    def __init__(self, slope, const=0.0):
        super().__init__()
        self.slope, self.const = nn.Parameter(torch.tensor(slope)), const

    def forward(self, x):
        return self.slope * x[:, 0] + self.const


def watched(program, critic, game=None, **kwargs):
    trainer = dgm.GANTrainer(program, critic, game or dgm.NonSaturating())
    return dgm.gan.Monitors(trainer, torch.randn(300, 2), patience=0, **kwargs)


ROW = {"epoch": 1.0, "train_critic": 1.0, "train_generator": 1.0}


def test_a_game_at_its_end_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitors = watched(Line(0.0, 1.0), Linear(0.0))
        monitors(ROW)
    assert monitors.rows[-1]["balance"] == 0.5
    assert monitors.rows[-1]["real_over_fake"] == 1.0


@over(
    ("program", "critic", "text"),
    [
        (Line(9.0, 1.0), Linear(-1.0), "too strong to teach.*Fix: a larger penalty"),
        (Line(1.0, 1.0), Linear(1.0), "fewer than a guess.*Fix: Alternating"),
        (Line(0.0, 0.1), Linear(0.0), "the generator collapses. Fix: R1"),
        (Line(0.0, 0.0), Linear(0.0), "sit on another one.*Fix: more latent dims"),
        (Line(9.0, 1.0), Linear(0.0), "have a fake near them.*Fix: train longer"),
        (
            Line(0.0, 1.0),
            Linear(0.0, 1.0),
            "real_over_fake has mean 2.718.*Fix: Alternating.n_critic=5.",
        ),
        (Line(0.0, 1.0), Linear(0.0, -1.0), "fake_over_real has mean 2.718.*optimality_report"),
    ],
    ids=["strong", "weak", "spread", "duplicates", "coverage", "real over fake", "fake over real"],
)
def test_what_goes_wrong_is_said_with_its_value_and_what_to_do(program, critic, text):
    monitors = watched(program, critic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dgm.gan.MonitorWarning)
        with pytest.warns(dgm.gan.MonitorWarning, match=f"(?s)epoch 1: .*{text}"):
            monitors(ROW)


def test_a_monitor_warns_once_until_it_has_come_back():
    program = Line(0.0, 0.1)
    monitors = watched(program, Linear(0.0), limits=dgm.gan.Limits(coverage=-1.0, duplicates=2.0))

    def count(scale):
        program.s.data.fill_(scale)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            monitors(ROW)
        return len(caught)

    assert [count(s) for s in (0.1, 0.1, 1.0, 0.1)] == [1, 0, 0, 1]
    assert len(monitors.rows) == 4


def test_no_warning_before_patience_is_over():
    monitors = watched(Line(0.0, 0.1), Linear(0.0))
    monitors.patience = 3
    for _ in range(3):
        monitors(ROW)
    with pytest.warns(dgm.gan.MonitorWarning):
        monitors(ROW)


def test_a_game_without_a_ratio_has_no_identities():
    monitors = watched(Line(0.0, 1.0), Linear(0.0), dgm.gan.Wasserstein())
    monitors(ROW)
    assert "real_over_fake" not in monitors.rows[-1]
    assert "balance" in monitors.rows[-1]


def test_monitors_do_not_change_the_run():
    """The same weights bit for bit, with and without."""

    def run(*, watched):
        torch.manual_seed(0)
        trainer, x = dgm.GANTrainer(Line(0.0, 1.0), dgm.mlp(2, 8, 1)), torch.randn(64, 2)
        monitors = dgm.gan.Monitors(trainer, x, patience=99) if watched else None
        trainer.fit(x, epochs=3, batch_size=16, on_epoch=monitors, progress=False)
        return torch.cat([p.detach().flatten() for p in trainer.module.parameters()])

    assert torch.equal(run(watched=True), run(watched=False))


def test_monitors_take_a_context():
    class OfLabel(Line):
        def forward(self, x=None, c=None):
            with pyro.plate("data", len(c), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample(
                    "x", dist.Delta(self.m + c[:, None] + self.s * z).to_event(1), obs=x
                )

    class Beside(Linear):
        def forward(self, x, c):
            return self.slope * (x[:, 0] - c)

    c = torch.randint(2, (100,)).to(torch.get_default_dtype()) * 5
    x = torch.randn(100, 2) + c[:, None]
    trainer = dgm.GANTrainer(OfLabel(0.0, 1.0), Beside(0.0))
    monitors = dgm.gan.Monitors(trainer, (x, c), num=80)
    monitors(ROW)
    assert abs(monitors.rows[-1]["spread"] - 1) < 0.1
    assert len(monitors.real[0]) == 80


def test_an_error_of_a_ratio_is_not_swallowed():
    class Failing(dgm.NonSaturating):
        def log_ratio(self, logits, fake=None):
            raise ValueError("no such ratio")

    with pytest.raises(ValueError, match="no such ratio"):
        watched(Line(0.0, 1.0), Linear(0.0), Failing())(ROW)


def test_the_trainer_comes_first():
    with pytest.raises(
        TypeError, match=r"expected a GANTrainer first, got Tensor. Fix: Monitors\(trainer, x\)"
    ):
        dgm.gan.Monitors(torch.randn(10, 2), dgm.GANTrainer(Line(0.0, 1.0), Linear(0.0)))


@over(("num_data", "num"), [(5, 500), (100, 3)])
def test_too_few_data_are_refused(num_data, num):
    trainer = dgm.GANTrainer(Line(0.0, 1.0), Linear(0.0))
    with pytest.raises(ValueError, match="at least 6 data to measure by, got.*Fix: num=500"):
        dgm.gan.Monitors(trainer, torch.randn(num_data, 2), num=num)


@over(
    ("options", "message"),
    [
        (
            {"num": torch.ones(10)},
            r"expected num as an integer, got Tensor. Fix: Monitors\(trainer, \(x, c\)\)",
        ),
        (
            {"limits": dgm.gan.Limits},
            r"expected limits, got the class Limits. Fix: limits=Limits\(strong",
        ),
    ],
    ids=["context", "class"],
)
def test_an_argument_of_another_kind_is_refused(options, message):
    with pytest.raises(TypeError, match=message):
        watched(Line(0.0, 1.0), Linear(0.0), **options)


def test_monitors_show_their_settings():
    trainer = dgm.GANTrainer(Line(0.0, 1.0), Linear(0.0))
    monitors = dgm.gan.Monitors(
        trainer, torch.randn(10, 2), num=8, limits=dgm.gan.Limits(strong=0.9)
    )
    text = repr(monitors)
    assert text.startswith(
        "Monitors(num=8, limits=Limits(identity=0.5, oscillation=0.5, strong=0.9"
    )
    assert text.endswith("patience=10, seed=0)")


def test_a_mean_ratio_of_few_data_takes_more_standard_errors_to_warn():
    """Seven standard errors above its limit: beyond doubt for 500 data, and one in a thousand for six."""
    limits = Limits(identity=0.0)
    row = {"balance": 0.5, "balance_stderr": 0.1, "oscillation": 0.0, "period": 0.0}
    row |= {"spread": 1.0, "duplicates": 0.0, "coverage": 1.0}
    row |= {"real_over_fake": 1.7, "real_over_fake_stderr": 0.1}
    assert set(limit_warnings(row, limits, num=500)) == {"real_over_fake"}
    assert limit_warnings(row, limits, num=6) == {}
