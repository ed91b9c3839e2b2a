"""Garbage collection for a process that has started and now answers requests."""

import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""New containers before a collection looks at them. Python's own 700 are the objects of one hook request, which is a
tree that reference counting frees entirely; looking earlier finds nothing and costs a tenth of the CPU."""

_MIDDLE: Final = 2
"""Of those, before what they left is looked at again: a collection of more takes as long as many requests."""
_OLD: Final = 100
"""Of those again, before all is looked at."""


def settle() -> None:
    """To be called once everything is loaded: what is here stays, and later collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, _MIDDLE, _OLD)


def keep() -> None:
    """What has come since stays as well. Without a collection, which would take long: garbage among it stays, too."""
    gc.freeze()
