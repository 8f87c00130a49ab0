"""Where the file of an experiment is: in the catalogue, or one's own."""

from __future__ import annotations

from pathlib import Path

from ..catalogue.listing import catalogue
from ..spelling import nearest


def find_experiment(name: str) -> Path:
    """The file of an experiment: that of the catalogue, or one's own.

    Raises:
        ValueError: for a name that is neither, with the nearest ones.
    """
    known = catalogue()
    if name in known:
        return known[name][0]
    if Path(name).suffix in (".yaml", ".yml") or Path(name).exists():
        return Path(name)
    near = nearest(name, known)
    fix = f"did you mean '{near}'" if near else "pyro-dgm recipes, for all of them"
    raise ValueError(
        f"experiment: expected a YAML file or one of {list(known)}, got '{name}'. Fix: {fix}."
    )
