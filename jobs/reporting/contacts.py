"""The contact sheet: videos that a person should look at first, with a few frames of the clip that is least sure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelled import LabelledVideo
from pipeline.report.page import Contact
from pipeline.report.strips import strip
from pipeline.review import Review
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import US
from schemas.errors import VideoError

log = logging.getLogger("locum.report")

_COLUMNS = ["video_id", "start_us", "end_us", "confidence"]
_DECODERS = 2

Stretch = tuple[int, int]


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

    def of_one(pair: tuple[LabelledVideo, Review]) -> Contact:
        video, review = pair
        stretch = least_sure.get(video.video_id)
        picture, missing = _picture(video, stretch) if pictures else (None, "pictures were not asked for")
        return Contact(
            title=video.first.name if video.first else "no label",
            reason=review.reason,
            reason_kind=review.kind,
            where=shown(video.uri) + (f" from {video.begins_us / US:.1f} s" if video.is_part else ""),
            lines=tuple(_lines(video, stretch)),
            strip=picture,
            missing=missing,
        )

    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="locum-strip") as pool:
        return tuple(pool.map(of_one, reviewed))


def _lines(video: LabelledVideo, stretch: Stretch | None) -> Iterator[str]:
    if video.clips:
        at = "" if stretch is None else f"; least sure at {stretch[0] / US:.1f} s"
        yield f"{video.deferred} of {video.clips} clips went to the teacher{at}"


def _picture(video: LabelledVideo, stretch: Stretch | None) -> tuple[bytes | None, str]:
    start_us, end_us = stretch or (video.begins_us, video.ends_us)
    if end_us <= start_us:
        return None, "nothing of it could be read"
    try:
        return strip(PyAVDecoder(), video.uri, start_us, end_us, video.width, video.height), ""
    except VideoError as e:
        log.warning("no picture of a video: %s", e.cause)
        return None, f"no frame can be read now ({e.cause})"


def _least_sure(store: ShardStore, ids: Sequence[str]) -> dict[str, Stretch]:
    """Of each video, the clip of which whoever answered was least sure; one that nobody answered for comes first."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, Stretch] = {}
    for table in scan(store, _COLUMNS):
        mine = table.filter(pc.is_in(table["video_id"], value_set=wanted))
        sure = pc.fill_null(mine["confidence"], -1.0)
        mine = mine.set_column(mine.column_names.index("confidence"), "confidence", sure)
        mine = mine.sort_by([("confidence", "descending"), ("start_us", "descending")])
        for row in mine.to_pylist():  # the last one of a video stands
            found[row["video_id"]] = row["start_us"], row["end_us"]
    return found
