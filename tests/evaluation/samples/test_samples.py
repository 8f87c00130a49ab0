"""What all sample metrics share: sizes and shapes, blocks, halves; and what all of them refuse."""

import numpy as np
import pytest
import torch
from conftest import in_float64
from sklearn.linear_model import LogisticRegression

import pyro_dgm as dgm
from pyro_dgm.evaluation.samples import pools as samples


def fast_c2st(**arguments):
    return dgm.c2st(**arguments, classifier=LogisticRegression())


METRICS = {
    "c2st": fast_c2st,
    "mmd": dgm.mmd,
    "nearest_neighbour": dgm.nearest_neighbour,
    "prdc": dgm.prdc,
    "frechet": dgm.frechet,
}
every_metric = pytest.mark.parametrize("name", METRICS)


@every_metric
def test_samples_are_flattened_and_may_be_arrays_of_any_dtype(name):
    x, y = torch.randint(5, (30, 2, 2)), torch.randint(6, (30, 2, 2)).float()
    first = METRICS[name](real=x, fake=y)
    assert METRICS[name](real=x.flatten(1).numpy(), fake=y.flatten(1).double().numpy()) == first
    assert str(first)


@every_metric
def test_scalars_are_vectors_of_one(name):
    x, y = torch.randn(30), torch.randn(30)
    assert METRICS[name](real=x, fake=y) == METRICS[name](real=x[:, None], fake=y[:, None])


@every_metric
def test_neither_the_samples_nor_any_random_state_are_touched(name):
    x, y = (
        torch.randn(30, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(30, 2, dtype=torch.float64),
    )
    copies, state = (x.detach().clone(), y.clone()), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    METRICS[name](real=x, fake=y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@every_metric
def test_a_result_is_seeded_and_frozen(name):
    x, y = torch.randn(40, 2), torch.randn(30, 2)
    first = METRICS[name](real=x, fake=y, seed=3)
    torch.rand(1)
    assert METRICS[name](real=x, fake=y, seed=3) == first
    assert METRICS[name](real=x, fake=y, seed=4) != first
    with pytest.raises(AttributeError):
        first.seed = 1


@every_metric
def test_what_is_no_pair_of_samples_is_refused(name):
    good, bad = torch.randn(30, 2), torch.randn(30, 2)
    bad[3, 1] = torch.nan
    with pytest.raises(
        ValueError, match=rf"{name}: expected two samples .* got \(30, 2\), \(30, 3\)"
    ):
        METRICS[name](real=good, fake=torch.randn(30, 3))
    with pytest.raises(
        ValueError, match=rf"{name}: expected two samples .* got \(1, 2\), \(30, 2\)"
    ):
        METRICS[name](real=good[:1], fake=good)
    with pytest.raises(ValueError, match=rf"{name}: fake: expected finite values, got 1 NaN"):
        METRICS[name](real=good, fake=bad)
    with pytest.raises(ValueError, match=rf"{name}: expected two samples .* got \(\)"):
        METRICS[name](real=torch.tensor(1.0), fake=good)


@every_metric
def test_arguments_are_given_by_name(name):
    with pytest.raises(TypeError, match="positional"):
        METRICS[name](torch.randn(30, 2), torch.randn(30, 2))


@in_float64
def test_blocks_of_distances_make_up_the_matrix(monkeypatch):
    x, y = torch.randn(7, 3), torch.randn(5, 3)
    monkeypatch.setattr(samples, "BLOCK", 11)
    blocks = list(samples.distance_blocks(x, y))
    assert [b.shape for _, b in blocks] == [(2, 5), (2, 5), (2, 5), (1, 5)]
    torch.testing.assert_close(torch.cat([b for _, b in blocks]), (x[:, None] - y).norm(dim=-1))


@in_float64
@pytest.mark.parametrize("size", [2**24, 20])
def test_pooled_distances_are_the_same_whether_kept_or_computed_again(monkeypatch, size):
    points, rows, columns = torch.randn(9, 3), torch.tensor([4, 0, 4]), torch.tensor([1, 4])
    monkeypatch.setattr(samples, "BLOCK", size)
    pooled = samples.Pooled(points)
    assert (pooled.whole is None) == (size == 20)
    for _ in range(2):  # a caller that writes into a block does not write into the distances
        blocks = [d for _, d in pooled.blocks(rows, columns)]
        torch.testing.assert_close(
            torch.cat(blocks), (points[rows][:, None] - points[columns]).norm(dim=-1)
        )
        for block in blocks:
            block.fill_(9.0)


@in_float64
def test_the_spread_of_halves_is_the_standard_error_of_a_mean():
    """Exact in expectation for a difference of means; 2,000 halves leave 2 %, allowed is 10 %."""
    x, y = torch.randn(60, 1), 2 * torch.randn(40, 1)
    halves = samples.over_halves(lambda a, b: a.mean(0) - b.mean(0), x, y, 2000)
    expected = (x.var() / 60 + y.var() / 40).sqrt()
    assert halves.std() / expected == pytest.approx(1.0, abs=0.1)
