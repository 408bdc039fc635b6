"""Label: index the videos, plan what is new, and let student and teacher label it as a policy says.

    student + policy  ->  index  ->  next generation of the plan  ->  run what is pending  ->  video labels

An exact budget takes two passes: the student's scores of all clips, in a store of their own; then the teacher, over the
clips that the budget chooses among them.

Every step is resumable, as in `jobs.teach`. The rows of clips are the store; labels of videos follow from them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from jobs.audit import Audit, audit
from jobs.index import IndexReport, catalog, index
from jobs.judged import open_student, targets_of
from jobs.label_budget import choices, score_spec
from jobs.label_inputs import label_spec, open_labels, read_policy
from jobs.planning import add_videos
from jobs.replay import replay
from jobs.teach import begun_with, without_secrets
from jobs.video_labels import VideoLabels, video_labels, write_video_labels
from pipeline.known import videos_in_force
from pipeline.local_runner import LocalRunner
from pipeline.replan import NextGeneration
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.scored import ScoredStore
from pipeline.select.policies import policy_of
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.decoding_probe import NUM_VIDEOS, Decodings, probe_decodings
from pipeline.tasks.label import TEACHER_BATCH, LabelTask
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import RetryableError
from schemas.labels import LabelSpec
from schemas.policy import PolicyDocument

log = logging.getLogger("locum.label")


@dataclass(frozen=True)
class LabelOptions:
    """How to run. The audit's share and seed are part of what is asked; the rest changes no answer beyond rounding.

    ``max_disagreement`` is what audits are tested against, the certificate's where not given."""

    name: str = "labels"
    targets: str | None = None
    audit_share: float = 0.0
    audit_seed: int = 0
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
    passes = _Passes(source, indexed, options, runner, on_progress, started)
    if not policy_of(spec.policy).couples_videos:
        store = open_labels(out, options.name, spec, document)
        if document.certificate is not None:
            task = LabelTask(spec, device=options.device, num_threads=options.num_threads)
            replay(task, student, targets_of(student, options.targets), runner)
        return passes.run(store, videos, spec, document)
    scoring = score_spec(spec)
    before = passes.run(
        open_labels(out, f"scores-{options.name}", scoring, document), videos, scoring, document
    )
    store = open_labels(out, options.name, spec, document)
    if not before.complete:
        return replace(before, store=store, counts=count(store), scores=before)
    scored = ScoredStore(before.store, choices(before.store, store, spec.policy.share or 0.0))
    done = passes.run(store, videos_in_force(before.store), spec, document, scored)
    return replace(done, scores=before)


@dataclass(frozen=True)
class _Passes:
    """What the passes of a run share."""

    source: str
    indexed: IndexReport
    options: LabelOptions
    runner: Runner
    on_progress: OnProgress | None
    started: float

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
        added = add_videos(
            store,
            videos,
            spec.clip,
            notes={"source": without_secrets(self.source), "batch_size": batch_size},
            shard_clips=options.shard_clips,
            batch_size=batch_size,
        )
        task = LabelTask(spec, batch_size, options.device, options.num_threads, scored=scored)
        decodings = _decodings(task, store, document, options, self.runner)
        task = replace(task, decodings=decodings.number)
        settings = options.settings.less(time.monotonic() - self.started)
        summary = self.runner.run(task, store, settings, self.on_progress)
        if summary.shards or summary.lost_races:
            write_quarantine(store)
        labels = write_video_labels(store, video_labels(store))
        found = audit(store, labels.table, document, options.max_disagreement)
        return LabelReport(
            store, document, self.indexed, added, summary, count(store), labels, decodings, found
        )


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
