"""Files that are empty, cut off, flipped or of another kind: each is named, none ends in another error."""

import numpy as np
import pytest
import torch
from written import write_array

from pyro_dgm.datasets import File
from pyro_dgm.files.errors import FileError

X = np.random.default_rng(0).normal(size=(30, 4))


def write_npz(path):
    np.savez_compressed(path, x=X)


def write_safetensors(path):
    from safetensors.numpy import save_file

    save_file({"x": X}, path)


def write_csv(path):
    np.savetxt(path, X, delimiter=",", header="a,b,c,d", comments="")


WRITERS = {
    "x.npy": lambda path: np.save(path, X),
    "x.npz": write_npz,
    "x.pt": lambda path: torch.save({"x": torch.as_tensor(X)}, path),
    "x.safetensors": write_safetensors,
    "x.csv": write_csv,
    "x.idx": lambda path: write_array(path, X),
    "x.idx.gz": lambda path: write_array(path, X),
}
of_formats = pytest.mark.parametrize("name", WRITERS)


@of_formats
def test_a_whole_file_is_read(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert len(File(str(tmp_path / name)).train) == 24


@of_formats
@pytest.mark.parametrize(
    "other", [b"", b"\0", b"\x89PNG\r\n\x1a\n", b"\0" * 300, b"PK\x03\x04" * 50]
)
def test_other_content_is_named(tmp_path, name, other):
    (tmp_path / name).write_bytes(other)
    with pytest.raises(FileError, match=rf"{name}: expected .*, got .*Fix: "):
        File(str(tmp_path / name))


@of_formats
def test_files_that_are_cut_off_are_named(tmp_path, name):
    """A table that is cut off between two numbers is one; wherever else, it is refused."""
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    if name == "x.csv":
        whole = whole[: 1 + whole.index(b",", 200)]
        (tmp_path / name).write_bytes(whole)
        with pytest.raises(FileError, match=r"x\.csv: expected a number in every place"):
            File(str(tmp_path / name))
        return
    for num in np.linspace(1, len(whole) - 1, 40).astype(int):
        (tmp_path / name).write_bytes(whole[:num])
        with pytest.raises(FileError, match=rf"{name}: expected .*, got .*Fix: "):
            File(str(tmp_path / name))


@of_formats
def test_flipped_bytes_end_in_data_or_in_a_named_error(tmp_path, name):
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    num_refused = num_unnamed = 0
    for place in rng.integers(0, len(whole), 60):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(bytes(spoilt))
        try:
            File(str(tmp_path / name))
        except FileError as error:
            num_refused += str(tmp_path / name) in str(error)
            num_unnamed += str(tmp_path / name) not in str(error)
    assert num_unnamed == 0
    if name in ("x.npz", "x.idx.gz", "x.pt"):  # with sums of their own
        assert num_refused > 30


@of_formats
def test_a_folder_of_that_name_is_no_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match=rf"{name}: expected a folder of pictures, .*got none"):
        File(str(tmp_path / name))
