"""What all sample metrics share: sizes and shapes, blocks, halves; and what all of them refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import in_float64
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
def test_numbers_of_any_kind_are_the_same_sample(name):
    y = np.arange(60.0).reshape(30, 2) % 7
    x = np.ascontiguousarray(y[::-1] % 5)
    first = METRICS[name](real=x, fake=y)
    read_only = y.copy()
    read_only.flags.writeable = False
    kinds = {
        "unsigned": y.astype(np.uint16),
        "big-endian": y.astype(">f8"),
        "negative strides": np.ascontiguousarray(y[::-1])[::-1],
        "read-only": read_only,
        "table": pd.DataFrame(y),
        "list": y.tolist(),
        "list of tensors": list(torch.as_tensor(y)),
    }
    for kind, fake in kinds.items():
        assert METRICS[name](real=x, fake=fake) == first, kind


NO_NUMBERS = {
    "model": lambda: nn.Linear(2, 2),
    "loader": lambda: DataLoader(TensorDataset(torch.zeros(30, 2)), 10),
    "nothing": lambda: None,
    "text": lambda: ["a", "b"],
    "ragged": lambda: [torch.zeros(3, 2), torch.zeros(2, 2)],
    "complex": lambda: torch.zeros(30, 2, dtype=torch.complex64),
    "complex array": lambda: np.zeros((30, 2), dtype=complex),
    "dates": lambda: np.zeros((30, 2), dtype="datetime64[s]"),
}


@every_metric
@pytest.mark.parametrize("mistake", NO_NUMBERS)
@pytest.mark.parametrize("role", ["real", "fake"])
def test_what_holds_no_numbers_is_a_type_error_with_the_fix(name, mistake, role):
    samples = {"real": torch.randn(30, 2), "fake": torch.randn(30, 2)}
    samples[role] = NO_NUMBERS[mistake]()
    with pytest.raises(
        TypeError, match=rf"{name}: {role}: expected real numbers .* got \w+\. Fix: torch.stack"
    ):
        METRICS[name](**samples)


@every_metric
def test_every_refusal_of_a_sample_names_its_fix(name):
    good = torch.randn(30, 2)
    for bad, fix in (
        (torch.zeros(0, 2), r"got \(30, 2\), \(0, 2\). Fix: more data; generate\(model, 1000\)"),
        (good[:1], r"Fix: more data; generate\(model, 1000\)"),
        (good[0, 0], r"Fix: torch.stack\(draws\), a row per datum"),
        (
            good.reshape(30, 1, 2),
            r"Fix: fake.reshape\(-1, \*\(2,\)\) if it holds the same variables",
        ),
        (good.reshape(30, 2, 1) / 0, r"Fix: fake.reshape"),
        (good / 0, r"fake: expected finite values, got 60 NaN or infinite of 60. Fix"),
    ):
        with pytest.raises(ValueError, match=fix):
            METRICS[name](real=good, fake=bad)
    with pytest.raises(ValueError, match="expected at least one datum"):
        METRICS[name](real=torch.zeros(30, 0), fake=torch.zeros(30, 0))


COLUMNS = {
    "c2st": ["accuracy", "accuracy_stderr", "auc", "auc_stderr", "p_value", "classifier"],
    "mmd": ["value", "stderr", "p_value", "bandwidth", "num_real", "num_fake", "num_permutations"],
    "nearest_neighbour": ["accuracy", "accuracy_stderr", "accuracy_real", "accuracy_fake"],
    "prdc": ["precision", "precision_stderr", "recall", "recall_stderr", "density"],
    "frechet": ["value", "stderr", "bias", "num_real", "num_fake", "dim"],
}


@every_metric
def test_a_result_is_a_table_of_one_row(name):
    result = METRICS[name](real=torch.randn(30, 2), fake=torch.randn(30, 2))
    frame = result.to_dataframe()
    assert len(frame) == 1
    assert list(frame.columns)[: len(COLUMNS[name])] == COLUMNS[name]
    assert str(result)[:9] in result._repr_html_()


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
