"""Which bytes a file holds: its ``file_id``, by content and not by name.

The method is part of the id: ``full`` (128-bit BLAKE2b of all bytes) up to 64 MiB; ``sampled`` above (of the size,
both ends and evenly spread blocks); ``etag`` on object stores (of size and ETag), where reading all would double
the bill. A web server's ETag is not taken, for it is often made of size and time alone. Two files with one sampled
id may still differ by damage between the samples: the catalogue merges them only after their full hashes agree.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import fsspec

FULL_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 32, 256 * 2**10
_BLOCK = 4 * 2**20
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"}

IdMethod = Literal["full", "sampled", "etag"]


def item_id(uri: str, token: str | None, id_method: str = "auto") -> str:
    """Names one version of one URI, to be probed by one method; 32 hex digits."""
    return hashlib.blake2b(f"{uri}\0{token or ''}\0{id_method}".encode(), digest_size=16).hexdigest()


def file_id(uri: str, id_method: str = "auto") -> tuple[str, IdMethod, int]:
    """Id, method and size in bytes of the file at ``uri``. ``id_method='full'`` forces the full hash.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    info = fs.info(path)
    if info["size"] is None:
        raise OSError(f"the server does not say how large {uri} is")
    size = int(info["size"])
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"') if protocols & _OBJECT_STORES else ""
    if id_method == "auto" and etag:
        return _finish(_hasher("etag"), f"{size}:{etag}".encode()), "etag", size
    with fs.open(path, "rb") as f:
        if id_method == "full" or size <= FULL_BYTES:
            return _full(f), "full", size
        return _sampled(f, size), "sampled", size


def _hasher(method: str) -> Any:
    return hashlib.blake2b(digest_size=16, person=f"locum-{method}".encode())


def _finish(h: Any, data: bytes) -> str:
    h.update(data)
    return str(h.hexdigest())


def _full(f: Any) -> str:
    h = _hasher("full")
    while block := f.read(_BLOCK):
        h.update(block)
    return str(h.hexdigest())


def _sampled(f: Any, size: int) -> str:
    h = _hasher("sampled")
    h.update(str(size).encode())
    for i in range(_SAMPLES):
        f.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
        h.update(f.read(_SAMPLE_BYTES))
    return str(h.hexdigest())
