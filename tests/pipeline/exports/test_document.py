"""Files that rows belong to."""

from __future__ import annotations

from pipeline.exports.document import by_file
from tests.pipeline.exports.rows import EXPORT, PARTS, row


def test_parts_of_a_file_are_together_and_in_time() -> None:
    files = by_file(tuple(reversed(EXPORT.rows)))
    assert [f.stem for f in files] == ["film", "no rate", "none", "walk é"]
    assert files[0].rows == PARTS and files[0].uri == "https://h/film.mp4"


def test_files_called_alike_are_told_apart() -> None:
    rows = (row("/a/v.mp4", 1), row("/b/V.avi", 2), row("/b/w.mp4", 3), row("", 4))
    assert [f.stem for f in by_file(rows)] == ["v-000000000000", "V-000000000000", "w", "video"]
