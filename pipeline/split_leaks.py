"""Groups that would span two splits once a new look at the videos is added to what a store knows.

Within one look `pipeline.catalog` finds them; this finds those between looks, where day 1 puts a group under test and
day 2 adds other videos of it to train. A group that moves as a whole is no leak.
"""

from __future__ import annotations

import numpy as np

from pipeline.known import ABOUT, Known, about_of, ids_of
from pipeline.plan import Batches
from schemas.errors import ManifestError

_SPLIT, _GROUP = ABOUT.index("split"), ABOUT.index("group")


def check_splits(known: Known, videos: Batches) -> None:
    """Compare the splits of each group, the new look's word before the older one.

    Raises
    ------
    ManifestError
        If a group is in two splits; names the group, both splits and a video of each.
    """
    if not len(known.ids_M):
        return
    said_M3 = known.about_M3.copy()
    fresh = []
    for batch in videos():
        said_N3 = about_of(batch)
        at, found = known.find(ids_of(batch["video_id"]))
        newer = said_N3[found]
        said_M3[at[found]] = np.where(newer != 0, newer, said_M3[at[found]])
        fresh.append(said_N3[~found])
    pairs_P2 = np.concatenate([said_M3, *fresh])[:, [_GROUP, _SPLIT]]
    pairs_P2 = np.unique(pairs_P2[(pairs_P2 != 0).all(axis=1)], axis=0)
    groups, counts = np.unique(pairs_P2[:, 0], return_counts=True)
    suspects = groups[counts > 1]
    if len(suspects):  # hashes of 32 bits: look at the words before accusing
        _look_closer(known, said_M3, videos, suspects)


def _look_closer(known: Known, said_M3: np.ndarray, videos: Batches, suspects: np.ndarray) -> None:
    seen: dict[str, tuple[str, str]] = {}
    looked = set()
    for batch in videos():
        at, found = known.find(ids_of(batch["video_id"]))
        said_N3 = np.where(found[:, None], said_M3[at], about_of(batch))
        mask = np.isin(said_N3[:, _GROUP], suspects)
        looked.update(at[found & mask].tolist())
        for row in batch.filter(mask).to_pylist():
            _compare(seen, row["group"], row["split"], row["uris"])
    rest = [i for i in np.flatnonzero(np.isin(said_M3[:, _GROUP], suspects)).tolist() if i not in looked]
    for row in known.newest_rows(np.array(rest, np.int64)).to_pylist() if rest else ():
        _compare(seen, row["group"], row["split"], row["uris"])


def _compare(seen: dict[str, tuple[str, str]], group: str | None, split: str | None, uris: list[str]) -> None:
    if group is None or split is None:
        return
    uri = uris[0] if uris else "a video without a URI"
    split_before, uri_before = seen.setdefault(group, (split, uri))
    if split_before != split:
        raise ManifestError(
            f"group {group!r} would be in two splits: {uri_before} is in {split_before!r}, {uri} in {split!r}. What is "
            "learnt from one would leak into what is tested on the other; a group can only move as a whole"
        )
