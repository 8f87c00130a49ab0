"""Words of a command line: an experiment, the flags that change it, and those of the command itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..spelling import nearest

EVERYWHERE = ("config", "trust", "help")  # flags of every command that takes an experiment


def normalise(arguments: Sequence[str]) -> list[str]:
    """The words with underscores for the hyphens in names of flags; a `--no-` in front stays.

    Example:
        >>> normalise(["my-run", "--batch-size=3", "--out=my-run", "--no-print-config"])
        ['my-run', '--batch_size=3', '--out=my-run', '--no-print_config']
    """
    found: list[str] = []
    for word in arguments:
        name, joined, value = word.partition("=")
        if name.startswith("--"):
            start = "--no-" if name.startswith("--no-") else "--"
            word = start + name.removeprefix(start).replace("-", "_") + joined + value
        found.append(word)
    return found


def refuse_misspelt(
    flags: Sequence[str], places: Collection[str], own: Collection[str], command: str
) -> None:
    """Refuse a flag that is none, where one of the command's own is nearest; the others have answers of their own.

    Args:
        flags: those of the experiment, as it seems.
        places: of an experiment.
        own: the command's flags.
        command: its name.

    Raises:
        ValueError: with the nearest flag.
    """
    own = (*own, *EVERYWHERE)
    for flag in flags:
        name = flag.removeprefix("--").partition("=")[0]
        if not flag.startswith("--") or name.rstrip("+").split(".")[0] in (*places, *own):
            continue
        near = nearest(name, [*places, *own])
        if near in own:
            raise ValueError(
                f"{name}: expected a flag of pyro-dgm {command}, got '--{name}'. Fix: did you mean --{near}."
            )


def split_flags(
    arguments: Sequence[str], valued: Sequence[str], switches: Sequence[str]
) -> tuple[str | None, list[str], dict[str, Any]]:
    """What is named first, the flags of the experiment, and those of the command.

    Args:
        arguments: all words.
        valued: names of the command's flags that have a value; one that ends in a dot stands for all that begin so.
        switches: names of those that have none.

    Returns:
        The third is a name → a word, or whether a switch is on; `None` where it was not given.

    Example:
        >>> split_flags(["digits", "--out", "runs/a", "--epochs=3", "--quiet"], ["out"], ["quiet"])
        ('digits', ['--epochs=3'], {'out': 'runs/a', 'quiet': True})
    """
    source = None
    if arguments and not arguments[0].startswith("-"):
        source, *arguments = arguments
    own: dict[str, Any] = {name: None for name in (*valued, *switches) if not name.endswith(".")}
    beginnings = tuple(name for name in valued if name.endswith("."))
    flags: list[str] = []
    words = iter(arguments)
    for word in words:
        name, is_joined, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            flags.append(word)
        elif name in valued or (beginnings and name.startswith(beginnings)):
            own[name] = value if is_joined else next(words, None)
        elif name in switches:
            own[name] = value not in ("false", "no")
        else:
            flags.append(word)
    return source, flags, own
