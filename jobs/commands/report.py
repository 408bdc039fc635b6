"""The command that makes a page of labels, as the command line calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Out, at_least
from schemas.errors import EXIT_OK
from schemas.policy import PriceFlags

if TYPE_CHECKING:
    from jobs.report import ReportMade


def report(
    labels: str,
    *,
    out: Out,
    student: str | None = None,
    targets: str | None = None,
    split: str = "test",
    prices: PriceFlags = PriceFlags(),
    videos: int = 24,
    no_pictures: Flag = False,
    figures: str | None = None,
    title: str | None = None,
    uri_prefix: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = (),
    unfinished: Flag = False,
    overwrite: Flag = False,
    as_json: Json = False,
    config: str | None = None,
) -> int:
    """Make one HTML page of what labels cost, what that saved and lost, and what to look at. No model is run.

    Parameters
    ----------
    labels
        Folder or URL of a label store (see `locum label`).
    out
        The page, a file whose name ends in .html. It needs nothing else, and can be read offline.
    student
        Folder or URL of the student, where it is no longer where it was.
    targets
        Folder or URL of the target store, where it has moved.
    split
        The student's videos on which the frontier and the confidences are judged: test, val or calibration.
    prices
        Of an hour of each device. The policy's, where not given.
    videos
        How many are on the contact sheet.
    no_pictures
        Show no frames of them: no video is opened.
    figures
        Folder for the figures as files, SVG and PNG.
    title
        Of the page.
    uri_prefix
        OLD=NEW: URIs that begin with OLD are shown with NEW instead. Several may be given.
    unfinished
        Report on what is there of a store that is not finished.
    overwrite
        Replace files that are there.
    as_json
        Print one JSON object: the numbers of the page.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit
    from jobs.report import ReportOptions
    from jobs.report import report as run_report

    at_least("--videos", videos, 0)
    options = ReportOptions(
        student,
        targets,
        split,
        prices,
        videos,
        not no_pictures,
        figures,
        title,
        uri_prefix,
        unfinished,
        overwrite,
    )
    made = run_report(labels, out, options)
    emit(made.to_json(), as_json=as_json, text=_text(made))
    return EXIT_OK


def _text(made: ReportMade) -> str:
    from jobs.words import duration

    cost, lost = made.numbers["cost"], made.numbers["lost"]
    spent = sum(v for k, v in cost["seconds"].items() if k != "audit")
    ratio = "" if cost["ratio"] is None else f", {cost['ratio']:.1%} of the dense teacher's"
    lines = [
        f"cost      {duration(spent)} of devices{ratio}; {cost['share']:.1%} of {cost['clips']} clips to the teacher"
    ]
    if lost["difference"] is not None:
        d = lost["difference"]
        bounds = "" if d["low"] is None else f" [{d['low']:+.4f}, {d['high']:+.4f}]"
        lines.append(
            f"accuracy  {lost['right_beside']['value']:.4f}, {d['value']:+.4f}{bounds} against the dense teacher"
        )
    elif lost["agreement"] is not None:
        lines.append(f"labels    {lost['agreement']['value']:.4f} are the dense teacher's")
    looked = {k: n for k, n in made.numbers["review"].items() if k not in ("sure", "unreadable")}
    lines.append(
        f"look at   {sum(looked.values())} videos"
        + (f" ({', '.join(f'{n} {k}' for k, n in looked.items())})" if looked else "")
    )
    lines += [f"missing   {text}" for text in made.numbers["missing"]]
    return "\n".join([*lines, *([made.figures] if made.figures else []), made.url])
