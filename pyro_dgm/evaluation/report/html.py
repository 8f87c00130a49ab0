"""A report as one HTML page that opens offline: its style and its pictures are in the file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

from .items import Item, Picture, Status, group_items, merge_items, sentence

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Charter, "Bitstream Charter", Georgia, serif; color: #1f2933; background: #fff;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; font-weight: 600; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; font-weight: 600; margin: 2.6rem 0 .4rem; padding-top: .9rem; border-top: 1px solid #d9dee3; }
p { margin: .4rem 0; }
.settings, figcaption, .source, .why { color: #52606d; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: 1.4rem 0; font-size: .95rem; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #1f2933; padding: .3rem .6rem; }
td { border-bottom: 1px solid #e4e7eb; padding: .3rem .6rem; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
a { color: inherit; text-decoration-color: #b8c2cc; }
.status { font: 600 .78rem/1 system-ui, sans-serif; letter-spacing: .04em; padding: .22rem .5rem;
  border-radius: .25rem; }
.PASS { background: #d8f0dd; color: #17592b; }
.WARN { background: #ffe3b3; color: #7a4100; }
.SKIP { background: #e4e7eb; color: #52606d; }
.advice { border-left: 3px solid #e0a030; padding-left: .8rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def page(title: str, verdict: Status, settings: str, items: Sequence[Item]) -> str:
    """The page's text."""
    groups = group_items(items)
    places = {item.name: number for number, group in enumerate(groups) for item in group}
    rows = "\n".join(_row(places[item.name], item) for item in items)
    sections = "\n".join(
        _section(number, merge_items(group)) for number, group in enumerate(groups)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: {verdict}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)} {_status(verdict)}</h1>
<p class="settings">{escape(settings)}</p>
<table>
<thead>
<tr><th>item</th><th>status</th><th class="number">value</th><th class="number">threshold</th><th>unit</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
{sections}
</body>
</html>
"""


def number(value: float | None) -> str:
    """A number in at most eight characters."""
    return "–" if value is None else f"{value:.3g}"


def _row(index: int, item: Item) -> str:
    return (
        f'<tr><td><a href="#item-{index}">{escape(item.name)}</a></td><td>{_status(item.status)}</td>'
        f'<td class="number">{number(item.value)}</td><td class="number">{escape(str(item.threshold or "–"))}</td>'
        f"<td>{escape(item.unit)}</td></tr>"
    )


def _section(index: int, item: Item) -> str:
    why = item.threshold and f"Threshold {item.threshold}: {item.threshold.reason}."
    parts = [
        f'<h2 id="item-{index}">{escape(item.name)} {_status(item.status)}</h2>',
        f"<p>{escape(sentence(item.finding))}</p>",
        f'<p class="advice"><b>What to do:</b> {escape(sentence(item.advice))}</p>'
        if item.advice
        else "",
        f'<p class="why">{escape(why)}</p>' if why else "",
        f'<p class="source">{escape(sentence(item.source))}</p>' if item.source else "",
        *map(_figure, item.pictures),
    ]
    return "\n".join(filter(None, parts))


def _status(status: Status) -> str:
    return f'<span class="status {status}">{status}</span>'


def _figure(picture: Picture) -> str:
    """The picture as a PNG inside the page, at twice the pixels of its size."""
    figure, buffer = picture.draw(), BytesIO()
    figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None})
    image = b64encode(buffer.getvalue()).decode()
    width = round(96 * figure.get_figwidth())
    caption = escape(picture.caption)
    return (
        f'<figure><img width="{width}" alt="{caption}" src="data:image/png;base64,{image}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
