"""Nearest neighbours: brute force, copies of training data, precision and recall, constants, standard errors."""

from math import sqrt

import numpy as np
import pytest
import torch
from conftest import in_float64
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import pyro_dgm as dgm
from pyro_dgm.evaluation.samples import pools as samples


@in_float64
def test_leave_one_out_accuracy_is_that_of_scikit_learn():
    x, y = torch.randn(14, 2), torch.randn(14, 2) + 0.5
    right = cross_val_score(
        KNeighborsClassifier(1), torch.cat([x, y]).numpy(), np.repeat([0, 1], 14), cv=LeaveOneOut()
    )
    found = dgm.nearest_neighbour(real=x, fake=y, num_permutations=9)
    assert found.accuracy.value == pytest.approx(right.mean())
    assert (found.accuracy_real, found.accuracy_fake) == pytest.approx(
        (right[:14].mean(), right[14:].mean())
    )


def test_no_more_than_their_share_of_p_values_is_small_if_the_laws_agree():
    """400 pairs; the accuracy is discrete, so that the test is careful: at most α + 5 standard errors."""
    pairs = [(torch.randn(30, 2), torch.randn(40, 2)) for _ in range(400)]
    found = [dgm.nearest_neighbour(real=x, fake=y, num_permutations=99) for x, y in pairs]
    for level in (0.05, 0.2, 0.5):
        for p in ([f.p_value for f in found], [f.p_copied for f in found]):
            share = sum(value <= level for value in p) / 400
            assert level / 2 < share < level + 5 * sqrt(level * (1 - level) / 400)
    accuracy = torch.tensor([f.accuracy.value for f in found])
    assert abs(accuracy.mean() - 29 / 59) < 5 * accuracy.std() / 20
    claimed = torch.tensor([f.accuracy.stderr for f in found]).square().mean().sqrt()
    assert claimed / accuracy.std() == pytest.approx(1.0, abs=0.2)


def test_a_shift_is_found_above_one_half_and_copies_below():
    real = torch.randn(200, 2)
    apart = dgm.nearest_neighbour(real=real, fake=torch.randn(200, 2) + 2)
    copied = dgm.nearest_neighbour(
        real=real, fake=real[torch.randint(200, (200,))] + 1e-3 * torch.randn(200, 2)
    )
    assert apart.accuracy.value > 0.6
    assert (apart.p_value, apart.p_copied) == (0.001, 1.0)
    assert copied.accuracy.value < 0.35
    assert (copied.p_value, copied.p_copied) == (1.0, 0.001)


def test_equally_near_neighbours_are_chosen_without_a_look_at_the_labels():
    """Two constant samples: which neighbour is nearest is chance, and the accuracy one half in the mean."""
    ones = torch.ones(50, 1)
    found = torch.tensor(
        [dgm.nearest_neighbour(real=ones, fake=ones, seed=s).p_value for s in range(40)]
    )
    assert found.min() > 0.01


def test_of_the_larger_sample_as_many_are_used_as_of_the_smaller():
    assert dgm.nearest_neighbour(real=torch.randn(50, 2), fake=torch.randn(20, 2)).num == 20


def by_hand(real, fake, k):
    """Balls of all data, pair after pair."""
    radius = {True: [], False: []}
    for own, sample in ((True, real), (False, fake)):
        for i, a in enumerate(sample):
            others = sorted((a - b).norm().item() for j, b in enumerate(sample) if j != i)
            radius[own].append(others[k - 1])
    near = [[(x - y).norm().item() for y in fake] for x in real]
    rows, columns = range(len(real)), range(len(fake))
    return (
        sum(any(near[i][j] <= radius[True][i] for i in rows) for j in columns) / len(fake),
        sum(any(near[i][j] <= radius[False][j] for j in columns) for i in rows) / len(real),
        sum(near[i][j] <= radius[True][i] for i in rows for j in columns) / k / len(fake),
        sum(min(near[i]) <= radius[True][i] for i in rows) / len(real),
    )


@in_float64
@pytest.mark.parametrize("block", [2**24, 30])
def test_the_four_numbers_are_those_of_the_definition(monkeypatch, block):
    monkeypatch.setattr(samples, "BLOCK", block)
    real, fake = torch.randn(16, 2), 1.5 * torch.randn(14, 2) + 1
    found = dgm.prdc(real=real, fake=fake, k=3, num_resamples=2)
    values = (found.precision.value, found.recall.value, found.density.value, found.coverage.value)
    assert values == pytest.approx(by_hand(real, fake, 3), abs=1e-12)


def test_swapping_the_samples_swaps_precision_and_recall():
    real, fake = torch.randn(60, 3), 0.5 * torch.randn(60, 3) + 0.4
    found, swapped = dgm.prdc(real=real, fake=fake), dgm.prdc(real=fake, fake=real)
    assert (found.precision, found.recall) == (swapped.recall, swapped.precision)
    assert found.precision.value > found.recall.value


def test_identical_constant_samples_score_one():
    ones = torch.ones(20, 4)
    found = dgm.prdc(real=ones, fake=ones)
    assert {found.precision, found.recall, found.coverage} == {
        dgm.results.Estimate(1.0, 0.0, degrees=19)
    }
    assert found.density.value == 20 / 5


def test_a_lost_mode_costs_recall_and_a_strange_one_precision():
    one, two = torch.randn(200, 2), torch.randn(200, 2)
    two[:100] += 50
    lost, strange = dgm.prdc(real=two, fake=one), dgm.prdc(real=one, fake=two)
    assert lost.precision.value > 0.9
    assert lost.recall.value == pytest.approx(0.5, abs=0.05)
    assert lost.coverage.value == pytest.approx(0.5, abs=0.05)
    assert strange.precision.value == pytest.approx(0.5, abs=0.05)


def test_the_standard_errors_are_the_spread_over_samples_or_somewhat_more():
    """60 pairs of samples: the spread is known to 9 %; halves overstate it by up to two thirds here."""
    found = [
        dgm.prdc(real=torch.randn(80, 2), fake=torch.randn(80, 2) * 0.8 + 0.7) for _ in range(60)
    ]
    for name in ("recall", "density", "coverage"):
        numbers = [getattr(f, name) for f in found]
        spread = torch.tensor([n.value for n in numbers]).std().item()
        claimed = torch.tensor([n.stderr for n in numbers]).square().mean().sqrt().item()
        assert 0.7 < claimed / spread < 2.0, name


def test_too_few_points_for_k_neighbours_in_a_half_are_refused():
    with pytest.raises(ValueError, match=r"prdc: expected two samples .* m, n >= 12"):
        dgm.prdc(real=torch.randn(11, 2), fake=torch.randn(30, 2))
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        dgm.prdc(real=torch.randn(11, 2), fake=torch.randn(30, 2), k=0)
