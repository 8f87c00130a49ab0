"""Training by stochastic variational inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..adoption.programs import is_adopted
from ..objectives.elbo import Objective
from ..objectives.statements import statements_of
from ..process.ambient import TURN
from ..process.autocast import check_autocast, refuse_nothing_to_autocast
from ..process.distributed import average_gradients
from ..process.numbers import check_number
from .compiled.compilation import Compiled, Eager
from .compiled.graphs import Terms
from .compiled.options import FallBack, check_compile, mode_of
from .compiled.steps import CompiledSteps, Descent
from .compiled.updates import Update
from .driving import TakeStep
from .epochs import Epochs
from .parameters import Moved, trainable_parameters
from .settings import build_schedule
from .trainer import Trainer


class SVITrainer(Trainer):
    r"""Stochastic variational inference: $\theta \leftarrow \theta - \eta\, \nabla \ell(\theta; x)$.

    Args:
        objective: what to minimize, such as `ELBO(model, guide)`. It trains on the device where its parameters are.
        optimizer: a torch optimizer over `objective.parameters()`, or a function that builds one from the parameters;
            default: Adam with fused kernels.
        lr: learning rate of the default optimizer.
        compile: whole-program compilation (10 to 60 s once), or the name of a `torch.compile` mode, such as
            `"reduce-overhead"` (CUDA graphs). `"auto"`: where there can be kernels, and else the steps of
            `compile=False` bit for bit, with one warning of why. It is decided before the first step, for each
            signature of the data by itself, and alike however often a run is stopped and resumed on one machine.
        schedule: builds a torch learning-rate scheduler from the optimizer; it steps once per epoch.
        clip: global gradient norm above which gradients are scaled down.
        ema: decay of an exponential moving average of the weights, which then validates and is kept.
        autocast: `torch.bfloat16` for the matrix products of linear, convolutional and attention layers in each step.
            All else is float32: what leaves such a layer, densities, log-determinants, sums, gradients, weights,
            validation, estimates. Recurrent layers, whose state is a sum over time, stay in float32.

    Raises:
        TypeError: for a model, a guide or a VAE in place of an objective, for what is no torch optimizer, no
            scheduler or no number.
        ValueError: for an objective without parameters to train, a learning rate or a norm that is
            not positive; at `fit`, for data or programs that break the contract, an unknown metric, a loss or
            weights that are not finite, and for an optimizer that does not move what the objective trains by then.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, ELBO, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> trainer = SVITrainer(ELBO(vae.model, vae.guide), lr=1e-2)
        >>> trainer
        SVITrainer(ELBO, optimizer=Adam(lr=0.01), schedule=None, clip=None, ema=None, compile=False)
        >>> len(trainer.fit(torch.ones(32, 9), epochs=3, progress=False))
        3
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer | Callable[[Any], Optimizer] | None = None,
        lr: float = 1e-3,
        compile: bool | str = False,  # noqa: FBT001, FBT002
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        clip: float | None = None,
        ema: float | None = None,
        *,
        autocast: torch.dtype | None = None,
    ):
        _check_objective(objective)
        _check_numbers(lr, clip, compile)
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        if not is_adopted(objective):  # its parameters may show when it first runs
            self.parameters = trainable_parameters(objective, "SVITrainer", "objective")
        check_autocast("SVITrainer", autocast, objective)
        super().__init__(objective, ema)
        self.objective = objective
        self.autocast = autocast
        self.clip = clip
        self.optimizer = _build_optimizer(optimizer, self.parameters, lr)
        self.trains_statements = True
        self.moved = [Moved("SVITrainer", "objective", objective, self.optimizer)]
        self.state.optimizers = {"optimizer": self.optimizer}
        self.schedule = None
        if schedule is not None:
            self.schedule = build_schedule("SVITrainer", schedule, self.optimizer)
            self.state.optimizers = {"optimizer": self.optimizer, "schedule": self.schedule}
        self.compile = compile
        self.eager = Eager(objective, autocast)
        self.compiled: Eager | Compiled = self.eager
        if compile:
            self.fall_back = FallBack.of("SVITrainer", compile)
            mode = mode_of(compile)
            self.compiled = Compiled(objective, mode, self.announce, self.fall_back, autocast)

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.objective.model

    def preflight(self, *batch: Any) -> None:  # noqa: D102
        self.structure = self.objective.preflight(*batch)
        refuse_nothing_to_autocast("SVITrainer", self.autocast, self.objective)

    @property
    def keeps_order(self) -> bool:  # noqa: D102
        return self.structure.fixed_size

    def check_minibatches(self, batches: Epochs) -> None:
        """Refuse minibatches where all data share a draw, and no plate says how many data there are.

        Its cost is one of the full set, and would be counted once a batch.
        """
        if self.objective.size is None and not batches.is_one_batch:
            owner = type(self.objective).__name__
            self.structure.require_known_size(owner, "fit(x, batch_size=len(x))")

    def adopt(self, names: Sequence[str]) -> None:
        """Train the leaves of `pyro.param` statements as well: optimizer, average and checkpoints take them in."""
        self.follow_module()
        if not self.trains_statements:
            super().adopt(names)
            return
        self._adopt(names)
        if not self.parameters:
            trainable_parameters(self.objective, "SVITrainer", "objective")  # says what it lacks

    def resume(self, path: str | Path) -> None:  # noqa: D102
        names: list[str] = []

        def adopt(weights: Mapping[str, Any]) -> None:
            names.extend(statements_of(weights, self.objective))
            self._adopt(names)

        try:
            self.state.load(path, adopt)
        except BaseException:
            self._release(names)
            raise

    def _adopt(self, names: Sequence[str]) -> None:
        for name in names:
            leaf = self.objective.adopt(name)
            if leaf is not None:
                self._take(leaf)

    def follow_module(self) -> None:
        """Train what the programs have made when they first ran: an AutoGuide's parameters, say."""
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        for parameter in self.moved[0].added():
            if id(parameter) not in held:
                self._take(parameter)

    def _take(self, leaf: nn.Parameter) -> None:
        self.parameters.append(leaf)
        self.optimizer.param_groups[0]["params"].append(leaf)
        if self.ema is not None:
            self.ema.append(leaf)

    def _release(self, names: Sequence[str]) -> None:
        """Undo `_adopt`, last of all."""
        for name in names:
            self.objective.release(name)
            self.parameters.pop()
            self.optimizer.param_groups[0]["params"].pop()
            if self.ema is not None:
                self.ema.pop()

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        return self.objective.terms(*batch)

    @TURN.taken()
    def step(self, *batch: Any) -> Terms:  # noqa: D102
        # The ragged last batch of an epoch runs eager: it is not worth a graph of its own.
        backend = self.eager if self.is_ragged(batch) else self.compiled
        terms = backend.backward(*batch)
        average_gradients(self.parameters, len(batch[0]) if batch else 0)
        if self.state.skips.skip(terms, ["loss"], self.parameters, self.num_steps):
            return {}
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.objective.advance()
        return terms

    @property
    def is_plain(self) -> bool:
        """Whether a step is loss, gradient and update, and nothing else: no subclass's, and none is passed over."""
        is_own = getattr(self.step, "__func__", None) is SVITrainer.step
        return is_own and not self.state.skips.limit

    @contextmanager
    def steps(self) -> Iterator[TakeStep]:  # noqa: D102
        if not self.is_plain or isinstance(self.compiled, Eager):
            with super().steps() as step:
                yield step
            return
        with Update(self.optimizer, self.parameters).bound() as update:
            schedules = self.objective.schedules()
            advance = [schedule.advance for schedule in schedules]
            descents = [Descent(update, self.clip)]
            yield CompiledSteps(self.compiled, self.eager, descents, advance, self.is_ragged)

    def end_epoch(self) -> None:  # noqa: D102
        if self.schedule is not None:
            self.schedule.step()

    def __repr__(self) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        schedule = None if self.schedule is None else type(self.schedule).__name__
        ema = None if self.ema is None else self.ema.decay
        autocast = "" if self.autocast is None else f", autocast={self.autocast}"
        return (
            f"SVITrainer({type(self.objective).__name__}, "
            f"optimizer={type(self.optimizer).__name__}(lr={rate:g}), schedule={schedule}, "
            f"clip={self.clip}, ema={ema}, compile={self.compile!r}{autocast})"
        )


def _check_objective(objective: Any) -> None:
    """Refuse a program, a VAE, or the class of an objective where an objective is meant."""
    if isinstance(objective, Objective):
        return
    if isinstance(objective, type) and issubclass(objective, Objective):
        raise TypeError(
            f"SVITrainer: expected an objective over a model and its guide, got the class "
            f"{objective.__name__}. Fix: SVITrainer({objective.__name__}(vae.model, vae.guide))."
        )
    raise TypeError(
        f"SVITrainer: expected an objective over a model and its guide, got "
        f"{type(objective).__name__}. Fix: SVITrainer(ELBO(vae.model, vae.guide)); for a density "
        "without latents SVITrainer(ELBO(model, EmptyGuide()))."
    )


def _check_numbers(lr: Any, clip: Any, compile: Any) -> None:
    check_number("SVITrainer", "lr", lr, above=0, fix="lr=1e-3")
    if clip is not None:
        fix = "clip=None, to leave gradients alone"
        check_number("SVITrainer", "clip", clip, above=0, fix=fix)
    check_compile(compile, takes_mode=True)


def _build_optimizer(optimizer: Any, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    """The optimizer that was given or built, or Adam."""
    groups: Any = parameters or [{"params": []}]  # torch refuses an empty list
    if optimizer is None:
        return torch.optim.Adam(groups, lr=lr, fused=True)
    built = optimizer(groups) if callable(optimizer) else optimizer
    if not isinstance(built, Optimizer):
        raise TypeError(
            "SVITrainer: expected a torch optimizer or a function that builds one, got "
            f"{type(built).__name__}. Fix: torch.optim.Adam(objective.parameters()); "
            "Pyro's optimizers go with pyro.infer.SVI."
        )
    if any(group.get("maximize") for group in built.param_groups):
        raise ValueError(
            "SVITrainer: expected an optimizer that minimizes, got one with maximize=True. "
            "Fix: torch.optim.Adam(objective.parameters())."
        )
    return built
