"""What a trainer moves: the parameters of a module, checked before the first step."""

from __future__ import annotations

from torch import nn


def trainable_parameters(module: nn.Module, owner: str, role: str) -> list[nn.Parameter]:
    """The parameters of a module that require gradients.

    Args:
        module: what is trained.
        owner: who trains it, for messages.
        role: what it is to its owner, such as `"objective"`, for messages.

    Raises:
        ValueError: if there are none, if all are frozen, or if they were made in inference mode.
    """
    parameters = list(module.parameters())
    article = "an" if role[0] in "aeiou" else "a"
    if not parameters:
        raise ValueError(
            f"{owner}: expected {article} {role} with parameters to train, got "
            f"{type(module).__name__} without any. "
            "Fix: a network in one of its programs, such as Normal(mlp(2, 64, 9))."
        )
    if any(p.is_inference() for p in parameters):
        raise ValueError(
            f"{owner}: expected {article} {role} whose parameters can have gradients, got some made "
            "inside torch.inference_mode(). Fix: build model, guide and critic outside of it."
        )
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise ValueError(
            f"{owner}: expected {article} {role} with parameters to train, got none that require "
            f"gradients: all {len(parameters)} are frozen. Fix: {role}.requires_grad_(True)."
        )
    return trainable
