"""The evidence of models whose data share a draw, against exact values; and what predicts from them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from schools import ERRORS, SCORES, eight_schools, exact_schools
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import ExactGuide, GlobalMean, GlobalMeanGuide, LinearGaussian, Written, linear_gaussian

import pyro_dgm as dgm


@pytest.fixture(autouse=True)
def clean_store():
    yield
    pyro.clear_param_store()  # AutoGuides leave their parameters there


def exact_evidence(x):
    r"""$x_i = \mu + \epsilon_i$ with $\mu \sim N(0, 1)$ and $\epsilon_i \sim N(0, 1 + 0.5^2)$."""
    covariance = torch.ones(len(x), len(x)) + 1.25 * torch.eye(len(x))
    return dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x).item()


class ExactGlobalGuide(dgm.Program):
    r"""The posterior of `GlobalMean`: $\mu \mid X$, then every $z_i \mid x_i, \mu$; `shift` moves the first."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x=None):
        variance = 1 / (1 + len(x) / 1.25)
        mu = pyro.sample("mu", dist.Normal(variance * x.sum() / 1.25 + self.shift, variance**0.5))
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(0.2 * mu + 0.8 * x, 0.2**0.5))


def test_the_exact_posterior_of_a_global_mean_has_the_evidence_at_every_draw():
    x = torch.randn(7)
    found = dgm.evidence(GlobalMean(), ExactGlobalGuide(), x, num=200, chunk=50)
    assert found.value == pytest.approx(exact_evidence(x), abs=1e-9)
    assert found.stderr == pytest.approx(0.0, abs=1e-7)
    assert found.elbo == pytest.approx(found.value, abs=1e-9)
    assert found.khat == -torch.inf
    assert (found.num, found.num_data) == (200, 7)
    assert found.kind == "lower bound in expectation of log p(X)"
    assert found.measure == "density"


def test_an_inexact_guide_bounds_the_evidence_within_its_error():
    x = torch.randn(7)
    found = dgm.evidence(GlobalMean(), ExactGlobalGuide(0.2), x, num=4000, chunk=7000)
    assert abs(found.value - exact_evidence(x)) < 5 * found.stderr
    assert 0 < found.stderr < 0.1
    assert found.elbo < found.value
    assert found.ess < 4000


def test_the_shift_of_a_quantity_is_that_of_the_guide():
    x = torch.randn(7)
    found = dgm.evidence(GlobalMean(), ExactGlobalGuide(0.2), x, num=4000).quantities
    assert found.names == ("mu", *[f"z[{i}]" for i in range(7)])
    variance = 1 / (1 + 7 / 1.25)
    assert abs(found.shift[0] - 0.2 / variance**0.5) < 5 * found.stderr[0]
    assert abs(found.mean[0] - variance * x.sum() / 1.25) < 5 * found.stderr[0] * variance**0.5
    std_z = (0.2 + 0.2**2 * variance) ** 0.5
    assert ((found.shift[1:] - 0.2 * 0.2 / std_z).abs() < 5 * found.stderr[1:]).all()
    assert (found.stderr < 0.1).all()


def test_a_quantity_whose_moment_the_weights_do_not_have_is_told():
    """The weights are bounded, their product with h = 1 / (1 - u) has no mean."""

    def model(x):
        u = pyro.sample("u", dist.Uniform(0.0, 1.0))
        pyro.sample("h", dist.Delta(1 / (1 - u), event_dim=0))
        with dgm.data_plate(x):
            pyro.sample("x", dist.Normal(u, 1.0), obs=x)

    def guide(x):
        u = pyro.sample("u", dist.Uniform(0.0, 1.0))
        pyro.sample("h", dist.Delta(1 / (1 - u), event_dim=0))

    found = dgm.evidence(
        Written(lambda _, x: model(x)), Written(lambda _, x: guide(x)), torch.zeros(2)
    )
    assert found.khat < 0.2
    by_name = dict(zip(found.quantities.names, found.quantities.khat.tolist(), strict=True))
    assert by_name["u"] < 0.2
    assert by_name["h"] > 0.7
    assert found.worst_khat == by_name["h"]


def regression(c, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(c @ w, 0.5), obs=y)


class ExactRegressionGuide(dgm.Program):
    def __init__(self, spread=1.0):
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))

    def forward(self, c, y):
        precision = torch.eye(3) + c.T @ c / 0.25
        covariance = precision.inverse()
        loc = covariance @ (c.T @ y) / 0.25
        root = torch.linalg.cholesky(covariance) * self.spread
        pyro.sample("w", dist.MultivariateNormal(loc, scale_tril=root))


def test_bayesian_linear_regression_has_the_evidence_of_its_multivariate_normal():
    c, y = torch.randn(40, 3), torch.randn(40)
    covariance = c @ c.T + 0.25 * torch.eye(40)
    exact = dist.MultivariateNormal(torch.zeros(40), covariance).log_prob(y).item()
    found = dgm.evidence(regression, ExactRegressionGuide(), c, y, num=60)
    assert found.value == pytest.approx(exact, abs=1e-8)
    wide = dgm.evidence(regression, ExactRegressionGuide(1.2), c, y, num=400)
    assert abs(wide.value - exact) < 5 * wide.stderr
    assert (wide.quantities.ratio - 1.2).abs().max() < 0.2


def test_nll_of_a_regression_is_the_posterior_predictive_cost_of_its_guide():
    c = torch.randn(40, 3)
    y = c @ torch.ones(3) + 0.5 * torch.randn(40)
    covariance = (torch.eye(3) + c.T @ c / 0.25).inverse()
    mean = c @ covariance @ (c.T @ y) / 0.25
    variance = (c @ covariance * c).sum(-1) + 0.25
    exact = -dist.Normal(mean, variance.sqrt()).log_prob(y)
    found = dgm.nll(regression, ExactRegressionGuide(), c, y, num=400)
    assert ((found.per_datum - exact).abs() < 5 * found.monte_carlo + 1e-6).all()
    assert found.kind == "posterior predictive of the guide"
    assert found.measure == "density"


def test_nll_with_globals_weighs_the_latents_of_each_datum():
    x = torch.randn(7)
    variance = 1 / (1 + 7 / 1.25)
    exact = -dist.Normal(variance * x.sum() / 1.25, (variance + 1.25) ** 0.5).log_prob(x)
    for form in ((x,), (DataLoader(TensorDataset(x), 3),)):
        found = dgm.nll(GlobalMean(), ExactGlobalGuide(), *form, num=3000)
        assert ((found.per_datum - exact).abs() < 5 * found.monte_carlo).all()
        assert found.monte_carlo.max() < 0.05
    assert "posterior predictive of the guide" in str(found)


def test_a_predictive_figure_is_not_compared_with_a_likelihood():
    x = torch.randn(7)
    predictive = dgm.nll(GlobalMean(), ExactGlobalGuide(), x, num=50)
    known = dgm.results.GivenNLL(torch.ones(7), measure="density")
    with pytest.raises(
        ValueError, match=r"expected figures of one kind.*posterior predictive.*Fix: evidence"
    ):
        dgm.compare_elpd({"a": predictive, "b": known})
    table = dgm.compare_elpd({"a": predictive, "b": predictive})
    assert set(table["nll_kind"]) == {"posterior predictive of the guide"}


def test_without_globals_the_evidence_is_minus_the_sum_of_nll():
    model, guide, x = linear_gaussian()
    found, nll = dgm.evidence(model, guide, x, num=30), dgm.nll(model, guide, x, num=30)
    assert found.value == pytest.approx(-nll.per_datum.sum().item())
    assert found.value == pytest.approx(model.log_evidence(x).sum().item(), abs=1e-6)
    assert found.quantities.names == ()
    assert found.kind == "lower bound in expectation of log p(X)"
    inexact = ExactGuide(model, shift=0.05)
    found, nll = dgm.evidence(model, inexact, x, num=300), dgm.nll(model, inexact, x, num=300)
    assert found.stderr == pytest.approx(nll.monte_carlo.square().sum().sqrt().item())
    assert found.khat == nll.khat.max()


def test_a_part_of_the_data_and_a_loader_are_refused_by_name():
    model, guide, x = GlobalMean(30), GlobalMeanGuide(30), torch.randn(6)
    with pytest.raises(
        ValueError, match=r"evidence: expected all 30 data .*share \['mu'\], got 6. Fix"
    ):
        dgm.evidence(model, guide, x)
    with pytest.raises(
        ValueError, match=r"evidence: expected all data at once.*\['mu'\], got batches"
    ):
        dgm.evidence(GlobalMean(), GlobalMeanGuide(), DataLoader(TensorDataset(x), 3))
    assert dgm.evidence(model, guide, torch.randn(30), num=20).num_data == 30
    assert (
        dgm.evidence(LinearGaussian(), ExactGuide(LinearGaussian()), torch.randn(5, 4), num=5).num
        == 5
    )


def test_eight_schools_have_the_evidence_and_the_moments_of_quadrature():
    y, s = torch.tensor(SCORES), torch.tensor(ERRORS)
    guide = AutoMultivariateNormal(eight_schools)
    trainer = dgm.SVITrainer(dgm.ELBO(eight_schools, guide, num_particles=8), lr=0.03)
    with pytest.warns(dgm.diagnostics.IntegerWarning):
        trainer.fit((y, s), epochs=250, batch_size=8, progress=False)
    exact, moments = exact_schools(y, s)
    found = dgm.evidence(eight_schools, guide, y, s, num=20_000, chunk=160_000)
    assert abs(found.value - exact) < 5 * found.stderr
    assert found.stderr < 0.05
    assert len(found.quantities.names) == 11
    assert "tau_unconstrained" in found.quantities.names
    for i, name in enumerate(("mu", "tau")):
        mean, std = moments[name]
        assert found.quantities.names[i] == name
        assert abs(found.quantities.mean[i] - mean) < 5 * found.quantities.stderr[i] * std + 0.05
    with pytest.raises(
        ValueError, match=r"expected a density of each datum's latents \['t'\].*Fix: evidence"
    ):
        dgm.nll(eight_schools, guide, y, s, num=10)


def test_a_point_mass_at_the_globals_predicts_and_bounds_nothing():
    c, y = torch.randn(40, 3), torch.randn(40)
    guide = AutoDelta(regression)
    guide(c, y)
    w = guide.median()["w"]
    exact = -dist.Normal(c @ w, 0.5).log_prob(y)
    found = dgm.nll(regression, guide, c, y, num=5)
    torch.testing.assert_close(found.per_datum, exact.detach())
    assert (found.kind, found.measure) == ("posterior predictive of the guide", "density")
    joint = dgm.evidence(regression, guide, c, y, num=5)
    assert joint.value == pytest.approx(
        (dist.Normal(0.0, 1.0).log_prob(w).sum() - exact.sum()).item()
    )
    assert (joint.kind, joint.measure) == ("no bound", "joint density at a point")


# -- training -------------------------------------------------------------------------------------
def test_minibatches_of_a_plate_without_size_are_refused_where_data_share_a_draw():
    x = torch.randn(30)
    with pytest.raises(
        ValueError,
        match=r"ELBO: expected a data plate that knows the size.*share \['mu'\].*once a batch. Fix: data_plate",
    ):
        dgm.SVITrainer(dgm.ELBO(GlobalMean(), GlobalMeanGuide())).fit(
            x, batch_size=6, progress=False
        )
    for model, guide, data, size in (
        (GlobalMean(), GlobalMeanGuide(), x, 30),
        (GlobalMean(30), GlobalMeanGuide(30), x, 6),
        (GlobalMean(), GlobalMeanGuide(), DataLoader(TensorDataset(x), 30), 30),
    ):
        dgm.SVITrainer(dgm.ELBO(model, guide)).fit(data, batch_size=size, progress=False)


def test_the_loss_of_minibatches_is_unbiased_where_the_plate_knows_the_size():
    """Under frozen noise the loss of the full set is the mean over its minibatches, in value and gradient."""
    x, guide = torch.randn(30), GlobalMeanGuide(30, frozen=True)
    objective = dgm.ELBO(GlobalMean(30), guide)
    objective.preflight(x[:6])
    parts = torch.stack([objective(rows) for rows in x.split(6)]).mean()
    whole = objective(x)
    torch.testing.assert_close(parts, whole)
    of_parts = torch.autograd.grad(parts, list(guide.parameters()))
    torch.testing.assert_close(of_parts, torch.autograd.grad(whole, list(guide.parameters())))


def test_data_that_the_guide_knows_by_their_place_are_not_shuffled():
    x = torch.arange(6.0) * 3 + 0.5

    def model(x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 10.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    guide = AutoNormal(model)
    trainer = dgm.SVITrainer(dgm.ELBO(model, guide), lr=0.3)
    trainer.fit(x, epochs=150, batch_size=6, progress=False)
    assert (guide.median()["z"] - x).abs().max() < 0.5
    shuffled = DataLoader(TensorDataset(x), 6, shuffle=True)
    with pytest.raises(
        ValueError, match=r"data: expected a loader in the order of the data.*shuffle=False"
    ):
        trainer.fit(shuffled, progress=False)


@pytest.mark.slow
def test_a_hidden_chain_without_a_plate_has_no_figure_of_each_datum():
    """Its observations are one term, with the states summed out."""

    def chain(y):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        state = torch.tensor(0)
        for t in pyro.markov(range(len(y))):
            p = torch.tensor([[0.8, 0.2], [0.3, 0.7]])[state]
            state = pyro.sample(f"s_{t}", dist.Categorical(p), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(loc[state], 1.0), obs=y[t])

    guide, y = AutoNormal(poutine.block(chain, expose=["loc"])), torch.randn(4)
    with pytest.raises(ValueError, match=r"site 'y_0': expected .* plate 'data'.*Fix: evidence\("):
        dgm.nll(chain, guide, y)
    assert dgm.evidence(chain, guide, y, num=10).num_data == 4
