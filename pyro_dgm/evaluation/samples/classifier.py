"""The classifier two-sample test: can a classifier tell real data from fakes it has not seen?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...inference.run.session import require_positive
from ...inference.run.states import fork_rng
from ..estimate import Estimate, estimated
from .pools import balanced, permutation_p, relabellings, two_samples


@dataclass(frozen=True)
class C2ST:
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
        """A lower bound, in expectation, of the total variation distance of the two laws."""
        return Estimate(2 * self.accuracy.value - 1, 2 * self.accuracy.stderr)

    def __str__(self) -> str:
        return (
            f"C2ST accuracy {self.accuracy} (ideal 0.5), AUC {self.auc}, p = {self.p_value:.4f} "
            f"({self.num_held_out} held-out data of either kind, {self.num_permutations} permutations; "
            f"{self.classifier} trained on {self.num_train} of either kind)"
        )


def c2st(
    *, real: Any, fake: Any, classifier: Any = None, num_permutations: int = 999, seed: int = 0
) -> C2ST:
    r"""Train a classifier on one half of the data, real against fake; test it on the other half.

    The p-value relabels the *held-out* half while the scores stay: given the training half the scores are a fixed
    function of single data, so under one law for both samples every assignment of the held-out labels is equally
    probable. That is exact for any classifier and costs no second training. (Over cross-validation folds it would not
    be: they share their training data.) It compares the AUC, since the accuracy takes so few values that most
    relabellings would tie.

    Args:
        real: `(m, *event)`, an array or a tensor.
        fake: `(n, *event)`; of the larger sample as many are used as of the smaller.
        classifier: an unfitted scikit-learn classifier with `predict_proba`; a copy of it is trained, each
            `random_state` that is `None` set to the seed. Default: 64 hidden ReLU units on standardised features,
            `MLPClassifier((64,), solver="lbfgs", alpha=0.3, max_iter=300)`.
        num_permutations: number B of relabellings.
        seed: of the split, the classifier and the relabellings; the random state outside stays as it is.

    Raises:
        ValueError: for fewer than four data in a sample, different event shapes, or NaN.
        TypeError: for a classifier without `predict_proba`.

    References:
        Lopez-Paz, Oquab 2017, *Revisiting classifier two-sample tests*, arXiv:1610.06545;
        DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44 (the standard error of the AUC).

    Example:
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> c2st(real=x[:200], fake=x[200:] + 1).p_value
        0.001
    """
    require_positive(num_permutations=num_permutations)
    real, fake = two_samples("c2st", real, fake, at_least=4)
    with fork_rng(real, seed=seed):
        real, fake = balanced(real, fake)
        real, fake = (x[torch.randperm(len(x)).to(x.device)].cpu() for x in (real, fake))
        num_train, num_held_out = len(real) // 2, len(real) - len(real) // 2
        labels = relabellings(num_held_out, num_held_out, num_permutations, real.device)
    model = _seeded(_default() if classifier is None else classifier, seed)
    scores = _scores(
        model, [real[:num_train], fake[:num_train]], torch.cat([fake[num_train:], real[num_train:]])
    )
    right = ((scores - 0.5) * (2 * labels[0] - 1)).sign() / 2 + 0.5
    found = _auc(scores, labels)
    return C2ST(
        accuracy=estimated(right[None]),
        auc=Estimate(found[0].item(), _auc_stderr(scores, labels[0].bool())),
        p_value=permutation_p(found),
        classifier=" ".join(str(model).split()),
        num_train=num_train,
        num_held_out=num_held_out,
        num_permutations=num_permutations,
    )


def _default() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), MLPClassifier((64,), solver="lbfgs", alpha=0.3, max_iter=300)
    )


def _seeded(classifier: Any, seed: int) -> Any:
    """An unfitted copy that does not draw from NumPy's global random state."""
    from sklearn.base import clone

    fresh = clone(classifier)
    states = {k: v for k, v in fresh.get_params().items() if k.split("__")[-1] == "random_state"}
    return fresh.set_params(
        **{name: seed % 2**32 for name, value in states.items() if value is None}
    )


def _scores(classifier: Any, train: list[Tensor], held_out: Tensor) -> Tensor:
    """Probability of being a fake of every held-out datum, by a classifier trained on `[real, fake]`."""
    from sklearn.exceptions import ConvergenceWarning

    labels = np.repeat([0, 1], len(train[0]))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the test is valid wherever the training stops
        classifier.fit(torch.cat(train).numpy(), labels)
    try:
        probability = classifier.predict_proba(held_out.numpy())[:, 1]
    except AttributeError as error:
        raise TypeError(
            f"c2st: expected a classifier with predict_proba, got {type(classifier).__name__}. "
            "Fix: sklearn.calibration.CalibratedClassifierCV(classifier)."
        ) from error
    return torch.as_tensor(probability).double()


def _auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Mann-Whitney statistic of each labelling `(B, N)`, over the number of pairs; ties count half."""
    m = labels[0].sum()
    n = labels.shape[1] - m
    return (labels @ _ranks(scores) - m * (m + 1) / 2) / (m * n)


def _auc_stderr(scores: Tensor, is_fake: Tensor) -> float:
    """From the shares of the other kind that each datum stands above."""
    ranks, variance = _ranks(scores), 0.0
    for kind in (is_fake, ~is_fake):
        above = (ranks[kind] - _ranks(scores[kind])) / (~kind).sum()
        variance += above.var().item() / int(kind.sum())
    return variance**0.5


def _ranks(scores: Tensor) -> Tensor:
    """Places 1, …, N in increasing order; equal scores share the mean of theirs."""
    _, index, counts = scores.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[index].double()
