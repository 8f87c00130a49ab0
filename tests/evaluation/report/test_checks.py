"""Exact pairs pass every item, and each fault is found by the item that is about it."""

from __future__ import annotations

import json
from math import log

import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS
from conftest import both_dtypes, in_float64
from reports import NAMES, QUICK, pair, skipped, statuses, warned
from torch import nn
from toys import ExactGuide, LinearGaussian, toy_vae

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status


@both_dtypes
def test_an_exact_guide_of_its_own_data_passes_every_item():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(2000), num=200, limit=500)
    assert [item.name for item in report.items] == NAMES
    assert set(statuses(report).values()) == {Status.PASS}, str(report)
    assert report.passed
    assert report["NLL-ELBO gap"].value == pytest.approx(0, abs=1e-6)
    assert report["k-hat"].value == 0


@pytest.mark.parametrize("wrong", [{"shift": 0.1}, {"spread": 0.7}])
def test_a_mean_off_by_a_tenth_or_a_scale_too_small_is_found_by_calibration(wrong):
    model, guide = pair(latent=1, **wrong)
    report = dgm.check(model, guide, model.data(300), num=200)
    assert "SBC" in warned(report)
    assert "smallest p after Holm's correction: " in report["SBC"].finding
    assert not report.passed
    assert "NLL-ELBO gap" not in warned(report), "a tenth of a nat at most"


def test_a_guide_far_off_is_found_by_its_weights():
    """The mean off by three standard deviations in two dims: KL = 9 nats and hopeless weights."""
    model, guide = pair(shift=3.0)
    report = dgm.check(model, guide, model.data(200), num=200, num_simulated=500)
    assert {"NLL-ELBO gap", "k-hat", "importance ESS", "SBC"} <= warned(report)
    assert "gaps(model, guide, x)" in report["NLL-ELBO gap"].advice


class Alone(nn.Module):
    """A decoder that ignores z."""

    def forward(self, z):
        return dist.Normal(torch.zeros(*z.shape[:-1], 3), 1.0).to_event(1)


def test_a_collapsed_pair_is_found_by_its_units_and_its_information():
    vae = dgm.VAE(dgm.StandardNormal(2), Alone(), dgm.StandardNormal(2))
    report = dgm.check(vae.model, vae.guide, torch.randn(300, 3), **QUICK)
    assert warned(report) == {"active units", "mutual information"}
    assert report["active units"].value == 1
    assert "0 of 2 units are active" in report["active units"].finding


def test_an_aggregate_away_from_the_prior_is_found_in_nats_and_by_the_test():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(1000) + 4 * model.weight.detach().sum(1), **QUICK)
    assert warned(report) == {"aggregate-prior gap", "aggregate-prior test"}
    assert "refit_prior(vae, x, prior) for a VAE" in report["aggregate-prior gap"].advice
    finding = report["aggregate-prior test"].finding
    assert "between 1,000 draws of q(z|x), one per datum, and 1,000 of the prior" in finding
    assert "real" not in finding
    assert "fake" not in finding


def test_too_few_draws_for_a_khat_are_told():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(10), num=20, num_simulated=50)
    assert skipped(report) == {
        "k-hat": "a k-hat takes 21 draws for each datum, got num=20. Fix: num=1000"
    }


def test_an_error_that_one_draw_cannot_tell_is_no_pass():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(10), num=1, num_simulated=50)
    assert report["importance ESS"].status is Status.WARN
    assert report["importance ESS"].value == 1


def test_a_gap_that_ten_data_cannot_measure_is_no_verdict():
    """Sharp posteriors of 10 data: mutual information log 10, and all else of the KL would count as marginal."""
    torch.manual_seed(3)
    model = LinearGaussian(latent=2, observed=4, scale=0.01)
    report = dgm.check(model, ExactGuide(model), model.data(10), **QUICK)
    assert report["aggregate-prior gap"].status is Status.SKIP
    assert report["aggregate-prior gap"].value > 1
    assert (
        "an upper bound alone, for the mutual information is at its ceiling"
        in report["aggregate-prior gap"].finding
    )


class Leaky(dist.Categorical):
    """Five levels whose masses sum to 0.9."""

    def log_prob(self, value):
        return super().log_prob(value) + log(0.9)

    def expand(self, batch_shape, _instance=None):
        return Leaky(logits=self.logits.expand(*batch_shape, 5), validate_args=False)


class LeakyLikelihood(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 15)

    def forward(self, z):
        return Leaky(logits=self.net(z).unflatten(-1, (3, 5))).to_event(1)


def test_masses_that_sum_to_nine_tenths_are_found_by_normalization():
    vae = dgm.VAE(
        dgm.StandardNormal(2), LeakyLikelihood(), dgm.Conditional(dist.Normal, nn.Linear(3, 4))
    )
    report = dgm.check(
        vae.model, vae.guide, torch.randint(5, (50, 3)).to(torch.get_default_dtype()), **QUICK
    )
    assert report["normalization"].status is Status.WARN
    assert report["normalization"].value == pytest.approx(-3 * log(0.9), abs=1e-5)
    assert "a guide that takes what it generates; got an error" in report["SBC"].finding, (
        "integers, for a network"
    )


def test_weights_that_are_not_finite_are_counted():
    vae = toy_vae()
    with torch.no_grad():
        next(vae.model.parameters()).fill_(torch.nan)
    report = dgm.check(vae.model, vae.guide, torch.randn(20, 3), **QUICK)
    assert warned(report) == {"data and sites", "finite numbers"}
    assert report["finite numbers"].value == 1
    json.dumps(report.as_dict(), allow_nan=False)


def test_data_outside_the_support_are_told_once():
    case = PAIRS["vae_categorical"]()
    report = dgm.check(case.model, case.guide, torch.full((20, 3), 9), **QUICK)
    assert warned(report) == {"data and sites"}
    assert report["data and sites"].finding.endswith("got from 9 to 9.")
    assert report["data and sites"].advice.startswith("levels=10 where the model says")
    assert set(skipped(report).values()) == {
        "not run: the pair can't be scored on these data, see above"
    }
    assert len(skipped(report)) == len(NAMES) - 1


@in_float64
def test_its_numbers_are_those_of_the_functions():
    vae, x = toy_vae(), torch.randn(60, 3)
    report = dgm.check(vae.model, vae.guide, x, num=50, limit=60, num_simulated=100)
    nll = dgm.nll(vae.model, vae.guide, x, num=50)
    assert report["NLL-ELBO gap"].value == (nll.nelbo - nll.per_datum).mean().item()
    assert report["k-hat"].value == nll.share_unreliable
    surgery = dgm.surgery(vae.model, vae.guide, x, num=1000)
    assert report["mutual information"].value == surgery.mutual_information.value
    assert (
        report["aggregate-prior test"].value == dgm.aggregate_test(vae.model, vae.guide, x).p_value
    )
    assert report["SBC"].value == dgm.sbc(vae.model, vae.guide, num_data=100).adjusted.min().item()
