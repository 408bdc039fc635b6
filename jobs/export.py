"""Export: a finished label store as what people and their tools read.

    label store  ->  labelled videos  ->  URIs as they may be shown  ->  order, limit  ->  segments  ->  files

No model is run and no video is opened. What a format looks like is the business of `pipeline.exports`.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.labelling.finished import open_finished
from jobs.labelling.labelled import class_names_of, labelled_videos, with_segments
from jobs.labelling.output import write_files
from pipeline.exports.document import Export, Row
from pipeline.exports.formats import FORMATS, Format
from pipeline.exports.uris import Prefix, parse_prefix, rewritten
from pipeline.labelled import LabelledVideo
from pipeline.review import KINDS, in_order
from pipeline.uris import without_secrets
from schemas.errors import SettingsError
from schemas.export import OrderName


@dataclass(frozen=True)
class ExportOptions:
    """What is exported of a store, and how. ``uri_prefixes`` are of the form OLD=NEW; with ``unfinished`` a store may
    have pending clips, of which nothing is exported."""

    order: OrderName = "review"
    limit: int | None = None
    uri_prefixes: tuple[str, ...] = ()
    overwrite: bool = False
    unfinished: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What was written. ``kinds`` counts the exported videos by why they should be looked at; ``left_out`` those that a
    format cannot hold, for nothing of them could be read; ``more`` those beyond the limit."""

    store: str
    format: str
    out: str
    files: int
    videos: int
    kinds: dict[str, int]
    left_out: int
    more: int
    pending_clips: int

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store,
            "format": self.format,
            "out": self.out,
            "files": self.files,
            "videos": self.videos,
            "review": self.kinds,
            "left_out": self.left_out,
            "more": self.more,
            "pending_clips": self.pending_clips,
        }


def export(labels: str, format_name: str, out: str, options: ExportOptions = ExportOptions()) -> ExportReport:
    """Write the label store at ``labels`` to the file or folder ``out``.

    Raises
    ------
    SettingsError
        If it is no label store, is not finished, or its URIs are none that the format's tool could show; if there is no
        such format, or a file is there already. Nothing was written.
    """
    if format_name not in FORMATS:
        raise SettingsError(f"there is no format {format_name!r}: {', '.join(FORMATS)}")
    chosen = FORMATS[format_name]
    prefixes = [parse_prefix(text) for text in options.uri_prefixes]
    store, pending = open_finished(labels, unfinished=options.unfinished, what="export")
    known = labelled_videos(store)
    videos = [v for v in known if v.readable or not chosen.readable_only]
    ordered = in_order(_shown(videos, prefixes, chosen, format_name), options.order)
    reviews = [review for _, review in ordered[: options.limit]]
    first = [video for video, _ in ordered[: options.limit]]
    if chosen.segments:
        first = with_segments(store, first)
    whole = Export(
        source=store.url.rsplit("/", 1)[-1],
        classes=class_names_of(store),
        rows=tuple(map(Row, first, reviews)),
    )
    files = list(chosen.files(whole))
    place = write_files(out, files, one_file=chosen.one_file, overwrite=options.overwrite)
    kinds = Counter(review.kind for review in reviews)
    return ExportReport(
        store=store.url,
        format=format_name,
        out=place,
        files=len(files),
        videos=len(first),
        kinds={kind: kinds[kind] for kind in KINDS if kinds[kind]},
        left_out=len(known) - len(videos),
        more=len(ordered) - len(first),
        pending_clips=pending,
    )


def _shown(
    videos: Sequence[LabelledVideo], prefixes: Sequence[Prefix], chosen: Format, format_name: str
) -> list[LabelledVideo]:
    """The videos with URIs as they may be shown.

    Raises
    ------
    SettingsError
        If a prefix is that of no URI, or the format's tool could not get at one; a URI that was rewritten is taken for
        what its tool understands.
    """
    shown, used, unreachable = [], set(), []
    for video in videos:
        uri, prefix = rewritten(without_secrets(video.uri), prefixes)
        if prefix is not None:
            used.add(prefix)
        elif not _reachable(uri, chosen):
            unreachable.append(uri)
        shown.append(replace(video, uri=uri))
    if unused := [p for p in prefixes if p not in used]:
        there = f"; one is {without_secrets(videos[0].uri)}" if videos else ""
        raise SettingsError(f"--uri-prefix {unused[0].old}=...: no URI begins so{there}")
    if unreachable:
        wanted, example = {
            "url": ("URLs (http:// or https://)", "https://host/"),
            "path": ("paths on its own disk", "/folder/"),
        }[chosen.plays or "url"]
        raise SettingsError(
            f"{format_name} wants {wanted}, and {len(unreachable)} of {len(videos)} videos have none, as "
            f"{unreachable[0]}: say where they are, as in --uri-prefix {posixpath.dirname(unreachable[0])}/={example}"
        )
    return shown


def _reachable(uri: str, chosen: Format) -> bool:
    if chosen.plays == "url":
        return uri.startswith(("http://", "https://"))
    return chosen.plays is None or "://" not in uri
