"""Where each file of a run directory stands."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULTS = "results.jsonl"
CHECKPOINTS = "checkpoints"
POSTERIOR = "posterior.nc"


def checkpoint_of(folder: Path, seed: int) -> Path:
    """The newest checkpoint of a seed."""
    return folder / CHECKPOINTS / f"seed-{seed}.pt"


def weights_of(seed: int) -> str:
    """The weights of a seed, by their name in the directory."""
    return f"weights/seed-{seed}.safetensors"


def scores_of(seed: int) -> str:
    """The likelihood of each test datum under a seed, by its name in the directory."""
    return f"scores/seed-{seed}.npz"
