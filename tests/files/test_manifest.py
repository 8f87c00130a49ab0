"""The digests of a folder stand there before its files do."""

import os

import pytest

from pyro_dgm.files import manifest as module
from pyro_dgm.files.errors import FileError
from pyro_dgm.files.manifest import NAME, Manifest


def read(folder, name="a"):
    return Manifest(folder).read(name, "words", "write them")


def test_a_file_is_read_as_it_was_written(tmp_path):
    Manifest(tmp_path).write("a", b"1")
    Manifest(tmp_path).write("b", b"2")
    assert (read(tmp_path), read(tmp_path, "b")) == (b"1", b"2")
    assert Manifest(tmp_path).changed() == []


def test_a_changed_file_is_refused_by_name(tmp_path):
    Manifest(tmp_path).write("a", b"1")
    (tmp_path / "a").write_bytes(b"2")
    message = r"a: expected words as it was written, got bytes that differ from their digest in dig"
    with pytest.raises(FileError, match=message):
        read(tmp_path)
    assert Manifest(tmp_path).changed() == [tmp_path / "a"]


def test_a_file_that_the_manifest_does_not_know_is_refused(tmp_path):
    Manifest(tmp_path).write("a", b"1")
    (tmp_path / "b").write_bytes(b"2")
    with pytest.raises(FileError, match=f"b: expected words that {NAME} knows, got another file"):
        read(tmp_path, "b")


def test_a_process_killed_between_manifest_and_file_leaves_both_versions_valid(
    tmp_path, monkeypatch
):
    Manifest(tmp_path).write("a", b"1")
    moves, move = [], os.replace

    def killed_at_second(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr("os.replace", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        Manifest(tmp_path).write("a", b"2")
    monkeypatch.undo()
    assert read(tmp_path) == b"1"
    (tmp_path / "a").write_bytes(b"2")
    assert read(tmp_path) == b"2"


def test_a_missing_manifest_is_said_and_the_file_read(tmp_path):
    Manifest(tmp_path).write("a", b"1")
    (tmp_path / NAME).unlink()
    with pytest.warns(UserWarning, match=f"{NAME}: expected the digests of the files beside it"):
        assert read(tmp_path) == b"1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1, "digests": {}}'])
def test_a_damaged_manifest_is_refused_by_name(content, tmp_path):
    Manifest(tmp_path).write("a", b"1")
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(FileError, match=rf"{NAME}: expected the digests .*Fix: rm .*{NAME}"):
        read(tmp_path)


def test_every_flipped_bit_of_a_manifest_is_named(tmp_path):
    Manifest(tmp_path).write("a", b"1")
    content = (tmp_path / NAME).read_bytes()
    for place in range(0, 8 * len(content), 5):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / NAME).write_bytes(flipped)
        with pytest.raises(FileError, match=NAME):
            read(tmp_path)


def test_a_newer_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 9)
    Manifest(tmp_path).write("a", b"1")
    monkeypatch.undo()
    with pytest.raises(FileError, match="expected format 1 or older, got format 9, of a newer"):
        read(tmp_path)
