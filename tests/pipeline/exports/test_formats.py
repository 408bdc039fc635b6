"""The formats that can be asked for are those that there are."""

from __future__ import annotations

from typing import get_args

import pytest

from pipeline.exports.formats import FORMATS
from schemas.export import FormatName
from tests.pipeline.exports.rows import EXPORT, export_of


def test_each_name_has_a_format() -> None:
    assert get_args(FormatName) == tuple(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_files_are_called_differently_and_render_the_same_twice(name: str) -> None:
    files = list(FORMATS[name].files(EXPORT))
    paths = [file.path for file in files]
    assert len(paths) == len(set(paths)) and (paths == [""]) == FORMATS[name].one_file
    assert [f.render() for f in files] == [f.render() for f in FORMATS[name].files(EXPORT)]
    assert all(isinstance(f.render(), bytes) for f in FORMATS[name].files(export_of()))
