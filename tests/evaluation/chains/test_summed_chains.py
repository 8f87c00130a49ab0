"""Chains and annealing of models whose discrete sites are summed over: against quadrature and sums by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.ops.indexing import Vindex
from toys import Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import mean_ess
from pyro_dgm.evaluation.chains.coordinates import Posterior
from pyro_dgm.evaluation.chains.joint import JointPosterior, posterior_of
from pyro_dgm.evaluation.chains.transitions import by_autograd, transition, value_and_gradient
from pyro_dgm.inference.run.sessions import session

SUMMED = {"enumerate": "parallel"}
LOCS = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.5, 0.4], dtype=torch.float64)
SCALE = 0.6


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


# A latent of each datum ----------------------------------------------------------------------------------------------


def clusters(program, x=None):
    r"""$c \sim \pi$, $z \mid c \sim N(\mu_c, 1)$, $x \mid z \sim N(z^2 / 2, s^2)$."""
    with dgm.data_plate(x):
        c = pyro.sample("c", dist.Categorical(logits=LOGITS), infer=SUMMED)
        z = pyro.sample("z", dist.Normal(LOCS[c], 1.0))
        return pyro.sample("x", dist.Normal(z**2 / 2, SCALE), obs=x)


def by_hand(program, x=None):
    """`clusters` with the sum written down."""
    with dgm.data_plate(x):
        parts = dist.Normal(LOCS, 1.0)
        z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=LOGITS), parts))
        return pyro.sample("x", dist.Normal(z**2 / 2, SCALE), obs=x)


def noise_classes(program, x=None):
    r"""$z \sim N(0, 1)$, $c \mid z \sim \mathrm{Bernoulli}(\sigma(z))$, $x \mid z, c \sim N(z, s_c^2)$."""
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        c = pyro.sample("c", dist.Bernoulli(logits=z), infer=SUMMED)
        return pyro.sample("x", dist.Normal(z, 0.3 + c), obs=x)


def grid():
    z = torch.linspace(-9, 10, 40_001, dtype=torch.float64)
    return z, (z[1] - z[0]).log()


def log_joint_of_clusters(z, x):
    log_z = (LOGITS.log_softmax(0) + dist.Normal(LOCS, 1.0).log_prob(z[..., None])).logsumexp(-1)
    return log_z + dist.Normal(z**2 / 2, SCALE).log_prob(x)


def log_joint_of_classes(z, x):
    of_values = []
    for c in (0.0, 1.0):
        log_c = dist.Bernoulli(logits=z).log_prob(torch.full_like(z, c))
        of_values.append(log_c + dist.Normal(z, 0.3 + c).log_prob(x))
    return dist.Normal(0.0, 1.0).log_prob(z) + torch.stack(of_values).logsumexp(0)


LOCAL = {
    "clusters": (Written(clusters), log_joint_of_clusters),
    "classes": (Written(noise_classes), log_joint_of_classes),
}
of_local = pytest.mark.parametrize(("model", "log_joint"), LOCAL.values(), ids=LOCAL)
X = torch.tensor([0.3, 2.0, -0.8, 5.0, 1.1], dtype=torch.float64)


@of_local
def test_annealing_has_the_evidence_of_quadrature(model, log_joint):
    z, log_cell = grid()
    exact = -(log_joint(z, X[:, None]).logsumexp(-1) + log_cell)
    found = dgm.ais(model, X, num=64, steps=40)
    assert ((found.per_datum - exact).abs() < 5 * found.monte_carlo).all()
    assert found.monte_carlo.max() < 0.5


@of_local
def test_chains_have_the_moments_of_quadrature(model, log_joint):
    """Both modes of z² / 2 are visited from the prior; |z| is one that all chains share."""
    z, _ = grid()
    weight = log_joint(z, X[:, None]).softmax(-1)
    found = dgm.hmc(model, X, num=60, warmup=60, chains=40)
    draws = found.draws["z"].abs()
    mean = (weight * z.abs()).sum(-1)
    std = ((weight * z**2).sum(-1) - mean**2).sqrt()
    assert ((draws.mean((0, 1)) - mean).abs() < 5 * std / mean_ess(draws).sqrt()).all()
    close(found.log_joint, log_joint(found.draws["z"], X))


def test_a_sum_moves_as_the_mixture_that_is_written_by_hand():
    """Density, its parts, gradient and a transition under one seed."""
    summed = Posterior(Written(clusters), (X,))
    written = Posterior(Written(by_hand), (X,))
    zeta = 3 * torch.randn(7, 5, 1, dtype=torch.float64)
    ours, theirs = summed(zeta), written(zeta)
    close(ours.log_prior, theirs.log_prior)
    close(ours.log_likelihood, theirs.log_likelihood)
    close(ours.values["z"], theirs.values["z"])
    for one, other in zip(
        value_and_gradient(summed.log_joint, zeta),
        value_and_gradient(written.log_joint, zeta),
        strict=True,
    ):
        close(one, other)
    moved = []
    for posterior in (summed, written):
        torch.manual_seed(3)
        step = torch.full((5, 1), 0.2, dtype=torch.float64)
        moved.append(transition(by_autograd(posterior.log_joint), zeta, step, 5)[0])
    close(*moved)


@pytest.mark.slow
def test_a_gap_between_two_bounds_holds_the_evidence_of_data_from_the_model():
    """5 standard errors of the mean over the data."""
    found = dgm.bdmc(Written(clusters), num_data=40, num=8, steps=25)
    z, log_cell = grid()
    exact = log_joint_of_clusters(z, found.data[0][:, None]).logsumexp(-1) + log_cell
    for bound, sign in ((found.lower, 1), (found.upper, -1)):
        distance = sign * (exact - bound)
        assert distance.mean() > -5 * distance.std() / len(distance) ** 0.5
    assert found.mean_gap.value < 1.5


def test_chains_start_from_a_guide_without_the_summed_site():
    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.8 * x, 1.5))

    z, log_cell = grid()
    exact = -(log_joint_of_classes(z, X[:, None]).logsumexp(-1) + log_cell)
    found = dgm.ais(Written(noise_classes), X, num=64, steps=20, start=Written(guide))
    assert ((found.per_datum - exact).abs() < 5 * found.monte_carlo).all()


def test_a_guide_is_held_against_chains_that_sum():
    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.8 * x, 0.5))

    truth = dgm.hmc(Written(noise_classes), X, num=40, warmup=40, chains=4)
    assert dgm.guide_error(Written(guide), truth, X).shift["z"].shape == (5,)


def test_flow_priors_move_in_their_base_space_where_no_summed_site_chooses_them():
    flow = dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2)).double()

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", flow())
            c = pyro.sample("c", dist.Bernoulli(logits=z[..., 0]), infer=SUMMED)
            u = pyro.sample("u", dist.LogNormal(c, 0.5))
            return pyro.sample("x", dist.Normal(z.sum(-1) + u, 0.5), obs=x)

    posterior = Posterior(Written(model), (X,))
    assert set(posterior.mixed) == {"u"}
    zeta = torch.randn(3, 5, 3, dtype=torch.float64)
    point = posterior(zeta)
    z, u = point.values["z"], point.values["u"]
    of_values = []
    for c in (0.0, 1.0):
        log_c = dist.Bernoulli(logits=z[..., 0]).log_prob(torch.full_like(u, c))
        of_values.append(log_c + dist.LogNormal(c, 0.5).log_prob(u))
    log_p = flow().log_prob(z) + torch.stack(of_values).logsumexp(0)
    close(point.log_prior - point.log_det, log_p)
    base = dist.Normal(0.0, 1.0).log_prob(zeta[..., :2]).sum(-1)
    close(point.log_prior, base + torch.stack(of_values).logsumexp(0) + zeta[..., 2])


def test_latents_of_further_plates_are_summed_over_with_their_labels():
    """$x_{ti}$ has a label of its own, given $z_i$ and $u_t$'s plate: both sums by hand."""

    def model(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            with pyro.plate("times", 2, dim=-2):
                c = pyro.sample("c", dist.Bernoulli(logits=z), infer=SUMMED)
                u = pyro.sample("u", dist.Normal(2 * c, 1.0))
                return pyro.sample("x", dist.Normal(u + z, 0.5), obs=None if x is None else x.T)

    x = torch.randn(5, 2, dtype=torch.float64)
    posterior = Posterior(Written(model), (x,))
    zeta = torch.randn(4, 5, 3, dtype=torch.float64)
    point = posterior(zeta)
    z, u = point.values["z"], point.values["u"]
    assert z.shape == (4, 1, 5)
    assert u.shape == (4, 2, 5)
    of_values = []
    for c in (0.0, 1.0):
        log_c = dist.Bernoulli(logits=z.expand_as(u)).log_prob(torch.full_like(u, c))
        of_values.append(log_c + dist.Normal(2 * c, 1.0).log_prob(u))
    expected = torch.stack(of_values).logsumexp(0) + dist.Normal(u + z, 0.5).log_prob(x.T)
    close(point.log_joint, expected.sum(1) + dist.Normal(0.0, 1.0).log_prob(z[:, 0]))


# Draws that all data share -------------------------------------------------------------------------------------------


def mixture(x):
    """As Pyro's tutorial has it: it takes one particle at a time."""
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(weight), infer=SUMMED)
        pyro.sample("x", dist.Normal(torch.stack([loc * 0, loc])[c.long()], 1.0), obs=x)


def broadcasting_mixture(x):
    """The same, with particles in a plate."""
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(weight), infer=SUMMED)
        pyro.sample("x", dist.Normal(loc * c, 1.0), obs=x)


def log_joint_of_mixture(weight, loc, x):
    """`(*grid)` of all data."""
    log_w = torch.stack([(1 - weight).log(), weight.log()], -1)[..., None, :]
    locs = torch.stack([loc * 0, loc], -1)[..., None, :]
    log_x = (log_w + dist.Normal(locs, 1.0).log_prob(x[:, None])).logsumexp(-1).sum(-1)
    prior = dist.Beta(2.0, 2.0).log_prob(weight) + dist.Normal(0.0, 3.0).log_prob(loc)
    return prior + log_x


def hidden_markov(x):
    """Three steps of two states; the chance to stay and the distance between the states are unknown."""
    stay = pyro.sample("stay", dist.Beta(4.0, 2.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
    with pyro.plate("data", len(x)):
        state = None
        for t in pyro.markov(range(3)):
            prob = 0.5 + 0 * stay
            if state is not None:
                prob = stay * state + (1 - stay) * (1 - state)
            state = pyro.sample(f"state_{t}", dist.Bernoulli(prob), infer=SUMMED)
            pyro.sample(f"x_{t}", dist.Normal(loc * state, 1.0), obs=x[:, t])


def log_joint_of_markov(stay, loc, x):
    """By the sum over all eight paths."""
    of_paths = []
    for path in torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3):
        log_p = torch.tensor(0.5, dtype=torch.float64).log() + 0 * stay
        for before, after in zip(path[:-1], path[1:], strict=True):
            log_p = log_p + (stay if before == after else 1 - stay).log()
        log_x = dist.Normal(loc[..., None, None] * path, 1.0).log_prob(x).sum(-1)
        of_paths.append(log_p[..., None] + log_x)
    prior = dist.Beta(4.0, 2.0).log_prob(stay) + dist.Normal(0.0, 2.0).log_prob(loc)
    return prior + torch.stack(of_paths).logsumexp(0).sum(-1)


GLOBAL = {
    "one at a time": (mixture, log_joint_of_mixture, (9,), True),
    "by plate": (broadcasting_mixture, log_joint_of_mixture, (9,), False),
    "hidden Markov": (hidden_markov, log_joint_of_markov, (6, 3), False),
}
of_global = pytest.mark.parametrize(
    ("model", "log_joint", "shape", "is_single"), GLOBAL.values(), ids=GLOBAL
)


def data_of(shape):
    return 2 * torch.rand(shape, dtype=torch.float64) + torch.randn(shape, dtype=torch.float64)


def on_grid(log_joint, x):
    """Values of both numbers, and the log density of their cells."""
    p = torch.linspace(0, 1, 202, dtype=torch.float64)[1:-1]
    loc = torch.linspace(-8, 8, 321, dtype=torch.float64)
    log_p = log_joint(p[:, None].expand(-1, 321), loc.expand(200, -1), x)
    return p, loc, log_p + (p[1] - p[0]).log() + (loc[1] - loc[0]).log()


@of_global
@pytest.mark.slow
def test_annealing_of_all_data_has_the_evidence_of_quadrature(model, log_joint, shape, is_single):
    x = data_of(shape)
    _, _, log_p = on_grid(log_joint, x)
    num, steps = (300, 1) if is_single else (60, 20)
    found = dgm.ais(model, x, num=num, steps=steps, leapfrog=3)
    assert found.per_datum.shape == (1,)
    assert abs(found.mean + log_p.logsumexp((0, 1))) < 5 * found.monte_carlo.item() + 0.01
    assert found.monte_carlo.item() < 0.5


@of_global
@pytest.mark.slow
def test_chains_of_all_data_have_the_moments_of_quadrature(model, log_joint, shape, is_single):
    x = data_of(shape)
    p, loc, log_p = on_grid(log_joint, x)
    weight = (log_p - log_p.logsumexp((0, 1))).exp()
    chains = 2 if is_single else 60
    found = dgm.hmc(model, x, num=30, warmup=40, chains=chains, leapfrog=5)
    first, second = found.draws
    assert set(found.draws) == {first, "loc"}
    for name, value, dim in ((first, p, 1), (second, loc, 0)):
        mean = (weight.sum(dim) * value).sum()
        std = ((weight.sum(dim) * value**2).sum() - mean**2).sqrt()
        draws = found.draws[name]
        assert abs(draws.mean() - mean) < 5 * std / mean_ess(draws).sqrt()
    expected = log_joint(found.draws[first], found.draws["loc"], x)
    close(found.log_joint[..., 0], expected)


@of_global
def test_chains_share_a_run_where_it_means_the_same(model, log_joint, shape, is_single):
    x = data_of(shape)
    with session(model, None, x) as pair:
        posterior = posterior_of(pair, pair.batch, whiten=True)
        assert isinstance(posterior, JointPosterior)
        assert posterior.is_single is is_single
        zeta = torch.randn(3, 1, 2, dtype=torch.float64)
        together = posterior.log_joint(zeta)
        posterior.is_single = True
        close(posterior.log_joint(zeta), together)


def test_a_table_of_particles_that_sums_mistake_for_one_of_values_gives_each_chain_its_run():
    """Drawn, `locs[..., c]` means the same in a plate; over all values its dims are others, if in silence."""

    def model(x):
        locs = pyro.sample(
            "locs", dist.Normal(torch.zeros(2, dtype=torch.float64), 2.0).to_event(1)
        )
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.3).double()), infer=SUMMED)
            loc = Vindex(locs)[..., c.long()]
            if c.dim() > 2:
                loc = loc.flip(0)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    x = data_of((4,))
    with session(model, None, x) as pair:
        posterior = posterior_of(pair, pair.batch, whiten=True)
        assert pair.structure.particles.value == "by plate"
        assert posterior.is_single
        zeta = torch.randn(3, 1, 2, dtype=torch.float64)
        log_w = torch.tensor([0.7, 0.3], dtype=torch.float64).log()
        log_x = dist.Normal(zeta, 1.0).log_prob(x[:, None]) + log_w
        expected = log_x.logsumexp(-1).sum(-1, keepdim=True)
        prior = dist.Normal(0.0, 2.0).log_prob(zeta).sum(-1)
        torch.testing.assert_close(
            posterior.log_joint(zeta), prior + expected, rtol=1e-5, atol=1e-5
        )


@config_enumerate
def pyros_mixture(data):
    """Pyro's tutorial on mixtures, as it stands."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def log_joint_of_pyros_mixture(draws, x):
    weights, scale, locs = (draws[name] for name in ("weights", "scale", "locs"))
    log_x = dist.Normal(locs[..., None, :], scale[..., None, None]).log_prob(x[:, None])
    log_p = (weights.log()[..., None, :] + log_x).logsumexp(-1).sum(-1)
    log_p = log_p + dist.Dirichlet(0.5 * torch.ones(2)).log_prob(weights)
    log_p = log_p + dist.LogNormal(0.0, 2.0).log_prob(scale)
    return log_p + dist.Normal(0.0, 10.0).log_prob(locs).sum(-1)


def pyros_series(x):
    """A hidden Markov model as Pyro's example writes it, each row of the table at the last state."""
    probs = pyro.sample("probs", dist.Dirichlet(torch.ones(3, 3) + 2 * torch.eye(3)).to_event(1))
    locs = pyro.sample("locs", dist.Normal(2 * torch.arange(3.0), 1.0).to_event(1))
    with pyro.plate("sequences", len(x)):
        state = 0
        for t in pyro.markov(range(x.shape[1])):
            state = pyro.sample(f"s_{t}", dist.Categorical(probs[state]), infer=SUMMED)
            pyro.sample(f"x_{t}", dist.Normal(locs[state], 1.0), obs=x[:, t])


def log_joint_of_pyros_series(draws, x):
    """By the forward recursion."""
    probs, locs = draws["probs"], draws["locs"]
    log_x = dist.Normal(locs[..., None, None, :], 1.0).log_prob(x[..., None])
    forward = probs[..., 0, :].log()[..., None, :] + log_x[..., 0, :]
    for t in range(1, x.shape[1]):
        moved = forward[..., :, None] + probs.log()[..., None, :, :]
        forward = moved.logsumexp(-2) + log_x[..., t, :]
    prior = dist.Dirichlet(torch.ones(3, 3) + 2 * torch.eye(3)).log_prob(probs).sum(-1)
    prior = prior + dist.Normal(2 * torch.arange(3.0), 1.0).log_prob(locs).sum(-1)
    return prior + forward.logsumexp(-1).sum(-1)


@pytest.mark.parametrize(
    ("model", "log_joint", "shape"),
    [
        (pyros_mixture, log_joint_of_pyros_mixture, (5,)),
        (pyros_series, log_joint_of_pyros_series, (4, 5)),
    ],
    ids=["mixture", "series"],
)
def test_programs_as_pyro_writes_them_have_chains(model, log_joint, shape):
    x = 2 + torch.randn(shape)
    found = dgm.hmc(model, x, num=4, warmup=6, chains=2, leapfrog=2)
    expected = log_joint(found.draws, x).double()
    torch.testing.assert_close(found.log_joint[..., 0], expected, rtol=1e-4, atol=1e-4)


# What is refused -----------------------------------------------------------------------------------------------------


def test_a_discrete_site_without_a_mark_is_refused_with_the_mark():
    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    match = (
        r"site 'c': .*discrete one, Bernoulli.*Fix: infer=\{'enumerate': 'parallel'\} at the site"
    )
    for call in (dgm.hmc, dgm.ais):
        with pytest.raises(ValueError, match=match):
            call(Written(model), torch.zeros(3), num=4)


def test_a_count_is_refused_without_one():
    def model(program, x=None):
        with dgm.data_plate(x):
            n = pyro.sample("n", dist.Poisson(torch.tensor(2.0)), infer=SUMMED)
            return pyro.sample("x", dist.Normal(n, 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"discrete one, Poisson, .*gradient. Fix: nll or evidence"
    ):
        dgm.hmc(Written(model), torch.zeros(3), num=4)


def test_a_model_whose_latents_are_all_summed_over_has_no_chains():
    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer=SUMMED)
            return pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    match = r"expected a latent site, got \['c'\], which chains sum over, and the observed"
    with pytest.raises(ValueError, match=match):
        dgm.ais(Written(model), torch.zeros(3), num=4)


def test_a_support_that_hangs_on_the_summed_site_is_refused():
    def model(program, x=None):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer=SUMMED)
            z = pyro.sample("z", dist.Uniform(0.0, 1 + c))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    match = (
        r"site 'z': expected a support that is the same for all values.*Fix: a latent of a fixed"
    )
    with pytest.raises(ValueError, match=match):
        dgm.hmc(Written(model), torch.zeros(3), num=4)


def test_annealing_starts_from_no_guide_that_draws_a_summed_site():
    def guide(program, x):
        with dgm.data_plate(x):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer=SUMMED)
            pyro.sample("z", dist.Normal(x + c, 1.0))

    match = r"start: expected a guide .*latents \['z'\], got one that draws 'c'.*Fix: start=None"
    with pytest.raises(ValueError, match=match):
        dgm.ais(Written(noise_classes), X, num=4, steps=3, start=Written(guide))


def test_a_summed_site_that_all_data_share_has_no_bounds_of_each_datum():
    """`ais` and `hmc` take it, with all data at once."""

    def model(program, x=None):
        c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer=SUMMED)
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(3 * c, 1.0))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    with pytest.raises(
        ValueError, match=r"site 'c': expected a site inside the plate.*Fix: evidence"
    ):
        dgm.bdmc(Written(model), num_data=4, num=2, steps=2)
    x = torch.tensor([0.4, 2.0, 1.1])
    found = dgm.ais(Written(model), x, num=80, steps=25, leapfrog=3)
    of_values = [dist.Normal(3.0 * c, 1.25**0.5).log_prob(x).sum() for c in (0, 1)]
    exact = -torch.stack(of_values).logsumexp(0) + torch.tensor(2.0).log()
    assert abs(found.mean - exact) < 5 * found.monte_carlo.item()
