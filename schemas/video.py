"""Videos: what was found, what it is, and by which name it is known.

``file_id`` names bytes, ``video_id`` names a unit of labelling: a whole file (then both are equal) or a
segment of one. Both are 32 hex digits. URIs are aliases.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".mpe", ".vob", ".wmv",
    ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".y4m", ".h264", ".264", ".hevc", ".265", ".asf", ".divx", ".rm",
    ".rmvb",
})
# fmt: on

ENTRIES_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field(
            "token", pa.string()
        ),  # size and modification time or ETag; null where the file was not found
        pa.field("num_bytes", pa.int64()),
        pa.field("start_us", pa.int64()),
        pa.field("end_us", pa.int64()),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
    ]
)
"""Manifest rows after reading: absolute URIs, one row for each thing to label."""

PROBE_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("id_method", pa.string(), nullable=False),  # full | sampled | etag
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("duration_us", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("rotation", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("num_frames", pa.int64()),
        pa.field("num_keyframes", pa.int64()),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("container", pa.string(), nullable=False),
        pa.field("has_audio", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("probe_ms", pa.float32(), nullable=False),
    ]
)
"""One probed file a row. ``duration_us`` is what the file declares where that can be trusted."""

VIDEOS_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("uris", pa.list_(pa.string()), nullable=False),
        pa.field("start_us", pa.int64()),
        pa.field("end_us", pa.int64()),
        pa.field("duration_us", pa.int64(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("container", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("unreadable", pa.string()),  # JSON of the Failure, where probing gave none of the above
    ]
)
"""The videos table: one row for each unit of labelling, duplicates merged."""


@dataclass(frozen=True, slots=True)
class Video:
    """What a task needs to know of one video. ``uri`` is the first of its aliases.

    ``start_us`` and ``end_us`` bound the segment; for a whole file they are 0 and its duration. ``file_id`` says
    which bytes are meant, where that is known. ``only_us`` are the starts of the clips that are wanted of it, where
    not all ``num_clips`` are; of one that is wanted ``in_full`` idle ones have frames too.
    """

    video_id: str
    uri: str
    start_us: int
    end_us: int
    num_clips: int
    unreadable: str | None = None
    uris: tuple[str, ...] = ()
    id_method: str = "auto"
    file_id: str = ""
    only_us: tuple[int, ...] | None = None
    in_full: bool = False

    @property
    def num_wanted(self) -> int:
        """Number of the clips that are wanted."""
        return self.num_clips if self.only_us is None else len(self.only_us)


def segment_id(file_id: str, start_us: int | None, end_us: int | None) -> str:
    """The ``video_id`` of a segment; a whole file keeps its ``file_id``. A start of 0 is none."""
    if not start_us and end_us is None:
        return file_id
    text = f"{file_id}:{start_us or ''}:{end_us if end_us is not None else ''}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
