"""What a likelihood measures, found from the distributions of the sites that made it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro.infer import autoguide
from toys import ExactGuide, LinearGaussian, Written

import pyro_dgm as dgm
from pyro_dgm.inference.run.traces import run_pair
from pyro_dgm.inference.sites.measure_checks import as_measure, require_one_measure
from pyro_dgm.inference.sites.measures import (
    Bound,
    Measure,
    measure_of,
    measure_of_distribution,
    point_sites,
)

HALF = torch.tensor(0.5)
WEIGHTS = dist.Categorical(torch.ones(2))


class Supportless(dist.Normal):
    """A distribution that does not know its support."""

    support = property(lambda self: (_ for _ in ()).throw(NotImplementedError))


MEASURES = {
    "Bernoulli": (lambda: dist.Bernoulli(HALF), Measure.MASS),
    "Poisson, masked": (lambda: dist.Poisson(HALF).mask(True), Measure.MASS),
    "Categorical, independent": (
        lambda: dist.Categorical(torch.ones(4, 3)).to_event(1),
        Measure.MASS,
    ),
    "zero-inflated Poisson": (lambda: dist.ZeroInflatedPoisson(HALF, gate=HALF), Measure.MASS),
    "mixture of Poissons": (
        lambda: dist.MixtureSameFamily(WEIGHTS, dist.Poisson(torch.ones(2))),
        Measure.MASS,
    ),
    "discretized": (
        lambda: dgm.distributions.Discretized(dist.Normal(HALF, HALF), 4),
        Measure.MASS,
    ),
    "Normal, expanded": (lambda: dist.Normal(HALF, HALF).expand([3]), Measure.DENSITY),
    "LogNormal": (lambda: dist.LogNormal(HALF, HALF), Measure.DENSITY),
    "Dirichlet": (lambda: dist.Dirichlet(torch.ones(3)), Measure.DENSITY),
    "mixture of Normals": (
        lambda: dist.MixtureSameFamily(WEIGHTS, dist.Normal(torch.ones(2), 1.0)),
        Measure.DENSITY,
    ),
    "Normal with an atom at 0": (
        lambda: dist.ZeroInflatedDistribution(dist.Normal(HALF, HALF), gate=HALF).mask(True),
        Measure.MIXED,
    ),
    "without a support": (lambda: Supportless(HALF, HALF), Measure.UNSTATED),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_distribution_measures_a_mass_a_density_or_both(name):
    build, expected = MEASURES[name]
    assert measure_of_distribution(build()) is expected


def observing(*sites):
    """The structure of a pair without latents that observes these distributions at 0.5, or at 1 where discrete."""

    def model(_, x):
        with dgm.data_plate(x):
            for i, distribution in enumerate(sites):
                value = (x > 0).to(x.dtype) if distribution.support.is_discrete else x
                pyro.sample(f"x{i}", distribution, obs=value)

    return dgm.preflight(Written(model), dgm.EmptyGuide(), torch.full((3,), 0.5), rules=())


def test_several_observed_sites_measure_what_all_of_them_do():
    mass, density = dist.Bernoulli(HALF), dist.Normal(HALF, HALF)
    assert observing(mass, mass).measure is Measure.MASS
    assert observing(density, density).measure is Measure.DENSITY
    assert observing(density, mass).measure is Measure.MIXED


def test_a_factor_and_a_deterministic_of_a_model_are_no_data():
    def run(_, x, extra):
        with dgm.data_plate(x):
            extra()
            pyro.sample("x", dist.Normal(HALF, HALF), obs=x)

    def measured(extra):
        pair = run_pair(lambda x: run(None, x, extra), dgm.EmptyGuide(), (torch.zeros(3),))
        return measure_of(pair.model_sites)

    assert measured(lambda: pyro.deterministic("f", torch.ones(3))) is Measure.DENSITY
    assert measured(lambda: pyro.factor("f", torch.ones(3))) is Measure.FACTOR


# Point masses --------------------------------------------------------------------------------------------------------


def guide_of(build):
    """A guide whose one site is made from the posterior mean."""

    def run(_, x):
        with dgm.data_plate(x):
            pyro.sample("z", build(0.5 * x[:, :2]))

    return Written(run)


def parts(z):
    """Two components at the same places, (N, 2, D) with the components in the middle."""
    return z[:, None].expand(-1, 2, -1)


POINTS = {
    "Delta": lambda z: dist.Delta(z, event_dim=1),
    "independent": lambda z: dist.Delta(z).to_event(1),
    "masked": lambda z: dist.Delta(z).to_event(1).mask(torch.ones(len(z), dtype=torch.bool)),
    "masked numbers": lambda z: (
        dist.Delta(z).mask(torch.ones_like(z, dtype=torch.bool)).to_event(1)
    ),
    "expanded": lambda z: dist.Delta(torch.full_like(z[:1], 0.5)).to_event(1).expand([len(z)]),
    "expanded mask": lambda z: (
        dist.Delta(torch.full_like(z[:1], 0.5)).to_event(1).mask(True).expand([len(z)])
    ),
    "transformed": lambda z: dist.TransformedDistribution(
        dist.Delta(z).to_event(1), [dist.transforms.AffineTransform(1.0, 2.0, event_dim=1)]
    ),
    "in a mixture": lambda z: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(len(z), 2)), dist.Delta(parts(z)).to_event(1)
    ),
    "in a mixture of two": lambda z: dist.MaskedMixture(
        torch.zeros(z.shape, dtype=torch.bool), dist.Normal(z, 1.0), dist.Delta(z)
    ).to_event(1),
    "an atom beside a density": lambda z: dist.ZeroInflatedDistribution(
        dist.Normal(z, 1.0), gate=HALF.expand(z.shape)
    ).to_event(1),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_point_mass_is_found_under_every_wrapper(name):
    model = LinearGaussian()
    pair = run_pair(model, guide_of(POINTS[name]), (torch.randn(5, 4),))
    assert point_sites(pair.guide_sites, pair.model_sites) == ("z",)


@pytest.mark.parametrize("name", [n for n in POINTS if "mixture" not in n and "atom" not in n])
@in_float64
def test_a_guide_that_is_a_point_mass_gives_the_joint_density_there_and_bounds_nothing(name):
    """log p(x, z*) = log p(x) + log p(z* | x), exactly, under whatever wrapper; here above log p(x) for all data."""
    torch.manual_seed(1)
    model = LinearGaussian(latent=2, observed=4, scale=0.1)
    exact, x = ExactGuide(model), model.data(5)
    found = dgm.nll(model, guide_of(POINTS[name]), x, num=30)
    z = 0.5 * x[:, :2]
    z = torch.full_like(z, 0.5) if "expanded" in name else z
    z = 1.0 + 2.0 * z if name == "transformed" else z
    mean = (x - exact.bias) @ exact.map.T
    posterior = dist.MultivariateNormal(mean, scale_tril=exact.root)
    log_joint = model.log_evidence(x) + posterior.log_prob(z)
    torch.testing.assert_close(found.per_datum, -log_joint.detach(), rtol=1e-8, atol=1e-8)
    assert found.kind == Bound.NONE == "no bound"
    assert found.measure is Measure.JOINT
    assert found.kl.isnan().all()
    assert str(found).startswith("-log p(x, z*) ")
    assert "(joint density at a point, no bound; 5 data)" in str(found)


def autoguide_points(make, model, x):
    guide = make(model)
    guide(x)
    pair = run_pair(model, guide, (x,))
    pyro.clear_param_store()  # AutoGuides keep their parameters there
    return point_sites(pair.guide_sites, pair.model_sites)


def simplex(_, x):
    """A latent with one free number less than it has numbers."""
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Dirichlet(torch.ones(3)))
        w = pyro.sample("w", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., :2] + w, 1.0).to_event(1), obs=x)


def halves(model):
    """One guide list: a density at z, a point at w."""
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(pyro.poutine.block(model, expose=["z"])))
    guide.append(autoguide.AutoDelta(pyro.poutine.block(model, expose=["w"])))
    return guide


@pytest.mark.parametrize(
    "make",
    [autoguide.AutoNormal, autoguide.AutoDiagonalNormal, autoguide.AutoLowRankMultivariateNormal],
)
def test_the_deltas_of_an_autoguide_carry_the_density_of_its_auxiliary_sites(make):
    assert autoguide_points(make, Written(simplex), torch.randn(4, 2)) == ()


def test_the_deltas_of_autodelta_are_points_also_in_a_list_beside_a_density():
    x = torch.randn(4, 2)
    assert autoguide_points(autoguide.AutoDelta, Written(simplex), x) == ("z", "w")
    assert "w" in autoguide_points(halves, Written(simplex), x)


def test_a_delta_at_a_discrete_latent_is_a_mass_and_its_figure_a_bound():
    """-log p(x, c*) >= -log p(x), as KL(q || p(c | x)) is finite."""

    def model(_, x):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.25, 0.75])))
            pyro.sample("x", dist.Normal(c.to(x.dtype), 1.0), obs=x)

    def guide(_, x):
        with dgm.data_plate(x):
            pyro.sample("c", dist.Delta((x > 0.5).long()))

    x = torch.tensor([0.2, 1.3])
    found = dgm.nll(Written(model), Written(guide), x, num=30)
    log_p = torch.stack([dist.Normal(c, 1.0).log_prob(x) for c in (0.0, 1.0)])
    log_joint = log_p + torch.tensor([[0.25], [0.75]]).log()
    expected = -torch.stack([log_joint[0, 0], log_joint[1, 1]])
    torch.testing.assert_close(found.per_datum, expected.double(), rtol=1e-6, atol=1e-6)
    assert (found.kind, found.measure) == (Bound.UPPER, Measure.DENSITY)


def test_the_same_delta_in_both_programs_is_no_variable():
    def model(_, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            y = pyro.sample("y", dist.Delta(2 * z))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    def guide(_, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(0.4 * x, 0.5))
            pyro.sample("y", dist.Delta(2 * z))

    x = torch.randn(3)
    pair = run_pair(Written(model), Written(guide), (x,))
    assert point_sites(pair.guide_sites, pair.model_sites) == ()
    found = dgm.nll(Written(model), Written(guide), x, num=4000)
    exact = -dist.Normal(0.0, 5**0.5).log_prob(x)
    assert ((found.per_datum - exact).abs() < 5 * (1 / found.ess - 1 / 4000).sqrt() + 1e-6).all()


# Words ---------------------------------------------------------------------------------------------------------------


def test_an_unknown_measure_raises_with_the_names():
    assert as_measure("mass") is Measure.MASS
    with pytest.raises(
        ValueError, match=r"measure: expected one of \['mass', .*got 'probability'.*Fix"
    ):
        as_measure("probability")


def test_measures_are_compared_by_what_they_are_of():
    require_one_measure("compare", {"a": Measure.DENSITY, "b": Measure.ON_LEVELS})
    with pytest.raises(
        ValueError, match=r"one measure, got 'a': mass, 'b': density on levels.*dequantized"
    ):
        require_one_measure("compare", {"a": Measure.MASS, "b": Measure.ON_LEVELS})
    with pytest.raises(
        ValueError, match=r"Fix: dgm\.results\.GivenNLL\(per_datum, measure='mass'\)"
    ):
        require_one_measure("compare", {"a": Measure.MASS, "b": Measure.UNSTATED})
    with pytest.raises(ValueError, match=r"'b': joint density at a point: .*net.. in place"):
        require_one_measure("compare", {"a": Measure.JOINT, "b": Measure.JOINT})


# Improper priors -----------------------------------------------------------------------------------------------------


class FlatPrior(dgm.Program):
    r"""$p(z) = 1$ on the plane, $x \sim N(z, 1)$: $\int p(x, z)\, dz = 1$ for every x."""

    def forward(self, x=None):
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (2,))
        with dgm.data_plate(x):
            z = pyro.sample("z", flat)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class Around(dgm.Program):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x, self.scale).to_event(1))


@in_float64
@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
def test_an_improper_prior_has_no_density_and_no_bound(scale):
    """A narrow guide was certified as a bound, and a wide one refused for its negative KL."""
    x = torch.linspace(-1, 1, 8).reshape(4, 2)
    found = dgm.nll(FlatPrior(), Around(scale), x, num=20)
    assert found.measure is Measure.IMPROPER
    assert found.kind == Bound.NONE
    assert found.kl.isnan().all()
    assert "(unnormalized, with an improper prior, no bound; 4 data" in str(found)
    if scale == 1.0:  # the exact posterior: every weight is the integral
        torch.testing.assert_close(found.per_datum, torch.zeros(4), rtol=0, atol=1e-12)


def test_figures_of_an_improper_prior_are_neither_compared_nor_taken_apart():
    x = torch.linspace(-1, 1, 8).reshape(4, 2)
    measures = {"a": Measure.IMPROPER, "b": Measure.IMPROPER}
    with pytest.raises(ValueError, match="compare: expected normalized figures, .* Fix: a prior"):
        require_one_measure("compare", measures)
    with pytest.raises(ValueError, match="surgery: expected a prior that integrates to one, .* Fi"):
        dgm.surgery(FlatPrior(), Around(1.0), x)
    with pytest.raises(ValueError, match="no probability of the data. Fix: a prior that integra"):
        dgm.nll(FlatPrior(), Around(1.0), x, num=20).bits_per_dim(2)


def test_an_improper_observation_is_named_for_what_it_is():
    """Its event shape is a plain tuple, on which a method of `torch.Size` fails."""

    def model(_, x):
        with dgm.data_plate(x):
            pyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (2,)), obs=x)

    found = dgm.nll(Written(model), dgm.EmptyGuide(), torch.randn(4, 2))
    assert found.measure is Measure.IMPROPER
    assert found.kind == Bound.NONE
    assert found.mean == 0


# Masks ---------------------------------------------------------------------------------------------------------------


def observing_under(least, *, by_handler=True, distribution=None):
    """A model of the `x` that are at least so large, by a handler or by the distribution."""
    law = distribution or dist.Normal(0.0, 1.0)

    def model(_, x):
        with dgm.data_plate(x):
            if by_handler:
                with pyro.poutine.mask(mask=x >= least):
                    return pyro.sample("x", law, obs=x)
            return pyro.sample("x", law.expand([len(x)]).mask(x >= least), obs=x)

    return Written(model)


@pytest.mark.parametrize("by_handler", [True, False])
def test_a_figure_under_a_mask_says_so_and_is_not_compared_with_one_without(by_handler):
    x = torch.linspace(-1.0, 1.3, 6)
    found = {}
    for name, least in {"whole": -2.0, "part": 0.1}.items():
        model = observing_under(least, by_handler=by_handler)
        found[name] = dgm.nll(model, dgm.EmptyGuide(), x)
    assert found["whole"].measure is Measure.DENSITY
    assert found["part"].measure is Measure.MASKED_DENSITY
    assert "(density, of data under a mask, exact; 6 data" in str(found["part"])
    with pytest.raises(
        ValueError, match="expected figures of one measure, .* Fix: the same mask, or"
    ):
        dgm.compare_elpd(found)
    twice = {"a": found["part"], "b": found["part"]}
    assert set(dgm.compare_elpd(twice)["nll_measure"]) == {Measure.MASKED_DENSITY.value}
    with pytest.raises(ValueError, match="no probability of the data. Fix: the figure in nats"):
        found["part"].bits_per_dim(1)


def test_a_mask_of_a_block_that_the_check_does_not_see_is_found():
    """The structure is that of the most extreme data; which data a mask hides, every block tells."""

    def model(_, x):
        with dgm.data_plate(x), pyro.poutine.mask(mask=x != 0.5):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.cat([torch.linspace(-3.0, 2.9, 60), torch.tensor([0.5])])
    found = dgm.nll(Written(model), dgm.EmptyGuide(), x, chunk=10)
    assert found.measure is Measure.MASKED_DENSITY


def test_a_mass_under_a_mask_is_one_and_a_factor_stays_what_it_is():
    assert Measure.MASS.masked is Measure.MASKED_MASS
    assert Measure.FACTOR.masked is Measure.FACTOR
    bits = observing_under(0.5, distribution=dist.Bernoulli(HALF))
    found = dgm.nll(bits, dgm.EmptyGuide(), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert found.measure is Measure.MASKED_MASS


def test_a_laplace_guide_is_a_point_until_it_has_made_its_approximation():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(5)
    guide = autoguide.AutoLaplaceApproximation(model)
    assert dgm.evidence(model, guide, x, num=30).measure is Measure.JOINT
    made = guide.laplace_approximation(x)
    exact = dist.MultivariateNormal(torch.zeros(5), torch.eye(5) + 1).log_prob(x).item()
    found = dgm.evidence(model, made, x, num=4000)
    assert found.measure is Measure.DENSITY
    assert found.value == pytest.approx(exact, abs=0.2)
    pyro.clear_param_store()
