"""Label: index the videos, plan what is new, and let student and teacher label it as a policy says.

    student + policy  ->  index  ->  next generation of the plan  ->  run what is pending  ->  video labels

Every step is resumable, as in `jobs.teach`. The rows of clips are the store; labels of videos follow from them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pydantic import ValidationError

from jobs.calibrate import FOLDER
from jobs.index import IndexReport, catalog, index
from jobs.judged import StudentFolder, open_student, targets_of
from jobs.planning import add_videos
from jobs.teach import begun_with, without_secrets
from jobs.video_labels import VideoLabels, video_labels, write_video_labels
from pipeline.local_runner import LocalRunner
from pipeline.models.resolve import resolve_targets
from pipeline.models.weights import fetch
from pipeline.replan import NextGeneration
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.select.policies import policy_of
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import LABELS
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.decoding_probe import NUM_VIDEOS, Decodings, probe_decodings
from pipeline.tasks.label import TEACHER_BATCH, LabelTask
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import RetryableError, SettingsError
from schemas.frames import FrameSpec
from schemas.labels import LabelSpec, StudentRef
from schemas.policy import PolicyDocument
from schemas.targets import TargetSpec

log = logging.getLogger("locum.label")

POLICY_FILE = "policy.json"
"""In a label store: the policy that it was made by, with its certificate."""


@dataclass(frozen=True)
class LabelOptions:
    """How to run. The audit's share and seed are part of what is asked; the rest changes no answer beyond rounding."""

    name: str = "labels"
    targets: str | None = None
    audit_share: float = 0.0
    audit_seed: int = 0
    limit: int | None = None
    batch_size: int | None = None
    decodings: Literal[1, 2] | None = None
    device: str = "auto"
    num_threads: int | None = None
    shard_clips: int | None = None
    max_attempts: int = 3
    settings: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class LabelReport:
    """What a call did and where it stands."""

    store: ShardStore
    policy: PolicyDocument
    index: IndexReport
    added: NextGeneration
    summary: RunSummary
    counts: StoreCounts
    labels: VideoLabels
    decodings: Decodings

    @property
    def complete(self) -> bool:
        """Everything that the source names is probed, and every planned clip is there or accounted for."""
        return self.counts.complete and not self.index.pending_shards

    def to_json(self) -> dict[str, Any]:
        c = self.counts
        certificate = self.policy.certificate
        return {
            "store": self.store.url,
            "videos_file": self.labels.url,
            "policy": self.policy.name,
            "certificate": None if certificate is None else certificate.model_dump(mode="json"),
            "complete": self.complete,
            "videos": c.videos,
            "planned": c.planned,
            "rows": c.rows,
            "quarantined_rows": c.quarantined_rows,
            "quarantined_videos": c.quarantined_videos,
            "tombstoned_rows": c.tombstoned_rows,
            "pending_shards": c.pending_shards,
            "decodings": str(self.decodings),
            "labelled": self.labels.to_json(),
            "this_run": {"new_videos": self.added.new_videos, **self.summary.to_json()},
        }


def label(
    source: str,
    out: str,
    student_url: str,
    policy: str,
    options: LabelOptions = LabelOptions(),
    *,
    runner: Runner | None = None,
    on_index_progress: OnProgress | None = None,
    on_progress: OnProgress | None = None,
) -> LabelReport:
    """Label the videos of ``source`` under ``out``, by ``runner`` (this process if none).

    ``policy`` names one of the student's policies, or the file of one.

    Raises
    ------
    SettingsError
        If source, student, teacher and policy do not fit one another; nothing was computed.
    CircuitOpenError, RetryableError
        If the run cannot go on now; what was committed stands.
    """
    started = time.monotonic()
    student = open_student(student_url)
    document = read_policy(student, policy)
    spec = label_spec(student, document, options)
    decoder_for(spec.teacher.decode)
    indexed = index(
        source,
        out,
        limit=options.limit,
        settings=options.settings,
        runner=runner,
        on_progress=on_index_progress,
    )
    store = open_labels(out, options.name, spec, document)
    videos = catalog(indexed.store, indexed.entries)
    runner = runner or LocalRunner(lambda: LocalFrameSource(max_attempts=options.max_attempts))
    batch_size = options.batch_size or begun_with(store) or TEACHER_BATCH
    added = add_videos(
        store,
        videos,
        spec.clip,
        notes={"source": without_secrets(source), "batch_size": batch_size},
        shard_clips=options.shard_clips,
        batch_size=batch_size,
    )
    task = LabelTask(spec, batch_size, options.device, options.num_threads)
    decodings = _decodings(task, store, document, options, runner)
    task = replace(task, decodings=decodings.number)
    settings = options.settings.less(time.monotonic() - started)
    summary = runner.run(task, store, settings, on_progress)
    if summary.shards or summary.lost_races:
        write_quarantine(store)
    labels = write_video_labels(store, video_labels(store))
    return LabelReport(store, document, indexed, added, summary, count(store), labels, decodings)


def _decodings(
    task: LabelTask, store: ShardStore, document: PolicyDocument, options: LabelOptions, runner: Runner
) -> Decodings:
    """One decoding for both models or two: as said, or as a probe of some of the videos that are pending finds."""
    if options.decodings is not None:
        return Decodings(2 if replace(task, decodings=options.decodings).decodes_twice else 1)
    pending = store.pending()
    if not pending:
        return Decodings(1)
    few = [store.shard(pending[i * len(pending) // NUM_VIDEOS]) for i in range(NUM_VIDEOS)]
    videos = list({v.video_id: v for shard in few for v in shard.videos if v.unreadable is None}.values())
    share = min(1.0, document.expected.share + options.audit_share)
    picked = tuple(videos[i * len(videos) // NUM_VIDEOS] for i in range(NUM_VIDEOS) if videos)
    try:
        return runner.try_out(
            task, partial(probe_decodings, videos=tuple(dict.fromkeys(picked)), share=share)
        )
    except RetryableError as e:
        log.warning(
            "one decoding for student and teacher, for it could not be measured what is better: %s", e
        )
        return Decodings(1)


def read_policy(student: StudentFolder, policy: str) -> PolicyDocument:
    """The policy of a name among a student's, or of a file, once it was seen to be the student's.

    Raises
    ------
    SettingsError
        If there is none, it cannot be read, or was calibrated for something else.
    """
    if policy.endswith(".json"):
        folder, _, name = policy.rpartition("/")
        files, rel = StoreFiles(folder or "."), name
    else:
        files, rel = student.files, f"{FOLDER}/{policy}.json"
    try:
        document = PolicyDocument.model_validate_json(files.read(rel))
    except FileNotFoundError:
        known = [n.removesuffix(".json") for n in student.files.list(FOLDER)]
        there = f"it has {', '.join(known)}" if known else "it has none: make one with `locum calibrate`"
        raise SettingsError(f"{student.url} has no policy {policy!r}; {there}") from None
    except ValidationError as e:
        raise SettingsError(f"{files.url}/{rel} is no policy: {e.errors()[0]['msg']}") from e
    about = student.about
    for what, said, found in (
        ("the student", document.student, student.fingerprint),
        ("weights", document.weights_sha256, about["weights_sha256"]),
        ("the student's view", document.frames, about["frames"]["fingerprint"]),
        ("targets", document.targets, about["targets"][0]["fingerprint"]),
        ("classes", document.classes, tuple(about["classes"])),
    ):
        if said != found:
            raise SettingsError(
                f"policy {document.name!r} was calibrated for another student than {student.url}: {what} differ "
                f"({_short(said)}, here {_short(found)})"
            )
    return document


def label_spec(student: StudentFolder, document: PolicyDocument, options: LabelOptions) -> LabelSpec:
    """All that determines the labels.

    Raises
    ------
    SettingsError
        If the teacher is not the one that the policy was calibrated for, or it cannot be done in one pass.
    """
    if policy_of(document.policy).couples_videos:
        raise SettingsError(
            f"policy {document.name!r} ({document.policy.kind}) decides on a video by all the others, and that takes "
            "two passes, which are not built yet: calibrate --policy clip-threshold, whose threshold it comes to"
        )
    store = targets_of(student, options.targets)
    teacher = resolve_targets(TargetSpec(**store.document.spec))
    if teacher.fingerprint() != document.targets:
        raise SettingsError(
            f"the teacher is not what it was: policy {document.name!r} was calibrated for the targets "
            f"{document.targets}, and its teacher here would make {teacher.fingerprint()}"
        )
    program = f"{student.url}/student.pt2"
    sha256 = fetch(program).sha256
    if sha256 != document.program_sha256:
        raise SettingsError(
            f"{program} ({sha256[:12]}) is not the one that policy {document.name!r} was calibrated with "
            f"({document.program_sha256[:12]})"
        )
    try:
        return LabelSpec(
            student=StudentRef(program=program, sha256=sha256, fingerprint=student.fingerprint),
            frames=FrameSpec(**student.about["frames"]["spec"]),
            teacher=teacher,
            targets=document.targets,
            classes=document.classes,
            label_map=student.about["train"]["label_map"],
            policy=document.policy,
            aggregation=document.aggregation,
            student_temperature=document.student_temperature,
            teacher_temperature=document.teacher_temperature,
            audit_share=options.audit_share,
            audit_seed=options.audit_seed,
        )
    except ValidationError as e:
        raise SettingsError(f"{student.url}: {e.errors()[0]['msg'].removeprefix('Value error, ')}") from e


def open_labels(out: str, name: str, spec: LabelSpec, document: PolicyDocument) -> ShardStore:
    """The label store of a spec under ``out``, made where it is not there. The policy, with its certificate, lies in
    it."""
    body: dict[str, Any] = spec.model_dump(mode="json")
    body["teacher"]["teacher"]["weights"] = without_secrets(spec.teacher.teacher.weights)
    body["student"]["program"] = without_secrets(spec.student.program)
    store = ShardStore.create(out, kind=LABELS, name=name, fingerprint=spec.fingerprint(), spec=body)
    store.files.put_over(POLICY_FILE, document.model_dump_json(indent=1).encode())
    return store


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
