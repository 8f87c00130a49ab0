"""One yardstick for models of every kind: held-out likelihood where there is one, and the same tests of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...inference.run.states import fork_rng
from ..estimate import Estimate
from .classifier import c2st
from .moments import frechet
from .neighbours import nearest_neighbour, prdc
from .pools import some, two_samples
from .twosample import median_distance, mmd

FLOOR = "test data"
MARK = 0.01  # p-values up to it are marked in the printed table


class Likelihood(Protocol):
    """What a held-out likelihood shows: `NLL`, `AIS`, `GivenNLL` and their like."""

    per_datum: Tensor

    @property
    def mean(self) -> float:
        """Nats per datum."""

    @property
    def stderr(self) -> float:
        """Its standard error."""

    @property
    def kind(self) -> str:
        """Exact, or what sort of bound."""


@dataclass(frozen=True)
class Column:
    """One column of the printed table: a key of the rows, its header and format, the key of its p-value."""

    key: str
    header: str
    digits: str
    p: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        """The number, marked where its p-value is small."""
        mark = "*" if self.p and row[self.p] <= MARK else " "
        return f"{row[self.key]:{self.digits}}{mark}"


COLUMNS = (
    Column("c2st", "C2ST", ".3f", "c2st_p"),
    Column("mmd", "MMD²", ".4f", "mmd_p"),
    Column("precision", "precision", ".3f"),
    Column("recall", "recall", ".3f"),
    Column("density", "density", ".3f"),
    Column("coverage", "coverage", ".3f"),
    Column("frechet", "Fréchet", ".3g"),
    Column("nn_test", "1-NN test", ".3f", "nn_test_p"),
    Column("nn_train", "1-NN train", ".3f", "nn_train_p"),
)


@dataclass(frozen=True)
class Comparison:
    """Models in rows, metrics in columns; the first row is real data, so that it shows what is ideal at these sizes.

    Attributes:
        rows: a dict for every model: `model`; `nll`, nats per datum, and `kind`, `None` where there is no likelihood;
            `c2st` (accuracy) and `auc`, `mmd`, `precision`, `recall`, `density`, `coverage`, `frechet`, `nn_test`,
            `nn_train`, the standard error of each as `…_stderr`; p-values `c2st_p`, `mmd_p`, `nn_test_p` of different
            laws and `nn_train_p` of copied training data.
        num: real data and fakes of every model, for all columns but the last.
        seed: of the split, the choices and the tests.
    """

    rows: tuple[dict[str, Any], ...]
    num: int
    seed: int

    def __str__(self) -> str:
        width = 2 + max(len(row["model"]) for row in self.rows)
        head = (
            f"{'':<{width}}{'NLL, nats':>20}"
            + "".join(f"{c.header:>11} " for c in COLUMNS)
            + "  kind of NLL"
        )
        lines = [
            f"{row['model']:<{width}}{_likelihood_cell(row):>20}"
            + "".join(f"{column.cell(row):>12}" for column in COLUMNS)
            + f"  {row['kind'] or ''}"
            for row in self.rows
        ]
        notes = (
            f"{self.num} real, {self.num} fake in each row; '{FLOOR}' is one half of the test set against the other.",
            f"* p ≤ {MARK}: C2ST, MMD², 1-NN test: another law than the data's; 1-NN train: below ½, copies of training"
            " data.",
        )
        return "\n".join([head.rstrip(), *(line.rstrip() for line in lines), *notes])


def compare_samples(
    samples: Mapping[str, Any],
    *,
    train: Any,
    test: Any,
    nll: Mapping[str, Likelihood] | None = None,
    features: Callable[[Any], Any] | None = None,
    classifier: Any = None,
    k: int = 5,
    num_permutations: int = 999,
    seed: int = 0,
) -> Comparison:
    r"""VAE, flow, autoregressive model, GAN: anything that draws samples, measured on the same data in the same way.

    The test set is split once. Its first half is the real sample of every row; the second half takes the place of a
    model's samples in the first row, and as many samples of each model are used, since the metrics depend on sizes. The
    kernel's bandwidth is the median distance within the training data, the same in all rows. The last column compares
    all samples (or the whole test set) with the training set, of the larger as many as of the smaller: give as many
    samples as there are training data to see copies. Time grows as the square of the sizes.

    Args:
        samples: name → draws `(n, *event)`, at least half as many as test data.
        train: what the models were trained on `(N, *event)`.
        test: held-out data `(M, *event)`.
        nll: name → likelihood of the *whole* test set, for models that have one.
        features: maps data to features `(n, *any)` in which samples are compared; default: the data as vectors.
        classifier: see `c2st`.
        k: see `prdc`.
        num_permutations: number of relabellings of each test.
        seed: of the split, the choices and the tests; the random state outside stays as it is.

    Raises:
        ValueError: for too few samples or data, different event shapes, NaN, a likelihood of other data or of a model
            without samples, or a model named 'test data'.
    """
    likelihoods = _checked(samples, nll or {}, len(test))
    of = features or torch.as_tensor
    train, held_out = two_samples(
        "compare_models: train, test", of(train), of(test), at_least=4 * k + 4
    )
    fakes = {name: _fakes(name, of(x), train, len(test) // 2) for name, x in samples.items()}
    with fork_rng(train, seed=seed):
        order = torch.randperm(len(held_out)).to(held_out.device)
        real, rest = held_out[order].tensor_split(2)
        chosen = {name: some(x, len(rest)) for name, x in fakes.items()}
        h = median_distance(train)
    tests = _Tests(train, real[: len(rest)], h, classifier, k, num_permutations, seed)
    rows = [tests.row(FLOOR, rest, held_out, None)]
    rows += [tests.row(name, chosen[name], fakes[name], likelihoods.get(name)) for name in samples]
    return Comparison(tuple(rows), len(rest), seed)


@dataclass(frozen=True)
class _Tests:
    """All metrics of one sample, against real data that are the same for all."""

    train: Tensor
    real: Tensor
    bandwidth: float
    classifier: Any
    k: int
    num_permutations: int
    seed: int

    def row(
        self, name: str, fake: Tensor, every: Tensor, likelihood: Likelihood | None
    ) -> dict[str, Any]:
        pair: dict[str, Any] = {"real": self.real, "fake": fake, "seed": self.seed}
        again: dict[str, Any] = {"num_permutations": self.num_permutations}
        told = c2st(**pair, **again, classifier=self.classifier)
        kernel = mmd(**pair, **again, bandwidth=self.bandwidth)
        balls, moments = prdc(**pair, k=self.k), frechet(**pair)
        near = nearest_neighbour(**pair, **again)
        copies = nearest_neighbour(real=self.train, fake=every, seed=self.seed, **again)
        numbers = {
            "c2st": told.accuracy,
            "auc": told.auc,
            "mmd": Estimate(kernel.value, kernel.stderr),
            "precision": balls.precision,
            "recall": balls.recall,
            "density": balls.density,
            "coverage": balls.coverage,
            "frechet": Estimate(moments.value, moments.stderr),
            "nn_test": near.accuracy,
            "nn_train": copies.accuracy,
        }
        p = {
            "c2st_p": told.p_value,
            "mmd_p": kernel.p_value,
            "nn_test_p": near.p_value,
            "nn_train_p": copies.p_copied,
        }
        return {"model": name} | _of_likelihood(likelihood) | _flat(numbers) | p


def _flat(numbers: Mapping[str, Estimate]) -> dict[str, float]:
    """Each number and its standard error under keys of their own."""
    return {
        key: value
        for name, found in numbers.items()
        for key, value in ((name, found.value), (f"{name}_stderr", found.stderr))
    }


def _of_likelihood(likelihood: Likelihood | None) -> dict[str, Any]:
    if likelihood is None:
        return {"nll": None, "nll_stderr": None, "kind": None}
    return {"nll": likelihood.mean, "nll_stderr": likelihood.stderr, "kind": likelihood.kind}


def _likelihood_cell(row: Mapping[str, Any]) -> str:
    return "–" if row["nll"] is None else f"{row['nll']:.3f} ± {row['nll_stderr']:.3f}"


def _checked(
    samples: Mapping[str, Any], nll: Mapping[str, Likelihood], num_test: int
) -> Mapping[str, Likelihood]:
    """The likelihoods, each of a model with samples, and of all test data."""
    if FLOOR in samples:
        raise ValueError(
            f"compare_models: expected models of other names than '{FLOOR}', which is the first row."
        )
    for name, likelihood in nll.items():
        if name not in samples:
            raise ValueError(
                f"compare_models: expected likelihoods of {list(samples)}, got one of '{name}'."
            )
        if len(likelihood.per_datum) != num_test:
            raise ValueError(
                f"compare_models: expected the likelihood of all {num_test} test data from '{name}', got one of "
                f"{len(likelihood.per_datum)} data. Fix: nll(model, guide, test)."
            )
    return nll


def _fakes(name: str, samples: Any, like: Tensor, num: int) -> Tensor:
    """The samples of one model as features, as many as are needed."""
    flat = torch.as_tensor(samples)
    flat = flat.reshape(len(flat), -1)
    _, fakes = two_samples(f"compare_models: {name}", like, flat)
    if len(fakes) < num:
        raise ValueError(
            f"compare_models: expected at least {num} samples of '{name}', half as many as test data, got "
            f"{len(fakes)}. Fix: generate(model, {num})."
        )
    return fakes
