"""Hour-long films in which something happens now and then: what dividing them between student and teacher costs.

    python -m bench.untrimmed make ARCHIVE FOLDER [--hours 6]        # films from the archive's test videos
    python -m bench.untrimmed run FOLDER OUT                         # OUT as `bench.selective` prepared it
    python -m bench.untrimmed table FOLDER

Each film is an hour of one encoding (H.264, 320 x 240, 25 frames a second). Events are the test videos of a motion
archive, whole; between them the first picture of what comes next stands still, with the noise of a camera, until an
event comes: four fifths of the time nothing happens. ``events.csv`` says what is to be seen when.

A policy is judged by events: the mean of the words on the clips whose middle lies within one (its passage's word, where
it decides by passages), against its label. An event of which nobody was asked about any clip is missed. Synthetic, as
its parts are; no policy is calibrated on films, but all on trimmed videos, where a cost is another share."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.distill import say
from bench.selective import Entry, record_of, student_of
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.label import LabelOptions, label
from jobs.labelling.labelled import passage_words
from jobs.labelling.video_labels import answers_in
from pipeline import metrics
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.clip import US
from schemas.labels import LabelSpec
from schemas.policy import CostFlags, PolicyKind, ScoreName, Wish

RATE, WIDTH, HEIGHT = 25, 320, 240
HOUR_FRAMES = 3600 * RATE
BUSY = 0.2
"""Share of the time in which something happens."""
NOISES = 8
BUDGET = 0.05
"""Share of the clips that the teacher looks at, where nothing is left out."""
PASSAGE = 60.0
IDLE = 0.15
"""Chosen by what the clips of one film come to, not by labels."""
OF_TRIMMED = 0.25
"""What policies that leave out idle clips may cost of the dense teacher, on trimmed videos."""

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

# ---------------------------------------------------------------- making films


def make(archive: Path, folder: Path, hours: int, seed: int) -> None:
    """Films and what happens in them. Films that are there are kept."""
    rows = [r for r in csv.DictReader((archive / "manifest.csv").open()) if r["split"] == "test"]
    rng = np.random.default_rng(seed)
    order = [rows[i] for i in rng.permutation(len(rows))]
    folder.mkdir(parents=True, exist_ok=True)
    events: list[dict[str, Any]] = []
    for hour in range(hours):
        path = folder / f"film-{hour:02d}.mp4"
        mine, order = _film(path, archive, order, seed=seed, hour=hour)
        events += [{"uri": path.name, **event} for event in mine]
        say(f"{path.name}: {len(mine)} events")
    for name, header, table in (
        ("events.csv", ["uri", "start", "end", "label", "group"], events),
        ("manifest.csv", ["uri"], [{"uri": f"film-{hour:02d}.mp4"} for hour in range(hours)]),
    ):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(table)


def _film(
    path: Path, archive: Path, order: list[dict[str, str]], *, seed: int, hour: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Encode an hour; its events, and the videos that are left. Only their times are found where it is there."""
    # Noise has draws of its own: when things happen must not hang on whether the film is encoded now.
    rng, noise_rng = (np.random.default_rng([seed, hour, purpose]) for purpose in (0, 1))
    partial = path.with_suffix(".part.mp4")
    encoder = None if path.exists() else _Encoder(partial)
    events: list[dict[str, Any]] = []
    at = 0
    while at < HOUR_FRAMES:
        if not order:
            raise SystemExit("the archive has too few test videos for so many hours")
        row, *order = order
        pictures = list(_pictures(archive / row["uri"]))
        idle = int(rng.exponential(len(pictures) * (1 - BUSY) / BUSY))
        idle = min(idle, HOUR_FRAMES - at)
        if encoder is not None:
            encoder.still(pictures[0], idle, noise_rng)
        at += idle
        shown = min(len(pictures), HOUR_FRAMES - at)
        if encoder is not None:
            for picture in pictures[:shown]:
                encoder.add(picture)
        if shown == len(pictures):
            events.append(
                {"start": at / RATE, "end": (at + shown) / RATE, "label": row["label"], "group": row["group"]}
            )
        at += shown
    if encoder is not None:
        encoder.close()
        partial.rename(path)
    return events, order


def _pictures(path: Path) -> Iterator[Picture]:
    """The frames of a video at the films' rate and size, as planes of yuv420p."""
    shown = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            picture = frame.reformat(WIDTH, HEIGHT, "yuv420p", threads=1).to_ndarray()
            until = float((frame.pts - (stream.start_time or 0)) * stream.time_base) * RATE
            while shown <= until:
                yield picture
                shown += 1


class _Encoder:
    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream(
            "libx264", rate=RATE, options={"preset": "ultrafast", "crf": "26", "g": "50"}
        )
        self._stream.width, self._stream.height, self._stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        self._stream.thread_count = 1

    def add(self, picture: Picture) -> None:
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))

    def still(self, picture: Picture, num_frames: int, rng: np.random.Generator) -> None:
        """A picture that stands still, with noise."""
        noises = rng.normal(0, 2.0, (NOISES, HEIGHT, WIDTH))
        noisy = np.repeat(picture[None], NOISES, axis=0)
        noisy[:, :HEIGHT] = np.clip(noisy[:, :HEIGHT] + noises, 0, 255).astype(np.uint8)
        for i in rng.integers(0, NOISES, num_frames).tolist():
            self.add(noisy[i])

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


# ---------------------------------------------------------------- running


def entries() -> list[Entry]:
    """Dense first."""
    all_of_it, some = Wish(max_cost=1.0), Wish(max_cost=OF_TRIMMED)
    every: tuple[ScoreName, ...] = get_args(ScoreName)
    tried: tuple[PolicyKind, ...] = ("clip-threshold", "video-threshold", "video-part")
    return [
        Entry("dense", ("dense",), wish=all_of_it),
        Entry("dense, idle left out", ("dense",), wish=all_of_it, idle=IDLE),
        Entry("student-alone", ("student-alone",), wish=all_of_it),
        Entry("student-alone, idle left out", ("student-alone",), wish=all_of_it, idle=IDLE),
        *(
            Entry(f"clip-threshold {s}", ("clip-threshold",), (s,), Wish(budget=BUDGET))
            for s in ("msp", "gain")
        ),
        Entry("budget gain", ("budget",), ("gain",), Wish(budget=BUDGET)),
        Entry("clip-threshold gain, idle left out", ("clip-threshold",), ("gain",), some, idle=IDLE),
        Entry("video-part margin by passages", ("video-part",), ("margin",), some, PASSAGE),
        Entry(
            "video-part margin by passages, idle left out", ("video-part",), ("margin",), some, PASSAGE, IDLE
        ),
        Entry("calibrated by passages, idle left out", tried, every, some, PASSAGE, IDLE),
    ]


def policy_name(entry: Entry) -> str:
    return f"{entry.name.replace(',', '').replace(' ', '-')}-film"


def run(folder: Path, out: Path) -> None:
    student = student_of(out)
    costs = CostFlags(**json.loads((out / "runs" / "costs.json").read_text()))  # of `bench.selective run`
    for entry in entries():
        name = policy_name(entry)
        record = folder / f"{name}.json"
        if record.exists():
            continue
        options = CalibrateOptions(entry.kinds, entry.scores, passage=entry.passage, name=name, costs=costs)
        calibrate(student, entry.wish or Wish(budget=BUDGET), options)
        report = label(
            str(folder / "manifest.csv"),
            str(folder),
            student,
            name,
            LabelOptions(name=name, batch_size=8, num_threads=1, idle=entry.idle),
        )
        if not report.complete:
            raise RuntimeError(f"{entry.name} did not finish")
        record.write_text(json.dumps({**record_of(entry.name, report), "store": report.store.url}, indent=1))
        say(record.read_text())


@dataclass(frozen=True)
class Seen:
    """What a policy said of E events."""

    right_E: Floats
    seconds: dict[str, float]
    share: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def seen(record: Path, events: list[dict[str, str]]) -> Seen:
    body = json.loads(record.read_text())
    store = ShardStore.open(body["store"])
    spec = LabelSpec(**store.document.spec)
    words: dict[str, tuple[NDArray[np.int64], Floats]] = {}
    for table in scan(store):
        for uri in pc.unique(table["uri"]).to_pylist():
            rows, word_NK = _words(spec, table.filter(pc.equal(table["uri"], uri)))
            middle_N = (rows["start_us"].to_numpy() + rows["end_us"].to_numpy()) // 2
            words[Path(uri).name] = middle_N, word_NK
    right = []
    for event in events:
        middle_N, word_NK = words[event["uri"]]
        inside_N = (middle_N >= float(event["start"]) * US) & (middle_N < float(event["end"]) * US)
        said = int(word_NK[inside_N].mean(axis=0).argmax()) if inside_N.any() else -1
        right.append(said >= 0 and spec.classes[said] == event["label"])
    return Seen(np.array(right, np.float64), body["seconds"], body["deferred"] / body["clips"])


def _words(spec: LabelSpec, rows: pa.Table) -> tuple[pa.Table, Floats]:
    """The clips of a film of which anything was said, and what: their passage's word, or their own; (N, K)."""
    if spec.policy.passage is not None:
        return passage_words(spec, rows)
    answers = answers_in(spec, rows)
    asked_N = answers.decision.teacher_N
    word_NK = np.where(asked_N[:, None], answers.teacher_NK, answers.student_NK).astype(np.float64)
    return rows.filter(pa.array(answers.heard_N)), word_NK[answers.heard_N]


def table(folder: Path) -> None:
    events = list(csv.DictReader((folder / "events.csv").open()))
    group_E = np.array([event["group"] for event in events])
    found = {}
    for entry in entries():
        record = folder / f"{policy_name(entry)}.json"
        if record.exists():
            found[entry.name] = seen(record, events)
    dense = found["dense"]
    groups = len({e["group"] for e in events})
    print(f"{len(events)} events of {groups} groups in {len({e['uri'] for e in events})} hours")
    print(
        f"{'policy':46s} {'events right':>12s} {'difference from dense':>28s} {'deferred':>8s} {'cost':>6s} "
        f"{'seconds: decode, student, teacher':>34s}"
    )
    for name, s in found.items():
        gap_E = s.right_E - dense.right_E
        draws = metrics.bootstrap(lambda at, g=gap_E: float(g[at].mean()), group_E, num_draws=2000)
        low, high = metrics.interval(draws)
        p = s.seconds
        print(
            f"{name:46s} {s.right_E.mean():12.4f} {gap_E.mean():+9.4f} [{low:+.4f}, {high:+.4f}] {s.share:8.1%} "
            f"{s.total / dense.total:6.1%} {p['decode']:10.1f} {p['student']:10.1f} {p['teacher']:10.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    films = commands.add_parser("make")
    films.add_argument("archive", type=Path)
    films.add_argument("folder", type=Path)
    films.add_argument("--hours", type=int, default=6)
    films.add_argument("--seed", type=int, default=0)
    for name in ("run", "table"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        if name == "run":
            command.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.command == "make":
        make(args.archive, args.folder, args.hours, args.seed)
    elif args.command == "run":
        run(args.folder, args.out)
    else:
        table(args.folder)


if __name__ == "__main__":
    sys.exit(main())
