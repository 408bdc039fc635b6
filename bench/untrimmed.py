"""Hour-long films in which something happens now and then: what dividing them between student and teacher costs.

    python -m bench.untrimmed make ARCHIVE FOLDER [--hours 6]        # films from the archive's test videos
    python -m bench.untrimmed run FOLDER OUT [--max-cost 0.1]        # OUT as `bench.selective` prepared it
    python -m bench.untrimmed table FOLDER OUT [--max-cost 0.1]

Each film is an hour of one encoding (H.264, 320 x 240, 25 frames a second). Events are the test videos of a motion
archive, whole; between them the first picture of what comes next stands still, with the noise of a camera, until an
event comes: four fifths of the time nothing happens. ``events.csv`` says what is to be seen when.

A policy is judged by events: the mean of the words on the clips whose middle lies within one, against its label.
Synthetic, as its parts are; no policy is calibrated on films."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.distill import say
from bench.selective import Entry, record_of, student_of
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.label import LabelOptions, label
from pipeline import metrics
from pipeline.columns import matrix
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.clip import US
from schemas.labels import LabelSpec
from schemas.policy import CostFlags, Wish

RATE, WIDTH, HEIGHT = 25, 320, 240
HOUR_FRAMES = 3600 * RATE
BUSY = 0.2
"""Share of the time in which something happens."""
NOISES = 8
MAX_COST = 0.1

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


def entries(max_cost: float) -> list[Entry]:
    """Dense first. No policy here decides on whole films."""
    return [
        Entry("dense", ("dense",), wish=Wish(max_cost=1.0)),
        Entry("student-alone", ("student-alone",), wish=Wish(max_cost=1.0)),
        *(Entry(f"clip-threshold {s}", ("clip-threshold",), (s,)) for s in ("msp", "entropy", "gain")),
        *(Entry(f"budget {s}", ("budget",), (s,)) for s in ("entropy", "gain")),
    ]


def run(folder: Path, out: Path, max_cost: float) -> None:
    student = student_of(out)
    costs = CostFlags(**json.loads((out / "runs" / "costs.json").read_text()))  # of `bench.selective run`
    for entry in entries(max_cost):
        name = f"{entry.name.replace(' ', '-')}-film-{max_cost:g}"
        record = folder / f"{name}.json"
        if record.exists():
            continue
        wish = entry.wish or Wish(max_cost=max_cost)
        calibrate(student, wish, CalibrateOptions(entry.kinds, entry.scores, name=name, costs=costs))
        options = LabelOptions(name=name, batch_size=8, num_threads=1)
        report = label(str(folder / "manifest.csv"), str(folder), student, name, options)
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


def seen(folder: Path, record: Path, events: list[dict[str, str]]) -> Seen:
    body = json.loads(record.read_text())
    store = ShardStore.open(body["store"])
    spec = LabelSpec(**store.document.spec)
    columns = ["uri", "start_us", "end_us", "deferred", "student_logits", "teacher_logits"]
    words: dict[str, tuple[NDArray[np.int64], Floats]] = {}
    for table in scan(store, columns):
        if table.num_rows:
            uri = Path(table["uri"][0].as_py()).name
            middle_N = (table["start_us"].to_numpy() + table["end_us"].to_numpy()) // 2
            words[uri] = middle_N, _words(table, spec)
    right = []
    for event in events:
        middle_N, word_NK = words[event["uri"]]
        inside_N = (middle_N >= float(event["start"]) * US) & (middle_N < float(event["end"]) * US)
        said = int(word_NK[inside_N].mean(axis=0).argmax()) if inside_N.any() else -1
        right.append(said >= 0 and spec.classes[said] == event["label"])
    return Seen(np.array(right, np.float64), body["seconds"], body["deferred"] / body["clips"])


def _words(table: pa.Table, spec: LabelSpec) -> Floats:
    """The teacher's probabilities where it was asked, else the student's at its temperature; (N, K)."""
    num_classes = len(spec.classes)
    word_NK = np.zeros((table.num_rows, num_classes))
    asked_N = table["deferred"].to_numpy()
    there_N = ~asked_N & table["student_logits"].is_valid().to_numpy()
    for rows_N, name, temperature in (
        (asked_N, "teacher_logits", 1.0),
        (there_N, "student_logits", spec.student_temperature),
    ):
        if rows_N.any():
            logits = matrix(table[name].filter(pa.array(rows_N)))
            word_NK[rows_N] = softmax((logits / temperature).astype(np.float32))
    return word_NK


def table(folder: Path, out: Path, max_cost: float) -> None:
    events = list(csv.DictReader((folder / "events.csv").open()))
    group_E = np.array([event["group"] for event in events])
    found = {}
    for entry in entries(max_cost):
        record = folder / f"{entry.name.replace(' ', '-')}-film-{max_cost:g}.json"
        if record.exists():
            found[entry.name] = seen(folder, record, events)
    dense = found["dense"]
    print(
        f"{len(events)} events in {len({e['uri'] for e in events})} hours; policies may cost {max_cost:.0%} of dense"
    )
    print(
        f"{'policy':24s} {'events right':>12s} {'difference from dense':>28s} {'deferred':>8s} {'cost':>6s} "
        f"{'seconds: decode, student, teacher':>34s}"
    )
    for name, s in found.items():
        gap_E = s.right_E - dense.right_E
        draws = metrics.bootstrap(lambda at, g=gap_E: float(g[at].mean()), group_E, num_draws=2000)
        low, high = metrics.interval(draws)
        p = s.seconds
        print(
            f"{name:24s} {s.right_E.mean():12.4f} {gap_E.mean():+9.4f} [{low:+.4f}, {high:+.4f}] {s.share:8.1%} "
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
        command.add_argument("out", type=Path)
        command.add_argument("--max-cost", type=float, default=MAX_COST)
    args = parser.parse_args()
    if args.command == "make":
        make(args.archive, args.folder, args.hours, args.seed)
    else:
        {"run": run, "table": table}[args.command](args.folder, args.out, args.max_cost)


if __name__ == "__main__":
    sys.exit(main())
