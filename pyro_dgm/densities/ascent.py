"""Gradient ascent of an objective over a few tensors, such as the posterior parameters of each datum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def ascend(
    objective: Callable[[], Tensor], tensors: Sequence[Tensor], num_steps: int, lr: float
) -> None:
    r"""$\max_\theta f(\theta)$ by Adam; the step size falls from `lr` to 0 as a cosine.

    θ are changed in place. Adam acts on each number by itself: where f is a sum over data and every row of θ
    belongs to one datum, each datum ascends its own term. Gradients go to θ alone, so that the weights behind
    f keep theirs. A tensor that f does not depend on stays where it is.

    Args:
        objective: f at the present θ, a scalar, called once a step.
        tensors: θ, leaves that require gradients.
        num_steps: steps of the ascent.
        lr: step size of the first step.

    Example:
        >>> theta = torch.zeros(2, requires_grad=True)
        >>> ascend(lambda: -(theta - 1).square().sum(), [theta], num_steps=100, lr=0.1)
        >>> bool((theta - 1).abs().max() < 0.01)
        True
    """
    optimizer = torch.optim.Adam(tensors, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        with torch.enable_grad():
            loss = -objective()
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient
        optimizer.step()
        schedule.step()
