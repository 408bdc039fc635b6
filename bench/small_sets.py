"""Targets of two small real sets, for students that are cross-fitted over all groups (`bench.evidence`).

    python -m bench.small_sets fight MANIFEST WEIGHTS.h5 OUT      # teacher: a foreign fight detector (RGB and flow)
    python -m bench.small_sets interaction MANIFEST OUT [--folds 5]  # teacher: nested probes over an image network
    python -m bench.small_sets interaction MANIFEST OUT --hold-out set2  # one teacher, which saw no group set2...

No clip is judged by a student, nor its target given by a probe, that saw its group; probes that give the targets of
what a student learns from saw the labels of its val and calibration groups. Run again to continue."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from bench.distill import say
from bench.distill_arms.probe import held_out_logits, nested_logits, write_targets
from jobs.frames import keep_frames
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from pipeline.draws import folds
from pipeline.known import group_hashes
from pipeline.store.read import read
from schemas.clip import ClipSpec
from schemas.cluster import RayOptions
from schemas.frames import KeepSpec
from schemas.model import InputSpec, ModelRef
from schemas.targets import TargetSpec, ViewSpec

KEEP = KeepSpec(num_frames=8, width=64, height=64)
FOLDS = 5
ROOT = Path(__file__).resolve().parent.parent
SQUASHED = ViewSpec(width=224, height=224, fit="squash")
"""A square of the whole picture: in ut-interaction the shape of a video would give its class away."""


def fight_teacher(weights: Path) -> TargetSpec:
    teacher = ModelRef(
        factory=f"{ROOT / 'examples' / 'flow_gated.py'}:build",
        kwargs={"path": str(weights)},
        classes=("fight", "no_fight"),
        input=InputSpec(scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    clip = ClipSpec(num_frames=64, seconds=2.0)
    return TargetSpec(teacher=teacher, clip=clip, view=SQUASHED, precision="bf16")  # twice as fast as fp32


def features_teacher() -> TargetSpec:
    mean = (0.9921875,) * 3
    teacher = ModelRef(
        factory="bench.distill_arms.probe:build", input=InputSpec(scale=128.0, mean=mean, std=(1.0, 1.0, 1.0))
    )
    return TargetSpec(teacher=teacher, clip=ClipSpec(num_frames=8, seconds=2.0), view=SQUASHED)


def fight(manifest: Path, weights: Path, out: Path) -> None:
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(batch_size=1, keep=KEEP)
        report = teach(str(manifest), str(out), fight_teacher(weights), options, runner=runner)
        print(json.dumps(report.to_json(), indent=1))


def interaction(manifest: Path, out: Path, num_folds: int = FOLDS, hold_out: str | None = None) -> None:
    """Targets of every fold under ``fold-K``; with ``hold_out``, one store whose test split are the groups of that
    beginning, and whose teacher saw none of them."""
    if hold_out is not None:
        manifest = _split_manifest(manifest, out, hold_out)
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(name="features", batch_size=4)
        report = teach(str(manifest), str(out / "features"), features_teacher(), options, runner=runner)
        keep_frames(report.store.url, str(out), KEEP, runner=runner)
    print(json.dumps(report.to_json()["this_run"]))
    rows = read(report.store, ["video_id", "start_us", "logits", "label", "split", "group", "file_id"])
    x_NF = np.stack(rows["logits"].to_numpy()).astype(np.float64)
    classes, y_N = np.unique(rows["label"].to_pylist(), return_inverse=True)
    keys = list(zip(rows["video_id"].to_pylist(), rows["start_us"].to_pylist(), strict=True))
    group_N = group_hashes(rows)
    if hold_out is not None:
        test_N = np.array(rows["split"].to_pylist()) == "test"
        logits_NK = held_out_logits(x_NF, y_N, group_N, test_N, num_folds, len(classes))
        made = {f"without {hold_out}": (out, {"held_out": hold_out}, logits_NK, test_N)}
    else:
        outer_N = folds(group_N, num_folds)
        made = {
            f"fold {fold}": (
                out / f"fold-{fold}",
                {"fold": fold, "folds": num_folds},
                logits,
                outer_N == fold,
            )
            for fold, logits in nested_logits(x_NF, y_N, group_N, outer_N, len(classes)).items()
        }
    features = features_teacher()
    for name, (folder, how, logits_NK, test_N) in made.items():
        probe = ModelRef(
            factory="bench.distill_arms.probe:nested_logits",
            kwargs={**how, "features": report.store.document.fingerprint},
            num_classes=len(classes),
            classes=tuple(str(c) for c in classes),
            code="logits written by bench.small_sets",
            weights_sha256=hashlib.sha256(logits_NK.tobytes()).hexdigest(),
        )
        spec = features.model_copy(update={"teacher": probe})
        store = write_targets(report.store, str(folder), spec, dict(zip(keys, logits_NK, strict=True)))
        right_N = logits_NK.argmax(1) == y_N
        say(
            f"{name}: {right_N.mean():.3f} of clips right, {right_N[test_N].mean():.3f} of its own -> {store.url}"
        )


def _split_manifest(manifest: Path, out: Path, hold_out: str) -> Path:
    """The manifest with the groups of a beginning as test, and all others as train."""
    with manifest.open() as file:
        rows = list(csv.DictReader(file))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            split = "test" if row["group"].startswith(hold_out) else "train"
            writer.writerow({**row, "uri": str(manifest.parent.resolve() / row["uri"]), "split": split})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fight", "interaction"):
        command = commands.add_parser(name)
        command.add_argument("manifest", type=Path)
        if name == "fight":
            command.add_argument("weights", type=Path)
        command.add_argument("out", type=Path)
        if name == "interaction":
            command.add_argument("--folds", type=int, default=FOLDS)
            command.add_argument(
                "--hold-out", metavar="BEGINNING", help="of the groups that are the test split"
            )
    args = parser.parse_args()
    if args.command == "fight":
        fight(args.manifest, args.weights, args.out)
    else:
        interaction(args.manifest, args.out, args.folds, args.hold_out)


if __name__ == "__main__":
    sys.exit(main())
