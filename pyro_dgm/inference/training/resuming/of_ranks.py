"""What a file holds of each rank, and what a rank takes of it: on as many ranks all of its own, bit for bit."""

from __future__ import annotations

from typing import Any

import torch

from ...process.distributed import gather, rank_and_world
from ..checkpoints import random_state
from ..epochs import PartialEpoch
from ..running import RunningMeans

State = dict[str, Any]


def gather_others(device: torch.device, partial: PartialEpoch | None) -> list[State]:
    """Random state and partial epoch of every rank but 0, by rank; all of them call it."""
    own = {
        "random": random_state(device),
        "partial": {} if partial is None else partial.state_dict(),
    }
    return gather(own)[1:]


def state_of_rank(state: State, device: torch.device) -> State:
    """What this rank takes of the state in a file, which holds that of rank 0 and, in `ranks`, of the others.

    On as many ranks as wrote it each has its own random state and its own place in the epoch. On another number rank 0
    goes on with its random state, the others are seeded anew, and what is left of the epoch is shared out among them.
    """
    rank, world = rank_and_world()
    first = {"random": state["random"], "partial": state.get("partial") or {}}
    ranks = [first, *state.get("ranks", [])]  # older files hold rank 0 alone
    if len(ranks) == world:
        return {**state, **ranks[rank]}
    random = ranks[0]["random"] if rank == 0 else {}
    partial = _moved([found["partial"] for found in ranks], device) if ranks[0]["partial"] else {}
    return {**state, "random": random, "partial": partial, "ranks": []}


def _moved(partials: list[State], device: torch.device) -> State:
    """A partial epoch of some ranks as one of others: what those have done is a stage of it, and on rank 0."""
    means = RunningMeans(device)
    if rank_and_world()[0] == 0:
        for partial in partials:
            other = RunningMeans(device)
            other.load_state_dict(partial["running"], device)
            means.take_in(other)
    means.num_added = partials[0]["running"]["num_added"]
    seen = [partial["num_seen"] for partial in partials]
    return {
        **partials[0],
        "running": means.state_dict(),
        "num_seen": 0,
        "num_read": 0,
        "stages": [*partials[0].get("stages", []), seen],
    }
