"""The ready experiments that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...display.tabular import Tabular
from ..catalogue.listing import catalogue


@dataclass(frozen=True)
class ReadyExperiments(Tabular):
    """Experiments that `fit` takes by name.

    Attributes:
        names: of them.
        what: each is.
        files: that say it, to copy and change.
    """

    names: list[str]
    what: list[str]
    files: list[Path]

    def columns(self) -> Mapping[str, Any]:
        """A row for each experiment."""
        files = [str(path) for path in self.files]
        columns = {"name": self.names, "what": self.what, "file": files}
        return {name: np.asarray(column, object) for name, column in columns.items()}

    def __str__(self) -> str:
        width = max(map(len, self.names)) + 2
        lines = []
        for name, what in zip(self.names, self.what, strict=True):
            lines.append(f"{name:<{width}}{what}")
        return "\n".join([*lines, "", f"pyro-dgm fit NAME. Files to copy: {self.files[0].parent}"])


def recipes() -> ReadyExperiments:
    """The ready experiments, by name.

    Example:
        >>> "digits" in recipes().names
        True
    """
    found = catalogue()
    files = [path for path, _ in found.values()]
    return ReadyExperiments(list(found), [what for _, what in found.values()], files)
