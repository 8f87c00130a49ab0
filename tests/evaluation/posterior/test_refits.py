"""Calibration by refits: exact fits pass, a fit that is off is refused by the name of its quantity."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from scipy.stats import kstest

import pyro_dgm as dgm

X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], dtype=torch.float64)


def line(x, y):
    """Bayesian regression as Pyro writes it, the data the second argument."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def fit_line(shift=0.0, spread=1.0):
    """The exact posterior, its second weight off by `shift` standard deviations, its scale by a factor."""

    def fit(x, y):
        covariance = (torch.eye(2) + x.T @ x).inverse()
        loc = covariance @ x.T @ y
        root = spread * torch.linalg.cholesky(covariance)
        off = torch.stack([torch.zeros(()), shift * covariance[1, 1].sqrt()])

        def guide(x, y):
            pyro.sample("w", dist.MultivariateNormal(loc + off, scale_tril=root))

        return guide

    return fit


LIKE = (X, torch.zeros(5, dtype=torch.float64))


@in_float64
@pytest.mark.slow
def test_exact_fits_pass():
    found = dgm.diagnostics.vsbc(line, fit_line(), num_data=200, num_draws=99, like=LIKE)
    assert found.names == ("w[0]", "w[1]")
    assert found.uniform.shape == (200, 2)
    assert found.passed(0.001)
    assert found.failures(0.001) == ()


@pytest.mark.slow
@in_float64
def test_p_values_of_exact_fits_are_uniform():
    """100 repetitions with 40 data sets: Kolmogorov's test of each test's p-values at one in a hundred thousand."""
    runs = [
        dgm.diagnostics.vsbc(line, fit_line(), num_data=40, num_draws=19, like=LIKE, seed=s)
        for s in range(100)
    ]
    for name in ("p_values", "symmetry", "scale"):
        assert kstest([getattr(found, name)[1].item() for found in runs], "uniform").pvalue > 1e-5


@in_float64
def test_a_quantity_that_is_off_is_named():
    """0.73 of a standard deviation in one of two weights, at a hundred data sets; uniform below one half: too high."""
    found = dgm.diagnostics.vsbc(line, fit_line(shift=0.73), num_draws=99, like=LIKE)
    assert found.failures(0.01) == ("w[1]",)
    assert found.symmetry[1] < 1e-4
    assert found.uniform[:, 1].mean() < 0.4
    table = found.to_dataframe()
    assert table["symmetry"].tolist() == found.symmetry.tolist()
    assert table["scale"].tolist() == found.scale.tolist()
    assert "VSBC, 100 data × 99 draws, 2 statistics" in str(found)


@in_float64
@pytest.mark.slow
def test_a_scale_that_is_off_is_seen_without_asymmetry():
    found = dgm.diagnostics.vsbc(line, fit_line(spread=0.6), num_draws=99, like=LIKE)
    assert set(found.failures(0.01)) == {"w[0]", "w[1]"}
    assert found.scale.max() < 1e-4
    assert found.symmetry.min() > 1e-4


def schools(y, sd):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    with pyro.plate("schools", 3):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


def fit_schools(y, sd):
    guide = AutoNormal(schools)
    svi = SVI(schools, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(3):
        svi.step(y, sd)
    return guide


def test_autoguides_are_fitted_and_leave_no_parameters_and_no_noise():
    y, sd = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
    before = torch.get_rng_state()
    found = dgm.diagnostics.vsbc(schools, fit_schools, sd, num_data=4, num_draws=9, like=y)
    assert found.names == ("mu", "tau", "theta[0]", "theta[1]", "theta[2]")
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    again = dgm.diagnostics.vsbc(schools, fit_schools, sd, num_data=4, num_draws=9, like=y)
    assert torch.equal(found.uniform, again.uniform)


def test_parameters_of_the_model_are_kept():
    """The model's own are what they were in every data set; those of the fits are gone."""
    pyro.param("scale", torch.tensor(2.0))

    def model(x=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            pyro.sample("x", dist.Normal(mu, pyro.param("scale", torch.tensor(1.0))), obs=x)

    def fit(x):
        pyro.param("scale").data.fill_(7.0)
        pyro.param("loc", torch.zeros(()))
        return lambda x: pyro.sample("mu", dist.Normal(pyro.param("loc"), 1.0))

    dgm.diagnostics.vsbc(model, fit, num_data=3, num_draws=9)
    assert list(pyro.get_param_store().keys()) == ["scale"]
    assert pyro.param("scale").item() == 2.0
    pyro.clear_param_store()


def test_bad_arguments_raise():
    for name in ("num_data", "num_draws"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.diagnostics.vsbc(line, fit_line(), like=LIKE, **{name: 0})
    with pytest.raises(TypeError, match="expected a Pyro program"):
        dgm.diagnostics.vsbc(dgm.StandardNormal(2), fit_line(), like=LIKE)

    def foreign(x, y):
        return lambda x, y: None

    with pytest.raises(
        ValueError, match=r"expected a guide with latent sites of the model, \['w'\], got \[\]"
    ):
        dgm.diagnostics.vsbc(line, foreign, num_data=1, like=LIKE)

    def of_two(x, y):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([5, 2]).to_event(2), obs=x)
        line(x, y)

    with pytest.raises(
        ValueError, match=r"expected one observed site whose value is an argument, got \['x', 'y'\]"
    ):
        dgm.diagnostics.vsbc(of_two, fit_line(), num_data=1, like=LIKE)

    def of_none(x=None):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="expected one observed site, whose draws are the data"):
        dgm.diagnostics.vsbc(of_none, fit_line(), num_data=1)
