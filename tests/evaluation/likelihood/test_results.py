"""What a likelihood says of itself: its table, its bits per dim, its worst data."""

import dataclasses
from math import log

import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS
from conftest import in_float64
from torch import nn
from toys import linear_gaussian

import pyro_dgm as dgm


def test_bits_per_dim_of_uniform_levels_is_their_logarithm():
    assert dgm.bits_per_dim(10 * log(256), 10) == pytest.approx(8)


def test_bits_per_dim_does_not_depend_on_the_unit_of_a_density():
    """Data in 1/255 units have a density 255^D times as high and levels 1/255 apart."""
    law, levels = dist.Normal(100.0, 20.0), torch.randint(256, (7,)).double()
    density = -law.log_prob(levels).sum().item()
    rescaled = -dist.Normal(100.0 / 255, 20.0 / 255).log_prob(levels / 255).sum().item()
    assert dgm.bits_per_dim(rescaled, 7, spacing=1 / 255) == pytest.approx(
        dgm.bits_per_dim(density, 7)
    )


def test_a_model_without_latents_is_scored_exactly_and_says_so():
    case = PAIRS["density_flow"]()
    batch = case.batch(5)
    score = dgm.nll(case.model, case.guide, *batch, num=2)
    assert score.kind == "exact"
    assert dgm.results.NLL.kind == "upper bound in expectation"


@in_float64
def test_bits_per_dim_of_a_result_are_exact_and_keep_its_kind():
    """Sixteen equal levels are four bits; a guess of spread data has the standard error of its nats."""
    model = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.flows.Permutation(3)))
    score = dgm.nll(model, dgm.EmptyGuide(), torch.randn(50, 3))
    bits = score.bits_per_dim(3, spacing=0.5)
    assert bits.value == pytest.approx((score.mean / 3 + log(2)) / log(2))
    assert bits.stderr == pytest.approx(float(score.per_datum.std()) / 50**0.5 / (3 * log(2)))
    assert bits.kind == score.kind == "exact"
    even = dgm.VAE(
        dgm.StandardNormal(1), Even(16), dgm.StandardNormal(1)
    )  # the guide is the posterior
    found = dgm.nll(even.model, even.guide, torch.randint(16, (5, 3)), num=20)
    assert found.bits_per_dim(3).value == pytest.approx(4.0)


class Even(nn.Module):
    """Equal levels, whatever the code."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def forward(self, z):
        return dist.Categorical(logits=torch.zeros(*z.shape[:-1], 3, self.levels)).to_event(1)


def test_a_given_likelihood_has_the_mean_the_error_and_the_kind_that_it_was_given():
    given = dgm.results.GivenNLL(torch.tensor([1.0, 2.0, 6.0]), kind="lower bound")
    assert (given.mean, given.kind) == (3.0, "lower bound")
    assert given.stderr == pytest.approx((7 / 3) ** 0.5)
    assert str(given) == "NLL 3.000 ± 1.528 nats per datum (lower bound; 3 data)"


def test_the_worst_data_are_those_of_the_largest_khat():
    """Where k-hat could not be fitted, nothing is known: such data come first."""
    model, guide, x = linear_gaussian()
    found = dgm.nll(model, guide, x, num=200)
    told = dataclasses.replace(
        found, khat=torch.tensor([0.1, -torch.inf, 0.9, torch.nan, 0.5, torch.inf])
    )
    assert told.worst(4).tolist() == [3, 5, 2, 4]
    assert len(told.worst(100)) == 6


# Tables --------------------------------------------------------------------------------------------------------------


def test_a_likelihood_is_a_table_of_one_row_per_datum():
    model, guide, x = linear_gaussian()
    found = dgm.nll(model, guide, x, num=30)
    table = found.to_dataframe()
    assert list(table.columns) == ["per_datum", "nelbo", "kl", "monte_carlo", "ess", "khat"]
    assert table["per_datum"].to_list() == found.per_datum.tolist()
    assert "upper bound in expectation; 6 data" in found._repr_html_()


def test_a_given_likelihood_is_a_table_of_its_costs():
    given = dgm.results.GivenNLL(torch.tensor([1.0, 2.0, 6.0]))
    assert given.to_dataframe().to_dict("list") == {"per_datum": [1.0, 2.0, 6.0]}


def test_bits_per_dim_are_one_row():
    bits = dgm.results.BitsPerDim(3.5, 0.25, "exact")
    assert bits.to_dataframe().to_dict("list") == {
        "value": [3.5],
        "stderr": [0.25],
        "kind": ["exact"],
    }
    assert "3.5000 ± 0.2500 bits/dim (exact)" in bits._repr_html_()
