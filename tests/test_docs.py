"""The documents are run: every shell block of the quickstart in order, every Python block of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small demo archive as ``archive/``."""
    from pipeline.demo.archive import render_archive

    folder = tmp_path_factory.mktemp("docs")
    render_archive(folder / "archive", 20)
    return folder


def blocks(name: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / name).read_text(), re.M | re.S)
    assert found, f"{name} has no {language} block"
    return found


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_quickstart_runs(scratch: Path) -> None:
    script = "set -e\n" + "\n".join(blocks("docs/quickstart.md", "sh"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=scratch, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT clean" not in done.stdout and done.stdout.count("clean") >= 2


@pytest.fixture(scope="module")
def with_student(scratch: Path) -> Path:
    """The page on students, run: beside the targets of the demo's teacher; in one process, and with few epochs, for it
    shall not take long. The folder of its stores and its student."""
    (script,) = [b for b in blocks("docs/students.md", "sh") if "locum distill" in b]
    script = script.replace("locum frames out/targets-* ", "locum frames out/targets-* --local ")
    out = scratch / "students"  # other pages' stores lie in out
    script = script.replace("-o out ", "-o out --epochs 2 ").replace("out/", f"{out}/")
    script = script.replace("-o out", f"-o {out}")
    teach = f"locum teach {scratch}/archive/manifest.csv -o {out} --local -q"
    done = subprocess.run(
        ["bash", "-ec", f"{teach} --config examples/demo-teacher.yaml\n{script}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_students_page_runs(with_student: Path) -> None:
    (student,) = with_student.glob("student-*")
    (code,) = blocks("docs/students.md", "python")
    subprocess.run([sys.executable, "-c", code], cwd=student, check=True)


@pytest.mark.slow
def test_selecting_page_runs(with_student: Path, scratch: Path) -> None:
    """Line by line; of an archive as small as this one nothing can be guaranteed, which is said."""
    (script,) = blocks("docs/selecting.md", "sh")
    script = script.replace("out/", f"{with_student}/").replace("-o out", f"-o {with_student}")
    script = script.replace("label archive ", f"label {scratch}/archive/manifest.csv --local -q ")
    for line in script.splitlines():
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env=environment(), capture_output=True, text=True
        )
        if "--max-disagreement" in line:
            assert done.returncode == 2 and "groups" in done.stderr, done.stdout + done.stderr
        else:
            assert done.returncode == 0, done.stdout + done.stderr
    (labels,) = with_student.glob("labels-*")
    assert (labels / "videos.parquet").exists()
    (script,) = blocks("docs/reporting.md", "sh")
    script = script.replace("out/", f"{with_student}/").replace("-o report", f"-o {with_student}/report")
    script = script.replace("--figures figures", f"--figures {with_student}/figures")
    done = subprocess.run(
        ["bash", "-ec", script], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (with_student / "report.html").exists() and list((with_student / "figures").glob("*.png"))


@pytest.mark.slow
def test_exporting_page_runs(tmp_path: Path) -> None:
    """Over labels that nobody computed: exports ask for no model and no video."""
    from tests.jobs.labelling import EVERY_KIND, make_labels

    moved = [{"uris": [f"{tmp_path}/videos/{number}.mp4"]} for number in range(len(EVERY_KIND))]
    videos = [replace(made, plan=plan) for made, plan in zip(EVERY_KIND.values(), moved, strict=True)]
    make_labels(tmp_path / "out", videos)
    (script,) = blocks("docs/exporting.md", "sh")
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in tmp_path.iterdir()} - {"out"}
    assert made == {"labels.csv", "labels.jsonl", "label-studio", "cvat", "fiftyone", "subtitles"}


@pytest.mark.slow
def test_readme_python_and_teach_run(scratch: Path) -> None:
    """From the root of the checkout, as the README says; only its output folder is elsewhere."""
    for code in blocks("README.md", "python"):
        run = [sys.executable, "-c", code.replace("demo-out", str(scratch))]
        subprocess.run(run, cwd=ROOT, env=environment(), check=True)
    (command,) = [b for b in blocks("README.md", "sh") if "locum teach" in b]
    command = command.replace("demo-out", str(scratch)).replace(".venv/bin/", "")
    done = subprocess.run(
        ["bash", "-ec", command], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "0 new videos, 0 rows" in done.stdout  # the Python block taught them already, under the same spec


@pytest.mark.slow
def test_submitting_runs(scratch: Path, tmp_path: Path) -> None:
    """Line by line, on a cluster of this machine, where folders stand for buckets."""
    from tests.ray_head import ray_head

    (script,) = [b for b in blocks("docs/running.md", "sh") if "locum submit" in b]
    along = tmp_path / "my-teacher"
    along.mkdir()
    (along / "teacher.py").write_text("from pipeline.models.small3d import build as build\n")
    settings = (ROOT / "examples/demo-teacher.yaml").read_text().replace("weights: ", f"weights: {ROOT}/")
    (along / "locum.yaml").write_text(settings.replace("pipeline.models.small3d", "teacher.py"))
    with ray_head() as head:
        script = script.replace("http://head:8265", head.url).replace("s3://archive/out", f"{tmp_path}/out")
        script = script.replace("s3://archive/videos", f"{scratch}/archive/manifest.csv")
        export, submit, *others, last = script.splitlines()
        for line in (submit, *others, re.sub("targets-[0-9a-f]+", "targets-*", last)):
            done = subprocess.run(
                ["bash", "-ec", f"{export}\n{line}"],
                cwd=tmp_path,
                env=head.environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "locum-teach-" in done.stdout + done.stderr or line.startswith("locum submit --detach")
    (store,) = (tmp_path / "out").glob("targets-*")
    assert list((store / "data").iterdir())


def test_every_command_and_exit_code_is_documented() -> None:
    from jobs.cli import COMMANDS

    text = "".join(p.read_text() for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    assert all(f"locum {name}" in text or f"make {name}" in text for name in COMMANDS)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
