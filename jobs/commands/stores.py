"""The commands that look at a store, or mend one, as the command line calls them."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from jobs.commands.flags import Json
from schemas.errors import EXIT_OK, EXIT_STORE, SettingsError


def status(store: str, *, as_json: Json = False) -> int:
    """What a store holds and what is pending.

    Parameters
    ----------
    store
        Folder or URL of the store.
    as_json
        Print one JSON object.
    """
    from dataclasses import asdict

    from jobs.commands.console import emit
    from jobs.words import size
    from pipeline.store.shard_store import ShardStore
    from pipeline.store.verify import count

    opened = ShardStore.open(store)
    counts = count(opened)
    body: dict[str, Any] = {
        "store": opened.url,
        "kind": opened.document.kind,
        "fingerprint": opened.document.fingerprint,
        "generations": len(opened.generations()),
        "complete": counts.complete,
        **asdict(counts),
    }
    share = 100 * (counts.rows + counts.quarantined_rows + counts.tombstoned_rows) / max(1, counts.planned)
    text = "\n".join(
        [
            f"{opened.url}",
            f"  {counts.videos} videos, {counts.planned} rows planned in {counts.shards} shards",
            f"  {counts.rows} rows, {counts.quarantined_rows} quarantined "
            f"({counts.quarantined_videos} videos damaged or unreadable), "
            f"{counts.tombstoned_rows} removed: {share:.1f} %",
            f"  {counts.pending_shards} shards pending; {size(counts.data_bytes)} of data",
            "  complete" if counts.complete else "  not complete: run the same command again",
        ]
    )
    emit(body, as_json=as_json, text=text)
    return EXIT_OK


def failures(store: str, *, stage: str | None = None, as_json: Json = False) -> int:
    """List the videos that could not be read, or only in part.

    Parameters
    ----------
    store
        Folder or URL of the store.
    stage
        Only those that failed while being: open, probe, decode.
    as_json
        Print one JSON object a line.
    """
    import json

    from pipeline.store.read import failures as list_failures
    from pipeline.store.shard_store import ShardStore

    found = [(k, f) for k, f in list_failures(ShardStore.open(store)) if stage in (None, f.stage)]
    for key, f in found:
        if as_json:
            print(json.dumps({**f.to_json(), "shard": str(key)}))
        else:
            lasting = "damaged" if f.permanent else "unreachable"
            print(
                f"{f.uri}\n  {lasting} at {f.stage}: {f.error}: {f.message}\n"
                f"  {f.missing_rows} clips missing, {f.damaged_rows} from damaged frames, "
                f"{f.attempts} attempts, video {f.video_id}"
            )
    if not as_json:
        print(f"{len(found)} videos" if found else "no failures")
    return EXIT_OK


def retry(
    store: str,
    *,
    stage: str | None = None,
    permanent: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> int:
    """Plan failed videos anew; the next run of the command that made the store computes them.

    Parameters
    ----------
    store
        Folder or URL of the store.
    stage
        Only those that failed at this stage.
    permanent
        Also damaged files, whose salvaged rows are replaced.
    as_json
        Print one JSON object.
    """
    from dataclasses import asdict

    from jobs.commands.console import emit
    from pipeline.store.mend import retry as reopen
    from pipeline.store.shard_store import ShardStore

    report = reopen(ShardStore.open(store), stage=stage, permanent=permanent)
    lines = [f"{report.reopened} videos planned anew; run the same command as before to compute them"]
    if report.unprobed:
        lines.append(f"{report.unprobed} were never probed: retry their index (the videos store) instead")
    if report.permanent:
        lines.append(f"{report.permanent} are damaged and were left; --permanent takes them too")
    emit(asdict(report), as_json=as_json, text="\n".join(lines))
    return EXIT_OK


def verify(store: str, *, as_json: Json = False) -> int:
    """Prove a store: no gap, no duplicate, no stranger. Exit code 4 where it is not so.

    Parameters
    ----------
    store
        Folder or URL of the store.
    as_json
        Print one JSON object.
    """
    from dataclasses import asdict

    from jobs.commands.console import emit
    from pipeline.store.shard_store import ShardStore
    from pipeline.store.verify import verify as prove

    opened = ShardStore.open(store)
    report = prove(opened)
    c = report.counts
    body = {
        "store": opened.url,
        "clean": report.clean,
        "complete": c.complete,
        "problems": list(report.problems),
        "stale": [str(k) for k in report.stale],
        **asdict(c),
    }
    sums = f"{c.rows} rows + {c.quarantined_rows} quarantined + {c.tombstoned_rows} removed"
    lines = [f"{sums} of {c.planned} planned; {c.pending_shards} shards pending"]
    lines += [f"problem: {p}" for p in report.problems]
    lines += [f"stale rows in {k}: `locum prune {opened.url}` removes them" for k in report.stale]
    lines.append("clean" if report.clean else "NOT clean")
    emit(body, as_json=as_json, text="\n".join(lines))
    return EXIT_OK if report.clean else EXIT_STORE


def prune(
    store: str,
    *,
    video: Annotated[list[str] | None, Parameter(negative=())] = None,
    uri: Annotated[list[str] | None, Parameter(negative=())] = None,
    reason: str = "",
    as_json: Json = False,
) -> int:
    """Remove videos for good, and sweep what interrupted runs left. Without a video it only sweeps.

    Parameters
    ----------
    store
        Folder or URL of the store.
    video
        Id of a video to remove; may be given several times.
    uri
        URI or local path of a video to remove, whatever copies of it there are; may be given several times.
    reason
        Kept with the removal.
    as_json
        Print one JSON object.
    """
    from jobs.commands.console import emit
    from jobs.prune import prune as run_prune

    report = run_prune(store, videos=video or (), uris=uri or (), reason=reason)
    text = (
        f"{report['removed_videos']} videos and {report['removed_rows']} rows removed; "
        f"{report['swept_shards']} shards and {report['swept_files']} temporary files swept"
    )
    emit(report, as_json=as_json, text=text)
    return EXIT_OK


def derive(store: str, *, as_json: Json = False) -> int:
    """Recompute the uncertainty columns from the cached logits; the teacher is not run.

    Parameters
    ----------
    store
        Folder or URL of a target store.
    as_json
        Print one JSON object.
    """
    from jobs.commands.console import emit
    from pipeline.store.mend import derive as rewrite
    from pipeline.store.shard_store import ShardStore
    from pipeline.tasks.targets_table import rederive

    opened = ShardStore.open(store)
    if opened.document.kind != "targets" or opened.document.spec.get("logits", {}).get("top_k"):
        raise SettingsError(f"{store}: derived columns can be recomputed for target stores with dense logits")
    shards = rewrite(opened, rederive)
    emit({"store": opened.url, "shards": shards}, as_json=as_json, text=f"{shards} shards rewritten")
    return EXIT_OK
