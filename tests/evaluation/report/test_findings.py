"""What a pair can't give is skipped with the library's reason; all else is computed once."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PAIRS, over
from reports import NAMES, QUICK, pair, skipped, statuses
from toys import GlobalMean, GlobalMeanGuide, Written

import pyro_dgm as dgm
from pyro_dgm.diagnostics import CHECKS, Check, Findings, Skipped, Status
from pyro_dgm.evaluation.report.findings import Settings
from pyro_dgm.evaluation.report.images import image_like
from pyro_dgm.inference.run.sessions import session


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


def test_checks_of_each_datum_are_skipped_where_all_share_a_draw():
    report = dgm.check(GlobalMean(), GlobalMeanGuide(), torch.randn(20), checks=CHECKS, **QUICK)
    assert report["data and sites"].status is Status.PASS
    assert set(skipped(report)) == {*NAMES} - {"data and sites", "finite numbers", "normalization"}
    assert "all data share ['mu']" in skipped(report)["k-hat"]


def test_a_model_that_reads_its_data_skips_what_it_would_generate():
    """An autoregressive likelihood in one pass: each number's location is of the one before, which is the data's."""

    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
            pyro.sample("x", dist.Normal(z + before / 10, 1.0).to_event(1), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    found = skipped(dgm.check(Written(model), Written(guide), torch.randn(30, 2), **QUICK))
    assert set(found) == {"SBC", "aggregate-prior test"}
    assert "expected a model that generates when x is None" in found["SBC"]
    assert "site 'x': expected a model whose draws do not depend on the data" in found["SBC"]


def test_a_model_that_does_not_run_without_data_is_checked_on_its_own_draws():
    """Pyro's idiom: the plate and the shapes are of x."""

    def model(program, x):
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(program, x):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    x = 2**0.5 * torch.randn(200, 2)
    report = dgm.check(Written(model), Written(guide), x, **QUICK)
    assert not skipped(report)
    assert report["SBC"].status is dgm.diagnostics.Status.PASS


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
        ValueError,
        match=r"check: expected image_shape .* the data's 4 numbers, got \(3, 2\). "
        r"Fix: image_shape=\(1, 4\)",
    ):
        dgm.check(model, guide, x, image_shape=(3, 2))


def test_what_is_no_pair_is_refused_with_the_fix():
    model, guide = pair()
    x = model.data(5)
    with pytest.raises(
        TypeError, match=r"and the class ExactGuide\. Fix: an instance, ExactGuide\("
    ):
        dgm.check(model, type(guide), x)
    with pytest.raises(
        TypeError, match=r"expected a model and its guide, got a model alone, .*Fix: "
    ):
        dgm.check(model, None, x)


def test_what_is_no_check_is_refused_with_the_fix():
    model, guide = pair()
    x = model.data(5)
    one = Check("silent", lambda findings: None)
    with pytest.raises(TypeError, match="expected a sequence of checks, got Check. Fix: checks="):
        dgm.check(model, guide, x, checks=one)
    with pytest.raises(TypeError, match="instances of Check, got function. Fix: checks="):
        dgm.check(model, guide, x, checks=[one.run])
    with pytest.raises(TypeError, match="instances of Check, got the class Check. Fix: checks="):
        dgm.check(model, guide, x, checks=[Check])
    with pytest.raises(TypeError, match="check 'silent': expected an Item .* Fix: return Item"):
        dgm.check(model, guide, x, checks=[one])


def test_results_and_refusals_are_computed_once():
    model, guide = pair()
    with session(model, guide, model.data(6)) as opened:
        findings = Findings(opened, Settings(num=10))
        assert findings.nll is findings.nll
        assert set(findings.found) == {"structure", "nll"}
    with session(model, guide, model.data(1)) as opened:
        findings = Findings(opened, Settings(num=10))
        for _ in range(2):
            with pytest.raises(Skipped) as reason:
                _ = findings.collapse
            assert str(reason.value) == findings.refused["collapse"]


def test_the_preamble_runs_once(monkeypatch):
    """The structure of a pair is found by one run, whatever reads it, and no check opens a session of its own."""
    from pyro_dgm.inference.run import sessions

    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return structure_of(*arguments)

    structure_of = sessions.structure_of
    monkeypatch.setattr(sessions, "structure_of", counted)
    model, guide = pair()
    report = dgm.check(model, guide, model.data(30), num=50, limit=20, num_simulated=50)
    assert Status.SKIP not in statuses(report).values()
    assert len(calls) == 1


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
