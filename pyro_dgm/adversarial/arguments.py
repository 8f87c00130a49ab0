"""What a `GANTrainer` was handed, checked where it is handed over."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..contract import last_layer
from ..inference.objectives.elbo import Objective
from ..inference.process.numbers import check_number
from ..inference.run.pair_checks import fix_of_program
from .divergences import Divergence
from .games import Game
from .penalties import Penalty
from .players import Play


def check_modules(generator: Any, critic: Any, bound: Any, weight: float) -> None:
    """Refuse generator, critic or bound that are no modules, or that share what they must not.

    Raises:
        TypeError: for a function, a class, or anything else that is no module.
        ValueError: for sides that share parameters, a bound of another generator, or a weight that says nothing.
    """
    fix = None if isinstance(generator, type) else fix_of_program("model", generator)
    if fix is not None:
        raise TypeError(
            "GANTrainer: expected the generator as a program, which names its sites, got "
            f"{type(generator).__name__}. Fix: {fix}."
        )
    _check_module("generator", generator)
    _check_module("critic", critic)
    if getattr(generator.forward, "__func__", None) is nn.Module.forward:
        raise TypeError(
            f"GANTrainer: expected the generator as one program, got {type(generator).__name__}, "
            "which has no forward of its own. Fix: vae.generator in place of vae."
        )
    _check_weight(bound, weight)
    _check_apart(generator, critic)
    if bound is not None:
        _check_bound(bound, generator)
        _check_apart(bound, critic)


def check_rules(game: Any, penalties: Any, play: Any) -> None:
    """Refuse what is no game, no penalties or no play.

    Raises:
        TypeError: with the fix.
        ValueError: for two penalties of one name.
    """
    _check_kind("a game", game, Game, f"game={_fix_of_game(game)}")
    if isinstance(penalties, Penalty):
        raise TypeError(
            f"GANTrainer: expected a sequence of penalties, got {penalties}. "
            f"Fix: penalties=({penalties},)."
        )
    found = penalties if isinstance(penalties, Sequence) else (penalties,)
    for penalty in found:
        _check_kind("penalties", penalty, Penalty, "penalties=(R1(1.0),)")
    names = [penalty.name for penalty in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"GANTrainer: expected penalties of different names, got {names}. "
            "Fix: one of each kind, with its weight."
        )
    _check_kind("a play", play, Play, "play=Alternating()")


def warn_of_sigmoid(critic: nn.Module, game: Game) -> None:
    """Warn of a critic that ends in a sigmoid where the game applies one itself."""
    if game.is_probability or not isinstance(last_layer(critic), nn.Sigmoid):
        return
    warnings.warn(
        "GANTrainer: expected a critic with logits on all reals, as "
        f"{type(game).__name__} takes, got one that ends in nn.Sigmoid: its losses apply σ "
        "themselves. Fix: leave the last layer out.",
        stacklevel=3,
    )


def _check_module(role: str, module: Any) -> None:
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type):
        raise TypeError(
            f"GANTrainer: expected the {role} as an nn.Module, got the class {module.__name__}. "
            f"Fix: an instance, such as {module.__name__}(…)."
        )
    raise TypeError(
        f"GANTrainer: expected the {role} as an nn.Module, got {type(module).__name__}, whose "
        "parameters nobody would train. Fix: subclass Program (or nn.Module)."
    )


def _check_apart(generator: nn.Module, critic: nn.Module) -> None:
    shared = _num_shared(generator, critic)
    if shared:
        raise ValueError(
            f"GANTrainer: expected a critic with parameters of its own, got {shared} that the "
            "generator has as well: each side would undo the other's steps. "
            "Fix: copy.deepcopy of the shared part."
        )


def _check_weight(bound: Any, weight: float) -> None:
    check_number("GANTrainer", "weight", weight, least=0, fix="weight=1.0")
    if bound is None and weight != 1.0:
        raise ValueError(
            f"GANTrainer: expected a bound with weight={weight}, got none: the weight is that of "
            "the game next to a bound. Fix: bound=ELBO(generator, guide)."
        )


def _check_bound(bound: Any, generator: nn.Module) -> None:
    if not isinstance(bound, Objective):
        got = f"the class {bound.__name__}" if isinstance(bound, type) else type(bound).__name__
        raise TypeError(
            f"GANTrainer: expected a bound, an objective over model and guide, got {got}. "
            "Fix: bound=ELBO(model, guide)."
        )
    if not _num_shared(generator, bound.model):
        raise ValueError(
            "GANTrainer: expected a bound whose model shares its decoder with the generator, got "
            f"{type(bound.model).__name__}, which shares no parameter with it. "
            "Fix: GANTrainer(bound.model, critic, bound=bound)."
        )


def _num_shared(one: nn.Module, other: nn.Module) -> int:
    """How many parameters two modules share."""
    own = {id(p) for p in one.parameters()}
    return len(own.intersection(map(id, other.parameters())))


def _fix_of_game(game: Any) -> str:
    """The game that was probably meant."""
    if isinstance(game, Divergence):
        return f"FDivergence({game!r})"
    if isinstance(game, type):
        instance = f"{game.__name__}()"
        return f"FDivergence({instance})" if issubclass(game, Divergence) else instance
    return "NonSaturating()"


def _check_kind(what: str, value: Any, kind: type, fix: str) -> None:
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"GANTrainer: expected {what}, got {got}. Fix: {fix}.")
