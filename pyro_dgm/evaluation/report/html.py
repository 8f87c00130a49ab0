"""A report as one HTML page that opens offline: its style and its pictures are in the file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

from .items import Item, Picture, Status, Threshold, group_items, merge_items, sentence

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Charter, "Bitstream Charter", Georgia, serif; color: #1f2933; background: #fff;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; font-weight: 600; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; font-weight: 600; margin: 2.6rem 0 .4rem; padding-top: .9rem;
  border-top: 1px solid #d9dee3; }
p { margin: .4rem 0; }
.settings, figcaption, .source, .why { color: #52606d; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: 1.4rem 0; font-size: .95rem; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #1f2933; padding: .3rem .6rem; }
td { border-bottom: 1px solid #e4e7eb; padding: .3rem .6rem; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
a { color: inherit; text-decoration-color: #b8c2cc; }
.status { font: 600 .78rem/1 system-ui, sans-serif; letter-spacing: .04em; padding: .22rem .5rem;
  border-radius: .25rem; }
.PASS { background: #d8f0dd; color: #17592b; }
.WARN { background: #ffe3b3; color: #7a4100; }
.VOID { background: #fbf3d5; color: #6b5500; }
.SKIP { background: #e4e7eb; color: #52606d; }
.advice { border-left: 3px solid #e0a030; padding-left: .8rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def page(title: str, verdict: Status, settings: str, items: Sequence[Item]) -> str:
    """The text of the page: a table of all items, then a section for each, or for each reason to skip some."""
    groups = group_items(items)
    place_of: dict[str, int] = {}
    sections = []
    for place, group in enumerate(groups):
        sections.append(_section(place, merge_items(group)))
        for item in group:
            place_of[item.name] = place
    return "\n".join(
        [
            *_head(title, verdict),
            f"<h1>{escape(title)} {_status(verdict)}</h1>",
            f'<p class="settings">{escape(settings)}</p>',
            table(items, place_of),
            *sections,
            "</body>",
            "</html>\n",
        ]
    )


def _head(title: str, verdict: Status) -> list[str]:
    return [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: {verdict}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
    ]


def table(items: Sequence[Item], place_of: Mapping[str, int] | None = None) -> str:
    """The table of all items.

    Args:
        items: one for each row.
        place_of: name of an item → number of its section on the page; without it names are no links.
    """
    rows = []
    for item in items:
        name = escape(item.name)
        if place_of is not None:
            name = f'<a href="#item-{place_of[item.name]}">{name}</a>'
        rows.append(_row(name, item))
    return "\n".join(
        [
            "<table>",
            "<thead>",
            '<tr><th>item</th><th>status</th><th class="number">value</th>'
            '<th class="number">threshold</th><th>unit</th></tr>',
            "</thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
        ]
    )


def number(value: float | None) -> str:
    """A number in at most eight characters.

    Example:
        >>> number(123456.0), number(None)
        ('1.23e+05', '–')
    """
    return "–" if value is None else f"{value:.3g}"


def limit(threshold: Threshold | None) -> str:
    """A threshold in at most eight characters.

    Example:
        >>> limit(Threshold(0.1, "noise")), limit(None)
        ('≤ 0.1', '–')
    """
    return "–" if threshold is None else str(threshold)


def _row(name: str, item: Item) -> str:
    cells = [
        f"<td>{name}</td>",
        f"<td>{_status(item.status)}</td>",
        f'<td class="number">{number(item.value)}</td>',
        f'<td class="number">{escape(limit(item.threshold))}</td>',
        f"<td>{escape(item.unit)}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _section(place: int, item: Item) -> str:
    """What was found, what to do, why this threshold, the source, and the pictures, as far as there are any."""
    lines = [
        f'<h2 id="item-{place}">{escape(item.name)} {_status(item.status)}</h2>',
        f"<p>{_escaped_sentence(item.finding)}</p>",
    ]
    if item.advice:
        advice = _escaped_sentence(item.advice)
        lines.append(f'<p class="advice"><b>What to do:</b> {advice}</p>')
    if item.threshold is not None:
        why = _escaped_sentence(f"Threshold {item.threshold}: {item.threshold.reason}")
        lines.append(f'<p class="why">{why}</p>')
    if item.source:
        lines.append(f'<p class="source">{_escaped_sentence(item.source)}</p>')
    return "\n".join([*lines, *map(_figure, item.pictures)])


def _escaped_sentence(text: str) -> str:
    return escape(sentence(text))


def _status(status: Status) -> str:
    return f'<span class="status {status}">{status}</span>'


def _figure(picture: Picture) -> str:
    """The picture as a PNG inside the page, at twice the pixels of its size."""
    figure = picture.draw()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None})
    image = b64encode(buffer.getvalue()).decode()
    width = round(96 * figure.get_figwidth())
    caption = escape(picture.caption)
    return (
        "<figure>"
        f'<img width="{width}" alt="{caption}" src="data:image/png;base64,{image}">'
        f"<figcaption>{caption}</figcaption>"
        "</figure>"
    )
