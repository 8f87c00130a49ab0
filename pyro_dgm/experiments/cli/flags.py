"""Words of a command line: an experiment, the flags that change it, and those of the command itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
