"""What is freed stays with the process, so that the next batch need not fault it in again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys, threading
import numpy as np
from pipeline.models.memory import keep_freed_memory

if sys.argv[1] == "kept":
    print(keep_freed_memory())

def batch():
    blocks = [np.ones(size << 20, np.uint8) for size in (1, 24, 40, 100)]
    return sum(int(block[0]) for block in blocks)

def work():
    for _ in range(3):
        batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        batch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[2] == "thread":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


def _run(kept: str, place: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, kept, place], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
@pytest.mark.parametrize("place", ["main", "thread"])
def test_blocks_of_any_size_are_faulted_in_once(place: str) -> None:
    (without,) = _run("as it is", place)
    said, kept = _run("kept", place)
    assert said == "True"
    assert int(without) > 1000
    assert int(kept) < int(without) / 5
