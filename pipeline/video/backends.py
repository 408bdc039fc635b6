"""The decoder that a spec names."""

from __future__ import annotations

from pipeline.video.decoder import Decoder
from pipeline.video.pyav import PyAVDecoder
from schemas.targets import DecodeSpec

_BACKENDS = {"pyav": PyAVDecoder}


def decoder_for(spec: DecodeSpec) -> Decoder:
    """A decoder of ``spec.backend``, for use by one thread."""
    return _BACKENDS[spec.backend]()
