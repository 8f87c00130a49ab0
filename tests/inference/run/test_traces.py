import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from pyro import poutine
from torch import nn
from toys import GlobalMean, GlobalMeanGuide, Series, SeriesGuide, linear_gaussian

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import eval_mode, fork_rng, without_handlers
from pyro_dgm.inference.run.traces import (
    latent_sites,
    log_density,
    observed_sites,
    plate_depth,
    plate_names,
    plate_value,
    run_pair,
    scaled_sum,
    sites_of,
)


@pytest.mark.parametrize(**over(PAIRS))
def test_the_model_is_replayed_against_the_draws_of_the_guide(build):
    case = build()
    guide_trace, model_trace = run_pair(case.model, case.guide, case.batch(3), num=4)
    assert set(latent_sites(guide_trace)) == set(latent_sites(model_trace))
    for name, site in latent_sites(guide_trace).items():
        assert model_trace.nodes[name]["value"] is site["value"]
        assert site["value"].shape[:2] == (4, 3)


def test_each_program_runs_exactly_once():
    model, guide, x = linear_gaussian()
    calls = []
    for program in (model, guide):
        program.register_forward_hook(lambda module, *_: calls.append(module))
    run_pair(model, guide, (x,), num=5)
    assert calls == [guide, model]


def test_particles_take_the_dim_left_of_the_deepest_plate():
    guide_trace, model_trace = run_pair(
        Series(), SeriesGuide(), (torch.zeros(5, 3),), num=7, depth=2
    )
    assert model_trace.nodes["u"]["value"].shape == (7, 3, 5)
    assert plate_names(model_trace.nodes["u"]) == ["particles", "time", "data"]
    assert plate_names(model_trace.nodes["z"]) == ["particles", "data"]
    assert guide_trace.nodes["z"]["value"].shape == (7, 1, 5)
    assert plate_depth(guide_trace, model_trace) == 3


def test_plate_value_drops_the_dims_that_belong_to_no_plate_of_the_site():
    _, model_trace = run_pair(Series(), SeriesGuide(), (torch.zeros(1, 3),), num=7, depth=2)
    assert plate_value(model_trace.nodes["z"]).shape == (7, 1)  # one datum, no time
    assert plate_value(model_trace.nodes["u"]).shape == (7, 3, 1)


def test_index_sites_of_subsampling_plates_are_no_sample_sites():
    _, model_trace = run_pair(GlobalMean(size=9), GlobalMeanGuide(size=9), (torch.zeros(4),))
    assert list(sites_of(model_trace)) == ["mu", "z", "x"]
    assert list(observed_sites(model_trace)) == ["x"]


def test_log_density_applies_masks_and_never_scales():
    x = torch.randn(4)
    mask = torch.tensor([True, False, True, True])

    def program():
        with pyro.plate("data", 4, dim=-1), poutine.scale(scale=3.0), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    site = poutine.trace(program).get_trace().nodes["x"]
    expected = torch.where(mask, dist.Normal(0.0, 1.0).log_prob(x), 0.0)
    assert torch.equal(log_density(site), expected)
    torch.testing.assert_close(scaled_sum(site, log_density(site)), 3 * expected.sum())


def test_isolated_forks_and_seeds_the_random_state():
    before = torch.get_rng_state()
    with fork_rng(seed=3):
        first = torch.rand(2)
    with fork_rng(seed=3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unhandled_run_is_seen_by_no_handler_and_in_no_plate():
    """A program that asks for a run of itself in the midst of its plate; afterwards the handlers are back."""
    model, shapes = dgm.DensityModel(dgm.StandardNormal(3)), []

    def program(x):
        with dgm.data_plate(x):
            with without_handlers():
                shapes.append(model(torch.zeros(5, 3)).shape)
                shapes.append(model(None).shape)
            return pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)

    trace = poutine.trace(program).get_trace(torch.zeros(2, 3))
    assert shapes == [(5, 3), (1, 3)]
    assert trace.nodes["x"]["fn"].batch_shape == (2,)
    assert list(sites_of(trace)) == ["x"]


def test_handlers_are_back_after_an_unhandled_run_that_raises():
    def program(x):
        with dgm.data_plate(x):
            with pytest.raises(ZeroDivisionError), without_handlers():
                1 / 0  # noqa: B018
            return pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    assert "x" in poutine.trace(program).get_trace(torch.zeros(2)).nodes


def test_evaluating_restores_every_mode_even_when_it_raises():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    module[1].eval()

    def inside():
        with eval_mode(module, lambda: None):
            assert not any(m.training for m in module.modules())
            assert not torch.is_grad_enabled()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        inside()
    assert [m.training for m in module.modules()] == [True, True, False, False]
    assert torch.is_grad_enabled()


def test_a_program_without_plates_has_the_depth_of_the_data_plate():
    assert plate_depth(poutine.trace(dgm.EmptyGuide()).get_trace(torch.zeros(2))) == 1
