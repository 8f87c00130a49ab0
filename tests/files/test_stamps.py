"""Digests travel inside the files, which other tools read as before."""

from io import BytesIO
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load, save

from pyro_dgm.files.errors import FileError
from pyro_dgm.files.reading import describe, read_file
from pyro_dgm.files.stamps import (
    check_archive,
    check_tensors,
    digest_of,
    label_of_header,
    stamp_archive,
    stamp_tensors,
)


def archive():
    buffer = BytesIO()
    torch.save({"a": torch.arange(3)}, buffer)
    return bytes(stamp_archive(buffer))


def tensors():
    return stamp_tensors(save({"a": torch.arange(3)}, metadata=label_of_header()))


def test_a_stamped_archive_is_an_archive_of_torch_and_of_zip():
    content = archive()
    assert torch.load(BytesIO(content), weights_only=True)["a"].tolist() == [0, 1, 2]
    assert ZipFile(BytesIO(content)).testzip() is None
    check_archive(content, "x", "no fix")


def test_stamped_tensors_are_safetensors():
    assert load(tensors())["a"].tolist() == [0, 1, 2]
    check_tensors(tensors(), "x", "no fix")


@pytest.mark.parametrize(("content", "check"), [(archive, check_archive), (tensors, check_tensors)])
def test_every_single_bit_matters(content, check):
    content = content()
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(FileError, match="x: expected"):
            check(bytes(flipped), "x", "no fix")


@pytest.mark.parametrize(("content", "check"), [(archive, check_archive), (tensors, check_tensors)])
def test_every_cut_is_found(content, check):
    content = content()
    for size in range(1, len(content), 11):
        with pytest.raises(FileError, match="x: expected"):
            check(content[:size], "x", "no fix")


def test_the_digest_is_blake2b():
    assert digest_of(b"").startswith("0e5751c026e543b2e8ab2eb06099daa1")  # RFC 7693, 32 bytes
    assert len(digest_of(b"x")) == 64


def test_a_file_is_described_by_its_first_bytes():
    assert describe(b"\x89PNG\r\n") == "a PNG picture"
    assert describe(b"\x89HDF\r\n") == "a netCDF file"
    assert describe(archive()) == "a zip archive"
    assert describe(tensors()) == "a safetensors file"
    assert describe(b'{"a": 1}') == "JSON"
    assert describe(b"a: 1") == "a text"
    assert describe(b"\xff\xfe\x00") == "3 bytes of another kind"


def test_a_file_that_is_empty_or_missing_is_refused(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(FileError, match=r"x: expected words, got an empty file. Fix: write."):
        read_file(tmp_path / "x", "words", "write")
    with pytest.raises(FileError, match=r"y: expected words, got no file. Fix: write."):
        read_file(tmp_path / "y", "words", "write")
