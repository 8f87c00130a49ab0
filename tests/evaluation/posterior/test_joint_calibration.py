"""Calibration where all data share a draw: an exact guide is uniform over data sets, one that is off is not."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from toys import GlobalMean, Written

import pyro_dgm as dgm


def guide_of(shift=0.0, spread=1.0):
    r"""The posterior of `GlobalMean`, with $\mu$ off."""

    def guide(_, x):
        variance = 1 / (1 + len(x) / 1.25)
        loc = variance * x.sum() / 1.25 + shift * variance**0.5
        mu = pyro.sample("mu", dist.Normal(loc, spread * variance**0.5))
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.2 * mu + 0.8 * x, 0.2**0.5))

    return Written(guide)


def test_an_exact_guide_has_uniform_ranks_over_data_sets():
    found = dgm.sbc(GlobalMean(), guide_of(), num_data=250, num_draws=19, size=5)
    assert found.names == ("mu", "log p(X, z)")
    assert found.ranks.shape == (250, 2)
    assert found.passed(0.001)
    assert abs(found.coverage(0.8)[0] - 0.8) < 5 * (0.16 / 250) ** 0.5


@pytest.mark.parametrize("options", [{"shift": 1.0}, {"spread": 0.4}])
def test_a_guide_that_is_off_is_told(options):
    found = dgm.sbc(GlobalMean(), guide_of(**options), num_data=120, num_draws=19, size=5)
    assert not found.passed(0.01)
    assert found.p_values[0] < 0.01


def test_the_rows_of_a_further_argument_are_those_of_each_set():
    def model(x, c):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with dgm.data_plate(x, c):
            return pyro.sample("x", dist.Normal((c * w).sum(-1), 0.5), obs=x)

    def guide(x, c):
        covariance = (torch.eye(2) + c.T @ c / 0.25).inverse()
        loc = covariance @ (c.T @ x) / 0.25
        pyro.sample("w", dist.MultivariateNormal(loc, covariance))

    found = dgm.sbc(model, guide, torch.randn(7, 2), num_data=100, num_draws=19)
    assert found.names == ("w[0]", "w[1]", "log p(X, z)")
    assert found.passed(0.001)


def test_a_guide_can_be_fitted_to_every_set():
    def fit(x):
        return guide_of(shift=2.0)

    found = dgm.sbc(GlobalMean(), guide_of(), num_data=60, num_draws=19, size=5, fit=fit)
    assert not found.passed(0.01)


def test_what_has_no_calibration_over_sets_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"sbc: expected the number of data in a set.*Fix: .*size="
    ):
        dgm.sbc(GlobalMean(), guide_of(), num_data=5)
    auto = AutoNormal(GlobalMean())
    with pytest.raises(
        ValueError, match=r"sbc: expected a guide that answers any data, got AutoNormal.*Fix: fit="
    ):
        dgm.sbc(GlobalMean(), auto, num_data=5, size=5)
