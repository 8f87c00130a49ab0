"""Errors in the words of this package: without those of the parser around them, and without tables in one line."""

from __future__ import annotations

TABLES = ("Sites of the model:", "Trace Shapes:")  # what ends an error in Python, as lines
OF_PARSER = ("Problem with given class_path", "Does not validate against any of the Union")


def own_words(message: str) -> str:
    r"""What a constructor has said, without what the parser has said around it.

    Example:
        >>> own_words("Problem with given class_path 'a.B':\n  B: expected num >= 1, got 0. Fix: B(1).")
        'B: expected num >= 1, got 0. Fix: B(1).'
    """
    if not message.startswith(OF_PARSER):
        return message
    for line in message.split("\n"):
        if ": expected " in line and "Fix:" in line:
            return line.strip().removeprefix("- ")
    return message


def in_one_line(message: str) -> str:
    r"""An error in one line, without the table of sites that ends it.

    Example:
        >>> in_one_line("model: it fails;\nFix: this.\n\nSites of the model:\nTrace Shapes:  \n")
        'model: it fails; Fix: this.'
    """
    for table in TABLES:
        message = message.partition(table)[0]
    return " ".join(message.split())


def with_owner(owner: str, message: str) -> str:
    """An error behind the name of the part that it is about, which it may have already.

    Example:
        >>> with_owner("model", "expected a prior."), with_owner("model", "model.latent: expected 1.")
        ('model: expected a prior.', 'model.latent: expected 1.')
    """
    has_it = message.startswith((f"{owner}:", f"{owner}."))
    return message if has_it else f"{owner}: {message}"
