"""Rechecks of objects that are registered and at rest: from time to time, for each object at a time of its own.

The times are lost with the process, and a recheck then comes later than it would have. Nothing depends on them but how
soon hooks notice that another client changed something on the platform.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from hooks.kube.jitter import share

INTERVAL: Final = timedelta(minutes=10)
"""Longest time between two rechecks of an object. The shortest is half of it, so that not all come at the same time."""
MAX_OBJECTS: Final = 10_000
"""Objects whose times are known at once. The time of the object that was not asked about for longest is dropped."""


class Rechecks:
    """Times at which objects are due for a recheck, by uid."""

    def __init__(self) -> None:
        self._due: OrderedDict[str, datetime] = OrderedDict()

    def is_due(self, uid: str, now: datetime) -> bool:
        """Return whether the object is due. True is returned once in each interval, and never for a new object."""
        due = self._due.pop(uid, None)
        is_due = due is not None and now >= due
        self._due[uid] = now + INTERVAL * (0.5 + 0.5 * share(uid)) if due is None or is_due else due
        if len(self._due) > MAX_OBJECTS:
            self._due.popitem(last=False)
        return is_due

    def forget(self, uid: str) -> None:
        """Drop the time of an object that is deleted."""
        self._due.pop(uid, None)
