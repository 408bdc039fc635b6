"""One page of HTML that needs nothing else: figures, tables and pictures are in it. It does not know what they say."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.report.style import DARK, LIGHT

_FOLDER = Path(__file__).parent

Tone = Literal["plain", "good", "warn", "bad"]


@dataclass(frozen=True)
class Card:
    """A number that a reader wants first, and what it is made of."""

    title: str
    value: str
    lines: tuple[str, ...] = ()
    tone: Tone = "plain"
    href: str | None = None


@dataclass(frozen=True)
class Picture:
    """A figure, as an ``svg`` element, and what it says in words."""

    kind: ClassVar[str] = "picture"
    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Columns that hold numbers are set to the right: those of ``numbers``."""

    kind: ClassVar[str] = "table"
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    """Rows to be seen first."""
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Note:
    """What is to be said beside, or is missing."""

    kind: ClassVar[str] = "note"
    text: str
    tone: Tone = "warn"


@dataclass(frozen=True)
class Contact:
    """A video that a person should look at: some of its frames (a JPEG), or why there are none."""

    title: str
    reason: str
    reason_kind: str
    where: str
    lines: tuple[str, ...] = ()
    strip: bytes | None = None
    missing: str = ""

    @property
    def src(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.strip or b"").decode()


@dataclass(frozen=True)
class Contacts:
    """A contact sheet."""

    kind: ClassVar[str] = "contacts"
    title: str
    items: tuple[Contact, ...]
    caption: str = ""
    brief: bool = False


Block = Picture | Table | Note | Contacts


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """``first`` stands beside each other right below the cards: what is seen without scrolling."""

    title: str
    subtitle: str
    cards: tuple[Card, ...]
    first: tuple[Block, ...]
    sections: tuple[Section, ...]
    facts: Sequence[tuple[str, str]] = ()


def render(page: Page) -> str:
    """The page as HTML; text of ours and of videos' names is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_FOLDER / "page.css").read_text()
    sheet = f":root {{ {_variables(LIGHT)} }}\n"
    sheet += f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n{style}"
    return environment.get_template("page.html").render(page=page, style=Markup(sheet))


def _variables(values: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in values.items())
