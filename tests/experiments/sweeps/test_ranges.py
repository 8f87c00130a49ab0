"""What a setting is searched over, from words and from Python."""

from __future__ import annotations

from collections import Counter
from math import log
from random import Random

import pytest
import torch

from pyro_dgm.experiments.sweeps.ranges import Range, read_space


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("4,8,16", [4, 8, 16]),
        ("1e-3,0.01", [0.001, 0.01]),
        ("true,false,null", [True, False, None]),
        ("[64,64],[128]", [[64, 64], [128]]),
        ("pyro_dgm.ELBO,pyro_dgm.IWELBO", ["pyro_dgm.ELBO", "pyro_dgm.IWELBO"]),
        ("2..8", Range(2, 8)),
        ("1e-4..1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("-1..1.5", Range(-1, 1.5)),
        ([4, 8], [4, 8]),
        (Range(1, 3), Range(1, 3)),
    ],
)
def test_lists_and_ranges_are_read(said, expected):
    assert read_space({"model.latent": said}) == {"model.latent": expected}


@pytest.mark.parametrize(
    ("over", "match"),
    [
        ({}, "expected one setting or more"),
        ({"model.latent": ""}, "expected a list of values or a range"),
        ({"model.latent": 4}, "expected a list of values or a range"),
        ({"model.latent": "4,4"}, "expected each value once"),
        ({"model.latent": "8..4"}, "the lower one first"),
        ({"trainer.lr": "0..1:log"}, "finite and positive"),
        ({"model.latent": "[4"}, "expected a list of values or a range"),
        ({"seeds": "1,2"}, "compared on the same data and seeds"),
        ({"data.num": "1,2"}, "compared on the same data and seeds"),
    ],
)
def test_what_can_not_be_searched_is_refused_with_a_fix(over, match):
    with pytest.raises(ValueError, match=rf"{match}.*Fix: --over"):
        read_space(over)


def test_integers_of_a_range_are_equally_likely():
    """2,000 draws of 4 numbers: a share has the standard error √(3/16/2000) = 0.0097, of which 5 are allowed."""
    random = Random(0)
    counts = Counter(Range(2, 5).draw(random) for _ in range(2000))
    assert set(counts) == {2, 3, 4, 5}
    assert all(abs(count / 2000 - 0.25) < 5 * 0.0097 for count in counts.values())


def test_each_order_of_magnitude_of_a_logarithmic_range_is_equally_likely():
    """The logarithm of 2,000 draws is uniform on an interval of length 2: its mean has a standard error of 0.013."""
    random = Random(0)
    draws = torch.tensor([Range(1e-3, 1e-1, log=True).draw(random) for _ in range(2000)])
    assert abs(draws.log10().mean() + 2) < 5 * 2 / (12 * 2000) ** 0.5
    assert ((draws >= 1e-3) & (draws <= 1e-1)).all()


def test_integers_of_a_logarithmic_range_have_the_mass_of_their_half_open_cells():
    """P(1) of 1..4 is log(1.5 / 0.5) / log(4.5 / 0.5) = 1/2; 2,000 draws have the standard error 0.0112."""
    random = Random(0)
    share = sum(Range(1, 4, log=True).draw(random) == 1 for _ in range(2000)) / 2000
    assert abs(share - log(3) / log(9)) < 5 * 0.0112
