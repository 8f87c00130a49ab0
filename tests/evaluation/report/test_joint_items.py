"""The check of pairs whose data share a draw: an exact guide passes, one that is off is told at the number."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from reports import skipped, statuses, warned
from schools import ERRORS, SCORES, eight_schools

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status

NAMES = [
    "data and sites",
    "finite numbers",
    "evidence-ELBO gap",
    "k-hat",
    "importance ESS",
    "guide means",
    "guide spreads",
]


@pytest.fixture(autouse=True)
def clean_store():
    yield
    pyro.clear_param_store()


def regression(c, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal((c * w).sum(-1), 0.5), obs=y)


def guide_of(shift=0.0, spread=1.0):
    """The posterior of w, the first number off by `shift` standard deviations, all `spread` times as wide."""

    def guide(c, y):
        covariance = (torch.eye(3) + c.T @ c / 0.25).inverse()
        mean = covariance @ (c.T @ y) / 0.25
        mean = mean + shift * covariance.diagonal().sqrt() * torch.tensor([1.0, 0.0, 0.0])
        pyro.sample("w", dist.MultivariateNormal(mean, covariance * spread**2))

    return guide


def data():
    c = torch.randn(40, 3)
    return c, c @ torch.tensor([1.0, -1.0, 0.5]) + 0.5 * torch.randn(40)


def test_an_exact_guide_passes_all():
    report = dgm.check(regression, guide_of(), *data())
    assert [item.name for item in report.items] == NAMES
    assert set(statuses(report).values()) == {Status.PASS}
    assert report["evidence-ELBO gap"].value == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"shift": 0.5}, "guide means"), ({"spread": 1.5}, "guide spreads")],
)
def test_a_guide_that_is_off_is_told(options, expected):
    report = dgm.check(regression, guide_of(**options), *data())
    assert expected in warned(report)
    assert "w[" in report[expected].finding
    assert report["finite numbers"].status is Status.PASS


def test_exact_guides_are_seldom_told_to_be_off():
    """Of 40 runs of a guide that is 1.05 times as wide, none says that it is off by more than is allowed."""
    c, y = data()
    guide = guide_of(spread=1.05)
    for seed in range(40):
        report = dgm.check(regression, guide, c, y, num=200, seed=seed)
        assert not {"guide means", "guide spreads"} & warned(report)


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_normals_of_eight_schools_are_off_where_the_scale_is_small(family):
    """A normal over log τ, whose posterior has a long tail to the left; k-hat of the weights alone may pass."""
    y, s = torch.tensor(SCORES) + 0.3, torch.tensor(ERRORS)
    guide = family(eight_schools, init_scale=0.3)
    trainer = dgm.SVITrainer(dgm.ELBO(eight_schools, guide, num_particles=8), lr=0.03)
    trainer.fit((y, s), epochs=300, batch_size=8, progress=False)
    report = dgm.check(eight_schools, guide, y, s, num=2000)
    assert [item.name for item in report.items] == NAMES
    assert "guide spreads" in warned(report)
    assert "tau_unconstrained" in report["guide spreads"].finding


def test_a_guide_over_all_latents_and_a_point_have_a_report():
    y, s = torch.tensor(SCORES) + 0.3, torch.tensor(ERRORS)
    for family in (AutoMultivariateNormal, AutoDelta):
        guide = family(eight_schools)
        guide(y, s)
        report = dgm.check(eight_schools, guide, y, s, num=100)
        assert [item.name for item in report.items] == NAMES
        pyro.clear_param_store()
    assert "point mass" in skipped(report)["k-hat"]
    assert report["data and sites"].status is Status.WARN


def test_draws_that_are_too_many_to_keep_leave_the_other_items(monkeypatch):
    """Draws of globals are always kept; a guide over the latents of all data may have none."""
    monkeypatch.setattr("pyro_dgm.evaluation.likelihood.model_evidence.MAX_NUMBERS", 100)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide, x = AutoMultivariateNormal(model), torch.randn(4)
    assert dgm.evidence(model, guide, x, num=200).quantities.names == ()
    report = dgm.check(model, guide, x, num=200)
    assert set(skipped(report)) == {"guide means", "guide spreads"}
    assert "too many numbers" in skipped(report)["guide means"]
