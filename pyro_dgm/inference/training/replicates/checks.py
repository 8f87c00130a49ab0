"""What several runs side by side need: seeds, and trainers that share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...process.distributed import rank_and_world
from ..trainer import Trainer


def check_seeds(seeds: Sequence[int], build: Any) -> None:
    """Refuse what builds nothing, no seed, a seed twice, and several processes."""
    if not callable(build):
        raise TypeError(
            f"Replicates: expected a function that builds a trainer, got {type(build).__name__}. "
            "Fix: def build(): vae = …; return SVITrainer(ELBO(vae.model, vae.guide))."
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"Replicates: expected at least one seed, each once, got {seeds}. Fix: seeds=range(5)."
        )
    _, world = rank_and_world()
    if world > 1:
        raise ValueError(
            f"Replicates: expected one process, got {world} that exchange gradients. Fix: no "
            "init_process_group, and seeds=range(16)[rank::world] in each process."
        )


def check_trainers(trainers: Sequence[Trainer]) -> None:
    """Refuse what is no trainer, and parts that two of them share: one would move the other."""
    owners: dict[int, int] = {}
    for number, trainer in enumerate(trainers):
        if not isinstance(trainer, Trainer):
            raise TypeError(
                "Replicates: expected a function that builds a trainer, got one that builds "
                f"{type(trainer).__name__}. Fix: return SVITrainer(ELBO(vae.model, vae.guide))."
            )
        for name, tensor in (*trainer.module.named_parameters(), *trainer.module.named_buffers()):
            if owners.setdefault(id(tensor), number) != number:
                raise ValueError(
                    f"Replicates: expected parts of its own for each run, got '{name}' in two of them. "
                    "Fix: build networks, model and guide inside of build()."
                )
