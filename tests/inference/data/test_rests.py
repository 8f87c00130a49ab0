"""A rest of one datum goes into the batch before, each datum once an epoch, from arrays and loaders alike."""

import pyro.distributions as dist
import pytest
import torch
import torch._inductor
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import without_kernels

import pyro_dgm as dgm
from pyro_dgm.inference.data.batches import Batches
from pyro_dgm.inference.data.reading import as_batches
from pyro_dgm.inference.data.rests import batch_sizes, batches_before_one_datum
from pyro_dgm.inference.process.states import fork_rng

D = 6


def data(num):
    with fork_rng(seed=3):
        return torch.randn(num, D)


def build(**options):
    """A VAE with batch normalization in its encoder, which can't be trained on one datum."""
    with fork_rng(seed=1):
        encoder = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        vae = dgm.VAE(
            dgm.StandardNormal(2),
            dgm.Normal(dgm.mlp(2, D)),
            dgm.Conditional(dist.Normal, encoder),
        )
    return dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), **options)


def build_gan():
    with fork_rng(seed=1):
        critic = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, D)))
    return dgm.GANTrainer(generator, critic, penalties=())


def loader(x):
    return DataLoader(TensorDataset(x), 4, shuffle=True)


SOURCES = {
    "array": lambda x: x,
    "batches": lambda x: Batches(x, 4),
    "dataset": lambda x: TensorDataset(x),
    "loader": loader,
    "list": lambda x: list(x.split(4)),
    "list_of_tuples": lambda x: [(part,) for part in x.split(4)],
}
each_source = pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))


@each_source
@pytest.mark.parametrize("make", [build, build_gan])
def test_a_last_batch_of_one_datum_ends_well_under_batch_normalization(make, source):
    trainer = make()
    trainer.fit(source(data(9)), epochs=2, batch_size=4, progress=False)
    assert trainer.num_steps == 4


@each_source
def test_each_datum_is_seen_once_an_epoch(source):
    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, D)))
    batches = as_batches(source(data(9)), 4, model, torch.device("cpu"))
    seen = [x for (x,) in batches.epoch(training=True)]
    assert [len(x) for x in seen] == [4, 5]
    assert torch.equal(torch.cat(seen).sort(0).values, data(9).sort(0).values)


@pytest.mark.parametrize(
    ("num", "size", "expected"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (5, 4, [5]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1] * 3)],
)
def test_only_a_rest_of_one_datum_is_taken_in(num, size, expected):
    assert batch_sizes(num, size, join=True) == expected
    assert sum(batch_sizes(num, size, join=False)) == num


def test_what_is_asked_about_keeps_its_batches():
    assert [len(x) for (x,) in Batches(data(9), 4).epoch()] == [4, 4, 1]


def test_loaders_that_leave_no_rest_of_one_or_do_not_know_are_left_alone():
    x = data(9)
    assert batches_before_one_datum(DataLoader(TensorDataset(x), 4)) == 2
    assert batches_before_one_datum(DataLoader(TensorDataset(x), 4, drop_last=True)) is None
    assert batches_before_one_datum(DataLoader(TensorDataset(x), 5)) is None
    assert batches_before_one_datum(DataLoader(TensorDataset(x), 1)) is None
    assert batches_before_one_datum(map(len, [x])) is None


def test_a_rest_that_was_taken_in_runs_eager_and_the_others_as_one_graph(monkeypatch):
    graphs = without_kernels(monkeypatch)
    trainer = build(compile=True)
    eager = []
    backward = trainer.eager.backward
    trainer.eager.backward = lambda *batch: eager.append(len(batch[0])) or backward(*batch)
    trainer.fit(data(9), epochs=3, batch_size=4, progress=False)
    assert eager == [5, 5, 5]
    assert len(graphs) == 1


class Stream:
    """Batches of sizes that nobody knows."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x.split(4))


@pytest.mark.parametrize(
    ("train", "options"),
    [(lambda: Stream(data(9)), {}), (lambda: data(3), {"batch_size": 1}), (lambda: data(1), {})],
)
def test_a_batch_of_one_datum_that_cant_be_joined_is_named(train, options):
    with pytest.raises(
        ValueError, match=r"data: expected batches of two data or more.* got one of 1. Fix: batch_s"
    ):
        build().fit(train(), progress=False, **options)


def test_a_resumed_run_takes_in_the_rest_as_the_whole_one(tmp_path):
    def stopped(trainer):
        step = trainer.step

        def stepping(*batch):
            if trainer.num_steps == 3:
                raise KeyboardInterrupt
            return step(*batch)

        trainer.step = stepping
        return trainer

    whole, first, second = build(), stopped(build()), build()
    options = {"batch_size": 4, "progress": False}
    whole.fit(loader(data(9)), epochs=2, **options)
    file = {"checkpoint": tmp_path / "run.pt", "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        first.fit(loader(data(9)), epochs=2, **options, **file)
    second.resume(tmp_path / "run.pt")
    second.fit(loader(data(9)), epochs=1, **options)
    torch.testing.assert_close(
        dict(second.module.state_dict()), dict(whole.module.state_dict()), rtol=0, atol=0
    )
