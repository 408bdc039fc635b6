"""The matrix and range that a file declares are those used: a flat colour comes out as arithmetic says."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpan
from schemas.targets import DecodeSpec, ViewSpec

YUV = (120, 100, 160)
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 2: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat_file(path: Path, colorspace: int, color_range: int) -> None:
    with av.open(path, "w") as container:
        options = {"x264-params": "qp=0:log-level=-1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_range = color_range
        stream.codec_context.colorspace = colorspace
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(frame.planes, YUV, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range, frame.pts = colorspace, color_range, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def as_rgb(colorspace: int, full: bool) -> np.ndarray:
    kr, kb = KR_KB[colorspace]
    y, u, v = YUV
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "fast_bilinear"])
@pytest.mark.parametrize("color_range", [1, 2], ids=["limited", "full"])
@pytest.mark.parametrize("colorspace", sorted(KR_KB), ids=lambda c: f"matrix{c}")
def test_declared_matrix_and_range(
    tmp_path: Path, colorspace: int, color_range: int, interpolation: str
) -> None:
    path = tmp_path / "flat.mp4"
    flat_file(path, colorspace, color_range)
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == colorspace
        assert (frame.color_range == 2) is (color_range == 2)  # limited may be left unsaid
    decode = DecodeSpec(interpolation=interpolation)  # type: ignore[arg-type]
    (clip,) = PyAVDecoder().decode(str(path), [ClipSpan(0, 1, (0,))], ViewSpec(width=16, height=16), decode)
    assert np.abs(clip.frames_VTHWC[0, 0].astype(float) - as_rgb(colorspace, color_range == 2)).max() <= 1
