from fractions import Fraction
from math import gcd

import pytest
import torch
from toys import same_toy_vae, toy_vae

import pyro_dgm as dgm


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_linear_warmup_is_linear_and_then_one(start):
    beta = dgm.LinearWarmup(4, start=start)
    values = []
    for _ in range(7):
        values.append(beta())
        beta.advance()
    expected = [start + (1 - start) * min(t / 4, 1) for t in range(7)]
    torch.testing.assert_close(torch.stack(values), torch.tensor(expected))


@pytest.mark.parametrize(
    ("num_steps", "cycles", "ramp"), [(12, 3, 0.5), (10, 4, 0.5), (7, 1, 1.0), (20, 2, 0.3)]
)
def test_cycles_rise_over_their_ramp_stay_at_one_and_end_there(num_steps, cycles, ramp):
    beta, values = dgm.training.Cyclical(num_steps, cycles, ramp), []
    for _ in range(num_steps + 5):
        values.append(beta())
        beta.advance()
    phases = [Fraction(cycles * t, num_steps) % 1 for t in range(num_steps)]
    expected = [min(float(phase) / ramp, 1.0) for phase in phases] + [1.0] * 5
    torch.testing.assert_close(torch.stack(values), torch.tensor(expected))
    assert sum(value == 0 for value in values) == gcd(cycles, num_steps)


def test_the_default_is_four_cycles_of_half_a_ramp():
    beta = dgm.training.Cyclical(1000)
    beta.step.fill_(3 * 250 + 50)
    torch.testing.assert_close(beta(), torch.tensor(0.4))


@pytest.mark.parametrize("make", [dgm.LinearWarmup, dgm.training.Cyclical])
def test_the_state_of_a_schedule_is_a_buffer(make):
    one, other = make(10), make(10)
    for _ in range(3):
        one.advance()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(), one())
    assert not list(one.parameters())


def test_values_are_tensors_never_floats():
    assert isinstance(dgm.training.Constant(0.5)(), torch.Tensor)
    assert isinstance(dgm.LinearWarmup(3)(), torch.Tensor)
    assert isinstance(dgm.training.Cyclical(4)(), torch.Tensor)


def test_a_constant_stays():
    beta = dgm.training.Constant(0.5)
    beta.advance()
    assert beta() == 0.5


def test_a_warmup_of_no_steps_raises():
    with pytest.raises(ValueError, match=r"expected num_steps >= 1, got 0. Fix: Constant\(1.0\)"):
        dgm.LinearWarmup(0)


def test_cycles_that_make_no_sense_raise():
    for cycles in (0, 5):
        with pytest.raises(
            ValueError,
            match=rf"1 <= cycles <= num_steps, got cycles={cycles} and num_steps=4. Fix: num",
        ):
            dgm.training.Cyclical(4, cycles)
    for ramp in (0.0, 1.5):
        with pytest.raises(
            ValueError, match=rf"expected a ramp in \(0, 1\], got {ramp}. Fix: Constant"
        ):
            dgm.training.Cyclical(4, ramp=ramp)


def cyclical_trainer(*, compile):
    vae = same_toy_vae()
    return dgm.SVITrainer(
        dgm.ELBO(vae.model, vae.guide, beta={"z": dgm.training.Cyclical(8, 2)}), compile=compile
    )


def betas(history):
    """What the loss saw, from the terms of each epoch of one step."""
    return [(r["train_loss"] - r["train_rec[x]"]) / r["train_kl[z]"] for r in history]


@pytest.mark.parametrize("compile", [False, True])
def test_training_follows_the_cycles_and_a_resumed_run_goes_on_within_one(
    compile, monkeypatch, tmp_path
):
    graphs = []
    monkeypatch.setattr(
        torch._inductor, "compile", lambda graph, *_, **__: graphs.append(graph) or graph
    )
    x, trainer = torch.randn(6, 3), cyclical_trainer(compile=compile)
    trainer.fit(x, epochs=3, progress=False, checkpoint=tmp_path / "run.pt")
    resumed = cyclical_trainer(compile=compile)
    resumed.resume(tmp_path / "run.pt")
    resumed.fit(x, epochs=6, progress=False)
    assert betas(resumed.history) == pytest.approx(
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0], abs=1e-5
    )
    assert len(graphs) == 2 * compile  # one for each trainer: the value is an input of the graph


def test_an_objective_advances_a_schedule_once_even_if_two_sites_share_it():
    vae, beta = toy_vae(), dgm.LinearWarmup(4)
    objective = dgm.ELBO(vae.model, vae.guide, beta={"z": beta, "x": beta})
    objective.advance()
    assert beta() == 0.25


@pytest.mark.parametrize("method", ["forward"])
def test_the_abstract_schedule_has_no_value(method):
    with pytest.raises(NotImplementedError, match=r"Schedule has no value. Fix: def forward"):
        getattr(dgm.training.Schedule(), method)()


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_a_schedule_that_rewards_a_cost_is_refused(value):
    for build in (dgm.training.Constant, lambda start: dgm.LinearWarmup(4, start)):
        with pytest.raises(
            ValueError, match=r"expected a finite value >= 0, got .*Fix: 0.0 leaves"
        ):
            build(value)


def test_the_repr_of_a_schedule_is_its_configuration():
    assert repr(dgm.LinearWarmup(10)) == "LinearWarmup(10)"
    assert repr(dgm.LinearWarmup(10, 0.25)) == "LinearWarmup(10, start=0.25)"
    assert repr(dgm.training.Cyclical(8, cycles=2)) == "Cyclical(8, cycles=2, ramp=0.5)"
    assert repr(dgm.training.Constant(0.1)) == "Constant(0.1)"
