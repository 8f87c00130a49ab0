"""Arrays and tensors in files as data: which array, which splits, labels and context."""

import numpy as np
import pytest
import torch
from written import everything, multiset, write_array

from pyro_dgm.datasets import File, Kind
from pyro_dgm.experiments.data.readers import stored
from pyro_dgm.files.errors import FileError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3
SPLIT = {"train": X[:20], "val": X[20:25], "test": X[25:]}


def save(path, arrays):
    """Arrays by name in the format of the path's suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch.save({name: torch.as_tensor(array) for name, array in arrays.items()}, path)
    else:
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


of_names = pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])


def test_an_array_is_split_at_random_without_losing_or_repeating_a_row(tmp_path):
    np.save(tmp_path / "x.npy", X)
    data = File(str(tmp_path / "x.npy"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [24, 3, 3]
    assert multiset(everything(data)) == multiset(X)
    assert data.train.dtype is torch.get_default_dtype()
    assert (data.kind, data.levels, data.event_shape) == (Kind.REAL, None, (4,))
    assert data.said == [
        "data: 30 rows of 4 columns, float32: real numbers (--data.kind)",
        "splits: 24 train, 3 val, 3 test, at random by seed 0 "
        "(--data.val, --data.test, --data.split_seed)",
    ]


def test_the_split_is_a_function_of_its_seed_and_leaves_the_users_alone(tmp_path):
    np.save(tmp_path / "x.npy", X)
    before = torch.get_rng_state()
    one, again = File(str(tmp_path / "x.npy")), File(str(tmp_path / "x.npy"))
    other = File(str(tmp_path / "x.npy"), split_seed=1)
    assert torch.equal(one.train, again.train)
    assert not torch.equal(one.train, other.train)
    assert torch.equal(before, torch.get_rng_state())


@of_names
def test_splits_of_a_file_are_as_given(tmp_path, suffix):
    names = {"train": "x_train", "val": "x_val", "test": "test_x"}
    labels = {"y_train": Y[:20], "y_val": Y[20:25], "y_test": Y[25:]}
    path = tmp_path / f"a{suffix}"
    save(path, {**{names[split]: part for split, part in SPLIT.items()}, **labels})
    data = File(str(path))
    for split, part in SPLIT.items():
        np.testing.assert_array_equal(getattr(data, split), part)
    assert data.labels["val"].tolist() == Y[20:25].tolist()
    assert data.classes == ["0", "1", "2"]
    assert "as in the file" in data.said[1]


@of_names
@pytest.mark.parametrize("name", ["x", "data", "images", "whatever"])
def test_the_data_are_the_array_of_a_usual_name_or_the_only_one(tmp_path, suffix, name):
    path = tmp_path / f"a{suffix}"
    save(path, {name: X, "labels": Y})
    data = File(str(path))
    assert multiset(everything(data)) == multiset(X)
    found = torch.cat([data.labels[split] for split in ("train", "val", "test")])
    by_row = {tuple(row): label for row, label in zip(X.tolist(), Y.tolist(), strict=True)}
    assert [by_row[tuple(row)] for row in everything(data).tolist()] == found.tolist()
    assert data.num_context == 0


def test_a_batch_is_one_hot_context_and_can_be_left_out(tmp_path):
    counts = RNG.poisson(3.0, (40, 5))
    batch = np.array(["b", "a", "a", "c"])[np.arange(40) % 4]
    np.savez(tmp_path / "c.npz", counts=counts, batch=batch, other=np.zeros(7))
    data = File(str(tmp_path / "c.npz"))
    assert (data.kind, data.levels, data.num_context) == (Kind.COUNTS, None, 3)
    (one_hot,) = data.context["train"]
    assert bool((one_hot.sum(1) == 1).all())
    by_row = {
        tuple(row): "abc".index(name) for row, name in zip(counts.tolist(), batch, strict=True)
    }
    assert [by_row[tuple(row)] for row in data.train.long().tolist()] == one_hot.argmax(1).tolist()
    assert "context: batch: 3 categories, one-hot (--data.context)" in data.said
    assert "data: not used, of other numbers of rows: other" in data.said
    assert File(str(tmp_path / "c.npz"), context=[]).num_context == 0


def test_numbers_of_the_context_are_standardized_by_the_training_data(tmp_path):
    age = RNG.normal(40.0, 10.0, 30)
    np.savez(tmp_path / "a.npz", x=X, age=age, pair=RNG.normal(size=(30, 2)), flag=Y == 1)
    data = File(str(tmp_path / "a.npz"), context=["age", "pair", "flag"])
    numbers, pair, flag = data.context["train"]
    torch.testing.assert_close(numbers.mean(0), torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(numbers.std(0, correction=0), torch.ones(1))
    assert (pair.shape[1], flag.shape[1], data.num_context) == (2, 2, 5)
    order = [X.tolist().index(row) for row in data.val.tolist()]
    of_train = np.array([age[X.tolist().index(row)] for row in data.train.tolist()])
    expected = (age[order] - of_train.mean()) / of_train.std()
    np.testing.assert_allclose(data.context["val"][0][:, 0], expected)


def test_a_tensor_or_a_pair_of_them_is_data_and_labels(tmp_path):
    torch.save(torch.as_tensor(X), tmp_path / "x.pt")
    torch.save((torch.as_tensor(X), torch.as_tensor(Y)), tmp_path / "xy.pt")
    assert multiset(everything(File(str(tmp_path / "x.pt")))) == multiset(X)
    assert File(str(tmp_path / "xy.pt")).classes == ["0", "1", "2"]


def test_tensors_in_half_precision_are_read(tmp_path):
    torch.save({"x": torch.as_tensor(X).bfloat16()}, tmp_path / "x.pt")
    data = File(str(tmp_path / "x.pt"))
    expected = torch.as_tensor(X).bfloat16().to(torch.get_default_dtype())
    assert multiset(everything(data)) == multiset(expected)


def test_packed_bits_are_unpacked(tmp_path):
    bits = RNG.random((30, 11)) < 0.5
    parts = {"train": bits[:20], "valid": bits[20:25], "test": bits[25:]}
    packed = {name: np.packbits(part, axis=1) for name, part in parts.items()}
    np.savez(tmp_path / "nltcs.npz", num_vars=11, **packed)
    data = File(str(tmp_path / "nltcs"))  # a name without its suffix
    np.testing.assert_array_equal(data.val, bits[20:25])
    assert (data.kind, data.levels) == (Kind.BINARY, 2)


@pytest.mark.parametrize("number", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(30,), (30, 3), (30, 3, 2), (30, 3, 2, 2)])
def test_idx_files_of_any_dtype_and_shape_are_read(tmp_path, number, shape):
    array = RNG.integers(0, 100, shape).astype(number)
    array.flat[0] = 77
    if number[0] == "f":
        array += 0.5
    write_array(tmp_path / "some.idx.gz", array)
    data = File(str(tmp_path / "some.idx.gz"))
    assert multiset(everything(data)) == multiset(array.reshape(30, -1))


def test_a_folder_of_mnists_names_has_its_labels_and_validates_by_the_last_sixth(tmp_path):
    images = RNG.integers(0, 256, (36, 4, 3), dtype=np.uint8)
    labels = (np.arange(36) % 4).astype(np.uint8)
    write_array(tmp_path / "train-images-idx3-ubyte.gz", images[:30])
    write_array(tmp_path / "train-labels-idx1-ubyte.gz", labels[:30])
    write_array(tmp_path / "t10k-images-idx3-ubyte", images[30:])
    write_array(tmp_path / "t10k-labels-idx1-ubyte", labels[30:])
    (tmp_path / "preview.png").write_bytes(b"not looked at")
    data = File(str(tmp_path))
    assert (data.event_shape, data.levels, data.train.dtype) == ((4, 3), 256, torch.uint8)
    np.testing.assert_array_equal(everything(data), images.reshape(36, 12))
    assert [len(part) for part in (data.train, data.val, data.test)] == [25, 5, 6]
    assert data.labels["val"].tolist() == labels[25:30].tolist()
    assert "the last ones of train validate" in data.said[1]
    assert File(str(tmp_path), context=["labels"]).num_context == 4


def test_an_array_that_is_mapped_stays_on_disk_and_is_cut_into_consecutive_parts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(stored, "ON_DISK", 100)
    np.save(tmp_path / "x.npy", X)
    data = File(str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(everything(data), X)
    assert data.train.dtype is torch.float32
    assert "consecutive rows of the file, which stays on disk" in data.said[1]
    assert sum(len(x) for (x,) in data.batches(7).epoch()) == 24


def test_images_with_channels_last_have_them_first(tmp_path):
    images = RNG.integers(0, 256, (20, 8, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "i.npz", images=images)
    data = File(str(tmp_path / "i.npz"))
    assert (data.event_shape, data.levels, data.train.dtype) == ((3, 8, 9), 256, torch.uint8)
    assert multiset(everything(data)) == multiset(np.moveaxis(images, 3, 1).reshape(20, -1))
    assert data.said[0] == "data: 20 images of 8×9×3, uint8: 256 levels (--data.levels)"


@pytest.mark.parametrize(
    ("arrays", "options", "match"),
    [
        ({"a": X, "b": X}, {}, r"or the only one, got arrays a, b\. Fix: --data\.array=a"),
        ({"features": X}, {"array": "feature"}, r"got 'feature', did you mean 'features'\. Fix: --data"),
        ({"x": X, "labels": Y}, {"labels": "lables"}, r"data\.labels: .*got 'lables', did you mean 'labels'"),
        ({"x": X, "batch": Y}, {"context": ["bacth"]}, r"data\.context: .*got 'bacth', did you mean 'batch'"),
        ({"x": X, "y": X[:, 0]}, {"labels": "y"}, r"expected classes.*got 'y'.*Fix: '--data\.context=\[y\]' in place"),
        ({"test": X, "val": X}, {}, r"expected data to train on, got splits test, val"),
        ({"x": X, "x_train": X}, {}, r"got 'x' and its splits \['train'\]"),
        ({"x_train": X, "x_test": X[:, :3]}, {}, r"rows of shape \(4,\) .*, got \(30, 3\) in test"),
        ({"train": X, "val": X, "test": X}, {"val": 0.2}, r"data\.val: expected none"),
        ({"x": X[:0]}, {}, r"expected rows of shape \(4,\) in every split, got \(0, 4\)"),
        ({"x": X[:5]}, {}, r"expected 6 rows or more, 2 to train and 2 to test and 2 to validate, got 5 rows"),
        ({"x": X.astype(str)}, {}, r"expected numbers, got texts of dtype <U32 in all"),
        ({"x": X + 1j}, {}, r"expected numbers, got values of dtype complex64"),
        ({"x": np.packbits(X > 0, axis=1), "num_vars": np.array(99)}, {}, r"in 13 bytes each, got uint8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_nearest_name(tmp_path, arrays, options, match):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=match):
        File(str(tmp_path / "a.npz"), **options)


def test_python_objects_are_not_executed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}, {}], dtype=object))
    with pytest.raises(FileError, match=r"a\.npz: expected arrays .*, got Python objects in it"):
        File(str(tmp_path / "a.npz"))
    torch.save({"x": File}, tmp_path / "a.pt")
    with pytest.raises(FileError, match=r"a\.pt: expected a tensor .*that can't be read"):
        File(str(tmp_path / "a.pt"))
    torch.save([1, 2, 3], tmp_path / "b.pt")
    with pytest.raises(
        FileError, match=r"b\.pt: expected a tensor .*, got a list\. Fix: torch.save"
    ):
        File(str(tmp_path / "b.pt"))
