"""Record of the drills at one remote backend: the last result, and how it follows from those before.

All times are seconds since 1970.
"""

from typing import Final, Literal

from gateway.api.vocabulary import DrillRequest
from gateway.drill.findings import Finding, Reason

REFUSAL_SECONDS: Final = 10.0
"""Seconds between two refusals of requests that count as a failure each, as between the first drills that fail."""

UNTRIED: Final = Finding(Reason.NOT_TRIED, "No drill has ended yet.")
BY_TRAFFIC: Final = Finding(Reason.PROVEN, "A request of a client succeeded there.")


class DrillRecord:
    """Last result of the drills at one remote backend."""

    __slots__ = ("by", "counts", "failures", "finding", "observed_at", "request", "served_at", "success_at",
                 "token_at", "token_seconds")  # fmt: skip

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
        self.request: DrillRequest | Literal["client"] | None = None
        """Request whose response the finding rests on: that of a drill, or one of a client; None before any."""
        self.served_at: float | None = None
        """Time of the last completion, of a drill or of a client; None without one."""
        self.token_seconds: float | None = None
        """Seconds that the last completion of a drill took, with its connection; None without one."""
        self.token_at: float | None = None
        """Time of that completion."""
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

    def note(
        self,
        finding: Finding,
        now: float,
        *,
        request: DrillRequest = DrillRequest.NONE,
        tells_of_credentials: bool = True,
        token_seconds: float | None = None,
    ) -> None:
        """Note the result of a drill that ended at `now`.

        Args:
            finding: The result.
            now: The present.
            request: Request of the drill that the remote backend has served or refused.
            tells_of_credentials: Whether the remote backend has accepted the credentials, or they are others than
                before: else a success does not end the failure of requests.
            token_seconds: Seconds that a completion of one token took; None where there was none.
        """
        self.counts[finding.reason] = self.counts.get(finding.reason, 0) + 1
        if token_seconds is not None:
            self.served_at = self.token_at = now
            self.token_seconds = token_seconds
        if self.finding.of_requests and finding.reason is Reason.PROVEN and not tells_of_credentials:
            return
        self.finding, self.observed_at, self.request = finding, now, request
        if finding.reason is Reason.PROVEN:
            self.failures, self.success_at, self.by = 0, now, "drill"
        else:
            self.failures += 1

    def note_refusal(self, finding: Finding, at: float) -> None:
        """Note that the remote backend refused the credentials in a request of a client at `at`.

        It counts as a failed drill, but for one that follows another too soon to say more.
        """
        before = self.observed_at or 0.0
        if at <= max(before, self.success_at or 0.0):
            return
        if self.finding.of_requests and at < before + REFUSAL_SECONDS:
            return
        self.failures += 1
        self.finding, self.observed_at, self.request = finding, at, "client"

    def note_traffic(self, at: float) -> None:
        """Note that a request of a client succeeded at `at`.

        A request may have gone with an older token where no new one can be had, so it does not end that failure.
        """
        if self.success_at is not None and at <= self.success_at:
            return
        self.success_at, self.by = at, "traffic"
        self.served_at = max(at, self.served_at or at)
        if self.observed_at is not None and at <= self.observed_at:
            return
        if self.finding.of_token:
            return
        self.finding, self.observed_at, self.failures, self.request = BY_TRAFFIC, at, 0, "client"
