"""Audits: what the teacher could not see whole does not count, and groups stand in the order in which they came."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from jobs.label import LabelOptions, label
from jobs.labelling.audit import audit
from jobs.labelling.inputs import label_spec, read_policy
from jobs.labelling.video_labels import READ, VIDEO_LABELS_SCHEMA, of_shard
from jobs.selecting.judged import open_student
from pipeline.store.data_files import data_name
from pipeline.store.read import read
from schemas.policy import PolicySpec
from tests.jobs.labelled_archive import add_policy, run, student_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("learnt_elsewhere")]


def test_a_video_that_the_teacher_could_not_see_whole_has_no_dense_label(
    trained: Path, tmp_path: Path
) -> None:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="unseen")
    report = run(trained, tmp_path, name, audit_share=1.0)
    columns = [*report.store.kind.data_schema(report.store.document.spec).names, *READ]
    rows = read(report.store, columns).sort_by([("video_id", "ascending"), ("start_us", "ascending")])
    first = rows["video_id"][0].as_py()
    mine = [i for i, v in enumerate(rows["video_id"].to_pylist()) if v == first]
    teacher = rows["teacher_logits"].to_pylist()
    assert len(mine) > 1 and all(t is not None for t in teacher)
    teacher[mine[-1]] = None
    at = rows.column_names.index("teacher_logits")
    torn = rows.set_column(at, "teacher_logits", pa.array(teacher, rows.schema.field("teacher_logits").type))
    student = open_student(student_in(trained))
    spec = label_spec(student, read_policy(student, name), LabelOptions(audit_share=1.0))
    videos = of_shard(spec, torn).to_pylist()
    assert videos[0]["audited"] and videos[0]["audit_top1"] is None
    assert all(v["audit_top1"] is not None for v in videos[1:])
    found = audit(report.store, pa.Table.from_pylist(videos, VIDEO_LABELS_SCHEMA), report.policy, 0.1)
    assert (found.videos, found.left_out, found.groups) == (17, 1, 17)


def test_what_is_added_stands_behind_what_was_looked_at(trained: Path, tmp_path: Path) -> None:
    """Else each look would have another sequence. Of a generation that is not whole nothing is tested."""
    name = add_policy(trained, PolicySpec(kind="student-alone"), name="in-order")
    lines = (trained / "archive" / "m.csv").read_text().splitlines()
    some = trained / "archive" / "in-order.csv"
    some.write_text("\n".join([lines[0], *lines[8:]]) + "\n")
    options = LabelOptions(num_threads=1, shard_clips=6, audit_share=1.0, max_disagreement=0.3)
    first = label(str(some), str(tmp_path), student_in(trained), name, options)
    second = run(trained, tmp_path, name, shard_clips=6, audit_share=1.0, max_disagreement=0.3)
    before, after = first.audit.drift, second.audit.drift
    assert before is not None and after is not None
    assert before.groups == 11 < after.groups == 18
    assert after.e_value >= before.e_value  # the largest of a sequence that only grows
    if before.alarm:
        assert after.alarm_at == before.alarm_at
    lost = next(k for k in second.store.committed() if k.generation == 2)
    second.store.files.delete(data_name(lost))
    partial = audit(second.store, second.labels.table, second.policy, 0.3).drift
    assert partial == before


def test_segments_of_one_file_are_one_group_where_none_is_named(trained: Path, tmp_path: Path) -> None:
    """Else a few films would pass for many independent videos."""
    name = add_policy(trained, PolicySpec(kind="student-alone"), name="one-file")
    report = run(trained, tmp_path, name, audit_share=1.0)
    table = report.labels.table
    at = table.column_names.index("file_id")
    files = pa.array([f"film{i % 3}" for i in range(table.num_rows)])
    segments = table.set_column(at, "file_id", files)
    group = table.column_names.index("group")
    segments = segments.set_column(group, "group", pa.nulls(table.num_rows, pa.string()))
    alone, together = (audit(report.store, t, report.policy, 0.1) for t in (table, segments))
    assert (alone.groups, together.groups) == (18, 3) and together.videos == 18
    assert together.drift is not None and together.drift.groups == 3
    assert together.at_most > alone.at_most
