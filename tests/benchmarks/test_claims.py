"""The page of evidence is that of its rows; their commands are there, and their figures can be read back."""

import ast
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import evidence
from claims.page import MARK, written
from claims.rows import Evidence, Row, read_figure

ALL = Evidence.read(evidence.ROWS)
COMMANDS = dict.fromkeys(row.command for row in ALL.rows.values())
ROW = Row(
    part="A part",
    what="a number",
    published="1",
    source="nobody",
    figure=1.5,
    error=0.3,
    over="2 seeds",
    command="python -c \"print('found: 2.123 ± 0.4')\"",
    prints="found: {figure} ± {error}",
    machine="here",
    minutes=None,
    day="2026-01-01",
)


def test_the_page_is_made_of_the_rows():
    page = evidence.PAGE.read_text()
    assert written(page, ALL) == page, "Fix: python tests/benchmarks/evidence.py --page"


def test_the_file_is_as_it_is_written():
    """Then --write changes the rows that were measured and no other line."""
    assert ALL.text() == evidence.ROWS.read_text()


@pytest.mark.parametrize("name", ALL.rows)
def test_a_row_is_whole(name):
    row = ALL.rows[name]
    assert row.machine in ALL.machines
    assert row.missed or row.figure is not None
    line = row.prints.replace("{figure}", "−3.25").replace("{error}", "1.2e-01")
    line = line.replace("{skip}", "17").replace("…", "and so on").replace(" ", "   ")
    has_error = "{error}" in row.prints
    assert read_figure(row, f"-1\n{line}\n0") == (-3.25, 0.12 if has_error else None)
    assert (row.error is not None) == (has_error and row.figure is not None)


def options_of(script):
    """What a script takes: literals `--option`, also of the parser that races share, and what `main` takes."""
    sources = [script]
    if "races.racing import" in script.read_text():
        sources.append(script.parent / "races" / "racing.py")
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and str(node.value).startswith("--"):
                found.add(node.value)
            if isinstance(node, ast.FunctionDef) and node.name == "main":
                found |= {f"--{argument.arg}" for argument in node.args.args}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_script_that_takes_its_options(command, tmp_path):
    for _, *words in evidence.words_of(command, tmp_path / "a b", tmp_path):
        if words[0] == "-m":
            continue  # that the command line takes it, is tested for every page
        script = evidence.ROOT / words[0]
        options = {w.split("=")[0].split(".")[0] for w in words[1:] if w.startswith("--")}
        assert options <= options_of(script)


def fake(tmp_path, row=ROW):
    """A file of rows and its page."""
    rows, page = tmp_path / "evidence.yaml", tmp_path / "reproduce.md"
    rows.write_text(Evidence({"here": "this machine"}, {"one": row, "other": ROW}).text())
    page.write_text(f"Before.\n<!-- {MARK} -->\nstale\n<!-- end of {MARK} -->\nAfter.\n")
    return rows, page


def test_a_measured_row_is_compared_and_written_back_with_its_page(tmp_path, capsys):
    rows, page = fake(tmp_path)
    evidence.main(["one", "--rows", str(rows), "--write", "here"])
    # (2.12 - 1.5) / sqrt(0.3² + 0.4²)
    assert "1.5 ± 0.3 stands, 2.12 ± 0.40 found" in capsys.readouterr().out
    found = Evidence.read(rows).rows
    assert (found["one"].figure, found["one"].error) == (2.12, 0.4)
    assert found["one"].minutes < 1
    assert found["other"] == ROW
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "| [a number](#one) | 1 | 2.12 ± 0.40 | 2 seeds |" in text
    assert "stale" not in text


def test_a_difference_is_in_standard_errors_of_both():
    text = evidence.compared("one", ROW, replace(ROW, figure=2.5, error=0.4))
    assert text.endswith("; +2.0 standard errors")
    assert evidence.compared("one", replace(ROW, figure=None), ROW).endswith("published 1")


@pytest.mark.parametrize(
    ("command", "error", "match"),
    [
        ("python -c 'print(1)'", ValueError, "expected a line 'found: "),
        ("python -c 'raise SystemExit(3)'", RuntimeError, "ended with 3"),
    ],
)
def test_a_command_that_fails_says_so_and_writes_nothing(tmp_path, command, error, match):
    rows, _ = fake(tmp_path, replace(ROW, command=command))
    before = rows.read_text()
    with pytest.raises(error, match=match):
        evidence.main(["one", "--rows", str(rows), "--write", "here"])
    assert rows.read_text() == before


def test_rows_that_there_are_not_are_refused(tmp_path, capsys):
    rows, _ = fake(tmp_path)
    with pytest.raises(SystemExit):
        evidence.main(["none", "--rows", str(rows)])
    assert "expected rows of ['one', 'other']" in capsys.readouterr().err


def test_without_names_the_rows_are_listed(tmp_path, capsys):
    rows, _ = fake(tmp_path)
    evidence.main(["--rows", str(rows)])
    assert "other" in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_is_measured_end_to_end(tmp_path, monkeypatch):
    """Eight schools against their exact moments, half a minute."""
    monkeypatch.setenv("PYRO_DGM_FIGURES", str(tmp_path))
    rows, page = fake(tmp_path)
    rows.write_text(ALL.text())
    evidence.main(["eight-schools", "flow-guide-bound", "--rows", str(rows), "--write", "cpu"])
    found = Evidence.read(rows).rows
    assert found["eight-schools"].figure <= 0.05
    assert found["flow-guide-bound"].figure == pytest.approx(-40.16, abs=0.05)
    assert f"| {found['eight-schools'].ours} | one seed |" in page.read_text()
