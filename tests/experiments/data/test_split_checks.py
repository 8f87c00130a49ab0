"""Every split is looked at before the first step."""

import pytest
import torch

from pyro_dgm.datasets import Data, Digits, check_splits, fingerprint

X = torch.arange(12, dtype=torch.float64).reshape(6, 2) % 3


def data_of(**changes):
    parts = {"train": X, "val": X[:3], "test": X[:2], "event_shape": (2,), "levels": 3}
    return Data(**(parts | changes))


def test_good_data_pass_and_stay_as_they_are():
    digits = Digits()
    before = fingerprint(digits)
    check_splits(digits)
    check_splits(data_of(levels=None))
    assert fingerprint(digits) == before


def with_value(value, row=1):
    x = X[:3].clone()
    x[row, 0] = value
    return x


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"val": X[:1]}, r"data\.val: expected at least 2 rows of 2 numbers.*got \(1, 2\)"),
        ({"test": X[:0]}, r"data\.test: expected at least 2 rows"),
        ({"test": torch.zeros(3, 4)}, r"data\.test: .*got \(3, 4\)"),
        ({"event_shape": (3,)}, r"data\.train: expected at least 2 rows of 3 numbers"),
        ({"val": with_value(float("nan"))}, r"data\.val: expected finite numbers, .* 1 of 3 rows, first in row 1"),
        ({"val": with_value(3.0, 2)}, r"data\.val: expected integers 0, …, 2, got 3 in row 2"),
        ({"val": with_value(-1.0)}, r"data\.val: expected integers 0, …, 2, got -1 in row 1"),
        ({"val": with_value(0.5)}, r"data\.val: expected integers 0, …, 2, got 0\.5 in row 1"),
        ({"dynamic": True}, r"data\.train: expected numbers from 0 to 1, got 2 in row 1"),
        ({"labels": {"val": torch.zeros(2)}}, r"data\.labels\['val'\]: expected 3 classes.*got 2"),
        ({"context": {"train": (X,)}}, r"data\.context\['val'\]: expected 1 tensors as in train, got 0"),
        (
            {"context": {"train": (X,), "val": (X[:3, :1],), "test": (X[:2],)}},
            r"data\.context\['val'\]\[0\]: expected shape \(3, 2\), got \(3, 1\)",
        ),
        (
            {"context": {"train": (X,), "val": (with_value(float("inf")),), "test": (X[:2],)}},
            r"data\.context\['val'\]\[0\]: expected finite numbers",
        ),
        ({"has_mask": True}, r"data\.context\['train'\]: expected a mask, bool \(6, 2\), .*got none"),
        (
            {"has_mask": True, "context": {"train": (X,), "val": (X[:3],), "test": (X[:2],)}},
            r"expected a mask, bool \(6, 2\), .*got torch\.float64 \(6, 2\)",
        ),
    ],
)  # fmt: skip
def test_bad_splits_are_named(changes, match):
    with pytest.raises(ValueError, match=match):
        check_splits(data_of(**changes))
