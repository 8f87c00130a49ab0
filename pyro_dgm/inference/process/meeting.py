"""Whether all ranks ask the same question at once: then they share its work, and nobody waits for who does not ask."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from time import monotonic, sleep

from torch import distributed
from torch.distributed import PrefixStore

from .distributed import all_ranks_needed, rank_and_world

PATIENCE = 10  # seconds, for the slowest rank
TOGETHER, APART = b"together", b"apart"

# Whether this process asks for itself, which it knows without asking the others.
ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def all_ask(question: str, name: str) -> bool:
    """Whether every rank has asked this question by now, or does so in ten seconds; all of them get one answer.

    Ranks that are told no do all of the work, each for itself: a question that rank 0 asks alone has its answer, too.

    Args:
        question: all that the answer depends on, in a few bytes.
        name: of the function that asks, for the warning.
    """
    rank, world = rank_and_world()
    if world == 1 or ALONE.get():
        return False
    with all_ranks_needed():
        asked = PrefixStore(question, distributed.distributed_c10d._get_default_store())
        round_of_rank = asked.add(f"rounds of {rank}", 1)
        store = PrefixStore(f"round {round_of_rank}", asked)
        if store.add("arrived", 1) == world:
            return _decide(store, TOGETHER) == TOGETHER
        end = monotonic() + PATIENCE
        while monotonic() < end and store.add("proposals", 0) == 0:
            sleep(0.01)
        if _decide(store, APART) == TOGETHER:
            return True
    warnings.warn(
        f"{name}: expected the same question of each of {world} ranks, which share the work, got none of "
        f"another within {PATIENCE} s: rank {rank} does all of it. "
        f"Fix: call {name} on every rank, with the same data and settings.",
        stacklevel=5,
    )
    return False


def _decide(store: PrefixStore, proposal: bytes) -> bytes:
    """The proposal of the first rank that makes one."""
    if store.add("proposals", 1) == 1:
        store.set("decision", proposal.decode())
    return store.get("decision")
