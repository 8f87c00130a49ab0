"""The site builds without a warning, every link within it leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow

OF_SPHINX = {"genindex.html", "py-modindex.html", "search.html"}
LOADING = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src"}
LOADING_LINKS = ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest")


class Page(HTMLParser):
    """Where a page leads, what it loads, its anchors and its formulas."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.num_formulas = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        self.num_formulas += tag == "math"
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in LOADING and LOADING[tag] in attributes:
            self.loaded.append(attributes[LOADING[tag]])
        if tag == "link" and attributes.get("rel") in LOADING_LINKS:
            self.loaded.append(attributes["href"])


@cache
def read(path: Path) -> Page:
    return Page(path.read_text())


def pages(built: Path) -> list[Path]:
    found = sorted((built / "site").rglob("*.html"))
    assert len(found) > 20
    return found


def is_elsewhere(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def test_it_builds_without_a_warning(built):
    """That includes pages in no toctree, links that lead nowhere and formulas that can't be read."""
    status, _, said = (built / "said.txt").read_text().partition("\n")
    assert said.strip() == ""
    assert status == "0"


def test_every_link_within_the_site_leads_to_a_page_and_to_an_anchor_of_it(built):
    broken = []
    for path in pages(built):
        for link in read(path).links:
            if is_elsewhere(link):
                continue
            there = (
                (path.parent / unquote(urlsplit(link).path)).resolve()
                if urlsplit(link).path
                else path
            )
            anchor = unquote(urlsplit(link).fragment)
            is_there = there.is_file()
            if is_there and anchor and there.suffix == ".html":
                is_there = anchor in read(there).anchors
            if not is_there:
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_a_page_loads_nothing_from_elsewhere(built):
    for path in pages(built):
        assert not [link for link in read(path).loaded if is_elsewhere(link)], path.name
    for path in (built / "site" / "_static").rglob("*.css"):
        text = path.read_text()
        addresses = re.findall(r"url\(['\"]?([^'\")]+)|@import ['\"]([^'\"]+)", text)
        assert not [link for pair in addresses for link in pair if link.startswith(("http", "//"))]


def test_every_page_can_be_reached_from_the_first(built):
    first = built / "site" / "index.html"
    reached, new = {first}, [first]
    while new:
        path = new.pop()
        for link in read(path).links:
            there = (path.parent / unquote(urlsplit(link).path)).resolve()
            is_page = there.suffix == ".html" and there.is_file()
            if not is_elsewhere(link) and is_page and there not in reached:
                reached.add(there)
                new.append(there)
    missing = {path for path in pages(built) if path not in reached and path.name not in OF_SPHINX}
    assert not missing


def test_formulas_are_mathml_that_needs_no_script(built):
    page = read(built / "site" / "notebooks" / "01_vae.html")
    assert page.num_formulas >= 8
    assert not [link for link in page.loaded if "mathjax" in link.lower()]


def test_a_tutorial_offers_its_script_and_its_notebook(built):
    for path in (built / "site" / "notebooks").glob("*.html"):
        names = {Path(link).name for link in read(path).links if "_downloads" in link}
        assert names == {f"{path.stem}.py", f"{path.stem}.ipynb"}
