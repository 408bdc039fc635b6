"""Report: one page of what a label store cost, what that saved and lost, and what a person should look at.

    label store (+ student, + targets)  ->  what follows from them  ->  figures, tables, frames  ->  one HTML file

No model is run. Of the videos on the contact sheet a few frames are decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.labelling.output import check_files, write_files
from jobs.reporting.cards import cards
from jobs.reporting.contacts import contacts
from jobs.reporting.figures import Figures
from jobs.reporting.gathered import Gathered, gather
from jobs.reporting.sections import first_picture, numbers, sections
from pipeline.exports.document import OutFile
from pipeline.exports.uris import parse_prefix, rewritten
from pipeline.report.page import Contacts, Page, Section, render
from pipeline.report.style import FileKind, as_file
from pipeline.review import KINDS, in_order
from pipeline.store.document import now
from pipeline.uris import without_secrets
from schemas.errors import SettingsError
from schemas.policy import PriceFlags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILES: tuple[FileKind, ...] = ("svg", "png")
_BRIEF = 4


@dataclass(frozen=True)
class ReportOptions:
    """``student`` and ``targets`` are where they are now, if not where they were; ``figures`` a folder for the figures
    as files; ``videos`` how many are on the contact sheet. Prices that are not given are the policy's."""

    student: str | None = None
    targets: str | None = None
    split: str = "test"
    prices: PriceFlags = field(default_factory=PriceFlags)
    videos: int = 24
    pictures: bool = True
    figures: str | None = None
    title: str | None = None
    uri_prefixes: tuple[str, ...] = ()
    unfinished: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ReportMade:
    """Where the page is, and its numbers."""

    url: str
    figures: str | None
    numbers: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"page": self.url, "figures": self.figures, **self.numbers}


def report(labels: str, out: str, options: ReportOptions = ReportOptions()) -> ReportMade:
    """Write the page of the label store ``labels`` to the file ``out``.

    Raises
    ------
    SettingsError
        If it is no finished label store, what was named does not belong to it, or a file is there already; nothing was
        written.
    """
    if not out.lower().endswith((".html", ".htm")):
        raise SettingsError(f"-o {out}: the page is one file, and its name ends in .html")
    nothing_yet = [OutFile("", bytes)]
    check_files(out, nothing_yet, one_file=True, overwrite=options.overwrite)  # before it takes long
    prefixes = [parse_prefix(text) for text in options.uri_prefixes]

    def shown(uri: str) -> str:
        return rewritten(without_secrets(uri), prefixes)[0]

    found = gather(
        labels,
        student=options.student,
        targets=options.targets,
        split=options.split,
        prices=options.prices,
        unfinished=options.unfinished,
    )
    figures = Figures()
    page, kinds = _page(found, figures, shown, options)
    html = render(page).encode()
    place = None
    if options.figures is not None:
        place = write_files(
            options.figures, _as_files(figures.drawn), one_file=False, overwrite=options.overwrite
        )
    url = write_files(out, [OutFile("", lambda: html)], one_file=True, overwrite=options.overwrite)
    return ReportMade(url, place, numbers(found, kinds))


def _page(
    found: Gathered, figures: Figures, shown: Callable[[str], str], options: ReportOptions
) -> tuple[Page, dict[str, int]]:
    reviewed = in_order(found.videos, "review")
    counted = Counter(review.kind for _, review in reviewed)
    kinds = {str(kind): counted[kind] for kind in KINDS}
    sheet = contacts(found.store, reviewed[: options.videos], shown, pictures=options.pictures)
    more = len(reviewed) - len(sheet)
    look = Contacts(
        "",
        sheet,
        f"{more} more videos follow in that order: `locum export --format csv` lists all." if more else "",
    )
    first = (
        first_picture(found, figures),
        Contacts("Look at these first", sheet[:_BRIEF], brief=True),
    )
    lead = (
        "What should be looked at first comes first: where models, audits or the manifest disagree, then what is "
        "damaged, then close calls."
    )
    body = sections(found, figures)
    page = Page(
        title=options.title or f"Labels: {found.store.url.rsplit('/', 1)[-1]}",
        subtitle=_subtitle(found),
        cards=cards(found, kinds),
        first=first if sheet else first[:1],
        sections=(Section("look", "Videos to look at", (look,), lead), *body),
        facts=_facts(found),
    )
    return page, kinds


def _subtitle(found: Gathered) -> str:
    policy = found.document.policy
    how = f"{policy.kind} by {policy.score}" if policy.kind not in ("dense", "student-alone") else policy.kind
    text = f"{found.ledger.videos} videos, {found.ledger.clips} clips; policy {found.document.name}: {how}"
    return text + (f"; not finished: {found.pending} clips are pending" if found.pending else "")


def _facts(found: Gathered) -> list[tuple[str, str]]:
    spec, document = found.spec, found.document
    policy = ", ".join(f"{k} {v}" for k, v in document.policy.model_dump(exclude_defaults=True).items())
    return [
        ("label store", without_secrets(found.store.url)),
        ("fingerprint", found.store.document.fingerprint),
        ("policy", f"{policy}; pooled by {document.aggregation}"),
        ("student", f"{spec.student.fingerprint} (program {spec.student.sha256[:12]})"),
        ("teacher", f"{spec.teacher.teacher.factory}, targets {spec.targets}"),
        ("made", now()),
    ]


def _as_files(figures: dict[str, Figure]) -> list[OutFile]:
    return [
        OutFile(f"{name}.{kind}", partial(as_file, figure, kind))
        for name, figure in figures.items()
        for kind in _FILES
    ]
