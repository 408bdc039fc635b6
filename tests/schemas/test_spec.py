"""Specs: frozen, strict about keys, the same after a round trip, and fingerprinted by what moves the numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.clip import ClipSpec
from schemas.model import InputSpec, ModelRef
from schemas.spec import Spec, canonical_json, fingerprint_of
from schemas.targets import TargetSpec, ViewSpec

ROOT = Path(__file__).resolve().parents[2]
TEACHER = {
    "factory": "a.b:c",
    "kwargs": {"z": 1, "a": {"y": [1, 2.5], "x": None}},
    "weights": "s3://somewhere/w.pt",
    "weights_sha256": "ab" * 32,
    "num_classes": 3,
    "classes": ["one", "two", "three"],
    "code": "pkg 1.0",
}
BODY: dict[str, Any] = {
    "teacher": TEACHER,
    "clip": {"seconds": 2.0},
    "view": {"fit": "crop"},
    "passes": 2,
}


def changed(path: str, value: Any) -> TargetSpec:
    body = json.loads(json.dumps(BODY))
    *parents, last = path.split(".")
    at = body
    for name in parents:
        at = at.setdefault(name, {})
    at[last] = value
    return TargetSpec.model_validate(body)


SPEC = TargetSpec.model_validate(BODY)


def test_the_fingerprint_is_the_same_in_any_process() -> None:
    code = (
        "import json, sys; from schemas.targets import TargetSpec; "
        "print(TargetSpec.model_validate(json.load(sys.stdin)).fingerprint())"
    )
    backwards = json.dumps(
        {k: BODY[k] for k in reversed(BODY)} | {"teacher": dict(reversed(TEACHER.items()))}
    )
    for seed in ("0", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], input=backwards, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == SPEC.fingerprint()
    assert len(SPEC.fingerprint()) == 32


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("clip.num_frames", 8),
        ("clip.seconds", 2.5),
        ("clip.stride_seconds", 1.0),
        ("clip.tail", "drop"),
        ("clip.max_clips", 5),
        ("view.width", 128),
        ("view.height", 128),
        ("view.fit", "squash"),
        ("view.crops", "three"),
        ("view.flip", True),
        ("decode.interpolation", "area"),
        ("precision", "bf16"),
        ("channels_last", False),
        ("passes", 3),
        ("seed", 1),
        ("logits.dtype", "float32"),
        ("logits.top_k", 2),
        ("teacher.factory", "a.b:d"),
        ("teacher.kwargs", {"z": 2}),
        ("teacher.weights_sha256", "cd" * 32),
        ("teacher.num_classes", 4),
        ("teacher.code", "pkg 1.1"),
        ("teacher.input", {"layout": "NTCHW"}),
        ("teacher.input", {"mean": [0.1, 0, 0]}),
        ("teacher.input", {"std": [1, 1, 0.5]}),
        ("teacher.input", {"scale": 1.0}),
    ],
)
def test_whatever_moves_the_numbers_changes_the_fingerprint(path: str, value: Any) -> None:
    assert changed(path, value).fingerprint() != SPEC.fingerprint()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("teacher.classes", []),
        ("teacher.classes", ["uno", "dos", "tres"]),
        ("teacher.weights", "/elsewhere/w.pt"),
        ("teacher.weights", None),
        ("clip.stride_seconds", 2.0),
        ("clip.stride_seconds", 2),
        ("clip.seconds", 2),
        ("clip.num_frames", 16),
        ("teacher.input", {"mean": [0, 0, 0], "scale": 255}),
        ("seed", 0),
        ("view.width", 112),
    ],
)
def test_names_places_and_defaults_said_aloud_do_not(path: str, value: Any) -> None:
    assert changed(path, value).fingerprint() == SPEC.fingerprint()


def test_the_seed_counts_only_where_passes_are_random() -> None:
    one = SPEC.model_copy(update={"passes": 1})
    assert one.model_copy(update={"seed": 7}).fingerprint() == one.fingerprint()


@pytest.mark.parametrize("missing", ["weights_sha256", "code", "num_classes"])
def test_an_unresolved_teacher_has_no_fingerprint(missing: str) -> None:
    with pytest.raises(ValueError, match="resolve"):
        changed(f"teacher.{missing}", None).fingerprint()


def test_every_field_of_a_target_spec_is_accounted_for_above() -> None:
    """A new field must be put into one of the two lists."""
    assert set(TargetSpec.model_fields) == {
        *("teacher", "clip", "view", "decode", "precision", "channels_last", "passes", "seed", "logits")
    }
    assert set(ClipSpec.model_fields) == {"num_frames", "seconds", "stride_seconds", "tail", "max_clips"}
    assert set(ViewSpec.model_fields) == {"width", "height", "fit", "crops", "flip"}
    assert set(InputSpec.model_fields) == {"layout", "mean", "std", "scale"}


# ------------------------------------------------------------------------------------ as a value


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.passes = 3
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.clip.seconds = 3.0
    assert TargetSpec.model_validate(BODY) == SPEC


@pytest.mark.parametrize("path", ["speed", "clip.fps", "view.size", "teacher.input.order", "logits.bits"])
def test_unknown_keys_are_refused_by_name(path: str) -> None:
    with pytest.raises(ValidationError, match=rf"{re.escape(path)}\n.*not permitted"):
        changed(path, 1)


VIEWS = st.builds(ViewSpec, width=st.integers(8, 4096), height=st.integers(8, 4096), flip=st.booleans())
CLIPS = st.builds(
    ClipSpec,
    seconds=st.floats(0.001, 3600),
    stride_seconds=st.one_of(st.none(), st.floats(0.001, 100)),
    max_clips=st.one_of(st.none(), st.integers(1, 100)),
)
KWARGS = st.dictionaries(
    st.text(max_size=4), st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)), max_size=3
)


@settings(deadline=None)
@given(CLIPS, VIEWS, KWARGS)
def test_a_spec_is_the_same_after_json_yaml_and_python(
    clip: ClipSpec, view: ViewSpec, kwargs: dict[str, Any]
) -> None:
    teacher = ModelRef.model_validate({**TEACHER, "kwargs": kwargs})
    spec = TargetSpec(teacher=teacher, clip=clip, view=view)
    dumped = spec.model_dump(mode="json")
    for again in (
        TargetSpec.model_validate_json(spec.model_dump_json()),
        TargetSpec.model_validate(yaml.safe_load(yaml.safe_dump(dumped))),
        TargetSpec.model_validate(json.loads(json.dumps(dumped))),
        TargetSpec.model_validate(spec.model_dump()),
    ):
        assert again == spec
        assert again.fingerprint() == spec.fingerprint()


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
    )
)
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert fingerprint_of(value) == fingerprint_of(dict(reversed(value.items())))
    assert json.loads(canonical_json(value)) == value


def test_what_is_no_number_has_no_fingerprint() -> None:
    with pytest.raises(ValueError):
        fingerprint_of({"x": float("nan")})


@pytest.mark.parametrize(
    ("spec", "wrong", "words"),
    [
        (ViewSpec, {"crops": "three"}, "needs fit='crop'"),
        (InputSpec, {"std": [1, 0, 1]}, "std must be above 0"),
        (ModelRef, {"factory": "a:b", "classes": ["x", "y", "x"]}, "twice: \\['x'\\]"),
        (ModelRef, {"factory": "a:b", "kwargs": "{nonsense"}, "'{nonsense' is not a JSON object"),
        (ModelRef, {"factory": "a:b", "weights_sha256": "12"}, "weights_sha256"),
        (ModelRef, {"factory": ""}, "factory"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    spec: type[Spec], wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        spec.model_validate(wrong)


def test_kwargs_from_a_flag_are_json() -> None:
    assert ModelRef.model_validate({"factory": "a:b", "kwargs": '{"n": 2, "x": 0.5}'}).kwargs == {
        "n": 2,
        "x": 0.5,
    }
