"""Seconds after which Metacontroller should ask again although nothing was observed to change."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

from hooks import reasons
from hooks.kube.jitter import jittered
from hooks.observation.drills import Reading
from hooks.observation.observation import Parent
from hooks.offloading.hysteresis import NOTHING, Course
from hooks.offloading.measures import Measured, Missing

RESYNC_SECONDS: Final = 30.0
"""Seconds between two syncs of a model whose metrics are all far below their targets, and of one without metrics that
may be offloaded."""
NEAR_SECONDS: Final = 15.0
"""Seconds between two syncs of any other model with metrics. Metrics are no fresher than that."""
SOON_SECONDS: Final = 10.0
"""Seconds until the next sync of a model whose drills may be confirmed by it. Gateways are asked no sooner again."""
NEAR: Final = Fraction(3, 4)
"""Ratio from which on a metric is near its target."""
JITTER: Final = 0.1
"""Share by which these seconds are longer or shorter for a model, so that not all are synced at the same time."""
MAX_RESYNC_SECONDS: Final = 86400.0
"""Most seconds until the next sync. Metacontroller counts nanoseconds in an int64, which the end of an override in the
year 9999 would overflow."""


def metrics_period(measures: tuple[Measured | Missing, ...], course: Course) -> float | None:
    """Return the seconds after which metrics are read again; None when there are none, or none is read."""
    if all(isinstance(one, Missing) and one.reason == reasons.NOT_EVALUATED for one in measures):
        return None
    far = all(isinstance(one, Measured) and one.ratio < NEAR for one in measures)
    return RESYNC_SECONDS if far and course.memory == NOTHING else NEAR_SECONDS


def drills_period(readings: tuple[Reading, ...] | None, *, awaits: bool) -> float | None:
    """Return the seconds after which gateways are asked again what their drills found; None when none is asked.

    `awaits` says whether something is to be confirmed by what they report next.
    """
    if readings is None:
        return None
    return SOON_SECONDS if awaits else RESYNC_SECONDS


def shorter(one: float | None, other: float | None) -> float | None:
    """Return the shorter of two periods, of which None is none."""
    return min((period for period in (one, other) if period is not None), default=None)


def resync_after(
    instants: Iterable[datetime | None], period: float | None, platform: float | None, parent: Parent, *, now: datetime
) -> float | None:
    """Return the seconds until the next sync; None leaves it to Metacontroller's own period.

    Metacontroller reads the object from the API server once for each sync, which for a thousand models at rest adds up.
    So a model without any of these is synced only on an event, and Metacontroller's period repairs what was missed.

    Args:
        instants: moments at which the response may change by itself.
        period: seconds between two readings of the metrics or of the gateways' drills; None when none is read.
        platform: seconds until there may be a task on the platform; None when there will be none.
        parent: the ModelDeployment, whose uid spreads the readings of different models.
        now: the present.
    """
    seconds = [max((instant - now) / timedelta(seconds=1), 0.001) for instant in instants if instant is not None]
    if period is not None:
        seconds.append(jittered(period, JITTER, parent.uid))
    if platform is not None:
        seconds.append(platform)
    return min(*seconds, MAX_RESYNC_SECONDS) if seconds else None
