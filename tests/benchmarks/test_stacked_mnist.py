"""The benchmark of stacked digits counts modes as it says, and trains what it counts."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import stacked_mnist
from stacked_mnist import SIZES, Digits

import pyro_dgm as dgm

pytestmark = pytest.mark.parametrize("dtype", ["float32"], indirect=True)


class ByRow(nn.Module):
    """Class c of an image whose row c is bright."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x[:, 0, :10].mean(-1)


def digits_by_row(num, width=14):
    labels = torch.arange(num) % 10
    return Digits(torch.eye(14)[labels][:, :, None].expand(num, 14, width), labels)


def test_modes_are_the_labels_that_stacked_images_carry():
    digits = digits_by_row(30)
    x, labels = dgm.datasets.stacked(digits.images, digits.labels, 200)
    assert torch.equal(stacked_mnist.modes_of(ByRow(), x), labels)


def test_a_perfect_sampler_reaches_all_modes_at_the_floor():
    digits = digits_by_row(10, width=1)
    x, _ = dgm.datasets.stacked(digits.images, digits.labels, 20_000)
    found = stacked_mnist.coverage(ByRow(), x)
    assert found.captured == 1000
    # 20,000 draws: the KL is chi2 of 999 degrees over 40,000, 0.0250 with sd 0.0011
    assert found.reverse_kl.value == pytest.approx(found.floor, abs=0.006)


@pytest.mark.slow  # convolutions of 28 x 28 are slow on a busy core
@pytest.mark.parametrize("size", SIZES)
def test_a_seed_is_trained_and_counted(size):
    side = SIZES[size].side
    digits = Digits(torch.rand(20, side, side), torch.arange(20) % 10)
    options = Namespace(compile=False, num=7)
    found = stacked_mnist.run(digits, ByRow(), replace(SIZES[size], steps=2), 0, options)
    assert 1 <= found["modes"] <= 7
    assert found["steps"] == 2


def test_the_classifier_learns_classes_that_are_there():
    train, test = digits_by_row(1000), digits_by_row(20)
    _, about = stacked_mnist.classifier(train, test, 3, 500)
    assert about["accuracy"] >= 0.9


def test_a_summary_has_the_error_between_seeds():
    rows = [{"modes": 990, "reverse_kl": 0.1}, {"modes": 1000, "reverse_kl": 0.3}]
    found = stacked_mnist.summary(rows)
    assert found["modes"] == 995
    assert found["modes_stderr"] == pytest.approx(5)
    assert found["reverse_kl_stderr"] == pytest.approx(0.1)
