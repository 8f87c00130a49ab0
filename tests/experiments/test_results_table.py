"""The results of a run as a short table."""

import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.experiments.runs.results import results_of, table


def test_the_table_of_a_density_says_that_it_has_no_bits_per_dim():
    """Pixels on levels under a density: the run is scored in nats, and fails nowhere."""
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Normal(dgm.mlp(1, 4)))
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(4, 2)))
    x = torch.randint(17, (40, 4)).to(torch.get_default_dtype())
    figures = results_of(dgm.nll(model, guide, x, num=30), 4)
    assert figures["nll_measure"] == "density on levels"
    assert "bits_per_dim" not in figures
    about = {"num_draws": 30, "num_test": 40, "parameters": 9, "evaluation_seconds": 0.1}
    text = table([{**figures, **about}])
    assert "nats (density on levels, upper bound in expectation)" in text
    assert "none: of a density on levels" in text


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_khat_that_was_not_computed_is_no_share_of_bad_data(seeds):
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Normal(dgm.mlp(1, 4)))
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(4, 2)))
    figures = results_of(dgm.nll(model, guide, torch.randn(40, 4), num=20), 4)
    about = {"num_draws": 20, "num_test": 40, "parameters": 9, "evaluation_seconds": 0.1}
    text = table([{**figures, **about, "seed": seed} for seed in seeds])
    (line,) = [line for line in text.splitlines() if "k-hat" in line]
    assert line.endswith(" needs 21 draws or more (--num), got 20")


def test_the_table_of_an_exact_density_has_no_bound_and_no_weights_of_draws():
    density = dgm.DensityModel(dgm.StandardNormal(3))
    x = torch.randn(40, 3)
    figures = results_of(dgm.nll(density, dgm.EmptyGuide(), x, num=30), 3)
    about = {"num_draws": 30, "num_test": 40, "parameters": 0, "evaluation_seconds": 0.1, "seed": 0}
    row = {**figures, **about}
    names = [line[:26].strip() for line in table([row]).splitlines()]
    assert names == ["NLL", "NLL, bits/dim", "test data", "parameters", "evaluation, seconds"]
    names = [line[:26].strip() for line in table([row, row | {"seed": 1}]).splitlines()]
    assert names == ["", "NLL, nats", "NLL, bits/dim"]
