"""Simulation-based calibration: exact guides pass, wrong ones fail, ties are ties."""

import dataclasses
from math import sqrt

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import both_dtypes, in_float64
from scipy.stats import kstest
from torch import nn
from toys import (
    ExactGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.evaluation.posterior.ranks import rank_among

WITH_LATENTS = {n: b for n, b in PAIRS.items() if "density" not in n}


def pair(**options):
    """A linear-Gaussian model in one dim, and its posterior with the mean off by `shift` standard deviations."""
    model = LinearGaussian(latent=1, observed=3)
    sd = ExactGuide(model).root.item()
    return model, ExactGuide(
        model, shift=options.get("shift", 0.0) * sd, spread=options.get("spread", 1.0)
    )


@both_dtypes
def test_an_exact_guide_passes():
    """At a level of one in a thousand, over all statistics."""
    model = LinearGaussian()
    found = dgm.sbc(model, ExactGuide(model))
    assert found.names == ("z[0]", "z[1]", "log p(x, z)", "|z|")
    assert found.ranks.shape == found.uniform.shape == (10_000, 4)
    assert found.ranks.min() == 0
    assert found.ranks.max() == found.num_draws == 99
    assert found.passed(0.001)


@pytest.mark.slow
def test_p_values_of_an_exact_guide_are_uniform():
    """200 repetitions with 100 data and 9 draws: for every statistic Kolmogorov's test at one in a hundred thousand."""
    model = LinearGaussian()
    guide = ExactGuide(model)
    p = torch.stack(
        [dgm.sbc(model, guide, num_data=100, num_draws=9, seed=s).p_values for s in range(200)]
    )
    assert min(kstest(column, "uniform").pvalue for column in p.T) > 1e-5


@pytest.mark.parametrize(
    ("wrong", "level"),
    [
        ({"shift": 0.1}, 1e-4),
        ({"shift": -0.1}, 1e-4),
        ({"spread": 0.7}, 1e-20),
        ({"spread": 1.4}, 1e-20),
    ],
)
@both_dtypes
def test_a_mean_off_by_a_tenth_or_a_wrong_scale_fails_decisively(wrong, level):
    """Kolmogorov's distance of a shift is 0.040, four times its spread under the null with 10,000 data."""
    found = dgm.sbc(*pair(**wrong))
    assert found.adjusted[0] < level
    assert not found.passed(0.001)


def test_dims_that_depend_on_each_other_are_seen_by_the_joint_density_alone():
    """Each dim has the exact marginal of a correlated posterior, independent of the other."""
    model = LinearGaussian()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 1.0], [0.8, 0.9]]))
    exact = ExactGuide(model)

    class MeanField(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                loc = (x - exact.bias) @ exact.map.T
                return pyro.sample("z", dist.Normal(loc, exact.root.norm(dim=1)).to_event(1))

    found = dgm.sbc(model, MeanField())
    assert bool((found.adjusted[:2] > 1e-4).all())
    assert found.adjusted[2] < 1e-30


@in_float64
def test_coverage_is_that_of_intervals_too_narrow():
    r"""$2 \Phi(0.7\, \Phi^{-1}((1 + l) / 2)) - 1$ at a scale of 0.7; many draws, 5 standard errors."""
    normal = torch.distributions.Normal(0.0, 1.0)
    right = dgm.sbc(*pair(), num_data=4000, num_draws=400)
    wrong = dgm.sbc(*pair(spread=0.7), num_data=4000, num_draws=400)
    for level in (0.5, 0.8, 0.95):
        narrow = (2 * normal.cdf(0.7 * normal.icdf(torch.tensor((1 + level) / 2))) - 1).item()
        for found, exact in ((right, level), (wrong, narrow)):
            assert (
                abs(found.coverage(level)[0].item() - exact)
                < 5 * sqrt(exact * (1 - exact) / 4000) + 1 / 400
            )


class Coin(dgm.Program):
    r"""$z \sim \mathrm{Bernoulli}(0.3)$ twice, $x \sim N(2 z_1 + z_2, 1)$: a discrete latent, four values."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor([0.3, 0.3])).to_event(1))
            return pyro.sample(
                "x", dist.Normal(2 * z[..., :1] + z[..., 1:], 1.0).to_event(1), obs=x
            )


class CoinGuide(dgm.Program):
    """The exact posterior by enumeration, as one draw of four and then its bits; `flat` takes the prior instead."""

    def __init__(self, *, flat: bool = False):
        super().__init__()
        self.flat = flat

    def forward(self, x=None):
        first = torch.tensor([0.0, 0.0, 1.0, 1.0])
        second = torch.tensor([0.0, 1.0, 0.0, 1.0])
        log_p = dist.Bernoulli(0.3).log_prob(first) + dist.Bernoulli(0.3).log_prob(second)
        if not self.flat:
            log_p = log_p + dist.Normal(2 * first + second, 1.0).log_prob(x)
        with dgm.data_plate(x):
            pyro.sample("z", Pair(log_p.log_softmax(-1).expand(len(x), 4)))


class Pair(dist.TorchDistribution):
    """Two bits with a joint law of four log masses `(*batch, 4)`."""

    arg_constraints = {}

    def __init__(self, log_p):
        self.log_p = log_p
        super().__init__(log_p.shape[:-1], torch.Size([2]), validate_args=False)

    support = dist.constraints.independent(dist.constraints.boolean, 1)

    def expand(self, batch_shape, _instance=None):
        return Pair(self.log_p.expand(*batch_shape, 4))

    def sample(self, sample_shape=()):
        k = dist.Categorical(logits=self.log_p).sample(sample_shape)
        return torch.stack([k.div(2, rounding_mode="floor"), k % 2], -1).to(self.log_p.dtype)

    def log_prob(self, value):
        k = (2 * value[..., 0] + value[..., 1]).long()
        return self.log_p.expand(*k.shape, 4).gather(-1, k[..., None])[..., 0]


@both_dtypes
def test_ties_of_discrete_latents_are_broken_at_random():
    """Every statistic takes at most four values for one datum, log p among them: the exact posterior still passes."""
    found = dgm.sbc(Coin(), CoinGuide(), num_data=3000, num_draws=19)
    assert found.passed(0.001)
    assert not dgm.sbc(Coin(), CoinGuide(flat=True), num_data=3000, num_draws=19).passed(0.001)


def test_a_tie_is_uniform_over_its_places():
    """One value everywhere: ranks of 4,000 data are uniform on 0, …, 4; five standard errors of each share."""
    ranks = rank_among(
        torch.ones(4, 4000, 1), torch.ones(4000, 1) * (1 + 1e-16), torch.tensor(1e-14)
    )
    shares = ranks.flatten().bincount(minlength=5) / 4000
    assert ranks.max() == 4
    assert ((shares - 0.2).abs() < 5 * sqrt(0.2 * 0.8 / 4000)).all()


def test_ranks_count_the_draws_below():
    draws = torch.tensor([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0]])[..., None]
    assert rank_among(
        draws, torch.tensor([[3.0], [9.0]]), torch.tensor(1e-15)
    ).flatten().tolist() == [2, 3]


class OfContext(nn.Module):
    r"""$p(z \mid c) = N(c, 1)$ and, with $x \sim N(z, 1)$ given, $p(z \mid x, c) = N((x + c) / 2, 1 / 2)$."""

    def forward(self, *contexts):
        if len(contexts) == 1:
            return dist.Normal(contexts[0], 1.0).to_event(1)
        return dist.Normal((contexts[0] + contexts[1]) / 2, sqrt(0.5)).to_event(1)


class First(nn.Module):
    """N(z, 1), whatever the context."""

    def forward(self, z, c):
        return dist.Normal(z, 1.0).to_event(1)


@pytest.mark.slow
def test_contexts_are_taken_over_again_and_stay_with_their_data():
    model, guide = dgm.LatentVariableModel(OfContext(), First()), dgm.AmortizedGuide(OfContext())
    c = torch.tensor([[-10.0], [0.0], [20.0]])
    found = dgm.sbc(model, guide, c, num_data=2000, num_draws=19, chunk=100)
    assert found.passed(0.001)
    assert found.ranks.shape == (2000, 3)


def test_numbers_do_not_depend_on_how_many_contexts_there_are_rows_of():
    model, guide = dgm.LatentVariableModel(OfContext(), First()), dgm.AmortizedGuide(OfContext())
    c = torch.randn(40, 1)
    few, many = (
        dgm.sbc(model, guide, rows, num_data=40, num_draws=5) for rows in (c, c.repeat(3, 1))
    )
    assert torch.equal(few.ranks, many.ranks)


@pytest.mark.parametrize(**over(WITH_LATENTS))
def test_every_pair_is_ranked(build):
    case = build()
    found = dgm.sbc(case.model, case.guide, *case.batch(4)[1:], num_data=11, num_draws=3, chunk=9)
    assert found.ranks.shape == (11, len(found.names))
    assert bool(((found.ranks >= 0) & (found.ranks <= 3)).all())
    assert bool(((found.uniform > 0) & (found.uniform < 1)).all())
    assert not [name for name in found.names if "noise" in name]


def test_further_plates_have_dims_of_their_own():
    found = dgm.sbc(Series(), SeriesGuide(), num_data=12, num_draws=3)
    assert found.names == ("z", "u[0]", "u[1]", "u[2]", "log p(x, z)", "|z|")


def test_at_most_chunk_pairs_are_in_memory():
    model, guide = pair()
    sizes = []
    guide.register_forward_hook(lambda _, __, z: sizes.append(z.numel()))
    dgm.sbc(model, guide, num_data=50, num_draws=7, chunk=40)
    assert max(sizes) <= 40
    of_ranks = [size for size in sizes if size > 6]  # a check runs 2 draws of 3 data at most
    assert sum(of_ranks) == 50 * 7


def test_it_prints_the_worst_statistics_first():
    text = str(dgm.sbc(*pair(shift=0.5), num_data=400, num_draws=19))
    assert "SBC, 400 data × 19 draws, 3 statistics" in text
    assert text.splitlines()[2].split()[0] == "z[0]"
    assert "95% interval" in text


def normal_pair(**options):
    """Three dims, and the posterior with its mean off by `shift` standard deviations in every direction."""
    model = LinearGaussian(latent=3, observed=3)
    exact = ExactGuide(model, spread=options.get("spread", 1.0))
    with torch.no_grad():
        exact.shift.add_(exact.root.diagonal() * options.get("shift", 0.0))
    return model, exact


@pytest.mark.slow
def test_tests_of_all_dims_are_uniform_for_an_exact_guide():
    """200 repetitions with 100 data: for every joint test Kolmogorov's test at one in a hundred thousand."""
    model, guide = normal_pair()
    p = [dgm.sbc(model, guide, num_data=100, num_draws=19, seed=s).joint for s in range(200)]
    assert list(p[0]) == ["means", "variances", "weights"]
    for name in p[0]:
        assert kstest([found[name] for found in p], "uniform").pvalue > 1e-5


def test_each_joint_test_sees_its_fault():
    """1,000 data: three dims off by a tenth, or a scale that is a fifth too small."""
    shifted = dgm.sbc(*normal_pair(shift=0.1), num_data=1000).joint
    narrow = dgm.sbc(*normal_pair(spread=0.8), num_data=1000).joint
    assert shifted["means"] < 0.01
    assert shifted["weights"] < 0.01
    assert narrow["variances"] < 1e-10
    assert narrow["weights"] < 1e-10
    assert narrow["means"] > 1e-4


def test_few_data_have_no_tests_of_all_dims_but_that_of_weights():
    found = dgm.sbc(*normal_pair(), num_data=29, num_draws=9)
    assert list(found.joint) == ["weights"]
    assert found.smallest == min(found.adjusted.min().item(), found.joint_adjusted["weights"])


def test_the_test_of_weights_has_half_of_the_level_and_those_of_all_dims_a_quarter():
    """The smallest p-value is divided by its share: one half, or one eighth for either of means and variances."""
    found = dgm.sbc(*normal_pair(shift=1.0), num_data=200, num_draws=9)
    assert found.joint_adjusted["weights"] == pytest.approx(2 * found.joint["weights"])
    assert found.smallest == found.joint_adjusted["weights"]
    without = dataclasses.replace(found, of_weight=None)
    assert without.smallest == pytest.approx(4 * without.joint["means"])


class Line(dgm.Program):
    r"""$z \sim N(0, 1)$, $x \sim N(z, 1)$."""

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            return pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)


def test_a_truth_outside_the_guides_support_has_the_largest_weight():
    class Below(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                pyro.sample("z", dist.Uniform(x[:, 0] - 3, x[:, 0]))

    found = dgm.sbc(Line(), Below(), num_data=400, num_draws=9)
    assert (found.of_weight > 0.9).double().mean() > 0.3
    assert found.joint["weights"] < 1e-10


def test_a_guide_that_scores_only_its_own_draws_has_no_weights():
    class OwnDraws(dist.Normal):
        def log_prob(self, value):
            if value is not vars(self).get("drawn"):
                raise NotImplementedError
            return super().log_prob(value)

        def rsample(self, shape=()):
            self.drawn = super().rsample(shape)
            return self.drawn

        def expand(self, shape, _instance=None):
            return OwnDraws(self.loc.expand(shape), self.scale.expand(shape))

    class OneWay(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                pyro.sample("z", OwnDraws(x.new_zeros(len(x)), 1.0))

    found = dgm.sbc(Line(), OneWay(), num_data=100, num_draws=9)
    assert found.of_weight is None
    assert list(found.joint) == ["means", "variances"]


def test_its_table_has_a_row_for_each_statistic():
    found = dgm.sbc(*pair(shift=0.5), num_data=400, num_draws=19)
    table = found.to_dataframe()
    assert list(table.columns) == [
        "statistic",
        "p_value",
        "adjusted",
        "coverage_50",
        "coverage_80",
        "coverage_95",
    ]
    assert table["statistic"].tolist() == list(found.names)
    assert table["p_value"].tolist() == found.p_values.tolist()
    assert table["coverage_80"].tolist() == found.coverage(0.8).tolist()
    assert "SBC, 400 data" in found._repr_html_()


def test_a_context_may_be_an_array_or_a_table():
    model, guide = dgm.LatentVariableModel(OfContext(), First()), dgm.AmortizedGuide(OfContext())
    c = torch.randn(20, 1)
    expected = dgm.sbc(model, guide, c, num_data=20, num_draws=5).ranks
    assert torch.equal(dgm.sbc(model, guide, c.numpy(), num_data=20, num_draws=5).ranks, expected)
    table = pandas.DataFrame(c.numpy(), columns=["c"])
    assert torch.equal(dgm.sbc(model, guide, table, num_data=20, num_draws=5).ranks, expected)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae, before = toy_vae(), torch.get_rng_state()
    first = dgm.sbc(vae.model, vae.guide, num_data=20, num_draws=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None for p in vae.parameters())
    torch.rand(3)
    assert torch.equal(
        dgm.sbc(vae.model, vae.guide, num_data=20, num_draws=3).uniform, first.uniform
    )
    assert not torch.equal(
        dgm.sbc(vae.model, vae.guide, num_data=20, num_draws=3, seed=1).uniform, first.uniform
    )


def test_bad_arguments_raise():
    model, guide = pair()
    for name in ("num_data", "num_draws", "chunk"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.sbc(model, guide, **{name: 0})
    case = PAIRS["density_flow"]()
    with pytest.raises(ValueError, match=r"sbc: expected a guide with latent sites, got \[\]"):
        dgm.sbc(case.model, case.guide)


def test_a_vae_in_place_of_its_two_programs_raises():
    vae = toy_vae()
    with pytest.raises(TypeError, match=r"got VAE and VAE\. Fix: vae\.model, vae\.guide"):
        dgm.sbc(vae, vae)


def test_a_guide_that_fails_on_what_the_model_makes_raises_with_the_fix():
    """Images of a model whose guide takes rows."""
    vae = toy_vae()

    class Images(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                loc = z.mean(-1)[..., None, None, None].expand(*z.shape[:-1], 1, 3, 1)
                return pyro.sample("x", dist.Normal(loc, 1.0).to_event(3), obs=x)

    with pytest.raises(
        ValueError, match=r"(?s)batch of shapes \[\(1, 1, 3, 1\)\].*Fix: x\.flatten\(1\)"
    ):
        dgm.sbc(Images(), vae.guide, num_data=5)
