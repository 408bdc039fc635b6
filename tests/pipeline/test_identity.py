"""Identity by content: what has one id, and what must not."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import identity
from pipeline.identity import file_id, item_id
from schemas.video import segment_id
from tests.s3_server import s3_bucket, s3_server  # noqa: F401 - fixtures

SIZE = 1_000_000


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files over 100 kB are sampled: 4 blocks of 1000 bytes."""
    monkeypatch.setattr(identity, "FULL_BYTES", 100_000)
    monkeypatch.setattr(identity, "_SAMPLES", 4)
    monkeypatch.setattr(identity, "_SAMPLE_BYTES", 1000)


def noise(path: Path, size: int = SIZE, seed: int = 0) -> Path:
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


def flip(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    return path


def test_a_copy_and_a_moved_file_keep_the_id(tmp_path: Path) -> None:
    a = noise(tmp_path / "a.mp4")
    before = file_id(str(a))
    shutil.copy(a, tmp_path / "b.mkv")
    (tmp_path / "sub").mkdir()
    moved = a.rename(tmp_path / "sub/c.mp4")
    assert file_id(str(tmp_path / "b.mkv")) == file_id(str(moved)) == file_id(f"file://{moved}") == before
    assert before[1:] == ("full", SIZE)
    assert len(before[0]) == 32 and int(before[0], 16) >= 0


@pytest.mark.parametrize("at", [0, 1, SIZE // 2, SIZE - 1])
def test_one_flipped_bit_anywhere_changes_a_full_id(tmp_path: Path, at: int) -> None:
    a, b = noise(tmp_path / "a"), noise(tmp_path / "b")
    assert file_id(str(a)) == file_id(str(b))
    assert file_id(str(flip(b, at)))[0] != file_id(str(a))[0]


def test_one_more_byte_changes_the_id(tmp_path: Path, sampled: None) -> None:
    for size in (100, 200_000):
        a, b = noise(tmp_path / "a", size), noise(tmp_path / "b", size)
        b.write_bytes(a.read_bytes() + b"\0")
        assert file_id(str(a))[0] != file_id(str(b))[0]


@pytest.mark.parametrize("at", [0, 999, 333_333, SIZE - 1])
def test_a_sampled_id_sees_both_ends_and_the_samples(tmp_path: Path, sampled: None, at: int) -> None:
    a, b = noise(tmp_path / "a"), flip(noise(tmp_path / "b"), at)
    assert file_id(str(a))[1] == "sampled"
    assert file_id(str(a))[0] != file_id(str(b))[0]


def test_a_sampled_id_is_blind_between_the_samples_and_a_full_one_is_not(
    tmp_path: Path, sampled: None
) -> None:
    a, b = noise(tmp_path / "a"), flip(noise(tmp_path / "b"), 50_000)
    assert file_id(str(a)) == file_id(str(b))
    assert file_id(str(a), "full")[0] != file_id(str(b), "full")[0]


def test_the_method_is_part_of_the_id(tmp_path: Path, sampled: None) -> None:
    a = noise(tmp_path / "a")
    assert file_id(str(a))[0] != file_id(str(a), "full")[0]


def test_the_limit_itself_is_read_in_full(tmp_path: Path, sampled: None) -> None:
    assert file_id(str(noise(tmp_path / "a", 100_000)))[1] == "full"
    assert file_id(str(noise(tmp_path / "a", 100_001)))[1] == "sampled"


def test_empty_files_are_all_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert file_id(str(tmp_path / "a")) == file_id(str(tmp_path / "b"))
    assert file_id(str(tmp_path / "a"))[1:] == ("full", 0)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_id(str(tmp_path / "gone"))


def test_local_and_memory_files_of_the_same_bytes_are_the_same_file(tmp_path: Path) -> None:
    a = noise(tmp_path / "a", 1000)
    fsspec.filesystem("memory").pipe("/identity/a", a.read_bytes())
    assert file_id("memory://identity/a") == file_id(str(a))


@pytest.mark.s3
def test_on_s3_size_and_etag_name_the_file_and_a_full_hash_can_be_asked_for(
    s3_bucket: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    a = noise(tmp_path / "a", 1000)
    fs.pipe(f"{s3_bucket}/a", a.read_bytes())
    fs.pipe(f"{s3_bucket}/copy", a.read_bytes())
    fs.pipe(f"{s3_bucket}/b", flip(a, 5).read_bytes())
    first = file_id(f"{s3_bucket}/a")
    assert first[1:] == ("etag", 1000)
    assert file_id(f"{s3_bucket}/copy") == first
    assert file_id(f"{s3_bucket}/b")[0] != first[0]
    assert file_id(f"{s3_bucket}/b", "full") == file_id(str(a), "full")


TEXT = st.one_of(st.none(), st.text(max_size=5))


@settings(deadline=None)
@given(st.tuples(st.text(max_size=5), TEXT), st.tuples(st.text(max_size=5), TEXT))
def test_items_differ_by_uri_token_and_method(a: tuple[str, str | None], b: tuple[str, str | None]) -> None:
    same = (a[0], a[1] or "") == (b[0], b[1] or "")
    if not any("\0" in (part or "") for part in (*a, *b)):
        assert (item_id(*a) == item_id(*b)) == same
    assert item_id(*a) != item_id(*a, "full")


def test_a_segment_that_is_the_whole_file_has_the_files_id() -> None:
    file = "ab" * 16
    assert segment_id(file, None, None) == segment_id(file, 0, None) == file
    assert segment_id(file, None, 5) == segment_id(file, 0, 5)
    ids = {segment_id(f, s, e) for f in (file, "cd" * 16) for s in (None, 1, 2) for e in (None, 12, 2)}
    assert len(ids) == 2 * 3 * 3
