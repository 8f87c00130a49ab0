"""The classifier two-sample test: can a classifier tell real data from fakes it has not seen?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...display.tabular import Tabular
from ...inference.process.states import estimation_mode
from ...inference.run.sessions import require_positive
from ..estimate import Estimate, Share, estimate_columns, pooled_degrees, share_of
from .pools import balance, permutation_p, relabellings, two_samples


@dataclass(frozen=True)
class C2ST(Tabular):
    r"""How well a classifier knows held-out fakes from held-out real data; ½ is the ideal.

    Standard errors are over the held-out data, the trained classifier given. For the best of all classifiers
    $\mathrm{accuracy} = \frac12 + \frac12 \mathrm{TV}(p, \pi)$; any other one stays below, so that
    $2\,\mathrm{accuracy} - 1$ is a lower bound of the total variation distance in expectation.

    Attributes:
        accuracy: share of the held-out data classified right; a tie counts half.
        auc: $P(\text{score of a fake} > \text{score of a real datum})$, its standard error after DeLong.
        p_value: share of the relabelled AUCs that are as large, the one observed among them.
        classifier: its name and arguments.
        num_train: training data of either kind.
        num_held_out: held-out data of either kind.
        num_permutations: number B of relabellings; no p-value is below 1 / (B + 1).
    """

    accuracy: Estimate
    auc: Estimate
    p_value: float
    classifier: str
    num_train: int
    num_held_out: int
    num_permutations: int

    @property
    def total_variation(self) -> Estimate:
        """A lower bound, in expectation, of the total variation distance of the two distributions."""
        return self.accuracy.scaled(2, -1)

    def columns(self) -> Mapping[str, Any]:
        """One row: each number, and the standard error of accuracy and AUC."""
        return estimate_columns(vars(self))

    def __str__(self) -> str:
        return (
            f"C2ST accuracy {self.accuracy} (ideal 0.5), AUC {self.auc}, p = {self.p_value:.4f} "
            f"({self.num_held_out} held-out data of either kind, "
            f"{self.num_permutations} permutations; "
            f"{self.classifier} trained on {self.num_train} of either kind)"
        )


def c2st(
    *, real: Any, fake: Any, classifier: Any = None, num_permutations: int = 999, seed: int = 0
) -> C2ST:
    r"""Train a classifier on one half of the data, real against fake; test it on the other half.

    The p-value relabels the *held-out* half while the scores stay: given the training half the scores are a
    fixed function of single data, so under one distribution for both samples every assignment of the held-out
    labels is equally probable. That is exact for any classifier and costs no second training. (Over
    cross-validation folds it would not be: they share their training data.) It compares the AUC, since the
    accuracy takes so few values that most relabellings would tie.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`; of the larger sample as many are used as of the smaller.
        classifier: an unfitted scikit-learn classifier with `predict_proba`; a copy of it is trained, each
            `random_state` that is `None` set to the seed. Default: 64 hidden ReLU units on standardised
            features, `MLPClassifier((64,), solver="lbfgs", alpha=0.3, max_iter=300)`.
        num_permutations: number B of relabellings.
        seed: of the split, the classifier and the relabellings; the random state outside stays as it is.

    Raises:
        ValueError: for fewer than four data in a sample, different event shapes, or NaN.
        TypeError: for samples that are no numbers; for a classifier without `predict_proba`, or a class in
            place of one.

    References:
        Lopez-Paz, Oquab 2017, *Revisiting classifier two-sample tests*, arXiv:1610.06545;
        DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44 (the standard error of the AUC).

    Example:
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> c2st(real=x[:200], fake=x[200:] + 1).p_value
        0.001
    """
    require_positive(num_permutations=num_permutations)
    model = _copy_with_seed(classifier, seed)
    real, fake = two_samples("c2st", real, fake, at_least=4)
    with estimation_mode(real, seed=seed):
        halves = _split(*balance(real, fake))
        num = len(halves.held_out_real)
        labels = relabellings(num, num, num_permutations, torch.device("cpu"))
        _train(model, halves)
        scores = _score(model, halves)
    is_fake = labels[0].bool()
    auc = _auc(scores, labels)
    return C2ST(
        accuracy=_accuracy(scores, is_fake),
        auc=_auc_estimate(auc[0].item(), scores, is_fake),
        p_value=permutation_p(auc),
        classifier=" ".join(str(model).split()),
        num_train=len(halves.train_real),
        num_held_out=num,
        num_permutations=num_permutations,
    )


class _Halves(NamedTuple):
    """Two samples of equal size, each split at random, on the CPU."""

    train_real: Tensor
    held_out_real: Tensor
    train_fake: Tensor
    held_out_fake: Tensor


def _split(real: Tensor, fake: Tensor) -> _Halves:
    real = _shuffle(real).cpu()
    fake = _shuffle(fake).cpu()
    num = len(real) // 2
    return _Halves(real[:num], real[num:], fake[:num], fake[num:])


def _shuffle(sample: Tensor) -> Tensor:
    return sample[torch.randperm(len(sample)).to(sample.device)]


def _default_classifier() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((64,), solver="lbfgs", alpha=0.3, max_iter=300)
    return make_pipeline(StandardScaler(), network)


def _copy_with_seed(classifier: Any, seed: int) -> Any:
    """An unfitted copy, or the default, that does not draw from NumPy's global random state."""
    from sklearn.base import clone

    if classifier is None:
        classifier = _default_classifier()
    try:
        unfitted = clone(classifier)
    except TypeError as error:
        raise TypeError(
            f"c2st: expected an unfitted scikit-learn classifier, got {classifier!r}. "
            "Fix: classifier=LogisticRegression(), an instance."
        ) from error
    seeds = {}
    for name, value in unfitted.get_params().items():
        if name.split("__")[-1] == "random_state" and value is None:
            seeds[name] = seed % 2**32
    return unfitted.set_params(**seeds)


def _train(classifier: Any, halves: _Halves) -> None:
    """Fit the classifier to the label 0 of real data and 1 of fakes."""
    from sklearn.exceptions import ConvergenceWarning

    data = torch.cat([halves.train_real, halves.train_fake])
    labels = np.repeat([0, 1], len(halves.train_real))
    with warnings.catch_warnings():
        # The test is valid wherever the training stops.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(data.numpy(), labels)


def _score(classifier: Any, halves: _Halves) -> Tensor:
    """Probability of being a fake of every held-out datum `(2n,)`.

    The fakes, whose label is 1, come first, as `relabellings` puts the first sample first.
    """
    held_out = torch.cat([halves.held_out_fake, halves.held_out_real])
    try:
        probability = classifier.predict_proba(held_out.numpy())[:, 1]
    except AttributeError as error:
        raise TypeError(
            f"c2st: expected a classifier with predict_proba, got {type(classifier).__name__}. "
            "Fix: sklearn.calibration.CalibratedClassifierCV(classifier)."
        ) from error
    return torch.as_tensor(probability, device="cpu").double()


def _accuracy(scores: Tensor, is_fake: Tensor) -> Share:
    """Share of the data that are on their own side of ½; a tie counts half."""
    side = (scores - 0.5) * (2 * is_fake.double() - 1)
    right = side.sign() / 2 + 0.5
    return share_of(right)


def _auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Mann-Whitney statistic of each labelling `(B, N)`, over the number of pairs; ties count half."""
    num_fake = labels[0].sum()
    num_real = labels.shape[1] - num_fake
    rank_sums = labels @ _ranks(scores)
    return (rank_sums - num_fake * (num_fake + 1) / 2) / (num_fake * num_real)


def _auc_estimate(auc: float, scores: Tensor, is_fake: Tensor) -> Estimate:
    """With DeLong's error, from the shares of the other kind that each datum stands above."""
    ranks = _ranks(scores)
    variances, degrees = [], []
    for kind in (is_fake, ~is_fake):
        num_below = ranks[kind] - _ranks(scores[kind])
        share_below = num_below / (~kind).sum()
        num = int(kind.sum())
        variances.append(share_below.var().item() / num)
        degrees.append(num - 1)
    return Estimate(auc, sum(variances) ** 0.5, pooled_degrees(variances, degrees))


def _ranks(scores: Tensor) -> Tensor:
    """Places 1, …, N in increasing order; equal scores share the mean of theirs."""
    _, index, counts = scores.unique(return_inverse=True, return_counts=True)
    mean_places = counts.cumsum(0) - (counts - 1) / 2
    return mean_places[index].double()
