"""Pieces of a page that opens offline: its style, its tables, which fit a phone, and its pictures are in the file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 192  # twice the pixels of a picture's size
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Charter, "Bitstream Charter", Georgia, serif; color: #1f2933; background: #fff;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; font-weight: 600; margin: 0 0 .3rem; line-height: 1.2;
  overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; font-weight: 600; margin: 2.6rem 0 .4rem; padding-top: .9rem;
  border-top: 1px solid #d9dee3; }
h3 { font-size: 1.05rem; font-weight: 600; margin: 1.4rem 0 .2rem; }
p { margin: .4rem 0; }
.settings, figcaption, .source, .why, .skipped { color: #52606d; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: 1.4rem 0; font-size: .95rem; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #1f2933; padding: .3rem .6rem;
  vertical-align: bottom; }
td { border-bottom: 1px solid #e4e7eb; padding: .3rem .6rem; vertical-align: top;
  overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
tr.total td { font-weight: 600; border-top: 2px solid #1f2933; }
pre { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; background: #f5f7f9;
  padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
nav { font-size: .9rem; margin: 1rem 0; }
nav a { display: inline-block; margin: 0 .9rem .2rem 0; }
a { color: inherit; text-decoration-color: #b8c2cc; overflow-wrap: anywhere; }
li { margin: .5rem 0; }
.status { font: 600 .78rem/1 system-ui, sans-serif; letter-spacing: .04em; padding: .22rem .5rem;
  border-radius: .25rem; }
.PASS { background: #d8f0dd; color: #17592b; }
.WARN { background: #ffe3b3; color: #7a4100; }
.VOID { background: #fbf3d5; color: #6b5500; }
.SKIP { background: #e4e7eb; color: #52606d; }
.advice { border-left: 3px solid #e0a030; padding-left: .8rem; }
dl { display: grid; grid-template-columns: fit-content(45%) 1fr; gap: .3rem 1.2rem; }
dt { color: #52606d; }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.pictures figure { flex: 0 1 27.5rem; min-width: 0; }
figure { margin: 1rem 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; display: block; }
@media screen and (max-width: 40rem) {
  body { margin-top: 1.2rem; }
  table, tbody, tr { display: block; }
  thead { display: none; }
  tr { border-bottom: 2px solid #b8c2cc; padding: .4rem 0; }
  td, td.number { display: flex; justify-content: space-between; gap: 1rem; text-align: right;
    border: 0; padding: .15rem 0; white-space: normal; }
  td:first-child { font-weight: 600; }
  td::before { font-weight: 400; content: attr(data-label); color: #52606d; text-align: left; }
  tr.total td { border: 0; }
}
@media print {
  body { margin: 0; padding: 0; max-width: none; }
  h2, h3 { break-after: avoid; }
  figure, tr, li, dt, dd { break-inside: avoid; }
  .pictures { display: block; }
  figure img { max-width: 12cm; max-height: 15cm; width: auto; }
  nav { display: none; }
}
@page { margin: 1.6cm; }
"""


def document(title: str, body: Sequence[str]) -> str:
    """The text of a whole page.

    Args:
        title: of the window.
        body: pieces of HTML.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>\n",
        ]
    )


def data_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """A table; where a screen is narrow, every row is a card with the names of the columns at the left.

    Args:
        columns: their names.
        rows: the cells, as HTML.
        numbers: which columns are numbers, which stand at the right.
    """
    head = []
    for place, name in enumerate(columns):
        head.append(f"<th{_kind(place, numbers)}>{escape(name)}</th>")
    lines = ["<table>", "<thead>", f"<tr>{''.join(head)}</tr>", "</thead>", "<tbody>"]
    for row in rows:
        cells = []
        for place, (name, cell) in enumerate(zip(columns, row, strict=True)):
            label = escape(name)
            cells.append(f'<td{_kind(place, numbers)} data-label="{label}">{cell}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _kind(place: int, numbers: Sequence[int]) -> str:
    return ' class="number"' if place in numbers else ""


def figure_element(figure: Figure, caption: str, alt: str = "") -> str:
    """The figure as a PNG inside the page, at twice the pixels of its size.

    Args:
        figure: drawn without a display.
        caption: below it; what stands for the picture, too, unless `alt` does.
        alt: what stands for the picture where it can't be seen.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    image = b64encode(buffer.getvalue()).decode()
    width = round(96 * figure.get_figwidth())
    return (
        "<figure>"
        f'<img width="{width}" alt="{escape(alt or caption)}" src="data:image/png;base64,{image}">'
        f"<figcaption>{escape(caption)}</figcaption>"
        "</figure>"
    )
