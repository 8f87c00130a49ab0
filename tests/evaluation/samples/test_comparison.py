"""The comparison table: one split for all rows, programs whose faults are known, and what is refused."""

from math import log

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from sklearn.linear_model import LogisticRegression
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.datasets import ring

TOY = ring()


class Law(nn.Module):
    """A conditional that is one fixed law."""

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self):
        return self.law


def narrow_kernels(data):
    """Great samples, poor likelihood: a kernel around every training datum."""
    return dgm.DensityModel(dgm.AggregatePrior(dgm.Normal(nn.Identity(), scale=1e-4), data))


def mostly_noise():
    """Poor samples, great likelihood: 0.01 p + 0.99 noise."""
    loc = torch.cat([TOY.centres, torch.zeros(1, 2)])
    scale = torch.tensor([TOY.sd] * 8 + [4.0])[:, None].expand(9, 2)
    weights = torch.tensor([0.01 / 8] * 8 + [0.99])
    return dgm.DensityModel(
        Law(dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale).to_event(1)))
    )


@pytest.fixture(scope="module")
def table():
    """The slide on likelihood and quality, n = 600; float32, as users have it."""
    train, test = TOY.sample(600, seed=0), TOY.sample(1200, seed=1)
    models = {
        "truth": dgm.DensityModel(Law(TOY.distribution)),
        "kernels": narrow_kernels(train),
        "noise": mostly_noise(),
    }
    samples = {name: dgm.generate(model, 600) for name, model in models.items()}
    nll = {name: dgm.nll(model, dgm.EmptyGuide(), test) for name, model in models.items()}
    return dgm.compare_samples(samples, train=train, test=test, nll=nll, num_permutations=199)


@in_float64
def test_one_percent_of_the_truth_costs_at_most_log_100_at_every_point():
    """Exactly, without a tolerance: on a grid, on data, and far away."""
    side = torch.linspace(-9, 9, 181)
    points = torch.cat([torch.cartesian_prod(side, side), ring().sample(1000)])
    toy = ring()
    loc, scale = (
        torch.cat([toy.centres, torch.zeros(1, 2)]),
        torch.tensor([toy.sd] * 8 + [4.0])[:, None].expand(9, 2),
    )
    weights = torch.tensor([0.01 / 8] * 8 + [0.99])
    mostly_noise = dist.MixtureSameFamily(
        dist.Categorical(weights), dist.Normal(loc, scale).to_event(1)
    )
    assert bool(
        (mostly_noise.log_prob(points) >= toy.distribution.log_prob(points) - log(100)).all()
    )


@pytest.mark.slow
@pytest.mark.slow
def test_the_truth_is_told_from_the_data_by_no_metric(table):
    floor, truth, *_ = table.rows
    assert floor["model"] == "test data"
    assert abs(truth["nll"] - 0.312) < 5 * truth["nll_stderr"]  # log 8 + log(2 π e σ²)
    for row in (floor, truth):
        assert min(row[p] for p in ("c2st_p", "mmd_p", "nn_test_p", "nn_train_p")) > 1e-3
        assert min(row["precision"], row["recall"], row["coverage"]) > 0.9


@pytest.mark.slow
def test_kernels_at_the_training_data_pass_as_data_and_have_a_terrible_likelihood(table):
    kernels = table.rows[2]
    assert kernels["nll"] > 1e4
    assert kernels["mmd_p"] > 0.01
    assert min(kernels["precision"], kernels["coverage"]) > 0.9
    assert kernels["nn_train"] < 0.35, "only the comparison with the training data shows the copies"
    assert kernels["nn_train_p"] == 1 / 200


@pytest.mark.slow
def test_one_percent_of_the_truth_has_a_good_likelihood_and_terrible_samples(table):
    truth, noise = table.rows[1], table.rows[3]
    assert truth["nll"] < noise["nll"] < truth["nll"] + log(100)
    assert noise["c2st"] > 0.85
    assert max(noise["c2st_p"], noise["mmd_p"], noise["nn_test_p"]) == 1 / 200
    assert noise["precision"] < 0.1


@pytest.mark.slow
def test_the_printed_table_marks_small_p_values_and_says_what_kind_of_likelihood(table):
    head, floor, truth, kernels, noise, *notes = str(table).splitlines()
    assert floor.startswith("test data")
    assert "–" in floor
    assert truth.endswith("exact")
    assert "*" not in floor + truth
    assert noise.count("*") == 3
    assert f"{table.rows[2]['nn_train']:.3f}*" in kernels
    assert "600 real, 600 fake" in notes[0]
    assert len(head) < 160


def small(**changes):
    arguments = {
        "samples": {"one": TOY.sample(30, seed=2)},
        "train": TOY.sample(40, seed=3),
        "test": TOY.sample(60, seed=4),
        "classifier": LogisticRegression(),
        "num_permutations": 19,
    }
    arguments |= changes
    return dgm.compare_samples(arguments.pop("samples"), **arguments)


def test_equal_samples_have_equal_rows_and_the_likelihood_is_the_only_difference():
    x, test = torch.randn(90, 2), torch.randn(60, 2)
    given = dgm.results.GivenNLL(torch.arange(60.0), kind="upper bound")
    one, two = small(
        samples={"one": x[:30], "two": x[:30].numpy()}, test=test, nll={"two": given}
    ).rows[1:]
    assert (one["nll"], one["kind"]) == (None, None)
    assert (two["nll"], two["kind"]) == (29.5, "upper bound")
    likelihood = {"model", "nll", "nll_stderr", "kind"}
    assert {k: v for k, v in one.items() if k not in likelihood} == {
        k: v for k, v in two.items() if k not in likelihood
    }


def test_a_comparison_is_seeded_and_leaves_data_and_random_state_alone():
    parts = {
        "train": torch.randn(40, 2),
        "test": torch.randn(61, 2),
        "samples": {"one": torch.randn(50, 2)},
    }
    copies, state = (parts["train"].clone(), parts["test"].clone()), torch.get_rng_state()
    first = small(**parts)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(parts["train"], copies[0])
    assert torch.equal(parts["test"], copies[1])
    assert small(**parts) == first
    assert small(**parts, seed=1) != first
    assert first.num == 30


def test_metrics_see_the_features_alone():
    x, train, test = torch.randn(30, 2), torch.randn(40, 2), torch.randn(60, 2)
    on_first = small(samples={"one": x}, train=train, test=test, features=lambda data: data[:, :1])
    assert on_first == small(samples={"one": x[:, :1]}, train=train[:, :1], test=test[:, :1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected models of other names than 'test data'.*Fix:"):
        small(samples={"test data": torch.randn(30, 2)})
    with pytest.raises(ValueError, match=r"expected likelihoods of \['one'\], got one of 'two'"):
        small(nll={"two": dgm.results.GivenNLL(torch.zeros(60))})
    with pytest.raises(
        ValueError, match="likelihood of all 60 test data from 'one', got one of 59 data. Fix: nll"
    ):
        small(nll={"one": dgm.results.GivenNLL(torch.zeros(59))})
    with pytest.raises(
        ValueError, match=r"at least 30 samples of 'one', .*, got 29. Fix: generate\(model, 30\)"
    ):
        small(samples={"one": torch.randn(29, 2)})
    with pytest.raises(
        ValueError, match=r"compare_samples: one: expected two samples .* got \(40, 2\), \(30, 3\)"
    ):
        small(samples={"one": torch.randn(30, 3)})
    with pytest.raises(
        ValueError, match="compare_samples: one: fake: expected finite values, got 60 NaN"
    ):
        small(samples={"one": torch.full((30, 2), torch.nan)})
    with pytest.raises(ValueError, match=r"compare_samples: expected two samples .* m, n >= 24"):
        small(test=torch.randn(23, 2))
    for arguments in ({"samples": torch.randn(30, 2)}, {"nll": torch.zeros(60)}):
        with pytest.raises(
            TypeError, match=r"by the model's name, got Tensor. Fix: (samples|nll)="
        ):
            small(**arguments)


def test_a_comparison_is_a_table_with_a_row_for_each_model():
    found = small()
    frame = found.to_dataframe()
    assert list(frame["model"]) == ["test data", "one"]
    assert frame["c2st_stderr"][1] == found.rows[1]["c2st_stderr"]
    assert list(frame.columns) == list(found.rows[0])
    assert "test data" in found._repr_html_()
