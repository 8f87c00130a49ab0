"""What draws of a unit tell of x: against quadrature over a grid, and enumeration of states."""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes
from toys import GlobalMean, GlobalMeanGuide, Written

import pyro_dgm as dgm
from pyro_dgm.evaluation.latents.unit_information import entropy

NOISE = 0.006  # of an idle unit: six standard errors of 0.001 nats
LOST = 0.06  # nats, at most, by cells in place of a density
GRID = torch.linspace(-15, 15, 6001, dtype=torch.float64)


def pair_with(posterior):
    """A guide of a given posterior of one number, and a model whose likelihood does not matter here."""

    def model(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", posterior(x).to_event(1))

    return Written(model), Written(guide)


def by_quadrature(posterior, x):
    r"""$I(x; z) = H(z) - E_x H(z \mid x)$ over these data, in nats."""
    q = posterior(x.double()).log_prob(GRID).exp()  # (N, G)
    step = GRID[1] - GRID[0]
    of_data = torch.special.xlogy(q, q).sum(1).mean()
    of_all = torch.special.xlogy(q.mean(0), q.mean(0)).sum()
    return (step * (of_data - of_all)).item()


def shift(x):
    """A mean that follows x."""
    return dist.Normal(2 * x, 0.5)


def width(x):
    """Mean 0, and a width that follows x."""
    return dist.Normal(torch.zeros_like(x), (0.7 * x).exp())


def two_modes(x):
    """Modes at ±4 |x|, equally probable: mean 0."""
    modes = 4 * x.abs()[..., None] * x.new_tensor([-1.0, 1.0])
    return dist.MixtureSameFamily(
        dist.Categorical(logits=torch.zeros_like(modes)), dist.Normal(modes, 0.5)
    )


def constant(x):
    """The same two modes whatever x."""
    return two_modes(torch.ones_like(x))


@both_dtypes
@pytest.mark.parametrize("posterior", [shift, width, two_modes])
def test_a_unit_has_the_information_of_quadrature_less_what_cells_lose(posterior):
    x = torch.randn(300, 1)
    found = dgm.collapse(*pair_with(posterior), x)
    exact = by_quadrature(posterior, x)
    assert exact > 0.2
    assert exact - LOST < found.information["z"].item() < exact + NOISE
    assert not found.idle["z"].any()


@pytest.mark.parametrize("num", [2, 20, 300, 3000])
def test_a_posterior_that_is_the_same_for_all_data_has_none(num):
    x = torch.randn(num, 1)
    found = dgm.collapse(*pair_with(constant), x)
    assert abs(found.information["z"].item()) < NOISE
    assert found.idle["z"].all()


def test_a_symmetric_unit_of_two_modes_is_in_use_though_its_mean_says_nothing():
    """More than a nat of information; the variance of its means, the number that papers report, is 0."""
    x = torch.linspace(-2, 2, 400)[:, None]
    model, guide = pair_with(two_modes)
    assert by_quadrature(two_modes, x) > 1.03
    found = dgm.collapse(model, guide, x)
    assert abs(found.variance["z"].item()) < 0.15, "noise of modes at ±8, 50 draws a datum"
    assert found.information["z"].item() > 1
    assert str(found).splitlines()[1] == "  z: 0 of 1"
    checks = [entry for entry in dgm.diagnostics.CHECKS if entry.name == "active units"]
    (item,) = dgm.check(model, guide, x, checks=checks).items
    assert item.value == 0
    assert item.status is dgm.diagnostics.Status.PASS
    assert item.finding.startswith("1 of 1 units are active: their draws tell at least 0.01 nats")
    assert "active units that papers report" in item.finding


def test_units_of_any_scale_are_judged_alike():
    """A thousandth of the scale has a variance of means far below 0.01, and the same information."""
    x = torch.randn(200, 1)
    small = dgm.collapse(*pair_with(lambda x: dist.Normal(x / 500, 0.0005)), x)
    large = dgm.collapse(*pair_with(shift), x)
    torch.testing.assert_close(small.information, large.information)
    assert small.variance["z"].item() < 1e-4
    assert not small.idle["z"].any()


def label_pair(probs):
    """A label of S states with probabilities `probs(x)` in the guide, equally probable in the model."""

    def model(program, x):
        with dgm.data_plate(x):
            num_states = probs(torch.zeros(1)).shape[-1]
            c = pyro.sample("c", dist.Categorical(torch.ones(num_states)))
            return pyro.sample("x", dist.Normal(c.to(torch.get_default_dtype()), 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("c", dist.Categorical(probs(x)))

    return Written(model), Written(guide)


def five_states(x):
    return (x[..., None] * torch.linspace(-2, 2, 5)).softmax(-1)


def test_a_label_has_the_information_of_enumeration():
    x = torch.randn(200)
    p = five_states(x)
    aggregate = p.mean(0)
    exact = (dist.Categorical(aggregate).entropy() - dist.Categorical(p).entropy().mean()).item()
    kl = (p * (5 * p).log()).sum(1)
    found = dgm.collapse(*label_pair(five_states), x, num=400)
    assert abs(found.information["c"].item() - exact) < NOISE
    stderr = (p * (5 * p).log().square()).sum(1).sub(kl.square()).mean().sqrt() / 80_000**0.5
    assert abs(found.kl["c"].item() - kl.mean().item()) < 5 * stderr
    assert found.variance == {}, "a label has no mean"
    row = found.to_dataframe().to_dict("records")[0]
    assert row["variance"] != row["variance"]


def test_a_label_that_is_certain_tells_the_logarithm_of_the_states():
    x = torch.arange(4.0).repeat(50)
    found = dgm.collapse(*label_pair(lambda x: torch.nn.functional.one_hot(x.long(), 4) * 1.0), x)
    assert found.information["c"].item() == pytest.approx(log(4), abs=1e-4)


def test_counts_are_units_as_well():
    """Poisson counts, whose masses are summed as far as 60."""

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("n", dist.Poisson(x))

    def model(program, x):
        with dgm.data_plate(x):
            n = pyro.sample("n", dist.Poisson(torch.tensor(3.0)))
            return pyro.sample("x", dist.Exponential(1 / (n + 1)), obs=x)

    x = torch.rand(300) * 5 + 0.1
    p = dist.Poisson(x[:, None]).log_prob(torch.arange(60.0)).exp()
    of_data = torch.special.xlogy(p, p).sum(1).mean()
    exact = (of_data - torch.special.xlogy(p.mean(0), p.mean(0)).sum()).item()
    found = dgm.collapse(Written(model), Written(guide), x, num=500)
    assert abs(found.information["n"].item() - exact) < NOISE
    exact_variance = x.var().item()
    assert found.variance["n"].item() == pytest.approx(exact_variance, rel=0.05)
    assert found.num_active == 1


def test_an_entropy_of_counts_is_that_of_their_distribution():
    """100 draws of 32 cells: a bias of 0.002 nats, where the plain estimate has 0.155."""
    p = torch.ones(32, dtype=torch.float64) / 32
    counts = torch.distributions.Multinomial(100, p).sample((20_000,))
    found = entropy(counts)
    stderr = found.std() / 20_000**0.5
    assert -0.002 - 5 * stderr < found.mean() - log(32) < 5 * stderr
    share = counts / 100
    plain = -torch.special.xlogy(share, share).sum(1)
    assert plain.mean() - log(32) < -0.15


def test_one_datum_and_a_global_site_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"expected at least 2 data, .* got 1\. Fix: more data"):
        dgm.collapse(*label_pair(five_states), torch.randn(1))
    with pytest.raises(ValueError, match=r"site 'mu': expected a site inside the plate 'data'"):
        dgm.collapse(GlobalMean(), GlobalMeanGuide(), torch.randn(20))
