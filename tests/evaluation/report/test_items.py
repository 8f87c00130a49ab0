"""Thresholds and items, as JSON knows them."""

from __future__ import annotations

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Item, Status
from pyro_dgm.evaluation.report.items import group_items, judge, merge_items


def test_nan_passes_no_threshold():
    for threshold in (
        dgm.diagnostics.Threshold(1.0, "…"),
        dgm.diagnostics.Threshold(1.0, "…", at_least=True),
    ):
        assert threshold.holds(1.0)
        assert not threshold.holds(float("nan"))
    assert not dgm.diagnostics.Threshold(1.0, "…").holds(1.1)
    assert not dgm.diagnostics.Threshold(1.0, "…", at_least=True).holds(0.9)


def test_an_item_becomes_words_and_numbers_without_infinities():
    item = judge(
        float("inf"), "nats", dgm.diagnostics.Threshold(1.0, "why"), "found", "mend", rows=(3, 1)
    )
    assert item.as_dict() == {
        **{
            "name": "",
            "status": "WARN",
            "finding": "found",
            "value": "inf",
            "unit": "nats",
            "advice": "mend",
        },
        **{
            "threshold": {"limit": 1.0, "reason": "why", "at_least": False},
            "source": "",
            "rows": [3, 1],
        },
    }


def test_advice_is_given_only_with_a_warning():
    threshold = dgm.diagnostics.Threshold(0.01, "why", at_least=True)
    assert judge(0.5, "p", threshold, "found", "mend").advice == ""
    assert judge(0.001, "p", threshold, "found", "mend").advice == "mend"
    assert (str(threshold), str(dgm.diagnostics.Threshold(5, ""))) == ("≥ 0.01", "≤ 5")


def test_items_that_are_skipped_for_one_reason_are_together_and_others_apart():
    skipped = [Item(Status.SKIP, "no z", name) for name in ("units", "SBC")]
    measured = Item(Status.SKIP, "no z", "gap", value=2.0)
    warned = [Item(Status.WARN, "bad", name) for name in ("a", "b")]
    groups = group_items([skipped[0], warned[0], measured, skipped[1], warned[1]])
    assert [merge_items(group).name for group in groups] == ["units, SBC", "a", "gap", "b"]
