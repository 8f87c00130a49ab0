"""What a process has set for all of its code changes no number of any public entry."""

from __future__ import annotations

import threading
import time
from copy import deepcopy
from functools import partial
from multiprocessing import get_context

import pyro
import pyro.distributions as dist
import pytest
import torch
from house.ambient import AROUND, another_default_device
from house.answers import expect, numbers
from house.entries import GAN, OF_PRIOR, ON_DATA, Critic, D, N, build, normal, real
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_dgm as dgm
from pyro_dgm.gan import AdamFit, oscillation
from pyro_dgm.inference.data.reading import as_batches
from pyro_dgm.inference.run.sessions import session

ENTRIES = ON_DATA | OF_PRIOR
IN_HALF = "autocast"  # trains networks in half precision, as it was asked to
MAKE_THEIR_OWN = (GAN, "guide_error")  # modules within the call: they stand below, made before it


def fit_on_loader():
    """The loader draws its order from a generator of the CPU."""
    vae = build("real")
    loader = DataLoader(TensorDataset(real()), batch_size=4, shuffle=True)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), ema=0.9, clip=1.0)
    fit = partial(trainer.fit, loader, real(), epochs=2, progress=False, max_skips=1)
    return lambda: fit().rows


def fit_on_array():
    """torch makes a tensor of an array on its default device."""
    vae = build("real")
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    x = real().numpy()
    return lambda: trainer.fit(x, batch_size=4, progress=False).rows


def gan(bound):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        critic = Critic()
    vae = build("real")
    objective = dgm.ELBO(vae.model, vae.guide) if bound else None
    trainer = dgm.GANTrainer(vae.model, critic, bound=objective)

    x = real()

    def run():
        rows = trainer.fit(x, x, epochs=2, batch_size=4, progress=False).rows
        return rows, trainer.log_ratio(x)

    return run


def of_guide_error():
    vae = build("real")
    x = real()
    chains = dgm.hmc(vae.model, x, num=4, warmup=4, chains=2, leapfrog=2)
    return lambda: dgm.guide_error(vae.guide, chains, x)


def report_of_check():
    vae = build("real")
    x = real()
    return lambda: str(dgm.check(vae.model, vae.guide, x, num=4, num_simulated=20))


def report_of_critic():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        critic = nn.Linear(3, 1)
    run = partial(dgm.gan.optimality_report, normal(40, 3), normal(40, 3, seed=1))
    return lambda: run(lambda: deepcopy(critic), AdamFit(epochs=2))


def of_samples(verb):
    """A verb of two samples, once of tensors and once of arrays."""
    real, fake = normal(40, 3, seed=1), normal(40, 3, seed=2) + 0.5

    def run():
        return [verb(real=real, fake=fake), verb(real=real.numpy(), fake=fake.numpy())]

    return run


def comparison_of_samples():
    a, train, test = (normal(60, 3, seed=seed) for seed in range(3))
    return lambda: repr(dgm.compare_samples({"a": a}, train=train, test=test))


def coverage():
    fake, centres = normal(9, 2), normal(3, 2, seed=1)
    return lambda: dgm.mode_coverage(fake=fake, centres=centres, sd=1.0)


# Entries that take samples, weights or losses, or data in another form: each gives its call.
OTHERS = {
    "fit on a loader": fit_on_loader,
    "fit on an array": fit_on_array,
    "fit of a GAN": partial(gan, bound=False),
    "fit of a hybrid": partial(gan, bound=True),
    "guide_error": of_guide_error,
    "report of check": report_of_check,
    "optimality_report": report_of_critic,
    "khat": lambda: partial(dgm.khat, normal(100, 3)),
    "mmd": partial(of_samples, dgm.mmd),
    "c2st": partial(of_samples, dgm.c2st),
    "prdc": partial(of_samples, dgm.prdc),
    "nearest_neighbour": partial(of_samples, dgm.nearest_neighbour),
    "frechet": partial(of_samples, dgm.frechet),
    "mode_coverage": coverage,
    "compare_samples": comparison_of_samples,
    "oscillation": lambda: partial(oscillation, normal(60)),
}


def prepared(entry):
    """The call of an entry, its programs and data made before."""
    if entry in OTHERS:
        return OTHERS[entry]()
    vae = build("real")
    batch = (real(),) if entry in ON_DATA else ()
    return lambda: ENTRIES[entry](vae.model, vae.guide, *batch)


def cells():
    found = []
    for around in AROUND:
        for entry in dict.fromkeys((*ENTRIES, *OTHERS)):
            in_half = around == IN_HALF and (entry.startswith("fit") or entry in ("draw",))
            if not in_half and (entry in OTHERS or entry not in MAKE_THEIR_OWN):
                found.append(pytest.param(entry, around, id=f"{entry}-{around}"))
    return found


def same(found, right):
    if isinstance(right, str):
        assert found == right
        return
    assert numbers(found) or not numbers(right)
    torch.testing.assert_close(
        numbers(found), numbers(right), equal_nan=True, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("entry", "around"), cells())
def test_an_entry_gives_the_same_whatever_is_set_around_it(entry, around):
    right = expect(None, prepared(entry))
    run = prepared(entry)
    with AROUND[around]():
        found = expect(None, run)
    same(found, right)


# -- threads and forks ----------------------------------------------------------------------------
def in_threads(run, num):
    """What `num` threads get that run at once; an error is what its thread got."""
    together = threading.Barrier(num)
    found = [None] * num

    def work(i):
        together.wait()
        try:
            found[i] = run()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


IN_THREADS = ("nll", "generate", "fit of ELBO", "fit of a hybrid", "mmd", "to_arviz", "preflight")


@pytest.mark.parametrize("entry", IN_THREADS)
def test_four_threads_at_once_get_what_one_gets(entry):
    right = expect(None, prepared(entry))
    vae, batch = build("real"), (real(),) if entry in ON_DATA else ()
    shared = partial(ENTRIES[entry], vae.model, vae.guide, *batch) if entry in ENTRIES else None
    if entry.startswith("fit"):
        runs = iter([prepared(entry) for _ in range(4)])  # each its own programs
        found = in_threads(lambda: next(runs)(), 4)
    else:
        found = in_threads(shared or prepared(entry), 4)
    for result in found:
        assert not isinstance(result, Exception), result
        same(result, right)


class Counted(dgm.Program):
    """A model that counts how many threads are inside of it at once."""

    def __init__(self):
        super().__init__()
        self.inside, self.most, self.net = 0, 0, nn.Linear(2, D)

    def forward(self, x=None):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.01)
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            found = pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)
        self.inside -= 1
        return found


STEPS = {
    "draw": lambda model, guide: partial(dgm.draw, model, guide, real(), num=2),
    "terms": lambda model, guide: partial(dgm.ELBO(model, guide).terms, real()),
    "terms of IWELBO": lambda model, guide: partial(dgm.IWELBO(model, guide).terms, real()),
    "step": lambda model, guide: partial(dgm.SVITrainer(dgm.ELBO(model, guide)).step, real()),
    "step of a game": lambda model, guide: partial(dgm.GANTrainer(model, Critic()).step, real()),
}


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_what_runs_a_program_takes_a_turn(make):
    model, guide = Counted(), build("real").guide
    for result in in_threads(make(model, guide), 4):
        assert not isinstance(result, Exception), result
    assert model.most == 1


def test_a_session_within_a_session_of_the_same_thread_goes_on():
    vae = build("real")
    right = dgm.nll(vae.model, vae.guide, real(), num=4).mean
    with session(vae.model, vae.guide, real()):
        assert dgm.nll(vae.model, vae.guide, real(), num=4).mean == right


def test_an_estimate_of_another_thread_waits_for_a_run_and_leaves_its_noise_alone():
    """The other thread starts while an epoch runs, and is done when `fit` is: the rows are those of `fit` alone."""
    vae = build("real")
    right = prepared("fit on an array")()
    nll = dgm.nll(vae.model, vae.guide, real(), num=4).mean
    found = []
    other = threading.Thread(
        target=lambda: found.append(dgm.nll(vae.model, vae.guide, real(), num=4).mean)
    )
    own = build("real")
    trainer = dgm.SVITrainer(dgm.ELBO(own.model, own.guide))
    transform = Once(other.start)
    batches = dgm.Batches(real().numpy(), batch_size=4, transform=transform)
    rows = trainer.fit(batches, progress=False).rows
    other.join()
    same(rows, right)
    assert found == [nll]


class Once:
    """The identity, which does something else when it is called first."""

    def __init__(self, act):
        self.act = act

    def __call__(self, x):
        act, self.act = self.act, None
        if act is not None:
            act()
        return x


def of_a_child(connection):
    vae = build("real")
    connection.send(dgm.nll(vae.model, vae.guide, real(), num=4).mean)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_that_was_forked_within_a_session_has_a_turn_of_its_own():
    """Also from another thread than the one that holds the turn, whose lock nobody in the child would give back."""
    vae = build("real")
    right = dgm.nll(vae.model, vae.guide, real(), num=4).mean
    context = get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=of_a_child, args=(theirs,))
    with session(vae.model, vae.guide, real()):
        starter = threading.Thread(target=child.start)
        starter.start()
        starter.join()
        assert ours.poll(30), "the child waits for a turn that nobody gives back"
        assert ours.recv() == right
    child.join()


class Drawn(torch.utils.data.Dataset):
    """Data that a worker draws by a program, inside of its process."""

    def __init__(self):
        self.model = build("real").model

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dgm.generate(self.model, 1, seed=index)[0]


def test_workers_of_a_loader_may_run_programs_while_a_fit_holds_the_turn():
    rows = []
    for num_workers in (0, 2):
        vae = build("real")
        loader = DataLoader(Drawn(), batch_size=4, num_workers=num_workers)
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
        rows.append(trainer.fit(loader, epochs=1, progress=False).rows)
    same(rows[1], rows[0])


# -- the form of the data -------------------------------------------------------------------------
FORMS = {
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int64": torch.int64,
    "float32": torch.float32,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entry", ["nll", "surgery", "encode", "to_arviz", "ais", "active_units"])
def test_equal_data_give_equal_figures_whatever_their_dtype(entry, form):
    """One seed is one noise: what differs is rounding alone."""
    counts = normal(N, 9).abs().mul(3).round()
    vae = build("counts")
    right = ENTRIES[entry](vae.model, vae.guide, counts)
    found = ENTRIES[entry](vae.model, vae.guide, counts.to(FORMS[form]))
    torch.testing.assert_close(numbers(found), numbers(right), rtol=1e-5, atol=1e-5, equal_nan=True)


def test_training_in_half_precision_is_that_of_the_networks_alone():
    """Losses are float32, near those without autocast, and add up."""
    vae = build("float32")
    objective = dgm.ELBO(vae.model, vae.guide)
    x = real().float()
    trainer, half = dgm.SVITrainer(objective), dgm.SVITrainer(deepcopy(objective))
    exact = trainer.fit(x, x, epochs=1, progress=False).rows[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        right = objective.terms(x)
    with torch.random.fork_rng(), torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        terms = objective.terms(x)
        row = half.fit(x, x, epochs=1, progress=False).rows[0]
        again = trainer.evaluate(x)
    assert terms["loss"].dtype == torch.float32
    assert abs(terms["loss"] - right["loss"]) < 0.02 * abs(right["loss"])
    assert row["train_nelbo"] == pytest.approx(exact["train_nelbo"], rel=0.02)
    assert row["train_nelbo"] != exact["train_nelbo"]
    assert trainer.evaluate(x) == again


def test_a_shuffled_loader_is_read_whatever_the_default_device_is():
    """Its sampler draws from a generator of the CPU, which torch refuses for the order of another device."""
    loader = DataLoader(TensorDataset(real()), batch_size=4, shuffle=True)
    batches = as_batches(loader, 4, build("real").model, torch.device("cpu"))
    with another_default_device():
        sizes = [len(x) for (x,) in batches.epoch()]
    assert sizes == [4, 2]
