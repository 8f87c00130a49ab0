"""The classifier two-sample test: uniform p-values under the null, the best accuracy, ties, standard errors."""

from math import erf, sqrt

import numpy as np
import pytest
import torch
from conftest import in_float64
from scipy.stats import kstest, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import LinearSVC

import pyro_dgm as dgm
from pyro_dgm.evaluation.samples.classifier import _auc, _auc_estimate
from pyro_dgm.evaluation.samples.pools import relabellings


def quadratic():
    """Contains the log density ratio of any two normals."""
    return make_pipeline(PolynomialFeatures(2), LogisticRegression())


def p_values(classifier, num, size):
    laws = [(torch.randn(size, 3).exp(), torch.randn(size + 9, 3).exp()) for _ in range(num)]
    return [
        dgm.c2st(real=x, fake=y, classifier=classifier, num_permutations=199).p_value
        for x, y in laws
    ]


def test_p_values_are_uniform_if_the_laws_agree():
    """200 pairs of heavy-tailed samples of unequal sizes; Kolmogorov's test at one in ten thousand."""
    p = p_values(LogisticRegression(), 200, 40)
    assert kstest(p, "uniform").pvalue > 1e-4
    assert abs(sum(value <= 0.05 for value in p) / 200 - 0.05) < 5 * sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
def test_p_values_of_the_default_classifier_are_uniform_if_the_laws_agree():
    assert kstest(p_values(None, 200, 40), "uniform").pvalue > 1e-4


def test_scores_that_tie_make_the_test_careful_and_never_reckless():
    """One neighbour gives scores 0 and 1 alone; a share of at most α + 5 standard errors falls below α."""
    p = np.array(p_values(KNeighborsClassifier(1), 200, 30))
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() < level + 5 * sqrt(level * (1 - level) / 200)


@pytest.mark.parametrize(
    ("loc", "scale", "best"),
    [
        (0.5, 1, 0.59871),
        (1, 1, 0.69146),
        (2, 1, 0.84134),
        (4, 1, 0.97725),
        (0, 2, 0.66134),
        (1, 0.5, 0.77331),
    ],
)
def test_accuracy_is_half_plus_half_the_total_variation_of_two_normals(loc, scale, best):
    """Quadrature of |p − π| / 2 agrees with the table; the quadratic classifier reaches it to 5 standard errors."""
    grid = np.linspace(-30, 30, 600_001)
    distance = np.abs(norm.pdf(grid) - norm.pdf(grid, loc, scale)).sum() * (grid[1] - grid[0]) / 2
    assert 0.5 + distance / 2 == pytest.approx(best, abs=1e-5)
    real, fake = torch.randn(8000), loc + scale * torch.randn(8000)
    found = dgm.c2st(real=real, fake=fake, classifier=quadratic(), num_permutations=99)
    assert abs(found.accuracy.value - best) < 5 * found.accuracy.stderr
    assert found.total_variation.value == pytest.approx(2 * found.accuracy.value - 1)
    if scale == 1:
        assert abs(found.auc.value - (0.5 + erf(loc / 2) / 2)) < 5 * found.auc.stderr


def test_the_default_classifier_finds_a_shift_and_a_change_of_scale():
    for change in (lambda x: x + 0.5, lambda x: 1.5 * x):
        assert dgm.c2st(real=torch.randn(500, 2), fake=change(torch.randn(500, 2))).p_value == 0.001


@in_float64
def test_the_auc_is_that_of_scikit_learn_for_every_labelling_and_with_ties():
    scores = torch.randint(6, (30,)).double()
    labels = relabellings(12, 18, 5, scores.device)
    for label, found in zip(labels, _auc(scores, labels), strict=True):
        assert found.item() == pytest.approx(roc_auc_score(label.numpy(), scores.numpy()))


def test_the_standard_error_of_the_auc_is_its_spread_over_samples():
    """400 samples of 40 and 60: the spread is known to 4 %, allowed is 20 %."""
    is_fake = torch.arange(100) < 40
    draws = [torch.randn(100) + 0.8 * is_fake for _ in range(400)]
    spread = torch.stack([_auc(s.double(), is_fake[None].double())[0] for s in draws]).std().item()
    claimed = (
        torch.tensor([_auc_estimate(0.0, s, is_fake).stderr for s in draws])
        .square()
        .mean()
        .sqrt()
        .item()
    )
    assert claimed / spread == pytest.approx(1.0, abs=0.2)


def test_a_classifier_that_says_one_half_is_right_half_of_the_time():
    class Shrug(LogisticRegression):
        def predict_proba(self, X):
            return np.full((len(X), 2), 0.5)

    found = dgm.c2st(real=torch.randn(20, 2), fake=torch.randn(30, 2) + 9, classifier=Shrug())
    assert (found.accuracy.value, found.auc.value, found.p_value) == (0.5, 0.5, 1.0)
    assert (found.num_train, found.num_held_out) == (10, 10)
    assert "Shrug" in str(found)


def test_the_callers_classifier_stays_as_it_is():
    classifier = LogisticRegression()
    dgm.c2st(real=torch.randn(20, 2), fake=torch.randn(20, 2), classifier=classifier)
    assert classifier.get_params()["random_state"] is None
    assert not [name for name in vars(classifier) if name.endswith("_")]


def test_a_classifier_without_probabilities_is_refused():
    with pytest.raises(
        TypeError,
        match="expected a classifier with predict_proba, got LinearSVC. Fix: .*Calibrated",
    ):
        dgm.c2st(real=torch.randn(20, 2), fake=torch.randn(20, 2), classifier=LinearSVC())


@pytest.mark.parametrize("classifier", [LogisticRegression, "forest"])
def test_what_is_no_unfitted_classifier_is_refused(classifier):
    with pytest.raises(
        TypeError,
        match=r"expected an unfitted scikit-learn classifier, got .*Fix: classifier=Logis",
    ):
        dgm.c2st(real=torch.randn(20, 2), fake=torch.randn(20, 2), classifier=classifier)
