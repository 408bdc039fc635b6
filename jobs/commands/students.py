"""The commands that make a student, as the command line calls them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Out, Quiet, Ray, at_least, run_settings, say_failed
from schemas.cluster import RayOptions
from schemas.errors import EXIT_OK, EXIT_UNFINISHED, SettingsError
from schemas.frames import KeepSpec
from schemas.student import TrainSpec

if TYPE_CHECKING:
    from pipeline.distill.loop import TrainProgress


def frames(
    targets: str,
    *,
    out: Annotated[str | None, Parameter(alias="-o")] = None,
    keep: Annotated[KeepSpec, Parameter(name="*")] = KeepSpec(),
    name: str = "frames",
    max_hours: float | None = None,
    max_attempts: int = 3,
    max_transient_share: float = 0.1,
    max_damaged_share: float = 1.0,
    local: Flag = False,
    cluster: Ray = RayOptions(),
    profile: Flag = False,
    as_json: Json = False,
    quiet: Quiet = False,
    config: str | None = None,
) -> int:
    """Keep a small view of every clip of a target store, so that training never decodes video again.

    Parameters
    ----------
    targets
        Folder or URL of the target store.
    out
        Folder or URL under which the frame store is made; beside the target store where not given.
    keep
        What is kept of each clip.
    name
        First part of the store's folder name.
    max_hours
        Stop after so many hours; run again to continue.
    max_attempts
        How often to try a video that cannot be reached, or that crashes its decoder, makes it hang or swell.
    max_transient_share
        Stop when more than this share of videos cannot be reached.
    max_damaged_share
        Stop when more than this share of videos is damaged.
    local
        Run in this process, without Ray and its protection against videos that crash a decoder; for debugging.
    cluster
        How the run is spread over Ray.
    profile
        Print where the time went.
    as_json
        Print one JSON object.
    quiet
        Show no progress.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit, progress_display
    from jobs.frames import FramesOptions, keep_frames
    from jobs.runners import runner_for

    at_least("--max-attempts", max_attempts, 1)
    options = FramesOptions(
        name, max_attempts, run_settings(max_hours, max_transient_share, max_damaged_share)
    )
    runner = runner_for(cluster, local=local, max_attempts=max_attempts, device="cpu")
    with progress_display(quiet=quiet) as display, runner as running:
        report = keep_frames(
            targets, out, keep, options, runner=running, on_progress=display.phase("frames", "clips")
        )
    body = report.to_json()
    emit(body, as_json=as_json, text=_frames_text(body))
    if profile:
        from jobs.commands.profile import profile_table

        print(profile_table(report.summary), file=sys.stderr)
    say_failed(report.summary.failed_shards)
    return EXIT_OK if report.complete else EXIT_UNFINISHED


def _frames_text(body: dict[str, Any]) -> str:
    from jobs.words import duration, size

    run = body["this_run"]
    lines = [
        f"{body['videos']} videos, {body['planned']} clips planned: {body['rows']} kept, "
        f"{body['quarantined_rows']} quarantined ({body['quarantined_videos']} videos damaged or unreadable)"
        + (f", {body['tombstoned_rows']} removed" if body["tombstoned_rows"] else ""),
        f"{size(body['data_bytes'])}, {body['bytes_per_clip'] / 1000:.1f} kB a clip; this run: {run['rows']} clips in "
        f"{duration(run['seconds'])} ({run['clips_per_second']:.1f} clips/s)",
    ]
    if body["quarantined_videos"]:
        lines.append(f"see: locum failures {body['store']}")
    if not body["complete"]:
        lines.append(f"{body['pending_shards']} shards are pending: run the same command again")
    return "\n".join([*lines, body["store"]])


def distill(
    *targets: str,
    out: Out,
    train: Annotated[TrainSpec, Parameter(name="*")] = TrainSpec(),
    name: str = "student",
    frames: str | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    workers: int = 1,
    ray: str | None = None,
    tensorboard: str | None = None,
    as_json: Json = False,
    quiet: Quiet = False,
    config: str | None = None,
) -> int:
    """Train a student from cached targets and kept frames. No video is decoded, and the teacher is not run.

    Parameters
    ----------
    targets
        Folders or URLs of target stores, one for each teacher.
    out
        Folder or URL under which the student's folder is made.
    train
        The student, and how it is trained.
    name
        First part of the student's folder name.
    frames
        Folder or URL of the frame store; the one beside the targets where not given.
    device
        'auto', 'cpu', 'cuda', 'cuda:1'.
    num_threads
        Threads on the CPU; all where not given. Weights repeat to the bit with the same number of threads.
    workers
        Above 1: train by so many workers of Ray Train, each with a part of every batch, and with a GPU where there are
        enough. Else in this process.
    ray
        With --workers: 'local' starts a Ray of the run's own; 'auto' joins the cluster that RAY_ADDRESS names or this
        machine belongs to; else the address of one.
    tensorboard
        Folder for TensorBoard logs; needs the extra of that name.
    as_json
        Print one JSON object.
    quiet
        Show no progress.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit
    from jobs.commands.training_console import training_display
    from jobs.distill import DistilOptions, distil
    from jobs.distilling.tensorboard import tensorboard_log
    from jobs.distilling.workers import distil_on_workers
    from pipeline.models.memory import keep_freed_memory

    if num_threads is not None:
        at_least("--num-threads", num_threads, 1)
    at_least("--workers", workers, 1)
    if ray is not None and workers == 1:
        raise SettingsError("--ray is for several --workers: one trains in this process")
    options = DistilOptions(name, frames, device, num_threads)
    with ExitStack() as stack:
        shows = [stack.enter_context(training_display(quiet=quiet))]
        if tensorboard is not None:
            shows.append(stack.enter_context(tensorboard_log(tensorboard)))

        def show_all(p: TrainProgress) -> None:
            for show in shows:
                if show is not None:
                    show(p)

        if workers > 1:
            no_gpu = 0.0 if device == "cpu" else None
            cluster = RayOptions(ray=ray, workers=str(workers), gpus_per_worker=no_gpu)
            report = distil_on_workers(targets, out, train, options, cluster, on_progress=show_all)
        else:
            keep_freed_memory()
            report = distil(targets, out, train, options, on_progress=show_all)
    emit(
        {"student": report.url, **report.about}, as_json=as_json, text=_student_text(report.url, report.about)
    )
    return EXIT_OK


def _student_text(url: str, about: Mapping[str, Any]) -> str:
    clips = ", ".join(f"{n} to {what}" for what, n in about["clips"].items() if n)
    then = ", final phase from there" if about["train"]["final_epochs"] else ""
    lines = [
        f"{about['parameters']:,} parameters; clips: {clips}; trained in {about['train_seconds']:.0f} s, best after "
        f"epoch {about['best_epoch'] + 1}{then}",
    ]
    for split, found in about["evaluation"].items():
        lines.append(
            f"{split}: {found['clips']} clips of {found['videos']} videos in {found['groups']} groups"
        )
        lines += [f"  {name:36s} {_interval(m)}" for name, m in found["metrics"].items()]
    return "\n".join([*lines, url])


def _interval(metric: Mapping[str, float | None]) -> str:
    value, low, high = (metric[k] for k in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:8.4f}" + (f"  [{low:.4f}, {high:.4f}]" if low is not None and high is not None else "")
