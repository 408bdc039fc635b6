"""How figures look, and how they are written: as files of their own, and within a page that is light or dark.

Figures are drawn in the light colours. Within a page each of these is a variable of its style sheet, so that one
picture serves both. Text stays text: it can be searched and is in the reader's font. Figures are made without pyplot,
so that nothing is shared between threads."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from schemas.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE, PAPER = "#1f2328", "#656d76", "#d8dee4", "#ffffff"
SERIES = ("#2a6fdb", "#d9730d", "#1a8f5c", "#8250c8", "#c9383f", "#0b8a9c", "#a67c00", "#d1498b")
"""Colours of lines, in the order in which they are to be used."""
BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, GOLD, PINK = SERIES

LIGHT: dict[str, str] = {
    "ink": INK,
    "faint": FAINT,
    "line": LINE,
    "paper": PAPER,
    **{f"series-{i}": colour for i, colour in enumerate(SERIES, 1)},
}
DARK: dict[str, str] = {
    "ink": "#e6edf3",
    "faint": "#9aa4b2",
    "line": "#3b434d",
    "paper": "#161b22",
    **{
        f"series-{i}": colour
        for i, colour in enumerate(
            ("#6ea8ff", "#ffa657", "#5fd39a", "#c4a1ff", "#ff8589", "#5cd0df", "#e3b341", "#ff9bce"), 1
        )
    },
}
"""Variables of a page's style sheet, and their values."""

FileKind = Literal["svg", "png"]

_WIDTH, _DPI = 5.4, 200
_SETTINGS: Any = {
    "text.parse_math": False,  # a class may be called $5
    "svg.fonttype": "none",
    "svg.hashsalt": "locum",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
}


def kind_of(path: str) -> FileKind:
    """What a file is to be, by its ending.

    Raises
    ------
    SettingsError
        If it is neither .svg nor .png.
    """
    ending = path.rpartition(".")[2].lower()
    if ending not in ("svg", "png"):
        raise SettingsError(f"a figure is a .svg or a .png, not {path}")
    return "svg" if ending == "svg" else "png"


@contextmanager
def drawing(height: float = 3.4) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes, ``height`` inches high, in the house's style. Draw within the block."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.subplots()
        figure.draw_without_rendering()  # the layout once: it moves a little each time that it is made again
        figure.set_layout_engine("none")


def as_file(figure: Figure, kind: FileKind) -> bytes:
    """The figure as a file of its own, on white. The same figure gives the same bytes."""
    import matplotlib

    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(out, format=kind, dpi=_DPI, facecolor=PAPER, metadata=metadata)
    return out.getvalue()


def as_inline(figure: Figure, name: str, words: str) -> str:
    """The figure as an ``svg`` element for a page. ``name`` tells its ids from those of others; ``words`` say what it
    shows to whoever cannot see it."""
    import matplotlib
    from markupsafe import escape

    out = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(out, format="svg", facecolor="none", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for variable, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg role="img" aria-label="{escape(words)}" {box[0] if box else ""} '
    opening += 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + text[text.index(">") + 1 :]
