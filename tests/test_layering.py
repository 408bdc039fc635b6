"""Layering: `jobs -> cluster -> pipeline -> schemas`, by reading imports and by what a fresh interpreter loads."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("jobs", "cluster", "pipeline", "schemas")
OURS = [p for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py"))]


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_of(p) for p in OURS]


def loaded_after(code: str) -> set[str]:
    """Top-level names and our modules in ``sys.modules`` of a fresh interpreter that ran ``code``."""
    show = "import sys, json; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = json.loads(done.stdout.splitlines()[-1])
    return {n.split(".")[0] for n in names} | {n for n in names if n.split(".")[0] in LAYERS}


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports anywhere, and whether at its top level (not under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text(), str(path))
    typing = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    inner = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import; write the whole name")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else str(node.module) for name in names]
            yield from ((name, id(node) not in inner) for name in dict.fromkeys(found))


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


# --------------------------------------------------------------------------------- by reading imports


@pytest.mark.parametrize("path", OURS, ids=MODULES)
def test_imports_go_one_way(path: Path) -> None:
    layer = LAYERS.index(module_of(path).split(".")[0])
    upwards = {n for n, _ in imported(path) if n.split(".")[0] in LAYERS[:layer]}
    assert not upwards, f"{module_of(path)} imports {sorted(upwards)}"


_HEAVY = ("pipeline.video", "pipeline.models", "pipeline.tasks", "pipeline.select", "torch", "av")
FORBIDDEN = {
    "pipeline.store": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.plan": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.known": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.replan": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.catalog": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.manifest": (
        "pipeline.video",
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.select",
        "torch",
        "av",
    ),
    "pipeline.uncertainty": ("pipeline.", "torch", "av"),
    "pipeline.metrics": ("pipeline.", "torch", "av"),
    "pipeline.video": ("pipeline.tasks", "pipeline.models", "pipeline.store", "pipeline.select"),
    "pipeline.models": (
        "pipeline.tasks",
        "pipeline.distill",
        "pipeline.video",
        "pipeline.store",
        "pipeline.select",
    ),
    "pipeline.tasks": ("pipeline.store", "pipeline.distill", "jobs"),
    "pipeline.distill": ("pipeline.tasks", "pipeline.video", "pipeline.select", "jobs"),
    "pipeline.select": (
        "pipeline.tasks",
        "pipeline.models",
        "pipeline.video",
        "pipeline.distill",
        "pipeline.store",
        "jobs",
        "torch",
        "av",
    ),
    "pipeline": ("ray",),
    "schemas": ("ray", "torch", "av", "fsspec", "pipeline"),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_themselves(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for path, module in zip(OURS, MODULES, strict=True)
        if below(module, package)
        for name, _ in imported(path)
        if any(below(name, f) or (f.endswith(".") and name.startswith(f)) for f in FORBIDDEN[package])
    ]
    assert not wrong


def test_only_cluster_imports_ray() -> None:
    users = {m for p, m in zip(OURS, MODULES, strict=True) if any(below(n, "ray") for n, _ in imported(p))}
    assert not {m for m in users if not below(m, "cluster")}


@pytest.mark.parametrize("library", ["decord", "torchcodec"])
def test_only_its_backend_imports_a_decoder(library: str) -> None:
    users = {
        (m, top) for p, m in zip(OURS, MODULES, strict=True) for n, top in imported(p) if below(n, library)
    }
    assert users == {(f"pipeline.video.{library}_backend", False)}


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {
        m: {n for n, top in imported(p) if top and n in MODULES} for p, m in zip(OURS, MODULES, strict=True)
    }
    while leaves := {m for m, to in edges.items() if not to & edges.keys()}:
        edges = {m: to for m, to in edges.items() if m not in leaves}
    assert not edges


# ------------------------------------------------------------------------------ by a fresh interpreter


@pytest.mark.parametrize(
    ("code", "without"),
    [
        (
            "import " + ", ".join(m for m in MODULES if below(m, "schemas")),
            "torch ray av fsspec pipeline cluster jobs",
        ),
        ("import " + ", ".join(m for m in MODULES if below(m, "pipeline")), "ray cluster jobs"),
        (
            "import " + ", ".join(m for m in MODULES if below(m, "pipeline.store")),
            "torch av ray pipeline.video",
        ),
        (
            "import pipeline.plan, pipeline.replan, pipeline.catalog, pipeline.manifest",
            "torch av ray pipeline.video",
        ),
        ("import pipeline.uncertainty", "torch av ray pyarrow fsspec pipeline.store"),
        (
            "import schemas.targets as t, pipeline.video.backends as b; b.decoder_for(t.DecodeSpec())",
            "decord torchcodec torch ray",
        ),
        ("import jobs.index", "torch ray"),
        ("import cluster.follow, jobs.submit, jobs.commands.submitted", "torch ray av"),
        ("import jobs.cli, jobs.commands.flags", "torch ray av fsspec pipeline"),
        ("from jobs.cli import run; run(['--help'])", "torch ray av pyarrow numpy fsspec pipeline"),
        ("from jobs.cli import run; run(['teach', '--help'])", "torch ray av pipeline"),
        ("from jobs.cli import run; run(['submit', '--help'])", "torch ray av pipeline"),
    ],
)
def test_what_a_fresh_interpreter_loads(code: str, without: str) -> None:
    loaded = loaded_after(code)
    assert "jobs" in loaded or "schemas" in loaded or "pipeline" in loaded
    assert not loaded & set(without.split())


def test_help_takes_under_half_a_second_of_cpu() -> None:
    """The least of five runs, for others may use the machine too."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "jobs.cli", "--help"], cwd=ROOT, capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5, f"CPU seconds of five runs: {[round(s, 2) for s in spent]}"
