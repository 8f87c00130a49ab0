"""Labels, bits and counts as latents: exact numbers by enumeration of the states, or a refusal by name."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from reports import QUICK, statuses
from toys import Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status

PRIOR = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
LOCS = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)


def log_posterior(x, temperature=1.0):
    """log p(c | x) of the three states `(*, 3)`, at another temperature a wrong one."""
    logits = dist.Normal(LOCS, 1.0).log_prob(x[..., None]) + PRIOR.log()
    return (logits / temperature).log_softmax(-1)


def labels(temperature=1.0):
    """$c \\sim \\mathrm{Cat}$, $x \\mid c \\sim N(2 c, 1)$ and its posterior, or that of another temperature."""

    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Categorical(PRIOR))
            return pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("c", dist.Categorical(logits=log_posterior(x, temperature)))

    return Written(model), Written(guide)


def bits(probability=0.3):
    """Two independent bits `(2,)`, of which x sees the sum; the guide knows no dependence between them."""

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Bernoulli(torch.full((2,), probability)).to_event(1))
            return pyro.sample("x", dist.Normal(2 * z.sum(-1), 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            logits = torch.stack([x - 1, 2 * x - 3], -1)
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    return Written(model), Written(guide)


def counts():
    """$n \\sim \\mathrm{Poisson}(2)$, $x \\mid n \\sim N(n, 1)$, and a guide that is near."""

    def model(program, x=None):
        with dgm.data_plate(x):
            n = pyro.sample("n", dist.Poisson(torch.tensor(2.0)))
            return pyro.sample("x", dist.Normal(n, 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("n", dist.Poisson(x.abs() + 0.1))

    return Written(model), Written(guide)


def one_hot():
    """A one-hot vector of three states, with the exact posterior."""

    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.OneHotCategorical(PRIOR))
            return pyro.sample("x", dist.Normal(c @ LOCS, 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("c", dist.OneHotCategorical(logits=log_posterior(x)))

    return Written(model), Written(guide)


def mixture():
    r"""$c \sim \mathrm{Cat}(3)$, $z \mid c \sim N(3 c, 1)$, $x \mid z \sim N(z, 0.5^2)$, with the exact posterior."""

    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(3.0 * c, 1.0))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            distance = x[..., None] - 3 * torch.arange(3.0)
            c = pyro.sample("c", dist.Categorical(logits=-distance.square() / 2.5))
            pyro.sample("z", dist.Normal((4 * x + 3.0 * c) / 5, 0.2**0.5))

    return Written(model), Written(guide)


PAIRS = {"labels": labels, "bits": bits, "counts": counts, "one_hot": one_hot, "mixture": mixture}
of_all = pytest.mark.parametrize("build", PAIRS.values(), ids=PAIRS)


def exact_terms(temperature):
    """Information and marginal KL of 60 data by enumeration, and the data."""
    model, guide = labels(temperature)
    x = dgm.generate(model, 60)
    q = log_posterior(x, temperature).exp()
    aggregate = q.mean(0)
    information = torch.special.xlogy(q, q / aggregate).sum(1).mean()
    marginal = torch.special.xlogy(aggregate, aggregate / PRIOR).sum()
    return model, guide, x, information, marginal


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_surgery_of_a_label_is_that_of_enumeration(temperature):
    model, guide, x, information, marginal = exact_terms(temperature)
    found = dgm.surgery(model, guide, x, num=30_000)
    for estimate, exact in (
        (found.mutual_information, information),
        (found.marginal_kl, marginal),
        (found.kl, information + marginal),
        (found.dimension_kl, marginal),
    ):
        assert abs(estimate.value - exact) < 5 * estimate.stderr
    assert found.total_correlation.value == pytest.approx(0, abs=1e-9), "one number is one dim"
    assert found.reason == ""


def test_the_dims_of_a_latent_of_one_normal_number_are_its_own():
    """A scalar normal latent: total correlation 0, and a dimension-wise KL that is the marginal KL, draw by draw."""

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.randn(80)
    found = dgm.surgery(Written(model), Written(guide), x, num=2000)
    assert found.total_correlation.value == pytest.approx(0, abs=1e-9)
    assert found.dimension_kl.value == pytest.approx(found.marginal_kl.value, abs=1e-9)
    assert found.kl_of_dims.tolist() == pytest.approx([found.dimension_kl.value])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_aggregate_test_estimates_the_distance_of_enumeration(temperature):
    r"""$\mathrm{MMD}^2 = \sum_{ab} (q_a - p_a) (q_b - p_b) k(a, b)$ of all states."""
    model, guide, _, _, _ = exact_terms(temperature)
    x = dgm.generate(model, 600) + 1.5
    found = dgm.aggregate_test(model, guide, x, num=600, num_permutations=199)
    difference = log_posterior(x, temperature).exp().mean(0) - PRIOR
    state = torch.arange(3.0)
    kernel = (-(state[:, None] - state).square() / (2 * found.bandwidth**2)).exp()
    exact = (difference @ kernel @ difference).item()
    assert exact > 0.01
    assert abs(found.value - exact) < 5 * found.stderr


def test_active_units_of_bits_and_counts_are_those_of_their_means():
    _, guide = bits()
    x = torch.randn(400) * 2
    p = torch.stack([x - 1, 2 * x - 3], -1).sigmoid()
    found = dgm.active_units(guide, x, num=400)["z"]
    torch.testing.assert_close(found, p.var(0), rtol=0.05, atol=0)
    _, guide = counts()
    found = dgm.active_units(guide, x, num=400)["n"]
    assert found.item() == pytest.approx(x.abs().var().item(), rel=0.05)


def test_labels_have_no_mean_and_so_no_active_units():
    model, guide = labels()
    x = dgm.generate(model, 20)
    with pytest.raises(
        ValueError,
        match=r"expected a latent site that has a mean, got labels alone, \['c'\]. Fix: ",
    ):
        dgm.active_units(guide, x)
    assert list(dgm.active_units(mixture()[1], x)) == ["z"]
    assert not dgm.collapse(model, guide, x).idle["c"].any()


@of_all
def test_an_exact_posterior_of_states_is_calibrated_and_a_wrong_one_is_found(build):
    """Ranks of discrete numbers tie; ties are broken at random, and no exact guide fails by them."""
    found = dgm.sbc(*build(), num_data=2000, num_draws=19)
    if build in (labels, one_hot, mixture):
        assert found.passed(1e-4)
        inside = found.coverage(0.5)
        assert bool(((inside - 0.5).abs() < 5 * (0.25 / 2000) ** 0.5).all())
    else:
        assert not found.passed(1e-4)


def test_a_posterior_that_is_too_wide_is_found_by_its_label():
    found = dgm.sbc(*labels(temperature=3.0), num_data=4000, num_draws=19)
    assert not found.passed(1e-6)


@of_all
def test_check_has_a_verdict_or_a_reason_for_every_item(build):
    model, guide = build()
    report = dgm.check(model, guide, dgm.generate(model, 100), **QUICK)
    assert report["active units"].status is Status.PASS
    skipped = [item for item in report.items if item.status is Status.SKIP]
    assert {item.name for item in skipped} <= {"k-hat"}
    assert all(item.finding for item in skipped)


@pytest.mark.parametrize("build", [labels, one_hot, mixture])
def test_check_passes_exact_guides_of_discrete_latents(build):
    model, guide = build()
    report = dgm.check(model, guide, dgm.generate(model, 500), num=200, num_simulated=1000)
    assert set(statuses(report).values()) == {Status.PASS}, str(report)


def test_weights_of_few_values_have_no_khat_and_are_no_alarm():
    """A guide of three states whose weights are at most threefold: bounded, and half of the draws count."""
    model, guide = labels(temperature=2.0)
    x = dgm.generate(model, 100)
    nll = dgm.nll(model, guide, x, num=200)
    assert bool((nll.monte_carlo < 0.1).all())
    checks = [entry for entry in dgm.diagnostics.CHECKS if entry.name == "k-hat"]
    (item,) = dgm.check(model, guide, x, num=200, checks=checks).items
    assert item.status is not Status.WARN
    exact = -dist.Normal(LOCS, 1.0).log_prob(x[:, None]).add(PRIOR.log()).logsumexp(1)
    assert bool(((nll.per_datum - exact).abs() < 6 * nll.monte_carlo + 1e-9).all())


def test_a_bit_that_is_always_off_is_the_prior_that_is_always_off():
    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(1e-12)))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Bernoulli(torch.full_like(x, 1e-12)))

    found = dgm.aggregate_test(Written(model), Written(guide), torch.randn(50), num_permutations=19)
    assert (found.value, found.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("build", [labels, bits, counts, one_hot])
def test_what_moves_between_states_is_refused_with_the_fix(build):
    model, guide = build()
    x = dgm.generate(model, 4)
    ((name, z),) = dgm.encode(guide, x).items()
    for call in (
        lambda: dgm.traverse(model, z[0], latent=name),
        lambda: dgm.interpolate(model, z[0], z[0], latent=name),
    ):
        with pytest.raises(
            ValueError, match=rf"site '{name}': expected a continuous latent to move .*Fix: decode"
        ):
            call()
    assert dgm.decode(model, z[0], latent=name).shape == (4,)
    with pytest.raises(ValueError, match=rf"site '{name}': expected a continuous latent, got a"):
        dgm.gaps(model, guide, x)


@pytest.mark.parametrize(("build", "states"), [(labels, {0, 1, 2}), (bits, {0, 1})])
def test_the_export_holds_the_states(build, states):
    model, guide = build()
    posterior = dgm.to_arviz(model, guide, dgm.generate(model, 4), num=50).posterior
    (z,) = posterior.data_vars.values()
    assert z.sizes["chain"] * z.sizes["draw"] == 50
    assert z.dtype.kind == "i"
    assert set(z.values.ravel().tolist()) == states
