"""From manifest rows and probed files to the videos table: copies merged, contradictions refused.

A file that moved keeps its id; a copy is one video with two URIs; changed bytes are another video. Rows that name
segments of one file are videos of their own. A file that could not be probed is a video too, with ``unreadable`` set
and no clips, so that it is listed and never silently left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.identity import item_id
from pipeline.known import ids_of
from schemas.clip import US
from schemas.errors import ManifestError
from schemas.shard import Failure
from schemas.video import PROBE_SCHEMA, VIDEOS_SCHEMA, segment_id

_ABOUT = ("label", "split", "group")
_ABOUT_FILES = ("duration_us", "num_bytes", "width", "height", "fps", "codec", "container")
_BATCH_ROWS = 1 << 16


def item_ids(entries: pa.Table) -> pa.ChunkedArray:
    """The index item of each entry: one version of one URI."""
    chunks = []
    for batch in entries.select(["uri", "token"]).to_batches(max_chunksize=_BATCH_ROWS):
        pairs = zip(batch["uri"].to_pylist(), batch["token"].to_pylist(), strict=True)
        chunks.append(pa.array([item_id(uri, token) for uri, token in pairs], pa.string()))
    return pa.chunked_array(chunks, pa.string())


def sampled_collisions(probed: pa.Table) -> dict[str, list[str]]:
    """Items that share a sampled id, by that id, in the order of ``probed``: they may hold different bytes."""
    if not probed.num_rows:
        return {}
    sampled = probed.filter(pc.equal(probed["id_method"], "sampled")).select(["file_id", "item_id"])
    counts = sampled["file_id"].value_counts()
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    out: dict[str, list[str]] = defaultdict(list)
    for row in sampled.filter(pc.is_in(sampled["file_id"], value_set=several)).to_pylist():
        out[row["file_id"]].append(row["item_id"])
    return dict(out)


def items_to_hash(
    collisions: Mapping[str, list[str]], full_ids: Mapping[str, str], there: Collection[str]
) -> list[str]:
    """Items whose full hash is needed before they may be merged. ``there`` holds those that can still be read.

    A file that moved meets only what is not there any more, and need not be read again.
    """
    out: list[str] = []
    for items in collisions.values():
        witnesses = [i for i in items if i in full_ids or i in there]
        if len(witnesses) > 1:
            out += [i for i in witnesses if i not in full_ids]
    return out


def true_file_ids(
    collisions: Mapping[str, list[str]], full_ids: Mapping[str, str], there: Collection[str]
) -> dict[str, str | None]:
    """File id of each item that shares a sampled id; None where that cannot be told before it is hashed.

    The first item that is hashed or can be keeps the sampled id, and so do those with its full hash; any other is
    named by its own. An item that is gone unhashed keeps the id: its file has moved, as far as anyone can tell.
    """
    out: dict[str, str | None] = {}
    for sampled, items in collisions.items():
        witnesses = [i for i in items if i in full_ids or i in there]
        for item in items:
            if item not in witnesses or item == witnesses[0]:
                out[item] = sampled
            elif item not in full_ids or witnesses[0] not in full_ids:
                out[item] = None
            else:
                out[item] = sampled if full_ids[item] == full_ids[witnesses[0]] else full_ids[item]
    return out


def build_catalog(
    entries: pa.Table,
    probed: pa.Table,
    failures: Mapping[str, Failure],
    renamed: Mapping[str, str | None],
) -> pa.Table:
    """The videos of `VIDEOS_SCHEMA`: whole files in the entries' order, then segments, unreadable ones, copies.

    Parameters
    ----------
    entries
        Manifest rows with tokens.
    probed
        Rows of `PROBE_SCHEMA`; ``failures`` holds the items that could not be probed, by item id. An entry that
        is in neither is not probed yet and left out.
    renamed
        File ids to use instead of the probed ones, by item id; see `true_file_ids`. None takes the item out of
        ``probed``.

    Raises
    ------
    ManifestError
        If copies of one video differ in label, split or group, or if a group spans two splits.
    """
    ids = item_ids(entries)
    if not probed.num_rows:
        probed = PROBE_SCHEMA.empty_table()
    if renamed:
        probed = _rename(probed, renamed)
    at = pc.index_in(ids, value_set=probed["item_id"].combine_chunks()).combine_chunks()
    good = pc.is_valid(at)
    found = entries if not at.null_count else entries.filter(good)
    table, short = _join(found, probed.select(["file_id", *_ABOUT_FILES]).take(at.drop_null()))
    bad_rows = entries.append_column("item_id", ids).filter(pc.invert(good)).to_pylist()
    bad = [_unreadable(row, failures[row["item_id"]]) for row in bad_rows if row["item_id"] in failures]
    if short or bad:
        table = pa.concat_tables([table, pa.Table.from_pylist([*short, *bad], VIDEOS_SCHEMA)])
    table = _merge_copies(table)
    _check_groups(table)
    return table


def _rename(probed: pa.Table, renamed: Mapping[str, str | None]) -> pa.Table:
    untold = pa.array([item for item, file in renamed.items() if file is None], pa.string())
    probed = probed.filter(pc.invert(pc.is_in(probed["item_id"], value_set=untold)))
    keys = pa.array([item for item, file in renamed.items() if file is not None], pa.string())
    values = pa.array([file for file in renamed.values() if file is not None], pa.string())
    file_ids = pc.coalesce(values.take(pc.index_in(probed["item_id"], value_set=keys)), probed["file_id"])
    return probed.set_column(probed.schema.get_field_index("file_id"), "file_id", file_ids)


def _join(entries: pa.Table, about: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Videos of entries with their probes (same length), and rows for segments that lie beyond the file's end."""
    uris = entries["uri"].combine_chunks()
    columns = {
        "video_id": about["file_id"],
        "file_id": about["file_id"],
        "uris": pa.ListArray.from_arrays(np.arange(len(uris) + 1, dtype=np.int32), uris),
        "start_us": entries["start_us"],
        "end_us": entries["end_us"],
        **{n: about[n] for n in _ABOUT_FILES},
        **{n: entries[n] for n in _ABOUT},
        "unreadable": pa.nulls(len(uris), pa.string()),
    }
    table = pa.Table.from_arrays(list(columns.values()), schema=VIDEOS_SCHEMA)
    is_segment = pc.or_(pc.is_valid(table["start_us"]), pc.is_valid(table["end_us"]))
    if not pc.any(is_segment).as_py():
        return table, []
    rows: list[dict[str, Any]] = []
    short: list[dict[str, Any]] = []
    for row in table.filter(is_segment).to_pylist():
        row = _segment(row)
        (rows if row["unreadable"] is None else short).append(row)
    whole = table.filter(pc.invert(is_segment))
    return pa.concat_tables([whole, pa.Table.from_pylist(rows, VIDEOS_SCHEMA)]), short


def _segment(row: dict[str, Any]) -> dict[str, Any]:
    """The video that is a segment of a file. It ends with the file, if not before; its id is that of what was asked."""
    start, end, duration = row["start_us"] or 0, row["end_us"], row["duration_us"]
    row["video_id"] = segment_id(row["file_id"], row["start_us"], end)
    if start >= duration:
        message = f"the segment starts at {start / US} s, the file ends at {duration / US} s"
        failure = Failure(row["video_id"], row["uris"][0], "probe", "SegmentError", message, True, 1, 0)
        return {**row, "unreadable": json.dumps(failure.to_json())}
    return {**row, "end_us": None if end is None else min(end, duration)}


def _unreadable(row: dict[str, Any], failure: Failure) -> dict[str, Any]:
    video_id = segment_id(row["item_id"], row["start_us"], row["end_us"])
    failure = replace(failure, video_id=video_id, missing_rows=0)
    return {
        "video_id": video_id,
        "file_id": row["item_id"],
        "uris": [row["uri"]],
        "start_us": row["start_us"],
        "end_us": row["end_us"],
        "duration_us": 0,
        "num_bytes": row["num_bytes"] or 0,
        "width": 0,
        "height": 0,
        "fps": 0.0,
        "codec": "",
        "container": "",
        **{name: row[name] for name in _ABOUT},
        "unreadable": json.dumps(failure.to_json()),
    }


def _merge_copies(table: pa.Table) -> pa.Table:
    """One row for each video: its first, with the URIs of all and whatever any of them says."""
    several = _ids_that_come_again(table["video_id"])
    if not len(several):
        return table
    is_copy = pc.is_in(table["video_id"], value_set=several)
    merged: dict[str, dict[str, Any]] = {}
    said_by: dict[tuple[str, str], str] = {}
    for row in table.filter(is_copy).to_pylist():
        kept = merged.setdefault(row["video_id"], {**row, "uris": []})
        kept["uris"] += [u for u in row["uris"] if u not in kept["uris"]]
        for name in _ABOUT:
            key = (row["video_id"], name)
            if row[name] is None:
                continue
            if key in said_by and row[name] != kept[name]:
                raise ManifestError(
                    f"one video, two {name}s: {said_by[key]} ({kept[name]!r}) and {row['uris'][0]} "
                    f"({row[name]!r}) hold the same bytes"
                )
            said_by.setdefault(key, row["uris"][0])
            kept[name] = row[name]
    single = table.filter(pc.invert(is_copy))
    return pa.concat_tables(
        [single, pa.Table.from_pylist(list(merged.values()), VIDEOS_SCHEMA)]
    ).combine_chunks()


def _ids_that_come_again(column: pa.ChunkedArray) -> pa.Array:
    ids = np.sort(np.concatenate([ids_of(c) for c in column.chunks] or [np.empty(0, "S16")]))
    again = np.unique(ids[1:][ids[1:] == ids[:-1]])
    digits = again.tobytes().hex()
    return pa.array([digits[i : i + 32] for i in range(0, len(digits), 32)], pa.string())


def _check_groups(table: pa.Table) -> None:
    """Videos of a group lie in one split; so do segments of a file of which no group is said."""
    has_group = pc.is_valid(table["group"])
    for what, by, rows in (
        ("group", "group", table.filter(has_group)),
        ("file", "file_id", table.filter(pc.invert(has_group))),
    ):
        pairs = rows.filter(pc.is_valid(rows["split"]))
        splits = pairs.group_by(by).aggregate(
            [("split", "count_distinct"), ("split", "min"), ("split", "max")]
        )
        wrong = splits.filter(pc.greater(splits["split_count_distinct"], 1)).to_pylist()
        if not wrong:
            continue
        w = wrong[0]
        name = w[by] if what == "group" else pairs.filter(pc.equal(pairs[by], w[by]))["uris"][0].as_py()[0]
        raise ManifestError(
            f"{what} {name!r} is in the splits {w['split_min']!r} and {w['split_max']!r} "
            f"({len(wrong)} such {what}s): a {what} must lie in one split, or what is learnt leaks into what is tested"
            + (
                ""
                if what == "group"
                else "; segments that have nothing to do with each other need groups of their own"
            )
        )
