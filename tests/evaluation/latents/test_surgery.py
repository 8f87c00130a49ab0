"""ELBO surgery against quadrature, closed forms and the identities it is named for."""

from __future__ import annotations

from functools import partial
from math import log, pi, sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over, randomize
from conftest import both_dtypes, in_float64
from pyro import poutine
from torch import nn
from toys import (
    ExactGuide,
    GlobalMean,
    GlobalMeanGuide,
    LinearGaussian,
    Series,
    SeriesGuide,
    toy_vae,
)

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

WITH_LATENTS = {n: b for n, b in PAIRS.items() if "density" not in n and n != "vae_one_way"}
same = partial(torch.testing.assert_close, rtol=0)


class Given(nn.Module):
    r"""$q(z \mid x) = \mathcal N(x, \sigma^2)$: the datum is the location, and the scale is fixed."""

    def __init__(self, scale: float = 0.3):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return dist.Normal(x, self.scale).to_event(1)


def pair(dim: int, scale: float = 0.3, prior: nn.Module | None = None):
    """A model of z and x in R^dim, and the guide N(x, scale²)."""
    model = dgm.LatentVariableModel(
        prior or dgm.StandardNormal(dim), dgm.Normal(nn.Identity(), scale=0.5)
    )
    return model, dgm.AmortizedGuide(Given(scale))


def integrals(x: torch.Tensor, scale: float) -> tuple[float, float]:
    """Mutual information and marginal KL of the finite mixture of N(x_j, scale²), by quadrature."""
    edge = torch.linspace(-9, 9, 40_001)
    laws = dist.Normal(x, scale).log_prob(edge[:, None])
    log_q = laws.logsumexp(1) - log(len(x))
    mutual = (laws.exp() * (laws - log_q[:, None])).sum(0).mean() * (edge[1] - edge[0])
    marginal = (log_q.exp() * (log_q - dist.Normal(0.0, 1.0).log_prob(edge))).sum() * (
        edge[1] - edge[0]
    )
    return mutual.item(), marginal.item()


def close(estimate: dgm.results.Estimate, exact: float, num: float = 5) -> bool:
    return abs(estimate.value - exact) <= num * estimate.stderr


@both_dtypes
@pytest.mark.parametrize(**over(WITH_LATENTS))
def test_the_identities_hold_to_float_precision_for_every_pair(build):
    case = build()
    randomize(case.guide)
    batch = case.batch(6)
    found = dgm.surgery(case.model, case.guide, *batch, num=20, chunk=17)
    assert found.num == 24
    assert found.kl.value == pytest.approx(
        found.mutual_information.value + found.marginal_kl.value, abs=1e-11
    )
    assert found.elbo.value == pytest.approx(found.reconstruction.value - found.kl.value, abs=1e-11)
    assert found.mutual_information.value <= found.ceiling + 1e-12
    assert all(
        getattr(found, n).stderr >= 0
        for n in ("reconstruction", "mutual_information", "marginal_kl", "elbo")
    )
    assert "nats per datum (6 data, 24 draws × 5 others)" in str(found)
    if found.dimension_kl:
        parts = found.total_correlation.value + found.dimension_kl.value
        assert found.marginal_kl.value == pytest.approx(parts, abs=1e-5)
        assert found.kl_of_dims.sum().item() == pytest.approx(found.dimension_kl.value, abs=1e-11)
    else:
        assert found.reason.startswith("none: ")


@in_float64
def test_the_parts_equal_quadrature_over_the_finite_mixture():
    x = torch.tensor([[-1.2], [-0.9], [0.1], [1.0], [1.3]])
    mutual, marginal = integrals(x[:, 0], 0.3)
    found = dgm.surgery(*pair(1), x, num=20_000)
    assert close(found.mutual_information, mutual)
    assert close(found.marginal_kl, marginal)
    assert close(found.kl, ((0.09 + x.square().mean() - 1) / 2 - log(0.3)).item())
    assert close(found.reconstruction, -0.09 / 0.5 - log(0.5) - log(2 * pi) / 2)
    assert 0 < found.mutual_information.stderr < 0.01
    assert found.total_correlation.value == pytest.approx(0, abs=1e-11)


@in_float64
@pytest.mark.slow
def test_the_stated_error_is_the_spread_of_repetitions():
    """300 repetitions; the relative error of a standard deviation is 1/sqrt(600) = 0.041."""
    x = torch.tensor([[-1.2], [0.1], [1.0]])
    found = [dgm.surgery(*pair(1), x, num=60, seed=s) for s in range(300)]
    mutual, marginal = integrals(x[:, 0], 0.3)
    for name, exact in (("mutual_information", mutual), ("marginal_kl", marginal)):
        values = torch.tensor([getattr(f, name).value for f in found])
        stated = torch.tensor([getattr(f, name).stderr for f in found]).square().mean().sqrt()
        assert abs(stated / values.std() - 1) < 5 * 0.041
        assert abs(values.mean() - exact) < 5 * values.std() / sqrt(300)


@in_float64
def test_a_linear_gaussian_pair_has_the_mutual_information_of_its_joint():
    r"""$I = \frac12 \log\det(I + W^\top W / s^2)$ and $q_{agg} \to p$ as N grows; 1,500 data, one draw for each."""
    model = LinearGaussian(latent=1, observed=3)
    guide, x = ExactGuide(model), model.data(1500)
    exact = 0.5 * torch.log1p(model.weight.square().sum() / model.scale**2).item()
    found = dgm.surgery(model, guide, x, num=1500)
    assert close(found.mutual_information, exact)
    assert abs(found.marginal_kl.value) < 0.03
    assert found.mutual_information.stderr < 0.05
    assert found.elbo.value == pytest.approx(model.log_evidence(x).mean().item(), abs=1e-9)


@in_float64
@pytest.mark.parametrize("num_data", [1, 2, 3])
def test_far_apart_data_reach_the_ceiling(num_data):
    x = torch.tensor([[-40.0], [0.0], [40.0]])[:num_data]
    found = dgm.surgery(*pair(1), x, num=50)
    assert found.ceiling == log(num_data)
    assert found.mutual_information.value == pytest.approx(log(num_data), abs=1e-12)


@in_float64
def test_a_guide_that_ignores_the_data_tells_nothing_of_them():
    x = torch.zeros(5, 2)
    found = dgm.surgery(*pair(2), x, num=50)
    assert found.mutual_information.value == pytest.approx(0, abs=1e-12)
    assert found.marginal_kl.value == pytest.approx(found.kl.value, abs=1e-12)


@pytest.mark.parametrize("build", [Given, lambda: dgm.MultivariateNormal(dgm.mlp(3, 4, 9), 3)])
@both_dtypes
def test_the_aggregate_as_prior_has_no_marginal_kl(build, dtype):
    x, encoder = torch.randn(40, 3), build()
    prior = dgm.AggregatePrior(encoder, x)
    model = dgm.LatentVariableModel(prior, dgm.Normal(nn.Identity()))
    found = dgm.surgery(model, dgm.AmortizedGuide(encoder), x, num=80)
    assert found.marginal_kl.value == pytest.approx(0, abs=1e-9 if dtype == torch.float64 else 1e-5)
    assert found.dimension_kl is None
    assert "of site 'z' does not factorize over dims" in found.reason


@in_float64
def test_dims_apart_follow_quadrature_and_their_dependence_is_the_total_correlation():
    """z_1 = z_2 + noise: the aggregate's dims are far from independent."""
    x = torch.tensor([[-1.0, -1.0], [0.2, 0.2], [1.0, 1.0]])
    found = dgm.surgery(*pair(2), x, num=20_000)
    _, marginal = integrals(x[:, 0], 0.3)
    assert close(found.dimension_kl, 2 * marginal)
    same(found.kl_of_dims, torch.full((2,), marginal), atol=5 * found.dimension_kl.stderr)
    edge = torch.cartesian_prod(*[torch.linspace(-3, 3, 301)] * 2)
    laws = dist.Normal(x, 0.3).log_prob(edge[:, None])
    log_q, log_dims = laws.sum(-1).logsumexp(1) - log(3), laws.logsumexp(1) - log(3)
    exact = (log_q.exp() * (log_q - log_dims.sum(-1))).sum() * 0.02**2
    assert close(found.total_correlation, exact.item())
    assert found.total_correlation.value > 0.3
    assert found.reason == ""


@in_float64
def test_independent_dims_have_no_total_correlation():
    """A grid of data: the aggregate is a product."""
    x = torch.cartesian_prod(torch.tensor([-1.0, 0.5, 1.2]), torch.tensor([-0.3, 0.9]))
    found = dgm.surgery(*pair(2), x, num=200)
    assert found.total_correlation.value == pytest.approx(0, abs=1e-12)


@in_float64
@pytest.mark.parametrize("name", ["vae_normal", "vae_realnvp", "two_latents_bare", "vae_labels"])
def test_chunks_change_nothing_but_the_rounding(name):
    case = PAIRS[name]()
    batch = case.batch(7)
    one, other = (
        dgm.surgery(case.model, case.guide, *batch, num=14, chunk=c) for c in (200_000, 5)
    )
    for field in ("reconstruction", "mutual_information", "marginal_kl", "kl", "elbo"):
        assert getattr(one, field).value == pytest.approx(getattr(other, field).value, abs=1e-10)
        assert getattr(one, field).stderr == pytest.approx(getattr(other, field).stderr, abs=1e-10)


@in_float64
def test_contexts_travel_with_their_data():
    """q(z | x, c) = N(c, 0.3²) whatever x is: the aggregate is a mixture over the contexts."""

    class OfContext(nn.Module):
        def forward(self, x, c):
            return dist.Normal(c, 0.3).to_event(1)

    c = torch.tensor([[-1.2], [0.1], [1.0], [1.4]])
    likelihood = dgm.Normal(dgm.Concat(nn.Linear(2, 1)))
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), likelihood)
    found = dgm.surgery(model, dgm.AmortizedGuide(OfContext()), torch.randn(4, 1), c, num=20_000)
    mutual, marginal = integrals(c[:, 0], 0.3)
    assert close(found.mutual_information, mutual)
    assert close(found.marginal_kl, marginal)


@in_float64
def test_some_of_the_draws_estimate_the_same_numbers():
    """60 random subsets of 10 of 30 data, against all of them; 5 standard errors of the mean."""
    x = torch.randn(30, 1)
    exact = integrals(x[:, 0], 0.3)
    found = [dgm.surgery(*pair(1), x, num=10, seed=s) for s in range(60)]
    assert all(f.num == 10 for f in found)
    for name, number in zip(("mutual_information", "marginal_kl"), exact, strict=True):
        values = torch.tensor([getattr(f, name).value for f in found])
        assert abs(values.mean() - number) < 5 * values.std() / sqrt(60)


@in_float64
def test_some_of_the_others_bias_the_mutual_information_upward_and_say_so():
    """The identity and the ceiling stay."""
    x = torch.randn(200, 2)
    full = dgm.surgery(*pair(2), x, num=200)
    some = [dgm.surgery(*pair(2), x, num=200, others=10, seed=s) for s in range(40)]
    values = torch.tensor([s.mutual_information.value for s in some])
    assert values.mean() - full.mutual_information.value > 5 * values.std() / sqrt(40)
    assert all(s.mutual_information.value <= s.ceiling for s in some)
    assert some[0].kl.value == pytest.approx(
        some[0].mutual_information.value + some[0].marginal_kl.value, abs=1e-12
    )
    text = str(some[0])
    assert "200 draws × 10 others" in text
    assert "log N = 5.298 (biased upward)" in text
    assert "still win (biased downward)" in text
    assert "biased" not in str(full)


@in_float64
def test_the_mean_density_of_some_others_is_unbiased():
    """E exp(log q_agg) over 400 choices of 3 others, at fixed draws, in 5 standard errors."""
    from pyro_dgm.evaluation.latents.aggregate import sum_over_others
    from pyro_dgm.evaluation.latents.pairwise import Points

    guide, x = dgm.AmortizedGuide(Given(1.0)), torch.randn(8, 1)
    points = Points({"z": torch.randn(8, 1)}, torch.arange(8))
    own = dist.Normal(x, 1.0).log_prob(points.values["z"]).sum(-1)
    runs = [
        sum_over_others(guide, (x,), points, torch.randperm(8)[:3], 1, 100, dims=False)
        for _ in range(400)
    ]
    density = torch.stack([run.log_density(own, 8).exp() for run in runs])
    exact = dist.Normal(x, 1.0).log_prob(points.values["z"][:, None]).sum(-1).exp().mean(1)
    assert ((density.mean(0) - exact).abs() < 5 * density.std(0) / 20).all()


@in_float64
def test_the_noise_of_a_dequantized_model_belongs_to_the_data():
    """q(z | x + u) with scale 1e-6 and z-locations far apart: each noisy datum is told apart, MI = log N."""
    encoder = Given(1e-6)
    likelihood = dgm.Normal(nn.Identity(), scale=0.5)
    vae = dgm.VAE(dgm.StandardNormal(2), likelihood, encoder, dgm.UnitUniform())
    found = dgm.surgery(vae.model, vae.guide, torch.randint(5, (6, 2)), num=60)
    assert found.mutual_information.value == pytest.approx(log(6), abs=1e-9)
    assert found.total_correlation is not None


def test_sites_inside_further_plates_are_summed_and_have_no_dims():
    found = dgm.surgery(Series(), SeriesGuide(), torch.randn(5, 3), num=10)
    assert found.total_correlation is None
    assert "dims are of one latent site, got ['z', 'u']" in found.reason
    assert found.reason in str(found)


def test_one_site_inside_a_further_plate_has_no_dims():
    class Model(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x), pyro.plate("time", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=None if x is None else x.T)

    class Guide(dgm.Program):
        def forward(self, x=None):
            with dgm.data_plate(x), pyro.plate("time", 3, dim=-2):
                pyro.sample("z", dist.Normal(x.T[..., None].expand(3, len(x), 2), 1.0).to_event(1))

    found = dgm.surgery(Model(), Guide(), torch.randn(5, 3), num=10)
    assert "site 'z' is inside further plates, ['time', 'data']" in found.reason
    assert found.kl.value == pytest.approx(
        found.mutual_information.value + found.marginal_kl.value, abs=1e-11
    )


def test_it_sees_neither_beta_nor_size_nor_scales_nor_masks_of_ones():
    x, found = torch.randn(6, 4), []
    for size in (None, 6000):
        with fork_rng(seed=2):
            model = LinearGaussian(size=size)
            guide = ExactGuide(model, shift=0.3)
        found.append(dgm.surgery(model, guide, x, num=18))
    scaled, again = (
        poutine.mask(poutine.scale(p, scale=0.1), mask=torch.ones((), dtype=torch.bool))
        for p in (model, guide)
    )
    found.append(dgm.surgery(scaled, again, x, num=18))
    objective = dgm.ELBO(model, guide, beta={"z": 0.01}, size=6000)
    found.append(dgm.surgery(objective.model, objective.guide, x, num=18))
    assert all(f == found[0] for f in found[1:])


def test_the_dims_see_no_size_and_no_masks_either():
    found = []
    for size, mask in ((None, None), (600, None), (None, torch.ones(6, dtype=torch.bool))):
        with fork_rng(seed=2):
            guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(4, 8, 4)), size=size)
            model = dgm.LatentVariableModel(
                dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, 4)), size=size
            )
        x = torch.linspace(-1, 1, 24).reshape(6, 4)
        if mask is not None:
            model, guide = (_masked_by_datum(program) for program in (model, guide))
        found.append(dgm.surgery(model, guide, x, num=18))
    for other in found[1:]:
        assert other.total_correlation == found[0].total_correlation
        assert torch.equal(other.kl_of_dims, found[0].kl_of_dims)
        assert other.mutual_information == found[0].mutual_information


def _masked_by_datum(program):
    return lambda x: poutine.mask(program, mask=torch.ones(len(x), dtype=torch.bool))(x)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae, x = toy_vae(), torch.randn(5, 3)
    vae.guide.eval()
    before, modes = torch.get_rng_state(), [m.training for m in vae.modules()]
    weights = {n: p.clone() for n, p in vae.state_dict().items()}
    first = dgm.surgery(vae.model, vae.guide, x, num=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in vae.modules()] == modes
    assert all(torch.equal(weights[n], p) for n, p in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())
    assert not first.kl_of_dims.requires_grad
    torch.rand(3)
    assert dgm.surgery(vae.model, vae.guide, x, num=4).elbo == first.elbo
    assert dgm.surgery(vae.model, vae.guide, x, num=4, seed=1).elbo != first.elbo


def test_a_guide_that_only_scores_its_own_draws_is_refused():
    case = PAIRS["vae_one_way"]()
    with pytest.raises(NotImplementedError, match="has no inverse. Fix: realnvp"):
        dgm.surgery(case.model, case.guide, *case.batch(4), num=4)


@pytest.mark.parametrize(
    ("name", "latent"), [("density_flow", "[]"), ("density_dequantized", "['x_noise']")]
)
def test_a_model_without_latents_is_refused(name, latent):
    case = PAIRS[name]()
    with pytest.raises(ValueError, match="expected a guide with latent sites, got") as error:
        dgm.surgery(case.model, case.guide, *case.batch(4))
    assert latent in str(error.value)


def test_bad_arguments_raise():
    model, guide = pair(1)
    x = torch.randn(4, 1)
    for name in ("num", "chunk"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.surgery(model, guide, x, **{name: 0})
    with pytest.raises(
        ValueError,
        match="others: expected at least 2, since a draw's own datum is left out, got 1. Fix",
    ):
        dgm.surgery(model, guide, x, others=1)
    with pytest.raises(ValueError, match="expected finite values"):
        dgm.surgery(model, guide, x * torch.nan)
    with pytest.raises(TypeError, match="expected a model and its guide"):
        dgm.surgery(None, guide, x)
    with pytest.raises(
        TypeError, match=r"got a model alone, LatentVariableModel\. Fix: vae\.model"
    ):
        dgm.surgery(model, None, x)


def test_images_not_flattened_are_refused_with_the_fix():
    model, guide = pair(9)
    with pytest.raises(ValueError, match=r"got \(3, 3\)\. Fix: x\.flatten\(1\)"):
        dgm.surgery(
            model,
            dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(9, 18))),
            torch.randn(5, 3, 3),
        )


def test_the_numbers_are_a_table_with_a_row_per_term():
    found = dgm.surgery(*pair(2), torch.randn(5, 2), num=10)
    table = found.to_dataframe().set_index("term")
    assert table.loc["marginal_kl", "value"] == found.marginal_kl.value
    assert table.loc["dimension_kl", "stderr"] == found.dimension_kl.stderr
    assert "ELBO surgery" in found._repr_html_()
    without_dims = dgm.surgery(Series(), SeriesGuide(), torch.randn(5, 3), num=10).to_dataframe()
    assert list(without_dims["term"][without_dims["value"].isna()]) == [
        "total_correlation",
        "dimension_kl",
    ]


def test_a_global_site_raises():
    with pytest.raises(
        ValueError, match="site 'mu': expected a site inside the plate 'data', got a global one"
    ):
        dgm.surgery(GlobalMean(), GlobalMeanGuide(), torch.randn(4), num=3)


class Rewarded(dgm.Program):
    r"""$z \sim N(0, 1)$, $x \sim N(z, 1/4)$, and, with a weight, a factor $e^{a z}$."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = weight

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            if self.weight:
                pyro.factor("reward", self.weight * z.sum(-1))
            return pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


@in_float64
def test_a_factor_is_reported_apart_from_the_reconstruction(dtype):
    r"""$E \log f = a\, E z$, and the ELBO of the weights; the same draws without it give all other terms."""
    x = torch.linspace(-1, 1, 20)[:, None] + 0.5
    guide = dgm.AmortizedGuide(Given())
    plain = dgm.surgery(Rewarded(), guide, x, num=4000)
    found = dgm.surgery(Rewarded(2.0), guide, x, num=4000)
    for field in ("reconstruction", "kl", "marginal_kl", "mutual_information"):
        assert getattr(found, field).value == pytest.approx(getattr(plain, field).value, abs=1e-12)
    assert abs(found.factor.value - 2 * x.mean().item()) < 5 * found.factor.stderr
    whole = found.reconstruction.value + found.factor.value - found.kl.value
    assert found.elbo.value == pytest.approx(whole, abs=1e-12)
    assert found.columns()["term"][-1] == "factor"
    assert "of pyro.factor in the model" in str(found)
    assert plain.factor is None
    assert "factor" not in plain.columns()["term"]
