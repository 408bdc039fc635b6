"""Decoding by a backend in a child process: decord and torchcodec cannot share one, and one that hangs is ended."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.video.decoder import DecodedClip
from schemas.clip import ClipSpan
from schemas.targets import DecodeSpec, ViewSpec

TIMEOUT_SECONDS = 60
SMALL = ViewSpec(width=32, height=32)


@dataclass(frozen=True)
class Child:
    """A process that decodes with ``backend``; it is started at the first call and serves all."""

    backend: str
    pool: ProcessPoolExecutor

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec = SMALL,
        decode: DecodeSpec | None = None,
        memory: bytes | None = None,
        also: Sequence[ViewSpec] = (),
    ) -> list[DecodedClip]:
        """All clips, or the exception of the decoder; ``memory`` is put at ``uri`` in the child's memory first."""
        spec = decode or DecodeSpec(backend=self.backend)  # type: ignore[arg-type]
        return self.pool.submit(_decode, uri, list(spans), view, spec, memory, list(also)).result(
            TIMEOUT_SECONDS
        )


@contextmanager
def child(backend: str) -> Iterator[Child]:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield Child(backend, pool)
    finally:
        for process in list(pool._processes.values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _decode(
    uri: str,
    spans: list[ClipSpan],
    view: ViewSpec,
    spec: DecodeSpec,
    memory: bytes | None,
    also: list[ViewSpec],
) -> list[DecodedClip]:
    from pipeline.video.backends import decoder_for

    if memory is not None:
        import fsspec

        with fsspec.open(uri, "wb") as out:
            out.write(memory)
    return list(decoder_for(spec).decode(uri, spans, view, spec, also))
