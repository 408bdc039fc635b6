"""The contact sheet: videos that a person should look at first, with a few frames of the clip that is least sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelled import LabelledVideo
from pipeline.report.page import Contact
from pipeline.report.strips import Stretch, Strip, strips
from pipeline.review import Review
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.clip import US

_COLUMNS = ["video_id", "start_us", "end_us", "confidence"]

Span = tuple[int, int]


def contacts(
    store: ShardStore,
    reviewed: Sequence[tuple[LabelledVideo, Review]],
    shown: Callable[[str], str],
    *,
    pictures: bool = True,
) -> tuple[Contact, ...]:
    """One of each video, in order. ``shown`` turns a URI into what may be shown of it. A video of which no frame can
    be read now has none, and says so."""
    least_sure = _least_sure(store, [video.video_id for video, _ in reviewed])
    found = [Strip(None, "pictures were not asked for")] * len(reviewed)
    if pictures:
        found = list(strips([_stretch(video, least_sure.get(video.video_id)) for video, _ in reviewed]))
    return tuple(
        Contact(
            title=video.first.name if video.first else "no label",
            reason=review.reason,
            reason_kind=review.kind,
            where=shown(video.uri) + (f" from {video.begins_us / US:.1f} s" if video.is_part else ""),
            lines=tuple(_lines(video, least_sure.get(video.video_id))),
            strip=picture.jpeg,
            missing=picture.missing,
        )
        for (video, review), picture in zip(reviewed, found, strict=True)
    )


def _lines(video: LabelledVideo, stretch: Span | None) -> Iterator[str]:
    if video.clips:
        at = "" if stretch is None else f"; least sure at {stretch[0] / US:.1f} s"
        yield f"{video.deferred} of {video.clips} clips went to the teacher{at}"


def _stretch(video: LabelledVideo, least_sure: Span | None) -> Stretch:
    start_us, end_us = least_sure or (video.begins_us, video.ends_us)
    return Stretch(video.uri, start_us, end_us, video.width, video.height)


def _least_sure(store: ShardStore, ids: Sequence[str]) -> dict[str, Span]:
    """Of each video, the clip of which whoever answered was least sure; the first one where nobody was asked."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, Span] = {}
    for table in scan(store, _COLUMNS):
        mine = table.filter(pc.is_in(table["video_id"], value_set=wanted))
        sure = pc.fill_null(
            mine["confidence"], 2.0
        )  # one that nobody was asked about, where there is no other
        mine = mine.set_column(mine.column_names.index("confidence"), "confidence", sure)
        mine = mine.sort_by([("confidence", "descending"), ("start_us", "descending")])
        for row in mine.to_pylist():  # the last one of a video stands
            found[row["video_id"]] = row["start_us"], row["end_us"]
    return found
