"""What labels are made from: a student's policy and its teacher, seen to fit one another, and the store they go to."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import ValidationError

from jobs.calibrate import FOLDER
from jobs.selecting.judged import StudentFolder, targets_of
from pipeline.models.resolve import resolve_targets
from pipeline.models.weights import fetch
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import LABELS
from pipeline.store.shard_store import ShardStore
from pipeline.uris import without_secrets
from schemas.errors import SettingsError
from schemas.frames import FrameSpec
from schemas.labels import LabelSpec, StudentRef
from schemas.policy import PolicyDocument
from schemas.targets import TargetSpec

POLICY_FILE = "policy.json"
"""In a label store: the policy that it was made by, with its certificate."""


class Asked(Protocol):
    """What is asked beside a policy: see `jobs.label.LabelOptions`."""

    @property
    def targets(self) -> str | None: ...
    @property
    def audit_share(self) -> float: ...
    @property
    def audit_seed(self) -> int: ...
    @property
    def idle(self) -> float: ...


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


def label_spec(student: StudentFolder, document: PolicyDocument, options: Asked) -> LabelSpec:
    """All that determines the labels.

    Raises
    ------
    SettingsError
        If the teacher is not the one that the policy was calibrated for, or cannot be asked so.
    """
    if options.idle and document.certificate is not None:
        raise SettingsError(
            f"policy {document.name!r} was certified with all clips of each video, and its certificate says nothing "
            "where some are left out as idle: label without --idle, or by a policy without a certificate"
        )
    if options.idle and document.aggregation == "control-variate":
        raise SettingsError("a control variate wants the student's word on all clips: label without --idle")
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
            context=document.context,
            idle=options.idle,
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
