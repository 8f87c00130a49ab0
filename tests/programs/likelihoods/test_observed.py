"""Likelihoods of the observed dims alone: equal to those of the observed columns, and what is refused."""

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.distributions import Observed
from pyro_dgm.results import NLL

N, D = 6, 4


class FromFirst(nn.Module):
    """A network of z alone, whatever stands behind it."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z, *rest):
        return self.net(z)


def mask():
    observed = torch.rand(N, D) < 0.5
    observed[:, 0] = True
    return observed


FAMILIES = {
    "bernoulli": lambda net: (dgm.Bernoulli(net), 1),
    "normal": lambda net: (dgm.Normal(net, scale=0.7), 1),
    "poisson": lambda net: (dgm.Poisson(net), 1),
    "categorical": lambda net: (dgm.Categorical(net, levels=3), 3),
    "negative_binomial": lambda net: (dgm.NegativeBinomial(net), 2),
    "discretized": lambda net: (dgm.DiscretizedLogistic(net, levels=5), 2),
}
NUM_OUT = {"categorical": 3, "negative_binomial": 2, "discretized": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_log_likelihood_is_that_of_the_observed_dims_alone(family):
    likelihood, _ = FAMILIES[family](dgm.mlp(2, 8, NUM_OUT.get(family, 1) * D))
    z, observed = torch.randn(3, N, 2), mask()
    x = likelihood(z[0]).sample()
    each = likelihood(z).base_dist.log_prob(x)  # (particles, N, D)
    expected = torch.where(observed, each, 0.0).sum(-1)
    found = Observed(likelihood)(z, observed)
    assert (found.batch_shape, found.event_shape) == ((3, N), (D,))
    torch.testing.assert_close(found.log_prob(x), expected)
    other = torch.where(observed, x, 1 - x.clamp(max=1))  # what stands in the holes does not count
    torch.testing.assert_close(found.log_prob(other), expected)


def linear_pair(loading, sd, observed_last=True):
    """x = A z + noise and its exact posterior for all dims: any guide will do where draws are many."""
    net = nn.Linear(2, D, bias=False)
    net.weight.data = loading.clone()
    encoder = dgm.Conditional(dist.Normal, FromFirst(dgm.mlp(D, 4)))
    likelihood = dgm.Normal(net, scale=sd)
    return dgm.VAE(
        dgm.StandardNormal(2), Observed(likelihood) if observed_last else likelihood, encoder
    )


@in_float64
def test_nll_is_the_evidence_of_the_observed_columns():
    r"""x_b ~ N(0, A_b A_b^T + s^2 I): importance estimates to 5 standard errors of 20,000 draws."""
    loading, sd = torch.randn(D, 2), 0.9
    vae, observed = linear_pair(loading, sd), mask()
    x = torch.randn(N, 2) @ loading.T + sd * torch.randn(N, D)
    holes = torch.where(observed, x, 0.0)
    exact = []
    for row, seen in zip(x, observed, strict=True):
        cov = loading[seen] @ loading[seen].T + sd**2 * torch.eye(int(seen.sum()))
        exact.append(-dist.MultivariateNormal(torch.zeros(len(cov)), cov).log_prob(row[seen]))
    score = dgm.nll(vae.model, vae.guide, holes, observed, num=20_000)
    assert isinstance(score, NLL)
    error = (score.per_datum - torch.stack(exact)).abs()
    particles = dgm.draw(vae.model, vae.guide, holes, observed, num=20_000)
    weights = (particles.log_weight - particles.log_weight.logsumexp(0)).exp()
    stderr = ((weights.square().sum(0) - 1 / 20_000).clamp(min=0)).sqrt()  # of the log mean weight
    assert bool((error <= 5 * stderr + 1e-6).all()), (error, stderr)
    assert "mask" in score.measure


@in_float64
def test_one_draw_of_the_elbo_is_that_of_the_smaller_model():
    """All data miss the same dims: value and gradients are those of a likelihood without them."""
    loading = torch.randn(D, 2)
    vae = linear_pair(loading, 0.5)
    seen = torch.tensor([True, False, True, True])
    x = torch.where(seen, torch.randn(N, D), 0.0)
    small = linear_pair(loading[seen], 0.5, observed_last=False)
    small.generator.likelihood.net.weight.data = loading[seen].clone()
    small.guide.encoder = vae.guide.encoder
    few = dgm.VAE(vae.generator.prior, small.generator.likelihood, OfColumns(vae, seen))
    torch.manual_seed(0)
    whole = dgm.ELBO(vae.model, vae.guide)(x, seen.expand(N, D))
    whole.backward()
    torch.manual_seed(0)
    part = dgm.ELBO(few.model, few.guide)(x[:, seen])
    part.backward()
    torch.testing.assert_close(whole, part)
    gradient = vae.generator.likelihood.likelihood.net.weight.grad
    torch.testing.assert_close(gradient[seen], small.generator.likelihood.net.weight.grad)
    assert bool((gradient[~seen] == 0).all())


class OfColumns(nn.Module):
    """The encoder of the whole data, fed with columns and zeros between them."""

    def __init__(self, vae, seen):
        super().__init__()
        self.encoder, self.seen = vae.guide.encoder, seen

    def forward(self, x, *rest):
        whole = x.new_zeros(*x.shape[:-1], D)
        whole[..., self.seen] = x
        return self.encoder(whole)


def test_without_a_mask_all_dims_are_generated_and_scored():
    vae = linear_pair(torch.randn(D, 2), 0.5)
    assert dgm.generate(vae.model, 5).shape == (5, D)
    assert dgm.generate(vae.model, 5, mask()).shape == (5, N, D)
    z, x = torch.randn(N, 2), torch.randn(N, D)
    likelihood = vae.generator.likelihood
    torch.testing.assert_close(likelihood(z).log_prob(x), likelihood.likelihood(z).log_prob(x))
    all_of_them = torch.ones(N, D, dtype=torch.bool)
    torch.testing.assert_close(likelihood(z, all_of_them).log_prob(x), likelihood(z).log_prob(x))


def test_further_context_goes_to_the_likelihood_without_the_mask():
    likelihood = Observed(dgm.Bernoulli(dgm.Concat(dgm.mlp(2 + 3, D))))
    z, labels, observed = torch.randn(N, 2), torch.randn(N, 3), mask()
    found = likelihood(z, labels, observed).log_prob(torch.ones(N, D))
    each = likelihood.likelihood(z, labels).base_dist.log_prob(torch.ones(N, D))
    torch.testing.assert_close(found, torch.where(observed, each, 0.0).sum(-1))


def test_a_density_of_what_is_observed_has_the_mask_as_its_only_context():
    class Fixed(nn.Module):
        def forward(self, *contexts):
            return dist.Normal(torch.zeros(D), 1.0).to_event(1)

    model = dgm.DensityModel(Observed(Fixed()))
    assert dgm.generate(model, 3).shape == (3, D)
    x, observed = torch.randn(N, D), mask()
    expected = torch.where(observed, dist.Normal(0.0, 1.0).log_prob(x), 0.0).sum(1)
    score = dgm.nll(model, dgm.EmptyGuide(), x, observed, num=2)
    torch.testing.assert_close(score.per_datum, -expected)


def test_images_have_masks_of_their_shape():
    likelihood = Observed(dgm.Bernoulli(dgm.ConvDecoder(2, (1, 4, 4), (4,)), event_dim=3))
    observed = torch.rand(N, 1, 4, 4) < 0.5
    z, x = torch.randn(N, 2), torch.ones(N, 1, 4, 4)
    each = likelihood.likelihood(z).base_dist.log_prob(x)
    expected = torch.where(observed, each, 0.0).flatten(1).sum(1)
    torch.testing.assert_close(likelihood(z, observed).log_prob(x), expected)


@pytest.mark.slow
def test_a_compiled_trainer_learns_from_incomplete_data_as_an_eager_one():
    x, observed = torch.randn(64, D), torch.rand(64, D) < 0.7
    data = (torch.where(observed, x, 0.0), observed)
    torch.manual_seed(1)
    first = linear_pair(torch.randn(D, 2), 0.5)
    losses = []
    for compiled in (False, True):
        vae = linear_pair(first.generator.likelihood.likelihood.net.weight.data, 0.5)
        vae.load_state_dict(first.state_dict())
        trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=0.01, compile=compiled)
        history = trainer.fit(dgm.Batches(data, 16), epochs=2, seed=0)
        losses.append([row["train_loss"] for row in history])
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]))
    assert losses[0][-1] < losses[0][0]


def test_likelihoods_whose_dims_depend_on_each_other_are_refused_by_name():
    flow = dgm.Flow(dgm.Normal(nn.Linear(2, D)), dgm.realnvp(D, layers=2))
    with pytest.raises(
        ValueError, match=r"Observed: expected a distribution whose dims are indep.*Fix"
    ):
        Observed(flow)(torch.randn(N, 2), mask())


def test_masks_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"Observed: expected a mask \(N, \*\(4,\)\).*got \(6, 3\)"
    ):
        Observed(dgm.Bernoulli(dgm.mlp(2, D)))(torch.randn(N, 2), mask()[:, :3])


def test_no_conditional_is_refused():
    with pytest.raises(TypeError, match="likelihood: expected a conditional"):
        Observed(dgm.mlp(2, D))
