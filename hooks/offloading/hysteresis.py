"""Hysteresis: when metrics begin, change and end offloading, by windows, estimates and steps.

Offloading takes away the load that it is decided on, so the way back is never decided by the metric as it is, but by
what it would be with more of the requests here. Everything that is remembered is `Memory`, which status holds and which
changes at transitions only: a restart, another replica, a sync that comes twice change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from math import floor
from typing import Final

from hooks.api.offloading import OffloadingBehavior, OffloadingMode, OnMissingMetrics, Signal
from hooks.offloading.measures import Measured, Missing

ALL: Final = 100
"""The whole of the requests, in percent."""
FAITHFUL: Final = 75
"""Largest share, in percent, at which the load of all requests is estimated from the quarter that stays local. Above it
so little stays that the use of an idle model would count as load, so at most four times of it is estimated, and at most
a step."""
INTERVAL: Final = timedelta(seconds=15)
"""Shortest time between two steps without a new measurement between them."""


class Standing(StrEnum):
    """The relation of a metric to its target."""

    REACHED = "Reached"
    """The metric is at its target or above."""
    BELOW = "Below"
    """The metric is below its target; while requests are offloaded, so far below that the share may go down."""
    BETWEEN = "Between"
    """The metric is below its target, but not so far that the share may go down."""
    UNKNOWN = "Unknown"
    """The metric tells nothing now."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of the windows that status carries from one sync to the next."""

    reached_since: datetime | None = None
    """Time since which a metric has been at its target, in whole seconds."""
    below_since: datetime | None = None
    """Time since which all metrics have allowed the share to go down, in whole seconds."""
    step: int | None = None
    """Percent by which the share is below behavior.percentage; None while the metrics ask for no share at all."""


NOTHING: Final = Memory()
"""The state in which the metrics ask for no share and no window runs."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The split that was in force when the samples were taken."""

    percentage: int
    since: datetime | None
    """Time since which it has been in force; None where it is not known."""
    by_metrics: bool
    """Whether the metrics asked for this share."""
    overridden: bool = False
    """Whether an override sets the split now. The metrics are followed meanwhile, but not step by step."""
    ready: bool = True
    """Whether a local replica is ready. Without one the metrics tell nothing."""


@dataclass(frozen=True, slots=True)
class Course:
    """The share that follows from the metrics, and how they stand."""

    memory: Memory
    share: int | None
    """Share that the metrics ask for, in percent; None while they ask for none."""
    standings: tuple[Standing, ...] = ()
    """Standings, one for each metric."""
    reached: bool = False
    """Whether a metric that can be read is at its target or above."""
    next_instant: datetime | None = None
    """Time at which a window ends, if the metrics stay as they are."""
    estimates: tuple[Fraction | None, ...] = ()
    """Estimated ratios after the share has gone down, one for each metric; None where nothing depends on it."""
    estimated_share: int | None = None
    """Share that the estimates assume, in percent; None where they are the present ratios."""
    falls_below: Fraction | None = None
    """Ratio below which a metric allows the share to go down; None while there is no share, or where no ratio allows
    it."""


def advance(
    memory: Memory,
    measures: Sequence[Measured | Missing],
    behavior: OffloadingBehavior,
    in_force: InForce,
    *,
    now: datetime,
) -> Course:
    """Return the course that follows from the measures of this sync.

    Args:
        memory: of the sync before.
        measures: one for each metric; none: nothing is watched, so nothing is remembered.
        behavior: as specified.
        in_force: the split that the measures are about.
        now: the present.
    """
    if not measures:
        return Course(NOTHING, None)
    path = _Path(behavior, in_force, _share(memory, behavior, in_force))
    standings = tuple(path.standing(measure) for measure in measures)
    reached = any(isinstance(one, Measured) and one.is_reached for one in measures)
    if not in_force.ready:
        return Course(_remember(NOTHING, path.share, behavior), path.share, standings, reached)
    windows, share = _follow(memory, path, standings, measures, now)
    memory = _remember(windows, share, behavior)
    estimates = tuple(path.estimate(one.ratio) if isinstance(one, Measured) else None for one in measures)
    return Course(
        memory,
        share,
        standings,
        reached,
        _next_instant(memory, behavior),
        estimates,
        path.estimated_share,
        path.falls_below,
    )


def _follow(
    memory: Memory,
    path: "_Path",
    standings: tuple[Standing, ...],
    measures: Sequence[Measured | Missing],
    now: datetime,
) -> tuple[Memory, int | None]:
    """Return the windows, and the share that they lead to."""
    share, present = path.share, now.replace(microsecond=0)
    behavior = path.behavior
    match _together(standings):
        case Standing.REACHED:
            since = min(memory.reached_since or present, present)
            if share is None and now < since + timedelta(seconds=behavior.trigger_window_seconds):
                return Memory(reached_since=since), None
            return Memory(reached_since=since), path.higher(measures, now)
        case Standing.BELOW if share is not None:
            since = min(memory.below_since or present, present)
            if now < since + timedelta(seconds=behavior.release_window_seconds):
                return Memory(below_since=since), share
            lower = path.lower(measures, now)
            # Each step has a window of its own.
            return (Memory(below_since=present), lower) if lower is not None else (NOTHING, None)
        case Standing.UNKNOWN if any(isinstance(one, Missing) and not one.is_failure for one in measures):
            # Neither for nor against, and not for long: windows go on. After a failure they begin anew.
            return memory, share
        case _:
            return NOTHING, share


def _share(memory: Memory, behavior: OffloadingBehavior, in_force: InForce) -> int | None:
    """Return the share that the metrics have asked for until now, or None where they asked for none."""
    if memory.step is None:
        return None
    share = max(0, behavior.percentage - memory.step)
    if behavior.mode is OffloadingMode.PROPORTIONAL and in_force.by_metrics:
        # Another percentage is another ceiling, and moves nothing by itself.
        share = min(in_force.percentage, behavior.percentage)
    return None if share == 0 and memory.step > 0 else share


def _remember(windows: Memory, share: int | None, behavior: OffloadingBehavior) -> Memory:
    step = None if share is None else behavior.percentage - share
    return Memory(windows.reached_since, windows.below_since, step)


def _together(standings: Sequence[Standing]) -> Standing:
    """Return the standing of all metrics together: one is enough to offload, all are needed to release."""
    if Standing.REACHED in standings:
        return Standing.REACHED
    if Standing.BETWEEN in standings:
        return Standing.BETWEEN
    return Standing.UNKNOWN if Standing.UNKNOWN in standings else Standing.BELOW


def _next_instant(memory: Memory, behavior: OffloadingBehavior) -> datetime | None:
    if memory.step is None:
        seconds, since = behavior.trigger_window_seconds, memory.reached_since
    else:
        seconds, since = behavior.release_window_seconds, memory.below_since
    return None if since is None else since + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class _Path:
    """The steps up and down from the present share."""

    behavior: OffloadingBehavior
    in_force: InForce
    share: int | None

    @property
    def limit(self) -> Fraction:
        """Return the ratio that must not be reached if the share shall go down."""
        return 1 - Fraction(repr(self.behavior.tolerance))

    @property
    def step(self) -> int:
        """Return the share after a step down."""
        return max(0, (self.share or 0) - self.behavior.step_percentage)

    @property
    def follows_load(self) -> bool:
        return self.behavior.signal is Signal.LOAD

    def standing(self, measure: Measured | Missing) -> Standing:
        """Return how a metric stands to its target, or what it counts as while it cannot be read."""
        if isinstance(measure, Missing):
            return _MISSING[self.behavior.on_missing_metrics] if measure.is_failure else Standing.UNKNOWN
        if measure.is_reached:
            return Standing.REACHED
        if self.share is None:
            return Standing.BELOW
        estimate = self.estimate(measure.ratio)
        return Standing.BELOW if estimate is not None and estimate < self.limit else Standing.BETWEEN

    @property
    def estimated_share(self) -> int | None:
        """Share that the estimates assume, in percent; None where nothing is estimated."""
        estimates = self.share is not None and self.follows_load and self.in_force.percentage < ALL
        return self._goal if estimates else None

    @property
    def falls_below(self) -> Fraction | None:
        """Return the ratio below which a metric is Below while there is a share. Estimates are proportional to the
        ratio."""
        unit = self.estimate(Fraction(1))
        return None if unit is None else self.limit / unit

    def estimate(self, ratio: Fraction) -> Fraction | None:
        """Return the estimated ratio after the share has gone down, or None where there is no share or no estimate."""
        if self.share is None:
            return None
        share = self.in_force.percentage
        if not self.follows_load:
            return ratio
        if share >= ALL:
            # Nothing is served here, so nothing is known of what it would cost: a first step finds out.
            return None if self.in_force.overridden or self.share != share else ratio
        return ratio * (ALL - self._goal) / (ALL - share)

    @property
    def _goal(self) -> int:
        """Return the share whose load is estimated before the share goes down."""
        if self.in_force.overridden:
            return 0
        if self.behavior.mode is OffloadingMode.PROPORTIONAL:
            return max(0, (self.share or 0) - 1)
        share = self.in_force.percentage
        if share <= FAITHFUL:
            return 0
        return max(self.step, ALL - (ALL - share) * ALL // (ALL - FAITHFUL))

    def higher(self, measures: Sequence[Measured | Missing], now: datetime) -> int:
        """Return the share when a metric is at its target."""
        largest, step, share = self.behavior.percentage, self.behavior.step_percentage, self.share
        if self.behavior.mode is OffloadingMode.FIXED:
            return largest
        ratios = [one.ratio for one in measures if isinstance(one, Measured) and one.is_reached]
        if share is None:
            share = 0
        elif self.in_force.overridden or (not ratios and not self._is_due(now)):
            return min(share, largest)
        desired = share + step
        # What cannot be read and counts as at its target asks for as much as there may be at once.
        all_told = all(isinstance(one, Measured) or self.standing(one) is not Standing.REACHED for one in measures)
        if ratios and all_told and self.follows_load and self.in_force.percentage < ALL:
            desired = self._share_for(max(ratios), Fraction(1))
        return min(largest, share + step, max(share + 1, desired))

    def lower(self, measures: Sequence[Measured | Missing], now: datetime) -> int | None:
        """Return the share when all metrics have allowed less for long enough, or None where no share is left."""
        if self.in_force.overridden:
            return None
        ratios = [one.ratio for one in measures if isinstance(one, Measured)]
        proportional = self.behavior.mode is OffloadingMode.PROPORTIONAL
        whole = self.follows_load and self.share == self.behavior.percentage <= FAITHFUL
        if (proportional or not whole) and not ratios and not self._is_due(now):
            return self.share
        share = self.step if proportional or not whole else 0
        if proportional and ratios and self.follows_load and self.in_force.percentage < ALL:
            share = max(share, min((self.share or 0) - 1, self._share_for(max(ratios), self.limit)))
        return share if share > 0 else None

    def _share_for(self, ratio: Fraction, goal: Fraction) -> int:
        """Return the smallest share at which a metric that follows the load would be below `goal`."""
        if ratio <= 0:
            return 0
        return max(0, floor(ALL - goal * (ALL - self.in_force.percentage) / ratio) + 1)

    def _is_due(self, now: datetime) -> bool:
        """Return whether a step may follow the one before although nothing was measured in between."""
        since = self.in_force.since
        pause = max(INTERVAL, timedelta(seconds=self.behavior.trigger_window_seconds))
        return since is None or now - since > pause


_MISSING: Final = {
    OnMissingMetrics.HOLD: Standing.UNKNOWN,
    OnMissingMetrics.RELEASE: Standing.BELOW,
    OnMissingMetrics.OFFLOAD: Standing.REACHED,
}
