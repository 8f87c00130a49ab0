"""The pages in a real browser: no horizontal scroll on a phone and a desktop, and nothing cut off in print."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from trained_runs import few_digits, fit_small, train_run, write_files

from pyro_dgm.experiments.pages.of_comparison import comparison_page
from pyro_dgm.experiments.pages.of_run import run_page
from pyro_dgm.experiments.verbs.comparing import compare

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
LOCAL = "--allow-file-access-from-files"  # the frame is measured from outside
# A window can't be as narrow as a phone, but a frame can.
FRAME = """<!DOCTYPE html><body><iframe id="f" src="{page}" style="border:0;width:{width}px;
height:900px"></iframe><script>onload = () => {{
const d = document.getElementById("f").contentDocument;
const wide = [...d.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > {width});
const small = [...d.querySelectorAll("img")].filter(e => e.getBoundingClientRect().width < 200);
document.title = [d.documentElement.scrollWidth, wide.length, small.length].join(" ");
}}</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    run = train_run(folder / "run", few_digits(80), epochs=12, latent=12)
    long = {"layers": [512] * 60, "class_path": "somebody.package.module." * 8}
    write_files(run.folder, {"model": long})
    (folder / "run.html").write_text(run_page(run, num=60, limit=40, num_simulated=60))
    fitted = []
    for name, latent in (("a-run-with-a-name-that-is-rather-long-for-a-phone", 2), ("b", 12)):
        fitted.append(fit_small(folder / name, latent, 2))
    (folder / "comparison.html").write_text(comparison_page(compare(*fitted)))
    return folder


def browse(*arguments) -> str:
    done = subprocess.run(
        [BROWSER, *OPTIONS, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", ["run", "comparison"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_screen(folder, name, width):
    frame = folder / f"{name}-{width}.html"
    frame.write_text(FRAME.format(page=f"{name}.html", width=width))
    dom = browse(LOCAL, "--window-size=1600,1000", "--dump-dom", frame.as_uri())
    scroll, num_wide, num_small = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom).groups()
    assert int(scroll) == width
    assert (num_wide, num_small) == ("0", "0")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_page_prints_to_a_few_sheets(folder, name):
    """What is wider than a sheet would be cut off: as a frame of its width, 18 cm at 96 dpi, holds all of it."""
    printed = folder / f"{name}.pdf"
    browse(f"--print-to-pdf={printed}", (folder / f"{name}.html").as_uri())
    num_sheets = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 4 <= num_sheets <= 20
    frame = folder / f"{name}-print.html"
    text = (folder / f"{name}.html").read_text()
    (folder / f"{name}-as-printed.html").write_text(
        text.replace("@media print", "@media all").replace("@media screen and", "@media print and")
    )
    frame.write_text(FRAME.format(page=f"{name}-as-printed.html", width=680))
    dom = browse(LOCAL, "--window-size=1600,1000", "--dump-dom", frame.as_uri())
    scroll, num_wide, _ = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom).groups()
    assert (int(scroll), num_wide) == (680, "0")
