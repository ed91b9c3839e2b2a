"""Limits of a simulation, for use in CI."""

from collections.abc import Sequence
from dataclasses import dataclass

from hooks.simulate.durations import written
from hooks.simulate.scenario import Result


@dataclass(frozen=True, slots=True)
class Limits:
    """What the manifest and its variants may do; None where there is no limit."""

    changes: int | None
    remote_share: float | None
    first_token: float | None
    """Longest 95th percentile of the time to first token, in seconds."""

    def problems(self, results: Sequence[Result]) -> list[str]:
        """Return a sentence for each limit that a result exceeds. What is there for comparison has none."""
        found = []
        for result in results:
            if result.case.is_comparison:
                continue
            one = result.outcome
            if self.changes is not None and len(one.changes) > self.changes:
                found.append(f"{result.case.name}: {len(one.changes)} changes, more than --max-changes {self.changes}.")
            if self.remote_share is not None and one.remote_share > self.remote_share:
                found.append(
                    f"{result.case.name}: {one.remote_share:.1f} % of the requests went to the remote backend, more"
                    f" than --max-remote-share {self.remote_share:g}."
                )
            p95 = one.first_token.p95
            if self.first_token is not None and p95 is not None and p95 > self.first_token:
                found.append(
                    f"{result.case.name}: the time to first token (p95) is {written(p95)}, longer than --max-ttft"
                    f" {written(self.first_token)}."
                )
        return found
