"""From a stream's timestamps to microseconds since its first displayed frame. Pure, and one frame at a time.

The rules, for frames in the order in which a decoder gives them out (which is display order):

- a frame's time is its pts; without one its dts; without either, its forerunner's end;
- AVI keeps no presentation times: the pts that FFmpeg makes up there are in the wrong order where there are
  B-frames, and the dts, which count frames as they come out, are right. There only the dts is used;
- a time before the forerunner's, by less than `DISCONTINUITY_US`, is a frame that came too late: it is shown
  when its forerunner is (and so replaces it);
- a jump back of more than that is a new beginning (joined streams, a camera that was restarted): the clock
  goes on from the forerunner's end, and everything after it is moved by the same amount;
- a jump ahead is a long hold, as variable frame rates have them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

DISCONTINUITY_US = 1_000_000


@dataclass(slots=True)
class FrameClock:
    """Tells the time of each frame. ``time_base`` is the unit of the timestamps in seconds, ``frame_us`` the
    nominal length of a frame, for frames that do not say theirs; ``only_dts`` is for AVI.

    ``regular`` turns false where a timestamp was missing or went back: then no place can be found by time.
    """

    time_base: Fraction
    frame_us: int
    only_dts: bool = False
    regular: bool = True
    zero: int | None = None
    _shift_us: int = 0
    _last_us: int = 0
    _end_us: int = 0
    _running: bool = field(default=False)

    def tick(self, pts: int | None, dts: int | None, duration: int | None) -> tuple[int, int]:
        """Time and length of the next frame, in microseconds; timestamps in units of ``time_base``."""
        stamp = pts if pts is not None and not self.only_dts else dts
        if pts is None:
            self.regular = False
        if stamp is None:
            time_us = self._end_us
        else:
            if self.zero is None:
                self.zero = stamp
            time_us = self.to_us(stamp - self.zero) + self._shift_us
            if self._running and time_us < self._last_us:
                self.regular = False
                if self._last_us - time_us > DISCONTINUITY_US:
                    self._shift_us += self._end_us - time_us
                    time_us = self._end_us
                else:
                    time_us = self._last_us
        length_us = self.to_us(duration) if duration else self.frame_us
        self._last_us, self._end_us, self._running = time_us, time_us + length_us, True
        return time_us, length_us

    def jump(self) -> None:
        """The next frame comes from elsewhere in the file; its time may be any."""
        self._running = False

    def to_us(self, ticks: int) -> int:
        return ticks * self.time_base.numerator * 1_000_000 // self.time_base.denominator

    def to_ticks(self, time_us: int) -> int:
        """The last timestamp that is not after ``time_us``; only once the first frame has come."""
        ticks = time_us * self.time_base.denominator // (self.time_base.numerator * 1_000_000)
        return ticks + (self.zero or 0)


def nominal_frame_us(rate: Fraction | None) -> int:
    """Length of a frame at ``rate`` frames a second; 40 ms where the rate is unknown or absurd."""
    if not rate or not 0.01 <= rate <= 1000:
        return 40_000
    return round(1_000_000 / rate)
