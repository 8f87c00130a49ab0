"""The canvas of a picture: axes without a display, and colours that colour-blind readers tell apart."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.writing import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
GREY = "#8a96a3"
BLUE = "#0072B2"
ORANGE = "#D55E00"
# Okabe and Ito 2008, *Color universal design*; black stands last and yellow, faint on white, is left out.
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
WIDTH, HEIGHT = 5.2, 3.4  # inches: the text is read at half a laptop's width, and on a phone
DPI = 200


def axes_or_new(ax: Axes | None, width: float = WIDTH, height: float = HEIGHT) -> Axes:
    """The axes that are given, or those of a new figure; without a frame above and to the right."""
    if ax is None:
        figure = new_figure(width, height)
        ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    return ax


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_title(ax: Axes, title: str) -> None:
    """A title at the left, in the size of the text."""
    ax.set_title(title, loc="left", fontsize=10, color=INK)


def png_of(ax: Axes, dpi: int = DPI) -> bytes:
    """The figure of the axes as a PNG."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_picture(ax: Axes, path: str | Path, dpi: int = DPI) -> None:
    """Write the figure of the axes as a PNG.

    Raises:
        FileError: if it can't be written.
    """
    write_file(path, png_of(ax, dpi))
