"""Each form of the data trains and is estimated with the figures of the same data in memory."""

import subprocess
import sys
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
from house.answers import numbers
from house.entries import ON_DATA, build
from inference.data.foreign_data import (
    COUNTS,
    FORMS,
    LABELS,
    ArrayOnDisk,
    Columns,
    Rows,
    Stream,
    X,
    hf_rows,
    hugging_face,
    memory_map,
    sparse_forms,
    web_dataset,
)
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import DataLoader, IterableDataset

import pyro_dgm as dgm
from pyro_dgm.inference.adoption.programs import as_module
from pyro_dgm.inference.data.arguments import Arguments
from pyro_dgm.inference.data.batches import Batches
from pyro_dgm.inference.data.fingerprints import hash_tensors
from pyro_dgm.inference.data.reading import as_batches
from pyro_dgm.inference.data.sharing import share_for_evaluation, share_for_training
from pyro_dgm.inference.data.stored import as_stored

CPU = torch.device("cpu")
in_float32 = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
IN_MEMORY_ORDER = ("loader", "stream", "list of batches", "WebDataset", "WebLoader", "of batches")


def has_own_order(form: str) -> bool:
    """Whether a form says its order itself; of others each epoch has the order of data in memory."""
    return any(word in form for word in IN_MEMORY_ORDER)


def train(data, pair="binary, mlp", num=3):
    vae = build(pair).float()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    val = data.in_order() if isinstance(data, Batches) else data
    rows = trainer.fit(data, val, epochs=2, batch_size=num, progress=False, seed=4).rows
    figures = [[row[name] for name in row if name != "seconds"] for row in rows]
    return figures, [p.detach().clone() for p in trainer.module.parameters()]


@cache
def trained(pair, x, *, shuffle):
    return train(Batches(tensor_of(x), 3, shuffle=shuffle), pair)


@cache
def asked(entry, pair, *names):
    vae = build(pair).float()
    return numbers(ON_DATA[entry](vae.model, vae.guide, *[tensor_of(name) for name in names]))


def tensor_of(name):
    return {"x": X, "counts": COUNTS, "labels": LABELS}[name]


def assert_trains_as(data, pair, x, *, shuffle):
    figures, weights = train(data, pair)
    right_figures, right_weights = trained(pair, x, shuffle=shuffle)
    assert figures == right_figures
    assert all(map(torch.equal, weights, right_weights))


ENTRIES = ("preflight", "draw", "nll", "encode", "reconstruct", "surgery", "to_arviz", "check")


def assert_is_estimated_as(make, pair, *names, entries=ENTRIES):
    for entry in entries:
        vae = build(pair).float()
        found = numbers(ON_DATA[entry](vae.model, vae.guide, make()))
        right = asked(entry, pair, *names)
        torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True, msg=entry)


# WebDataset leaves a file open whose samples are not read to the end.
left_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

of_integers = pytest.mark.filterwarnings("ignore:site 'x'. the data are integers")


# -- every form ------------------------------------------------------------------------------------
@left_open
@in_float32
@pytest.mark.parametrize("form", FORMS)
def test_each_form_trains_as_the_same_data_in_memory(form, tmp_path):
    assert_trains_as(FORMS[form](tmp_path), "binary, mlp", "x", shuffle=not has_own_order(form))


@left_open
@in_float32
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_evaluated_as_the_same_data_in_memory(form, tmp_path):
    vae = build("binary, mlp").float()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    assert trainer.evaluate(FORMS[form](tmp_path), 3) == trainer.evaluate(X, 3)


@left_open
@in_float32
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_estimated_as_the_same_data_in_memory(form, tmp_path):
    data = FORMS[form](tmp_path)
    assert_is_estimated_as(lambda: data, "binary, mlp", "x")


SPARSE = (
    *("csr_matrix", "csr_array", "csc_matrix", "coo_matrix", "lil_matrix", "sparse_csr"),
    *("sparse_coo", "backed by a file", "a list of batches", "a stream of rows"),
)


@in_float32
@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_counts_train_and_are_estimated_as_dense_ones(form):
    data = sparse_forms()[form]
    shuffle = form not in ("a list of batches", "a stream of rows")
    assert_trains_as(data, "counts", "counts", shuffle=shuffle)
    assert_is_estimated_as(lambda: data, "counts", "counts")


# -- named and further arguments -------------------------------------------------------------------
def labelled_forms(tmp_path):
    samples = [{"label": int(LABELS[i]), "x": X[i]} for i in range(len(X))]
    yield Rows(lambda i: (X[i], int(LABELS[i])))
    yield Rows(lambda i: {"x": X[i], "label": int(LABELS[i])})
    yield Columns(x=X.tolist(), label=LABELS.tolist())
    yield Stream(lambda i: samples[i])
    yield Stream(lambda i: {"__key__": "a", **samples[i]})
    yield DataLoader(Rows(lambda i: samples[i]), 4)
    yield [{"x": X[:4], "label": LABELS[:4]}, {"x": X[4:], "label": LABELS[4:]}]


@of_integers
@in_float32
def test_the_arguments_of_a_dict_go_by_name_and_what_a_program_does_not_name_is_its_context(
    tmp_path,
):
    for data in labelled_forms(tmp_path):
        entries = ("preflight", "nll", "encode", "check")
        assert_is_estimated_as(lambda d=data: d, "labelled", "x", "labels", entries=entries)


@of_integers
@left_open
@in_float32
def test_the_columns_of_hugging_face_and_the_files_of_web_dataset_are_arguments(tmp_path):
    columns = hf_rows(x=X.tolist(), label=LABELS.tolist())
    entries = ("nll", "encode")
    for data in (columns, columns.with_format("torch")):
        assert_is_estimated_as(lambda d=data: d, "labelled", "x", "labels", entries=entries)
    files = web_dataset(tmp_path).to_tuple("x.npy", "cls")
    assert_is_estimated_as(lambda: files, "labelled", "x", "labels", entries=entries)


@in_float32
def test_a_memory_map_has_its_context_beside_it(tmp_path):
    vae = build("labelled").float()
    found = dgm.nll(vae.model, vae.guide, memory_map(tmp_path, X.numpy()), LABELS, num=4)
    assert torch.equal(found.per_datum, dgm.nll(vae.model, vae.guide, X, LABELS, num=4).per_datum)


# -- what can't be read ----------------------------------------------------------------------------
ANYWHERE = ("fit of ELBO", "fit with val", "evaluate", "preflight", "nll", "encode", "check")


class Picture:
    """What a dataset of images holds where no format was set."""


class OnlyOnce(IterableDataset):
    """A stream that has one iterator alone."""

    def __init__(self):
        self.rows = iter(X)

    def __iter__(self):
        return self.rows


REFUSED = {
    "another column": (
        lambda: Columns(image=X),
        r"data: expected .*\('x',\), got \['image'\]. Fix: .*rename_column\('image', 'x'\)",
    ),
    "the files of a sample": (
        lambda: Stream(lambda i: {"__key__": "a", "cls": 1, "x.npy": X[i]}),
        r'data: expected .* Fix: .*\.to_tuple\("x.npy", "cls"\)',
    ),
    "pictures": (
        lambda: Columns(x=[Picture()] * 10),
        r"data: expected x as a tensor .*, got a list of Picture. Fix: data.with_format\('torch'\)",
    ),
    "lists under torch's collate_fn": (
        lambda: DataLoader(Columns(x=X.tolist()), 4),
        r"data: expected x as a tensor .*, got a list of Tensor. Fix: data.with_format\('torch'\)",
    ),
    "sequences of several lengths": (
        lambda: Columns(x=[[1.0] * (1 + i) for i in range(10)]),
        r"data: expected data of one shape in a batch, got .* Fix: .*LengthBuckets",
    ),
    "a stream that is read once": (OnlyOnce, r"data: expected something to read once per epoch"),
    "splits": (lambda: {"train": Columns(x=X)}, r"expected .*got dict. Fix: .*data\['train'\]"),
    "masked values": (
        lambda: np.ma.masked_less(X.numpy(), 1),
        r"data.*: expected a number in every place, got .* masked ones. Fix: dgm.impute",
    ),
    "NaN in a memory map": (
        lambda: ArrayOnDisk(X / X),
        r"data\[0\]: expected finite values, got .*NaN or infinite.* Fix: ",
    ),
    "no rows on disk": (
        lambda: ArrayOnDisk(X[:0]),
        r"data\[0\]: expected at least one datum, got .*\(0, 9\).* Fix: ",
    ),
    "texts on disk": (
        lambda: ArrayOnDisk(np.array([["a"], ["b"]])),
        r"data\[0\]: expected numbers, got .* Fix: ",
    ),
    "labels that no program takes": (lambda: Columns(x=X, label=LABELS), "drop the labels"),
}


@in_float32
@pytest.mark.parametrize("entry", ANYWHERE)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_read_is_refused_by_every_entry_with_the_fix(case, entry):
    make, message = REFUSED[case]
    vae = build("binary, mlp" if case != "labels that no program takes" else "binary").float()
    message = message.replace("data", "(data|val)", 1) if entry == "fit with val" else message
    with pytest.raises((TypeError, ValueError), match=message):
        ON_DATA[entry](vae.model, vae.guide, make())


@in_float32
def test_sparse_data_of_more_dims_are_refused():
    vae = build("counts").float()
    data = COUNTS.reshape(10, 3, 3).to_sparse()
    with pytest.raises(ValueError, match=r"expected sparse rows \(N, D\), got 3 dims. Fix: "):
        dgm.nll(vae.model, vae.guide, data)


@in_float32
def test_the_splits_of_hugging_face_are_refused_with_one_of_them():
    splits = hugging_face().DatasetDict(train=hf_rows(x=X.tolist()))
    vae = build("binary, mlp").float()
    with pytest.raises(TypeError, match=r"got DatasetDict. Fix: .*data\['train'\]"):
        dgm.nll(vae.model, vae.guide, splits)


@in_float32
def test_bytes_under_a_network_of_floats_are_refused_with_the_cast_batch_by_batch():
    vae = build("binary").float()
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide))
    with pytest.raises(ValueError, match=r"Fix: .*x.float\(\).*transform=torch.Tensor.float"):
        trainer.fit(X.byte(), progress=False)
    trainer.fit(Batches(X.byte(), 3, transform=torch.Tensor.float), progress=False)


# -- streams ---------------------------------------------------------------------------------------
@in_float32
def test_a_stream_hears_of_every_epoch():
    stream = Stream(lambda i: X[i])
    train(stream)
    assert {0, 1} == set(stream.epochs)
    assert stream.epochs.index(1) > 0


def test_a_shuffled_loader_has_an_order_for_each_seed_and_epoch():
    batches = as_batches(DataLoader(Rows(lambda i: X[i].double()), 10, shuffle=True), 3, model, CPU)
    orders = [next(batches.epoch(*key))[0] for key in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert torch.equal(orders[0], orders[3])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def model(x):
    return x


def test_a_stream_takes_nothing_from_the_noise_of_programs():
    before = torch.get_rng_state()
    list(as_batches(DataLoader(Rows(lambda i: X[i]), 3), 3, model, CPU).epoch())
    assert torch.equal(torch.get_rng_state(), before)


# -- several processes -----------------------------------------------------------------------------
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("form", ["rows", "stored"])
def test_ranks_share_out_what_has_rows_by_number(form, shuffle, monkeypatch):
    monkeypatch.setattr("pyro_dgm.inference.data.sharing.gather", lambda value: [value, value])
    share = share_for_training if shuffle else share_for_evaluation
    seen = []
    for rank in range(2):
        for module in ("sharding", "sharing", "batches", "loaders"):
            name = f"pyro_dgm.inference.data.{module}.rank_and_world"
            monkeypatch.setattr(name, lambda rank=rank: (rank, 2))
        numbers_ = torch.arange(10.0)
        data = ArrayOnDisk(numbers_) if form == "stored" else Columns(x=numbers_)
        batches = as_batches(data, 3, model, CPU, shuffle=shuffle, split=True)
        is_told = rank == 0 and form == "rows"
        with pytest.warns(UserWarning, match="same 10 data") if is_told else nullcontext():
            batches = share(batches)
        seen.append(torch.cat([x for (x,) in batches.epoch(training=shuffle)]))
    assert [len(x) for x in seen] == ([5, 5] if shuffle else [6, 4])
    assert torch.cat(seen).sort().values.tolist() == list(range(10))


# -- memory ----------------------------------------------------------------------------------------
@pytest.fixture
def small_budget(monkeypatch):
    """Rows of 9 floats that fit into the budget: 4."""
    monkeypatch.setattr("pyro_dgm.inference.data.stored.BUDGET", 4 * 9 * 4)


@in_float32
@pytest.mark.parametrize("entry", ["fit of ELBO", "fit with val", "evaluate", "nll", "encode"])
def test_an_array_on_disk_is_read_a_budget_or_a_batch_at_a_time(entry, small_budget, monkeypatch):
    monkeypatch.setattr("pyro_dgm.inference.run.sessions.READ_AT_ONCE", 4)
    disk = ArrayOnDisk(X.repeat(8, 1))
    vae = build("binary, mlp").float()
    found = numbers(ON_DATA[entry](vae.model, vae.guide, disk))
    assert 0 < disk.most <= (8 if entry != "evaluate" else 80)
    vae = build("binary, mlp").float()
    right = numbers(ON_DATA[entry](vae.model, vae.guide, X.repeat(8, 1)))
    torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@in_float32
def test_sparse_rows_are_made_dense_a_budget_at_a_time(small_budget, monkeypatch):
    monkeypatch.setattr("pyro_dgm.inference.run.sessions.READ_AT_ONCE", 4)
    sizes = []
    data = sparse_forms()["csr_matrix"]
    rows = as_stored(data)
    take = type(rows).take

    def counted(self, index):
        found = take(self, index)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(type(rows), "take", counted)
    vae = build("counts").float()
    dgm.nll(vae.model, vae.guide, data, num=4)
    dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide)).fit(data, data, batch_size=3, progress=False)
    assert max(sizes) == 4


def test_pages_of_a_memory_map_are_given_back_and_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_dgm.inference.data.stored.PAGES", 2)
    monkeypatch.setattr("pyro_dgm.inference.data.stored.AROUND", 1)
    for mode in ("r", "r+", "c"):
        found = np.load(memory_map(tmp_path, X.numpy()).filename, mmap_mode=mode)
        if mode == "c":
            found[0] = 7  # in memory alone
        rows = as_stored(found)
        for _ in range(2):
            right = torch.as_tensor(np.array(found))
            assert torch.equal(rows.take(torch.tensor([3, 1, 1])), right[[3, 1, 1]])


MAP = """
import resource, sys
import numpy as np, torch, pyro.distributions as dist
import pyro_dgm as dgm

def fit(x):
    net = dgm.mlp(784, 8)
    vae = dgm.VAE(dgm.StandardNormal(4), dgm.Bernoulli(dgm.mlp(4, 784)), dgm.Conditional(dist.Normal, net))
    dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide)).fit(x, batch_size=1024, progress=False)

x = np.memmap(sys.argv[1], np.uint8, "w+", shape=(800_000, 784))  # 600 MB of zeros
fit(np.zeros((2048, 784), np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit(np.memmap(sys.argv[1], np.uint8, "r", shape=x.shape))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_memory_map_takes_a_bounded_part_of_the_memory(tmp_path):
    command = [sys.executable, "-c", MAP, str(tmp_path / "x.dat")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 300e6  # pages of 128 MB, blocks of 16 MB, a few batches


def test_stored_rows_are_known_by_the_numbers_in_them(tmp_path):
    stored = as_stored(memory_map(tmp_path, X.numpy()))
    assert hash_tensors((stored,)) == hash_tensors((X,))
    assert hash_tensors((as_stored(ArrayOnDisk(X + 1)),)) != hash_tensors((X,))


def test_entries_of_a_sparse_matrix_that_are_there_twice_are_a_sum():
    sparse = pytest.importorskip("scipy.sparse")
    twice = sparse.csr_matrix((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2, 2])), (2, 3))
    assert as_stored(twice).take(slice(None)).tolist() == [[0, 3, 0], [0, 0, 0]]
    assert twice.nnz == 2  # the user's own matrix stays as it is


def test_a_dict_names_the_arguments_of_functions_and_of_the_model_of_an_auto_guide():
    def program(x, label):
        return x + label

    row = {"label": 1.0, "x": 2.0}
    for one in (program, as_module(program), AutoNormal(program)):
        assert Arguments.of(one).in_order(row) == (2.0, 1.0)


def test_a_dict_is_refused_by_a_program_that_names_no_argument():
    with pytest.raises(ValueError, match=r"data: expected batches that are tuples.* Fix: \(x, con"):
        Arguments.of(lambda *batch: batch).in_order({"label": 1.0, "x": 2.0})
