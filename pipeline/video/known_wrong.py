"""In which files a decoder is known to show wrong frames, by name. Pure: judges what the packets said.

A decoder that seeks by itself is asked for frames by number. Where it would hand out others without saying so,
stop half way, or hang, the file is refused before that decoder opens it. Each case has a file in the tests; what is
not here was found exact on them. PyAV has no case: it is the decoder that the others are held to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.video.packet_scan import PacketScan
from schemas.errors import VideoError

REFUSED = "DecoderKnownWrong"


@dataclass(frozen=True, slots=True)
class Case:
    """``name`` is for docs and tests, ``words`` finish 'the file ...', ``holds`` says whether a file is one."""

    name: str
    words: str
    holds: Callable[[PacketScan], bool]


CASES = (
    Case(
        "stream",
        "is an MPEG transport or program stream, in which places are guessed by bytes",
        lambda scan: scan.container in ("mpegts", "mpeg"),
    ),
    Case(
        "avi-b-frames",
        "is an AVI with B-frames, which has no presentation times",
        lambda scan: scan.container == "avi" and scan.has_b_frames,
    ),
    Case("trimmed", "is trimmed: some pictures are decoded and not shown", lambda scan: scan.num_hidden > 0),
    Case("no-keyframe", "does not start with a keyframe", lambda scan: not scan.starts_with_keyframe),
    Case("timestamps", "has missing, double or backward timestamps", lambda scan: not scan.regular),
    Case(
        "open-gop", "has an open GOP: pictures shown before their keyframe", lambda scan: scan.num_leading > 0
    ),
    Case(
        "intra-refresh",
        "has keyframes that decoding cannot start from (intra refresh)",
        lambda scan: scan.num_unclean_keyframes > 0,
    ),
)
"""The first that holds is named. All are wrong in decord and in torchcodec; docs/decoding.md says how."""

_EXACT = frozenset({"pyav"})


def known_wrong(backend: str, scan: PacketScan) -> Case | None:
    """The case in which ``backend`` is known to be wrong and ``scan`` is; None where there is none."""
    if backend in _EXACT:
        return None
    return next((case for case in CASES if case.holds(scan)), None)


def require_known_right(backend: str, scan: PacketScan, uri: str) -> None:
    """Refuse a file in which ``backend`` is known to be wrong.

    Raises
    ------
    VideoError
        Stage 'open', permanent, cause 'DecoderKnownWrong'; the message names the case and the remedy.
    """
    case = known_wrong(backend, scan)
    if case is not None:
        message = f"{uri} {case.words}; {backend} is known to be wrong there: use --decode.backend pyav"
        raise VideoError("open", message, permanent=True, cause=REFUSED)
