"""Draws of a run's model, at the contexts of its test data where it has some."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.data.batches import Batch
from ...inference.drawing.generation import generate
from ...inference.process.states import device_of
from ..data.datasets import Data


def first_rows(batch: Batch, num: int) -> Batch:
    """The first data of a batch with their context."""
    return tuple([value[:num] for value in batch])


def rows_for(data: Data, num: int) -> Batch:
    """As many test data with their context, the first ones again where there are fewer."""
    rows = torch.arange(num) % len(data.test)
    return tuple([value[rows] for value in data.split("test")])


def is_game_alone(history: Tabular) -> bool:
    """Whether a critic trained the model without a bound beside it."""
    columns = history.columns()
    return "train_critic" in columns and "val_nelbo" not in columns


def draws_of(run: Any, num: int, context: Batch, seed: int) -> Tensor:
    """Draws of the model of the first seed `(num, …)`; of a game alone the means that its critic saw.

    Args:
        run: trained.
        num: how many.
        context: a row for each draw, or none.
        seed: of the draws.
    """
    model = run.pairs[0][0]
    device = device_of(model)
    given = tuple([value.to(device) for value in context])
    options: dict[str, Any] = {"mean": is_game_alone(run.history), "seed": seed}
    if given:
        return generate(model, 1, *given, **options)[0]
    try:
        return generate(model, num, **options)
    except ValueError as error:
        if "like=" not in str(error):
            raise
        # A program in Pyro's own words, whose data are an argument that it needs.
        like = rows_for(run.data, num)[0].to(device)
        return generate(model, num, like=like, **options)
