"""Rows are appended, and each knows whether it is as it was written."""

import os

import pytest

from pyro_dgm.files.errors import FileError
from pyro_dgm.files.records import append_record, read_records


def test_rows_are_read_as_they_were_appended(tmp_path):
    rows = [{"nll": 1.5, "name": "größer"}, {"nll": float("inf")}, {"limit": None}]
    for row in rows:
        append_record(tmp_path / "r", row)
    assert read_records(tmp_path / "r") == rows
    assert read_records(tmp_path / "none") == []


def test_a_changed_a_torn_and_a_doubled_row_are_named_with_their_line(tmp_path):
    path = tmp_path / "r"
    for value in (1.5, 2.5):
        append_record(path, {"nll": value})
    whole = path.read_text()
    for text, line in (
        (whole.replace("2.5", "2.6"), 2),
        (whole.replace('{"nll": 1.5', '{"nll": 1.4'), 1),
        (whole[:-5], 2),
        (whole + whole.splitlines()[0] + "\n", 3),
        (whole + "\x89PNG\n", 3),
        (whole + "[]\n", 3),
    ):
        path.write_text(text)
        message = (
            rf"r: expected a row as it was written in line {line}, got .*Fix: .*sed -i {line}d"
        )
        with pytest.raises(FileError, match=message):
            read_records(path)


def test_a_torn_row_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "r"
    append_record(path, {"a": 1})
    path.write_bytes(path.read_bytes()[:-5])
    append_record(path, {"a": 2})
    with pytest.raises(FileError, match="line 1"):
        read_records(path)
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    assert read_records(path) == [{"a": 2}]


def test_processes_that_append_at_once_lose_no_row(tmp_path):
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            for step in range(60):
                append_record(tmp_path / "r", {"who": number, "step": step})
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert len(read_records(tmp_path / "r")) == 240
