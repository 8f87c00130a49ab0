"""Zeros and ones one after the other: exact masses, the sampler of those masses, and what the parts must be."""

from __future__ import annotations

from itertools import product

import pyro.distributions as dist
import pytest
import torch
from cases import randomize
from conftest import in_float64
from scipy.stats import chi2
from torch import nn

import pyro_dgm as dgm

DIM = 5


def rows():
    """Every row of zeros and ones."""
    return torch.tensor(list(product([0.0, 1.0], repeat=DIM)))


def columns(context=0, *, reverse=False, net=None, scale=None):
    """A density of five columns with weights far from those of independent ones."""
    made = dgm.flows.MADE(DIM, context, (12, 9), num_params=1, reverse=reverse)
    module = dgm.distributions.AutoregressiveBernoulli(made, net, scale=scale)
    return randomize(module, scale=0.7)


CASES = {
    "density": (columns, ()),
    "reversed": (lambda: columns(reverse=True), ()),
    "scaled": (lambda: columns(scale=dgm.nn.Rescale(0, 1)), ()),
    "of a context": (lambda: columns(3), (7, 1, 3)),
    "of a context, added": (lambda: columns(net=dgm.mlp(3, 8, DIM)), (7, 1, 3)),
    "of a context, both": (lambda: columns(3, net=dgm.mlp(3, 8, DIM)), (7, 1, 3)),
}
cases = pytest.mark.parametrize(("build", "context"), CASES.values(), ids=CASES)


@in_float64
@cases
def test_the_masses_of_all_rows_sum_to_one_at_every_context(build, context):
    contexts = (torch.randn(context),) if context else ()
    total = build()(*contexts).log_prob(rows()).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@in_float64
@pytest.mark.parametrize("reverse", [False, True])
def test_a_mass_is_the_product_of_the_conditionals_one_at_a_time(reverse):
    """Each conditional is read off rows whose own and later columns are noise."""
    module, c, x = columns(3, reverse=reverse), torch.randn(32, 3), rows()
    expected = torch.zeros(32)
    for i in range(DIM):
        earlier = torch.arange(DIM) > i if reverse else torch.arange(DIM) < i
        hidden = torch.where(earlier, x, torch.bernoulli(torch.full_like(x, 0.5)))
        p = module.logits_given(hidden, None, c)[:, i].sigmoid()
        expected += torch.where(x[:, i] == 1, p, 1 - p).log()
    torch.testing.assert_close(module(c).log_prob(x), expected)


@pytest.mark.parametrize("scale", [None, dgm.nn.Rescale(0, 1)])
@pytest.mark.parametrize("reverse", [False, True])
def test_draws_have_the_masses_that_are_scored(reverse, scale):
    """Chi-square of 20,000 draws over all rows at level 1e-6."""
    law, num = columns(reverse=reverse, scale=scale)(), 20_000
    expected = num * law.log_prob(rows()).exp().detach()
    draws = law.sample((num,))
    counts = (draws[:, None] == rows()).all(-1).sum(0)
    assert counts.sum() == num
    statistic = ((counts - expected).square() / expected.clamp(min=1)).sum()
    assert float(statistic) < chi2.isf(1e-6, len(counts) - 1)


@in_float64
def test_a_draw_given_a_context_has_its_conditional_means():
    """20,000 draws for each of three contexts; the largest of 15 standard scores is below 5."""
    module, c, num = columns(3, net=dgm.mlp(3, 8, DIM)), torch.randn(3, 3), 20_000
    law = module(c)
    p = law.log_prob(rows()[:, None]).exp().T @ rows()
    found = law.sample((num,)).mean(0)
    z = (found - p) / (p * (1 - p) / num).sqrt()
    assert z.abs().max() < 5


@in_float64
def test_it_is_bernoulli_of_its_network_at_the_start():
    net, z = dgm.mlp(3, 8, DIM), torch.randn(7, 3)
    made = dgm.flows.MADE(DIM, 3, num_params=1)
    found = dgm.distributions.AutoregressiveBernoulli(made, net)(z).log_prob(rows()[:7].double())
    torch.testing.assert_close(found, dgm.Bernoulli(net)(z).log_prob(rows()[:7]))


def test_rows_of_any_dtype_are_scored():
    law = columns()()
    assert torch.equal(law.log_prob(rows().bool()), law.log_prob(rows()))


def test_several_contexts_are_joined_by_embed():
    made = dgm.flows.MADE(DIM, 4, num_params=1)
    embed = dgm.Concat(dgm.mlp(3 + 2, 4))
    module = dgm.distributions.AutoregressiveBernoulli(made, embed=embed)
    assert module(torch.zeros(6, 1, 3), torch.zeros(4, 2)).sample().shape == (6, 4, DIM)


def test_a_changed_weight_makes_the_distribution_unusable():
    module = columns()
    law = module()
    with torch.no_grad():
        module.made.last.bias.add_(1)
    with pytest.raises(ValueError, match="expected the weights with which this distribution"):
        law.log_prob(rows())


def test_parts_that_do_not_fit_are_refused():
    AutoregressiveBernoulli = dgm.distributions.AutoregressiveBernoulli
    with pytest.raises(TypeError, match="expected a MADE, got MLP"):
        AutoregressiveBernoulli(dgm.mlp(5, 5))
    with pytest.raises(ValueError, match="one logit per coordinate, got num_params=2"):
        AutoregressiveBernoulli(dgm.flows.MADE(5))
    with pytest.raises(TypeError, match="expected a network"):
        AutoregressiveBernoulli(dgm.flows.MADE(5, num_params=1), net=dgm.StandardNormal(5))
    with pytest.raises(ValueError, match="expected one context, got 0"):
        columns(3)()
    with pytest.raises(ValueError, match="expected one context, got 2"):
        columns(3)(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="expected no context, got 1"):
        columns()(torch.zeros(2, 3))


def test_a_vae_of_it_is_trained_and_scored():
    """Two columns that are equal, whatever z is: a code of one bit is not needed."""
    x = torch.bernoulli(torch.full((256, 1), 0.5)).expand(-1, 2).contiguous()
    made = dgm.flows.MADE(2, 3, (16,), num_params=1)
    likelihood = dgm.distributions.AutoregressiveBernoulli(made, net=nn.Linear(3, 2))
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(2, 8, 6))
    vae = dgm.VAE(dgm.StandardNormal(3), likelihood, encoder)
    trainer = dgm.SVITrainer(dgm.ELBO(vae.model, vae.guide), lr=3e-2)
    trainer.fit(x, epochs=40, batch_size=64, progress=False)
    assert dgm.nll(vae.model, vae.guide, x, num=50).mean < 0.8  # log 2 = 0.693; 1.386 if apart
