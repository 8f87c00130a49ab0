import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from toys import toy_vae

import pyro_dgm as dgm
from pyro_dgm.inference.data.batches import Batches
from pyro_dgm.inference.data.reading import as_batches
from pyro_dgm.inference.data.tensors import take_rows


class Rows(Dataset):
    """A map-style dataset of tensors, tuples or dicts."""

    def __init__(self, *tensors, names=()):
        self.tensors, self.names = tensors, names

    def __len__(self):
        return len(self.tensors[0])

    def __getitem__(self, i):
        row = tuple(t[i] for t in self.tensors)
        return (
            dict(zip(self.names, row, strict=True))
            if self.names
            else row
            if len(row) > 1
            else row[0]
        )


class Labelled(dgm.Program):
    """A model whose arguments have names."""

    def forward(self, x=None, label=None, weight=None):
        return x


X = torch.arange(20.0).reshape(10, 2)
C = torch.arange(10)
KINDS = {
    "tensor": lambda: X,
    "ndarray": lambda: X.numpy(),
    "tuple": lambda: (X, C),
    "tuple_of_ndarrays": lambda: (X.numpy(), C.numpy()),
    "list_of_batches": lambda: [(X[:4], C[:4]), (X[4:8], C[4:8]), (X[8:], C[8:])],
    "batches": lambda: Batches(X, 4),
    "tensor_dataset": lambda: TensorDataset(X, C),
    "dataset": lambda: Rows(X),
    "dataset_of_tuples": lambda: Rows(X, C),
    "loader_of_tensors": lambda: DataLoader(Rows(X), 4),
    "loader_of_tuples": lambda: DataLoader(TensorDataset(X, C), 4),
    "loader_of_dicts": lambda: DataLoader(Rows(C, X, names=("label", "x")), 4),
    "any_iterable": lambda: HandMade(),
}


class HandMade:
    """Any re-iterable over batches will do."""

    def __iter__(self):
        return iter(X.split(4))


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_every_kind_of_data_gives_each_datum_once(make):
    batches = as_batches(make(), 4, Labelled(), torch.device("cpu"))
    for epoch in range(2):
        parts = list(batches.epoch(seed=3, epoch=epoch))
        assert [len(batch[0]) for batch in parts] == [4, 4, 2]
        x = torch.cat([batch[0] for batch in parts])
        assert torch.equal(x[x[:, 0].argsort()], X)
        if len(parts[0]) > 1:  # the context keeps its datum
            assert torch.equal(torch.cat([batch[1] for batch in parts]), (x[:, 0] / 2).long())
    assert torch.is_tensor(batches.first()[0])


def test_a_new_epoch_has_a_new_order_and_the_same_epoch_the_same():
    batches = Batches(torch.arange(50), 50)
    orders = [
        next(batches.epoch(seed, epoch))[0] for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert torch.equal(orders[0], orders[3])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_order_takes_nothing_from_the_global_random_state():
    before = torch.get_rng_state()
    list(Batches(X, 4).epoch(1, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffling_the_order_is_kept():
    assert torch.equal(torch.cat([x for (x,) in Batches(X, 4, shuffle=False).epoch(5, 5)]), X)


def test_a_transform_sees_the_observation_of_each_minibatch_anew():
    batches = Batches((torch.full((10, 50), 0.5), C), 10, transform=dgm.binarize, shuffle=False)
    (x, c), (y, _) = next(batches.epoch()), next(batches.epoch())
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(x, y)
    assert torch.equal(c, C)


def test_the_first_batch_holds_what_a_check_must_see():
    x = torch.full((1000, 2), 3.0)
    x[900, 1] = 17
    assert (Batches(x, 4).first()[0] == 17).any()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_first_batch_holds_it_for_the_smallest_batches_too(batch_size):
    x = torch.full((1000, 2), 3.0)
    x[900, 1], x[901, 0] = 17, 3.5
    assert {17.0, 3.5} <= set(Batches(x, batch_size).first()[0].unique().tolist())


def test_data_move_to_the_device_once():
    assert Batches(X).to(torch.device("meta")).tensors[0].is_meta
    assert as_batches(X, 4, Labelled(), torch.device("cpu")).tensors[0] is X


def test_a_dict_with_an_unknown_key_raises():
    loader = DataLoader(Rows(X, C, names=("x", "y")), 4)
    with pytest.raises(
        ValueError,
        match=r"keys among the model's arguments \('x', 'label', 'weight'\), got \['x', 'y'",
    ):
        as_batches(loader, 4, Labelled(), torch.device("cpu")).first()


def test_a_dict_with_a_gap_raises_since_arguments_go_by_position():
    loader = DataLoader(Rows(X, C, names=("x", "weight")), 4)
    with pytest.raises(ValueError, match="label"):
        as_batches(loader, 4, Labelled(), torch.device("cpu")).first()


def test_an_iterator_that_can_be_read_only_once_raises():
    with pytest.raises((TypeError, ValueError), match="iterator|generator"):
        as_batches(iter(X.split(4)), 4, Labelled(), torch.device("cpu")).first()


def test_a_loader_that_yields_nothing_raises():
    loader = DataLoader(TensorDataset(X), 64, drop_last=True)
    with pytest.raises(
        ValueError,
        match="expected at least one batch, got a loader that yields nothing. Fix: drop_last",
    ):
        as_batches(loader, 4, Labelled(), torch.device("cpu")).first()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            torch.zeros(0, 2),
            r"data\[0\]: expected at least one datum, got a tensor of shape \(0, 2\)",
        ),
        (
            torch.tensor([[0.0, torch.nan]]),
            r"data\[0\]: expected finite values, got 1 NaN or infinite of 2. Fix: x = x\[",
        ),
        ((X, torch.full((10,), torch.inf)), r"data\[1\]: expected finite values, got 10"),
        ((X, C[:7]), r"expected tensors of one length, got \[10, 7\]. Fix: one row per datum"),
    ],
)
def test_bad_data_raise(data, message):
    with pytest.raises(ValueError, match=message):
        Batches(data)


def test_a_batch_size_below_one_raises():
    with pytest.raises(ValueError, match="expected batch_size >= 1, got 0"):
        Batches(X, 0)


@pytest.mark.parametrize("data", [3, None, "digits.npy"])
def test_what_is_no_data_is_a_type_error(data):
    with pytest.raises(TypeError, match="data: expected a Tensor, ndarray.*got"):
        as_batches(data, 4, Labelled(), torch.device("cpu"))


# Binarize ------------------------------------------------------------------------------------------------------------


def test_binarize_is_a_draw_whose_mean_is_the_grey_value():
    grey = torch.tensor([0.0, 0.2, 0.5, 1.0])
    mean = dgm.binarize(grey.expand(20_000, 4)).mean(0)
    standard_error = (grey * (1 - grey) / 20_000).sqrt()
    assert ((mean - grey).abs() <= 5 * standard_error).all()


def test_binarize_knows_bytes():
    assert dgm.binarize(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bad", [1.5, -0.1])
def test_binarize_refuses_what_is_no_probability(bad):
    with pytest.raises(
        ValueError,
        match=r"expected grey values in \[0, 1\] or uint8 bytes.*Fix: binarize\(x / x.max",
    ):
        dgm.binarize(torch.tensor([0.5, bad]))


# Through fit ---------------------------------------------------------------------------------------------------------

OBSERVED = torch.randn(10, 3)
FIT = {
    "tensor": lambda: OBSERVED,
    "ndarray": lambda: OBSERVED.numpy(),
    "float32_ndarray": lambda: OBSERVED.numpy().astype(np.float32),
    "tuple": lambda: (OBSERVED,),
    "tensor_dataset": lambda: TensorDataset(OBSERVED),
    "dataset": lambda: Rows(OBSERVED),
    "loader_of_tensors": lambda: DataLoader(Rows(OBSERVED), 4),
    "loader_of_tuples": lambda: DataLoader(TensorDataset(OBSERVED), 4, shuffle=True),
    "loader_of_dicts": lambda: DataLoader(Rows(OBSERVED, names=("x",)), 4),
}


@pytest.mark.parametrize("make", FIT.values(), ids=list(FIT))
def test_fit_takes_every_kind_of_data(make):
    vae = toy_vae()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide).to(OBSERVED.dtype))
    history = trainer.fit(make(), make(), epochs=2, batch_size=4, progress=False)
    assert trainer.num_steps == 6
    assert len(history.column("val_nelbo")) == 2


def test_every_seed_and_epoch_has_an_order_of_its_own():
    """On the CPU `manual_seed` reads the low 32 bits of its argument alone: 256 << 24 is no other seed than 0."""
    batches = Batches(torch.arange(100.0), 100)
    pairs = [(seed, epoch) for seed in (0, 1, 255, 256, 257, 2**32) for epoch in (0, 1, 2**24)]
    orders = {tuple(next(batches.epoch(seed, epoch))[0].tolist()) for seed, epoch in pairs}
    assert len(orders) == len(pairs)


def test_rows_are_taken_by_range_by_number_and_by_mask():
    x, labels = torch.randn(5, 2), torch.arange(5)
    for rows in (slice(1, 4), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 1, 1, 0]).bool()):
        some, same, kept = take_rows((x, labels, 2.0), rows)
        assert torch.equal(some, x[1:4])
        assert same.tolist() == [1, 2, 3]
        assert kept == 2.0


LOOK = """
import resource, torch
from pyro_dgm.inference.data.batches import Batches
x = torch.ones(80_000, 784)  # 250 MB
Batches(x[:100], 64).first()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Batches(x, 64).first()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_look_at_all_data_takes_a_tenth_of_their_memory():
    run = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 0.1 * 80_000 * 784 * 4
