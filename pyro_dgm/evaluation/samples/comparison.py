"""Models of every kind in one table: held-out likelihood if there is one, and the same tests of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.process.states import estimation_mode
from ...inference.sites.measure_checks import require_one_measure
from ...inference.sites.measures import Measure, describe_kind
from .metrics import SampleMetrics
from .pools import as_numbers, subsample, two_samples
from .twosample import median_distance

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

    @property
    def measure(self) -> Measure:
        """What p(x) is: a mass, a density."""


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
class Comparison(Tabular):
    """Models in rows, metrics in columns.

    The first row is real data, so that it shows what is ideal at these sizes.

    Attributes:
        rows: a dict for every model: `model`; `nll`, nats per datum, and `kind`, what it measures and whether it is a
            bound, `None` where there is no likelihood; `c2st` (accuracy) and `auc`, `mmd`, `precision`, `recall`,
            `density`, `coverage`,
            `frechet`, `nn_test`, `nn_train`, the standard error of each as `…_stderr`; p-values `c2st_p`,
            `mmd_p`, `nn_test_p` of different distributions and `nn_train_p` of copied training data.
        num: real data and fakes of every model, for all columns but the last.
        seed: of the split, the choices and the tests.
    """

    rows: tuple[dict[str, Any], ...]
    num: int
    seed: int

    def columns(self) -> Mapping[str, Any]:
        """A row for each model, a column for each key of its dict."""
        columns = {}
        for key in self.rows[0]:
            columns[key] = [row[key] for row in self.rows]
        return columns

    def __str__(self) -> str:
        width = 2 + max(len(row["model"]) for row in self.rows)
        lines = [self._header(width)]
        for row in self.rows:
            lines.append(self._line(row, width))
        lines.append(
            f"{self.num} real, {self.num} fake in each row; "
            f"'{FLOOR}' is one half of the test set against the other."
        )
        lines.append(
            f"* p ≤ {MARK}: C2ST, MMD², 1-NN test: another distribution than the data's; "
            "1-NN train: below ½, copies of training data."
        )
        return "\n".join(lines)

    def _header(self, width: int) -> str:
        headers = "".join(f"{column.header:>11} " for column in COLUMNS)
        return f"{'':<{width}}{'NLL, nats':>20}{headers}  kind of NLL"

    def _line(self, row: Mapping[str, Any], width: int) -> str:
        cells = "".join(f"{column.cell(row):>12}" for column in COLUMNS)
        likelihood = _likelihood_cell(row)
        line = f"{row['model']:<{width}}{likelihood:>20}{cells}  {row['kind'] or ''}"
        return line.rstrip()


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
    r"""The same metrics on the same data for anything that draws samples: VAE, flow, PixelCNN, GAN.

    The test set is split once. Its first half is the real sample of every row; the second half takes the
    place of a model's samples in the first row, and as many samples of each model are used, since the metrics
    depend on sizes. The kernel's bandwidth is the median distance within the training data, the same in all
    rows. The last column compares all samples (or the whole test set) with the training set, of the larger as
    many as of the smaller: give as many samples as there are training data to see copies. Time grows as the
    square of the sizes.

    Args:
        samples: name → draws `(n, *event)`, at least half as many as test data.
        train: what the models were trained on `(N, *event)`.
        test: held-out data `(M, *event)`.
        nll: name → likelihood of the *whole* test set, for models that have one.
        features: maps data to features `(n, *any)` in which samples are compared; default: the data as
            vectors.
        classifier: see `c2st`.
        k: see `prdc`.
        num_permutations: number of relabellings of each test.
        seed: of the split, the choices and the tests; the random state outside stays as it is.

    Raises:
        TypeError: for samples that are not given by name, or are no numbers.
        ValueError: for too few samples or data, different event shapes, NaN, a likelihood of other data or of
            a model without samples, likelihoods of different measures (a mass beside a density), or a model named
            'test data'.
    """
    likelihoods = _check_names(samples, nll)
    train, test, fakes = _read(samples, train, test, features, at_least=4 * k + 4)
    _check_lengths(likelihoods, len(test))
    require_one_measure("compare_samples", {name: nll.measure for name, nll in likelihoods.items()})
    with estimation_mode(train, seed=seed):
        real, chosen = _choose(test, fakes)
        bandwidth = median_distance(train)
    every = {FLOOR: test} | fakes
    metrics = SampleMetrics(train, real, bandwidth, classifier, k, num_permutations, seed)
    rows = []
    for name, fake in chosen.items():
        row = {"model": name} | _likelihood_entries(likelihoods.get(name))
        rows.append(row | metrics.entries(fake, every[name]))
    return Comparison(tuple(rows), len(real), seed)


def _choose(test: Tensor, fakes: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The real sample of every row, and the sample of each row: the other test data, then each model's fakes.

    All of them have the size of the smaller half of the test data.
    """
    order = torch.randperm(len(test)).to(test.device)
    real, other = test[order].tensor_split(2)
    num = len(other)
    chosen = {FLOOR: other}
    for name, fake in fakes.items():
        chosen[name] = subsample(fake, num)
    return real[:num], chosen


def _likelihood_entries(likelihood: Likelihood | None) -> dict[str, Any]:
    if likelihood is None:
        return {"nll": None, "nll_stderr": None, "kind": None}
    kind = describe_kind(likelihood.kind, likelihood.measure)
    return {"nll": likelihood.mean, "nll_stderr": likelihood.stderr, "kind": kind}


def _likelihood_cell(row: Mapping[str, Any]) -> str:
    if row["nll"] is None:
        return "–"
    return f"{row['nll']:.3f} ± {row['nll_stderr']:.3f}"


def _check_names(
    samples: Mapping[str, Any], nll: Mapping[str, Likelihood] | None
) -> Mapping[str, Likelihood]:
    """The likelihoods by the model's name, each of a model with samples."""
    likelihoods = {} if nll is None else nll
    _check_mapping("samples", samples)
    _check_mapping("nll", likelihoods)
    names = list(samples)
    if FLOOR in names:
        raise ValueError(
            f"compare_samples: expected models of other names than '{FLOOR}', which is the first "
            f"row, got {names}. Fix: {{'model': samples['{FLOOR}']}}."
        )
    for name in likelihoods:
        if name not in names:
            raise ValueError(
                f"compare_samples: expected likelihoods of {names}, got one of '{name}'. "
                f"Fix: samples={{'{name}': generate(model, 1000)}} as well."
            )
    return likelihoods


def _check_mapping(role: str, by_name: Any) -> None:
    if not isinstance(by_name, Mapping):
        raise TypeError(
            f"compare_samples: expected {role} by the model's name, "
            f"got {type(by_name).__name__}. Fix: {role}={{'vae': …}}."
        )


def _check_lengths(likelihoods: Mapping[str, Likelihood], num_test: int) -> None:
    """Refuse a likelihood of other data than the whole test set."""
    for name, likelihood in likelihoods.items():
        num = len(likelihood.per_datum)
        if num != num_test:
            raise ValueError(
                f"compare_samples: expected the likelihood of all {num_test} test data "
                f"from '{name}', got one of {num} data. Fix: nll(model, guide, test)."
            )


def _read(
    samples: Mapping[str, Any],
    train: Any,
    test: Any,
    features: Callable[[Any], Any] | None,
    at_least: int,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Training data, test data and each model's samples as feature vectors."""
    if features is None:
        features = _identity
    train, test = two_samples(
        "compare_samples", features(train), features(test), at_least, roles=("train", "test")
    )
    fakes = {}
    for name, draws in samples.items():
        fakes[name] = _read_fakes(name, features(draws), train, num_needed=len(test) // 2)
    return train, test, fakes


def _identity(data: Any) -> Any:
    return data


def _read_fakes(name: str, draws: Any, train: Tensor, num_needed: int) -> Tensor:
    """The samples of one model as feature vectors `(n, D)`, as many as are needed."""
    owner = f"compare_samples: {name}"
    vectors = as_numbers(owner, draws)
    if vectors.dim() > 0:
        vectors = vectors.reshape(len(vectors), -1)
    _, fake = two_samples(owner, train, vectors, roles=("train", "fake"))
    if len(fake) < num_needed:
        raise ValueError(
            f"compare_samples: expected at least {num_needed} samples of '{name}', "
            f"half as many as test data, got {len(fake)}. Fix: generate(model, {num_needed})."
        )
    return fake
