"""Sections of a page; one that the run can't give says why in a line, and the page goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ...evaluation.report.findings import Skipped
from ...evaluation.report.items import sentence
from ...evaluation.report.markup import document, figure_element
from ...inference.run.explain import cause_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pieces = list[str]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: above it, and in the list of contents.
        build: makes its pieces of HTML; what the library refuses by its contract becomes the reason that it is skipped.
    """

    title: str
    build: Callable[[], Pieces]

    def html(self, anchor: str) -> str:
        """Its heading, which links lead to, and pieces, or why there are none."""
        heading = f'<h2 id="{anchor}">{escape(self.title)}</h2>'
        return "\n".join([heading, *attempt(self.build)])


def attempt(build: Callable[[], Pieces]) -> Pieces:
    """The pieces, or the reason why there are none; errors that are no refusals are bugs, and pass."""
    try:
        return build()
    except (Skipped, ValueError, NotImplementedError) as error:
        if not is_refusal(error):
            raise
        reason = sentence(" ".join(cause_of(error).split()))
        return [paragraph(f"Not shown: {reason}", "skipped")]


def is_refusal(error: Exception) -> bool:
    """Whether an error is an answer of this library's, which names the fix, and no bug."""
    return isinstance(error, Skipped | NotImplementedError) or "Fix: " in str(error)


def page_of(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The text of a page: title, contents, sections.

    Args:
        title: of the page.
        subtitle: one sentence below it.
        sections: in order.
    """
    links, parts = [], []
    for place, section in enumerate(sections):
        anchor = f"section-{place}"
        links.append(f'<a href="#{anchor}">{escape(section.title)}</a>')
        parts.append(section.html(anchor))
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="settings">{escape(subtitle)}</p>',
        f"<nav>{' '.join(links)}</nav>",
    ]
    return document(title, [*body, *parts])


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text, escaped."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def picture(ax: Axes, caption: str, alt: str) -> str:
    """The figure of the axes inside the page.

    Args:
        ax: what a function of `dgm.plots` returned.
        caption: what is to be seen, in a sentence.
        alt: what the picture is, for those who can't see it.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure_element(figure, caption, alt)


def number(value: float | None, digits: int = 2) -> str:
    """A number with its sign as typeset, or a dash where there is none.

    Example:
        >>> number(-3.14159), number(None), number(float("nan"))
        ('−3.14', '–', '–')
        >>> number(-0.001)
        '0.00'
    """
    if value is None or value != value:
        return "–"
    rounded = round(value, digits) + 0.0  # no −0
    return f"{rounded:,.{digits}f}".replace("-", "−")


def with_error(value: float | None, stderr: float | None, digits: int = 2) -> str:
    """A number ± its error, where it has one.

    Example:
        >>> with_error(90.123, 0.456), with_error(90.123, None)
        ('90.12 ± 0.46', '90.12')
    """
    text = number(value, digits)
    if stderr is None or stderr != stderr:
        return text
    return f"{text} ± {number(stderr, digits)}"
