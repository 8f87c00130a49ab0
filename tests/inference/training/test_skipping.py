"""Steps that are not finite: unseen at limit 0, passed over up to the limit, an error after it."""

import pytest
import torch
from torch import nn

from pyro_dgm.inference.training.skipping import Skips

GOOD = {"loss": torch.tensor(1.0), "rec[x]": torch.tensor(1.0)}
BAD = {"loss": torch.tensor(torch.nan), "rec[x]": torch.tensor(torch.inf)}


def parameter(gradient=1.0):
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.full((2,), gradient)
    return p


def test_at_limit_zero_nothing_is_looked_at():
    assert not Skips().skip(BAD, ["loss"], [parameter()], 1)


def test_loss_and_gradient_are_watched_and_other_terms_are_not():
    skips = Skips(limit=5)
    assert not skips.skip(GOOD, ["loss"], [parameter()], 1)
    assert not skips.skip({**BAD, "loss": GOOD["loss"]}, ["loss"], [parameter()], 1)
    assert skips.skip(BAD, ["loss"], [parameter()], 1)
    assert skips.skip(GOOD, ["loss"], [parameter(torch.nan)], 1)
    assert skips.num_skipped == 2


def test_beyond_the_limit_the_error_names_the_site_and_a_larger_limit():
    skips = Skips(limit=1)
    assert skips.skip(BAD, ["loss"], [parameter()], 1)
    with pytest.raises(
        ValueError, match=r"non-finite rec\[x\] at .* step 7. Fix: .*fit\(max_skips=10\) to pass"
    ):
        skips.skip(BAD, ["loss"], [parameter()], 7)
