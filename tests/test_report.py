"""One report: exact pairs pass every item, each fault is found by the item that is about it, and nothing else moves."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from conftest import in_float64
from torch import nn
from toys import ExactGuide, GlobalMean, GlobalMeanGuide, LinearGaussian, Series, SeriesGuide, Written, toy_vae

import pyro_dgm as dgm
from pyro_dgm import Status

QUICK = {"num": 100, "limit": 50, "num_simulated": 200}
NAMES = [
    "data and sites",
    "finite numbers",
    "normalization",
    "active units",
    "mutual information",
    "NLL-ELBO gap",
    "k-hat",
    "importance ESS",
    "SBC",
    "aggregate-prior gap",
    "aggregate-prior test",
]


def pair(latent=2, **options):
    """A linear-Gaussian model and a guide that is off by `shift` standard deviations or by `spread`."""
    torch.manual_seed(3)
    model = LinearGaussian(latent=latent, observed=4)
    sd = ExactGuide(model).root[0, 0].item()
    return model, ExactGuide(model, shift=options.get("shift", 0.0) * sd, spread=options.get("spread", 1.0))


def statuses(report):
    return {item.name: item.status for item in report.items}


def warned(report):
    return {name for name, status in statuses(report).items() if status is Status.WARN}


def skipped(report):
    return {item.name: item.finding for item in report.items if item.status is Status.SKIP}


# Verdicts -------------------------------------------------------------------------------------------------------------


def test_an_exact_guide_of_its_own_data_passes_every_item():
    model, guide = pair()
    report = dgm.check(model, guide, model.data(2000), num=200, limit=500)
    assert [item.name for item in report.items] == NAMES
    assert set(statuses(report).values()) == {Status.PASS}, str(report)
    assert report.passed
    assert report["NLL-ELBO gap"].value == pytest.approx(0, abs=1e-10)
    assert report["k-hat"].value == 0


@pytest.mark.parametrize("wrong", [{"shift": 0.1}, {"spread": 0.7}])
def test_a_mean_off_by_a_tenth_or_a_scale_too_small_is_found_by_calibration(wrong):
    model, guide = pair(latent=1, **wrong)
    report = dgm.check(model, guide, model.data(300), num=200)
    assert "SBC" in warned(report)
    assert not report.passed
    assert "NLL-ELBO gap" not in warned(report), "a tenth of a nat at most"


def test_a_guide_far_off_is_found_by_its_weights():
    """The mean off by three standard deviations in two dims: KL = 9 nats and hopeless weights."""
    model, guide = pair(shift=3.0)
    report = dgm.check(model, guide, model.data(200), num=200, num_simulated=500)
    assert {"NLL-ELBO gap", "k-hat", "importance ESS", "SBC"} <= warned(report)
    assert "gaps(vae, x)" in report["NLL-ELBO gap"].advice


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
    assert "refit_prior" in report["aggregate-prior gap"].advice


def test_a_gap_that_ten_data_cannot_measure_is_no_verdict():
    """Sharp posteriors of 10 data: mutual information log 10, and all else of the KL would count as marginal."""
    torch.manual_seed(3)
    model = LinearGaussian(latent=2, observed=4, scale=0.01)
    report = dgm.check(model, ExactGuide(model), model.data(10), **QUICK)
    assert report["aggregate-prior gap"].status is Status.SKIP
    assert report["aggregate-prior gap"].value > 1
    assert "an upper bound alone, for the mutual information is at its ceiling" in report["aggregate-prior gap"].finding


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
    vae = dgm.VAE(dgm.StandardNormal(2), LeakyLikelihood(), dgm.Conditional(dist.Normal, nn.Linear(3, 4)))
    report = dgm.check(vae.model, vae.guide, torch.randint(5, (50, 3)).to(torch.get_default_dtype()), **QUICK)
    assert report["normalization"].status is Status.WARN
    assert report["normalization"].value == pytest.approx(-3 * log(0.9), abs=1e-5)
    assert "a guide that takes what it generates; got an error" in report["SBC"].finding, "integers, for a network"


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
    assert "Fix: set levels= to the number of levels" in report["data and sites"].finding
    assert set(skipped(report).values()) == {"not run: the pair can't be scored on these data, see above"}
    assert len(skipped(report)) == len(NAMES) - 1


# What a pair can't give -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(**over(PAIRS))
def test_every_pair_has_a_report(build):
    case = build()
    report = dgm.check(case.model, case.guide, *case.batch(12), num=20, num_simulated=30)
    assert [item.name for item in report.items] == NAMES
    assert report["finite numbers"].status is Status.PASS
    assert all(reason for reason in skipped(report).values())


def test_a_guide_that_cannot_score_given_points_skips_surgery_with_its_reason():
    case = PAIRS["vae_one_way"]()
    found = skipped(dgm.check(case.model, case.guide, *case.batch(12), **QUICK))
    assert set(found) == {"mutual information", "aggregate-prior gap"}
    assert "inverse" in found["mutual information"]


def test_a_model_without_latents_skips_what_is_about_them():
    case = PAIRS["density_flow"]()
    found = skipped(dgm.check(case.model, case.guide, *case.batch(12), **QUICK))
    assert set(found) == {*NAMES} - {"data and sites", "finite numbers"}
    assert found["k-hat"] == "the model has no latents: its log density is exact"
    assert found["active units"] == "the pair has no latents that could collapse"
    assert "does not factorize over its event" in found["normalization"]


def test_noise_alone_has_weights_but_no_latents():
    case = PAIRS["density_dequantized"]()
    found = skipped(dgm.check(case.model, case.guide, *case.batch(12), **QUICK))
    assert "is dequantized" in found["normalization"]
    assert not {"NLL-ELBO gap", "k-hat"} & set(found)
    assert {"SBC", "active units", "aggregate-prior test", "mutual information"} <= set(found)


def test_a_global_site_skips_all_that_is_per_datum():
    report = dgm.check(GlobalMean(), GlobalMeanGuide(), torch.randn(20), **QUICK)
    assert report["data and sites"].status is Status.PASS
    assert all("site 'mu': expected a site inside the plate" in reason for reason in skipped(report).values())
    assert set(skipped(report)) == {*NAMES} - {"data and sites"}


def test_a_model_that_does_not_generate_skips_what_needs_its_data():
    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    found = skipped(dgm.check(Written(model), Written(guide), torch.randn(30, 2), **QUICK))
    assert set(found) == {"SBC", "aggregate-prior test"}
    assert "expected a model that generates when x is None" in found["SBC"]
    assert "'NoneType' object has no attribute 'shape'" in found["SBC"]


def test_one_datum_is_no_crash(tmp_path):
    model, guide = pair()
    report = dgm.check(model, guide, model.data(1), **QUICK)
    assert "expected at least two data" in skipped(report)["active units"]
    report.html(tmp_path / "one.html")


def test_several_sites_and_further_plates_have_units_of_their_own(tmp_path):
    report = dgm.check(Series(), SeriesGuide(), torch.randn(12, 3), **QUICK)
    report.html(tmp_path / "plates.html")
    assert "of 4 units are active" in report["active units"].finding


# The report -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """A report on images of 36 pixels by a VAE that was never trained."""
    torch.manual_seed(0)
    vae = dgm.VAE(
        dgm.StandardNormal(3),
        dgm.DiscretizedLogistic(dgm.mlp(3, 8, 2 * 36), levels=5),
        dgm.Conditional(dist.Normal, dgm.mlp(36, 8, 6)),
    )
    return dgm.check(vae.model, vae.guide, torch.randint(5, (80, 36)).float(), **QUICK)


class Page(HTMLParser):
    """Tags that are open, attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.images = [], [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.images += tag == "img"
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_every_item_and_picture_and_nothing_from_outside(digits, tmp_path):
    digits.html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert all(item.name in page.text and item.finding in page.text for item in digits.items)
    assert all(item.advice in page.text for item in digits.items)
    assert page.images == sum(len(item.pictures) for item in digits.items) >= 6
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_escapes_what_users_name(tmp_path):
    def fine(findings):
        return dgm.Item(Status.PASS, "a < b & <script>alert(1)</script>")

    model, guide = pair()
    report = dgm.check(model, guide, model.data(5), checks=[dgm.Check("<i>mine</i>", fine)])
    report.html(tmp_path / "report.html")
    assert "<script>" not in (tmp_path / "report.html").read_text()
    assert "&lt;i&gt;mine&lt;/i&gt;" in (tmp_path / "report.html").read_text()


def test_json_says_everything_and_is_strict(digits, tmp_path):
    digits.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(digits.as_dict()))
    assert read["settings"] == {
        **{"num_data": 80, "num_scored": 50, "num": 100, "limit": 50, "num_simulated": 200},
        **{"seed": 0, "image_shape": [6, 6]},
    }
    for item, row in zip(digits.items, read["items"], strict=True):
        assert (row["name"], row["status"], row["value"]) == (item.name, item.status, item.value)
        assert row["threshold"] is None or row["threshold"]["reason"]
    assert len(read["items"][6]["rows"]) == 12


def test_the_table_fits_a_terminal_and_names_what_to_do(digits):
    lines = str(digits).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Check of a fitted model and its guide: WARN.")
    assert all(any(line.split("  ")[1] == item.name for line in lines[2:14]) for item in digits.items)
    assert f"WARN SBC: {digits['SBC'].finding[:30]}" in str(digits)


def test_the_same_seed_gives_the_same_report_to_the_last_bit(tmp_path):
    vae = toy_vae()
    x = torch.randn(40, 3)
    first, second, other = (dgm.check(vae.model, vae.guide, x, **QUICK, seed=seed) for seed in (0, 0, 1))
    assert first == second != other
    for number, report in enumerate((first, second)):
        report.html(tmp_path / f"{number}.html")
    assert (tmp_path / "0.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_it_leaves_weights_modes_gradients_and_the_random_state_alone():
    vae, before = toy_vae(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    dgm.check(vae.model, vae.guide, torch.randn(30, 3, generator=torch.Generator().manual_seed(1)), **QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    assert all(m.training for m in vae.modules())
    assert all(p.grad is None for p in vae.parameters())


@in_float64
def test_its_numbers_are_those_of_the_functions():
    vae, x = toy_vae(), torch.randn(60, 3)
    report = dgm.check(vae.model, vae.guide, x, num=50, limit=60, num_simulated=100)
    nll = dgm.nll(vae.model, vae.guide, x, num=50)
    assert report["NLL-ELBO gap"].value == (nll.nelbo - nll.per_datum).mean().item()
    assert report["k-hat"].value == nll.share_unreliable
    surgery = dgm.surgery(vae.model, vae.guide, x, num=1000)
    assert report["mutual information"].value == surgery.mutual_information.value
    assert report["aggregate-prior test"].value == dgm.aggregate_test(vae.model, vae.guide, x).p_value
    assert report["SBC"].value == dgm.sbc(vae.model, vae.guide, num_data=100).adjusted.min().item()


def test_a_large_set_is_scored_at_rows_of_the_seed_and_its_aggregate_is_whole():
    model, guide = pair()
    rows = []

    def sizes(findings):
        rows.append((findings.num_data, findings.rows, len(findings.nll.per_datum), findings.surgery.num_data))
        return dgm.Item(Status.PASS, "seen")

    for seed in (0, 1):
        dgm.check(model, guide, model.data(90), num=10, limit=30, checks=[dgm.Check("sizes", sizes)], seed=seed)
    assert [row[0] for row in rows] == [90, 90]
    assert [row[2:] for row in rows] == [(30, 90), (30, 90)]
    assert bool((rows[0][1].diff() > 0).all())
    assert not torch.equal(rows[0][1], rows[1][1])


def test_checks_of_the_user_join_and_only_what_they_ask_for_is_computed():
    seen = []

    def large(findings):
        seen.append(dict(findings.found))
        return dgm.Item(Status.WARN, f"{findings.num_data} data", advice="collect more")

    def never(findings):
        raise dgm.Skipped("no reason")

    model, guide = pair()
    checks = [dgm.Check("sample size", large), dgm.Check("nothing", never)]
    report = dgm.check(model, guide, model.data(6), checks=checks)
    assert seen == [{}]
    assert statuses(report) == {"sample size": Status.WARN, "nothing": Status.SKIP}
    assert report["sample size"].advice == "collect more"
    assert "WARN sample size: 6 data. Fix: collect more." in str(report)
    assert dgm.check(model, guide, model.data(6), checks=checks[1:]).verdict is Status.SKIP


def test_an_error_of_a_check_is_no_skip():
    def broken(findings):
        raise ValueError("a bug")

    model, guide = pair()
    with pytest.raises(ValueError, match="a bug"):
        dgm.check(model, guide, model.data(6), checks=[dgm.Check("broken", broken)])


def test_nan_passes_no_threshold():
    for threshold in (dgm.Threshold(1.0, "…"), dgm.Threshold(1.0, "…", at_least=True)):
        assert threshold.holds(1.0)
        assert not threshold.holds(float("nan"))
    assert not dgm.Threshold(1.0, "…").holds(1.1)
    assert not dgm.Threshold(1.0, "…", at_least=True).holds(0.9)


def test_bad_arguments_raise():
    model, guide = pair()
    x = model.data(5)
    with pytest.raises(TypeError, match="expected a model and its guide, got LinearGaussian and Tensor"):
        dgm.check(model, x)
    with pytest.raises(ValueError, match="check: expected data to check a pair on, got none"):
        dgm.check(model, guide)
    for name in ("num", "limit", "num_simulated"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.check(model, guide, x, **{name: 0})
    with pytest.raises(ValueError, match="expected finite values, got 4 NaN or infinite of 4"):
        dgm.check(model, guide, torch.full((1, 4), torch.nan))
    with pytest.raises(ValueError, match=r"check: expected image_shape .* of the data's 4 numbers, got \(3, 2\)"):
        dgm.check(model, guide, x, image_shape=(3, 2))
