"""Render the motion archive on which students are measured: thousands of real encoded videos, of one seed.

    python -m bench.motion_archive FOLDER [--videos 5000] [--seed 23] [--workers 2]

Synthetic: see `pipeline.demo.archive`. Lengths are 2 to 60 s, most of them short. Run again to continue, or with more
videos. Seeds: `EVIDENCE_SEED` is what is reported, `TUNING_SEED` what settings are chosen on; the shipped teacher comes
from a third one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pipeline.demo.archive import ArchiveSettings, render_archive

EVIDENCE_SEED = 23
TUNING_SEED = 22
SPLITS = (("train", 5), ("val", 1), ("calibration", 2), ("test", 2))


def settings(seed: int) -> ArchiveSettings:
    """What the archive of a seed is."""
    return ArchiveSettings(seed, 2.0, 60.0, length_shape=(0.8, 6.0), splits=SPLITS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=EVIDENCE_SEED)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    started = time.monotonic()

    def say(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"{done}/{total} files, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    print(
        render_archive(args.folder, args.videos, settings(args.seed), workers=args.workers, on_progress=say)
    )


if __name__ == "__main__":
    main()
