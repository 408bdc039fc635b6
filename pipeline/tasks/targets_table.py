"""From teacher logits to the rows of a target store: uncertainties first, in float32, then the cast. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import uncertainty as un
from schemas.arrays import Float32
from schemas.errors import ModelError
from schemas.targets import TOP_K_TEMPERATURES, UNCERTAINTY_COLUMNS, TargetSpec

DERIVED_COLUMNS = ("top1", *UNCERTAINTY_COLUMNS)


def derived_columns(logits_NK: Float32, video_N: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Columns that follow from dense logits alone; each (N,)."""
    probs = un.softmax(logits_NK)
    return {
        "top1": logits_NK.argmax(axis=1).astype(np.int32),
        "msp": un.msp(probs),
        "margin": un.margin(probs),
        "entropy": un.entropy(probs),
        "energy": un.energy(logits_NK),
        "temporal_jsd": un.temporal_jsd(probs, video_N),
    }


def target_table(
    spec: TargetSpec, keys: dict[str, list[Any]], logits_NSK: Float32, extra: dict[str, Any]
) -> pa.Table:
    """Rows of ``spec.table_schema()``.

    ``keys`` holds video_id, start_us, end_us (N each), ``logits_NSK`` float32 logits of S samples (views times
    passes), ``extra`` decode_ms, teacher_ms and damaged. The stored logits are the mean over the samples.

    Raises
    ------
    ModelError
        If a logit cannot be stored: it is not finite, or overflows the stored type.
    """
    schema = spec.table_schema()
    logits_NK = logits_NSK.mean(axis=1, dtype=np.float32)
    video_N = (
        np.unique(np.array(keys["video_id"], dtype="S32"), return_inverse=True)[1]
        if keys["video_id"]
        else np.empty(0, np.int64)
    )
    columns: dict[str, Any] = {**keys, **derived_columns(logits_NK, video_N), **extra}
    if "mutual_information" in schema.names:
        columns["mutual_information"] = un.mutual_information(un.softmax(logits_NSK))
    if spec.logits.top_k:
        columns |= _top_k(logits_NK, schema)
    else:
        columns["logits"] = _vectors(logits_NK, schema.field("logits").type)
    arrays = [_array(columns[f.name], f) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def rederive(table: pa.Table) -> pa.Table:
    """Recompute the derived columns of stored rows from their stored (rounded) logits; no teacher is run.

    ``mutual_information`` needs the samples, which are not stored, and stays as it is. Differs from what was
    computed before the cast by the rounding of the stored type.

    Raises
    ------
    ValueError
        If the store keeps top-k logits only.
    """
    if "logits" not in table.column_names:
        raise ValueError("the store keeps top-k logits: what the derived columns need was not kept")
    k = table.schema.field("logits").type.list_size
    flat = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    logits_NK = flat.reshape(-1, k)
    ids = np.array(table["video_id"].to_pylist(), dtype="S32")
    video_N = np.unique(ids, return_inverse=True)[1] if len(ids) else np.empty(0, np.int64)
    for name, values in derived_columns(logits_NK, video_N).items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), _array(values, table.schema.field(at)))
    return table


def _top_k(logits_NK: Float32, schema: pa.Schema) -> dict[str, Any]:
    k = schema.field("topk_class").type.list_size
    order = np.argsort(-logits_NK, axis=1, kind="stable")[:, :k].astype(np.int32)
    values = np.take_along_axis(logits_NK, order, axis=1)
    columns: dict[str, Any] = {
        "topk_class": pa.FixedSizeListArray.from_arrays(
            pa.array(order.ravel()), type=schema.field("topk_class").type
        ),
        "topk_logits": _vectors(values, schema.field("topk_logits").type),
    }
    return columns | {f"lse_t{t}": un.logsumexp(logits_NK, t) for t in TOP_K_TEMPERATURES}


def _vectors(values_NK: Float32, kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    dtype = np.float16 if kind.value_type == pa.float16() else np.float32
    with np.errstate(over="ignore"):
        stored = values_NK.astype(dtype)
    if not np.isfinite(stored).all():
        row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        worst = (
            values_NK[row][np.abs(values_NK[row]).argmax()]
            if np.isfinite(values_NK[row]).all()
            else "not finite"
        )
        raise ModelError(
            f"a logit ({worst}) cannot be stored as {dtype.__name__}: use --logits.dtype float32"
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), type=kind)


def _array(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and field.nullable:
        return pa.array(values, field.type, mask=np.isnan(values))
    return pa.array(values, field.type)
