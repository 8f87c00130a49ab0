"""Several processes: one objective, gradients averaged over the ranks of `torchrun`.

Every exchange is taken part in by all ranks, in one order, with messages whose sizes follow from what the ranks have
agreed on. A rank that raises or is lost ends the others by a named error: under gloo at once, under other backends at
the latest after the timeout that `init_process_group` was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import Module, Parameter

Value = TypeVar("Value")

# The processes that exchanges go through; all of them outside of a loop, see `stop_together`.
GROUP: ContextVar[Any] = ContextVar("group", default=None)


class LostRankError(RuntimeError):
    """An exchange that another rank does not take part in."""


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes, (0, 1) alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def average_gradients(parameters: Sequence[Parameter], num_data: int = 1) -> None:
    r"""$g \leftarrow \sum_w n_w g_w / \sum_w n_w$ over all ranks in one flat message; eager and compiled steps alike.

    It is the gradient of one process on the joined batch, whatever each rank has of it: a rank without a batch has
    $n_w = 0$. A rank that did not use a parameter adds zero to its gradient. Each parameter has its place in the
    message, used or not, and one number that says whether it was: what no rank used keeps no gradient. What torch
    shards itself (`fully_shard`), it has averaged by now, and is passed over.

    Args:
        parameters: all that are trained, the same and in the same order on every rank.
        num_data: n of this rank's batch, of which its gradient is a mean.
    """
    _, world = rank_and_world()
    parameters = [p for p in parameters if not is_sharded(p)]
    if world == 1 or not parameters:
        return
    head = [float(num_data), *[p.grad is not None for p in parameters]]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat(
        [parameters[0].new_tensor(head, dtype=torch.float32)]
        + [g.detach().flatten() for g in gradients]
    )
    message[len(head) :].mul_(num_data)
    all_reduce_sum(message)
    total, num_used, flat = message.split([1, len(parameters), len(message) - len(head)])
    parts = flat.div_(total).split([g.numel() for g in gradients])
    torch._foreach_copy_(
        gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]
    )
    # Read on the host by those ranks alone that miss a gradient: the others know that it was used.
    misses = any(p.grad is None for p in parameters)
    used = num_used.tolist() if misses else [1.0] * len(parameters)
    for parameter, gradient, num in zip(parameters, gradients, used, strict=True):
        if num > 0:
            parameter.grad = gradient


def is_sharded(tensor: Tensor) -> bool:
    """Whether each rank holds a part of a tensor, as `torch.distributed.fsdp.fully_shard` leaves parameters."""
    return hasattr(tensor, "full_tensor")


def whole_tensors(tree: Any) -> Any:
    """Nested containers with each sharded tensor put together, for a file; all ranks call it where there is one."""
    if isinstance(tree, Tensor):
        return tree.full_tensor() if is_sharded(tree) else tree  # type: ignore[attr-defined]
    if isinstance(tree, Mapping):
        return {key: whole_tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([whole_tensors(value) for value in tree])
    return tree


def has_sharded(module: Module) -> bool:
    """Whether each pass through a module needs all ranks, as they gather the parts of its parameters."""
    return any(is_sharded(parameter) for parameter in module.parameters())


def copy_from_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Give every rank the values of rank 0; of what torch has sharded each keeps its part."""
    _, world = rank_and_world()
    if world == 1:
        return
    for tensor in tensors:
        if is_sharded(tensor):
            continue
        own = tensor.detach()
        message = own.contiguous()
        with all_ranks_needed():
            distributed.broadcast(message, src=0, group=GROUP.get())
        if message is not own:
            own.copy_(message)


def all_reduce_sum(total: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    _, world = rank_and_world()
    if world > 1:
        with all_ranks_needed():
            distributed.all_reduce(total, group=GROUP.get())
    return total


def gather(value: Value) -> list[Value]:
    """What every rank gives, by rank; it is read on the host, and so for once an epoch."""
    _, world = rank_and_world()
    if world == 1:
        return [value]
    values: list[Value] = [value] * world
    with all_ranks_needed():
        distributed.all_gather_object(values, value, group=GROUP.get())
    return values


@contextmanager
def raise_together() -> Iterator[None]:
    """What one rank raises inside, every rank raises at the end: none waits for one that has stopped.

    Raises:
        RuntimeError: on the ranks without an error of their own, with that of another.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as own:
        error = own
        if rank_and_world()[1] == 1:
            raise
    is_lost = isinstance(error, LostRankError)
    own_text = None if error is None else f"{type(error).__name__}: {error}"
    found = gather((own_text, is_lost))
    if error is not None and not is_lost:
        raise error
    for rank, (text, has_lost_another) in enumerate(found):
        if text is not None and not has_lost_another:
            message = f"expected every rank to go on, got an error of rank {rank}: {text}"
            raise RuntimeError(message) from error
    if error is not None:
        raise error


@contextmanager
def stop_together() -> Iterator[None]:
    """`raise_together` for a loop in which the ranks exchange something: none waits for one that has left it.

    Exchanges inside go through a group of their own. A rank that raises closes it, which under gloo ends at once the
    exchange in which the others wait; all then meet in the group around it, and say what that rank has raised. No step
    costs a host synchronisation for it. Other backends have no such end: their own timeout ends the wait.
    """
    if rank_and_world()[1] == 1 or GROUP.get() is not None or distributed.get_backend() != "gloo":
        yield
        return
    gather(
        None
    )  # a rank that is lost ends this at once, and the making of a group after its timeout
    groups = [distributed.new_group(timeout=_timeout())]  # it is closed when nothing refers to it
    try:
        with raise_together():
            token = GROUP.set(groups[0])
            try:
                yield
            except BaseException:
                GROUP.reset(token)
                distributed.destroy_process_group(groups.pop())
                raise
            GROUP.reset(token)
    finally:
        if groups:
            distributed.destroy_process_group(groups.pop())


def _timeout() -> timedelta:
    """The timeout that `init_process_group` was given."""
    backend = distributed.group.WORLD._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
    return backend.options._timeout


@contextmanager
def all_ranks_needed() -> Iterator[None]:
    """Name what it means when an exchange fails: another rank has stopped, or does something else."""
    try:
        yield
    except LostRankError:
        raise
    except RuntimeError as error:
        rank, world = rank_and_world()
        raise LostRankError(
            f"rank {rank} of {world}: expected every rank to take part in an exchange, got none of at least one: it "
            "has stopped, or does something else. "
            "Fix: read the first error of the other ranks; call fit, evaluate and step on every rank; for slow ranks "
            f"init_process_group(timeout=timedelta(hours=1)). torch says: {error}"
        ) from error
