"""What a pair can't give is skipped with the library's reason; all else is computed once."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from reports import NAMES, QUICK, pair, skipped
from toys import GlobalMean, GlobalMeanGuide, Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status
from pyro_dgm.evaluation.report.findings import Settings, image_like


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
    assert set(found.values()) - {found["normalization"]} == {"the pair has no latents"}
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
    assert all(
        "site 'mu': expected a site inside the plate" in reason
        for reason in skipped(report).values()
    )
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


def test_a_large_set_is_scored_at_rows_of_the_seed_and_its_aggregate_is_whole():
    model, guide = pair()
    rows = []

    def sizes(findings):
        rows.append(
            (
                findings.num_data,
                findings.rows,
                len(findings.nll.per_datum),
                findings.surgery.num_data,
            )
        )
        return dgm.diagnostics.Item(Status.PASS, "seen")

    for seed in (0, 1):
        dgm.check(
            model,
            guide,
            model.data(90),
            num=10,
            limit=30,
            checks=[dgm.diagnostics.Check("sizes", sizes)],
            seed=seed,
        )
    assert [row[0] for row in rows] == [90, 90]
    assert [row[2:] for row in rows] == [(30, 90), (30, 90)]
    assert bool((rows[0][1].diff() > 0).all())
    assert not torch.equal(rows[0][1], rows[1][1])


def test_an_error_of_a_check_is_no_skip():
    def broken(findings):
        raise ValueError("a bug")

    model, guide = pair()
    with pytest.raises(ValueError, match="a bug"):
        dgm.check(model, guide, model.data(6), checks=[dgm.diagnostics.Check("broken", broken)])


def test_bad_arguments_raise():
    model, guide = pair()
    x = model.data(5)
    with pytest.raises(
        TypeError, match="expected a model and its guide, got LinearGaussian and Tensor"
    ):
        dgm.check(model, x)
    with pytest.raises(ValueError, match="data: expected x after the programs, got none"):
        dgm.check(model, guide)
    for name in ("num", "limit", "num_simulated"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            dgm.check(model, guide, x, **{name: 0})
    with pytest.raises(ValueError, match="expected finite values, got 4 NaN or infinite of 4"):
        dgm.check(model, guide, torch.full((1, 4), torch.nan))
    with pytest.raises(
        ValueError, match=r"check: expected image_shape .* of the data's 4 numbers, got \(3, 2\)"
    ):
        dgm.check(model, guide, x, image_shape=(3, 2))


def test_results_and_refusals_are_computed_once():
    model, guide = pair()
    findings = dgm.diagnostics.Findings(model, guide, (model.data(6),), Settings(num=10))
    assert findings.nll is findings.nll
    assert set(findings.found) == {"traces", "nll"}
    findings, reasons = (
        dgm.diagnostics.Findings(model, guide, (model.data(1),), Settings(num=10)),
        set(),
    )
    for _ in range(2):
        with pytest.raises(dgm.diagnostics.Skipped) as reason:
            _ = findings.collapse
        reasons.add(str(reason.value))
    assert reasons == {findings.refused["collapse"]}


def test_square_events_look_like_images_and_others_do_not():
    for event, shape in [
        ((784,), (28, 28)),
        ((1, 8, 8), (8, 8)),
        ((8, 8), (8, 8)),
        ((25,), None),
        ((3, 8, 8), None),
    ]:
        assert image_like(event) == shape
    assert image_like((4, 16)) is None
    assert image_like(()) is None
