"""Every `pyro-dgm …` of the README and of the pages is a command that the parser takes, without running it."""

from __future__ import annotations

import re
import shlex
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


def commands_of(text: str) -> list[str]:
    """The words behind `pyro-dgm` or `python -m pyro_dgm` in blocks of the console, and in code that is a command."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(
        r"`(pyro-dgm [a-z]+ [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    lines = [re.sub(r"-m (-- )?pyro_dgm\b", OWN, line) for line in lines]
    found = [
        re.split(r"[;&|>\"']| #|$", line.split(f"{OWN} ", 1)[1])[0]
        for line in lines
        if f"{OWN} " in line
    ]
    return [command.strip() for command in found if "…" not in command]


COMMANDS = sorted({command for path in FILES for command in commands_of(path.read_text())})


def supply(words: list[str]) -> None:
    """Put empty files and folders where a command names data, an experiment or a program."""
    for word in words:
        value = word.split("=", 1)[-1]
        if program := re.fullmatch(r"([\w/]+\.py):(\w+)", value):
            Path(program[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(program[1]).write_text(
                f"class {program[2]}:\n    def __init__(self, latent: int = 8):\n        pass\n"
            )
        elif value.endswith((".yaml", ".yml")):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("data: Digits\nmodel: VAE\n")
        elif word.startswith("--data=") and not value[:1].isupper():
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).touch() if "." in Path(value).name else Path(value).mkdir(exist_ok=True)


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


def test_the_readme_has_commands():
    assert any(command.startswith("fit --data=") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_parses(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verb, *words = shlex.split(command)
    supply(words)
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
