"""What a page shows: its fenced blocks, and whether a program printed what stands in one, up to its numbers."""

from __future__ import annotations

import re

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
SHAPE = re.compile(
    r"\(\d+,(?: \d+,?)*\)|Size\(\[[\d, ]*\]\)|'\w+': \d+(?=[,}])"
)  # (4, 50), 'draw': 50
LEFT_OUT = re.compile(r"^[ \t]*…[ \t]*$", flags=re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def examples(text: str) -> list[tuple[str, str]]:
    """Each block of Python and its output: the block of `text` right behind it, or "" where none is."""
    pattern = r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?"
    return re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)


def shape_of(text: str) -> str:
    """A text without its numbers, but for shapes, and without the space that aligns them."""
    masked = re.sub(f"({SHAPE.pattern})|{NUMBER.pattern}", lambda found: found[1] or "#", text)
    return re.sub(r"\s+", " ", masked).strip()


def is_printed(shown: str, printed: str) -> bool:
    """Whether the outputs agree but for numbers and space; a line `…` stands for any lines."""
    parts = [re.escape(shape_of(part)) for part in LEFT_OUT.split(shown)]
    return re.fullmatch(".*".join(parts), shape_of(printed)) is not None
