"""The figures of a page: drawn once, shown in it, and kept to be written to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.report.page import Picture
from pipeline.report.style import as_inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Figures:
    """Figures by name, as they were drawn."""

    drawn: dict[str, Figure] = field(default_factory=dict)

    def picture(self, name: str, title: str, figure: Figure, caption: str = "") -> Picture:
        self.drawn[name] = figure
        return Picture(title, as_inline(figure, name, f"{title}. {caption}"), caption)
