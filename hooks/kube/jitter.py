"""Periods that differ from object to object, so that what many objects need does not come at the same moment.

They depend on the uid alone: the same object gets the same period from every replica, and after each restart.
"""

import zlib


def share(uid: str) -> float:
    """Return a number from 0 to 1 that is always the same for the object with this uid, and another for others."""
    return zlib.crc32(uid.encode()) / 0xFFFFFFFF


def jittered(period: float, jitter: float, uid: str) -> float:
    """Return a period that is longer or shorter by up to a part of it, rounded to thousandths.

    Args:
        period: the period without jitter.
        jitter: part of the period, as 0.1, by which it may differ.
        uid: the object's.
    """
    return round(period * (1 - jitter + 2 * jitter * share(uid)), 3)
