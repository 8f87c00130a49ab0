"""Every conditional under autocast: networks may run in bfloat16, and densities still sum to one."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from cases import CONDITIONALS, over, plane
from test_laws import enumerated

import pyro_dgm as dgm

in_float32 = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
bfloat16 = torch.autocast("cpu", dtype=torch.bfloat16)


@in_float32
@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if b().levels}))
def test_masses_sum_to_one_under_autocast(build, dtype):
    case = build()
    with torch.no_grad(), bfloat16:
        log_p = case.module(*case.contexts()).log_prob(enumerated(case))
    assert log_p.dtype == torch.float32
    assert abs(log_p.double().exp().sum().item() - 1) < 1e-5


@in_float32
@pytest.mark.parametrize(**over({n: b for n, b in CONDITIONALS.items() if not b().levels}))
def test_densities_integrate_to_one_under_autocast(build, dtype):
    case = build()
    with torch.no_grad(), bfloat16:
        law = case.module(*case.contexts())
        grid, weights = plane(law)
        log_p = law.log_prob(grid)
    assert log_p.dtype == torch.float32
    assert abs((log_p.double().exp() * weights.double()).sum().item() - 1) < 2e-3


@in_float32
@pytest.mark.parametrize(**over(CONDITIONALS))
def test_draws_and_their_densities_are_in_float32_under_autocast(build, dtype):
    case = build()
    with torch.no_grad(), bfloat16:
        law = case.module(*case.contexts(3))
        x = law.sample()
        log_p = law.log_prob(x)
    assert x.dtype in (torch.float32, torch.int64)  # categories are integers
    assert log_p.dtype == torch.float32
    assert bool(log_p.isfinite().all())


@in_float32
def test_a_flow_under_autocast_is_the_flow_in_float32(dtype):
    flow = dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, 4))
    x = torch.randn(5, 3)
    with bfloat16:
        log_p = flow().log_prob(x)
    assert torch.equal(log_p, flow().log_prob(x))


@in_float32
def test_a_prior_of_posteriors_given_a_label_has_weights_in_float32(dtype):
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(3 + 2, 4)))
    prior = dgm.VampPrior(encoder, torch.randn(7, 3))
    weights = prior(torch.zeros(4, 2).bfloat16()).log_weights
    assert weights.dtype == torch.float32
    assert abs(weights.double().exp().sum().item() - 1) < 1e-6
