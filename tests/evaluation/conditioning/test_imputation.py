import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, randomize
from conftest import both_dtypes
from torch.utils.data import DataLoader, TensorDataset
from toys import ExactGuide, LinearGaussian, Series, SeriesGuide, Written, toy_vae

import pyro_dgm as dgm
from pyro_dgm.densities.factors import masked_dims

FACTORIZED = [
    "vae_normal",
    "vae_bernoulli",
    "vae_categorical",
    "vae_flow",
    "vae_realnvp",
    "vae_zuko",
    "vae_vamp",
    "vae_absorbed",
    "vae_labels",
    "vae_conv",
    "two_latents_bare",
]
REFUSED = {
    "vae_pixelcnn": "site 'x': expected a distribution whose dims are independent given the latents.*Fix: a likelihood",
    "density_flow": "site 'x': expected a distribution whose dims are independent",
    "density_image": "site 'x': expected a distribution whose dims are independent",
    "vae_dequantized": "site 'x': expected a distribution whose dims are independent",
}


def linear_gaussian(spread=1.2):
    """A model of 5 dims, a guide that is off, 6 data and which of their dims are observed."""
    model = LinearGaussian(latent=2, observed=5, scale=1.0)
    x = model.data(6)
    observed = torch.rand(6, 5) < 0.6
    observed[0], observed[1] = False, True
    observed[2:, 0], observed[2:, 1] = True, False
    return model, ExactGuide(model, shift=0.1, spread=spread), x, observed


def moments(model):
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    return bias, weight @ weight.T + model.scale**2 * torch.eye(len(bias), dtype=torch.float64)


def log_marginal(model, x, observed):
    """log p(x_b) of every datum, exact."""
    mean, covariance = moments(model)

    def of(datum, mask):
        if not mask.any():
            return torch.zeros(())
        return dist.MultivariateNormal(mean[mask], covariance[mask][:, mask]).log_prob(
            datum[mask].double()
        )

    return torch.stack([of(*pair) for pair in zip(x, observed, strict=True)])


def conditional(model, datum, mask):
    """Mean and covariance of p(x_a | x_b), exact."""
    mean, covariance = moments(model)
    gain = covariance[~mask][:, mask] @ covariance[mask][:, mask].inverse()
    located = mean[~mask] + gain @ (datum[mask].double() - mean[mask])
    return located, covariance[~mask][:, ~mask] - gain @ covariance[mask][:, ~mask]


# The likelihood of some dims -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fills", "chunk"), [(4, 20_000), (64, 20_000), (64, 3000)])
def test_the_likelihood_of_the_observed_dims_is_that_of_the_closed_form(fills, chunk):
    """Also of a datum of which nothing is observed, whose likelihood is 1, and of one that misses nothing."""
    model, guide, x, observed = linear_gaussian()
    found = dgm.marginal_nll(model, guide, x, observed=observed, num=4000, fills=fills, chunk=chunk)
    exact = log_marginal(model, x, observed)
    error = (
        1 / found.ess - 1 / found.num
    ).sqrt()  # also where k-hat says that it is not to be read
    assert ((found.per_datum + exact).abs() < 5 * error).all()
    assert (error < 0.1).all()
    assert found.kind == "upper bound in expectation"


def test_weights_have_the_mean_of_the_likelihood_however_few_and_badly_filled():
    """E[w] = p(x_b), over 400 copies of the data with 8 draws each, whose walks took one turn."""
    model, guide, x, observed = linear_gaussian()
    many = observed.repeat(400, 1)
    runs = dgm.marginal_nll(
        model, guide, x.repeat(400, 1), observed=many, num=8, fills=3, sweeps=1
    ).per_datum
    ratio = (-runs.view(400, 6) - log_marginal(model, x, observed)).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 20).all()


def test_more_fills_serve_better_than_one():
    """A guide of whole data is sharper than the posterior given some dims: the mixture is what makes up for it."""
    model, guide, x, observed = linear_gaussian(spread=1.0)
    one, many = (
        dgm.marginal_nll(model, guide, x[2:], observed=observed[2:], num=2000, fills=n).ess
        for n in (1, 32)
    )
    assert many.mean() > one.mean()


def test_a_mask_of_ones_is_no_mask_to_the_bit():
    model, guide, x, _ = linear_gaussian()
    whole = dgm.nll(model, guide, x, num=50, chunk=120, seed=3)
    found = dgm.marginal_nll(
        model, guide, x, observed=torch.ones(5, dtype=torch.bool), num=50, chunk=120, seed=3
    )
    for name in ("per_datum", "nelbo", "kl", "monte_carlo", "ess", "khat"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
    assert (found.num, found.kind) == (whole.num, whole.kind)


def test_a_datum_that_misses_nothing_is_scored_by_nll_beside_others():
    model, guide, x, observed = linear_gaussian()
    found = dgm.marginal_nll(model, guide, x, observed=observed, num=50)
    assert torch.equal(found.per_datum[1:2], dgm.nll(model, guide, x[1:2], num=50).per_datum)


def test_the_marginal_model_is_a_model_for_every_other_estimate():
    """Its log densities are those of the pair, to the bit where all is observed; HMC draws from p(z | x_b)."""
    model, guide, x, observed = linear_gaussian()
    ones = torch.ones_like(observed)
    found = dgm.nll(
        dgm.diagnostics.Marginal(model), dgm.diagnostics.Unmasked(guide), x, ones, num=20
    )
    assert torch.equal(found.per_datum, dgm.nll(model, guide, x, num=20).per_datum)
    ais = dgm.ais(dgm.diagnostics.Marginal(model), x, observed, num=16, steps=50)
    assert (
        (ais.per_datum + log_marginal(model, x, observed)).abs() < 5 * ais.monte_carlo + 1e-3
    ).all()


@both_dtypes
@pytest.mark.parametrize("pair", FACTORIZED)
def test_what_x_holds_at_missing_dims_is_never_read(pair, dtype):
    case = PAIRS[pair]()
    randomize(case.model), randomize(case.guide)
    x, *context = case.batch(4)
    observed = torch.rand(x.shape) < 0.5
    observed[0] = True
    options = {"observed": observed, "fills": 2, "sweeps": 2}
    found = dgm.marginal_nll(case.model, case.guide, x, *context, num=12, **options)
    drawn = dgm.impute(case.model, case.guide, x, *context, num=3, num_weights=12, **options)
    other = torch.where(observed, x, 7 if pair in ("vae_categorical", "vae_flow") else torch.nan)
    again = dgm.marginal_nll(case.model, case.guide, other, *context, num=12, **options)
    assert found.per_datum.isfinite().all()
    assert torch.equal(found.per_datum, again.per_datum)
    drawn_again = dgm.impute(
        case.model, case.guide, other, *context, num=3, num_weights=12, **options
    )
    assert torch.equal(drawn.draws, drawn_again.draws)
    torch.testing.assert_close(
        drawn.mean, drawn_again.mean, rtol=0, atol=0, equal_nan=True
    )  # a category has no mean
    assert drawn.draws.shape == (3, *x.shape)
    assert drawn.draws.dtype == x.dtype
    assert torch.equal(
        torch.where(observed, drawn.draws, 0), torch.where(observed, x, 0).expand(3, *x.shape)
    )


@pytest.mark.parametrize("pair", REFUSED)
def test_a_likelihood_whose_dims_depend_on_each_other_raises(pair):
    case = PAIRS[pair]()
    x, *context = case.batch(4)
    with pytest.raises(ValueError, match=REFUSED[pair]):
        dgm.marginal_nll(
            case.model, case.guide, x, *context, observed=torch.ones_like(x[0], dtype=torch.bool)
        )


def test_a_guide_that_cannot_score_given_points_raises():
    case = PAIRS["vae_one_way"]()
    with pytest.raises(
        NotImplementedError, match="has no inverse. Fix: realnvp, spline_coupling or maf"
    ):
        dgm.marginal_nll(case.model, case.guide, *case.batch(4), observed=torch.arange(4) < 2)


def test_a_site_that_observes_something_else_raises():
    with pytest.raises(
        ValueError,
        match="expected a site that observes the first argument as it is.*Fix: pyro.sample",
    ):
        dgm.marginal_nll(
            Series(), SeriesGuide(), torch.randn(4, 3), observed=torch.tensor([True, False, True])
        )


def test_a_model_without_latents_is_exact():
    model = dgm.DensityModel(dgm.Conditional(dist.Normal, dgm.mlp(2, 6)))
    x, c, observed = torch.randn(5, 3), torch.randn(5, 2), torch.rand(5, 3) < 0.5
    found = dgm.marginal_nll(model, dgm.EmptyGuide(), x, c, observed=observed, num=500)
    exact = (model.density(c).base_dist.log_prob(x) * observed).sum(1)
    torch.testing.assert_close(found.per_datum, -exact.detach().double())
    assert (found.kind, found.num) == ("exact", 2)
    imputed = dgm.impute(model, dgm.EmptyGuide(), x, c, observed=observed, num=4000)
    mean, scale = model.density(c).mean, model.density(c).stddev
    assert (
        (imputed.draws.mean(0) - mean).abs()[~observed] < 5 * scale[~observed] / 4000**0.5
    ).all()
    torch.testing.assert_close(imputed.mean[~observed], mean[~observed].detach())


def test_data_of_scalars_may_be_missing():
    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(program.weight * 0, 1.0))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.8 * x, 0.6))

    x, observed = torch.randn(4), torch.tensor([True, False, True, False])
    found = dgm.marginal_nll(Written(model), Written(guide), x, observed=observed, num=4000)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x) * observed
    assert ((found.per_datum + exact).abs() < 5 * found.monte_carlo).all()


def test_a_mask_in_the_program_stays():
    """A datum that the program leaves out has no likelihood, whatever is observed."""
    law, kept = dist.Normal(torch.zeros(3, 2), 1.0).to_event(1), torch.tensor([True, False, True])
    found = masked_dims("x", law.mask(kept), torch.tensor([True, False]).expand(3, 2)).log_prob(
        torch.ones(3, 2)
    )
    torch.testing.assert_close(found, dist.Normal(0.0, 1.0).log_prob(torch.ones(3)) * kept)


# Conditional likelihood ----------------------------------------------------------------------------------------------


def test_the_conditional_likelihood_is_that_of_the_closed_form():
    model, guide, x, _ = linear_gaussian()
    given, of = torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 1, 1, 0]).bool()
    found = dgm.conditional_nll(model, guide, x, of=of, given=given, num=4000, fills=16)
    exact = log_marginal(model, x, (of | given).expand(6, 5)) - log_marginal(
        model, x, given.expand(6, 5)
    )
    assert ((found.per_datum + exact).abs() < 5 * found.monte_carlo).all()
    assert (found.monte_carlo < 0.1).all()
    assert "itself no bound" in str(found)


def test_what_is_given_costs_nothing():
    model, guide, x, _ = linear_gaussian()
    ones = torch.ones(5, dtype=torch.bool)
    found = dgm.conditional_nll(model, guide, x, of=ones, given=ones, num=4000)
    assert (found.per_datum.abs() < 5 * found.monte_carlo).all()
    model = dgm.DensityModel(dgm.Conditional(dist.Normal, dgm.mlp(2, 6)))
    exact = dgm.conditional_nll(
        model, dgm.EmptyGuide(), x[:, :3], x[:, :2], of=ones[:3], given=ones[:3]
    )
    assert exact.kind == "exact"
    assert (exact.per_datum == 0).all()


# Imputation ----------------------------------------------------------------------------------------------------------


def test_imputations_have_the_law_of_the_missing_dims_given_the_others():
    """Mean and variance of draws and the weighted mean, against the closed form; errors from the effective size."""
    model, guide, x, observed = linear_gaussian()
    found = dgm.impute(
        model, guide, x, observed=observed, num=4000, num_weights=8000, fills=16, chunk=40_000
    )
    for n in (0, 2, 3, 4, 5):
        mean, covariance = conditional(model, x[n], observed[n])
        variance, size = covariance.diagonal(), found.nll.ess[n] / 2
        error = (variance * (1 / size + 1 / 4000)).sqrt()
        assert ((found.mean[n, ~observed[n]] - mean).abs() < 5 * error).all()
        drawn = found.draws[:, n, ~observed[n]]
        assert ((drawn.mean(0) - mean).abs() < 5 * error).all()
        assert ((drawn.var(0) / variance - 1).abs() < 5 * (2 / size + 2 / 4000) ** 0.5).all()
    assert torch.equal(found.draws[:, observed], x[observed].expand(4000, -1))
    assert torch.equal(found.mean[1], x[1])


def test_imputed_levels_are_levels():
    case = PAIRS["vae_flow"]()
    (x,) = case.batch(5)
    found = dgm.impute(
        case.model, case.guide, x, observed=torch.tensor([True, False, False, True]), num=9, fills=2
    )
    assert found.draws.dtype == x.dtype
    assert found.draws.unique().numel() > 2
    assert ((found.draws >= 0) & (found.draws < 9)).all()
    assert found.mean.is_floating_point()


def test_integers_under_a_density_raise():
    vae = toy_vae()
    with pytest.raises(
        ValueError,
        match=r"site 'x': expected floating point data of a distribution with a density.*x.float\(\)",
    ):
        dgm.impute(
            vae.model,
            vae.guide,
            torch.ones(4, 3, dtype=torch.long),
            observed=torch.tensor([True, False, True]),
        )


def test_the_result_speaks_of_its_reliability():
    model, guide, x, observed = linear_gaussian()
    found = dgm.impute(model, guide, x, observed=observed, num=3, num_weights=40, fills=3)
    assert str(found).startswith("3 imputations of 6 data; observed dims: NLL")
    assert found.nll.num == 40


def test_nothing_outside_moves():
    vae, x = toy_vae(), torch.randn(5, 3)
    vae.guide.eval()
    before, modes = torch.get_rng_state(), [m.training for m in vae.modules()]
    observed = torch.tensor([True, False, True])
    first = dgm.impute(vae.model, vae.guide, x, observed=observed, num=2, num_weights=20, fills=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in vae.modules()] == modes
    assert all(p.grad is None for p in vae.parameters())
    assert not first.draws.requires_grad
    again = dgm.impute(vae.model, vae.guide, x, observed=observed, num=2, num_weights=20, fills=2)
    assert torch.equal(first.draws, again.draws)
    other = dgm.impute(
        vae.model, vae.guide, x, observed=observed, num=2, num_weights=20, fills=2, seed=1
    )
    assert not torch.equal(first.draws, other.draws)


FORMS = {
    "ndarray": lambda x: x.numpy(),
    "data_frame": lambda x: pandas.DataFrame(x.numpy()),
    "tensor_dataset": TensorDataset,
    "loader": lambda x: DataLoader(TensorDataset(x), 4),
    "list_of_batches": lambda x: [(x[:1],), (x[1:],)],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_data_with_holes_of_any_form_are_imputed_as_the_tensor(form):
    model, guide, x, observed = linear_gaussian()
    x = torch.where(observed, x, torch.nan)
    options = {"observed": observed, "num": 2, "num_weights": 40, "fills": 3}
    whole = dgm.impute(model, guide, x, **options)
    found = dgm.impute(model, guide, form(x), **options)
    assert torch.equal(found.draws, whole.draws)
    assert torch.equal(found.nll.per_datum, whole.nll.per_datum)
    marginal = dgm.marginal_nll(model, guide, form(x), observed=observed, num=40, fills=3)
    assert torch.equal(marginal.per_datum, whole.nll.per_datum)


def test_a_conditional_likelihood_reads_a_loader_once():
    model, guide, x, _ = linear_gaussian()
    given = torch.arange(5) < 2
    whole = dgm.conditional_nll(model, guide, x, of=~given, given=given, num=40, fills=3)
    once = iter([(x[:2],), (x[2:],)])
    found = dgm.conditional_nll(model, guide, once, of=~given, given=given, num=40, fills=3)
    assert torch.equal(found.per_datum, whole.per_datum)


def test_results_are_tables_with_a_row_per_datum():
    model, guide, x, observed = linear_gaussian()
    imputed = dgm.impute(model, guide, x, observed=observed, num=2, num_weights=40, fills=3)
    table = imputed.to_dataframe()
    assert list(table.columns) == ["per_datum", "monte_carlo", "ess", "khat"]
    assert len(table) == 6
    assert "2 imputations of 6 data" in imputed._repr_html_()
    given = torch.arange(5) < 2
    found = dgm.conditional_nll(model, guide, x, of=~given, given=given, num=40, fills=3)
    table = found.to_dataframe()
    assert (table["joint"] - table["given"] == table["per_datum"]).all()
    assert "itself no bound" in found._repr_html_()


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "observed", [torch.ones(5), torch.ones(4, dtype=torch.bool), torch.ones(1, 5).bool()]
)
def test_a_mask_of_another_shape_or_dtype_raises(observed):
    model, guide, x, _ = linear_gaussian()
    with pytest.raises(
        ValueError, match=r"expected a bool mask of shape \(6, 5\) or \(5,\), got .* Fix: observed="
    ):
        dgm.marginal_nll(model, guide, x, observed=observed)


def test_nan_where_observed_raises():
    model, guide, x, observed = linear_gaussian()
    x[1, 2] = torch.nan
    with pytest.raises(
        ValueError,
        match=r"expected finite values where observed, got 1 NaN.*Fix: observed=observed &",
    ):
        dgm.impute(model, guide, x, observed=observed)


def test_nan_without_a_mask_raises_with_the_way_to_impute_them():
    model, guide, x, _ = linear_gaussian()
    x[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"dgm.impute\(model, guide, x, observed=x.isfinite\(\)\)"):
        dgm.nll(model, guide, x)


def test_observed_values_outside_the_support_raise():
    case = PAIRS["vae_bernoulli"]()
    x = torch.full((4, 6), 0.5)
    with pytest.raises(ValueError, match="site 'x': expected binary values"):
        dgm.marginal_nll(case.model, case.guide, x, observed=torch.arange(6) < 3)


@pytest.mark.parametrize("name", ["num", "fills", "sweeps", "chunk"])
def test_counts_below_one_raise(name):
    model, guide, x, observed = linear_gaussian()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.marginal_nll(model, guide, x, observed=observed, **{name: 0})
    with pytest.raises(ValueError, match="num_weights: expected at least 1, got 0"):
        dgm.impute(model, guide, x, observed=observed, num_weights=0)


def test_images_not_flattened_are_refused_with_the_fix():
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(9, 4))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 9)), encoder)
    x, mask = torch.randn(5, 3, 3), torch.ones(3, 3, dtype=torch.bool)
    calls = (
        lambda: dgm.impute(vae.model, vae.guide, x, observed=mask),
        lambda: dgm.marginal_nll(vae.model, vae.guide, x, observed=mask),
        lambda: dgm.conditional_nll(vae.model, vae.guide, x, of=mask, given=mask),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"got \(3, 3\)\. Fix: x\.flatten\(1\)"):
            call()


def test_holes_in_the_context_are_refused():
    model = dgm.DensityModel(dgm.Conditional(dist.Normal, dgm.mlp(2, 6)))
    x, c = torch.randn(5, 3), torch.full((5, 2), torch.nan)
    with pytest.raises(ValueError, match=r"data\[1\]: expected finite values, got 10 NaN"):
        dgm.impute(model, dgm.EmptyGuide(), x, c, observed=torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("build", [dgm.diagnostics.Marginal, dgm.diagnostics.Unmasked])
def test_a_vae_in_place_of_one_of_its_programs_raises_with_the_fix(build):
    with pytest.raises(TypeError, match=r"expected a Pyro program.*got VAE\. Fix: vae\.model or"):
        build(toy_vae())
