"""Record of a drill by hand: an override of mode Drill, and what came of it.

`status.offloading.drill` remembers the last one. It is a drill of real requests, so it has passed when a gateway
reports that the remote backend has served one since it began, and has failed as soon as the condition OffloadReady is
False.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from hooks import reasons
from hooks.api.common import format_time
from hooks.api.offloading import Override, OverrideMode
from hooks.backends.proof import Verdict
from hooks.kube.objects import Object
from hooks.kube.times import whole_seconds
from hooks.kube.unstructured import integer, mapping, text, time
from hooks.observation.drills import Reading
from hooks.observation.observation import Parent
from hooks.offloading.rules import Split


class Outcome(StrEnum):
    """What came of a drill."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"
    UNPROVEN = "Unproven"
    INTERRUPTED = "Interrupted"


MESSAGES = {
    Outcome.RUNNING: "It lasts.",
    Outcome.PASSED: "The remote backend has served since it began.",
    Outcome.UNPROVEN: "No gateway reports that the remote backend has served a request since it began: see that"
    " requests came.",
    Outcome.INTERRUPTED: "The override was changed or taken away before its end.",
}
"""Sentences for outcomes. Failed has that of the condition OffloadReady."""


LATE: Final = timedelta(seconds=60)
"""Time after the end of a drill in which gateways may still report that the remote backend has served."""


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """The last drill by hand."""

    percentage: int
    since: datetime
    until: datetime
    outcome: Outcome
    message: str

    def awaits(self, now: datetime) -> bool:
        """Return whether it has ended and waits for what gateways report after its end."""
        return self.outcome is Outcome.RUNNING and now >= self.until

    @classmethod
    def of(cls, parent: Parent) -> Self | None:
        """Read the parent's status; None where it has no record, or one that cannot be read."""
        state = mapping(mapping(parent.status, "offloading"), "drill")
        percentage, since, until = integer(state, "percentage"), time(state, "since"), time(state, "until")
        outcome = next((one for one in Outcome if one == text(state, "outcome")), None)
        if percentage is None or not 0 <= percentage <= 100 or since is None or until is None or outcome is None:
            return None
        return cls(percentage, since, until, outcome, text(state, "message"))

    def as_status(self) -> Object:
        """Return the record as status has it."""
        return {
            "percentage": self.percentage,
            "since": format_time(self.since),
            "until": format_time(self.until),
            "outcome": self.outcome.value,
            "message": self.message,
        }


def next_record(
    previous: DrillRecord | None,
    override: Override | None,
    split: Split,
    verdict: Verdict,
    reading: Reading | None,
    *,
    now: datetime,
) -> DrillRecord | None:
    """Return the record to write.

    Args:
        previous: the record of the status.
        override: the override of the specification, also one that has ended.
        split: the split that is decided.
        verdict: what drills of gateways say of the remote backend.
        reading: what the gateways reported last; None where they report nothing.
        now: the present.
    """
    drill = override if override is not None and override.mode is OverrideMode.DRILL else None
    is_same = (
        drill is not None
        and previous is not None
        and (previous.percentage, previous.until) == (drill.percentage, whole_seconds(drill.until))
    )
    if previous is not None and previous.outcome is Outcome.RUNNING:
        if not is_same:
            previous = _ended(previous, Outcome.INTERRUPTED)
        elif verdict.status == "False":
            return _ended(previous, Outcome.FAILED, verdict.message)
        elif now >= previous.until:
            drills = () if reading is None else reading.drills
            if any(one.served is not None and one.served >= previous.since for one in drills):
                return _ended(previous, Outcome.PASSED)
            if reading is None or reading.taken >= previous.until or now >= previous.until + LATE:
                return _ended(previous, Outcome.UNPROVEN)
    if drill is None or is_same or now >= drill.until or split.reason != reasons.OVERRIDE:
        return previous
    return DrillRecord(
        drill.percentage,
        whole_seconds(now),
        whole_seconds(drill.until),
        Outcome.RUNNING,
        MESSAGES[Outcome.RUNNING],
    )


def _ended(record: DrillRecord, outcome: Outcome, message: str = "") -> DrillRecord:
    return replace(record, outcome=outcome, message=message or MESSAGES[outcome])
