"""A number says what it is: mass, density or joint density at a point; exact, a bound or none."""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from toys import ExactGuide, LinearGaussian, Written

import pyro_dgm as dgm
from pyro_dgm.inference.sites.measures import Measure

INTEGERS = torch.arange(3).repeat(20)[:, None].double()  # uniform on {0, 1, 2}


class Fitted(dgm.Program):
    """A normal density over 3 levels, as narrow as one likes."""

    def __init__(self, scale=0.01):
        super().__init__()
        self.scale = scale

    def forward(self, x=None):
        with dgm.data_plate(x):
            levels = dist.Normal(torch.arange(3.0), self.scale)
            mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), levels)
            return pyro.sample("x", mixture.expand([1]).to_event(1), obs=x)


def uniform(x, high=3.0):
    with dgm.data_plate(x):
        zero = torch.zeros(1)
        return pyro.sample("x", dist.Uniform(zero, zero + high).to_event(1), obs=x)


def categorical(x):
    with dgm.data_plate(x):
        return pyro.sample("x", dist.Categorical(torch.ones(1, 3)).to_event(1), obs=x)


def point_guide(model):
    exact = ExactGuide(model)

    def run(_, x):
        with dgm.data_plate(x):
            mean = (x - exact.bias) @ exact.map.T
            pyro.sample("z", dist.Delta(mean).to_event(1))

    return Written(run)


@pytest.fixture
def ppca():
    """A model whose density is so narrow that log p(x, z*) lies far above log p(x)."""
    model = LinearGaussian(latent=2, observed=4, scale=0.01)
    return model, ExactGuide(model), point_guide(model), model.data(60)


# The uniform distribution on three integers --------------------------------------------------------------------------


def test_the_true_mass_is_log_3_and_prints_what_it_is():
    found = dgm.nll(Written(lambda _, x: categorical(x)), dgm.EmptyGuide(), INTEGERS)
    assert found.mean == pytest.approx(log(3))
    assert (found.kind, found.measure) == ("exact", Measure.MASS)
    assert str(found) == "NLL 1.099 ± 0.000 nats per datum (mass, exact; 60 data)"
    bits = found.bits_per_dim(1)
    assert bits.value == pytest.approx(log(3) / log(2))
    assert str(bits) == "1.5850 ± 0.0000 bits/dim (mass, exact)"
    assert bits.to_dataframe()["measure"].to_list() == ["mass"]


def test_a_density_on_integers_has_no_bits_per_dim_and_is_not_compared_with_the_mass():
    """The narrow density is exact as a density, -log p(x) = log 3 + log sd + log sqrt(2 pi), and below 0."""
    found = dgm.nll(Fitted(), dgm.EmptyGuide(), INTEGERS)
    assert found.mean == pytest.approx(log(3) + log(0.01) + 0.9189385, abs=1e-6)
    assert (found.kind, found.measure) == ("exact", Measure.ON_LEVELS)
    with pytest.raises(
        ValueError, match=r"got the figure 'density on levels'.*Fix: dequantized\(model\)"
    ):
        found.bits_per_dim(1)
    truth = dgm.nll(Written(lambda _, x: categorical(x)), dgm.EmptyGuide(), INTEGERS)
    match = (
        r"compare: expected figures of one measure, got 'density': density on levels, 'mass': mass"
    )
    for compare in (dgm.compare_elpd, dgm.diagnostics.elpd_data):
        with pytest.raises(ValueError, match=match):
            compare({"density": found, "mass": truth})


def test_the_same_density_dequantized_is_a_bound_on_the_mass():
    """Of the uniform density on [0, 3) every cell has the mass 1/3, whatever the noise."""
    model = dgm.dequantized(Written(lambda _, x: uniform(x)))
    found = dgm.nll(model, dgm.NoiseGuide(dgm.UnitUniform()), INTEGERS, num=40)
    assert (found.kind, found.measure) == ("upper bound in expectation", Measure.MASS)
    torch.testing.assert_close(found.per_datum, torch.full_like(found.per_datum, log(3)))
    assert found.bits_per_dim(1).value == pytest.approx(log(3) / log(2))
    narrow = dgm.nll(
        dgm.dequantized(Fitted()), dgm.NoiseGuide(dgm.UnitUniform()), INTEGERS, num=500
    )
    assert narrow.measure is Measure.MASS
    truth = dgm.nll(Written(lambda _, x: categorical(x)), dgm.EmptyGuide(), INTEGERS)
    table = dgm.compare_elpd({"narrow": narrow, "truth": truth})
    assert table.index[0] == "truth"  # half of each narrow peak lies in another cell
    assert table["nll_measure"].to_list() == ["mass", "mass"]


def test_a_density_of_continuous_data_keeps_its_bits_per_dim():
    x = torch.rand(50, 1) * 3
    found = dgm.nll(Written(lambda _, x: uniform(x)), dgm.EmptyGuide(), x)
    assert found.measure is Measure.DENSITY
    assert found.bits_per_dim(1, spacing=0.5).value == pytest.approx(log(6) / log(2))


@pytest.mark.parametrize("call", [dgm.nll, lambda m, _, x, **o: dgm.ais(m, x, num=2, steps=2)])
def test_grey_levels_in_the_unit_interval_under_a_density_are_told(call):
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Normal(dgm.mlp(1, 4)))
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(4, 2)))
    x = torch.randint(256, (90, 4)) / 255
    found = call(model, guide, x, num=2)
    assert found.measure is Measure.ON_LEVELS
    with pytest.raises(ValueError, match="bits_per_dim: expected a mass"):
        found.bits_per_dim(4, spacing=1 / 255)
    noisy = call(model, guide, x + torch.rand(90, 4) / 255, num=2)
    assert noisy.measure is Measure.DENSITY


def test_negative_bits_per_dim_are_refused():
    assert dgm.bits_per_dim(-1e-3, 10) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(ValueError, match=r"expected at least 0 bits, got -7\.47 per dim.*Fix"):
        dgm.bits_per_dim(-7.47 * log(2), 1)


# Sites of both kinds -------------------------------------------------------------------------------------------------


@in_float64
def test_sites_of_both_kinds_are_summed_and_told():
    def model(_, x):
        with dgm.data_plate(x):
            pyro.sample("c", dist.Bernoulli(torch.tensor(0.25)), obs=(x[:, 0] > 0).to(x.dtype))
            pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)

    x = torch.tensor([[-0.3], [0.7]])
    found = dgm.nll(Written(model), dgm.EmptyGuide(), x)
    exact = dist.Normal(0.0, 1.0).log_prob(x)[:, 0] + torch.tensor([0.75, 0.25]).log()
    torch.testing.assert_close(found.per_datum, -exact)
    assert (found.kind, found.measure) == ("exact", Measure.MIXED)
    with pytest.raises(
        ValueError,
        match=r"bits_per_dim: .*got the figure 'mass and density'.*Fix: the figure in nats",
    ):
        found.bits_per_dim(1)


# A guide that is a point mass ----------------------------------------------------------------------------------------


@in_float64
def test_the_joint_density_at_a_point_is_exact_and_no_bound(ppca):
    """log p(x, z*) = log p(x) + log p(z* | x), with the posterior's density at its mean, which is known."""
    model, exact, points, x = ppca
    found = dgm.nll(model, points, x, num=50)
    log_top = -exact.root.diagonal().log().sum() - log(2 * torch.pi)
    expected = -(model.log_evidence(x) + log_top)
    torch.testing.assert_close(found.per_datum, expected.detach(), rtol=1e-9, atol=1e-9)
    assert found.mean < dgm.nll(model, exact, x, num=50).mean - 5
    assert (found.kind, found.measure) == ("no bound", Measure.JOINT)


ROADS = {
    "bits_per_dim": (
        lambda m, g, x: dgm.nll(m, g, x, num=9).bits_per_dim(4),
        "bits_per_dim: .*joint",
    ),
    "surgery": (lambda m, g, x: dgm.surgery(m, g, x, num=60), r"surgery: .*point mass .* \['z'\]"),
    "unit_kl": (lambda m, g, x: dgm.unit_kl(m, g, x), r"unit_kl: .*point mass"),
    "collapse": (lambda m, g, x: dgm.collapse(m, g, x), r"unit_kl: .*point mass"),
    "ais": (lambda m, g, x: dgm.ais(m, x, start=g, steps=2), r"start: .*point mass"),
    "bdmc": (
        lambda m, g, x: dgm.bdmc(m, num_data=3, start=g, steps=2),
        r"start: .*point mass",
    ),
    "gaps": (
        lambda m, g, x: dgm.gaps(m, g, x, num_steps=1),
        r"site 'z': expected a density.*got Delta",
    ),
    "marginal_nll": (
        lambda m, g, x: dgm.marginal_nll(m, g, x, observed=torch.arange(4) < 2, num=9),
        r"marginal_nll: .*point mass",
    ),
    "resampled": (
        lambda m, g, x: dgm.to_arviz(m, g, x, num=9, resampled=True),
        r"resampled=True: .*point mass",
    ),
}


@pytest.mark.parametrize("road", ROADS)
def test_every_road_refuses_a_point_mass_by_name_with_the_fix(ppca, road):
    model, _, points, x = ppca
    call, match = ROADS[road]
    with pytest.raises(ValueError, match=f"(?s){match}.*Fix: "):
        call(model, points, x)


def test_a_joint_density_is_compared_with_nothing_not_even_its_like(ppca):
    model, exact, points, x = ppca
    joint, bound = dgm.nll(model, points, x, num=9), dgm.nll(model, exact, x, num=9)
    for results in ({"map": joint, "vi": bound}, {"map": joint, "again": joint}):
        with pytest.raises(ValueError, match=r"'map': joint density at a point.*Fix: a guide with"):
            dgm.compare_elpd(results)
    with pytest.raises(ValueError, match=r"compare_samples: .*'two': joint density at a point"):
        dgm.compare_samples(
            {"one": x, "two": x}, train=x, test=x, nll={"one": bound, "two": joint}, k=1
        )


def test_the_export_of_a_point_mass_has_no_elbo_and_says_what_it_has(ppca):
    model, exact, points, x = ppca
    found = dgm.to_arviz(model, points, x, num=9)
    about = found["per_datum"]
    names = set(about.dataset.data_vars if hasattr(about, "dataset") else about.data_vars)
    assert names == {"log_joint"}
    assert about.attrs["kind of -log_p"] == "no bound"
    assert about.attrs["measure of p"] == "joint density at a point"
    usual = dgm.to_arviz(model, exact, x, num=9)
    assert usual["per_datum"].attrs["measure of p"] == "density"
    assert usual["log_likelihood"].attrs["measure of p"] == "density"
    assert "elbo" in usual["per_datum"]


def test_a_report_warns_of_a_point_mass_and_passes_nothing_that_needs_a_density(ppca):
    model, exact, points, x = ppca
    options = {"num": 30, "limit": 60, "num_simulated": 60}
    report = dgm.check(model, points, x, **options)
    assert report["data and sites"].status.value == "WARN"
    assert "point mass at ['z']" in report["data and sites"].advice
    for name in ("NLL-ELBO gap", "k-hat", "importance ESS", "mutual information", "active units"):
        assert report[name].status.value == "SKIP"
        assert "point mass" in report[name].finding
    right = dgm.check(model, exact, x, **options)["data and sites"]
    assert right.status.value == "PASS"
    assert right.finding.endswith("p(x) is a density")


def test_a_report_warns_of_a_density_on_levels():
    report = dgm.check(Fitted(0.5), dgm.EmptyGuide(), INTEGERS, num=2, num_simulated=20)
    assert report["data and sites"].status.value == "WARN"
    assert "dequantized(model)" in report["data and sites"].advice


@pytest.mark.parametrize("objective", [dgm.ELBO, dgm.IWELBO])
def test_objectives_name_their_bound_by_its_kind(ppca, objective):
    model, exact, points, x = ppca
    assert "nelbo" in objective(model, exact).terms(x)
    terms = objective(model, points).terms(x)
    assert "nelbo" not in terms
    expected = dgm.nll(model, points, x, num=2).mean
    assert terms["njoint"].item() == pytest.approx(expected, rel=1e-6)


def test_a_point_mass_is_trained_by_its_joint_density(ppca):
    """Validation compares epochs by it, as it compares bounds."""
    model, _, _, x = ppca
    guide = dgm.AmortizedGuide(dgm.Deterministic(dgm.mlp(4, 2)))
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide), lr=1e-3)
    trainer.fit(x, x, epochs=2, batch_size=60)
    assert "val_njoint" in trainer.history.names
    assert trainer.best["metric"] == "val_njoint" or trainer.best[
        "value"
    ] in trainer.history.column("val_njoint")


# Figures that the user gives -----------------------------------------------------------------------------------------


def test_a_given_figure_is_compared_once_its_measure_is_stated(ppca):
    model, exact, _, x = ppca
    bound = dgm.nll(model, exact, x, num=9)
    per_datum = -model.log_evidence(x).detach()
    with pytest.raises(
        ValueError, match=r"'truth': unstated.*GivenNLL\(per_datum, measure='density'\)"
    ):
        dgm.compare_elpd({"vi": bound, "truth": dgm.results.GivenNLL(per_datum)})
    given = dgm.results.GivenNLL(per_datum, measure="density")
    assert str(given).endswith("nats per datum (density, exact; 60 data)")
    assert (
        dgm.compare_elpd({"vi": bound, "truth": given})["nll_measure"].to_list() == ["density"] * 2
    )
    other = dgm.results.GivenNLL(per_datum + 1)
    assert len(dgm.compare_elpd({"a": dgm.results.GivenNLL(per_datum), "b": other})) == 2
    with pytest.raises(ValueError, match=r"gaps: .*'the pair': density, 'truth': mass"):
        dgm.gaps(model, exact, x, truth=dgm.results.GivenNLL(per_datum.abs(), measure="mass"))


def test_a_given_mass_is_not_negative():
    with pytest.raises(ValueError, match="expected -log P"):
        dgm.results.GivenNLL(torch.full((9,), -4.0), measure="mass")
    with pytest.raises(ValueError, match="measure: expected one of"):
        dgm.results.GivenNLL(torch.zeros(9), measure="probability")


# What no likelihood can be -------------------------------------------------------------------------------------------


class Doubled(dist.Bernoulli):
    """Masses that sum to two."""

    def log_prob(self, value):
        return super().log_prob(value) + log(2)

    def expand(self, batch_shape, _instance=None):
        return Doubled(logits=self.logits.expand(batch_shape))


class Improper(dist.Normal):
    """A density that integrates to e^3."""

    def log_prob(self, value):
        return super().log_prob(value) + 3

    def expand(self, batch_shape, _instance=None):
        return Improper(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


def test_masses_beyond_one_are_refused():
    def model(_, x):
        with dgm.data_plate(x):
            pyro.sample("x", Doubled(logits=torch.full((2,), 9.0)).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"expected masses of discrete data, at most 1, got log P"):
        dgm.nll(Written(model), dgm.EmptyGuide(), torch.ones(5, 2))


def improper_pair():
    def model(_, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", Improper(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(_, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))

    return Written(model), Written(guide), torch.randn(40, 2)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda *pair: dgm.nll(*pair, num=30), r"nll: expected KL\(q \|\| p\) >= 0, got -"),
        (lambda *pair: dgm.surgery(*pair, num=400), r"surgery, KL: expected KL\(q \|\| p\) >= 0"),
        (dgm.unit_kl, r"site 'z', unit \d: expected KL\(q \|\| p\) >= 0"),
    ],
)
def test_a_kl_that_is_negative_beyond_its_error_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(*improper_pair())


# Errors that can be read ---------------------------------------------------------------------------------------------


@in_float64
def test_an_estimate_that_is_far_off_has_no_error_and_says_so():
    """By the formula it is at most 1 nat, and here the figure is tens of nats off."""
    model = LinearGaussian(latent=2, observed=4, scale=0.1)
    x = model.data(5)
    found = dgm.nll(model, ExactGuide(model, shift=0.5), x, num=1000)
    assert (found.per_datum + model.log_evidence(x)).min() > 10
    assert found.monte_carlo.isnan().all()
    assert "100% of the data with k-hat > 0.67: no Monte Carlo error there" in str(found)
    right = dgm.nll(model, ExactGuide(model, spread=1.1), x, num=1000)
    assert (right.monte_carlo > 0).all()
    assert str(right).endswith("0% of the data with k-hat > 0.67)")


def test_fewer_draws_than_a_khat_takes_have_no_error():
    model = LinearGaussian()
    found = dgm.nll(model, ExactGuide(model, spread=1.3), model.data(4), num=20)
    assert found.monte_carlo.isnan().all()
    assert "no k-hat below 21 draws" in str(found)


@in_float64
def test_chains_say_for_how_many_data_their_weights_are_too_uneven():
    model = LinearGaussian(latent=2, observed=4, scale=0.05)
    x = model.data(4)
    hasty = dgm.ais(model, x, num=16, steps=2)
    assert hasty.monte_carlo.isnan().all()
    assert hasty.share_unreliable == 1
    assert "100% of the data with an ESS below 4: no Monte Carlo error there" in str(hasty)
    start = ExactGuide(model)
    patient = dgm.ais(model, x, num=16, steps=2, start=start)
    assert (patient.monte_carlo < 1e-6).all()
    assert str(patient).endswith("no datum with an ESS below 4)")
    both = dgm.bdmc(model, num_data=4, num=8, steps=2)
    assert both.lower_error.isnan().any()
    assert (both.lower_ess >= 1 - 1e-9).all()
    assert "of the data with an ESS below 4" in str(both)
    assert "(density; 8 chains x 2 temperatures each way" in str(both)


def test_one_datum_has_no_standard_error_and_says_so():
    model = LinearGaussian()
    found = dgm.nll(model, ExactGuide(model), model.data(1), num=50)
    assert "; 1 datum, no standard error, 50 draws" in str(found)
    assert "±" not in str(found)
    assert "no standard error" in str(found.bits_per_dim(4, spacing=1e-6))
    assert "nan" not in f"{found} {found.bits_per_dim(4, spacing=1e-6)}"


# Ties of rounding ----------------------------------------------------------------------------------------------------


SIZES = [(1, 1000, 0.7), (2, 2000, 0.7), (3, 6000, 0.7)]


def in_float32(latent, observed, scale, **options):
    """A model and its exact guide, made in float64 and rounded: |log p| is about as large as there are dims."""
    model = LinearGaussian(latent, observed, scale).double()
    guide = ExactGuide(model, **options)
    return model.float(), guide.float(), model.data(6)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("num", [25, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_the_ties_of_rounding_of_an_exact_guide_are_no_tail(dtype, size, num):
    """Log weights of an exact guide differ in the last bits of log densities of thousands of nats."""
    model, guide, x = in_float32(*size)
    found = dgm.nll(model, guide, x, num=num, chunk=6000)
    assert 300 < found.per_datum.abs().mean() < 3e4
    assert (found.khat == -torch.inf).all()
    assert found.share_unreliable == 0
    assert (found.monte_carlo < 1e-3).all()


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("size", SIZES)
def test_a_bad_guide_of_large_densities_is_still_flagged(dtype, size):
    model, guide, x = in_float32(*size, spread=0.3)
    found = dgm.nll(model, guide, x, num=1000, chunk=6000)
    assert found.share_unreliable > 0.8


def test_weights_whose_largest_tie_have_no_tail():
    """As those of a discrete latent of two values; four above all others are too few to say."""
    log_w = torch.zeros(1000, 3)
    log_w[:300, 0] = 2.0
    log_w[:4, 1] = 2.0
    log_w[:, 2] = torch.randn(1000) * 4
    found = dgm.khat(log_w)
    assert found[0] == -torch.inf
    assert found[1] == torch.inf
    assert found[2].isfinite()


def test_khat_is_that_of_weights_beyond_their_rounding():
    log_w = torch.randn(1000, 2) * torch.tensor([1e-4, 1.0])
    rounding = torch.tensor([0.01, 0.01])
    assert (dgm.khat(log_w).isfinite()).all()
    assert dgm.khat(log_w, rounding).tolist()[0] == -torch.inf
    assert dgm.khat(log_w, rounding)[1] == dgm.khat(log_w)[1]
