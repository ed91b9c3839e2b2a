"""A plant: a model under load, with everything between a split of its requests and the samples that report its effect.

Requests arrive, a part of them stays, replicas use resources for these or let them wait, a pipeline of metrics reports
that late and inexactly, and an autoscaler may add replicas. Nothing here decides, waits or reads a clock: time passes
in ticks, and random numbers come from a function.

All amounts are in parts of the target: a load of 1 is what one replica can serve, with its metric at its target.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from hooks.api.metrics import MetricSpec
from hooks.kube.quantities import NANO, Quantity
from hooks.observation.readings import Reading, Readings, Sample
from hooks.simulate.autoscaler import Autoscaler, Scale

__all__ = ["TICK", "Autoscaler", "Load", "Pipeline", "Plant", "Shape", "World", "is_due"]

TICK: Final = 5.0
"""Seconds of one tick. All periods and delays are whole numbers of ticks."""

Load = Callable[[float], float]
"""A function that returns the load at a time."""


class Shape(StrEnum):
    """How the metric of a plant follows the requests that stay."""

    USAGE = "usage"
    """Use of a resource: what idle replicas use, and more with every request, up to a limit."""
    QUEUE = "queue"
    """Requests that wait: none until the capacity is used up, then more and more, until callers give up."""
    GAUGE = "gauge"
    """A value that follows the load and not the split, such as a price."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The way of a metric from replicas to a sample."""

    period: float = 15.0
    """Seconds from one scrape to the next."""
    window: float = 15.0
    """Seconds that a sample of usage is an average over."""
    delay: float = 15.0
    """Seconds from a scrape until the sample can be read."""
    noise: float = 0.0
    """Largest error of a sample, as a part of it."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that does not change while a plant runs."""

    load: Load
    shape: Shape = Shape.USAGE
    replicas: int = 1
    """Number of replicas at the start."""
    idle: float = 0.0
    """Use of a replica without any request."""
    limit: float = 10.0
    """Largest use of a replica."""
    queue: float = 5.0
    """Work that waits for each replica when a queue is at its target, in seconds of that replica."""
    patience: float = 60.0
    """Work that waits for each replica at most, in seconds of that replica: then callers give up."""
    pipeline: Pipeline = Pipeline()
    autoscaler: Autoscaler | None = None
    gateway_lag: float = TICK
    """Seconds until the gateway follows a new share."""


class Plant:
    """The state of a world at a time, from zero on."""

    def __init__(self, world: World, *, start: datetime, error: Callable[[], float]) -> None:
        """Create a plant at time zero, when every request stays.

        Args:
            world: the world.
            start: the moment of time zero, for the times of samples.
            error: returns a random number from -1 to 1, for the noise of samples.
        """
        self.world = world
        self.now = 0.0
        self.share = 0
        """Share of the requests that the gateway sends away, in percent."""
        self.sample: Sample | None = None
        """Newest sample that can be read: the sum over all ready replicas."""
        self._start, self._error = start, error
        self._waiting = 0.0
        self._used: deque[float] = deque(maxlen=max(1, round(world.pipeline.window / TICK)))
        self._scraped: deque[tuple[float, Sample]] = deque()
        self._switches: deque[tuple[float, int]] = deque()
        self._scale = Scale(world.replicas)

    @property
    def tick_seconds(self) -> float:
        """Return the seconds of one tick."""
        return TICK

    @property
    def ready(self) -> int:
        """Return the number of replicas that are ready."""
        return self._scale.ready

    @property
    def desired(self) -> int:
        """Return the number of replicas that the workload asks for."""
        return self._scale.desired

    def readings(self, metrics: Sequence[MetricSpec]) -> Readings:
        """Return what can be read now: every metric is the one of this plant."""
        samples = () if self.sample is None else (self.sample,)
        return Readings(tuple(Reading(samples) for _ in metrics))

    @property
    def value(self) -> float:
        """Return the metric of one replica now, in parts of its target."""
        world, load = self.world, self.world.load(self.now)
        if world.shape is Shape.GAUGE:
            return load
        if world.shape is Shape.QUEUE:
            return self._waiting / self.ready / world.queue if self.ready else 0.0
        here = load * (100 - self.share) / 100
        return min(world.limit, world.idle + here / self.ready) if self.ready else 0.0

    def split(self, share: int) -> None:
        """Send this share of the requests away, when the gateway has followed."""
        self._switches.append((self.now + self.world.gateway_lag, share))

    def tick(self) -> bool:
        """Let one tick pass, and return whether the number of ready replicas has changed."""
        while self._switches and self._switches[0][0] <= self.now:
            self.share = self._switches.popleft()[1]
        if self.world.shape is Shape.QUEUE:
            arrived = self.world.load(self.now) * (100 - self.share) / 100 - self.ready
            self._waiting = min(max(0.0, self._waiting + arrived * TICK), self.world.patience * self.ready)
        self._used.append(self.value * self.ready)
        self.now += TICK
        pipeline, before = self.world.pipeline, self.ready
        if is_due(self.now, pipeline.period):
            self._scraped.append((self.now + pipeline.delay, self._scrape()))
        while self._scraped and self._scraped[0][0] <= self.now:
            self.sample = self._scraped.popleft()[1]
        if self.world.autoscaler is not None:
            self._follow(self.world.autoscaler)
        return self.ready != before

    def _scrape(self) -> Sample:
        """Return a sample of the present: an average of usage, or the momentary value of anything else."""
        momentary = self.world.shape is not Shape.USAGE
        value = self.value * self.ready if momentary else sum(self._used) / len(self._used)
        value *= 1 + self.world.pipeline.noise * self._error()
        window = 0.0 if momentary else len(self._used) * TICK
        moment = self._start + timedelta(seconds=self.now)
        return Sample("plant", Quantity(round(value * NANO)), moment, timedelta(seconds=window))

    def _follow(self, autoscaler: Autoscaler) -> None:
        scale = self._scale
        scale.start(self.now)
        if self.sample is None or not scale.ready or not is_due(self.now, autoscaler.period):
            return
        scale.follow(autoscaler, self.sample.value.nanos / NANO / scale.ready / autoscaler.target, self.now)


def is_due(now: float, period: float, tick: float = TICK) -> bool:
    """Return whether something that happens once in a period happens in the tick that ends now."""
    return now % period < tick
