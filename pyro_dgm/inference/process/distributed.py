"""Several processes: one objective, gradients averaged over the ranks of `torchrun`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes, (0, 1) alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def average_gradients(parameters: Iterable[Parameter]) -> None:
    r"""$g \leftarrow \frac1W \sum_{w} g_w$ over all ranks in one flat message; eager and compiled steps alike."""
    _, world = rank_and_world()
    if world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    total = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(total)
    mean = total / world
    parts = mean.split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def copy_from_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Give every rank the values of rank 0."""
    _, world = rank_and_world()
    if world == 1:
        return
    for tensor in tensors:
        distributed.broadcast(tensor.detach(), src=0)


def all_reduce_sum(total: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    _, world = rank_and_world()
    if world > 1:
        distributed.all_reduce(total)
    return total
