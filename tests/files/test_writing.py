"""Files appear whole or not at all, and a folder that can't be written says so."""

import errno
import os
import pickle
import subprocess
import sys
import threading

import pytest

from pyro_dgm.files.errors import FileError, named
from pyro_dgm.files.writing import older, sweep, write_file, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_written_with_its_folder_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "größer")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größer".encode()
    assert names(tmp_path / "a") == ["b.txt"]


def test_file_and_folder_are_synced_before_and_after_the_new_name(tmp_path, monkeypatch):
    calls, sync, move = [], os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda fd: (calls.append("sync"), sync(fd)))
    monkeypatch.setattr("os.replace", lambda a, b: (calls.append("move"), move(a, b)))
    write_file(tmp_path / "x", b"1")
    assert calls == ["sync", "move", "sync"]


FAULTS = [
    (errno.ENOSPC, "expected room on the disk to write it, got no space left on device. Fix: free"),
    (
        errno.EDQUOT,
        "expected room on the disk to write it, got disk quota exceeded. Fix: free some",
    ),
    (errno.EROFS, "expected leave to write it, got read-only file system. Fix: change its perm"),
    (
        errno.EACCES,
        "expected leave to write it, got permission denied. Fix: change its permissions",
    ),
    (errno.EIO, "expected to write it, got input/output error. Fix: another path"),
]


@pytest.mark.parametrize(("number", "message"), FAULTS)
@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_disk_that_fails_is_named_and_leaves_the_old_file_alone(
    number, message, call, tmp_path, monkeypatch
):
    write_file(tmp_path / "run.pt", b"old")
    monkeypatch.setattr(call, failing(number))
    with pytest.raises(FileError, match=f"run.pt: {message}"):
        write_file(tmp_path / "run.pt", b"new")
    monkeypatch.undo()
    assert (tmp_path / "run.pt").read_bytes() == b"old"
    assert names(tmp_path) == ["run.pt"]


LIMITED = """
import resource, sys
from pyro_dgm.files.writing import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_file(sys.argv[1], bytes(5000))
"""


def test_a_full_disk_of_the_operating_system_itself_is_named(tmp_path):
    path = tmp_path / "big"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=120
    )
    assert "big: expected room on the disk to write it, got file too large. Fix:" in done.stderr
    assert names(tmp_path) == []


def test_a_path_through_a_file_is_named(tmp_path):
    write_file(tmp_path / "x", b"1")
    with pytest.raises(FileError, match=r"x/y: expected to write it, got .*Fix: another path"):
        write_file(tmp_path / "x" / "y", b"1")


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    pid = dead.stdout.decode().strip()
    leftovers = {
        f".x.here.{pid}.ab.tmp": False,
        f".x.here.{os.getpid()}.ab.tmp": True,
        ".x.there.7.ab.tmp": True,
        ".x.there.8.ab.tmp": False,
        f".xyz.here.{pid}.ab.tmp": True,
    }
    for name in leftovers:
        (tmp_path / name).touch()
    os.utime(tmp_path / ".x.there.8.ab.tmp", (0, 0))
    write_file(tmp_path / "x", b"1")
    assert names(tmp_path) == sorted(["x", *(name for name, stays in leftovers.items() if stays)])
    sweep(tmp_path)
    assert f".xyz.here.{pid}.ab.tmp" not in names(tmp_path)


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    contents = [bytes([i]) * 10_000 for i in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "x", c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents
    assert names(tmp_path) == ["x"]


def test_the_versions_before_it_are_kept_where_asked(tmp_path):
    path = tmp_path / "x"
    for content in (b"1", b"2", b"3", b"4"):
        write_file(path, content, keep=3)
    assert [p.read_bytes() for p in (path, older(path), older(path, 2))] == [b"4", b"3", b"2"]
    assert names(tmp_path) == ["x", "x.1", "x.2"]


def test_a_disk_without_second_names_keeps_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("os.link", failing(errno.EPERM))
    for content in (b"1", b"2"):
        write_file(tmp_path / "x", content, keep=2)
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "x.1").read_bytes()) == (b"2", b"1")


def test_the_newest_is_there_at_every_moment_of_a_rotation(tmp_path, monkeypatch):
    path, move, seen = tmp_path / "x", os.replace, []
    for content in (b"1", b"2"):
        write_file(path, content, keep=3)

    def watched(source, target):
        seen.append(path.read_bytes())
        move(source, target)
        seen.append(path.read_bytes())

    monkeypatch.setattr("os.replace", watched)
    write_file(path, b"3", keep=3)
    assert seen == [b"2"] * 5 + [b"3"]


def test_the_error_knows_its_parts_and_travels_between_processes():
    error = pickle.loads(pickle.dumps(FileError("a/b", "this", "that", "do it")))
    assert (str(error.path), error.expected, error.got, error.fix) == (
        "a/b",
        "this",
        "that",
        "do it",
    )
    assert str(error) == "a/b: expected this, got that. Fix: do it."
    assert isinstance(error, OSError)
    assert isinstance(error, ValueError)


def test_an_error_that_is_named_already_keeps_its_name():
    with pytest.raises(FileError, match="^inner: "), named("outer", "write"):
        raise FileError("inner", "this", "that", "do it")
