"""The command that labels an archive, as the command line calls it."""

from __future__ import annotations

import sys
from typing import Any, Literal

from jobs.commands.flags import Flag, Json, Out, Quiet, Ray, at_least, run_settings, say_failed
from schemas.cluster import RayOptions
from schemas.errors import EXIT_OK, EXIT_UNFINISHED, SettingsError


def label(
    source: str,
    *,
    out: Out,
    student: str,
    policy: str,
    targets: str | None = None,
    audit_share: float = 0.0,
    audit_seed: int = 0,
    idle: float = 0.0,
    max_disagreement: float | None = None,
    name: str = "labels",
    limit: int | None = None,
    max_hours: float | None = None,
    batch_size: int | None = None,
    decodings: Literal[1, 2] | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    shard_clips: int | None = None,
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
    """Label videos: the student looks, and the teacher where the policy calls for it.

    Parameters
    ----------
    source
        A manifest (.csv, .tsv, .jsonl, .parquet with a column uri), a folder, a glob, an s3:// prefix, a video, or an
        index made by `locum index`.
    out
        Folder or URL under which the index and the label store are made.
    student
        Folder or URL of the student.
    policy
        Name of one of the student's policies (see `locum calibrate`), or the .json file of one.
    targets
        Folder or URL of the target store that the student learnt from, where it has moved: it says who the teacher is.
    audit_share
        Ask the teacher about all clips of this share of videos, drawn at random, to see how often the labels agree.
    audit_seed
        Of that draw.
    idle
        Leave out clips in which less changes, by the sizes of their packets, than this share of what does in the
        busiest clips of the same video: nobody is asked about them, and they are not decoded. For long videos in which
        little happens.
    max_disagreement
        Alarm when audits say that more than this share of videos disagrees with the dense teacher; what the policy's
        certificate says where not given.
    name
        First part of the store's folder name.
    limit
        Label at most so many videos, sampled evenly over label and split.
    max_hours
        Stop after so many hours; run again to continue.
    batch_size
        Clips a batch of the teacher; that with which the store was begun where not given, and 8 for a new store.
    decodings
        1: student and teacher see frames of one decoding; 2: the teacher's clips are decoded by themselves, once it is
        known which they are. Where not given, some videos tell which is cheaper. Two where their decoders differ.
    device
        'auto', 'cpu', 'cuda', 'cuda:1'.
    num_threads
        Threads of each worker's models on the CPU. Where not given: one (a worker a core), or with --local all.
    shard_clips
        Clips a shard, the unit of retry and commit; chosen from the total where not given.
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
    from jobs.label import LabelOptions
    from jobs.label import label as run_label
    from jobs.runners import runner_for

    at_least("--max-attempts", max_attempts, 1)
    if not 0 <= audit_share <= 1:
        raise SettingsError(f"--audit-share is a share of the videos, 0 to 1: {audit_share}")
    if not 0 <= idle < 1:
        raise SettingsError(f"--idle is a share of what comes to most in a video, 0 to less than 1: {idle}")
    if max_disagreement is not None and not 0 < max_disagreement < 1:
        raise SettingsError(
            f"--max-disagreement is a share of the videos, between 0 and 1: {max_disagreement}"
        )
    for flag, given in (
        ("--batch-size", batch_size),
        ("--limit", limit),
        ("--shard-clips", shard_clips),
        ("--num-threads", num_threads),
    ):
        if given is not None:
            at_least(flag, given, 1)
    options = LabelOptions(
        name=name,
        targets=targets,
        audit_share=audit_share,
        audit_seed=audit_seed,
        idle=idle,
        max_disagreement=max_disagreement,
        limit=limit,
        batch_size=batch_size,
        decodings=decodings,
        device=device,
        num_threads=num_threads,
        shard_clips=shard_clips,
        max_attempts=max_attempts,
        settings=run_settings(max_hours, max_transient_share, max_damaged_share),
    )
    runner = runner_for(
        cluster, local=local, max_attempts=max_attempts, device=device, num_threads=num_threads
    )
    with progress_display(quiet=quiet) as display, runner as running:
        report = run_label(
            source,
            out,
            student,
            policy,
            options,
            runner=running,
            on_index_progress=display.phase("index", "files"),
            on_progress=display.phase("label", "clips"),
        )
    body = report.to_json()
    emit(body, as_json=as_json, text=_text(body))
    if profile:
        from jobs.commands.profile import profile_table

        print(profile_table(report.summary), file=sys.stderr)
    if report.scores is not None:
        say_failed(report.scores.summary.failed_shards)
    say_failed(report.summary.failed_shards)
    return EXIT_OK if report.complete else EXIT_UNFINISHED


def _text(body: dict[str, Any]) -> str:
    from jobs.words import duration

    run, found = body["this_run"], body["labelled"]
    unasked = f"nobody about {found['clips'] - found['asked']}; " if found["asked"] < found["clips"] else ""
    learnt = ""
    if number := found["labelled_videos_learnt_from"]:
        learnt = f" ({number} more with a label do not count: student, teacher or policy were made from them)"
    lines = [
        f"{body['videos']} videos, {body['planned']} clips planned: {body['rows']} labelled, "
        f"{body['quarantined_rows']} quarantined ({body['quarantined_videos']} videos damaged or unreadable)"
        + (f", {body['tombstoned_rows']} removed" if body["tombstoned_rows"] else ""),
        f"the teacher was asked about {found['deferred']} of {found['clips']} clips ({found['deferred_share']:.1%}); "
        f"{unasked}seconds: {found['decode_s']:.1f} decoding, {found['student_s']:.1f} student, "
        f"{found['teacher_s']:.1f} teacher"
        + ("" if found["money"] is None else f"; money: {found['money']:.2f}"),
        f"decodings: {body['decodings']}",
        f"this run: {run['rows']} clips in {duration(run['seconds'])} ({run['clips_per_second']:.1f} clips/s)",
    ]
    if found["accuracy"] is not None:
        lines.append(
            f"{found['accuracy']:.4f} of {found['labelled_videos']} videos with a label got it{learnt}"
        )
    elif learnt:
        lines.append(f"nothing is known of the accuracy{learnt}")
    if (checked := body["audit"])["videos"]:
        lines.append(
            f"audit: {checked['disagreements']} of {checked['videos']} videos have another label than the dense "
            f"teacher's; with 95 % confidence at most {checked['at_most']:.1%} do (one of each group counts"
            + (f", {checked['left_out']} do not: damaged, or learnt from)" if checked["left_out"] else ")")
        )
        if (drift := checked["drift"]) is not None and drift["alarm"]:
            lines.append(
                f"ALARM: audits say that more than {drift['alpha']:g} of videos disagree with the dense teacher "
                f"(after {drift['alarm_at']} groups; such an alarm is false with a chance of {drift['delta']:g} at "
                "most): what is labelled is unlike what was calibrated on. Calibrate anew on such videos"
            )
    if (certificate := body["certificate"]) is not None:
        lines.append(
            f"guaranteed with confidence {1 - certificate['delta']:g}: at most {certificate['alpha']:g} of videos like "
            "those of the calibration split have another label than the dense teacher's"
            + _checked(body["replayed"])
        )
    if body["quarantined_videos"]:
        lines.append(f"see: locum failures {body['store']}")
    if (before := body.get("scores")) is not None and (
        before["quarantined_videos"] or not before["complete"]
    ):
        lines.append(
            f"the student's scores are a store of their own, {before['store']}: {before['quarantined_videos']} videos "
            f"failed there (locum failures, locum retry), {before['pending_shards']} shards are pending"
        )
    if not body["complete"]:
        lines.append(f"{body['pending_shards']} shards are pending: run the same command again")
    return "\n".join([*lines, body["store"], body["videos_file"]])


def _checked(replayed: dict[str, Any] | None) -> str:
    if replayed is None or not replayed["clips"]:
        return " (not checked here: no calibration clip could be read)"
    return f" (checked on {replayed['clips']} calibration clips)"
