"""The main job wholly on an object store: manifest, videos, weights and stores, with no local path."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from jobs.distill import DistilOptions, distil
from jobs.prune import prune
from jobs.teach import TeachOptions, teach
from pipeline.store.read import failures, read
from pipeline.store.verify import count, verify
from schemas.frames import KeepSpec
from schemas.model import ModelRef
from schemas.student import TrainSpec
from tests.tiny import FACTORY, build, make_archive, tiny_spec

OPTIONS = TeachOptions(batch_size=4, shard_clips=6, num_threads=1)
pytestmark = pytest.mark.s3


@pytest.fixture
def remote(s3_bucket: str, tmp_path: Path) -> str:
    """A tiny archive in the bucket; the URL of its folder."""
    from safetensors.torch import save_file

    manifest = make_archive(tmp_path / "archive")
    save_file(build().state_dict(), tmp_path / "archive" / "teacher.safetensors")
    fs, root = fsspec.core.url_to_fs(f"{s3_bucket}/archive")
    fs.put(str(manifest.parent), root, recursive=True)
    return f"{s3_bucket}/archive"


@pytest.mark.slow
def test_on_ray(remote: str, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probing, decoding, weights and commits by actors, which find credentials and endpoint where the command does."""
    from cluster.runner import RayRunner
    from schemas.cluster import RayOptions

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    spec = tiny_spec(teacher=ModelRef(factory=FACTORY, weights=f"{remote}/teacher.safetensors"))
    with RayRunner(RayOptions(ray="local", workers="1")) as runner:
        report = teach(f"{remote}/m.csv", f"{s3_bucket}/out", spec, OPTIONS, runner=runner)
    assert report.complete and not failures(report.store) and verify(report.store).clean
    here = teach(str(tmp_path / "archive" / "m.csv"), str(tmp_path / "out"), spec, OPTIONS)
    columns = ["end_us", "logits"]
    order = [("end_us", "ascending"), ("entropy", "ascending")]
    a, b = (read(r.store, [*columns, "entropy"]).sort_by(order).select(columns) for r in (report, here))
    assert a.equals(b)


def test_everything_on_s3(remote: str, s3_bucket: str, tmp_path: Path) -> None:
    spec = tiny_spec(teacher=ModelRef(factory=FACTORY, weights=f"{remote}/teacher.safetensors"))
    out = f"{s3_bucket}/out"
    report = teach(f"{remote}/m.csv", out, spec, OPTIONS)
    assert report.complete and report.summary.shards > 1 and not failures(report.store)
    proof = verify(report.store)
    assert proof.clean, proof.problems

    again = teach(f"{remote}/m.csv", out, spec, OPTIONS)
    assert again.summary.rows == 0 and again.index.new_items == 0

    for name in report.store.files.list("data")[::2]:
        report.store.files.delete(f"data/{name}")
    assert not count(report.store).complete
    assert teach(f"{remote}/m.csv", out, spec, OPTIONS).complete

    gone = read(report.store, ["uri"])["uri"][0].as_py()
    assert prune(report.store.url, uris=[gone])["removed_videos"] == 1
    assert gone not in read(report.store, ["uri"])["uri"].to_pylist()
    assert verify(report.store).clean and count(report.store).complete

    local = teach(str(tmp_path / "archive" / "m.csv"), str(tmp_path / "out"), spec, OPTIONS)
    assert local.store.document.fingerprint == report.store.document.fingerprint
    columns = ["label", "start_us", "end_us", "logits", "entropy"]
    order = [("label", "ascending"), ("end_us", "ascending"), ("entropy", "ascending")]
    here = read(local.store).sort_by(order).select(columns)
    there = (
        read(teach(f"{remote}/m.csv", f"{s3_bucket}/out2", spec, OPTIONS).store)
        .sort_by(order)
        .select(columns)
    )
    assert here.equals(there)


def test_a_prefix_is_a_source_and_nothing_secret_is_written(remote: str, s3_bucket: str) -> None:
    report = teach(f"{remote}/videos", f"{s3_bucket}/out", tiny_spec(), OPTIONS)
    assert report.counts.videos == 6 and report.complete
    files = report.store.files
    written = files.read("spec.json") + b"".join(files.read(f"data/{n}") for n in files.list("data"))
    assert b"testing" not in written  # the secret key of the test server
    assert json.loads(files.read("spec.json"))["fingerprint"] == report.store.document.fingerprint
    moved, videos = fsspec.core.url_to_fs(f"{remote}/videos")
    moved.mv(f"{videos}/v00.mp4", f"{videos}/moved.mp4")
    second = teach(f"{remote}/videos", f"{s3_bucket}/out", tiny_spec(), OPTIONS)
    assert second.added.new_videos == 0 and second.summary.rows == 0


def test_a_missing_bucket_is_a_clear_error(s3_bucket: str) -> None:
    from jobs.cli import run
    from tests.tiny import TINY_FLAGS

    assert (
        run(["teach", f"{s3_bucket}-not-there/videos", "-o", f"{s3_bucket}/out", *TINY_FLAGS, "--quiet"]) == 2
    )


def test_a_student_from_s3_on_s3(remote: str, s3_bucket: str, tmp_path: Path) -> None:
    """Targets, kept frames and student in the bucket; the same weights as from a copy of both on a disk."""
    spec = tiny_spec(teacher=ModelRef(factory=FACTORY, weights=f"{remote}/teacher.safetensors"))
    keep = KeepSpec(num_frames=4, width=16, height=16)
    taught = teach(f"{remote}/m.csv", f"{s3_bucket}/out", spec, replace(OPTIONS, keep=keep))
    assert taught.complete and taught.frames is not None
    train = TrainSpec(epochs=2, final_epochs=0, batch_size=4, use_labels=False, label_weight=0.0)
    options = DistilOptions(num_threads=1)
    made = distil([taught.store.url], f"{s3_bucket}/out", train, options)
    assert made.trained_now and made.url.startswith("s3://")
    assert not distil([taught.store.url], f"{s3_bucket}/out", train, options).trained_now
    fs, root = fsspec.core.url_to_fs(f"{s3_bucket}/out")
    fs.get(root, str(tmp_path / "copy"), recursive=True)
    copies = [str(tmp_path / "copy" / s.url.rpartition("/")[2]) for s in (taught.store, taught.frames.store)]
    here = distil(copies[:1], str(tmp_path / "here"), train, replace(options, frames=copies[1]))
    names = [
        "student.safetensors",
        *(f"predictions/{p.name}" for p in Path(here.url, "predictions").iterdir()),
    ]
    assert len(names) > 1
    assert [fs.cat(f"{root}/{made.url.rpartition('/')[2]}/{n}") for n in names] == [
        (Path(here.url) / n).read_bytes() for n in names
    ]


def test_where_few_clips_are_wanted_few_bytes_are_fetched(
    s3_server: str, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of half a second in every ten: what lies between is not read."""
    from pipeline.video.pyav import PyAVDecoder
    from schemas.clip import ClipSpec, clip_spans
    from schemas.targets import DecodeSpec, ViewSpec
    from tests.failing_proxy import failing
    from tests.s3_server import forget_clients

    film = _noise(tmp_path / "film.mp4", seconds=60)
    size = film.stat().st_size
    block = size // 100
    with failing(s3_server, 0.0) as (url, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget_clients()
        fs, root = fsspec.core.url_to_fs(s3_bucket)
        fs.put(str(film), f"{root}/film.mp4")
        monkeypatch.setattr("pipeline.video.source.READ_BLOCK", block)
        view, decode = ViewSpec(width=64, height=48), DecodeSpec()
        spec = ClipSpec(num_frames=4, seconds=0.5, stride_seconds=10.0)
        spans = clip_spans(0, 60_000_000, spec)
        before = proxy.sent
        there = list(PyAVDecoder().decode(f"{s3_bucket}/film.mp4", spans, view, decode))
        fetched = proxy.sent - before
    here = list(PyAVDecoder(seek=False).decode(str(film), spans, view, decode))
    assert len(there) == len(here) == len(spans) > 5
    assert all((a.frames_VTHWC == b.frames_VTHWC).all() for a, b in zip(there, here, strict=True))
    assert fetched < size / 2, f"{fetched} of {size} bytes"


def _noise(path: Path, seconds: int) -> Path:
    """A film that no codec makes small."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"g": "10", "preset": "ultrafast", "qp": "10"}
        )
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        for _ in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (144, 192, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
