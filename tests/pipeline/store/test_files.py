"""Files: whole or not at all, the first writer wins, and each fault of the storage says its remedy."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pipeline.store import local_files
from pipeline.store.files import TMP, StoreFiles
from schemas.errors import RetryableError, SettingsError


def test_the_first_writer_wins(place: str) -> None:
    files = StoreFiles(f"{place}/store")
    assert files.put_new("a/b", b"first")
    assert not files.put_new("a/b", b"second")
    assert files.read("a/b") == b"first"
    files.put_over("a/b", b"third")
    assert files.read("a/b") == b"third"
    assert files.sizes("a") == {"b": 5}


def test_of_many_writers_one_wins_and_its_bytes_stand(place: str) -> None:
    for round_ in range(3):
        bodies = [f"writer {i} of {round_}".encode() for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(StoreFiles(place).put_new, [f"r/{round_}"] * 8, bodies))
        assert sum(won) == 1
        assert StoreFiles(place).read(f"r/{round_}") == bodies[won.index(True)]


def test_of_many_processes_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pipeline.store.files import StoreFiles\n"
        "files = StoreFiles(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(sum(files.put_new(f'a/{i}', sys.argv[2].encode()) for i in range(50)))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
        )
        for i in range(3)
    ]
    for p in running:
        assert p.stdout is not None and p.stdout.readline() == "ready\n"
    for p in running:
        assert p.stdin is not None
        p.stdin.write("go\n")
        p.stdin.flush()
    won = [int(p.communicate(timeout=60)[0]) for p in running]
    assert sum(won) == 50
    bodies = [StoreFiles(str(tmp_path)).read(f"a/{i}") for i in range(50)]
    assert [bodies.count(str(i).encode()) for i in range(3)] == won


def test_nothing_is_left_under_tmp(tmp_path: Path) -> None:
    files = StoreFiles(str(tmp_path))
    for body in (b"one", b"two"):
        files.put_new("a/b", body)
        files.put_over("a/c", body)
    assert files.list(TMP) == []


def test_what_is_not_there_is_said_so(place: str) -> None:
    files = StoreFiles(f"{place}/none")
    assert files.list("data") == [] and not files.exists("spec.json")
    with pytest.raises(FileNotFoundError):
        files.read("spec.json")
    files.delete("spec.json")


def test_a_file_in_the_way_of_a_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x")
    files = StoreFiles(str(tmp_path / "film.mp4"))
    assert not files.exists("spec.json")
    with pytest.raises(FileNotFoundError):
        files.read("spec.json")
    with pytest.raises(SettingsError):
        files.put_new("spec.json", b"{}")


def test_files_travel_to_other_processes(place: str) -> None:
    files = StoreFiles(place)
    files.put_new("a", b"x")
    assert pickle.loads(pickle.dumps(files)).read("a") == b"x"


def test_a_folder_below_a_bare_protocol_keeps_its_slashes() -> None:
    assert StoreFiles.below("memory://", "store").url == "memory://store"
    assert StoreFiles.below("/", "store").url == "/store"
    assert StoreFiles.below("/a/", "store").url == "/a/store"


def test_temporary_files_are_swept_by_age(tmp_path: Path) -> None:
    files = StoreFiles(str(tmp_path))
    files.put_new("a", b"x")
    for name, age in (("old", 100.0), ("young", 0.0)):
        path = tmp_path / TMP / name
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    assert files.sweep_tmp(50.0) == 1
    assert files.list(TMP) == ["young"]


# ---------------------------------------------------------------- a full or closed disk


class HalfFull:
    """A file on a disk that has room for half of what is written."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def __enter__(self) -> HalfFull:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def write(self, data: bytes) -> int:
        self._inner.write(data[: len(data) // 2])
        self._inner.flush()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["open", "write", "fsync", "link"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    files = StoreFiles(str(tmp_path))
    files.put_new("a/old", b"old")

    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(local_files, "open", lambda *a: HalfFull(open(*a)), raising=False)  # noqa: SIM115
        elif step == "open":
            patch.setattr(local_files, "open", fail, raising=False)
        else:
            patch.setattr(os, step, fail)
        with pytest.raises(RetryableError, match="make room"):
            files.put_new("a/new", b"x" * 100)
    assert files.list("a") == ["old"] and files.list(TMP) == []
    assert files.put_new("a/new", b"x" * 100)


def test_a_size_limit_of_the_system_is_a_clear_error(tmp_path: Path) -> None:
    """For real: the kernel stops the write half-way."""
    files = StoreFiles(str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RetryableError, match="make room"):
            files.put_new("a", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not files.exists("a") and files.list(TMP) == []


def test_a_disk_that_may_not_be_written_to_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(local_files, "open", fail, raising=False)
    with pytest.raises(SettingsError, match="access is denied"):
        StoreFiles(str(tmp_path)).put_new("a", b"x")


def test_a_link_whose_answer_was_lost_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_lose(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_and_lose)
    assert StoreFiles(str(tmp_path)).put_new("a", b"x")
    assert not StoreFiles(str(tmp_path)).put_new("a", b"x")


def test_without_hard_links_a_file_is_still_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files = StoreFiles(str(tmp_path))
    assert files.put_new("a", b"x") and not files.put_new("a", b"y")
    assert files.read("a") == b"x" and files.list(TMP) == []
