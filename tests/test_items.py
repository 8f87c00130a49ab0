"""Thresholds and items, as JSON knows them."""

from __future__ import annotations

import pyro_dgm as dgm
from pyro_dgm.evaluation.items import judged


def test_nan_passes_no_threshold():
    for threshold in (dgm.Threshold(1.0, "…"), dgm.Threshold(1.0, "…", at_least=True)):
        assert threshold.holds(1.0)
        assert not threshold.holds(float("nan"))
    assert not dgm.Threshold(1.0, "…").holds(1.1)
    assert not dgm.Threshold(1.0, "…", at_least=True).holds(0.9)


def test_an_item_becomes_words_and_numbers_without_infinities():
    item = judged(float("inf"), "nats", dgm.Threshold(1.0, "why"), "found", "mend", rows=(3, 1))
    assert item.as_dict() == {
        **{"name": "", "status": "WARN", "finding": "found", "value": "inf", "unit": "nats", "advice": "mend"},
        **{"threshold": {"limit": 1.0, "reason": "why", "at_least": False}, "source": "", "rows": [3, 1]},
    }


def test_advice_is_given_only_with_a_warning():
    threshold = dgm.Threshold(0.01, "why", at_least=True)
    assert judged(0.5, "p", threshold, "found", "mend").advice == ""
    assert judged(0.001, "p", threshold, "found", "mend").advice == "mend"
    assert (str(threshold), str(dgm.Threshold(5, ""))) == ("≥ 0.01", "≤ 5")
