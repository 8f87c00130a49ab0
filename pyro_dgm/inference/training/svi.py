"""Training by stochastic variational inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..objectives.elbo import Objective
from ..run.distributed import average_gradients
from .compilation import Compiled, Eager
from .trainer import Terms, Trainer


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
        ValueError: at `fit`, for data or programs that break the contract, an unknown metric, a non-finite loss.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, ELBO, StandardNormal, VAE, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> trainer = SVITrainer(ELBO(vae.model, vae.guide), lr=1e-2)
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
        super().__init__(objective, ema)
        self.objective, self.clip = objective, clip
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        if optimizer is None:
            optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self.optimizer = optimizer(self.parameters) if callable(optimizer) else optimizer
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                "SVITrainer: expected a torch optimizer or a function that builds one, got "
                f"{type(self.optimizer).__name__}. Fix: torch.optim.Adam(objective.parameters()); "
                "Pyro's optimizers go with pyro.infer.SVI."
            )
        self.schedule = None if schedule is None else schedule(self.optimizer)
        self.eager = Eager(objective)
        self.compiled = (
            Compiled(objective, compile if isinstance(compile, str) else None)
            if compile
            else self.eager
        )

    @property
    def model(self) -> nn.Module:  # noqa: D102
        return self.objective.model

    def preflight(self, *batch: Any) -> None:  # noqa: D102
        self.objective.preflight(*batch)

    def terms(self, *batch: Any) -> Terms:  # noqa: D102
        return self.objective.terms(*batch)

    def step(self, *batch: Any) -> Terms:  # noqa: D102
        # The ragged last batch of an epoch runs eager: it is not worth a graph of its own.
        road = self.eager if len(batch[0]) < self._batch_size else self.compiled
        terms = road.backward(*batch)
        average_gradients(self.parameters)
        if self._max_skips and self._skips(terms["loss"], self.parameters, terms):
            return {}
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.objective.advance()
        return terms

    def end_epoch(self) -> None:  # noqa: D102
        if self.schedule is not None:
            self.schedule.step()

    def state(self) -> dict[str, Any]:  # noqa: D102
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        if (self.schedule is None) != (state["schedule"] is None):
            has = "no" if state["schedule"] is None else "a"
            raise ValueError(
                f"resume: got a checkpoint with {has} learning-rate schedule. Fix: the same schedule=."
            )
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
