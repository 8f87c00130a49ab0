"""Data sets: splits, levels, binarization, and what is refused."""

import gzip
import struct

import numpy as np
import pytest
import torch

from pyro_dgm.datasets import (
    Digits,
    FreyFaces,
    Idx,
    Modes,
    OpenML,
    grid,
    normal,
    ring,
    stacked,
)
from pyro_dgm.experiments.data.faces import read_faces
from pyro_dgm.experiments.data.idx import read_idx_images
from pyro_dgm.files.errors import FileError


def write_idx(folder, name, images, magic=2051):
    header = struct.pack(">iiii", magic, *images.shape)
    (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    write_idx(tmp_path, "train", rng.integers(0, 256, (50_010, 2, 2), dtype=np.uint8))
    write_idx(tmp_path, "t10k", rng.integers(0, 256, (20, 2, 2), dtype=np.uint8))
    return tmp_path


def test_digits_are_integer_levels_in_three_disjoint_splits():
    digits = Digits()
    parts = (digits.train, digits.val, digits.test)
    assert [len(p) for p in parts] == [1347, 150, 300]
    everything = torch.cat(parts)
    assert everything.min() == 0
    assert everything.max() == 16 == digits.levels - 1
    assert torch.equal(everything, everything.round())
    from sklearn.datasets import load_digits

    assert sorted(map(tuple, everything.tolist())) == sorted(
        map(tuple, load_digits().data.tolist())
    )


def test_digits_are_split_the_same_way_every_time_and_leave_the_seed_alone():
    before = torch.get_rng_state()
    first, second = Digits(), Digits()
    assert torch.equal(first.test, second.test)
    assert torch.equal(before, torch.get_rng_state())


def test_idx_reads_grey_levels_in_the_official_order(idx_folder):
    loaded = Idx(str(idx_folder), binary=False)
    raw = gzip.decompress((idx_folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    assert loaded.levels == 256
    assert loaded.train.shape == (50_000, 4)
    assert torch.equal(
        torch.cat([loaded.train, loaded.val]).flatten(),
        torch.frombuffer(bytearray(raw), dtype=torch.uint8),
    )


def test_idx_binarizes_validation_and_test_once_and_training_images_each_time(idx_folder):
    first, second = Idx(str(idx_folder)), Idx(str(idx_folder))
    assert torch.equal(first.test, second.test)
    assert set(first.val.unique().tolist()) == {0.0, 1.0}
    batches = first.batches(50_000)
    (one,), (two,) = next(batches.epoch(epoch=0)), next(batches.epoch(epoch=0))
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(one, two)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected train-images-idx3-ubyte or .*\.gz in .*got neither"
    ):
        Idx(str(tmp_path))


def test_a_file_of_labels_is_refused(tmp_path):
    labels = struct.pack(">ii", 2049, 3) + bytes(3)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(labels)
    with pytest.raises(
        ValueError, match=r"magic 2051\), got uint8 \(3,\)\. Fix: put the file of images"
    ):
        Idx(str(tmp_path))


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    header = struct.pack(">iiii", 2051, 3, 2, 2)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + bytes(8))
    with pytest.raises(ValueError, match=r"expected 3 rows of 4 bytes, got 8 bytes. Fix"):
        Idx(str(tmp_path))


def test_openml_offline_says_what_to_do(monkeypatch):
    import sklearn.datasets

    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(
        ConnectionError, match=r"expected to reach openml.org .*no route.*Fix: go online once"
    ):
        OpenML("mnist_784")


def test_openml_splits_like_idx(monkeypatch):
    import sklearn.datasets

    pixels = np.tile(np.arange(4.0), (60_003, 1))
    monkeypatch.setattr(
        sklearn.datasets, "fetch_openml", lambda *_, **__: type("B", (), {"data": pixels})
    )
    loaded = OpenML("mnist_784", binary=False)
    assert [len(p) for p in (loaded.train, loaded.val, loaded.test)] == [50_000, 10_000, 3]
    assert loaded.event_shape == (2, 2)


def test_too_few_images_and_odd_shapes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_idx(tmp_path, "train", rng.integers(0, 256, (600, 2, 3), dtype=np.uint8))
    write_idx(tmp_path, "t10k", rng.integers(0, 256, (5, 2, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError,
        match=r"expected square images, more than 50,000 .*got 600 and 5 images of 6 pixels",
    ):
        Idx(str(tmp_path))


def test_grey_values_that_are_no_bytes_are_refused_and_not_cut_to_zero(monkeypatch):
    import sklearn.datasets

    pixels = np.full((60_003, 4), 0.5)
    monkeypatch.setattr(
        sklearn.datasets, "fetch_openml", lambda *_, **__: type("B", (), {"data": pixels})
    )
    with pytest.raises(
        ValueError, match=r"expected grey levels 0, …, 255, got others in 'x'\. Fix: Data\("
    ):
        OpenML("x")


@pytest.mark.parametrize(("val", "test"), [(0, 10), (1000, 797), (2000, 10)])
def test_empty_splits_of_the_digits_are_refused(val, test):
    with pytest.raises(ValueError, match=r"expected non-empty splits of 1797 images.*Fix: Digits"):
        Digits(val, test)


@pytest.fixture
def faces(tmp_path):
    """A file of the right shape whose image n holds n in its first two pixels."""
    images = np.random.default_rng(0).integers(0, 256, (1965, 28, 20), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(1965) // 256, np.arange(1965) % 256
    np.savez(tmp_path / "faces.npz", images=images)
    return tmp_path / "faces.npz", images


def test_frey_faces_are_split_at_random_without_losing_or_repeating_one(faces):
    path, images = faces
    data = FreyFaces(str(path))
    assert [len(p) for p in (data.train, data.val, data.test)] == [1565, 200, 200]
    assert (data.event_shape, data.levels, data.dynamic) == ((28, 20), 256, False)
    everything = torch.cat([data.train, data.val, data.test])
    assert everything.dtype == torch.get_default_dtype()
    index = (256 * everything[:, 0] + everything[:, 1]).long()
    assert sorted(index.tolist()) == list(range(1965))
    assert index.tolist() != list(range(1965))
    assert torch.equal(
        everything, torch.as_tensor(images.reshape(1965, -1))[index].to(everything.dtype)
    )


def test_the_split_of_the_faces_is_a_function_of_its_seed_and_leaves_the_users_alone(faces):
    path, _ = faces
    before = torch.get_rng_state()
    first, again, other = FreyFaces(str(path)), FreyFaces(str(path)), FreyFaces(str(path), split=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.test, other.test)
    (batch,) = next(first.batches(100).epoch())
    assert batch.shape == (100, 560)


def test_missing_faces_are_named_with_the_fix(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"FreyFaces: expected an \.npz file .*got no file .*nowhere\.npz\. Fix: --data\.",
    ):
        FreyFaces(str(tmp_path / "nowhere.npz"))


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"images": np.zeros((1965, 28, 20))}, r"got float64 \(1965, 28, 20\)\. Fix: np.savez"),
        ({"images": np.zeros((1965, 20, 28), np.uint8)}, r"got uint8 \(1965, 20, 28\)"),
        ({"faces": np.zeros((1965, 28, 20), np.uint8)}, r"got float64 \(0,\)"),
    ],
    ids=["floats", "turned", "other_name"],
)
def test_other_faces_are_refused(tmp_path, content, got):
    np.savez(tmp_path / "faces.npz", **content)
    with pytest.raises(
        ValueError, match=rf"FreyFaces: expected uint8 images \(1965, 28, 20\), {got}"
    ):
        FreyFaces(str(tmp_path / "faces.npz"))


@pytest.mark.parametrize(
    ("toy", "num"), [(ring(), 8), (ring(5, 1.0, 0.3), 5), (grid(), 25), (normal(1.0, 2.0), 1)]
)
def test_toys_have_distinct_modes_and_are_drawn_from_their_law(toy, num):
    """Shares of the modes within 5 standard errors, the spread about the nearest one within 5."""
    assert len(toy.centres.unique(dim=0)) == num
    x = toy.sample(4000)
    distances = torch.cdist(x, toy.centres)
    shares = distances.argmin(1).bincount(minlength=num) / 4000
    assert (shares - 1 / num).abs().max() <= 5 * (1 / num * (1 - 1 / num) / 4000) ** 0.5
    if num == 25 or toy.centres.shape[1] == 1:
        variance = (distances.min(1).values.square() / x.shape[1]).mean()
        assert abs(variance / toy.sd**2 - 1) < 5 * (2 / x.numel()) ** 0.5


def test_toys_are_seeded_and_leave_the_random_state_alone():
    before = torch.get_rng_state()
    assert torch.equal(ring().sample(5, seed=1), ring().sample(5, seed=1))
    assert not torch.equal(ring().sample(5, seed=1), ring().sample(5, seed=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_density_of_a_ring_is_its_entropy_in_the_mean():
    """Modes that do not overlap: log 8 + log(2 π e σ²) nats, to 5 standard errors."""
    toy = ring()
    log_p = toy.distribution.log_prob(toy.sample(5000))
    exact = -np.log(8 * 2 * np.pi * np.e * 0.01)
    assert abs(log_p.mean() - exact) < 5 * log_p.std() / 5000**0.5


def test_a_ring_with_a_mode_twice_is_refused():
    with pytest.raises(
        ValueError, match=r"Modes: expected distinct centres .* got centres \(3, 1\), 2 of them"
    ):
        Modes(torch.tensor([[0.0], [1.0], [0.0]]), 1.0)
    with pytest.raises(ValueError, match=r"Modes: expected .* sd > 0, got .* sd=0\.0\. Fix: Modes"):
        ring(sd=0.0)


def test_stacked_images_carry_the_labels_of_their_channels():
    labels = torch.arange(10)
    images, found = stacked(labels[:, None, None].expand(10, 2, 2), labels, 6000, seed=3)
    assert images.shape == (6000, 3, 2, 2)
    assert torch.equal(found, (images[:, :, 0, 0] * torch.tensor([100, 10, 1])).sum(1))
    assert found.unique().numel() > 980  # 6,000 draws leave 1,000 e⁻⁶ = 2.5 of 1,000 modes out
    assert torch.equal(
        stacked(images[:10], labels, 7, seed=1)[1], stacked(images[:10], labels, 7, seed=1)[1]
    )


@pytest.mark.parametrize(
    "labels", [torch.arange(9), torch.arange(10) + 1, torch.zeros(10, 2).long()]
)
def test_labels_that_are_no_digits_are_refused(labels):
    with pytest.raises(ValueError, match="stacked: expected images .* and N labels 0, …, 9.*Fix"):
        stacked(torch.zeros(10, 4), labels, 5)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(20), b"PK\x03\x04" + bytes(20)])
def test_damaged_files_of_images_are_named(content, tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(FileError, match="(?s)train-images-idx3-ubyte.gz: expected .*, got .*Fix: "):
        read_idx_images(tmp_path, "train")
    (tmp_path / "faces.npz").write_bytes(content)
    with pytest.raises(FileError, match="(?s)faces.npz: expected .*, got .*Fix: "):
        read_faces(tmp_path / "faces.npz")
