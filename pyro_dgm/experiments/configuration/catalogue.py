"""Ready experiments: YAML files that come with the package, by their names."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "catalogue"


def catalogue() -> dict[str, tuple[Path, str]]:
    """Name → its file, and the line that says what it is."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        first = path.read_text().partition("\n")[0]
        found[path.stem] = (path, first.removeprefix("#").strip())
    return found


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
    near = get_close_matches(name, known, n=1)
    fix = f"did you mean '{near[0]}'" if near else "pyro-dgm recipes, for all of them"
    raise ValueError(
        f"experiment: expected a YAML file or one of {list(known)}, got '{name}'. Fix: {fix}."
    )
