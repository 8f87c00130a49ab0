"""Verbs of a pair whose discrete site the model alone has: summed in densities, drawn where draws are asked for."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.drawing.simulation import log_joint

SCALE = 0.5


class Clusters(dgm.Program):
    r"""$c \sim \pi$ summed out, $z \mid c \sim N(\mu_c, I)$, $x \mid z \sim N(z, s^2 I)$ in the plane."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4, 0.1]))
        self.loc = nn.Parameter(torch.tensor([[-2.0, 0.0], [1.5, 1.0], [0.5, -1.5]]))

    def forward(self, x=None):
        with dgm.data_plate(x):
            infer = {"enumerate": "parallel"}
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=infer)
            z = pyro.sample("z", dist.Normal(self.loc[c], 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, SCALE).to_event(1), obs=x)

    @property
    def log_prior(self):
        return self.logits.log_softmax(0).detach()

    def log_evidence(self, x):
        law = dist.Normal(self.loc.detach(), (1 + SCALE**2) ** 0.5)
        return self.log_prior + law.log_prob(x[:, None]).sum(-1)


class Posterior(dgm.Program):
    r"""$q(z \mid x) = p(z \mid x)$, a mixture over c, which is none of its sites."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)

    def forward(self, x=None):
        (model,) = self.model
        with dgm.data_plate(x):
            loc = (SCALE**2 * model.loc + x[..., None, :]) / (1 + SCALE**2)
            scale = (SCALE**2 / (1 + SCALE**2)) ** 0.5
            components = dist.Normal(loc.detach(), scale).to_event(1)
            law = dist.Normal(model.loc.detach(), (1 + SCALE**2) ** 0.5)
            logits = model.log_prior + law.log_prob(x[..., None, :]).sum(-1)
            mixture = dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
            pyro.sample("z", mixture)


def pair_and_data(num=60):
    model = Clusters()
    return model, Posterior(model), dgm.generate(model, num, seed=1)


def test_the_nll_under_the_exact_posterior_is_the_evidence_at_every_draw():
    model, guide, x = pair_and_data()
    result = dgm.nll(model, guide, x, num=20)
    exact = -model.log_evidence(x).logsumexp(1).double()
    torch.testing.assert_close(result.per_datum, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.nelbo, exact, rtol=1e-5, atol=1e-5)
    assert (result.khat.isnan() | (result.khat < 0.5)).all()


def test_surgery_and_kl_are_those_of_the_prior_with_the_site_summed_out():
    """KL = −ELBO + E log p(x|z) at the same draws; no share of a dim, for the mixture is no product."""
    model, guide, x = pair_and_data()
    found = dgm.surgery(model, guide, x)
    exact = model.log_evidence(x).logsumexp(1).mean().item()
    assert found.elbo.value == pytest.approx(exact, abs=5 * found.elbo.stderr + 1e-6)
    assert found.kl.value == pytest.approx(dgm.nll(model, guide, x).kl.mean().item(), rel=0.05)
    assert dgm.unit_kl(model, guide, x) == {}


@pytest.mark.slow
def test_sbc_of_the_exact_posterior_finds_nothing():
    model, guide, _ = pair_and_data()
    assert dgm.sbc(model, guide, seed=3).passed(1e-3)


def test_the_joint_density_of_given_latents_is_summed():
    model, _, x = pair_and_data(5)
    z = torch.randn(5, 2)
    log_z = (model.log_prior + dist.Normal(model.loc, 1.0).log_prob(z[:, None]).sum(-1)).logsumexp(
        1
    )
    expected = log_z + dist.Normal(z, SCALE).log_prob(x).sum(-1)
    found = log_joint(model, (x,), {"z": z}, 1)
    torch.testing.assert_close(found, expected.detach().double(), rtol=1e-5, atol=1e-5)


def test_a_joint_density_that_all_data_share_is_refused():
    def model(x):
        c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(5)
    with pytest.raises(ValueError, match=r"density of each datum, got one that all.*Fix: evidence"):
        log_joint(model, (x,), {"z": torch.randn(5)}, 1)


@pytest.mark.parametrize("has_z", [True, False])
def test_dims_that_are_missing_are_integrated_out_with_the_site_drawn(has_z):
    """5 standard errors of the mean over the data."""
    model, guide, x = pair_and_data(20)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[::2, 0] = False
    if not has_z:
        model, guide = Mixture(model), dgm.EmptyGuide()
    result = dgm.marginal_nll(model, guide, x, observed=observed, num=4000)
    reference = model if has_z else model.clusters
    law = dist.Normal(reference.loc.detach(), (1 + SCALE**2) ** 0.5)
    log_x = (law.log_prob(x[:, None]) * observed[:, None]).sum(-1) + reference.log_prior
    exact = -log_x.logsumexp(1).double()
    error = result.monte_carlo.nan_to_num(0.0).square().sum().sqrt() / len(x)
    assert (result.per_datum - exact).mean().abs() < 5 * error + 1e-5
    filled = dgm.impute(model, guide, x, observed=observed, num=20)
    assert torch.equal(filled.draws[0][observed], x[observed])


class Mixture(dgm.Program):
    """The same evidence without z."""

    def __init__(self, clusters):
        super().__init__()
        self.clusters = clusters

    def forward(self, x=None):
        with dgm.data_plate(x):
            infer = {"enumerate": "parallel"}
            c = pyro.sample("c", dist.Categorical(logits=self.clusters.logits), infer=infer)
            law = dist.Normal(self.clusters.loc[c], (1 + SCALE**2) ** 0.5).to_event(1)
            return pyro.sample("x", law, obs=x)


def test_the_export_has_the_draws_of_the_guide_and_the_sums_of_the_model():
    model, guide, x = pair_and_data(10)
    tree = dgm.to_arviz(model, guide, x, num=20)
    assert list(tree["posterior"].data_vars) == ["z"]
    z = torch.as_tensor(tree["posterior"]["z"].values[0])
    expected = dist.Normal(z, SCALE).log_prob(x).sum(-1)
    found = torch.as_tensor(tree["conditional_log_likelihood"]["x"].values[0])
    torch.testing.assert_close(found, expected)
    assert set(tree["prior"].data_vars) == {"c", "z"}
    assert set(tree["prior_predictive"].data_vars) == {"x"}
    log_w = torch.as_tensor(tree["sample_stats"]["log_weight"].values[0])
    exact = model.log_evidence(x).logsumexp(1).expand_as(log_w)
    torch.testing.assert_close(log_w, exact.double(), rtol=1e-5, atol=1e-5)


def test_two_observed_sites_of_one_summed_site_are_one_entry():
    """Their joint mass is at most 1, and no share of one of them exists without an order."""

    def model(x):
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel"}
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.3)), infer=infer)
            pyro.sample("left", dist.Bernoulli(0.1 + 0.8 * c), obs=x[:, 0])
            pyro.sample("right", dist.Bernoulli(0.9 - 0.7 * c), obs=x[:, 1])

    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    result = dgm.nll(model, dgm.EmptyGuide(), x, num=2)
    p = torch.tensor([[0.1, 0.9], [0.9, 0.2]])
    of_c = [
        dist.Bernoulli(p[c]).log_prob(x).sum(-1) + torch.tensor([0.7, 0.3])[c].log() for c in (0, 1)
    ]
    exact = -torch.stack(of_c).logsumexp(0)
    torch.testing.assert_close(result.per_datum, exact.double(), rtol=1e-5, atol=1e-5)
    assert (-result.per_datum).exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert result.measure.value == "mass"
    tree = dgm.to_arviz(model, dgm.EmptyGuide(), x, num=2, prior=False)
    found = torch.as_tensor(tree["log_likelihood"]["left, right"].values[0, 0])
    torch.testing.assert_close(found, -exact, rtol=1e-5, atol=1e-5)
