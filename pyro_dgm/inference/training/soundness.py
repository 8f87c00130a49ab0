"""What a run may keep, save, leave or go on from: what is finite, and of a checkpoint what is its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import isnan
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...display.listing import first_quoted
from .history import Row

FIX = "Fix: build the module with the arguments it was saved with."


class Unsound(ValueError):
    """A run has come to what must not be kept: it goes back to the last state that was looked at and found good."""


class Stateful(Protocol):
    """What an optimizer, a schedule, or anything else that a checkpoint holds can do."""

    def state_dict(self) -> dict[str, Any]:
        """Its state: tensors and plain containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that `state_dict` gave."""


class Averages(Protocol):
    """A moving average of weights."""

    def state_dict(self) -> list[Tensor]:
        """The averages."""


class Watch:
    """Looks at all that must stay finite: weights and buffers, their average, and what the optimizers remember.

    Buffers and frozen parameters that hold an infinity when a run begins, as a mask does, are passed over.

    Args:
        module: whose weights they are.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.exempt: set[str] = set()
        self._find_exempt()

    def begin(self, ema: Averages | None, optimizers: Mapping[str, Stateful]) -> None:
        """Refuse to begin with what is not finite.

        Raises:
            ValueError: with the names of the parameters, or of what else it is.
        """
        self._find_exempt()
        names = self.non_finite(ema, optimizers)
        if names:
            raise ValueError(
                "fit: expected finite weights to begin with, got NaN or infinite values in "
                f"{list_names(names)}. Fix: build the module anew, or resume from a checkpoint "
                "that is finite; register_buffer for a mask."
            )

    def refuse_non_finite(
        self, ema: Averages | None, optimizers: Mapping[str, Stateful], step: int
    ) -> None:
        """One host read: raise if something is not finite.

        Raises:
            Unsound: with the names of the parameters, or of what else it is.
        """
        names = self.non_finite(ema, optimizers)
        if names:
            raise Unsound(
                f"fit: expected finite weights, got NaN or infinite values in {list_names(names)} at "
                f"or shortly before step {step}: a gradient was not finite. Fix: no square root, "
                "norm or log at 0, whose gradients are infinite (torch.where does not stop them: "
                "0 * inf is NaN), a lower lr, or fit(max_skips=10) to pass over such steps."
            )

    def check_weights(self, owner: str) -> None:
        """Refuse to ask about weights that are not finite.

        Raises:
            ValueError: with the names of the parameters.
        """
        names = self.non_finite(None, {})
        if names:
            raise ValueError(
                f"{owner}: expected finite weights, got NaN or infinite values in {list_names(names)}. "
                "Fix: trainer.resume(path), from a checkpoint that is finite, or train anew."
            )

    def non_finite(self, ema: Averages | None, optimizers: Mapping[str, Stateful]) -> list[str]:
        """Names of all that is not finite; one host read where all is."""
        found = dict(named_leaves(self.module.state_dict(), ""))
        if ema is not None:
            found |= dict(named_leaves(ema.state_dict(), "ema"))
        for name, part in optimizers.items():
            found |= dict(named_leaves(part.state_dict(), name))
        return non_finite({name: t for name, t in found.items() if name not in self.exempt})

    def _find_exempt(self) -> None:
        trained = {name for name, p in self.module.named_parameters() if p.requires_grad}
        found = dict(named_leaves(self.module.state_dict(), ""))
        self.exempt = set(non_finite({n: t for n, t in found.items() if n not in trained}))


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinite values; one host read where none does."""
    real = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not real:
        return []
    norms = torch._foreach_norm(list(real.values()))
    device = norms[0].device
    total = torch.stack([norm.to(device, torch.float64) for norm in norms]).sum()
    if bool(total.isfinite()):
        return []
    # A norm may overflow where all values are finite.
    return [name for name, t in real.items() if not bool(t.isfinite().all())]


def named_leaves(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, by its path."""
    if isinstance(tree, Tensor):
        yield name, tree
        return
    items: Any = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    for key, value in items:
        yield from named_leaves(value, f"{name}.{key}" if name else str(key))


def copy_tree(tree: Any) -> Any:
    """Nested containers with copies of their tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {key: copy_tree(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(copy_tree, tree))
    return tree


def refuse_no_metric(row: Row, when: str) -> None:
    """Refuse what is no loss: NaN, and −∞, which would be the best of all; +∞ is a loss, and never the best.

    Raises:
        Unsound: with the names of the sites.
    """
    names = [name for name, value in row.items() if isnan(value) or value == float("-inf")]
    if names:
        sites = [name for name in names if "[" in name] or names
        raise Unsound(
            f"{when}: expected losses that are numbers, got NaN or -inf in {', '.join(sites)}. "
            "Fix: look at these data with dgm.nll(model, guide, x), bounded scales at that site, or "
            "a lower lr."
        )


def list_names(names: list[str]) -> str:
    """Some of the names, and how many more there are."""
    return first_quoted(names, 4)


def check_agreement(
    state: dict[str, Any], module: nn.Module, optimizers: Collection[str], *, averaged: bool
) -> None:
    """Refuse the state of another run, before anything is taken from it.

    Args:
        state: of a checkpoint.
        module: what is trained.
        optimizers: names of all that moves it.
        averaged: whether an average is kept.

    Raises:
        ValueError: where one run keeps an average, a schedule or rules that the other does not; for weights of other
            names or shapes, or that are not finite.
    """
    _check_average(kept=averaged, found=state["ema"] is not None)
    saved = {name for name, part in state["trainer"].items() if part is not None}
    if saved != set(optimizers):
        raise ValueError(
            f"resume: expected a checkpoint with the state of {sorted(optimizers)}, got one "
            f"with {sorted(saved)}. "
            "Fix: the same optimizer= and schedule= as in the run that wrote it."
        )
    _check_shapes(module.state_dict(), state["module"])
    _check_finite(module, state)


def _check_average(*, kept: bool, found: bool) -> None:
    if kept == found:
        return
    expected = "an EMA" if kept else "no EMA"
    got = "an EMA" if found else "no EMA"
    fix = "leave ema= out" if kept else "ema=0.999, or the decay it was"
    raise ValueError(
        f"resume: expected a checkpoint with {expected}, got one with {got}. "
        f"Fix: the same ema= as in the run that wrote it ({fix})."
    )


def _check_shapes(own: dict[str, Any], saved: dict[str, Any]) -> None:
    differing = sorted(set(own) ^ set(saved))
    if differing:
        raise ValueError(
            "resume: expected a checkpoint of this module, got one whose tensors differ in "
            f"{list_names(differing)}. {FIX}"
        )
    for name, tensor in own.items():
        if isinstance(tensor, Tensor) and tensor.shape != saved[name].shape:
            raise ValueError(
                f"resume: expected a checkpoint with '{name}' of shape {tuple(tensor.shape)}, got "
                f"{tuple(saved[name].shape)}. {FIX}"
            )


def _check_finite(module: nn.Module, state: dict[str, Any]) -> None:
    """Refuse weights that older versions have written; buffers may hold an infinity, as a mask does."""
    found = dict(named_leaves([state["ema"], state["trainer"]], "state"))
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found[name] = state["module"][name]
    names = non_finite(found)
    if names:
        raise ValueError(
            f"resume: expected a checkpoint of finite weights, got NaN or infinite values in "
            f"{list_names(names)}. Fix: an earlier checkpoint."
        )
