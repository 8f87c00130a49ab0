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


@pytest.mark.parametrize(**over(LEARNED))
def test_a_kept_distribution_has_the_old_density_of_given_points_or_refuses(build):
    case = build()
    contexts = case.contexts(3)
    law, same_law = case.module(*contexts), case.module(*contexts)
    x = case.module(*contexts).sample().detach()
    old = same_law.log_prob(x)
    randomize(case.module, scale=0.5)
    try:
        kept = law.log_prob(x)
    except ValueError as error:
        with pytest.raises(ValueError, match=REFUSED):
            raise error
    else:
        torch.testing.assert_close(kept, old)


@pytest.mark.parametrize(**over(LEARNED))
def test_a_kept_distribution_scores_its_own_old_draw_by_the_old_weights_or_refuses(build):
    case = build()
    contexts = case.contexts(3)
    law, same_law = case.module(*contexts), case.module(*contexts)
    x = law.rsample() if law.has_rsample else law.sample()
    old = same_law.log_prob(x.detach().clone())
    randomize(case.module, scale=0.5)
    try:
        kept = law.log_prob(x)
    except ValueError as error:
        with pytest.raises(ValueError, match=REFUSED):
            raise error
    else:
        torch.testing.assert_close(kept, old)


@pytest.mark.parametrize(**over(LEARNED))
def test_a_kept_distribution_draws_by_the_old_weights_or_refuses(build):
    case = build()
    contexts = case.contexts(3)
    law, same_law = case.module(*contexts), case.module(*contexts)
    state = torch.get_rng_state()
    old = same_law.sample()
    randomize(case.module, scale=0.5)
    torch.set_rng_state(state)
    try:
        kept = law.sample()
    except ValueError as error:
        with pytest.raises(ValueError, match=REFUSED):
            raise error
    else:
        torch.testing.assert_close(kept, old)


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
