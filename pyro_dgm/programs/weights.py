"""Whether a module's weights are still those with which a distribution was made."""

from __future__ import annotations

from torch import Tensor, nn


class Weights:
    """The parameters of a module as they are now, for a distribution that will compute with them later.

    Args:
        owner: name of the distribution, for the message.
        module: whose parameters are read.
    """

    def __init__(self, owner: str, module: nn.Module):
        self.owner = owner
        self.module = module
        self._state = _parameters_of(module)

    def require_unchanged(self) -> None:
        """Refuse to go on where a parameter was written, or another took its place.

        Raises:
            ValueError: with the owner, and the fix.
        """
        now = _parameters_of(self.module)
        same = len(now) == len(self._state)
        for (tensor, version), (tensor_then, version_then) in zip(now, self._state, strict=False):
            same = same and tensor is tensor_then and version == version_then
        if not same:
            raise ValueError(
                f"{self.owner}: expected the weights with which this distribution was made, got "
                f"others: those of its {type(self.module).__name__} were changed since, and its density "
                "would be neither of the old nor of the new ones. "
                "Fix: call the conditional again after a step of the optimizer."
            )


def _parameters_of(module: nn.Module) -> list[tuple[Tensor, int]]:
    """Every parameter, with the number of writes to it; quicker than `module.parameters()`."""
    found: list[tuple[Tensor, int]] = []
    parts = [module]
    while parts:
        part = parts.pop()
        for parameter in part._parameters.values():
            if parameter is not None:
                version = 0 if parameter.is_inference() else parameter._version
                found.append((parameter, version))
        for child in part._modules.values():
            if child is not None:
                parts.append(child)
    return found
