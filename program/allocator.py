"""Memory of a process that serves requests: when garbage is collected, and how much goes back to the kernel."""

import contextlib
import ctypes
import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""Containers that are created before the garbage collector examines them. Python's default of 700 is as many as one
hook request has, and reference counting frees all of those: to examine them earlier finds nothing and costs a tenth of
the CPU."""

_MIDDLE: Final = 2
"""Collections of young objects before one of the middle generation, which takes longer."""
_OLD: Final = 100
"""Collections of the middle generation before one of all objects."""

_KEPT_BYTES: Final = 8 << 20
"""Bytes of free memory that do not go back to the kernel. The kernel clears memory before the process gets it again:
under load that happens many times a second, and costs a tenth of the CPU of a request."""
_MAPPED_BYTES: Final = 4 << 20
"""Bytes from which on a block, such as the input of a model, always goes back to the kernel."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # malloc.h of glibc; see mallopt(3)


def hold() -> None:
    """Keep free memory in the process, in one place for all threads. Call this before the first thread starts.

    The interpreter runs one thread at a time, so threads do not wait for each other there.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TOP_PAD, _KEPT_BYTES // 8)


def settle() -> None:
    """Exempt what exists from later collections, and make these rare. Call this once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, _MIDDLE, _OLD)


def keep() -> None:
    """Exempt what has come since, too. Nothing is collected before, for that would take long: garbage stays as well."""
    gc.freeze()
