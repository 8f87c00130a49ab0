"""What a run was made with: versions, machine, revision of the code, command, and the data."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..data.datasets import SPLITS, Data
from ..data.fingerprints import fingerprint

PACKAGES = ("pyro_dgm", "torch", "pyro-ppl", "numpy", "arviz", "xarray", "jsonargparse")


def environment_of(
    data: Data, device: torch.device, modules: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything beside the configuration on which the numbers of a run may depend.

    Args:
        data: what it is trained on.
        device: where.
        modules: of the user's own, with the folder of each.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "modules": dict(modules or {}),
        "git": _revision(Path.cwd()),
        "data": {
            "fingerprint": fingerprint(data),
            "num": {name: len(getattr(data, name)) for name in SPLITS},
            "event_shape": list(data.event_shape),
            "kind": data.kind.value,
            "levels": data.levels,
            "said": data.said,
        },
    }


def to_json(environment: dict[str, Any]) -> bytes:
    """As it stands in `environment.json`."""
    return f"{json.dumps(environment, indent=2)}\n".encode()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _revision(folder: Path) -> str | None:
    """The commit that the current folder stands at, with `-dirty` if it was changed; `None` outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
