"""The command that exports labels, as the command line calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Out, at_least
from schemas.errors import EXIT_OK
from schemas.export import FormatName, OrderName

if TYPE_CHECKING:
    from jobs.export import ExportReport


def export(
    labels: str,
    *,
    format: FormatName,
    out: Out,
    order: OrderName = "review",
    limit: int | None = None,
    uri_prefix: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = (),
    unfinished: Flag = False,
    overwrite: Flag = False,
    as_json: Json = False,
    config: str | None = None,
) -> int:
    """Turn labels into what people and their tools read. No model is run.

    Parameters
    ----------
    labels
        Folder or URL of a label store (see `locum label`).
    format
        csv and jsonl: one video a row; label-studio: tasks with predictions, and their configuration; cvat: annotations
        of each video; fiftyone: a dataset; webvtt: subtitles of each video.
    out
        The file (csv, jsonl) or the folder (the others) to write.
    order
        What a person should look at first comes first, or plainly by URI.
    limit
        Only the first so many videos in that order.
    uri_prefix
        OLD=NEW: URIs that begin with OLD begin with NEW instead, as where a label tool finds the videos. Several may be
        given; the longest that fits counts.
    unfinished
        Export what is there of a store that is not finished.
    overwrite
        Replace files that are there.
    as_json
        Print one JSON object.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit
    from jobs.export import ExportOptions
    from jobs.export import export as run_export

    if limit is not None:
        at_least("--limit", limit, 1)
    report = run_export(labels, format, out, ExportOptions(order, limit, uri_prefix, overwrite, unfinished))
    emit(report.to_json(), as_json=as_json, text=_text(report))
    return EXIT_OK


def _text(report: ExportReport) -> str:
    from pipeline.review import WORDS

    lines = [f"{report.videos} videos exported as {report.format}"]
    lines += [f"  {number:6d}  {WORDS[kind]}" for kind, number in report.kinds.items()]
    if report.more:
        lines.append(f"{report.more} more videos are beyond --limit")
    if report.left_out:
        lines.append(f"left out, for nothing of them could be read: {report.left_out}")
    if report.pending_clips:
        lines.append(f"{report.pending_clips} clips are pending: labels of their videos may change")
    return "\n".join([*lines, f"{report.out} ({report.files} files)" if report.files > 1 else report.out])
