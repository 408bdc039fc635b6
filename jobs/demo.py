"""The demo: render a small archive of real encoded videos, run the main job over it, and look at what is there.

The archive is synthetic and its classes are motions (`pipeline.demo.archive`). The teacher is a small network that
ships with Locum, trained on another archive of the same kind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.teach import TeachOptions, TeachReport, teach
from pipeline.demo.archive import render_archive
from pipeline.demo.spec import demo_target_spec
from pipeline.runner import OnProgress, Runner
from pipeline.store.read import read
from pipeline.store.verify import VerifyReport, verify
from pipeline.uncertainty import softmax


@dataclass(frozen=True)
class VideoAnswer:
    """What the teacher says of one video, averaged over its clips."""

    uri: str
    label: str
    answer: str
    confidence: float
    entropy: float
    num_clips: int


@dataclass(frozen=True)
class DemoReport:
    """Of the demo's two halves, and what was found. Accuracies are shares of 1."""

    manifest: Path
    render_seconds: float
    teach: TeachReport
    verify: VerifyReport
    videos: tuple[VideoAnswer, ...]
    clip_accuracy: float
    surest_half_accuracy: float
    least_sure_half_accuracy: float

    @property
    def video_accuracy(self) -> float:
        return float(np.mean([v.answer == v.label for v in self.videos]))


def run_demo(
    out: str,
    *,
    num_videos: int = 60,
    workers: int = 2,
    runner: Runner | None = None,
    on_progress: OnProgress | None = None,
) -> DemoReport:
    """Render in ``workers`` processes, teach by ``runner`` (this process if none), verify, and summarise.

    Running again continues or shows what is there.
    """
    started = time.perf_counter()
    manifest = render_archive(Path(out) / "archive", num_videos, workers=workers)
    rendered = time.perf_counter() - started
    report = teach(
        str(manifest),
        out,
        demo_target_spec(),
        replace(TeachOptions(), batch_size=16),
        runner=runner,
        on_progress=on_progress,
    )
    rows = read(report.store, ["video_id", "logits", "entropy", "top1", "uri", "label"])
    classes = demo_target_spec().teacher.classes
    right = np.array(
        [
            classes[t] == label
            for t, label in zip(rows["top1"].to_pylist(), rows["label"].to_pylist(), strict=True)
        ]
    )
    by_entropy = right[np.argsort(rows["entropy"].to_numpy())]
    half = len(by_entropy) // 2
    return DemoReport(
        manifest=manifest,
        render_seconds=rendered,
        teach=report,
        verify=verify(report.store),
        videos=tuple(_answers(rows, classes)),
        clip_accuracy=float(right.mean()),
        surest_half_accuracy=float(by_entropy[:half].mean()),
        least_sure_half_accuracy=float(by_entropy[half:].mean()),
    )


def _answers(rows: pa.Table, classes: tuple[str, ...]) -> list[VideoAnswer]:
    logits_NK = np.stack(rows["logits"].to_numpy()).astype(np.float32)
    probs_NK = softmax(logits_NK)
    ids = np.array(rows["video_id"].to_pylist())
    uris, labels, entropy = rows["uri"].to_pylist(), rows["label"].to_pylist(), rows["entropy"].to_numpy()
    answers = []
    for video in dict.fromkeys(ids.tolist()):
        at = np.flatnonzero(ids == video)
        mean_K = probs_NK[at].mean(axis=0)
        top = int(mean_K.argmax())
        answers.append(
            VideoAnswer(
                uris[at[0]],
                labels[at[0]],
                classes[top],
                float(mean_K[top]),
                float(entropy[at].mean()),
                len(at),
            )
        )
    return answers
