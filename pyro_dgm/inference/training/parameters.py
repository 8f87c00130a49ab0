"""What a trainer moves: the parameters of a module, checked before the first step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .soundness import list_names


class Moved:
    """What an optimizer moves, compared with what a module trains each time a run begins.

    Args:
        owner: who trains it, for messages.
        role: what the module is to its owner.
        module: what is trained.
        optimizer: what moves it.
    """

    def __init__(self, owner: str, role: str, module: nn.Module, optimizer: Optimizer):
        self.owner = owner
        self.role = role
        self.module = module
        self.optimizer = optimizer
        self._names = {id(p): name for name, p in module.named_parameters()}

    def added(self) -> list[nn.Parameter]:
        """Parameters that the module did not have when the optimizer was built, such as those of an AutoGuide."""
        known = set(self._names.values())
        added = [(n, p) for n, p in self.module.named_parameters() if n not in known]
        self._names.update({id(p): name for name, p in added})
        return [p for _, p in added if p.requires_grad]

    def check(self) -> None:
        """Refuse parameters that would silently stay as they are, and those that are nobody's any more.

        A frozen parameter stays, as it should. An optimizer follows parameters that were cast, or moved to a device.

        Raises:
            ValueError: with the names.
        """
        held = {id(p): p for group in self.optimizer.param_groups for p in group["params"]}
        own = {id(p) for p in self.module.parameters()}
        missing = []
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad and id(parameter) not in held:
                missing.append(name)
        gone = []
        for key, parameter in held.items():
            if key not in own and parameter.requires_grad:
                shape = tuple(parameter.shape)
                gone.append(self._names.get(key, f"a parameter of shape {shape}"))
        self._refuse(missing, gone)
        follow(self.optimizer)

    def _refuse(self, missing: list[str], gone: list[str]) -> None:
        """Refuse names that the optimizer lacks, or that the module no longer has."""
        fix = (
            f"Fix: a new {self.owner}, built after parts were thawed or replaced and a guide that makes its "
            "parameters late has run; or requires_grad_(False) for what is to stay."
        )
        if missing:
            raise ValueError(
                f"{self.owner}: expected an optimizer of all that the {self.role} trains, got one without "
                f"{list_names(missing)}. {fix}"
            )
        if gone:
            raise ValueError(
                f"{self.owner}: expected an optimizer of what the {self.role} trains alone, got one with "
                f"{list_names(gone)}, which it does not hold. {fix}"
            )


def follow(optimizer: Optimizer) -> None:
    """Take what an optimizer remembers to the device and the dtype of its parameters."""
    for parameter, state in optimizer.state.items():
        for value in state.values():
            is_like = isinstance(value, Tensor) and value.shape == parameter.shape and value.dim()
            if is_like and (value.dtype, value.device) != (parameter.dtype, parameter.device):
                optimizer.load_state_dict(optimizer.state_dict())
                return


def trainable_parameters(module: nn.Module, owner: str, role: str) -> list[nn.Parameter]:
    """The parameters of a module that require gradients.

    Args:
        module: what is trained.
        owner: who trains it, for messages.
        role: what it is to its owner, such as `"objective"`, for messages.

    Raises:
        ValueError: if there are none, if all are frozen, if they are lazy and have not run, or if they were made in
            inference mode.
    """
    parameters = list(module.parameters())
    article = "an" if role[0] in "aeiou" else "a"
    if not parameters:
        raise ValueError(
            f"{owner}: expected {article} {role} with parameters to train, got "
            f"{type(module).__name__} without any. "
            "Fix: a network in one of its programs, such as Normal(mlp(2, 64, 9))."
        )
    lazy = [name for name, p in module.named_parameters() if is_lazy(p)]
    if lazy:
        raise ValueError(
            f"{owner}: expected {article} {role} whose parameters have their shapes, got lazy ones that have "
            f"not run: {list_names(lazy)}. Fix: objective.preflight(*batch), or one call of the module, before."
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
