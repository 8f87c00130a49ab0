"""What latents do, against closed forms: active units, their share in the KL, collapse, the aggregate."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS
from conftest import in_float64
from scipy.stats import kstest
from torch import nn
from toys import ExactGuide, GlobalMeanGuide, LinearGaussian, Series, SeriesGuide

import pyro_dgm as dgm

SLOPE = torch.tensor([1.5, 0.3, 0.0])
SCALE = torch.tensor([0.5, 0.9, 1.0])


def guide_of() -> dgm.AmortizedGuide:
    r"""$q(z \mid x) = \mathcal N(a \circ x, s^2)$; the last unit is idle."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(SLOPE.to(torch.get_default_dtype()))

        def forward(self, x):
            return dist.Normal(self.slope * x, SCALE.to(x)).to_event(1)

    return dgm.AmortizedGuide(Linear())


def standard_error(x: torch.Tensor, num: int) -> torch.Tensor:
    """Of the estimate at these data: noise of the means, of their products with the data, and of the correction."""
    noise = SCALE.to(x).square() / num
    signal = (SLOPE.to(x) * x).var(0)
    n = len(x)
    return (
        4 * signal * noise / n + 2 * noise.square() / n + 2 * noise.square() / (n * (num - 1))
    ).sqrt()


@pytest.mark.parametrize(("num", "chunk"), [(50, 20_000), (2, 20_000), (4, 40), (4, 4)])
def test_the_variance_of_the_posterior_means_is_found_without_bias(num, chunk):
    """Var_x(a x) in closed form and 0 for the idle unit; 5 standard errors, however small the chunks are."""
    x = torch.randn(1000, 3)
    found = dgm.active_units(guide_of(), x, num=num, chunk=chunk)["z"]
    exact = (SLOPE.to(x) * x).var(0)
    assert bool(((found - exact).abs() <= 5 * standard_error(x, num)).all()), (found, exact)
    assert int((found > 0.01).sum()) >= 2


def test_the_estimate_is_unbiased_over_seeds():
    """The mean of 60 estimates from two draws each, 5 standard errors of that mean."""
    x, guide = torch.randn(100, 3), guide_of()
    found = torch.stack([dgm.active_units(guide, x, num=2, seed=seed)["z"] for seed in range(60)])
    exact = (SLOPE.to(x) * x).var(0)
    assert bool(((found.mean(0) - exact).abs() <= 5 * found.std(0) / 60**0.5).all())
    expected = standard_error(x, 2)
    assert bool(((found.std(0) / expected - 1).abs() < 0.5).all())
    assert bool((found[:, 2] < 0).any()), "an unbiased estimate of 0 falls below it now and then"


@in_float64
def test_without_noise_it_is_the_variance_of_the_locations_in_any_chunks():
    x = torch.randn(30, 3)
    guide = dgm.AmortizedGuide(dgm.Normal(nn.Linear(3, 2), scale=1e-9))
    exact = guide.encoder(x).mean.var(0).detach()
    for chunk in (10_000, 14, 1):
        torch.testing.assert_close(
            dgm.active_units(guide, x, num=2, chunk=chunk)["z"], exact, rtol=1e-6, atol=1e-6
        )


def test_it_counts_what_a_trained_pair_uses():
    r"""Data of one factor, $x = w\, t + \epsilon$: the exact posterior moves along one direction alone."""
    t = torch.randn(300, 1)

    class Guide(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x):
                loc = torch.cat([x.mean(-1, keepdim=True), torch.zeros(len(x), 3)], dim=-1)
                return pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    found = dgm.active_units(Guide(), t @ torch.ones(1, 5), num=50)["z"]
    assert (found > 0.01).tolist() == [True, False, False, False]


def test_contexts_stay_with_their_data_and_every_site_is_reported():
    guide = dgm.AmortizedGuide(dgm.Normal(dgm.Concat(nn.Linear(5, 2)), scale=1e-9))
    x, c = torch.randn(12, 3), torch.randn(12, 2)
    found = dgm.active_units(guide, x, c, num=2, chunk=8)["z"]
    torch.testing.assert_close(
        found, guide.encoder(x, c).mean.var(0).detach(), rtol=1e-4, atol=1e-4
    )
    assert set(dgm.active_units(SeriesGuide(), torch.randn(6, 3), num=3)) == {"z"} | set(
        dgm.encode(SeriesGuide(), torch.randn(6, 3))
    )


def test_it_leaves_seed_and_modes_alone():
    guide, x, before = guide_of(), torch.randn(10, 3), torch.get_rng_state()
    first, second = (dgm.active_units(guide, x, num=3)["z"] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert guide.training


def test_a_single_draw_is_refused():
    with pytest.raises(ValueError, match="active_units: expected num >= 2 draws per datum, got 1"):
        dgm.active_units(guide_of(), torch.randn(5, 3), num=1)
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        dgm.active_units(guide_of(), torch.randn(5, 3), chunk=0)
    with pytest.raises(ValueError, match="expected finite values"):
        dgm.active_units(guide_of(), torch.full((5, 3), torch.nan))


def test_a_site_with_a_further_plate_keeps_that_plate():
    """u_t = 0.7 x_t + noise at three times of its own: variances over the data, one for every time."""
    x = torch.randn(400, 3) * torch.tensor([3.0, 1.0, 0.0])
    for chunk in (20_000, 600):
        found = dgm.active_units(SeriesGuide(), x, num=20, chunk=chunk)
        assert found["z"].shape == ()
        assert found["u"].shape == (3,)
        exact, noise = (0.7 * x).var(0), 0.49 / 20
        standard_error = (4 * exact * noise / 400 + 3 * noise**2 / 400).sqrt()
        assert bool(((found["u"] - exact).abs() <= 5 * standard_error).all())


def test_a_global_site_is_refused():
    with pytest.raises(
        ValueError, match="site 'mu': expected a site inside the plate 'data', got a global one"
    ):
        dgm.active_units(GlobalMeanGuide(), torch.randn(20), num=5)


# The share of every unit in the KL ------------------------------------------------------------------------------------


def pair_of():
    """A standard normal prior and the guide of closed-form units."""
    return dgm.LatentVariableModel(dgm.StandardNormal(3), dgm.Normal(nn.Identity())), guide_of()


def test_the_kl_of_every_unit_is_that_of_two_normals():
    """5 standard errors: a log ratio of unit normals has a spread of about its own size and 1."""
    model, guide = pair_of()
    x = torch.randn(400, 3)
    exact = (
        ((SLOPE.to(x) * x).square().mean(0) + SCALE.to(x).square() - 1) / 2 - SCALE.to(x).log()
    ).double()
    found = dgm.unit_kl(model, guide, x, num=40)["z"]
    assert found.dtype == torch.float64
    assert bool(((found - exact).abs() <= 5 * (1 + exact) / 400).all()), (found, exact)
    assert found[2] == 0, "a unit that is the prior costs nothing, exactly"


@pytest.mark.parametrize(
    "name", ["vae_normal", "vae_labels", "vae_dequantized", "two_latents_bare"]
)
def test_the_shares_make_up_the_kl_from_the_same_draws(name):
    case = PAIRS[name]()
    batch = case.batch(6)
    found = dgm.unit_kl(case.model, case.guide, *batch, num=9)
    assert set(found) == ({"z1", "z2"} if name == "two_latents_bare" else {"z"})
    if name != "vae_dequantized":
        kl = dgm.nll(case.model, case.guide, *batch, num=9).kl.mean()
        assert sum(v.sum() for v in found.values()).item() == pytest.approx(kl.item(), abs=1e-4)


def test_units_inside_further_plates_keep_their_plates():
    found = dgm.unit_kl(Series(), SeriesGuide(), torch.randn(6, 3), num=4, chunk=9)
    assert found["z"].shape == ()
    assert found["u"].shape == (3,)


def test_sites_that_do_not_factorize_have_no_shares():
    for name in ("vae_vamp", "vae_flow"):
        case = PAIRS[name]()
        assert dgm.unit_kl(case.model, case.guide, *case.batch(4), num=3) == {}


# Collapse -------------------------------------------------------------------------------------------------------------


def test_collapse_names_the_idle_units():
    model, guide = pair_of()
    found = dgm.collapse(model, guide, torch.randn(300, 3))
    assert found.idle["z"].tolist() == [False, False, True]
    assert "z: 1 of 3: 2" in str(found)
    assert "idle units (< 0.01 nats of information on x; " in str(found)
    assert "by the variance of their means > 0.01, 2 are active)" in str(found)


def test_a_unit_that_copies_a_constant_is_idle_though_it_costs_nats():
    class Constant(nn.Module):
        def forward(self, x):
            return dist.Normal(
                torch.stack([x[..., 0], torch.full_like(x[..., 0], 2.0)], -1), 0.5
            ).to_event(1)

    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(nn.Identity()))
    found = dgm.collapse(model, dgm.AmortizedGuide(Constant()), torch.randn(200, 2))
    assert found.kl["z"][1] > 1
    assert found.idle["z"].tolist() == [False, True]


def test_collapse_has_the_numbers_of_the_estimates_that_it_combines():
    case = PAIRS["two_latents_bare"]()
    batch = case.batch(6)
    found = dgm.collapse(case.model, case.guide, *batch, num=5)
    variance = dgm.active_units(case.guide, *batch, num=5)
    kl = dgm.unit_kl(case.model, case.guide, *batch, num=5)
    for name in ("z1", "z2"):
        assert torch.equal(found.variance[name], variance[name])
        assert torch.equal(found.kl[name], kl[name])


def test_collapse_as_a_table_has_a_row_per_unit():
    model, guide = pair_of()
    found = dgm.collapse(model, guide, torch.randn(50, 3))
    table = found.to_dataframe()
    assert list(table.columns) == ["site", "unit", "information", "variance", "kl", "idle"]
    assert list(table["unit"]) == ["0", "1", "2"]
    assert list(table["idle"]) == [False, False, True]
    assert table["variance"].tolist() == found.variance["z"].tolist()
    assert "idle units" in found._repr_html_()


def test_a_unit_without_a_share_in_the_kl_has_none_in_the_table():
    case = PAIRS["vae_flow"]()
    assert dgm.collapse(case.model, case.guide, *case.batch(5)).to_dataframe()["kl"].isna().all()


def test_a_single_draw_tells_no_collapse():
    with pytest.raises(ValueError, match=r"collapse: expected num >= 2 .* got 1\. Fix: num=50"):
        dgm.collapse(*pair_of(), torch.randn(5, 3), num=1)


def test_images_not_flattened_are_refused_with_the_fix():
    vae, x = image_vae(), torch.randn(5, 3, 3)
    for call in (dgm.unit_kl, dgm.collapse, dgm.aggregate_test):
        with pytest.raises(ValueError, match=r"got \(3, 3\)\. Fix: x\.flatten\(1\)"):
            call(vae.model, vae.guide, x)
    with pytest.raises(ValueError, match=r"Fix: x\.flatten\(1\)"):
        dgm.active_units(vae.guide, x)


def image_vae() -> dgm.VAE:
    """A VAE of flat images of 9 pixels."""
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(9, 4))
    return dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 9)), encoder)


def test_thresholds_are_the_callers():
    model, guide = pair_of()
    x = torch.randn(100, 3)
    assert dgm.collapse(model, guide, x, min_information=100.0).idle["z"].all()
    assert not dgm.collapse(model, guide, x, min_information=-1.0).idle["z"].any()


def test_collapse_reports_sites_without_shares_and_those_of_plates_but_no_noise():
    case = PAIRS["vae_flow"]()
    assert set(dgm.collapse(case.model, case.guide, *case.batch(5), num=3).idle) == {"z"}
    case = PAIRS["vae_dequantized"]()
    assert set(dgm.collapse(case.model, case.guide, *case.batch(5), num=3).idle) == {"z"}
    found = dgm.collapse(Series(), SeriesGuide(), torch.zeros(8, 3), num=200)
    assert found.idle["u"].shape == (3,)
    assert "u: 3 of 3: 0, 1, 2" in str(found)
    assert "z: 1 of 1: 0" in str(found)


# Aggregate against prior ----------------------------------------------------------------------------------------------


def test_the_aggregate_of_an_exact_guide_passes_for_the_prior():
    """80 data sets from the model itself: p-values are uniform, by Kolmogorov's test at one in ten thousand."""
    model = LinearGaussian()
    x = model.data(80 * 40).reshape(80, 40, 4)
    p = [
        dgm.aggregate_test(model, ExactGuide(model), xs, num_permutations=99, seed=i).p_value
        for i, xs in enumerate(x)
    ]
    assert kstest(p, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("change", [{"shift": 0.5}, {"spread": 2.0}])
def test_an_aggregate_away_from_the_prior_is_found(change):
    model = LinearGaussian()
    found = dgm.aggregate_test(
        model, ExactGuide(model, **change), model.data(400), num_permutations=99
    )
    assert found.p_value == 0.01


def test_draws_are_compared_at_the_contexts_of_the_data():
    """The prior N(c, 1) depends on a context of either sign, and the guide is that prior."""

    class OfContext(nn.Module):
        def forward(self, *contexts):
            return dist.Normal(5 * contexts[-1], 1.0).to_event(1)

    c = torch.tensor([-1.0, 1.0]).repeat(100)[:, None]
    model = dgm.LatentVariableModel(OfContext(), dgm.Normal(dgm.Concat(nn.Linear(2, 1))))
    assert (
        dgm.aggregate_test(model, dgm.AmortizedGuide(OfContext()), torch.randn(200, 1), c).p_value
        > 1e-3
    )


def test_several_sites_are_compared_as_one_and_only_some_data_are_taken():
    case = PAIRS["two_latents_bare"]()
    batch, before = case.batch(30), torch.get_rng_state()
    found = dgm.aggregate_test(case.model, case.guide, *batch, num=20, num_permutations=19)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.num_permutations == 19
    assert (
        dgm.aggregate_test(Series(), SeriesGuide(), torch.randn(9, 3), num_permutations=19).p_value
        > 0
    )


def test_a_model_without_latents_has_no_aggregate():
    case = PAIRS["density_flow"]()
    with pytest.raises(
        ValueError, match="aggregate_test: expected a guide with latent sites.*Fix: nll"
    ):
        dgm.aggregate_test(case.model, case.guide, *case.batch(5))
    assert dgm.collapse(case.model, case.guide, *case.batch(5)).idle == {}
