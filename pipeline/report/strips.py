"""Some frames of a clip side by side, as one JPEG: what a person glances at. One video is opened at a time.

It does not know why anyone should look.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipeline.video.decoder import Decoder
from schemas.clip import ClipSpan, sample_times
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec

NUM_FRAMES = 3
_HEIGHT, _QUALITY = 120, 78
_LEAST, _MOST = 32, 4096


def strip(
    decoder: Decoder,
    uri: str,
    start_us: int,
    end_us: int,
    width: int,
    height: int,
    num_frames: int = NUM_FRAMES,
) -> bytes:
    """Frames of a stretch of a video of this ``width`` and ``height`` (as displayed), the first on the left.

    Raises
    ------
    VideoError
        If no frame of it can be read.
    """
    wide = round(_HEIGHT * width / height) if width and height else _HEIGHT
    view = ViewSpec(width=min(_MOST, max(_LEAST, wide)), height=_HEIGHT)
    span = ClipSpan(start_us, end_us, sample_times(start_us, end_us, end_us - start_us, num_frames), ())
    found = [clip.frames_VTHWC[0] for clip in decoder.decode(uri, [span], view, DecodeSpec())]
    if not found:
        text = f"no frame of {uri} from {start_us / 1e6:.2f} s on"
        raise VideoError("decode", text, permanent=True, cause="NoFrames")
    out = io.BytesIO()
    side_by_side = np.concatenate(list(found[0]), axis=1)
    Image.fromarray(np.ascontiguousarray(side_by_side)).save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
