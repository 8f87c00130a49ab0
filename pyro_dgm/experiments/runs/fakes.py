"""How the samples of a model compare with test data: what a game without a likelihood is judged by."""

from __future__ import annotations

from typing import Any

import torch

from ...evaluation.samples.comparison import compare_samples
from ...inference.drawing.generation import generate
from ..data.datasets import Data

MOST = 1000  # data of each kind: the time grows with their square
KEPT = ("c2st", "mmd", "precision", "recall", "density", "coverage", "frechet", "nn_train")
LEAST = 24  # test data that `compare_samples` needs, in two halves of twelve


def check_test(data: Data, limit: int | None) -> None:
    """Refuse too few test data for a game to be judged by, before it is played.

    Raises:
        ValueError: with how many there are.
    """
    num = min(len(data.test), len(data.test) if limit is None else limit)
    if num < LEAST:
        raise ValueError(
            f"evaluation: expected at least {LEAST} test data to compare samples with, got {num}. "
            "Fix: --evaluation.limit=1000, or more test data (--data.test)."
        )


def compare_to_test(
    data: Data, model: Any, limit: int | None, seed: int, device: torch.device
) -> dict[str, Any]:
    r"""The metrics of `compare_samples` for a model, and under `…_of_data` those of test data themselves.

    Samples are $E[x \mid z]$, which the critic of a game sees by default.

    Args:
        data: with training and test data, of which at most 1,000 each are used.
        model: the generator.
        limit: only so many.
        seed: of the draws, the choices and the tests.
        device: of the model.
    """
    num = min(MOST, MOST if limit is None else limit)
    train, test = (part[:num].to(device).float() for part in (data.train, data.test))
    fakes = generate(model, len(train), mean=True, seed=seed)
    found = compare_samples(
        {"model": fakes}, train=train, test=test, seed=seed, num_permutations=99
    )
    real, fake = found.rows
    results = {}
    for name in KEPT:
        results[name] = fake[name]
        results[f"{name}_stderr"] = fake.get(f"{name}_stderr", float("nan"))
        results[f"{name}_of_data"] = real[name]
    return {**results, "num_test": len(test)}
