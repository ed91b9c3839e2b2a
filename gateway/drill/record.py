"""Record of the drills at one remote backend: the last result, and how it follows from those before.

All times are seconds since 1970.
"""

from typing import Final, Literal

from gateway.drill.findings import Finding, Reason

UNTRIED: Final = Finding(Reason.NOT_TRIED, "No drill has ended yet.")
BY_TRAFFIC: Final = Finding(Reason.PROVEN, "A request of a client succeeded there.")


class DrillRecord:
    """Last result of the drills at one remote backend."""

    __slots__ = ("by", "counts", "failures", "finding", "observed_at", "success_at")

    def __init__(self, finding: Finding = UNTRIED) -> None:
        self.finding = finding
        self.observed_at: float | None = None
        """Time of the finding; None where nothing was tried."""
        self.failures = 0
        """Failed drills in a row, since the last success of either kind."""
        self.success_at: float | None = None
        """Time of the last success; None without one."""
        self.by: Literal["drill", "traffic"] | None = None
        """What succeeded last: a drill, or a request of a client."""
        self.counts: dict[Reason, int] = {}
        """Drills so far, by their results."""

    @property
    def reason(self) -> Reason:
        """Reason of the last finding."""
        return self.finding.reason

    @property
    def failing(self) -> bool:
        """Whether the last result is a failure."""
        return self.reason not in (Reason.PROVEN, Reason.NOT_TRIED)

    def note(self, finding: Finding, now: float, *, tells_of_credentials: bool = True) -> None:
        """Note the result of a drill that ended at `now`.

        `tells_of_credentials` is false where the remote backend has not seen the credentials, and they are the same as
        before: then a success does not end the failure of requests.
        """
        self.counts[finding.reason] = self.counts.get(finding.reason, 0) + 1
        if self.finding.of_requests and finding.reason is Reason.PROVEN and not tells_of_credentials:
            return
        self.finding, self.observed_at = finding, now
        if finding.reason is Reason.PROVEN:
            self.failures, self.success_at, self.by = 0, now, "drill"
        else:
            self.failures += 1

    def note_refusal(self, finding: Finding, at: float) -> None:
        """Note that the remote backend refused the credentials in a request of a client at `at`."""
        if at > max(self.observed_at or 0.0, self.success_at or 0.0):
            self.failures += 0 if self.finding.of_requests else 1
            self.finding, self.observed_at = finding, at

    def note_traffic(self, at: float) -> None:
        """Note that a request of a client succeeded at `at`.

        A request may have gone with an older token where no new one can be had, so it does not end that failure.
        """
        if self.success_at is not None and at <= self.success_at:
            return
        self.success_at, self.by = at, "traffic"
        if self.observed_at is not None and at <= self.observed_at:
            return
        if self.finding.of_token:
            return
        self.finding, self.observed_at, self.failures = BY_TRAFFIC, at, 0
