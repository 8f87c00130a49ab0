"""A folder has one owner; the lock of a dead one is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pyro_dgm.files.errors import FileError
from pyro_dgm.files.locking import LOCK, make_folder, owned, require_room

OWNER = """
import sys, time
from pathlib import Path
from pyro_dgm.files.locking import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that owns the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_a_living_process_owns_is_refused_with_its_pid_and_host(owner, tmp_path):
    message = (
        rf"\.lock: expected a folder that no other process writes to, got process {owner.pid} on "
        rf"{socket.gethostname()}, a run that lives\. Fix: wait until it has ended"
    )
    with pytest.raises(FileError, match=message), owned(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()


def test_the_lock_of_a_killed_process_is_taken_over(owner, tmp_path):
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert (tmp_path / LOCK).exists()
    with owned(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_another_host_is_left_alone(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    with pytest.raises(FileError, match="got process 7 on elsewhere, .*if it is dead, rm "):
        owned(tmp_path).__enter__()
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("content", ["", "torn", "[1]"])
def test_a_lock_that_was_torn_is_taken_over(content, tmp_path):
    (tmp_path / LOCK).write_text(content)
    with owned(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_given_back_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt), owned(tmp_path):
        raise KeyboardInterrupt
    with owned(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_get_folders_of_their_own(tmp_path):
    moment = time.time() + 0.2
    pids = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            time.sleep(max(0.0, moment - time.time()))
            (make_folder(tmp_path / "runs" / "now") / str(number)).touch()
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["now", "now-2", "now-3", "now-4", "now-5", "now-6"]
    assert all(len(list(path.iterdir())) == 1 for path in (tmp_path / "runs").iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    require_room(tmp_path, 1000)
    with pytest.raises(FileError, match="expected room on the disk to write .* MiB to it, got "):
        require_room(tmp_path, 2**60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"runs: expected to write it, got .*Fix: another path"):
        make_folder(tmp_path / "file" / "runs")
