"""The shipped teacher: its card and weights agree, its spec needs no torch, it knows motions it never saw."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import pipeline.demo
from pipeline.demo.archive import TEACHER_SEED, ArchiveSettings, plan_archive, render_archive, video_path
from pipeline.demo.motion import CLASSES
from pipeline.demo.recipe_training import INPUT, to_input
from pipeline.demo.spec import demo_target_spec
from pipeline.models.small3d import build
from pipeline.models.weights import load_into, read_state
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import clip_spans

FOLDER = Path(pipeline.demo.__file__).parent


def test_the_card_agrees_with_the_weights() -> None:
    card = json.loads((FOLDER / "teacher.json").read_text())
    content = (FOLDER / card["weights"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["weights_sha256"]
    assert len(content) <= 1_500_000
    assert tuple(card["classes"]) == CLASSES
    assert card["made_by"]["archive_seed"] == TEACHER_SEED
    assert 0.7 < card["measured"]["test"]["video_accuracy"] < 1


def test_the_spec_names_them_and_imports_no_torch() -> None:
    spec = demo_target_spec()
    assert spec.teacher.input == INPUT
    assert spec.teacher.weights is not None and Path(spec.teacher.weights).is_file()
    assert (spec.clip.num_frames, spec.clip.seconds, spec.view.width, spec.view.height) == (8, 2.0, 64, 64)
    code = (
        "import sys; from pipeline.demo.spec import demo_target_spec; demo_target_spec();"
        "sys.exit(bool({'torch', 'av', 'ray'} & set(sys.modules)))"
    )
    root = str(FOLDER.parents[1])
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_it_knows_motions_of_scenes_it_never_saw(tmp_path: Path) -> None:
    settings = ArchiveSettings(seed=41, min_seconds=2.0, max_seconds=2.5)
    assert settings.seed != TEACHER_SEED
    render_archive(tmp_path, 8, settings)
    spec = demo_target_spec()
    model = build(**spec.teacher.kwargs)
    load_into(model, read_state(Path(str(spec.teacher.weights))), "teacher")
    model.eval()
    right = []
    for plan in islice(plan_archive(settings), 8):
        spans = clip_spans(0, round(plan.encoding.duration_s * 1e6), spec.clip)
        clips = PyAVDecoder().decode(str(video_path(tmp_path, plan)), spans, spec.view, spec.decode)
        frames_NTHWC = np.stack([clip.frames_VTHWC[0] for clip in clips])
        with torch.inference_mode():
            mean_K = model(to_input(frames_NTHWC)).softmax(1).mean(0)
        right.append(CLASSES[int(mean_K.argmax())] == plan.label)
    assert np.mean(right) >= 0.5
