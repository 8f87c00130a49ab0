"""All pages in a real browser: none scrolls sideways on a phone or a desktop, no code is cut into letters."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
LOCAL = "--allow-file-access-from-files"  # the frame is measured from outside
# A window can't be as narrow as a phone, but a frame can.
# An element that is too wide is let off within a box of its own that scrolls, such as a table's; the page is none.
FRAME = """<!DOCTYPE html><body>{frames}<script>
const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
function isBoxed(e) {{
  for (let box = e.parentElement; box && box.tagName != "ARTICLE"; box = box.parentElement)
    if (scrolls(box)) return true;
  return false;
}}
function measure(frame) {{
  const page = frame.contentDocument;
  const wide = [...page.querySelectorAll("article *")].filter(
    e => e.getBoundingClientRect().right > {width} + 1 && !isBoxed(e));
  const cut = [...page.querySelectorAll("td code")].filter(
    e => e.getClientRects().length > 1 + e.textContent.length / 6);
  return `${{frame.name}}=${{page.documentElement.scrollWidth}},${{wide.length}},${{cut.length}}`;
}}
onload = () => {{
  document.title = [...document.querySelectorAll("iframe")].map(measure).join(" ");
}}</script>"""
IFRAME = '<iframe name="{page}" src="site/{page}.html" style="border:0;width:{width}px;height:900px"></iframe>'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH"),
]


def measure(folder: Path, width: int) -> dict[str, str]:
    """Page → the width that it scrolls over, how many elements stand out, how many pieces of code are cut small."""
    site = folder / "site"
    pages = [str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")]
    frame = folder / f"frame-{width}.html"
    frames = "".join(IFRAME.format(page=page, width=width) for page in pages)
    frame.write_text(FRAME.format(frames=frames, width=width))
    done = subprocess.run(
        [BROWSER, *OPTIONS, LOCAL, "--window-size=1600,1000", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    found = re.search("<title>(.*)</title>", done.stdout)[1]
    return dict(re.findall(r"([\w/-]+)=(\d+,\d+,\d+)", found))


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_screen(built, width):
    found = measure(built, width)
    assert len(found) > 20
    assert found == dict.fromkeys(found, f"{width},0,0")


@pytest.mark.parametrize("width", [390, 1440])
def test_a_page_that_is_too_wide_and_a_column_that_is_too_narrow_are_found(built, tmp_path, width):
    shutil.copytree(built / "site" / "_static", tmp_path / "site" / "_static")
    text = (built / "site" / "cost.html").read_text()
    narrow = '<td style="min-width: 0; width: 40px; overflow-wrap: anywhere"><code>model_evidence</code></td>'
    faults = (
        f'<p style="width: 2000px">wide</p><table style="width: 40px"><tr>{narrow}</tr></table><h1>'
    )
    (tmp_path / "site" / "cost.html").write_text(text.replace("<h1>", faults))
    assert measure(tmp_path, width)["cost"].endswith(",1,1")
