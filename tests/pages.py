"""A page as its tags, links and text, by the parser of the standard library."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """Open tags, which must close in order, links, headings, alternative texts, and all text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.alts.append(attributes.get("alt", ""))
        if tag == "h2":
            self.headings.append("")
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "h2" in self.open:
            self.headings[-1] += data


def assert_offline(text: str) -> None:
    """No other file is loaded, no script runs, and every link of the page leads into it or to a file beside it."""
    page = Page(text)
    assert "<script" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inner) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert not link.startswith(("/", "file:", "javascript:"))
    assert all(page.alts)
