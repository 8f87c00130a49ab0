"""All pages in a real browser: none scrolls sideways on a phone or a desktop."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
LOCAL = "--allow-file-access-from-files"  # the frame is measured from outside
# A window can't be as narrow as a phone, but a frame can.
FRAME = """<!DOCTYPE html><body>{frames}<script>onload = () => {{
document.title = [...document.querySelectorAll("iframe")].map(
  f => f.name + "=" + f.contentDocument.documentElement.scrollWidth).join(" ");
}}</script>"""
IFRAME = '<iframe name="{page}" src="site/{page}.html" style="border:0;width:{width}px;height:900px"></iframe>'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH"),
]


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_screen(built, width):
    site = built / "site"
    pages = [str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")]
    frame = built / f"frame-{width}.html"
    frames = "".join(IFRAME.format(page=page, width=width) for page in pages)
    frame.write_text(FRAME.format(frames=frames))
    done = subprocess.run(
        [BROWSER, *OPTIONS, LOCAL, "--window-size=1600,1000", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    widths = dict(re.findall(r"([\w/-]+)=(\d+)", re.search("<title>(.*)</title>", done.stdout)[1]))
    assert widths == dict.fromkeys(pages, str(width))
