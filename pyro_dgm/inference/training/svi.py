"""Training by stochastic variational inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..objectives.elbo import Objective
from ..process.distributed import average_gradients
from .compilation import Compiled, Eager
from .graphs import Terms
from .parameters import trainable_parameters
from .trainer import Trainer


class SVITrainer(Trainer):
    r"""Stochastic variational inference: $\theta \leftarrow \theta - \eta\, \nabla \ell(\theta; x)$.

    Args:
        objective: what to minimize, such as `ELBO(model, guide)`. It trains on the device where its parameters are.
        optimizer: a torch optimizer over `objective.parameters()`, or a function that builds one from the parameters;
            default: Adam with fused kernels.
        lr: learning rate of the default optimizer.
        compile: whole-program compilation (10 to 60 s once), or the name of a `torch.compile` mode, such as
            `"reduce-overhead"` (CUDA graphs).
        schedule: builds a torch learning-rate scheduler from the optimizer; it steps once per epoch.
        clip: global gradient norm above which gradients are scaled down.
        ema: decay of an exponential moving average of the weights, which then validates and is kept.

    Raises:
        TypeError: for a model, a guide or a VAE in place of an objective, and for what is no torch optimizer.
        ValueError: for an objective without parameters to train, a negative learning rate, a norm that is not
            positive; at `fit`, for data or programs that break the contract, an unknown metric, a non-finite loss.

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
    ):
        _check_objective(objective)
        _check_numbers(lr, clip)
        self.parameters = trainable_parameters(objective, "SVITrainer", "objective")
        super().__init__(objective, ema)
        self.objective = objective
        self.clip = clip
        self.optimizer = _build_optimizer(optimizer, self.parameters, lr)
        self.state.optimizers = {"optimizer": self.optimizer}
        self.schedule = None
        if schedule is not None:
            self.schedule = schedule(self.optimizer)
            self.state.optimizers = {"optimizer": self.optimizer, "schedule": self.schedule}
        self.compile = compile
        self.eager = Eager(objective)
        self.compiled: Eager | Compiled = self.eager
        if compile:
            mode = compile if isinstance(compile, str) else None
            self.compiled = Compiled(objective, mode)

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.objective.model

    def preflight(self, *batch: Any) -> None:  # noqa: D102
        self.objective.preflight(*batch)

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        return self.objective.terms(*batch)

    def step(self, *batch: Any) -> Terms:  # noqa: D102
        # The ragged last batch of an epoch runs eager: it is not worth a graph of its own.
        is_ragged = len(batch[0]) < self.largest_batch
        backend = self.eager if is_ragged else self.compiled
        terms = backend.backward(*batch)
        average_gradients(self.parameters)
        if self.state.skips.skip(terms, ["loss"], self.parameters, self.num_steps):
            return {}
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.objective.advance()
        return terms

    def end_epoch(self) -> None:  # noqa: D102
        if self.schedule is not None:
            self.schedule.step()

    def __repr__(self) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        schedule = None if self.schedule is None else type(self.schedule).__name__
        ema = None if self.ema is None else self.ema.decay
        return (
            f"SVITrainer({type(self.objective).__name__}, "
            f"optimizer={type(self.optimizer).__name__}(lr={rate:g}), schedule={schedule}, "
            f"clip={self.clip}, ema={ema}, compile={self.compile!r})"
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


def _check_numbers(lr: float, clip: float | None) -> None:
    if not lr >= 0:
        raise ValueError(f"SVITrainer: expected lr >= 0, got {lr}. Fix: lr=1e-3.")
    if clip is not None and not clip > 0:
        raise ValueError(
            f"SVITrainer: expected clip > 0, got {clip}. Fix: clip=None, to leave gradients alone."
        )


def _build_optimizer(optimizer: Any, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    """The optimizer that was given or built, or Adam."""
    if optimizer is None:
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    built = optimizer(parameters) if callable(optimizer) else optimizer
    if not isinstance(built, Optimizer):
        raise TypeError(
            "SVITrainer: expected a torch optimizer or a function that builds one, got "
            f"{type(built).__name__}. Fix: torch.optim.Adam(objective.parameters()); "
            "Pyro's optimizers go with pyro.infer.SVI."
        )
    return built
