"""Trains the demo's teacher, from nothing but a seed.

    python -m pipeline.demo.recipe --work FOLDER

renders the training archive into FOLDER (with its decoded clips about 1 GB; kept, so that a second run
starts at the training), decodes it, trains `pipeline.models.small3d` for about ten minutes on two cores,
measures it on scenes that it never saw, and writes ``teacher.safetensors`` and ``teacher.json`` beside this
file, or to ``--out``.

The training archive has a seed of its own, `archive.TEACHER_SEED`. Every scene hangs on its archive's seed:
archives of any other seed, the demo's among them, share no scene and no file with what the teacher saw. Its
"calibration" videos served while the recipe was written; the figures that count are those of its "test"
videos, which did not.

With ``--baseline one-frame --coarse-epochs 14 --epochs 2`` the same network trains on clips that repeat one of
their frames: it was right on 8.5 % of 200 test videos, where chance is 10 %. So a still does not tell the class.

The network sees motions in eight small pictures and is right on most videos, not on all: some clips show
nothing but rest. That is meant: a teacher that is never in doubt would make a poor demo.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path

import safetensors.torch
import torch

from pipeline.demo import recipe_training as training
from pipeline.demo.archive import TEACHER_SEED, ArchiveSettings, render_archive
from pipeline.demo.motion import CLASSES
from pipeline.demo.recipe_clips import CLIP, DECODE, TRAINING_CLIP, VIEW, load_split
from pipeline.models.small3d import build, start_from_differences

ARCHIVE = ArchiveSettings(
    seed=TEACHER_SEED,
    min_seconds=2.0,
    max_seconds=5.0,
    videos_per_group=4,
    splits=(("train", 7), ("calibration", 1), ("test", 2)),
)
NUM_VIDEOS = 1000
COARSE_EPOCHS = 24
EPOCHS = 12
SEED = 0
KWARGS = {"num_classes": len(CLASSES), "width": 16, "dropout": 0.2}


def main() -> None:
    """Parse the command line, make the teacher, write it."""
    options = _options()
    work, out = Path(options.work), Path(options.out)
    began = time.monotonic()
    render_archive(work, options.videos, ARCHIVE, workers=options.workers)
    print(f"archive ready after {time.monotonic() - began:.0f} s")
    train = load_split(work, options.videos, ARCHIVE, "train", TRAINING_CLIP, workers=options.workers)
    held_out = {
        split: load_split(work, options.videos, ARCHIVE, split, CLIP, workers=options.workers)
        for split in ("calibration", "test")
    }
    print(f"{len(train.labels_N)} training clips ready after {time.monotonic() - began:.0f} s")
    torch.set_num_threads(options.workers)
    torch.manual_seed(options.seed)
    model = build(**KWARGS)  # type: ignore[arg-type]
    start_from_differences(model)
    order = training.one_frame if options.baseline == "one-frame" else None
    started = time.monotonic()
    training.fit(
        model,
        train,
        coarse_epochs=options.coarse_epochs,
        epochs=options.epochs,
        seed=options.seed,
        order=order,
    )
    seconds = time.monotonic() - started
    measured = {
        split: training.measure(training.logits_NK(model, clips, order), clips)
        for split, clips in held_out.items()
    }
    print(json.dumps(measured, indent=1))
    if order is not None:
        return
    test = held_out["test"]
    measured["test, frames shuffled"] = training.measure(
        training.logits_NK(model, test, training.shuffled), test
    )
    _write(model, out, options, measured, seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.demo.recipe", description="Train the demo's teacher."
    )
    parser.add_argument("--work", required=True, help="folder for the training archive and its decoded clips")
    parser.add_argument("--out", default=str(Path(__file__).parent), help="where the teacher is written")
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS, help="videos in the training archive")
    parser.add_argument(
        "--coarse-epochs", type=int, default=COARSE_EPOCHS, help="on pictures of half the size"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="on whole pictures, afterwards")
    parser.add_argument("--seed", type=int, default=SEED, help="of the network and of training")
    parser.add_argument("--workers", type=int, default=2, help="processes, then threads")
    parser.add_argument(
        "--baseline", choices=["one-frame"], help="train on one repeated frame a clip; print, write nothing"
    )
    return parser.parse_args()


def _write(
    model: torch.nn.Module,
    out: Path,
    options: argparse.Namespace,
    measured: dict[str, dict[str, float | int]],
    seconds: float,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(state)
    (out / "teacher.safetensors").write_bytes(content)
    card = {
        "about": "Teacher of the demo: recognises motions in synthetic videos; made by pipeline.demo.recipe.",
        "factory": "pipeline.models.small3d:build",
        "kwargs": KWARGS,
        "weights": "teacher.safetensors",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "classes": list(CLASSES),
        "input": training.INPUT.model_dump(mode="json"),
        "clip": CLIP.model_dump(mode="json"),
        "view": VIEW.model_dump(mode="json"),
        "decode": DECODE.model_dump(mode="json"),
        "measured": measured,
        "made_by": {
            "command": "python -m pipeline.demo.recipe --work FOLDER "
            f"--videos {options.videos} --coarse-epochs {options.coarse_epochs} --epochs {options.epochs} "
            f"--seed {options.seed} --workers {options.workers}",
            "archive_seed": ARCHIVE.seed,
            "training_seconds": round(seconds),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    (out / "teacher.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
