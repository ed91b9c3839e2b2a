"""Hysteresis: when metrics begin, change and end offloading, by windows, claims and trials.

Offloading takes away the load that it is decided on, so a metric below its target proves little while requests are
offloaded. An estimate of what it would be with more requests here decides how soon and how far the share goes down,
and never whether: each step down is a claim on trial, which a metric at its target refutes. Then the step is taken
back, and the next descent waits longer. So what an idle model uses, a queue that is empty until capacity is used up, a
metric that saturates and an autoscaler need no case of their own.

Everything that is remembered is `Memory`, which status holds and which changes at transitions only: a restart, another
replica, a sync that comes twice change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Final, Self

from hooks import reasons
from hooks.api.offloading import OffloadingBehavior, OffloadingMode, OnMissingMetrics, Signal
from hooks.offloading.measures import Measured, Missing

ALL: Final = 100
"""The whole of the requests, in percent."""
INTERVAL: Final = timedelta(seconds=15)
"""Shortest time between two steps up without a new measurement between them."""
SHORTEST: Final = timedelta(seconds=60)
"""Shortest time between two steps down, whatever the windows are: a metric takes as long to show what a step did."""
PATIENCE: Final = 4
"""Windows that the first step of a descent waits for where no estimate supports it."""
TRIAL: Final = 8
"""Windows for which every request must have stayed here before a descent counts as proved."""
MOST_FAILURES: Final = 3
"""Largest number of failed attempts that is counted. Each doubles the wait before the next attempt."""


class Standing(StrEnum):
    """The relation of a metric to its target."""

    REACHED = "Reached"
    """The metric is at its target or above. While requests are offloaded it counts as such until it is below its target
    by half the tolerance."""
    BELOW = "Below"
    """The metric is below its target; while requests are offloaded, by more than the tolerance. It stays so until it is
    within half the tolerance."""
    BETWEEN = "Between"
    """The metric is below its target, but not so far that requests may come back."""
    UNKNOWN = "Unknown"
    """The metric tells nothing now."""


class Claim(StrEnum):
    """The ground on which the share goes down."""

    SUPPORTED = "Supported"
    """An estimate says that the metrics stay below their targets, less the tolerance, with more requests here."""
    BLIND = "Blind"
    """Only the metrics as they are say so: no estimate does."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Numbers of failed attempts to lower the share, for each kind of claim."""

    supported: int = 0
    blind: int = 0

    def of(self, claim: Claim) -> int:
        """Return the number for a kind of claim."""
        return self.supported if claim is Claim.SUPPORTED else self.blind

    def failed(self, claim: Claim) -> Self:
        """Return the numbers after one more failure of that kind."""
        number = min(MOST_FAILURES, self.of(claim) + 1)
        return replace(self, supported=number) if claim is Claim.SUPPORTED else replace(self, blind=number)


NEVER_FAILED: Final = Attempts()
"""The numbers while no attempt has failed."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of windows and trials that status carries from one sync to the next."""

    reached_since: datetime | None = None
    """Time since which a metric has been at its target, in whole seconds."""
    below_since: datetime | None = None
    """Time since which all metrics have allowed the share to go down, in whole seconds."""
    step: int | None = None
    """Percent by which the share is below behavior.percentage; None while the metrics ask for no share at all."""
    held: int | None = None
    """Share in percent that comes back: with a claim, the one from before the last step down, when that is refuted;
    without one, the share that the metrics ask for, when what sets another percentage ends."""
    claim: Claim | None = None
    """Claim of the last step down, while it is on trial."""
    attempts: Attempts = NEVER_FAILED

    def parked(self, share: int | None) -> Self:
        """Return the memory while something other than the metrics sets the percentage."""
        # Below the full percentage, the difference alone would not tell the share once the percentage is edited.
        return replace(self, held=share, claim=None) if share is not None and self.step else self


NOTHING: Final = Memory()
"""The state in which the metrics ask for no share, no window runs and nothing is on trial."""


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
    scaling: bool = False
    """Whether the workload has fewer ready replicas than it asks for, so that a refutation says nothing of later."""
    standings: tuple[str, ...] = ()
    """Standings of the metrics in the sync before, or the reasons why they had none, in the order of the
    specification."""


@dataclass(frozen=True, slots=True)
class Course:
    """The share that follows from the metrics, and how they stand."""

    memory: Memory
    share: int | None
    """Share that the metrics ask for, in percent; None while they ask for none."""
    standings: tuple[Standing, ...] = ()
    """Standings, one for each metric."""
    reached: bool = False
    """Whether a metric that can be read stands at its target."""
    next_instant: datetime | None = None
    """Time at which a window ends, if the metrics stay as they are."""
    estimates: tuple[Fraction | None, ...] = ()
    """Estimated ratios with all requests here, one for each metric; None where there is no estimate."""
    falls_below: Fraction | None = None
    """Ratio below which a metric allows the share to go down; None while there is no share, or where no ratio allows
    it."""
    back_below: Fraction | None = None
    """Ratio below which all requests may come back at once; None where they only come back step by step."""


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
    path = _Path(memory, tuple(measures), behavior, in_force, _share(memory, behavior, in_force), now)
    standings = tuple(path.standing(place, one) for place, one in enumerate(measures))
    shown = tuple(map(path.shown, range(len(measures)), measures, standings))
    reached = any(
        isinstance(one, Measured) and standing is Standing.REACHED
        for one, standing in zip(measures, shown, strict=True)
    )
    if not in_force.ready:
        return Course(_remember(Memory(attempts=memory.attempts), path.share, behavior), path.share, shown, reached)
    windows, share = path.follow(_together(standings))
    memory = _remember(windows, share, behavior)
    return Course(
        memory,
        share,
        shown,
        reached,
        replace(path, memory=memory, share=share).next_instant,
        tuple(path.estimate(one.ratio) if isinstance(one, Measured) else None for one in measures),
        path.falls_below,
        path.back_below,
    )


def _share(memory: Memory, behavior: OffloadingBehavior, in_force: InForce) -> int | None:
    """Return the share that the metrics have asked for until now, or None where they asked for none.

    Another percentage is in force at once, except on the way back: there it is another ceiling, and moves nothing up.
    """
    if memory.step is None:
        return None
    proportional = behavior.mode is OffloadingMode.PROPORTIONAL
    if in_force.by_metrics and (memory.step or proportional):
        share = min(in_force.percentage, behavior.percentage)
    elif memory.step and memory.held is not None and memory.claim is None:
        share = min(memory.held, behavior.percentage)
    else:
        share = max(0, behavior.percentage - memory.step)
    return None if share == 0 and memory.step else share


def _remember(windows: Memory, share: int | None, behavior: OffloadingBehavior) -> Memory:
    return replace(windows, step=None if share is None else behavior.percentage - share)


def _together(standings: Sequence[Standing]) -> Standing:
    """Return the standing of all metrics together: one is enough to offload, all are needed to release."""
    if Standing.REACHED in standings:
        return Standing.REACHED
    if Standing.BETWEEN in standings:
        return Standing.BETWEEN
    return Standing.UNKNOWN if Standing.UNKNOWN in standings else Standing.BELOW


@dataclass(frozen=True, slots=True)
class _Path:
    """The ways up and down from the present share."""

    memory: Memory
    measures: tuple[Measured | Missing, ...]
    behavior: OffloadingBehavior
    in_force: InForce
    share: int | None
    now: datetime

    # Limits and windows.

    @property
    def limit(self) -> Fraction:
        """Return the ratio that must not be reached if the share shall go down."""
        return _less(self.behavior.tolerance, 1)

    @property
    def middle(self) -> Fraction:
        """Return the ratio in the middle between the target and the limit."""
        return _less(self.behavior.tolerance, 2)

    @property
    def window(self) -> timedelta:
        """Return the time between two steps down."""
        behavior = self.behavior
        seconds = max(behavior.release_window_seconds, behavior.trigger_window_seconds)
        return max(timedelta(seconds=seconds), SHORTEST)

    @property
    def trigger(self) -> timedelta:
        return timedelta(seconds=self.behavior.trigger_window_seconds)

    @property
    def wait_up(self) -> timedelta:
        """Return the time for which a metric must be at its target before the share goes up."""
        between = self.share is not None and not self.on_trial
        # What has piled up while a step was too much needs time to go away once it is taken back.
        return max(self.trigger, SHORTEST) if between else self.trigger

    @property
    def follows_load(self) -> bool:
        return self.behavior.signal is Signal.LOAD

    @property
    def proportional(self) -> bool:
        return self.behavior.mode is OffloadingMode.PROPORTIONAL

    @property
    def on_trial(self) -> bool:
        """Return whether a step down is on trial."""
        return self.memory.claim is not None and self.memory.held is not None and not self.in_force.overridden

    @property
    def step_down(self) -> int:
        """Return the share after a whole step down."""
        return max(0, (self.share or 0) - self.behavior.step_percentage)

    # Standings.

    def standing(self, place: int, measure: Measured | Missing) -> Standing:
        """Return how a metric stands to its target, or what it counts as while it cannot be read."""
        if isinstance(measure, Missing):
            return _MISSING[self.behavior.on_missing_metrics] if measure.is_failure else Standing.UNKNOWN
        if measure.is_reached:
            return Standing.REACHED
        if self.share is None:
            return Standing.BELOW
        falls_below = self.falls_below
        if falls_below is not None and measure.ratio < falls_below:
            return Standing.BELOW
        stays = (
            falls_below is not None
            and not self.in_force.overridden
            and self._before(place) == Standing.BELOW
            and measure.ratio <= self.middle
        )
        return Standing.BELOW if stays else Standing.BETWEEN

    def shown(self, place: int, measure: Measured | Missing, standing: Standing) -> Standing:
        """Return the standing that status has, which noise around the target does not change."""
        stays = (
            standing is Standing.BETWEEN
            and isinstance(measure, Measured)
            and self._before(place) == Standing.REACHED
            and measure.ratio >= self.middle
        )
        return Standing.REACHED if stays else standing

    def _before(self, place: int) -> str:
        standings = self.in_force.standings
        return standings[place] if place < len(standings) else ""

    @property
    def falls_below(self) -> Fraction | None:
        """Return the ratio below which a metric is Below while there is a share."""
        if self.share is None:
            return None
        if self.in_force.overridden and self.follows_load:
            # Nothing is tried out under an override: the estimate alone decides, and at 100 percent there is none.
            return self.limit * (ALL - self.in_force.percentage) / ALL if self.in_force.percentage < ALL else None
        # The samples are of another split right after an outage or an edit.
        return self.limit if self.in_force.overridden or self.in_force.percentage == self.share else None

    @property
    def back_below(self) -> Fraction | None:
        """Return the ratio below which an estimate allows all requests to come back at once."""
        share, failed = self.share, self.memory.attempts.supported > 0
        if self.falls_below is None or self.in_force.overridden or self.proportional or not self.follows_load:
            return None
        return None if share is None or failed or not 0 < share < ALL else self.limit * (ALL - share) / ALL

    def estimate(self, ratio: Fraction) -> Fraction | None:
        """Return the estimated ratio with all requests here, or None where there is no share or no estimate."""
        if self.share is None or not self.follows_load or self.in_force.percentage >= ALL:
            return None
        return ratio * ALL / (ALL - self.in_force.percentage)

    # The way up and the way down.

    def follow(self, standing: Standing) -> tuple[Memory, int | None]:
        """Return the windows and trials, and the share that they lead to."""
        memory = self.memory
        if self.in_force.overridden or memory.claim is None:
            memory = replace(memory, held=None, claim=None)
        if self.share is None and self._is_proved:
            memory = replace(memory, held=None, claim=None, attempts=NEVER_FAILED)
        path = replace(self, memory=memory)
        match standing:
            case Standing.REACHED:
                return path.rise()
            case Standing.BELOW if self.share is not None:
                return path.descend()
            case Standing.UNKNOWN if any(isinstance(one, Missing) and not one.is_failure for one in self.measures):
                # Neither for nor against, and not for long: windows go on. After a failure they begin anew.
                return memory, self.share
            case _:
                return replace(memory, reached_since=None, below_since=None), self.share

    @property
    def _is_proved(self) -> bool:
        """Return whether every request has stayed here for so long that earlier attempts count no more."""
        in_force = self.in_force
        if in_force.percentage > 0 or in_force.overridden:
            return False
        return in_force.since is None or self.now - in_force.since >= TRIAL * self.window

    def rise(self) -> tuple[Memory, int | None]:
        """Return the windows and the share while a metric is at its target."""
        memory, share, largest = self.memory, self.share, self.behavior.percentage
        since = self._begun(memory.reached_since)
        waits = replace(memory, reached_since=since, below_since=None), share
        waited = self._has_lasted(since, self.wait_up)
        risen = Memory(attempts=memory.attempts)
        if self.on_trial:
            return self._refuted() if waited or self._is_soon else waits
        if share is None:
            return (risen, self.higher() if self.proportional else largest) if waited else waits
        if self.proportional:
            return (risen, self.higher()) if memory.reached_since is None or waited else waits
        return (risen, largest) if share >= largest or waited else waits

    def _refuted(self) -> tuple[Memory, int | None]:
        """Return the windows and the share after a step down that was too much."""
        memory, held = self.memory, self.memory.held or 0
        claim = memory.claim or Claim.BLIND
        # An autoscaler at work, and a metric that cannot be read, say nothing of what the next attempt will find.
        counts = self._is_measured and not self.in_force.scaling
        attempts = memory.attempts.failed(claim) if counts else memory.attempts
        # A load that has risen since the step stood is met by its size, where a formula tells it.
        late = self.proportional and not self._is_soon
        share = self.higher() if late else min(held, self.behavior.percentage)
        # The next sample that is at the target when this window ends brings the whole percentage.
        return Memory(reached_since=self._begun(None), attempts=attempts), share

    @property
    def _is_soon(self) -> bool:
        """Return whether a metric that can be read is at its target, soon after the last step down."""
        since = self.in_force.since
        return self._is_measured and since is not None and self.now - since <= 2 * self.window

    @property
    def _is_measured(self) -> bool:
        """Return whether a metric that can be read is at its target."""
        return any(isinstance(one, Measured) and one.is_reached for one in self.measures)

    def descend(self) -> tuple[Memory, int | None]:
        """Return the windows and the share while all metrics allow it to go down."""
        memory, share = self.memory, self.share or 0
        since = self._begun(None if self._is_news else memory.below_since)
        claim, lower = self.claim()
        if claim is None or not self._has_lasted(since, self.wait(claim)):
            return replace(memory, reached_since=None, below_since=since), share
        if self.in_force.overridden or share == 0:
            return Memory(attempts=memory.attempts), None
        # Each step has a window of its own. A metric that cannot be read claims nothing, so nothing can refute it.
        trial = Memory(attempts=memory.attempts)
        if all(isinstance(one, Measured) for one in self.measures):
            trial = replace(trial, held=share, claim=claim)
        return (replace(trial, below_since=self._begun(None)), lower) if lower > 0 else (trial, None)

    @property
    def _is_news(self) -> bool:
        """Return whether a metric can be read again, or no more, since the sync before: then the window begins anew."""
        for place, one in enumerate(self.measures):
            before = self._before(place)
            if before in _NO_FAILURES or (isinstance(one, Missing) and not one.is_failure):
                continue
            if isinstance(one, Missing) == (before in _STANDINGS):
                return True
        return False

    def claim(self) -> tuple[Claim | None, int]:
        """Return the claim on which the share may go down, and the share that it leads to; no claim where no step may
        be taken now."""
        if self.share is None:
            return None, 0
        share, down, in_force = self.share, self.step_down, self.in_force
        ratio = max((one.ratio for one in self.measures if isinstance(one, Measured)), default=Fraction(0))
        falls_below = self.falls_below
        if in_force.overridden:
            return (Claim.SUPPORTED if falls_below is not None and ratio < falls_below else None), 0
        if falls_below is None or ratio >= falls_below:
            return None, share
        if not self.follows_load:
            return Claim.BLIND, down
        if share >= ALL:
            return Claim.SUPPORTED, down
        if self.proportional:
            return self._proportional_claim(ratio)
        if self.back_below is not None and ratio < self.back_below:
            return Claim.SUPPORTED, 0
        supported = ratio * (ALL - down) / (ALL - share) < self.limit
        return (Claim.SUPPORTED if supported else Claim.BLIND), down

    def _proportional_claim(self, ratio: Fraction) -> tuple[Claim, int]:
        share, held = self.share or 0, self.memory.held
        aimed = max(self.step_down, self._share_for(ratio))
        if aimed >= share:
            return Claim.BLIND, self.step_down
        if self.on_trial and held is not None and held - share < self.behavior.step_percentage:
            # The last move aimed at the middle and the metric is below it again, so the estimate is wrong or the load
            # has fallen: a whole step finds out.
            return Claim.BLIND, self.step_down
        return Claim.SUPPORTED, aimed

    def wait(self, claim: Claim) -> timedelta:
        """Return the time for which all metrics must allow a step down on this claim."""
        if self.on_trial or self.in_force.overridden:
            return self.window
        doubled: int = 2 ** self.memory.attempts.of(claim)
        return self.window * (doubled if claim is Claim.SUPPORTED else max(PATIENCE, doubled))

    def higher(self) -> int:
        """Return the share in mode proportional when a metric is at its target."""
        largest, step, share = self.behavior.percentage, self.behavior.step_percentage, self.share
        ratios = [one.ratio for one in self.measures if isinstance(one, Measured) and one.is_reached]
        if share is None:
            share = 0
        elif self.in_force.overridden or (not ratios and not self._is_due):
            return min(share, largest)
        desired = share + step
        # What cannot be read and counts as at its target asks for as much as there may be at once.
        offload = self.behavior.on_missing_metrics is OnMissingMetrics.OFFLOAD
        all_told = not (offload and any(isinstance(one, Missing) and one.is_failure for one in self.measures))
        if ratios and all_told and self.follows_load and self.in_force.percentage < ALL:
            desired = self._share_for(max(ratios))
        return min(largest, share + step, max(share + 1, desired))

    def _share_for(self, ratio: Fraction) -> int:
        """Return the smallest share at which a metric that follows the load would be below the middle, where noise
        leads neither to the target nor below the limit."""
        if ratio <= 0:
            return 0
        return max(0, floor(ALL - self.middle * (ALL - self.in_force.percentage) / ratio) + 1)

    @property
    def _is_due(self) -> bool:
        """Return whether a step up may follow the one before although nothing was measured in between."""
        since = self.in_force.since
        return since is None or self.now - since > max(INTERVAL, self.trigger)

    # Time.

    @property
    def next_instant(self) -> datetime | None:
        """Return the time at which the running window ends, if the metrics stay as they are."""
        memory = self.memory
        if memory.reached_since is not None:
            return memory.reached_since + self.wait_up
        if memory.below_since is None:
            return None
        if self.on_trial:
            return memory.below_since + self.window
        claim, _ = self.claim()
        return None if claim is None else memory.below_since + self.wait(claim)

    def _begun(self, since: datetime | None) -> datetime:
        """Return the time at which a window began, given when it did in the sync before; otherwise it begins now."""
        # Status has whole seconds. Rounded up, no window ends before its time.
        present = self.now.replace(microsecond=0)
        present += timedelta(seconds=1) if self.now > present else timedelta(0)
        return present if since is None else min(since, present)

    def _has_lasted(self, since: datetime, length: timedelta) -> bool:
        return not length or self.now >= since + length


@lru_cache(maxsize=64)
def _less(tolerance: float, part: int) -> Fraction:
    """Return the target, less the tolerance or a part of it, exactly as the tolerance is written."""
    return 1 - Fraction(repr(tolerance)) / part


_STANDINGS: Final = frozenset(standing.value for standing in Standing)
_NO_FAILURES: Final = frozenset({"", reasons.SETTLING, reasons.NOT_EVALUATED})
_MISSING: Final = {
    OnMissingMetrics.HOLD: Standing.UNKNOWN,
    OnMissingMetrics.RELEASE: Standing.BELOW,
    OnMissingMetrics.OFFLOAD: Standing.REACHED,
}
