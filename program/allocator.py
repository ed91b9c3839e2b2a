"""Memory of a process that has started and now answers requests: garbage collection, and what is given back."""

import contextlib
import ctypes
import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""New containers before a collection looks at them. Python's own 700 are the objects of one hook request, which is a
tree that reference counting frees entirely; looking earlier finds nothing and costs a tenth of the CPU."""

_MIDDLE: Final = 2
"""Of those, before what they left is looked at again: a collection of more takes as long as many requests."""
_OLD: Final = 100
"""Of those again, before all is looked at."""

_KEPT_BYTES: Final = 8 << 20
"""Free memory that is kept, not given back to the kernel, which has to clear it before it comes again: under load
that happens many times a second, and a request pays for it with a tenth of its CPU."""
_MAPPED_BYTES: Final = 4 << 20
"""What is as large as this, a model's input for instance, is always given back."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # malloc.h of glibc; see mallopt(3)


def hold() -> None:
    """To be called before the first thread begins: free memory is kept for what comes next, in one place.

    The interpreter runs one thread at a time, so they do not wait for each other there.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library manages without
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TOP_PAD, _KEPT_BYTES // 8)


def settle() -> None:
    """To be called once everything is loaded: what is here stays, and later collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, _MIDDLE, _OLD)


def keep() -> None:
    """What has come since stays as well. Without a collection, which would take long: garbage among it stays, too."""
    gc.freeze()
