"""When metrics begin, change and end offloading: windows, estimates, steps.

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
"""Percent."""
FAITHFUL: Final = 75
"""The largest share from which all traffic is estimated, which is four times what stays here. Above it so little stays
that what an idle model uses would count for load, so no more than four times is estimated, and a step at most."""
INTERVAL: Final = timedelta(seconds=15)
"""Shortest time between two steps where no new measurement marks them off."""


class Standing(StrEnum):
    """How a metric stands to its target."""

    REACHED = "Reached"
    """At its target, or above."""
    BELOW = "Below"
    """Below its target; while requests are offloaded, by so much that the share may go down."""
    BETWEEN = "Between"
    """Below its target, and not by so much."""
    UNKNOWN = "Unknown"
    """It says nothing now."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from one sync to the next."""

    reached_since: datetime | None = None
    """Since when a metric has been at its target, in whole seconds."""
    below_since: datetime | None = None
    """Since when all metrics have allowed the share to go down, in whole seconds."""
    step: int | None = None
    """How far the share is below behavior.percentage; None while the metrics ask for no share at all."""


NOTHING: Final = Memory()
"""The metrics ask for nothing, and no window runs."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The split that the samples were taken under."""

    percentage: int
    since: datetime | None
    """Since when it has been in force."""
    by_metrics: bool
    """Whether it is the share that the metrics asked for."""
    overridden: bool = False
    """Whether an override sets it now. Metrics are followed meanwhile, but not step by step."""
    ready: bool = True
    """Whether a local replica is ready. Without one metrics say nothing."""


@dataclass(frozen=True, slots=True)
class Course:
    """What follows from the metrics."""

    memory: Memory
    share: int | None
    """Share of the requests that they ask to offload, in percent; None while they ask for none."""
    standings: tuple[Standing, ...] = ()
    """Of each metric."""
    reached: bool = False
    """Whether a metric that can be read is at its target."""
    next_instant: datetime | None = None
    """When a window ends, if the metrics stay as they are."""
    estimates: tuple[Fraction | None, ...] = ()
    """Of each metric, the ratio after the share has gone down; None where none goes by it."""
    estimated_share: int | None = None
    """The share that estimates are about; None where they are the ratios as they are."""
    falls_below: Fraction | None = None
    """The ratio under which a metric lets the share go down; None while there is no share, or where nothing does."""


def advance(
    memory: Memory,
    measures: Sequence[Measured | Missing],
    behavior: OffloadingBehavior,
    in_force: InForce,
    *,
    now: datetime,
) -> Course:
    """Follow the metrics one sync further.

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
    """The windows, and the share that they lead to."""
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
    """The share that the metrics have asked for until now; None when they asked for none."""
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
    """All metrics as one: any is enough to offload, all are needed to release."""
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
    """Up and down from where the share is."""

    behavior: OffloadingBehavior
    in_force: InForce
    share: int | None

    @property
    def limit(self) -> Fraction:
        """The ratio that must not be reached for the share to go down."""
        return 1 - Fraction(repr(self.behavior.tolerance))

    @property
    def step(self) -> int:
        """Where a step down would lead."""
        return max(0, (self.share or 0) - self.behavior.step_percentage)

    @property
    def follows_load(self) -> bool:
        return self.behavior.signal is Signal.LOAD

    def standing(self, measure: Measured | Missing) -> Standing:
        """How a metric stands to its target, or counts while it cannot be read."""
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
        """The share that estimates are about; None where nothing is estimated."""
        estimates = self.share is not None and self.follows_load and self.in_force.percentage < ALL
        return self._goal if estimates else None

    @property
    def falls_below(self) -> Fraction | None:
        """The ratio under which a metric is Below while there is a share; estimates are in proportion to the ratio."""
        unit = self.estimate(Fraction(1))
        return None if unit is None else self.limit / unit

    def estimate(self, ratio: Fraction) -> Fraction | None:
        """The ratio after the share has gone down; None when there is none, or it cannot be told."""
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
        """The share whose load is estimated before the share goes down."""
        if self.in_force.overridden:
            return 0
        if self.behavior.mode is OffloadingMode.PROPORTIONAL:
            return max(0, (self.share or 0) - 1)
        share = self.in_force.percentage
        if share <= FAITHFUL:
            return 0
        return max(self.step, ALL - (ALL - share) * ALL // (ALL - FAITHFUL))

    def higher(self, measures: Sequence[Measured | Missing], now: datetime) -> int:
        """The share when a metric is at its target."""
        largest, step, share = self.behavior.percentage, self.behavior.step_percentage, self.share
        if self.behavior.mode is OffloadingMode.FIXED:
            return largest
        ratios = [one.ratio for one in measures if isinstance(one, Measured) and one.is_reached]
        if share is None:
            share = 0
        elif self.in_force.overridden or (not ratios and not self._is_due(now)):
            return min(share, largest)
        wanted = share + step
        # What cannot be read and counts as at its target asks for as much as there may be at once.
        all_told = all(isinstance(one, Measured) or self.standing(one) is not Standing.REACHED for one in measures)
        if ratios and all_told and self.follows_load and self.in_force.percentage < ALL:
            wanted = self._share_for(max(ratios), Fraction(1))
        return min(largest, share + step, max(share + 1, wanted))

    def lower(self, measures: Sequence[Measured | Missing], now: datetime) -> int | None:
        """The share when all metrics have allowed less for long enough; None when that is none."""
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
        """The smallest share at which a metric that follows load would be under `goal`."""
        if ratio <= 0:
            return 0
        return max(0, floor(ALL - goal * (ALL - self.in_force.percentage) / ratio) + 1)

    def _is_due(self, now: datetime) -> bool:
        """Whether a step may follow the one before, although nothing was measured in between."""
        since = self.in_force.since
        pause = max(INTERVAL, timedelta(seconds=self.behavior.trigger_window_seconds))
        return since is None or now - since > pause


_MISSING: Final = {
    OnMissingMetrics.HOLD: Standing.UNKNOWN,
    OnMissingMetrics.RELEASE: Standing.BELOW,
    OnMissingMetrics.OFFLOAD: Standing.REACHED,
}
