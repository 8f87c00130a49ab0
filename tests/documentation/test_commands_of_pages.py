"""Every `pyro-dgm …` of the README and of the pages is a command that the parser takes, without running it."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from pyro_dgm.experiments.cli.command_line import OWN_SWITCHES, OWN_VALUES, VERBS, main
from pyro_dgm.experiments.cli.flags import split_flags
from pyro_dgm.experiments.cli.settings import asks_for_help
from pyro_dgm.experiments.cli.signatures import command_parser, parse_command
from pyro_dgm.experiments.cli.sweeping import NUMBERS, OVER, SWITCHES, WORDS
from pyro_dgm.experiments.configuration.arguments import read_experiment
from pyro_dgm.experiments.sweeps.ranges import read_space

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "tutorials").rglob("*.md"))]
OWN = "pyro-dgm"


def lines_of(text: str) -> list[str]:
    """The lines in blocks of the console, and code in a sentence or a table that sets a flag."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for code in re.findall(rf"`({OWN} [^`]+)`", prose):
        if re.search(r"--[\w.]+=(?![A-Z]+\b(?!\w))", code):  # and no placeholder, such as FILE
            lines.append(code.replace("\n", " "))
    return [re.sub(r"-m (-- )?pyro_dgm\b", OWN, line) for line in lines]


def commands_of(text: str) -> list[str]:
    """The words behind `pyro-dgm`."""
    found = []
    for line in lines_of(text):
        words = line.partition(f"{OWN} ")[2]
        found.append(re.split(r"[;&|>\"']| #", words)[0].strip())
    return [command for command in found if command and "…" not in command]


def programs_of(text: str) -> dict[str, str]:
    """The Python files that a page writes, by their names."""
    written = re.findall(r"Path\(\"(\w+\.py)\"\)\.write_text\('{3}(.*?)'{3}\)", text, re.DOTALL)
    return dict(written)


TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
PROGRAMS = {page: programs_of(text) for page, text in TEXTS.items()}
PAGE_OF = {command: page for page, text in TEXTS.items() for command in commands_of(text)}
COMMANDS = sorted(PAGE_OF)
# YAML that an earlier command writes, by its name.
WRITTEN: dict[str, str] = {}
for line in (line for text in TEXTS.values() for line in lines_of(text)):
    if printed := re.search(rf"{OWN} fit (.*)--print_config > (\S+)", line):
        WRITTEN[printed[2]] = printed[1]


def supply(words: list[str], programs: dict[str, str]) -> None:
    """Put the programs of its page, the experiment that a command names, and empty data where it looks for them."""
    for name, program in programs.items():
        Path(name).write_text(program)
    for word in words:
        value = word.split("=", 1)[-1]
        Path(value).parent.mkdir(parents=True, exist_ok=True)
        if program := re.fullmatch(r"([\w/]+\.py):(\w+)", value):
            if program[1] not in programs:
                stub = f"class {program[2]}:\n    def __init__(self):\n        pass\n"
                Path(program[1]).write_text(stub)
        elif value in WRITTEN:
            source, flags, _ = split_flags(WRITTEN[value].split(), OWN_VALUES, OWN_SWITCHES)
            Path(value).write_text(read_experiment(source, flags).dump())
        elif word.startswith("--data=") and "." in Path(value).name:
            Path(value).touch()
        elif word.startswith("--data=") and not value[0].isupper():
            Path(value).mkdir(exist_ok=True)


def parse(verb: str, words: list[str]) -> None:
    """What the command line does with the words before it runs the verb."""
    words = [word for word in words if word not in ("--json", "--quiet")]
    if any(word in ("-h", "--help") for word in words) or any(map(asks_for_help, words)):
        main([verb, *words])
    elif verb == "fit":
        source, flags, _ = split_flags(words, OWN_VALUES, OWN_SWITCHES)
        read_experiment(source, flags)
    elif verb == "sweep":
        source, flags, own = split_flags(words, (OVER, *NUMBERS, *WORDS), SWITCHES)
        read_experiment(source, flags)
        read_space({name.removeprefix(OVER): own[name] for name in own if name.startswith(OVER)})
    else:
        parse_command(command_parser(verb, VERBS[verb]), words)


@pytest.fixture
def own_modules(monkeypatch, tmp_path):
    """Modules of one name, each in the folder of its own test: forgotten at its end."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def test_the_readme_has_commands():
    assert any(command.startswith("fit --data=") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("own_modules")
def test_a_command_of_a_page_parses(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verb, *words = shlex.split(command)
    supply(words, PROGRAMS[PAGE_OF[command]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if verb in ("--help", "--version"):
            main([verb])
        else:
            parse(verb, words)


@pytest.mark.parametrize(
    "command",
    [
        "fit digits --model.prior=FlawPrior",
        "fit --epoch=3",
        "compare",
        "recipes --al",
        "fits digits",
    ],
)
def test_a_command_with_a_mistake_does_not_parse(command):
    verb, *words = command.split()
    with pytest.raises((ValueError, SystemExit, KeyError)):
        parse(verb, words)
