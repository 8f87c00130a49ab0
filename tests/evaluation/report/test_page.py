"""A page holds every item and picture, opens offline, and says nothing that a user's names could forge."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import torch
from reports import QUICK, pair, report_of_images
from toys import Series, SeriesGuide

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status


@pytest.fixture(scope="module")
def digits():
    return report_of_images()


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
        return dgm.diagnostics.Item(Status.PASS, "a < b & <script>alert(1)</script>")

    model, guide = pair()
    report = dgm.check(
        model, guide, model.data(5), checks=[dgm.diagnostics.Check("<i>mine</i>", fine)]
    )
    report.html(tmp_path / "report.html")
    assert "<script>" not in (tmp_path / "report.html").read_text()
    assert "&lt;i&gt;mine&lt;/i&gt;" in (tmp_path / "report.html").read_text()


def test_several_sites_and_further_plates_have_units_of_their_own(tmp_path):
    report = dgm.check(Series(), SeriesGuide(), torch.randn(12, 3), **QUICK)
    report.html(tmp_path / "plates.html")
    assert "of 4 units are active" in report["active units"].finding
