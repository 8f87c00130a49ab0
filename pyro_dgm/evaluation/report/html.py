"""A report as one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .items import Item, Picture, Status, Threshold, group_items, merge_items, sentence
from .markup import data_table, document, figure_element


def page(title: str, verdict: Status, settings: str, items: Sequence[Item]) -> str:
    """The text of the page: a table of all items, then a section for each, or for each reason to skip some."""
    groups = group_items(items)
    place_of: dict[str, int] = {}
    sections = []
    for place, group in enumerate(groups):
        sections.append(_section(place, merge_items(group)))
        for item in group:
            place_of[item.name] = place
    return document(
        f"{title}: {verdict}",
        [
            f"<h1>{escape(title)} {status_badge(verdict)}</h1>",
            f'<p class="settings">{escape(settings)}</p>',
            table(items, place_of),
            *sections,
        ],
    )


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
        rows.append(_cells(name, item))
    return data_table(("item", "status", "value", "threshold", "unit"), rows, numbers=(2, 3))


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


def _cells(name: str, item: Item) -> list[str]:
    return [
        name,
        status_badge(item.status),
        number(item.value),
        escape(limit(item.threshold)),
        escape(item.unit),
    ]


def _section(place: int, item: Item) -> str:
    """What was found, what to do, why this threshold, the source, and the pictures, as far as there are any."""
    lines = [
        f'<h2 id="item-{place}">{escape(item.name)} {status_badge(item.status)}</h2>',
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


def status_badge(status: Status) -> str:
    """The word on its colour."""
    return f'<span class="status {status}">{status}</span>'


def _figure(picture: Picture) -> str:
    return figure_element(picture.draw(), picture.caption)
