"""What ready experiments there are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def catalogue() -> dict[str, tuple[Path, str]]:
    """The file of each ready experiment and what it is, by name.

    Example:
        >>> path, what = catalogue()["digits"]
        >>> path.name, what.startswith("Handwritten digits")
        ('digits.yaml', True)
    """
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        first_line = path.read_text().split("\n", 1)[0]
        found[path.stem] = (path, first_line.lstrip("# "))
    return found
