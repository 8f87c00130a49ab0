"""Folders of pictures as data: grey and colour, classes, splits, sizes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from written import everything, multiset, write_pictures

from pyro_dgm.datasets import File
from pyro_dgm.files.errors import FileError


def test_grey_pictures_are_bytes(tmp_path):
    arrays = write_pictures(tmp_path / "p", 20)
    data = File(str(tmp_path / "p"))
    assert (data.event_shape, data.levels, data.train.dtype) == ((6, 5), 256, torch.uint8)
    assert multiset(everything(data)) == multiset(arrays.reshape(20, -1))
    assert data.labels == {}
    assert data.said[0] == "data: 20 images of 6×5, uint8: 256 levels (--data.levels)"


def test_colours_come_first_and_folders_are_classes(tmp_path):
    cats = write_pictures(tmp_path / "p" / "cat", 10, mode="RGB", seed=1)
    dogs = write_pictures(tmp_path / "p" / "dog" / "deeper", 10, mode="RGB", seed=2)
    (tmp_path / "p" / ".hidden").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("no picture")
    data = File(str(tmp_path / "p"))
    assert (data.event_shape, data.classes) == ((3, 6, 5), ["cat", "dog"])
    rows = [np.moveaxis(a, 3, 1).reshape(10, -1) for a in (cats, dogs)]
    labels = np.concatenate([np.asarray(data.labels[s]) for s in ("train", "val", "test")])
    for number, of_class in enumerate(rows):
        assert multiset(everything(data)[labels == number]) == multiset(of_class)
    assert data.num_context == 0
    assert File(str(tmp_path / "p"), context=["folder"]).num_context == 2
    of_labels = "labels: 2 classes by 'folder', kept for figures; not used by the model"
    assert f"{of_labels} (--data.labels)" in data.said


def test_folders_of_splits_are_splits_with_one_list_of_classes(tmp_path):
    parts = {}
    for seed, (split, word) in enumerate(
        {"train": "train", "val": "valid", "test": "test"}.items()
    ):
        for name in "ab" if split != "val" else "b":
            parts[split, name] = write_pictures(tmp_path / word / name, 3, seed=seed)
    data = File(str(tmp_path))
    assert data.classes == ["a", "b"]
    assert data.labels["val"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(data.val, parts["val", "b"].reshape(3, -1))
    assert "as in the file" in data.said[1]


def test_a_picture_in_colour_makes_all_of_them_colour(tmp_path):
    grey = write_pictures(tmp_path / "p", 19)
    Image.fromarray(np.full((6, 5, 4), 7, np.uint8)).save(tmp_path / "p" / "z.png")
    data = File(str(tmp_path / "p"))
    assert data.event_shape == (3, 6, 5)
    expected = [*np.repeat(grey[:, None], 3, axis=1).reshape(19, -1), np.full(90, 7)]
    assert multiset(everything(data)) == multiset(expected)


def test_palettes_and_single_bits_are_read(tmp_path):
    bits = np.random.default_rng(0).random((20, 4, 4)) < 0.5
    for number, array in enumerate(bits):
        Image.fromarray(array).save(tmp_path / f"{number:02}.png")
    data = File(str(tmp_path))
    assert set(np.unique(everything(data))) == {0, 255}
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P").save(tmp_path / "99.png")
    assert File(str(tmp_path)).event_shape == (3, 4, 4)


def test_pictures_of_16_bits_keep_them(tmp_path):
    arrays = np.random.default_rng(0).integers(0, 2**16, (10, 4, 4), dtype=np.uint16)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{number:02}.png")
    data = File(str(tmp_path))
    assert multiset(everything(data)) == multiset(arrays.reshape(10, -1))
    assert data.levels is None  # too many for levels that nobody asked for
    assert File(str(tmp_path), levels=2**16).levels == 2**16


def test_pictures_of_other_sizes_are_refused_by_name_and_scaled_on_request(tmp_path):
    write_pictures(tmp_path, 20, (6, 6), suffix=".jpg")
    Image.fromarray(np.full((8, 12), 9, np.uint8)).save(tmp_path / "odd.png")
    with pytest.raises(
        FileError,
        match=r"odd\.png: expected 6×6 as 000\.jpg and those before it, got 8×12 .*Fix: --data\.size=6",
    ):
        File(str(tmp_path))
    data = File(str(tmp_path), size=4)
    assert data.event_shape == (4, 4)
    assert 9 * torch.ones(16) in everything(data)
    assert any("scaled to 4×4 and cropped at the centre" in line for line in data.said)
    assert File(str(tmp_path), size=(4, 6)).event_shape == (4, 6)
    with pytest.raises(
        ValueError, match=r"data\.size: expected a height and a width from 1, got 0"
    ):
        File(str(tmp_path), size=0)


def test_scaling_keeps_the_aspect_and_crops_at_the_centre(tmp_path):
    """Twice as wide as high: of the columns 0, 0, 1, 1, 1, 1, 0, 0 the middle ones stay."""
    array = np.zeros((4, 8), np.uint8)
    array[:, 2:6] = 200
    for number in range(10):
        Image.fromarray(array // (1 + number % 2)).save(tmp_path / f"{number}.png")
    assert {tuple(set(row)) for row in File(str(tmp_path), size=4).train.tolist()} == {
        (100,),
        (200,),
    }


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(9), b"no picture at all"])
def test_damaged_pictures_are_named(tmp_path, content):
    write_pictures(tmp_path, 10)
    (tmp_path / "003.png").write_bytes(content)
    with pytest.raises(
        FileError, match=r"003\.png: expected a picture that is whole, got .*Fix: copy"
    ):
        File(str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_that_is_cut_off_is_named(tmp_path, suffix):
    write_pictures(tmp_path, 10, (20, 20), suffix=suffix)
    whole = (tmp_path / f"003{suffix}").read_bytes()
    (tmp_path / f"003{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(FileError, match=r"003\.(png|jpg): expected a picture that is whole"):
        File(str(tmp_path))


def test_pictures_beside_folders_of_classes_are_refused(tmp_path):
    write_pictures(tmp_path / "a", 3)
    write_pictures(tmp_path, 2)
    with pytest.raises(FileError, match=r"folders of classes alone, .*got 2 pictures beside them"):
        File(str(tmp_path))


def write_run(folder):
    """A run with a picture and a report beside it."""
    write_pictures(folder, 1)
    write_pictures(folder / "report", 1)
    (folder / "config.yaml").write_text("epochs: 3\n")


def test_pictures_of_runs_are_no_data(tmp_path):
    write_run(tmp_path / "runs" / "first")
    np.save(tmp_path / "x.npy", np.arange(60).reshape(30, 2))
    np.save(tmp_path / "y.npy", np.arange(60).reshape(30, 2))
    with pytest.raises(
        FileError, match=r"got 2 files of data: x\.npy, y\.npy\. Fix: --data\.path="
    ):
        File(str(tmp_path))
    (tmp_path / "y.npy").unlink()
    assert len(File(str(tmp_path)).train) == 24
    write_pictures(tmp_path / "photos" / "a", 9)
    write_pictures(tmp_path / "photos" / "b", 9)
    write_run(tmp_path / "photos" / "runs" / "second")
    assert File(str(tmp_path / "photos")).classes == ["a", "b"]


def test_too_few_pictures_are_named_with_the_files_beside_them(tmp_path):
    write_pictures(tmp_path / "shots", 2)
    np.save(tmp_path / "x.npy", np.zeros((30, 2)))
    np.save(tmp_path / "y.npy", np.zeros((30, 2)))
    with pytest.raises(
        FileError,
        match=r"expected 6 pictures or more, since a folder is read as a folder of pictures, got 2: "
        r"shots/000\.png, shots/001\.png, beside x\.npy, y\.npy\. Fix: a file, --data\.path=.*x\.npy",
    ):
        File(str(tmp_path))
    write_pictures(tmp_path / "shots", 12)
    said = File(str(tmp_path)).said
    assert "data: the pictures of the folder; not read: x.npy, y.npy (--data.path)" in said


def test_one_picture_is_no_data(tmp_path):
    write_pictures(tmp_path, 1)
    with pytest.raises(
        FileError, match=r"000\.png: expected a file of data .*Fix: the folder that"
    ):
        File(str(tmp_path / "000.png"))
