"""Label: index the videos, plan what is new, and let student and teacher label it as a policy says.

    student + policy  ->  index  ->  next generation of the plan  ->  run what is pending  ->  video labels

An exact budget takes two passes: the student's scores of all clips, in a store of their own; then the teacher, over the
clips that the budget chooses among them.

Every step is resumable, as in `jobs.teach`. The rows of clips are the store; labels of videos follow from them.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from jobs.index import IndexReport, catalog, index
from jobs.labelling.audit import Audit, audit
from jobs.labelling.budget import choices, reopen_scored, score_spec
from jobs.labelling.inputs import label_spec, open_labels, read_policy
from jobs.labelling.replay import replay
from jobs.labelling.video_labels import VideoLabels, video_labels, write_video_labels
from jobs.planning import add_videos
from jobs.selecting.judged import learnt_from, open_student, targets_of
from jobs.teach import begun_with
from pipeline.local_runner import LocalRunner
from pipeline.replan import NextGeneration
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.scored import ScoredStore
from pipeline.select.policies import policy_of
from pipeline.store.plan_files import video_of
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.answering import STUDENT_BATCH
from pipeline.tasks.decoding_probe import NUM_VIDEOS, Decodings, probe_decodings
from pipeline.tasks.label import TEACHER_BATCH, LabelTask
from pipeline.tasks.replay import Replayed
from pipeline.uris import without_secrets
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import RetryableError
from schemas.labels import LabelSpec
from schemas.policy import PolicyDocument

log = logging.getLogger("locum.label")

_MOST_TO_A_BATCH = 512

_DECODINGS = "decodings"
"""Note of a plan: with how many decodings the store was begun. A resumed run does as the one before."""


@dataclass(frozen=True)
class LabelOptions:
    """How to run. The audit's share and seed and what is ``idle`` are part of what is asked; the rest changes no answer
    beyond rounding.

    ``max_disagreement`` is what audits are tested against, the certificate's where not given."""

    name: str = "labels"
    targets: str | None = None
    audit_share: float = 0.0
    audit_seed: int = 0
    idle: float = 0.0
    max_disagreement: float | None = None
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
    audit: Audit
    scores: LabelReport | None = None
    """The pass before, of a policy that takes two."""
    replayed: Replayed | None = None
    """What the student said again of clips that it was judged on, where the policy has a certificate."""

    @property
    def complete(self) -> bool:
        """Everything that the source names is probed, and every planned clip is there or accounted for."""
        own = self.counts.complete and not self.index.pending_shards
        return own and (self.scores is None or self.scores.complete)

    def to_json(self) -> dict[str, Any]:
        c = self.counts
        certificate = self.policy.certificate
        return {
            "store": self.store.url,
            "videos_file": self.labels.url,
            "policy": self.policy.name,
            "certificate": None if certificate is None else certificate.model_dump(mode="json"),
            "replayed": None
            if self.replayed is None
            else {"clips": self.replayed.clips, "difference": self.replayed.difference},
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
            "audit": self.audit.to_json(),
            "this_run": {"new_videos": self.added.new_videos, **self.summary.to_json()},
            **({} if self.scores is None else {"scores": self.scores.to_json()}),
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
    for decode in (spec.frames.decode, spec.teacher.decode):
        decoder_for(decode)
    indexed = index(
        source,
        out,
        limit=options.limit,
        settings=options.settings,
        runner=runner,
        on_progress=on_index_progress,
    )
    videos = catalog(indexed.store, indexed.entries)
    runner = runner or LocalRunner(lambda: LocalFrameSource(max_attempts=options.max_attempts))
    learnt = learnt_from(student, targets_of(student, options.targets))
    passes = _Passes(source, indexed, options, runner, on_progress, started, learnt)
    if not policy_of(spec.policy).couples_videos:
        again = None
        if document.certificate is not None:
            task = LabelTask(spec, device=options.device, num_threads=options.num_threads)
            again = replay(task, student, targets_of(student, options.targets), runner)
        store = open_labels(out, options.name, spec, document)
        return replace(passes.run(store, videos, spec, document), replayed=again)
    scoring = score_spec(spec)
    before = passes.run(
        open_labels(out, f"scores-{options.name}", scoring, document), videos, scoring, document
    )
    store = open_labels(out, options.name, spec, document)
    scored = ScoredStore(before.store, choices(before.store, store, spec.policy.share or 0.0))
    there = pa.array(scored.knows(videos["video_id"].to_pylist()))
    reopen_scored(store, before.store)
    return replace(passes.run(store, videos.filter(there), spec, document, scored), scores=before)


@dataclass(frozen=True)
class _Passes:
    """What the passes of a run share."""

    source: str
    indexed: IndexReport
    options: LabelOptions
    runner: Runner
    on_progress: OnProgress | None
    started: float
    learnt: pa.Array

    def run(
        self,
        store: ShardStore,
        videos: pa.Table,
        spec: LabelSpec,
        document: PolicyDocument,
        scored: ScoredStore | None = None,
    ) -> LabelReport:
        """Plan what of ``videos`` is new, run what is pending, and write the labels of videos."""
        options = self.options
        batch_size = options.batch_size or begun_with(store) or TEACHER_BATCH
        task = LabelTask(spec, batch_size, options.device, options.num_threads, scored=scored)
        decodings = _decodings(task, store, videos, document, options, self.runner)
        task = replace(task, decodings=decodings.number)
        notes = {
            "source": without_secrets(self.source),
            "batch_size": batch_size,
            _DECODINGS: decodings.number,
        }
        added = add_videos(
            store,
            videos,
            spec.clip,
            notes=notes,
            shard_clips=options.shard_clips,
            batch_size=_clips_to_a_batch(batch_size, spec, document),
        )
        settings = options.settings.less(time.monotonic() - self.started)
        summary = self.runner.run(task, store, settings, self.on_progress)
        if summary.shards or summary.lost_races:
            write_quarantine(store)
        labels = write_video_labels(store, video_labels(store, document.costs, self.learnt))
        found = audit(store, labels.table, document, options.max_disagreement)
        return LabelReport(
            store, document, self.indexed, added, summary, count(store), labels, decodings, found
        )


def _clips_to_a_batch(batch_size: int, spec: LabelSpec, document: PolicyDocument) -> int:
    """Clips among which there is about one batch of the teacher's: no batch goes over the end of a shard."""
    share = spec.policy.share if spec.policy.kind == "budget" else document.expected.share
    if spec.policy.kind == "student-alone":
        share = 0.0
    share = (share or 0.0) + spec.audit_share
    return (
        max(STUDENT_BATCH, batch_size) if not share else min(_MOST_TO_A_BATCH, math.ceil(batch_size / share))
    )


def _decodings(
    task: LabelTask,
    store: ShardStore,
    videos: pa.Table,
    document: PolicyDocument,
    options: LabelOptions,
    runner: Runner,
) -> Decodings:
    """One decoding for both models or two: as said, or as the store was begun, or as a probe of some of the videos
    finds."""
    once, twice = (replace(task, decodings=n).decodes_twice for n in (1, 2))
    if once == twice or options.decodings is not None:
        return Decodings(2 if once or (twice and options.decodings == 2) else 1)
    if plans := store.plans():
        return Decodings(2 if plans[0].header.notes.get(_DECODINGS) == 2 else 1)
    readable = videos.filter(pc.is_null(videos["unreadable"]))
    at = sorted({i * readable.num_rows // NUM_VIDEOS for i in range(NUM_VIDEOS)}) if readable.num_rows else []
    picked = tuple(video_of({**row, "clips": 1}, "video_id") for row in readable.take(at).to_pylist())
    share = min(1.0, document.expected.share + options.audit_share)
    try:
        return runner.try_out(task, partial(probe_decodings, videos=picked, share=share), apart=True)
    except RetryableError as e:
        log.warning(
            "one decoding for student and teacher, for it could not be measured what is better: %s", e
        )
        return Decodings(1)
