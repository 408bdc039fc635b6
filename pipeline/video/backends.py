"""The decoder that a spec names. A decoder's library is loaded when it is asked for, and not before."""

from __future__ import annotations

from pipeline.video.decoder import Decoder
from schemas.targets import DecodeSpec


def decoder_for(spec: DecodeSpec) -> Decoder:
    """A decoder of ``spec.backend``, for use by one thread.

    Raises
    ------
    SettingsError
        If its library is not installed or does not load.
    """
    if spec.backend == "decord":
        from pipeline.video.decord_backend import DecordDecoder

        return DecordDecoder()
    if spec.backend == "torchcodec":
        from pipeline.video.torchcodec_backend import TorchCodecDecoder

        return TorchCodecDecoder()
    from pipeline.video.pyav import PyAVDecoder

    return PyAVDecoder()
