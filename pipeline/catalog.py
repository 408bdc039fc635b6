"""From manifest rows and probed files to the videos table: copies merged, contradictions refused.

A file that moved keeps its id; a copy is one video with two URIs; changed bytes are another video. Rows that name
segments of one file are videos of their own. A file that could not be probed is a video too, with ``unreadable`` set
and no clips, so that it is listed and never silently left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.identity import item_id
from schemas.clip import US
from schemas.errors import ManifestError
from schemas.shard import Failure
from schemas.video import VIDEOS_SCHEMA, segment_id

_ABOUT = ("label", "split", "group")


def item_ids(entries: pa.Table) -> list[str]:
    """The index item of each entry: one version of one URI."""
    return [item_id(u, t) for u, t in zip(entries["uri"].to_pylist(), entries["token"].to_pylist(), strict=True)]


def sampled_collisions(probed: pa.Table) -> dict[str, list[str]]:
    """Items that share a sampled id, by that id: they need a full hash before they may be merged."""
    sampled = probed.filter(pc.equal(probed["id_method"], "sampled")).select(["file_id", "item_id"])
    counts = sampled["file_id"].value_counts()
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    out: dict[str, list[str]] = defaultdict(list)
    for row in sampled.filter(pc.is_in(sampled["file_id"], value_set=several)).to_pylist():
        out[row["file_id"]].append(row["item_id"])
    return dict(out)


def true_file_ids(collisions: Mapping[str, list[str]], full_ids: Mapping[str, str]) -> dict[str, str]:
    """File id of each item that shares a sampled id: the first item keeps it, and so do those with its full hash;
    any other is named by its own full hash. ``full_ids`` gives the full hash of an item."""
    out: dict[str, str] = {}
    for sampled, items in collisions.items():
        first = full_ids.get(items[0])
        for item in items:
            full = full_ids.get(item)
            out[item] = sampled if item == items[0] or (full is not None and full == first) else full or sampled
    return out


def build_catalog(
    entries: pa.Table, probed: pa.Table, failures: Mapping[str, Failure], renamed: Mapping[str, str]
) -> pa.Table:
    """The videos of `VIDEOS_SCHEMA`, in the entries' order.

    Parameters
    ----------
    entries
        Manifest rows with tokens.
    probed
        Rows of `PROBE_SCHEMA`; ``failures`` holds the items that could not be probed, by item id. An entry that is
        in neither is not probed yet and left out.
    renamed
        File ids to use instead of the probed ones, by item id; see `true_file_ids`.

    Raises
    ------
    ManifestError
        If copies of one video differ in label, split or group, or if a group spans two splits.
    """
    ids = pa.array(item_ids(entries), pa.string())
    at = pc.index_in(ids, value_set=probed["item_id"].combine_chunks())
    if renamed:
        probed = _rename(probed, renamed)
    good = pc.is_valid(at)
    found = entries.filter(good)
    about = probed.take(at.drop_null())
    videos, short = _join(found, about)
    bad_rows = entries.append_column("item_id", ids).filter(pc.invert(good)).to_pylist()
    bad = [_unreadable(row, failures[row["item_id"]]) for row in bad_rows if row["item_id"] in failures]
    table = pa.concat_tables([videos, pa.Table.from_pylist([*short, *bad], VIDEOS_SCHEMA)]).combine_chunks()
    table = _merge_copies(table)
    _check_groups(table)
    return table


def _rename(probed: pa.Table, renamed: Mapping[str, str]) -> pa.Table:
    pairs = zip(probed["item_id"].to_pylist(), probed["file_id"].to_pylist(), strict=True)
    return probed.set_column(
        probed.schema.get_field_index("file_id"), "file_id", pa.array([renamed.get(i, f) for i, f in pairs])
    )


def _join(entries: pa.Table, about: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Videos of entries with their probes (same length), and rows for segments that lie beyond the file's end."""
    uris = entries["uri"].combine_chunks()
    lists = pa.ListArray.from_arrays(pa.array(range(len(uris) + 1), pa.int32()), uris)
    columns = {
        "video_id": about["file_id"],
        "file_id": about["file_id"],
        "uris": lists,
        "start_us": entries["start_us"],
        "end_us": entries["end_us"],
        **{n: about[n] for n in ("duration_us", "num_bytes", "width", "height", "fps", "codec", "container")},
        **{n: entries[n] for n in _ABOUT},
        "unreadable": pa.nulls(len(uris), pa.string()),
    }
    table = pa.Table.from_arrays([pa.chunked_array([c]) if isinstance(c, pa.Array) else c for c in columns.values()], schema=VIDEOS_SCHEMA)
    if entries["start_us"].null_count == len(entries) and entries["end_us"].null_count == len(entries):
        return table, []
    rows, short = [], []
    for row in table.to_pylist():
        row["video_id"] = segment_id(row["file_id"], row["start_us"], row["end_us"])
        start, duration = row["start_us"] or 0, row["duration_us"]
        if start >= duration:
            message = f"the segment starts at {start / US} s, the file ends at {duration / US} s"
            failure = Failure(row["video_id"], row["uris"][0], "probe", "SegmentError", message, True, 1, 0)
            short.append({**row, "unreadable": json.dumps(failure.to_json())})
        else:
            rows.append(row)
    return pa.Table.from_pylist(rows, VIDEOS_SCHEMA), short


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
    counts = table["video_id"].value_counts()
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(several):
        return table
    is_copy = pc.is_in(table["video_id"], value_set=several)
    merged: dict[str, dict[str, Any]] = {}
    for row in table.filter(is_copy).to_pylist():
        kept = merged.setdefault(row["video_id"], {**row, "uris": []})
        kept["uris"] += [u for u in row["uris"] if u not in kept["uris"]]
        for name in _ABOUT:
            if kept[name] is None:
                kept[name] = row[name]
            elif row[name] is not None and row[name] != kept[name]:
                raise ManifestError(
                    f"one video, two {name}s: {kept['uris'][0]} ({kept[name]!r}) and {row['uris'][0]} "
                    f"({row[name]!r}) hold the same bytes"
                )
    first: set[str] = set()
    keep = []
    for video, copy in zip(table["video_id"].to_pylist(), is_copy.to_pylist(), strict=True):
        keep.append(not copy or video not in first)
        if copy:
            first.add(video)
    kept_rows = table.filter(pa.array(keep))
    at = pa.array([merged.get(v, {}).get("uris") for v in kept_rows["video_id"].to_pylist()], pa.list_(pa.string()))
    uris = pc.coalesce(at, kept_rows["uris"].combine_chunks())
    out = kept_rows.set_column(VIDEOS_SCHEMA.get_field_index("uris"), VIDEOS_SCHEMA.field("uris"), uris)
    for name in _ABOUT:
        values = pa.array([merged.get(v, {}).get(name) for v in out["video_id"].to_pylist()], pa.string())
        column = pc.coalesce(values, out[name].combine_chunks())
        out = out.set_column(VIDEOS_SCHEMA.get_field_index(name), VIDEOS_SCHEMA.field(name), column)
    return out


def _check_groups(table: pa.Table) -> None:
    pairs = table.filter(pc.and_(pc.is_valid(table["group"]), pc.is_valid(table["split"])))
    if not pairs.num_rows:
        return
    splits = pairs.group_by("group").aggregate([("split", "count_distinct"), ("split", "min"), ("split", "max")])
    wrong = splits.filter(pc.greater(splits["split_count_distinct"], 1)).to_pylist()
    if wrong:
        w = wrong[0]
        raise ManifestError(
            f"group {w['group']!r} is in the splits {w['split_min']!r} and {w['split_max']!r} "
            f"({len(wrong)} such groups): a group must lie in one split, or what is learnt leaks into what is tested"
        )
