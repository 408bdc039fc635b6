"""What manifests say of rows, in a snapshot's numbers: labels as classes, splits, groups.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import ManifestError, SettingsError

_SHOWN_LABELS = 5


class Words:
    """Labels and splits, as numbers."""

    def __init__(self, classes: Sequence[str], label_map: Mapping[str, str], use_labels: bool) -> None:
        self._classes = {name: i for i, name in enumerate(classes)}
        self._map, self._use_labels = label_map, use_labels
        self._unknown: dict[str, str] = {}
        self.splits: dict[str, int] = {}
        if strange := sorted(set(label_map.values()) - set(classes)):
            raise SettingsError(
                f"the label map names {strange[0]!r}, which is no class: {_some(list(classes))}"
            )

    def labels(self, table: pa.Table) -> NDArray[np.int32]:
        """Class of each row; -1 where it has no label."""
        if not self._use_labels:
            return np.full(table.num_rows, -1, np.int32)
        return self._numbers(table["label"], lambda word: self._class_of(word, table))

    def split_numbers(self, table: pa.Table) -> NDArray[np.int32]:
        return self._numbers(table["split"], lambda word: self.splits.setdefault(word, len(self.splits)))

    def check(self) -> None:
        """Raises ManifestError where a label was no class."""
        if not self._unknown:
            return
        some = ", ".join(f"{label!r} of {uri}" for label, uri in list(self._unknown.items())[:_SHOWN_LABELS])
        classes = _some(list(self._classes)) if self._classes else "the teacher's classes have no names"
        raise ManifestError(
            f"{len(self._unknown)} labels are no class of the teacher: {some} (classes: {classes}). Say what they are "
            "with --label-map, or train without labels: --no-use-labels"
        )

    def _class_of(self, label: str, table: pa.Table) -> int:
        number = self._classes.get(self._map.get(label, label), -1)
        if number < 0 and label not in self._unknown:
            at = table["label"].to_pylist().index(label)
            self._unknown[label] = str(table["uri"][at].as_py())
        return number

    @staticmethod
    def _numbers(column: pa.ChunkedArray, number: Callable[[str], int]) -> NDArray[np.int32]:
        encoded = column.combine_chunks().dictionary_encode()
        table = np.array([*(number(word) for word in encoded.dictionary.to_pylist()), -1], np.int32)
        at = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        return cast(NDArray[np.int32], table[at])


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
