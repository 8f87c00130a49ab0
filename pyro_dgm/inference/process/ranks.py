"""Whether the ranks of a run hold the same: structure before it, weights after each epoch, data as they should."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import copy_from_rank_zero, gather, is_sharded, rank_and_world


def compare_structure(module: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuse ranks whose modules or settings differ: they would wait for each other, or add up unlike parameters.

    Args:
        module: all that is trained.
        settings: what must be equal on all ranks, by name.

    Raises:
        ValueError: on all ranks, with the first line that differs.
    """
    if rank_and_world()[1] == 1:
        return
    lines = [f"{name}={value}" for name, value in settings.items()]
    for name, parameter in module.named_parameters():
        kind = f"{parameter.dtype}, requires_grad={parameter.requires_grad}"
        lines.append(f"parameter '{name}' {tuple(parameter.shape)}, {kind}")
    for name, buffer in module.named_buffers():
        lines.append(f"buffer '{name}' {tuple(buffer.shape)}, {buffer.dtype}")
    of_ranks = gather(lines)
    if all(found == of_ranks[0] for found in of_ranks):
        return
    length = max(len(found) for found in of_ranks)
    padded = [found + ["nothing"] * (length - len(found)) for found in of_ranks]
    differing = next(row for row in zip(*padded, strict=True) if len(set(row)) > 1)
    raise ValueError(
        "fit: expected the same programs and settings on every rank, got "
        f"{_by_rank(differing)}. Fix: build the trainer and call fit in the same way on every rank."
    )


def agree_on_weights(module: nn.Module, averages: Iterable[Tensor] | None = None) -> None:
    """Refuse ranks whose weights have come apart, then give all of them rank 0's buffers.

    Buffers follow each rank's own data (the running statistics of BatchNorm), and are rank 0's as under
    `DistributedDataParallel`.

    Args:
        module: all that is trained.
        averages: further tensors that are functions of the weights.

    Raises:
        ValueError: on all ranks, with the first tensor that differs.
    """
    if rank_and_world()[1] == 1:
        return
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    tensors |= {f"ema[{i}]": average for i, average in enumerate(averages or [])}
    digests = {name: digest(t) for name, t in tensors.items() if not is_sharded(t)}
    of_ranks = gather(list(digests.values()))
    for name, found in zip(digests, zip(*of_ranks, strict=True), strict=True):
        if len(set(found)) > 1:
            raise ValueError(
                f"fit: expected equal weights on every rank, got others from '{name}' on: "
                f"{_by_rank(found)}. Fix: change weights, optimizer and learning rate on every rank alike; "
                "nothing in a program or a callback may depend on the rank but its data and its noise."
            )
    copy_from_rank_zero(module.buffers())


def compare_data(values: Iterable[Any], *, whole: bool, name: str = "data") -> None:
    """Refuse ranks that hold other data than they should.

    Args:
        values: the data, or the first batch of them.
        whole: whether every rank holds all data, of which it takes a part; else every rank has data of its own.
        name: of the argument, for messages.

    Raises:
        ValueError: on all ranks.
    """
    _, world = rank_and_world()
    if world == 1:
        return
    of_ranks = gather([digest(value) for value in values if isinstance(value, Tensor)])
    num_kinds = len({tuple(found) for found in of_ranks})
    if whole and num_kinds > 1:
        raise ValueError(
            f"{name}: expected the same tensors on each of {world} ranks, which takes a part of them, got "
            f"{num_kinds} sets. Fix: the whole set on every rank, or for a part on each "
            "DataLoader(part, sampler=DistributedSampler(part, num_replicas=1, rank=0))."
        )
    if not whole and num_kinds == 1 and of_ranks[0]:
        raise ValueError(
            f"{name}: expected data of its own on each of {world} ranks, got the same first batch on all. "
            "Fix: DataLoader(data, sampler=DistributedSampler(data)), or the tensors themselves, which are shared out; "
            "of a stream split_dataset_by_node(data, rank, world_size) of Hugging Face, nodesplitter=split_by_node of "
            "WebDataset, or islice(rows, rank, None, world_size) in __iter__."
        )


def digest(tensor: Tensor) -> str:
    """A hash of shape, dtype and every bit of a tensor."""
    own = tensor.detach().cpu().contiguous()
    found = blake2b(f"{tuple(own.shape)} {own.dtype}".encode(), digest_size=16)
    if own.numel():
        found.update(own.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _by_rank(values: Iterable[Any]) -> str:
    return ", ".join(f"{value} on rank {rank}" for rank, value in enumerate(values))
