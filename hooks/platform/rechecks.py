"""When an object that is at rest is looked after again: every now and then, each at a time of its own.

What is known here is lost with the process, and then it takes a while again; nothing rests on it but how soon it is
noticed that somebody else changed something.
"""

import zlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

INTERVAL: Final = timedelta(minutes=10)
"""Between two looks, or less by up to a half, so that not all come at once."""
KEPT: Final = 10_000
"""Objects that are known at the same time. Of more, some are looked after later."""


class Rechecks:
    """Which objects are due."""

    def __init__(self) -> None:
        self._due: OrderedDict[str, datetime] = OrderedDict()

    def is_due(self, uid: str, now: datetime) -> bool:
        """Whether the object is to be looked after now, which is said once in each interval; never at first sight."""
        due = self._due.pop(uid, None)
        share = 0.5 + 0.5 * zlib.crc32(uid.encode()) / 0xFFFFFFFF
        is_due = due is not None and now >= due
        self._due[uid] = now + INTERVAL * share if due is None or is_due else due
        if len(self._due) > KEPT:
            self._due.popitem(last=False)
        return is_due

    def forget(self, uid: str) -> None:
        """The object is no more."""
        self._due.pop(uid, None)
