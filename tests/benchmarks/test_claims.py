"""The page of evidence is that of its rows; their commands are there, and their figures can be read back."""

import ast
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import evidence
from claims.page import MARK, shown, written
from claims.rows import Evidence, Row, counted, read_figure, recounted
from claims.verdicts import Aim, verdict

ALL = Evidence.read(evidence.ROWS)
COMMANDS = dict.fromkeys(row.command for row in ALL.rows.values())
ROW = Row(
    part="A part",
    what="a number",
    published="1",
    better="higher",
    source="nobody",
    figure=1.5,
    error=0.3,
    interval=[1.0, 2.0],
    over="2 seeds, one datum",
    command="python -c \"print('found: 2.123 ± 0.4 in [1.5, 3]')\" --seeds=[0,1,2]",
    prints="found: {figure} ± {error} in [{low}, {high}]",
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
    """Its verdict follows from its numbers; a miss has its reason, and no other row has one."""
    row = ALL.rows[name]
    assert row.machine in ALL.machines
    assert bool(row.missed) == (row.verdict in ("not reached", "not run"))
    assert (row.verdict == "reached") <= (not row.smaller)
    line = row.prints.replace("{figure}", "−3.25").replace("{error}", "1.2e-01")
    line = line.replace("{low}", "-4").replace("{high}", "+2.5")
    line = line.replace("{skip}", "17").replace("…", "and so on").replace(" ", "   ")
    has_error, has_interval = "{error}" in row.prints, "{low}" in row.prints
    found = read_figure(row, f"-1\n{line}\n0")
    assert found == (-3.25, 0.12 if has_error else None, [-4, 2.5] if has_interval else None)
    assert (row.error is not None) == (has_error and row.figure is not None)
    assert (row.interval is not None) == (has_interval and row.figure is not None)


@pytest.mark.parametrize("name", [name for name, row in ALL.rows.items() if row.figure is not None])
def test_a_row_is_over_as_many_seeds_as_its_command_asks_for(name):
    row = ALL.rows[name]
    for what, num in counted(row.command).items():
        assert f"{num} {what}" in row.over
    assert recounted(row.over, row.command) == row.over


def test_seeds_of_a_command_are_counted():
    found = counted("python x.py '--seeds=[0,1,2]' --splits 4 7 --rounds 11 --out a")
    assert found == {"seeds": 3, "splits": 2, "rounds": 11}
    assert counted("python x.py --seeds 5") == {"seeds": 5}
    assert counted("python x.py --seed 5") == {}
    assert recounted("2 of 7 rounds, one seed", "--rounds 9 --seeds 5") == "2 of 9 rounds, 5 seeds"
    assert recounted("3 seeds, 10 images", "--seeds=[4]") == "one seed, 10 images"


@pytest.mark.parametrize(
    ("published", "better", "figure", "error", "expected"),
    [
        ("84.50", "lower", 84.64, 0.22, "reached"),  # within two standard errors
        ("84.50", "lower", 84.64, 0.06, "not reached"),
        ("84.50", "lower", 84.505, None, "reached"),  # prints as 84.50
        ("84.50", "lower", 84.51, None, "not reached"),
        ("−5.99", "higher", -5.9944, 0.0005, "reached"),
        ("−5.99", "higher", -5.996, 0.0005, "not reached"),
        ("1,000", "higher", 999.8, 0.0, "not reached"),  # a count is exact
        ("8", "higher", 8, 0.0, "reached"),
        ("1", "equal", 1.008, 0.0037, "not reached"),
        ("1", "equal", 0.994, 0.0037, "reached"),
        ("≤ 1.15", "", 1.152, None, "not reached"),  # a bar is strict
        ("≤ 1.15", "", 1.152, 0.1, "not reached"),
        ("≥ 9", "", 9, None, "reached"),
        ("≥ 9", "", 8.9, 0.2, "not reached"),
        ("–", "", 3.0, None, ""),
        ("84.50", "lower", None, None, "not run"),
    ],
)
def test_a_figure_is_reached_by_one_rule(published, better, figure, error, expected):
    assert verdict(published, better, figure, error, "") == expected
    smaller = "at smaller size" if expected == "reached" else expected
    assert verdict(published, better, figure, error, "half of the epochs") == smaller


@pytest.mark.parametrize(("published", "better"), [("4.63", ""), ("≤ 1", "lower"), ("< 1", "")])
def test_what_a_figure_is_held_against_has_one_direction(published, better):
    with pytest.raises(ValueError, match="published: expected ≤ or ≥ and a number"):
        Aim.of(published, better)


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_the_page_is_the_command(command):
    """Lines end between words, not within quotes."""
    text = shown(command).replace(" \\\n", " ")
    assert shlex.split(text) == shlex.split(command.format(data="data", out="runs"))


def test_the_page_says_why_a_row_is_missed_and_what_is_smaller():
    rows = {
        "short": replace(ROW, figure=0.1, error=0.1, missed="no time"),
        "small": replace(ROW, smaller="half of the epochs"),
    }
    page = written(
        f"<!-- {MARK} -->\n<!-- end of {MARK} -->", Evidence({"here": "a machine"}, rows)
    )
    assert "- No time:\n  [short](#short), 0.1 ± 0.1 [1, 2] beside 1.\n" in page
    assert "- Half of the epochs:\n  [small](#small), 1.5 ± 0.3 [1, 2] beside 1.\n" in page
    assert "(at smaller size)" in page
    assert "2026-01-01: a machine, CPU time not recorded." in page


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
    text = capsys.readouterr().out
    assert "1.5 ± 0.3 [1, 2] stands, 2.12 ± 0.40 [1.5, 3] found, published 1: reached" in text
    found = Evidence.read(rows).rows
    assert (found["one"].figure, found["one"].error) == (2.12, 0.4)
    assert found["one"].interval == [1.5, 3.0]
    assert found["one"].over == "3 seeds, one datum"  # of the command
    assert found["one"].day > ROW.day
    assert found["one"].minutes < 1
    assert found["other"] == ROW
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "| [a number](#one) | 1 | 2.12 ± 0.40 [1.5, 3] (reached) | 3 seeds, one datum |" in text
    assert "stale" not in text


def test_a_difference_is_in_standard_errors_of_both():
    text = evidence.compared("one", ROW, replace(ROW, figure=2.5, error=0.4))
    assert text.endswith("; +2.0 standard errors")
    text = evidence.compared("one", replace(ROW, figure=None), ROW)
    assert text.endswith("published 1: reached")


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
    assert f"| {found['eight-schools'].ours} (reached) | one seed |" in page.read_text()
