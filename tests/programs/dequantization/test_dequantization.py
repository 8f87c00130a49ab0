"""Dequantization: bounds against known bin masses, noise inside its cell, generation, and what is refused."""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import AffineTransform, CumulativeDistributionTransform, SigmoidTransform

import pyro_dgm as dgm
from pyro_dgm.programs.dequantization.noise import UnitCube

LAWS = {
    "normal": lambda: dist.Normal(torch.tensor([2.3]), torch.tensor([1.1])),
    "narrow": lambda: dist.Normal(torch.tensor([2.45]), torch.tensor([0.3])),
    "laplace": lambda: dist.Laplace(torch.tensor([1.8]), torch.tensor([0.7])),
    "log_normal": lambda: dist.LogNormal(torch.tensor([0.6]), torch.tensor([0.8])),
}


class Law(dgm.Program):
    """A fixed one-dimensional law of v."""

    def __init__(self, law: dist.TorchDistribution):
        super().__init__()
        self.law = law

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            return pyro.sample("x", self.law.to_event(1), obs=x)

    def log_mass(self, x: Tensor) -> Tensor:
        """Log mass of the cell above each integer, exact."""
        return (self.law.cdf(x + 1.0) - self.law.cdf(x * 1.0)).log().squeeze(-1)


def variational(dim: int, hidden: int = 32) -> nn.Module:
    """A conditional flow onto the unit cube that starts near uniform noise."""
    end = dgm.Pointwise(SigmoidTransform())
    layers = dgm.spline_iaf(dim, 1, dim, (hidden,)), dgm.iaf(dim, 1, dim, (hidden,))
    return dgm.Flow(dgm.UnitUniform(), [dgm.Inverse(end), *layers, end])


class Exact(dgm.Program):
    r"""$q(u \mid x) = p(x + u) / P(x)$, by inversion of the CDF."""

    def __init__(self, law: dist.TorchDistribution):
        super().__init__()
        self.law = law

    def forward(self, x: Tensor | None = None) -> Tensor:
        low, high = self.law.cdf(x * 1.0), self.law.cdf(x + 1.0)
        cut = AffineTransform(low, high - low)
        inverse_cdf = CumulativeDistributionTransform(self.law).inv
        with dgm.data_plate(x):
            law = dist.TransformedDistribution(
                dist.Uniform(torch.zeros_like(low), 1.0),
                [cut, inverse_cdf, AffineTransform(-x * 1.0, 1.0)],
            )
            return pyro.sample("x_noise", law.to_event(1))


@in_float64
@pytest.mark.parametrize("make", list(LAWS.values()), ids=list(LAWS))
@pytest.mark.slow
def test_uniform_below_fitted_variational_below_importance_weighted_below_exact(make):
    """Every step of the chain within 5 standard errors; fitting closes three quarters of the gap."""
    program = Law(make())
    x = torch.arange(5)[:, None]
    model, exact = dgm.dequantized(program), program.log_mass(x)
    flow = dgm.NoiseGuide(variational(1))
    data = x.repeat(200, 1)
    trainer = dgm.SVITrainer(dgm.ELBO(model, flow), lr=2e-2)
    trainer.fit(data, epochs=75, batch_size=250, progress=False)
    uniform = dgm.nll(model, dgm.NoiseGuide(dgm.UnitUniform()), data[:100], num=4000)
    fitted = dgm.nll(model, flow, data[:100], num=4000, seed=1)
    chain = [-uniform.nelbo, -fitted.nelbo, -fitted.per_datum]
    means = [v.reshape(20, 5).mean() for v in chain]
    errors = [v.reshape(20, 5).std(0).mean() / 100**0.5 for v in chain]
    for i in range(2):
        assert means[i + 1] - means[i] > -5 * (errors[i] + errors[i + 1])
    assert means[2] - exact.mean() < 5 * errors[2]
    assert float(exact.mean() - means[1]) < 0.25 * float(exact.mean() - means[0])
    assert float(means[1] - means[0]) > 5 * float(errors[0] + errors[1])
    assert uniform.kind == fitted.kind == "upper bound in expectation"


@in_float64
@pytest.mark.parametrize("make", list(LAWS.values()), ids=list(LAWS))
def test_twenty_thousand_uniform_draws_are_within_a_hundredth_of_a_nat_of_the_exact_mass(make):
    program = Law(make())
    x = torch.arange(1, 5)[:, None]
    estimate = dgm.nll(dgm.dequantized(program), dgm.NoiseGuide(dgm.UnitUniform()), x, num=20_000)
    gap = (-estimate.per_datum - program.log_mass(x)).abs()
    assert bool((gap < 5 * estimate.monte_carlo + 1e-12).all())
    assert float((-estimate.per_datum - program.log_mass(x)).mean().abs()) < 0.01


@in_float64
@pytest.mark.parametrize("make", list(LAWS.values()), ids=list(LAWS))
def test_the_bound_is_tight_for_noise_in_proportion_to_the_density(make):
    program, x = Law(make()), torch.arange(1, 5)[:, None]
    particles = dgm.draw(dgm.dequantized(program), Exact(program.law), x, num=50)
    torch.testing.assert_close(
        particles.log_weight, program.log_mass(x).expand(50, 4), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32])
def test_the_floor_of_ten_million_noisy_levels_is_the_level(kind):
    x = torch.arange(256, dtype=kind).repeat(40_000)[:10_000_000]
    u = dgm.UnitUniform()(torch.zeros(len(x), 1, dtype=torch.float32)).sample().squeeze(-1)
    assert u.dtype == torch.float32
    assert bool((dgm.distributions.within_cell(x, u).floor() == x).all())


def test_the_ends_of_the_cell_are_kept_at_every_magnitude():
    x = torch.tensor([-70_000.0, -2.0, -1.0, 0.0, 1.0, 255.0, 1_000_000.0])
    for u in (0.0, torch.finfo().tiny, 0.5, 1 - 2**-24, 1.0):
        assert torch.equal(dgm.distributions.within_cell(x, torch.full_like(x, u)).floor(), x)


def test_the_gradient_of_the_noise_passes_through():
    u = torch.rand(5, requires_grad=True)
    dgm.distributions.within_cell(torch.arange(5), u).sum().backward()
    assert torch.equal(u.grad, torch.ones(5))


@in_float64
def test_the_unit_cube_has_density_one_and_none_outside():
    cube = UnitCube((2,), torch.zeros(()), (3,))
    assert torch.equal(
        cube.log_prob(torch.tensor([[0.0, 1.0], [0.3, 0.7], [0.5, 0.5]])), torch.zeros(3)
    )
    assert bool((cube.log_prob(torch.tensor([[0.2, 1.1]])) == -torch.inf).all())
    draws = cube.sample((5000,))
    assert float((draws.mean((0, 1)) - 0.5).abs().max()) < 5 / (12 * 15_000) ** 0.5
    assert cube.expand((4, 3)).sample().shape == (4, 3, 2)


def test_a_draw_of_zero_does_not_outweigh_all_others(monkeypatch):
    """torch draws an exact 0 once in 16 million times; a flow that halves logits would give it the weight e⁴⁰."""
    monkeypatch.setattr(torch, "rand", torch.zeros)
    end, half = dgm.Pointwise(SigmoidTransform()), dgm.Pointwise(AffineTransform(0.0, 0.5))
    guide = dgm.NoiseGuide(dgm.Flow(dgm.UnitUniform(1), [dgm.Inverse(end), half, end]))
    particles = dgm.draw(dgm.dequantized(Law(LAWS["normal"]())), guide, torch.tensor([[2]]), num=3)
    assert bool((particles.values["x_noise"] > 0).all())
    # Its weight times its probability, one in 2 / eps, is far below 1.
    assert float(particles.log_weight.max()) < 0.6 * log(
        2 / torch.finfo(torch.get_default_dtype()).eps
    )


@both_dtypes
def test_generation_yields_integers_and_the_noise_that_belongs_to_them(dtype):
    """The levels have the masses, and x + x_noise has the density, of v."""
    law = dist.Normal(torch.tensor([2.3]), torch.tensor([1.1]))
    model = dgm.dequantized(Law(law))
    x, u = (dgm.generate(model, 40_000, site=s).squeeze(-1) for s in ("x", "x_noise"))
    assert torch.equal(x, x.round())
    assert bool(((u >= 0) & (u < 1)).all())
    mass = Law(law).log_mass(torch.arange(6)[:, None]).exp()
    found = torch.stack([(x == level).double().mean() for level in range(6)])
    assert bool(((found - mass).abs() < 5 * (mass * (1 - mass) / 40_000).sqrt()).all())
    uniform = law.cdf(x + u).sort().values  # the probability integral transform of v
    grid = (torch.arange(40_000) + 0.5) / 40_000
    assert (
        float((uniform - grid).abs().max()) < 1.95 / 40_000**0.5
    )  # Kolmogorov-Smirnov, level 1e-3


@in_float64
def test_a_generated_trace_has_the_joint_density_of_level_and_noise():
    law = dist.Normal(torch.tensor([2.3]), torch.tensor([1.1]))
    trace = poutine.trace(dgm.dequantized(Law(law))).get_trace(None)
    x, u = trace.nodes["x"]["value"], trace.nodes["x_noise"]["value"]
    assert list(trace.nodes) == ["_INPUT", "data", "x_noise", "x", "_RETURN"]
    torch.testing.assert_close(trace.log_prob_sum(), law.log_prob(x + u).sum())


class Pair(dgm.Program):
    r"""Two discrete sites: $v \sim N(1, 1)$, and y with a density around it."""

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x, y):
            first = pyro.sample("x", dist.Normal(torch.ones(1), 1.0).to_event(1), obs=x)
            return (
                pyro.sample("y", dist.Normal(torch.zeros(2), 2.0).to_event(1), obs=y)
                if first is not None
                else first
            )


class PairNoise(dgm.Program):
    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> None:
        with dgm.data_plate(x, y):
            pyro.sample("x_noise", dgm.UnitUniform()(x))
            pyro.sample("y_noise", dgm.UnitUniform()(y))


@in_float64
def test_several_discrete_sites_have_a_noise_each():
    x, y = torch.arange(3)[:, None], torch.tensor([[0, 1], [-2, 0], [3, -1]])
    model = dgm.dequantized(Pair(), ("x", "y"))
    assert dgm.preflight(model, PairNoise(), x, y).latent == ("x_noise", "y_noise")
    estimate = dgm.nll(model, PairNoise(), x, y, num=20_000)
    one, two = dist.Normal(1.0, 1.0), dist.Normal(0.0, 2.0)
    exact = (one.cdf(x + 1.0) - one.cdf(x * 1.0)).log().sum(-1) + (
        two.cdf(y + 1.0) - two.cdf(y * 1.0)
    ).log().sum(-1)
    assert bool(((-estimate.per_datum - exact).abs() < 5 * estimate.monte_carlo).all())


def vae() -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 8, 2 * 2))
    return dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 8, 3)), encoder, variational(3))


@in_float64
def test_a_vae_with_latents_and_noise_is_scored_as_the_mass_that_its_decoder_has():
    """Its likelihood is normal, so that P(x | z) is a product of CDF differences: the same NLL by both roads."""
    model_and_guide = vae()
    x = torch.randint(0, 3, (6, 3))
    plain = model_and_guide.replace(
        likelihood=Cells(model_and_guide.generator.likelihood),
        dequantizer=None,
        encoder=model_and_guide.guide.encoder,
    )
    noisy = dgm.nll(model_and_guide.model, model_and_guide.guide, x, num=40_000)
    exact = dgm.nll(plain.model, plain.guide, x.double(), num=40_000)
    # Also where k-hat says that the errors are not to be read, and there are none.
    variances = [1 / found.ess - 1 / found.num for found in (noisy, exact)]
    error = (variances[0] + variances[1]).sqrt()
    assert bool(((noisy.per_datum - exact.per_datum).abs() < 5 * error).all())


class Cells(nn.Module):
    r"""$P(x \mid z) = F(x + 1) - F(x)$ of a normal likelihood: what dequantization bounds."""

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        law = self.likelihood(z).base_dist
        return LevelsOfNormal(law.loc, law.scale).to_event(1)


class LevelsOfNormal(dist.Normal):
    support = dist.constraints.integer

    def log_prob(self, value: Tensor) -> Tensor:
        return (self.cdf(value + 1) - self.cdf(value * 1.0)).log()


def test_the_generator_is_the_density_and_the_model_its_mass():
    made = vae()
    assert dgm.generate(made.model, 50).frac().count_nonzero() == 0
    assert dgm.generate(made.generator, 50).frac().count_nonzero() > 100
    assert set(made.parameters()) == {*made.model.parameters(), *made.guide.parameters()}


def test_a_vae_without_dequantizer_has_its_generator_as_its_model():
    plain = vae().replace(dequantizer=None)
    assert plain.model is plain.generator


def test_predictive_generates_levels():
    samples = pyro.infer.Predictive(
        dgm.dequantized(Law(LAWS["normal"]())), num_samples=30, parallel=True
    )(None)
    assert torch.equal(samples["x"], samples["x"].round())
    assert samples["x_noise"].shape == samples["x"].shape == (30, 1, 1)


def test_arviz_sees_the_noise_as_a_latent_and_levels_as_predictions():
    made = vae()
    idata = dgm.to_arviz(made.model, made.guide, torch.randint(0, 3, (4, 3)), num=5)
    assert set(idata.posterior) == {"z", "x_noise"}
    predicted = torch.as_tensor(idata.posterior_predictive["x"].values)
    assert torch.equal(predicted, predicted.round())


# What is refused -----------------------------------------------------------------------------------------------------

NOISY = dgm.NoiseGuide(dgm.UnitUniform())


@pytest.mark.parametrize(
    ("x", "levels", "message"),
    [
        (
            torch.arange(4)[:, None] + 0.5,
            None,
            "expected integer levels in Integer, got non-integers from 0.5 to 3.5",
        ),
        (
            torch.arange(4)[:, None],
            3,
            r"expected values in IntegerInterval\(lower_bound=0, upper_bound=2\), got from 0",
        ),
        (
            torch.zeros(4, 3),
            None,
            r"expected noise of the density's event shape \(1,\), got noise of shape \(4, 3\)",
        ),
    ],
)
def test_data_that_are_no_levels_of_the_density_are_refused(x, levels, message):
    with pytest.raises(ValueError, match=message):
        dgm.preflight(dgm.dequantized(Law(LAWS["normal"]()), levels=levels), NOISY, x)


def test_a_guide_without_the_noise_is_refused_by_preflight_and_by_estimates():
    model, x = dgm.dequantized(Law(LAWS["normal"]())), torch.zeros(3, 1)
    for refuse in (dgm.preflight, dgm.nll, dgm.to_arviz):
        with pytest.raises(
            ValueError,
            match=r"same latent sites.*Fix: NoiseGuide\(UnitUniform\(\)\).*'x' is dequantized",
        ):
            refuse(model, dgm.EmptyGuide(), x)


def test_noise_for_a_model_that_is_not_dequantized_is_refused():
    with pytest.raises(ValueError, match=r"Fix: dequantized\(model, 'x'\) in place of the model"):
        dgm.preflight(Law(LAWS["normal"]()), NOISY, torch.zeros(3, 1))


def test_a_dequantizer_that_leaves_the_unit_cell_is_refused():
    guide = dgm.NoiseGuide(dgm.Conditional(dist.Normal, nn.Linear(1, 2)))
    with pytest.raises(
        ValueError,
        match=r"site 'x_noise': expected draws of the guide in the model's Interval\(.*1.0\)",
    ):
        dgm.preflight(dgm.dequantized(Law(LAWS["normal"]())), guide, torch.zeros(50, 1))


def test_levels_given_their_noise_cannot_be_drawn():
    model = poutine.condition(
        dgm.dequantized(Law(LAWS["normal"]())), data={"x_noise": torch.full((1, 1), 0.5)}
    )
    with pytest.raises(
        ValueError, match=r"site 'x': expected its noise unknown.*Fix: pass x to the program"
    ):
        model(None)


def test_levels_set_from_outside_do_not_get_the_noise_of_others():
    """Inside, x is known when its noise is drawn, and all is well; outside, it comes after."""
    program, x = Law(LAWS["normal"]()), torch.ones(1, 1)
    outside = poutine.condition(dgm.dequantized(program), data={"x": x})
    with pytest.raises(
        ValueError,
        match=r"levels that were generated with this noise.*dequantized\(poutine.condition",
    ):
        poutine.trace(outside).get_trace(None).log_prob_sum()
    trace = poutine.trace(dgm.dequantized(poutine.condition(program, data={"x": x}))).get_trace(
        None
    )
    u = trace.nodes["x_noise"]["value"]
    torch.testing.assert_close(trace.log_prob_sum(), program.law.log_prob(x + u).sum())


@pytest.mark.parametrize("levels", [None, 4])
def test_generated_levels_beyond_known_ones_become_the_edge_levels(levels):
    model = dgm.dequantized(dgm.DensityModel(dgm.StandardNormal(3)), levels=levels)
    x, u = (dgm.generate(model, 2000, site=s) for s in ("x", "x_noise"))
    assert bool(((u >= 0) & (u <= 1)).all())
    assert float(x.min()) == 0 if levels else float(x.min()) < -1
    predicted = poutine.trace(model).get_trace(torch.zeros(500, 3)).nodes["x"]["fn"].sample()
    assert float(predicted.min()) == 0 if levels else float(predicted.min()) < -1


def test_a_site_that_the_model_does_not_have_is_refused():
    with pytest.raises(
        ValueError, match=r"dequantized: expected a model with the sites \['X'\], got one without"
    ):
        dgm.dequantized(Law(LAWS["normal"]()), "X")(torch.zeros(3, 1))


def test_a_mass_function_needs_no_noise():
    made = vae().replace(likelihood=dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=3))
    for refuse in (dgm.preflight, dgm.nll):
        with pytest.raises(
            ValueError, match=r"site 'x': expected the density.*a mass function.*Fix: leave out"
        ):
            refuse(made.model, made.guide, torch.zeros(4, 3))


@pytest.mark.parametrize("num", [5, 7])
def test_noise_without_the_shape_of_images_is_refused_with_the_shape(num):
    model = dgm.dequantized(dgm.DensityModel(dgm.StandardNormal((1, 5, 5))))
    with pytest.raises(ValueError, match=r"Fix: UnitUniform\(\(1, 5, 5\)\)"):
        dgm.preflight(model, NOISY, torch.zeros(num, 1, 5, 5))


def test_a_reconstruction_of_noisy_levels_says_what_it_lacks():
    made = vae()
    with pytest.raises(
        NotImplementedError,
        match=r"site 'x': expected a distribution that has a mean, got Quantized.*Fix: draws of it",
    ):
        dgm.reconstruct(made.model, made.guide, torch.zeros(4, 3))


def test_a_noise_guide_explains_data():
    with pytest.raises(ValueError, match=r"NoiseGuide: expected data x, got None"):
        NOISY(None)


def test_noise_of_images_has_three_event_dims():
    law = dgm.UnitUniform((1, 2, 2))(torch.zeros(5, 1, 2, 2))
    assert (law.batch_shape, law.event_shape) == ((5,), (1, 2, 2))
    assert dgm.UnitUniform(3)(torch.zeros(5, 7)).event_shape == (3,)


# Errors of a newcomer ------------------------------------------------------------------------------------------------


def pixels(levels: int = 17) -> dgm.DensityModel:
    return dgm.DensityModel(
        dgm.Flow(dgm.StandardNormal(4), [*dgm.realnvp(4, layers=2), dgm.Levels(levels)])
    )


def digits(low: int = 0) -> torch.Tensor:
    return (torch.arange(20 * 4) % 17 + low).reshape(20, 4).to(torch.get_default_dtype())


def noise_flow(*last: nn.Module) -> dgm.NoiseGuide:
    """A noise flow that starts in the cell; what it ends in decides whether it stays there."""
    layers = dgm.realnvp(4, layers=2, context=3)
    return dgm.NoiseGuide(dgm.Flow(dgm.UnitUniform(4), [*layers, *last], embed=nn.Linear(4, 3)))


def assert_refuses(refuse, model, guide, x, message, kind=ValueError):
    with pytest.raises(kind, match=message):
        refuse(model, guide, x)


BOTH = pytest.mark.parametrize("refuse", [dgm.preflight, dgm.nll])


@pytest.mark.parametrize("last", [(), (dgm.Levels(1, alpha=1e-5),)])
def test_a_noise_flow_without_a_cube_is_refused_before_it_is_trained(last):
    message = r"(?s)site 'x_noise'.*in the model's range 0 to 1, got one that reaches.*Fix:.*ends in Levels\(1\)"
    assert_refuses(dgm.preflight, dgm.dequantized(pixels()), noise_flow(*last), digits(), message)


def test_one_level_is_the_unit_cell_without_a_margin():
    dgm.preflight(dgm.dequantized(pixels()), noise_flow(dgm.Levels(1)), digits())
    assert dgm.Levels(1).alpha == 0 < dgm.Levels(2).alpha


@BOTH
def test_levels_beyond_those_of_the_density_are_refused_with_their_number(refuse):
    assert_refuses(
        refuse,
        dgm.dequantized(pixels(16)),
        NOISY,
        digits(),
        r"got from 0 to 16. Fix: levels=17 where.*Levels\(17\)",
    )
    shifted = r"got from -8 to 8. Fix: x - \(-8\) and levels=17"
    assert_refuses(refuse, dgm.dequantized(pixels()), NOISY, digits(-8), shifted)


@BOTH
def test_a_likelihood_with_too_few_outputs_says_how_many_each_dim_takes(refuse):
    made = vae().replace(
        likelihood=dgm.DiscretizedLogistic(dgm.mlp(2, 4), levels=17), dequantizer=None
    )
    message = r"shape \(2,\), got \(3,\).*as many outputs as \(3,\) needs:.*2 for a Normal or DiscretizedLogistic"
    assert_refuses(refuse, made.model, made.guide, torch.zeros(4, 3), message)


@BOTH
def test_missing_noise_beside_latents_is_offered_a_guide_that_draws_them_too(refuse):
    made = vae()
    message = (
        r"Fix: VAE\(…, dequantizer=UnitUniform\(\)\), AmortizedGuide\(encoder, UnitUniform\(\)\) or"
    )
    assert_refuses(
        refuse, made.model, dgm.AmortizedGuide(made.guide.encoder), torch.zeros(4, 3), message
    )


@BOTH
def test_noise_for_a_mass_function_with_latents_names_the_latents_as_well(refuse):
    made = vae().replace(
        likelihood=dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=3), dequantizer=None
    )
    message = (
        r"no dequantizer in the guide if it is a mass function; and draw \['z'\] in both programs"
    )
    assert_refuses(refuse, made.model, NOISY, torch.zeros(4, 3), message)


@BOTH
def test_a_model_is_dequantized_once(refuse):
    made = vae()
    message = r"site 'x': it is dequantized already. Fix:.*dequantized\(vae.generator, levels=…\)"
    assert_refuses(refuse, dgm.dequantized(made.model), made.guide, torch.zeros(4, 3), message)


@BOTH
def test_images_for_a_density_of_vectors_are_to_be_flattened(refuse):
    assert_refuses(
        refuse, dgm.dequantized(pixels()), NOISY, digits().reshape(-1, 2, 2), r"Fix: x.flatten\(1\)"
    )
    images = dgm.dequantized(dgm.DensityModel(dgm.StandardNormal((1, 2, 2))))
    assert_refuses(
        refuse,
        images,
        dgm.NoiseGuide(dgm.UnitUniform(4)),
        digits(),
        r"Fix: x.reshape\(len\(x\), \*\(1, 2, 2\)\)",
    )


@BOTH
def test_one_datum_needs_a_batch_dim(refuse):
    assert_refuses(refuse, dgm.dequantized(pixels()), NOISY, digits()[0], r"Fix: x\[None\]")


class Unannotated(nn.Module):
    """A conditional that does not say what its forward returns."""

    def __init__(self):
        super().__init__()
        self.density = pixels().density

    def forward(self, *context):
        return self.density(*context)


@BOTH
def test_a_conditional_that_does_not_say_so_is_no_program_when_it_runs(refuse):
    assert_refuses(
        refuse,
        dgm.dequantized(Unannotated()),
        NOISY,
        digits(),
        r"Fix: dequantized\(DensityModel\(flow\)\)",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dgm.dequantized(pixels(), 17),
            r"name of a site, got 17. Fix: dequantized\(model, levels=17\)",
        ),
        (
            lambda: dgm.dequantized(vae()),
            r"got VAE, which has no forward. Fix: dequantized\(vae.generator\)",
        ),
        (
            lambda: dgm.dequantized(pixels().density),
            r"got the conditional Flow. Fix: dequantized\(DensityModel\(flow\)\)",
        ),
        (
            lambda: dgm.dequantized(17),
            r"dequantized: expected a program.*got int. Fix: dequantized\(vae.generator\)",
        ),
        (
            lambda: dgm.NoiseGuide(dist.Uniform(0.0, 1.0)),
            r"got the distribution Uniform.*Fix: dequantizer=UnitUniform\(\)",
        ),
        (
            lambda: dgm.ais(vae().model, vae().guide, digits()),
            r"got AmortizedGuide, a program too many.*ais\(model, x, start=guide\)",
        ),
    ],
)
def test_what_is_no_site_program_or_conditional_is_refused_by_name(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_context_that_no_layer_takes_asks_for_no_empty_network():
    guide = dgm.NoiseGuide(
        dgm.Flow(dgm.UnitUniform(4), [*dgm.realnvp(4, layers=2), dgm.Levels(1)], nn.Linear(4, 3))
    )
    assert_refuses(
        dgm.preflight,
        dgm.dequantized(pixels()),
        guide,
        digits(),
        r"size 0, got 3. Fix: context=3 in the stack\.",
    )


def test_integers_under_a_density_get_a_warning():
    with pytest.warns(
        dgm.diagnostics.IntegerWarning,
        match=r"site 'x': the data are integers, 0 to 16.*Fix: dequantized\(",
    ):
        dgm.preflight(pixels(), dgm.EmptyGuide(), digits())


def test_a_vae_knows_the_levels_of_its_data():
    made = dgm.VAE(
        vae().generator.prior,
        vae().generator.likelihood,
        vae().guide.encoder,
        dgm.UnitUniform(),
        levels=3,
    )
    assert made.replace().levels == 3
    assert made.model(None).max() <= 2
    assert_refuses(
        dgm.preflight,
        made.model,
        made.guide,
        torch.full((4, 3), 3.0),
        r"expected values in IntegerInterval.*upper_bound=2",
    )
    with pytest.raises(ValueError, match=r"VAE: expected a dequantizer with levels=3"):
        made.replace(dequantizer=None)


def test_the_representation_shows_the_settings():
    assert repr(dgm.UnitUniform()) == "UnitUniform()"
    assert repr(dgm.UnitUniform(4)) == "UnitUniform(4)"
    assert repr(dgm.UnitUniform((1, 2, 2))) == "UnitUniform((1, 2, 2))"
    assert dgm.NoiseGuide(dgm.UnitUniform(), size=9).extra_repr() == "size=9, observed='x'"
    assert dgm.dequantized(pixels(), levels=17).extra_repr() == "sites=('x',), levels=17"


def test_noise_without_dims_is_refused():
    with pytest.raises(ValueError, match=r"UnitUniform: expected shape >= 1, got 0\. Fix"):
        dgm.UnitUniform(0)
