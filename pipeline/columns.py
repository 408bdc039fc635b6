"""Arrow columns as NumPy arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of one length; (N, K) float32."""
    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(array), array.type.list_size)
