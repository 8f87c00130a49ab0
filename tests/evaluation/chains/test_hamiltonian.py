"""Chains against exact posteriors: Gaussian, of one number by quadrature, on bounded supports, of two sites."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over, randomize
from conftest import in_float64
from one_number import LAWS, nodes, one_number, quadrature
from torch import nn
from toys import ExactGuide, Series, Written, linear_gaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.evaluation.chains.coordinates import Posterior
from pyro_dgm.evaluation.chains.hamiltonian import draw_coordinates
from pyro_dgm.evaluation.chains.transitions import by_autograd, transition

SMALL = {"num": 400, "warmup": 200, "leapfrog": 5}


def assert_moments(draws, mean, variance):
    """First and second moment of `(chains, draws, *rest)` within 5 standard errors, from their own ESS."""
    for found, expected in ((draws, mean), ((draws - mean).square(), variance)):
        error = found.flatten(0, 1).std(0) / dgm.diagnostics.mean_ess(found).sqrt()
        assert ((found.mean((0, 1)) - expected).abs() < 5 * error).all()
        assert (error < 0.25 * variance.sqrt().clamp(min=variance)).all()  # the check can fail


@in_float64
def test_moments_of_a_linear_gaussian_model_are_those_of_its_posterior():
    model, guide, x = linear_gaussian()
    found = dgm.hmc(model, x, **SMALL)
    assert found.draws["z"].shape == (4, 400, 6, 2)
    mean = (x - guide.bias) @ guide.map.T
    variance = (guide.root @ guide.root.T).diagonal().expand(6, 2)
    assert_moments(found.draws["z"], mean.detach(), variance)
    assert found.worst_rhat < 1.05
    assert found.least_ess > 400
    assert ((found.acceptance - 0.8).abs() < 0.12).all()
    posterior = dist.MultivariateNormal(mean, scale_tril=guide.root)
    expected = posterior.log_prob(found.draws["z"]) + model.log_evidence(x)
    torch.testing.assert_close(found.log_joint, expected.detach())


@pytest.mark.slow
@pytest.mark.parametrize(("law", "bounds"), LAWS.values(), ids=LAWS)
def test_moments_of_one_number_are_those_of_quadrature(law, bounds):
    x = torch.tensor([-0.3, 0.2, 0.9])
    _, mean, variance = quadrature(law, x, nodes(*bounds))
    found = dgm.hmc(one_number(law), x, **SMALL)
    assert_moments(found.draws["z"], mean, variance)
    assert found.worst_rhat < 1.05
    assert law().support.check(found.draws["z"]).all()


@pytest.mark.slow
def test_nuts_finds_the_same_moments_of_a_posterior_that_is_not_conjugate():
    """A second opinion: Pyro's NUTS on one datum, a bent normal latent beside a positive scale."""
    weight = torch.tensor([[1.5, 0.3], [-0.4, 1.2], [0.8, -0.9], [0.2, 0.6]])

    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            scale = pyro.sample("scale", dist.Gamma(3.0, 6.0))
            return pyro.sample(
                "x", dist.Normal((z @ weight.T).sinh(), scale[..., None]).to_event(1), obs=x
            )

    model, x = Written(run), torch.tensor([[1.2, -0.4, 0.9, 0.1]])
    chains = pyro.infer.MCMC(
        pyro.infer.NUTS(model, max_tree_depth=5),
        num_samples=400,
        warmup_steps=100,
        disable_progbar=True,
    )
    chains.run(x)
    nuts, found = chains.get_samples(), dgm.hmc(model, x, **SMALL).draws
    for name in ("z", "scale"):
        for power in (1, 2):
            ours, theirs = found[name].pow(power), nuts[name][None].pow(power)
            variance = [
                v.flatten(0, 1).var(0) / dgm.diagnostics.mean_ess(v) for v in (ours, theirs)
            ]
            error = (variance[0] + variance[1]).sqrt()
            assert ((ours.mean((0, 1)) - theirs.mean((0, 1))).abs() < 5 * error).all(), (
                name,
                power,
            )
            assert (error < 0.2 * theirs.flatten(0, 1).std(0)).all()  # the check can fail


@pytest.mark.slow
def test_a_start_at_the_guide_has_the_same_law():
    model, guide, x = linear_gaussian()
    found = dgm.hmc(model, x, start=ExactGuide(model, shift=1.0, spread=3.0), **SMALL)
    assert_moments(
        found.draws["z"],
        ((x - guide.bias) @ guide.map.T).detach(),
        (guide.root @ guide.root.T).diagonal().expand(6, 2),
    )


@pytest.mark.slow
def test_every_datum_finds_its_own_step_and_scale():
    """The scale of the noise is a covariate of the datum: posteriors 1000 times as narrow beside wide ones."""

    def run(program, x=None, scale=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample(
                "x", dist.Normal(z, scale[:, None] * torch.tensor([1.0, 0.1])).to_event(1), obs=x
            )

    model = Written(run)
    model.forward = lambda x=None, scale=None: run(model, x, scale)
    x, scale = torch.randn(3, 2), torch.tensor([1.0, 1e-1, 1e-3])
    found = dgm.hmc(model, x, scale, **SMALL)
    precision = 1 + 1 / (scale[:, None] * torch.tensor([1.0, 0.1])).square()
    assert_moments(found.draws["z"], x * (1 - 1 / precision), 1 / precision)
    assert found.worst_rhat < 1.05
    assert ((found.acceptance - 0.8).abs() < 0.12).all()


@pytest.mark.slow
def test_two_latents_of_a_stranger_have_their_joint_posterior():
    case = PAIRS["two_latents_bare"]()
    (x,) = case.batch(3)
    found = dgm.hmc(case.model, x, **SMALL)
    mean, variance = bare_posterior(case.model, x)
    assert_moments(torch.cat([found.draws["z2"], found.draws["z1"]], -1), mean, variance)


def bare_posterior(model, x):
    """Of (z2, z1) in the stranger's model, which is linear and Gaussian."""
    with torch.no_grad():
        a, c = model.middle.weight, model.bottom.weight
        prior_mean = torch.cat([torch.zeros(2), model.middle.bias])
        upper = torch.cat([torch.eye(2), a.T], 1)
        prior = torch.cat([upper, torch.cat([a, a @ a.T + 0.25 * torch.eye(3)], 1)])
        lift = torch.cat([torch.zeros(4, 2), c], 1)
        gain = prior @ lift.T @ (lift @ prior @ lift.T + 0.09 * torch.eye(4)).inverse()
        mean = prior_mean + (x - model.bottom.bias - prior_mean @ lift.T) @ gain.T
        return mean, (prior - gain @ lift @ prior).diagonal().expand(len(x), 5)


@pytest.mark.slow
def test_a_program_with_a_further_plate_has_its_posterior():
    model, x = Series(), torch.randn(4, 3)
    found = dgm.hmc(model, x, **SMALL)
    assert found.draws["u"].shape == (4, 400, 3, 4)
    assert found.draws["z"].shape == (4, 400, 4)
    assert found.rhat["u"].shape == found.ess["u"].shape == (3, 4)
    gain = torch.ones(3) @ (torch.ones(3, 3) + 1.25 * torch.eye(3)).inverse()
    mean, variance = (x - model.offset.detach()) @ gain, (1 - gain.sum()).expand(4)
    assert_moments(found.draws["z"], mean, variance)


@pytest.mark.slow
def test_a_latent_whose_support_hangs_on_another_stays_inside():
    def run(program, x=None):
        with dgm.data_plate(x):
            top = pyro.sample("top", dist.Gamma(3.0, 1.0))
            z = pyro.sample("z", dist.Uniform(torch.zeros(()), top))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    found = dgm.hmc(Written(run), torch.tensor([0.5, 2.0]), **SMALL)
    z, top = found.draws["z"], found.draws["top"]
    assert ((z > 0) & (z < top)).all()
    grid = torch.cartesian_prod(nodes(0, 20, 1000), nodes(0, 1, 500))
    place, high = grid[:, :1] * grid[:, 1:], grid[:, :1]  # z = top * v, dz = top dv
    weight = (
        dist.Gamma(3.0, 1.0).log_prob(high)
        + dist.Normal(place, 0.5).log_prob(torch.tensor([0.5, 2.0]))
    ).softmax(0)
    mean = (weight * place).sum(0)
    assert_moments(z, mean, (weight * place.square()).sum(0) - mean.square())


@pytest.mark.slow
def test_a_simplex_has_fewer_coordinates_than_numbers():
    """Dirichlet prior and multinomial counts: conjugate."""

    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
            return pyro.sample("x", dist.Multinomial(5, z, validate_args=False), obs=x)

    x = torch.tensor([[5.0, 0, 0], [1, 2, 2]])
    found = dgm.hmc(Written(run), x, **SMALL)
    exact = dist.Dirichlet(x + torch.tensor([1.0, 2.0, 3.0]))
    assert_moments(found.draws["z"], exact.mean, exact.variance)


# Coordinates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [True, False], ids=["white", "plain"])
@pytest.mark.parametrize(
    "name", [n for n in PAIRS if not n.startswith("density_") or n == "density_dequantized"]
)
def test_coordinates_of_every_pair_go_both_ways_and_have_the_density_of_the_model(name, whiten):
    case = PAIRS[name]()
    batch = case.batch(3)
    with torch.no_grad():
        posterior = Posterior(case.model, batch, whiten=whiten)
        values = posterior.draws_of(None, 2)
        zeta = posterior.coordinates(values, 2)
        point = posterior(zeta)
    assert zeta.shape[:2] == (2, 3)
    for site, value in values.items():
        torch.testing.assert_close(
            point.values[site], value.expand(point.values[site].shape), rtol=1e-6, atol=1e-6
        )
    known = pyro.poutine.condition(case.model, data=dict(point.values))
    with pyro.plate("chains", 2, dim=-(posterior.depth + 1)), torch.no_grad():
        trace = pyro.poutine.trace(known).get_trace(*batch)
    trace.compute_log_prob()
    expected = sum(trace.nodes[n]["unscaled_log_prob"].double() for n in trace.observation_nodes)
    torch.testing.assert_close(
        point.log_joint - point.log_det, expected.reshape(2, -1, 3).sum(1), rtol=1e-5, atol=1e-5
    )


@in_float64
@pytest.mark.parametrize("law", [*(law for law, _ in LAWS.values()), lambda: dist.Gumbel(0.5, 2.0)])
@pytest.mark.parametrize("whiten", [True, False], ids=["white", "plain"])
def test_the_log_determinant_is_that_of_autograd(law, whiten):
    with torch.no_grad():
        posterior = Posterior(one_number(law), (torch.zeros(5),), whiten=whiten)
        zeta = draw_coordinates(posterior, None, 3)
    zeta.requires_grad_()
    point = posterior(zeta)
    (slope,) = torch.autograd.grad(point.values["z"].sum(), zeta)
    torch.testing.assert_close(point.log_det, slope[..., 0].abs().log())
    torch.testing.assert_close(point.log_prior, law().log_prob(point.values["z"]) + point.log_det)


@in_float64
def test_a_flow_prior_is_whitened_into_its_base():
    vae = PAIRS["vae_flow"]()
    with torch.no_grad():
        posterior = Posterior(vae.model, vae.batch(2))
        zeta = torch.randn(7, 2, sum(p.shape[-1] for p in posterior.places.values()))
        point = posterior(zeta)
        expected = dist.Normal(0.0, 1.0).log_prob(zeta[..., posterior.places["z"].columns]).sum(-1)
    torch.testing.assert_close(point.log_prior, expected)


def test_a_relaxed_category_and_a_folded_normal_are_not_whitened():
    """The base of the first has a dimension too many, and the map of the second has no inverse."""

    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample(
                "z", dist.RelaxedOneHotCategorical(torch.tensor(0.7), torch.tensor([0.2, 0.3, 0.5]))
            )
            s = pyro.sample("s", dist.HalfNormal(1.0))
            return pyro.sample("x", dist.Normal(z[..., 0], s), obs=x)

    with torch.no_grad():
        posterior = Posterior(Written(run), (torch.zeros(2),))
    assert {name: place.shape for name, place in posterior.places.items()} == {"z": (2,), "s": ()}


@pytest.mark.slow
def test_a_masked_latent_has_its_prior():
    """A datum that is masked altogether: nothing is known of it, and its evidence is 1."""

    def run(program, x=None):
        with dgm.data_plate(x), pyro.poutine.mask(mask=torch.tensor([True, False])):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    found = dgm.hmc(Written(run), torch.tensor([2.0, 2.0]), **SMALL)
    assert_moments(found.draws["z"], torch.tensor([2 / 1.25, 0.0]), torch.tensor([0.2, 1.0]))


# The kernel ----------------------------------------------------------------------------------------------------------


def test_one_transition_leaves_the_law_invariant_at_any_step():
    """40,000 independent draws of a skew law, moved once with steps from tiny to far too long."""
    law = dist.Gumbel(0.0, 1.0)
    zeta = law.sample((40_000, 4, 1))
    step = torch.tensor([0.05, 0.5, 1.5, 4.0])[:, None]
    moved, accept = transition(by_autograd(lambda z: law.log_prob(z).sum(-1)), zeta, step, 3)
    assert accept[:, 0].mean() > 0.99
    assert accept[:, 3].mean() < 0.6
    level = law.cdf(moved[..., 0])
    for power in (1, 2, 3):
        error = level.pow(power).std(0) / 200
        assert ((level.pow(power).mean(0) - 1 / (1 + power)).abs() < 5 * error).all()


def test_a_trajectory_into_nan_is_refused():
    zeta = torch.zeros(50, 2, 1)
    density = by_autograd(lambda z: (1 - z.square().sum(-1)).log())
    moved, accept = transition(density, zeta, torch.full((2, 1), 5.0), 4)
    assert moved.isfinite().all()
    assert (moved.square() < 1).all()
    assert (accept == 0).any()


def test_a_start_without_density_is_left():
    zeta = torch.full((5, 1, 1), 2.0)
    density = by_autograd(lambda z: torch.where(z < 1, 0 * z, -torch.inf).sum(-1))
    moved, accept = transition(density, zeta, torch.full((1, 1), 2.0), 3)
    assert (accept[moved[..., 0] < 1] == 1).all()
    assert (moved < 1).any()


# Laws of estimates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over({n: b for n, b in PAIRS.items() if not n.startswith("density_")}))
def test_chains_of_every_pair_are_finite(build):
    case = build()
    batch = case.batch(2)
    found = dgm.hmc(
        randomize(case.model, 0.1), *batch, num=4, chains=2, warmup=4, leapfrog=2, whiten=False
    )
    expected = dgm.draw(case.model, case.guide, *batch, num=1).values
    assert set(found.draws) == set(expected)
    for name, value in found.draws.items():
        assert value.shape == (2, 4, *expected[name].shape[1:])
        assert value.isfinite().all()


@pytest.mark.slow
def test_the_blocks_of_data_change_the_noise_but_not_the_law():
    model, guide, x = linear_gaussian()
    mean, variance = (
        ((x - guide.bias) @ guide.map.T).detach(),
        (guide.root @ guide.root.T).diagonal().expand(6, 2),
    )
    found = dgm.hmc(model, x, chunk=9, **SMALL)
    assert found.draws["z"].shape == (4, 400, 6, 2)
    assert found.acceptance.shape == found.step_size.shape == (6,)
    assert_moments(found.draws["z"], mean, variance)


def test_it_leaves_seed_modes_and_gradients_alone():
    vae, x = toy_vae(), torch.randn(3, 3)
    before = torch.get_rng_state()
    first = dgm.hmc(vae.model, x, num=5, warmup=4, start=vae.guide)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert not first.draws["z"].requires_grad
    torch.rand(3)
    again, other = (dgm.hmc(vae.model, x, num=5, warmup=4, start=vae.guide, seed=s) for s in (0, 1))
    assert torch.equal(again.draws["z"], first.draws["z"])
    assert not torch.equal(other.draws["z"], first.draws["z"])


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_float32_stays_float32(dtype):
    model, _, x = linear_gaussian()
    found = dgm.hmc(model, x, num=5, warmup=4)
    assert found.draws["z"].dtype == dtype == torch.float32
    assert found.log_joint.dtype == found.rhat["z"].dtype == torch.float64


def test_the_summary_names_chains_and_the_worst_datum():
    model, _, x = linear_gaussian()
    text = str(dgm.hmc(model, x, num=5, warmup=4, chains=3))
    assert "3 chains x 5 draws of p(z | x) for 6 data, sites ['z']" in text
    assert "worst R-hat" in text


def test_chains_are_a_table_of_one_row_per_site():
    model, x = Series(), torch.randn(4, 3)
    found = dgm.hmc(model, x, num=5, warmup=4, chains=3)
    table = found.to_dataframe().set_index("site")
    assert list(table.index) == list(found.draws) == ["z", "u"]
    assert table.loc["u", "shape"] == (3, 5, 3, 4)
    assert table.loc["z", "mean"] == pytest.approx(found.draws["z"].mean().item())
    assert table["worst_rhat"].max() == pytest.approx(found.worst_rhat)
    assert table["least_ess"].min() == pytest.approx(found.least_ess)
    assert "3 chains x 5 draws" in found._repr_html_()


def test_batches_of_a_loader_are_their_concatenation():
    model, _, x = linear_gaussian()
    whole = dgm.hmc(model, x, num=5, warmup=4)
    loaded = dgm.hmc(model, [x[:4], x[4:]], num=5, warmup=4)
    assert torch.equal(loaded.draws["z"], whole.draws["z"])
    assert torch.equal(
        dgm.hmc(model, x.detach().numpy(), num=5, warmup=4).log_joint, whole.log_joint
    )


def test_programs_that_are_none_raise():
    vae, x = toy_vae(), torch.randn(3, 3)
    with pytest.raises(TypeError, match="Fix: vae.model or vae.guide in place of vae"):
        dgm.hmc(vae, x)
    with pytest.raises(
        TypeError, match=r"a program too many\. Fix: .* hmc\(model, x, start=guide\)"
    ):
        dgm.hmc(vae.model, vae.guide, x)


@pytest.mark.parametrize("name", ["chains", "warmup", "leapfrog", "chunk"])
def test_no_draws_raise(name):
    model, _, x = linear_gaussian()
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        dgm.hmc(model, x, **{name: 0})


def test_too_few_draws_raise():
    model, _, x = linear_gaussian()
    with pytest.raises(
        ValueError, match="hmc: expected num >= 4 draws, which R-hat needs, got 3. Fix: "
    ):
        dgm.hmc(model, x, num=3)


def test_a_discrete_latent_raises():
    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(
        ValueError, match="site 'z': expected a continuous latent, got a discrete one, Bernoulli"
    ):
        dgm.hmc(Written(run), torch.zeros(2), num=4)


def test_a_sphere_raises():
    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.ProjectedNormal(torch.tensor([1.0, 0.0])))
            return pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    with pytest.raises(
        ValueError, match="site 'z': expected a support that torch.distributions.biject_to knows"
    ):
        dgm.hmc(Written(run), torch.zeros(2), num=4)


def test_a_model_without_latents_raises():
    model = dgm.DensityModel(dgm.StandardNormal(2))
    with pytest.raises(ValueError, match=r"expected a latent site, got the observed \['x'\] alone"):
        dgm.hmc(model, torch.zeros(3, 2), num=4)


def test_data_that_are_no_data_raise():
    model, _, x = linear_gaussian()
    with pytest.raises(ValueError, match="expected finite values, got 24"):
        dgm.hmc(model, x * torch.nan, num=4)
    with pytest.raises(ValueError, match="site 'x': expected binary values"):
        dgm.hmc(
            dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Bernoulli(nn.Linear(2, 3))),
            x[:, :3],
            num=4,
        )
