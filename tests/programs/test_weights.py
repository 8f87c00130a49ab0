"""A distribution kept over a change of weights is of the old ones, or refuses: never half of each."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from cases import CONDITIONALS, over, randomize
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.programs.weights import Weights

LEARNED = {n: build for n, build in CONDITIONALS.items() if list(build().module.parameters())}
REFUSED = r"(?s)expected the weights with which this distribution was made.*Fix: call the conditional again"


def check_kept(read, old):
    """What is read of a kept distribution is of the old weights, or refused."""
    try:
        kept = read()
    except ValueError as error:
        with pytest.raises(ValueError, match=REFUSED):
            raise error
    else:
        torch.testing.assert_close(kept, old)


def given_point(case, contexts, law):
    """A point that another distribution of the same weights has drawn."""
    return case.module(*contexts).sample().detach()


def own_draw(case, contexts, law):
    """A draw of the distribution itself, which may know the pass that made it."""
    return law.rsample() if law.has_rsample else law.sample()


@pytest.mark.parametrize(**over(LEARNED))
@pytest.mark.parametrize("point", [given_point, own_draw])
def test_a_kept_distribution_has_the_old_density_or_refuses(point, build):
    case = build()
    contexts = case.contexts(3)
    law, same_law = case.module(*contexts), case.module(*contexts)
    x = point(case, contexts, law)
    old = same_law.log_prob(x.detach().clone())
    randomize(case.module, scale=0.5)
    check_kept(lambda: law.log_prob(x), old)


@pytest.mark.parametrize(**over(LEARNED))
def test_a_kept_distribution_draws_by_the_old_weights_or_refuses(build):
    case = build()
    contexts = case.contexts(3)
    law, same_law = case.module(*contexts), case.module(*contexts)
    state = torch.get_rng_state()
    old = same_law.sample()
    randomize(case.module, scale=0.5)
    torch.set_rng_state(state)
    check_kept(law.sample, old)


class Bias(nn.Module):
    """A network that returns its parameter itself, for every context."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, c):
        return self.bias.expand(*c.shape[:-1], 4)


@pytest.mark.parametrize(
    "conditional",
    [
        dgm.Conditional(dist.Normal, Bias()),
        dgm.Normal(Bias()),
        dgm.DiscretizedLogistic(Bias(), levels=8),
        dgm.Bernoulli(Bias()),
    ],
    ids=lambda conditional: type(conditional).__name__,
)
def test_a_parameter_that_is_the_network_s_output_does_not_move_under_its_distribution(conditional):
    law = conditional(torch.zeros(3, 1))
    x = law.sample()
    old = law.log_prob(x)
    randomize(conditional)
    torch.testing.assert_close(law.log_prob(x), old)


def test_a_step_of_the_optimizer_a_load_and_another_parameter_are_changes():
    flow = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, layers=1))
    x = torch.randn(5, 2)
    optimizer = torch.optim.Adam(flow.parameters())
    law = flow()
    (-law.log_prob(x).mean()).backward()
    optimizer.step()
    with pytest.raises(ValueError, match=REFUSED):
        law.log_prob(torch.randn(5, 2))

    law = flow()
    flow.load_state_dict(copy.deepcopy(flow.state_dict()))
    with pytest.raises(ValueError, match=REFUSED):
        law.log_prob(x)

    net = nn.Linear(2, 2)
    weights = Weights("Flow", net)
    weights.require_unchanged()
    net.bias = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=REFUSED):
        weights.require_unchanged()


def test_new_distributions_are_of_the_new_weights():
    flow = dgm.Flow(dgm.StandardNormal(2), dgm.realnvp(2, 2))
    flow()
    randomize(flow)
    x = flow().sample((3,))
    torch.testing.assert_close(flow().log_prob(x), copy.deepcopy(flow)().log_prob(x))
