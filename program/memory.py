"""Garbage collection for a process that has started and now answers requests."""

import gc
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""New containers before a collection looks at them. Python's own 700 are the objects of one hook request, which is a
tree that reference counting frees entirely; looking earlier finds nothing and costs a tenth of the CPU."""


def settle() -> None:
    """To be called once everything is loaded: what is here stays, and later collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
