"""`compile="auto"`: graphs where there are some, and else the very steps of `compile=False`, with one warning."""

import random
import warnings
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader
from toys import BatchNorm, Written, assert_equal, everything, same_toy_vae, without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.training import Replicates


@pytest.fixture
def graphs(monkeypatch):
    """Graphs without kernels, in milliseconds; the list that they are put into."""
    return without_kernels(monkeypatch)


def guide(program, x):
    with dgm.data_plate(x):
        pyro.sample("z", dist.Normal(program.weight, torch.ones(())))


def branching(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        if z.sum() > 0:
            z = -z
        pyro.sample("x", dist.Normal(z * program.weight, 1.0), obs=x)


def with_foreign_noise(program, x):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        noise = np.random.randn() + random.random()  # noqa: NPY002
        pyro.sample("x", dist.Normal(z * program.weight + noise, 1.0), obs=x)


def summed(program, x):
    with dgm.data_plate(x):
        infer = {"enumerate": "parallel"}
        c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.3)), infer=infer)
        pyro.sample("x", dist.Normal(c * program.weight, 1.0), obs=x)


def objective_of(model):
    own = dgm.EmptyGuide() if model is summed else Written(guide)
    return dgm.ELBO(Written(model), own)


def build(model, seed=1, **options):
    with fork_rng(seed=seed):
        objective = objective_of(model)
        with torch.no_grad():
            for parameter in objective.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return dgm.SVITrainer(objective, lr=1e-2, **options)


def data(num=10):
    with fork_rng(seed=11):
        return torch.randn(num)


def fit(trainer, x=None, **options):
    """A fit under given seeds of numpy and Python, from which a program may draw."""
    pyro.set_rng_seed(3)
    options = {"epochs": 2, "batch_size": 4, "progress": False, **options}
    return trainer.fit(data() if x is None else x, **options)


def reasons(caught):
    return [str(found.message) for found in caught]


# Where there is no graph ----------------------------------------------------------------------------------------------

PROGRAMS = {
    "reads a value": (branching, r"stops after site 'z', at .*test_falling_back.py.*torch\.where"),
    "numpy": (with_foreign_noise, r"repeat the program under one seed.*Fix: draw with torch"),
    "summed": (summed, r"expected latents that are drawn, got \['c'\], which are summed over"),
}
SETTINGS = {
    "plain": {},
    "clipped": {"clip": 0.5, "ema": 0.9},
    "SGD": {"optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9)},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("model", "reason"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_without_a_graph_takes_the_steps_of_the_eager_run_bit_for_bit(
    model, reason, settings, graphs
):
    eager, auto = build(model, **settings), build(model, compile="auto", **settings)
    fit(eager)
    with pytest.warns(UserWarning, match=rf"SVITrainer: compile='auto'.*{reason}") as caught:
        fit(auto)
    assert len(caught) == 1
    assert "\n" not in reasons(caught)[0]
    assert reasons(caught)[0].endswith(
        "Fix: compile=False, which takes the same steps and says nothing."
    )
    assert not graphs
    assert_equal(everything(auto), everything(eager))


@pytest.mark.parametrize("steps", [{"max_skips": 3}, {}])
def test_steps_that_may_be_passed_over_fall_back_alike(steps, graphs):
    eager, auto = build(branching), build(branching, compile="auto")
    fit(eager, **steps)
    with pytest.warns(UserWarning, match="compile='auto'"):
        fit(auto, **steps)
    assert_equal(everything(auto), everything(eager))


def test_a_machine_without_a_compiler_takes_eager_steps(monkeypatch):
    def missing(*_, **__):
        torch.rand(3)
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nin config.cpp.cxx")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    trainers = [
        dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=1e-2, compile=compile_)
        for vae, compile_ in ((same_toy_vae(), False), (same_toy_vae(), "auto"))
    ]
    x = torch.randn(10, 3)
    fit(trainers[0], x)
    expected = r"RuntimeError: .*No working C\+\+ compiler found in config\.cpp\.cxx\. Fix: compile"
    with pytest.warns(UserWarning, match=expected) as caught:
        fit(trainers[1], x)
    assert len(caught) == 1
    assert_equal(everything(trainers[1]), everything(trainers[0]))
    vae = same_toy_vae()
    with pytest.raises(RuntimeError, match="No working"):
        fit(dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=True), x)


def test_buffers_move_once_where_a_program_falls_back(graphs):
    def build_normalized(compile_):
        with fork_rng(seed=2):
            vae = same_toy_vae()
            vae.model.likelihood.net[1] = torch.nn.Sequential(BatchNorm(6), Branch())
        return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=compile_)

    class Branch(torch.nn.Module):
        """A network with a branch on its input."""

        def forward(self, x):
            return x.tanh() if x.sum() > 0 else x.sigmoid()

    eager, auto = build_normalized(False), build_normalized("auto")
    x = torch.randn(8, 3)
    fit(eager, x)
    with pytest.warns(UserWarning, match="compile='auto'"):
        fit(auto, x)
    assert_equal(everything(auto), everything(eager))


def test_it_is_said_once_in_the_life_of_a_trainer(graphs):
    trainer = build(branching, compile="auto")
    with pytest.warns(UserWarning, match="compile='auto'"):
        fit(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(trainer)
        fit(trainer, batch_size=5)
        trainer.evaluate(data())


def test_an_error_of_the_program_itself_is_raised_as_it_is(graphs):
    def failing(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            if program.training:
                raise RuntimeError("no such thing")
            pyro.sample("x", dist.Normal(z * program.weight, 1.0), obs=x)

    with (
        pytest.warns(UserWarning, match="no such thing"),
        pytest.raises(RuntimeError, match="^no such thing"),
    ):
        fit(build(failing, compile="auto"))


# Where there is one ---------------------------------------------------------------------------------------------------


def test_a_program_with_a_graph_takes_compiled_steps_and_says_nothing(graphs):
    trainers = []
    for compile_ in (True, "auto"):
        vae = same_toy_vae()
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=compile_)
        fit(trainer, torch.ones(8, 3))
        trainers.append(trainer)
    assert len(graphs) == 2
    assert_equal(everything(trainers[1]), everything(trainers[0]))
    assert repr(trainers[1]).endswith("compile='auto')")


# What is decided ------------------------------------------------------------------------------------------------------


def of_two_lengths(program, x):
    """A program that reads a value of long sequences alone."""
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        if x.shape[1] > 3 and z.sum() > 0:
            z = -z
        p_x = dist.Normal((z * program.weight)[:, None].expand(x.shape), 1.0)
        pyro.sample("x", p_x.to_event(1), obs=x)


def sequences(lengths=(3, 5)):
    """Batches of short and long sequences in turn, in an order that no epoch changes."""
    with fork_rng(seed=5):
        batches = [torch.randn(4, length) for length in lengths * 3]
    return DataLoader(batches, batch_size=None)


def test_each_signature_is_decided_by_itself_also_one_that_appears_later(graphs):
    trainer = build(of_two_lengths, compile="auto")
    fit(trainer, sequences((3,)))
    assert len(graphs) == 1
    with pytest.warns(UserWarning, match="stops after site 'z'") as caught:
        fit(trainer, sequences())
    assert len(caught) == 1
    fit(trainer, sequences())
    assert len(graphs) == 1
    eager = build(of_two_lengths)
    for part in (sequences((3,)), sequences(), sequences()):
        fit(eager, part)
    torch.testing.assert_close(everything(trainer)[0], everything(eager)[0])


@pytest.mark.filterwarnings("ignore:.*compile='auto'")
def test_two_and_two_epochs_are_four_and_a_resumed_run_goes_on_with_the_same_steps(
    graphs, tmp_path
):
    whole, halved, first, second = (
        build(of_two_lengths, seed, compile="auto") for seed in (1, 1, 1, 99)
    )
    fit(whole, sequences(), epochs=4)
    fit(halved, sequences(), epochs=2)
    fit(halved, sequences(), epochs=2)
    assert_equal(everything(halved), everything(whole))
    file = tmp_path / "run.pt"

    step = first.step

    def stopping(*batch):
        if first.num_steps == 9:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return step(*batch)

    first.step = stopping
    with pytest.raises(KeyboardInterrupt):
        fit(first, sequences(), epochs=4, checkpoint=file, checkpoint_every=2)
    second.resume(file)
    assert second.num_steps == 8
    fit(second, sequences(), epochs=4 - second.num_epochs)
    assert_equal(everything(second), everything(whole))
    assert len(graphs) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*compile='auto'")
def test_kernels_of_two_and_two_epochs_are_those_of_four():
    torch._dynamo.reset()
    whole, halved = (build(of_two_lengths, compile="auto") for _ in range(2))
    fit(whole, sequences(), epochs=4)
    fit(halved, sequences(), epochs=2)
    fit(halved, sequences(), epochs=2)
    assert_equal(everything(halved), everything(whole))


# Several seeds --------------------------------------------------------------------------------------------------------


def test_seeds_without_a_graph_say_so_once(graphs):
    runs = Replicates(partial(build, branching, compile="auto"), seeds=range(3))
    alone = Replicates(partial(build, branching), seeds=range(3))
    with pytest.warns(UserWarning, match="compile='auto'") as caught:
        fit_seeds(runs)
    fit_seeds(alone)
    assert len(caught) == 1
    assert runs.at_once == 1
    for own, other in zip(runs, alone, strict=True):
        assert_equal(everything(own), everything(other))


def fit_seeds(runs, x=None):
    return runs.fit(data() if x is None else x, epochs=2, batch_size=4, progress=False)


def vae_trainer(compile_):
    vae = same_toy_vae()
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), compile=compile_)


def test_seeds_share_one_graph_by_kernels_or_without_a_compiler_as_it_is(monkeypatch):
    x = torch.randn(8, 3)
    graphs = without_kernels(monkeypatch)
    runs = Replicates(partial(vae_trainer, "auto"), seeds=range(3))
    fit_seeds(runs, x)
    assert runs.at_once == 3
    assert len(graphs) == 1

    def missing(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    without, eager = (
        Replicates(partial(vae_trainer, compile_), seeds=range(3)) for compile_ in ("auto", False)
    )
    with pytest.warns(UserWarning, match="RuntimeError: no compiler") as caught:
        fit_seeds(without, x)
    assert len(caught) == 1
    fit_seeds(eager, x)
    for own, other in zip(without, eager, strict=True):
        assert_equal(everything(own), everything(other))


# What the option may be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ("fast", ValueError, r"'auto' or one of \[.*'reduce-overhead'.*\], got 'fast'"),
        (1.5, TypeError, "True, False, 'auto' or the name of a mode, got 1.5"),
        (None, TypeError, "True, False, 'auto' or the name of a mode, got None"),
    ],
)
def test_what_is_no_option_is_refused(option, error, message):
    with pytest.raises(error, match=rf"compile: expected .*{message}\. Fix: compile='auto'"):
        build(branching, compile=option)
