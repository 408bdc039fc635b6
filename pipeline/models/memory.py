"""Keep the memory that a model frees, for its next batch.

The allocator of glibc gives large blocks back to the kernel as soon as they are freed, and a forward pass frees every
activation: the next batch then has the same pages zeroed and mapped again, one fault each. For a small 3D network at
batch 8 that was 18,000 faults a batch and a quarter of the time.
"""

from __future__ import annotations

import ctypes

# malloc.h; see mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process keep what it frees: its resident memory stays at its peak, and no page is mapped twice.

    For processes that do nothing but run models, on CPUs. It holds for the whole process and changes no number. Returns
    whether the C library can do it; where it cannot (musl, macOS) nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
