"""Plans: everything about one video that is decided before a pixel is drawn. Pure.

A plan follows from the archive's seed, the video's index and its label alone. How a file is encoded (codec,
container, size, rate, length, audio) is drawn from a stream of random numbers of its own that never sees the
label, so none of it can betray the class. A *scene* (background, bars, the look of the objects) is shared by
the videos of one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.demo.motion import Event
from pipeline.demo.schedule import draw_schedule

_ENCODING, _MOTION, _LOOK, _TIMES, _NAME = range(5)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of file: PyAV's encoder and container, the file's suffix, and its share of the archive.

    ``max_seconds`` keeps files of a slow encoder short.
    """

    name: str
    encoder: str
    container: str
    suffix: str
    audio: str
    share: float
    variable_rate: bool = False
    max_seconds: float = 60.0


FAMILIES: tuple[Family, ...] = (
    Family("h264-mp4", "libx264", "mp4", ".mp4", "aac", 0.42),
    Family("h264-mkv", "libx264", "matroska", ".mkv", "aac", 0.16),
    Family("mpeg4-avi", "mpeg4", "avi", ".avi", "mp2", 0.16),
    Family("h264-vfr", "libx264", "mp4", ".mp4", "aac", 0.10, variable_rate=True),
    Family("hevc-mp4", "libx265", "mp4", ".mp4", "aac", 0.08, max_seconds=10),
    Family("vp9-webm", "libvpx-vp9", "webm", ".webm", "libopus", 0.08, max_seconds=5),
)
"""Kinds of files, the commonest first."""

SIZES: tuple[tuple[int, int, float], ...] = (
    (320, 240, 0.52),
    (426, 240, 0.2),
    (240, 320, 0.08),
    (240, 426, 0.06),
    (640, 360, 0.1),
    (360, 640, 0.04),
)
"""Width, height and share of the archive."""

RATES: tuple[int, ...] = (15, 24, 25, 30)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a video is written: ``rate`` in frames a second, ``keyframe_every`` in frames."""

    family: Family
    width: int
    height: int
    rate: int
    duration_s: float
    keyframe_every: int
    has_audio: bool


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """One video. ``name`` is its label-neutral file name; ``scene`` and ``look`` seed what is drawn."""

    seed: int
    index: int
    name: str
    label: str
    split: str
    group: str
    scene: tuple[int, ...]
    look: tuple[int, ...]
    encoding: Encoding
    events: tuple[Event, ...]

    def times_us(self) -> np.ndarray:
        """Presentation times of the frames, int64 microseconds of shape (T,), ascending from 0.

        At a constant rate they are the exact multiples, rounded; at a variable one every frame comes a little
        early or late, and about one in six not at all.
        """
        e = self.encoding
        number_T = np.arange(max(2, round(e.duration_s * e.rate)))
        times_T = (number_T * 1_000_000 * 2 + e.rate) // (2 * e.rate)
        if not e.family.variable_rate:
            return times_T
        rng = _generator(self.seed, self.index, _TIMES)
        late_T = rng.uniform(-0.3, 0.3, len(times_T)) * 1_000_000 / e.rate
        # Milliseconds, which the container's clock can tell.
        times_T = (times_T + late_T).astype(np.int64) // 1000 * 1000
        keep_T = rng.random(len(times_T)) > 0.16
        keep_T[[0, -1]] = True
        return np.asarray(times_T[keep_T] - times_T[0])


def plan_video(
    seed: int,
    index: int,
    *,
    label: str,
    split: str,
    group_index: int,
    seconds: tuple[float, float],
    length_shape: tuple[float, float] = (1.1, 2.4),
    families: tuple[Family, ...] = FAMILIES,
) -> VideoPlan:
    """The plan of video ``index`` of the archive ``seed``; ``seconds`` are its least and greatest length, between
    which it is drawn from the beta distribution ``length_shape``.

    Raises
    ------
    ValueError
        If ``label`` is no class or a length below a second is asked for.
    """
    encoding = _draw_encoding(_generator(seed, index, _ENCODING), seconds, length_shape, families)
    short = min(encoding.width, encoding.height)
    events = draw_schedule(
        _generator(seed, index, _MOTION),
        label,
        encoding.duration_s,
        encoding.width / short / 2,
        encoding.height / short / 2,
    )
    token = _generator(seed, index, _NAME).bytes(4).hex()
    return VideoPlan(
        seed=seed,
        index=index,
        name=f"{index:06d}-{token}{encoding.family.suffix}",
        label=label,
        split=split,
        group=f"scene-{seed}-{group_index:05d}",
        scene=(seed, group_index, _LOOK),
        look=(seed, index, _LOOK, 1),
        encoding=encoding,
        events=events,
    )


def _draw_encoding(
    rng: np.random.Generator,
    seconds: tuple[float, float],
    length_shape: tuple[float, float],
    families: tuple[Family, ...],
) -> Encoding:
    family = families[_weighted(rng, [f.share for f in families])]
    width, height, _ = SIZES[_weighted(rng, [s[2] for s in SIZES])]
    rate = int(rng.choice(RATES))
    least, most = seconds
    duration_s = least + (most - least) * float(rng.beta(*length_shape))
    duration_s = max(least, min(duration_s, family.max_seconds))
    keyframe_every = int(rng.choice([12, rate, 2 * rate, 250], p=[0.2, 0.3, 0.3, 0.2]))
    return Encoding(
        family, width, height, rate, round(duration_s * rate) / rate, keyframe_every, rng.random() < 0.2
    )


def _weighted(rng: np.random.Generator, weights: list[float]) -> int:
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))
