"""A HorizontalPodAutoscaler and the replicas that it adds and takes away."""

from collections import deque
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler on the same metric."""

    target: float = 0.5
    """Target of the autoscaler, in parts of the target of the decision."""
    most: int = 10
    """Largest number of replicas."""
    least: int = 1
    """Smallest number of replicas."""
    period: float = 15.0
    startup: float = 300.0
    """Seconds until a new replica is ready."""
    stabilization: float = 300.0
    """Seconds over which the highest recommendation counts on the way down."""
    tolerance: float = 0.1
    """Difference from the target, as a part of it, that changes nothing."""


class Scale:
    """The replicas of a workload: those that are ready, those that start, and how many are asked for."""

    def __init__(self, replicas: int) -> None:
        """Create the scale of a workload whose replicas are all ready."""
        self.ready = replicas
        """Number of replicas that are ready."""
        self.desired = replicas
        """Number of replicas that the workload asks for."""
        self._starting: deque[float] = deque()
        self._recommended: deque[tuple[float, int]] = deque()

    def start(self, now: float) -> None:
        """Make the replicas ready that have started by now."""
        while self._starting and self._starting[0] <= now:
            self._starting.popleft()
            self.ready += 1

    def follow(self, autoscaler: Autoscaler, ratio: float, now: float) -> None:
        """Ask for as many replicas as an autoscaler recommends.

        Args:
            autoscaler: the autoscaler.
            ratio: what is measured divided by the target of the autoscaler.
            now: the present, in seconds.
        """
        wanted = self.desired if abs(ratio - 1) <= autoscaler.tolerance else ceil(self.ready * ratio)
        wanted = min(max(wanted, autoscaler.least), autoscaler.most)
        self._recommended.append((now, wanted))
        while self._recommended[0][0] < now - autoscaler.stabilization:
            self._recommended.popleft()
        wanted = max(wanted, min(self.desired, max(count for _, count in self._recommended)))
        for _ in range(wanted - self.desired):
            self._starting.append(now + autoscaler.startup)
        for _ in range(self.desired - wanted):
            if self._starting:
                self._starting.pop()
            else:
                self.ready -= 1
        self.desired = wanted
