"""The command that says what a teach run would take, before anything is rented for it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Ray, at_least
from schemas.cluster import RayOptions
from schemas.errors import EXIT_OK
from schemas.frames import KeepSpec
from schemas.prices import Prices
from schemas.targets import TargetSpec


def plan(
    source: str,
    *,
    spec: Annotated[TargetSpec, Parameter(name="*")],
    prices: Prices = Prices(),
    limit: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    num_threads: int | None = 1,
    keep_frames: Flag = False,
    keep: KeepSpec | None = None,
    local: Flag = False,
    cluster: Ray = RayOptions(),
    as_json: Json = False,
    config: str | None = None,
) -> int:
    """Say what `locum teach` would take of machines, hours, bytes and money; write nothing.

    Parameters
    ----------
    source
        A manifest, a folder, a glob, an s3:// prefix, a video, or an index, as for `locum teach`.
    spec
        What is asked of the teacher.
    prices
        What machines and storage cost.
    limit
        As if at most so many videos were taught.
    batch_size
        Clips a batch; the fastest of a short probe where not given.
    device
        'auto', 'cpu', 'cuda'.
    num_threads
        Threads of the teacher on a CPU; hours of a core are told from one.
    keep_frames
        Count a small view of every clip too.
    keep
        What is kept of each clip; any of these keeps frames.
    local
        Measure in this process, without Ray; for debugging.
    cluster
        Where to measure: on a worker of this cluster.
    as_json
        Print one JSON object.
    config
        YAML file with these settings; flags win.
    """
    from jobs.bill import bill
    from jobs.commands.console import emit
    from jobs.estimate import estimate
    from jobs.runners import runner_for
    from jobs.teach import TeachOptions

    for flag, given in (("--batch-size", batch_size), ("--limit", limit), ("--num-threads", num_threads)):
        if given is not None:
            at_least(flag, given, 1)
    options = TeachOptions(
        limit=limit,
        batch_size=batch_size,
        device=device,
        num_threads=num_threads,
        keep=keep or (KeepSpec() if keep_frames else None),
    )
    with runner_for(cluster, local=local, device=device, num_threads=num_threads) as runner:
        guess = estimate(source, spec, options, runner)
    on_gpu = guess.device == "cuda"
    costs = bill(
        clips=guess.clips,
        decode_ms=guess.decode_ms_a_clip,
        teacher_ms=guess.teacher_ms_a_clip * (1 if on_gpu else num_threads or 1),
        on_gpu=on_gpu,
        read_bytes=guess.video_bytes,
        stored_bytes=guess.store_bytes + guess.frames_bytes,
        prices=prices,
    )
    text = "\n".join([*guess.to_text().splitlines()[:3], costs.to_text()])
    emit({**guess.to_json(), "bill": costs.to_json()}, as_json=as_json, text=text)
    return EXIT_OK
