"""The command line: settings from flags and YAML, exit codes, and what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from jobs.cli import COMMANDS, build_app, run
from pipeline.store.shard_store import ShardStore
from tests.tiny import FACTORY, TINY_FLAGS, make_archive

FAST = ["--num-threads", "1", "--quiet", "--json"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive", 4)


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = run(list(argv))
    out = capsys.readouterr().out.strip()
    return code, json.loads(out.splitlines()[-1]) if out.startswith("{") else {"text": out}


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"locum {name}" in text and "--json" in text


def test_teach_status_verify_failures(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive.parent / "videos" / "bad.mp4").write_text("no video")
    folder, out = str(archive.parent / "videos"), str(tmp_path / "out")
    code, body = call(capsys, "teach", folder, "-o", out, *TINY_FLAGS, *FAST)
    assert code == 0 and body["complete"] is True and body["quarantined_videos"] == 1
    store = str(body["store"])
    code, status = call(capsys, "status", store, "--json")
    assert code == 0 and status["rows"] == body["rows"] == status["planned"]
    code, proof = call(capsys, "verify", store, "--json")
    assert code == 0 and proof["clean"] is True and proof["problems"] == []
    code, failure = call(capsys, "failures", store, "--json")
    assert code == 0 and str(failure["uri"]).endswith("bad.mp4") and failure["permanent"] is True
    assert run(["derive", store]) == 0
    code, again = call(capsys, "verify", store, "--json")
    assert code == 0 and again["clean"] is True


def test_a_damaged_store_is_exit_4(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, body = call(capsys, "teach", str(archive), "-o", str(tmp_path / "out"), *TINY_FLAGS, *FAST)
    store = Path(str(body["store"]))
    (one, *_) = sorted((store / "data").iterdir())
    shutil.copy(one, store / "data" / "g0001-000999.parquet")
    one.write_bytes(one.read_bytes()[:-20])
    code, proof = call(capsys, "verify", str(store), "--json")
    assert code == 4 and proof["clean"] is False
    assert any("000999" in p for p in proof["problems"]) and any(one.name in p for p in proof["problems"])  # type: ignore[attr-defined]


def test_yaml_and_flags_mean_the_same(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "locum.yaml"
    settings = {
        "out": str(tmp_path / "out"),
        "teacher": {"factory": FACTORY, "kwargs": {"num_classes": 5}},
        "clip": {"num_frames": 4, "seconds": 0.5},
        "view": {"width": 32, "height": 24},
        "local": True,
    }
    config.write_text(yaml.safe_dump(settings))
    code, by_file = call(capsys, "teach", str(archive), "--config", str(config), *FAST)
    assert code == 0
    code, by_flags = call(
        capsys,
        "teach",
        str(archive),
        "-o",
        str(tmp_path / "out"),
        *TINY_FLAGS,
        "--teacher.kwargs",
        '{"num_classes": 5}',
        *FAST,
    )
    assert code == 0 and by_flags["store"] == by_file["store"]
    code, over = call(capsys, "teach", str(archive), "--config", str(config), "--clip.seconds", "0.4", *FAST)
    assert code == 0 and over["store"] != by_file["store"]
    spec = ShardStore.open(str(over["store"])).document.spec
    assert spec["clip"]["seconds"] == 0.4 and spec["clip"]["num_frames"] == 4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["teach", "nowhere", "-o", "OUT", *TINY_FLAGS], "nowhere"),
        (["teach", "ARCHIVE", "-o", "OUT", "--teacher.factory", "no.such:thing"], "no.such"),
        (
            ["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--clip.stride-seconds", "0"],
            "--clip.stride-seconds: Input should be",
        ),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--passes", "2.5"], "--passes: Input should be"),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--precision", "int3"], "int3"),
        (["calibrate", "nowhere", "--max-cost", "2"], "--max-cost: Input should be"),
        (
            ["report", "nowhere", "-o", "p.html", "--prices.teacher", "-1"],
            "--prices.teacher: Input should be",
        ),
        (["report", "nowhere", "-o", "p.html", "--costs.teacher", "-1"], "--costs.teacher"),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--batch-size", "0"], "--batch-size"),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--no-such-flag", "1"], "--no-such-flag"),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--max-hours", "-1"], "--max-hours"),
        (["teach", "ARCHIVE", "-o", "OUT", *TINY_FLAGS, "--config", "absent.yaml"], "absent.yaml"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_settings_are_exit_2_and_name_the_value(
    argv: list[str], words: str, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = run([{"ARCHIVE": str(archive), "OUT": str(out)}.get(a, a) for a in argv])
    captured = capsys.readouterr()
    assert code == 2
    assert words in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert not list(out.glob("targets-*"))


def test_an_unknown_key_of_the_yaml_is_exit_2(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "locum.yaml"
    config.write_text(
        yaml.safe_dump({"out": str(tmp_path / "out"), "teacher": {"factory": FACTORY, "wieghts": "x"}})
    )
    assert run(["teach", str(archive), "--config", str(config)]) == 2
    captured = capsys.readouterr()
    assert "wieghts" in captured.err + captured.out


def test_no_store_is_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("status", "verify", "failures", "retry", "prune", "derive"):
        assert run([name, str(tmp_path / "nothing")]) == 4
        assert "no store at" in capsys.readouterr().err


def test_dry_run_estimates_and_writes_nothing(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, guess = call(capsys, "teach", str(archive), "-o", str(out), *TINY_FLAGS, *FAST, "--dry-run")
    assert code == 0 and not out.exists()
    code, body = call(capsys, "teach", str(archive), "-o", str(out), *TINY_FLAGS, *FAST)
    assert guess["videos"] == body["videos"] == 4
    assert guess["clips"] == body["planned"]  # four videos: all of them are probed
    assert guess["fingerprint"] == body["fingerprint"]
    assert float(guess["seconds"]) > 0  # type: ignore[arg-type]


def test_a_plan_says_what_a_run_would_take(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--prices.core-hour", "3600", "--prices.gpu-hour", "5"]
    code, body = call(capsys, "plan", str(archive), *TINY_FLAGS, *prices, "--json")
    bill = body["bill"]
    assert code == 0 and body["videos"] == 4 and bill["clips"] == body["clips"] > 4
    seconds = body["clips"] * (body["decode_ms_a_clip"] + body["teacher_ms_a_clip"]) / 1e3
    assert bill["cores_money"] == pytest.approx(seconds) and bill["gpus_money"] is None
    assert bill["fleets"][0]["hours"] == pytest.approx(seconds / 3600)


def test_out_of_time_is_exit_3(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["teach", str(archive), "-o", str(tmp_path / "out"), *TINY_FLAGS, *FAST, "--shard-clips", "2"]
    code, body = call(capsys, *argv, "--max-hours", "1e-9")
    assert code == 3 and body["complete"] is False
    code, body = call(capsys, *argv)
    assert code == 0 and body["complete"] is True


def test_the_app_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    build_app()(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
