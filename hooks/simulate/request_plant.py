"""A plant of single requests: each is served by a replica, waits for one, or goes to the remote backend.

A replica serves a number of requests at once, each in a place of its batch. A place generates tokens at a fixed speed,
the speed of the replica divided by its places, so a replica reaches its speed with a full batch. Prompts are processed
one after the other, and the first token is there when the prompt is. A request that finds no place waits in the replica
with the fewest requests, first come, first served.

Time passes in ticks, and within them from one event to the next: two for each request, a third where the gateway looks
at first tokens, and none for each token.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Final, NamedTuple

from gateway.backends.stream_limit import Admission, StreamLimit
from hooks import reasons
from hooks.api.metrics import MetricSpec, MetricType
from hooks.kube.pods import RUNNING, Container, Pod
from hooks.kube.quantities import NANO, Quantity
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.offloading.measures import Measured, measure_all
from hooks.simulate.autoscaler import Autoscaler, Scale
from hooks.simulate.observables import FIRST_TOKEN_WINDOW, Kind, Observable
from hooks.simulate.plant import Pipeline, is_due
from hooks.simulate.requests import Request

SECOND: Final = 1.0
"""Seconds of one tick."""
NEVER: Final = math.inf
DIRECT: Final = Pipeline(delay=0.0)
"""Pipeline of hooks that read the replicas themselves."""
_NOT_A_NUMBER: Final = Unread(reasons.NOT_A_NUMBER, "There were no requests in the time that the metric is about.")


@dataclass(frozen=True, slots=True)
class Engine:
    """What one replica can do."""

    speed: float
    """Tokens that it generates in a second with a full batch."""
    batch: int = 32
    """Requests that it serves at once."""
    prompt_speed: float = 10_000.0
    """Tokens of prompts that it processes in a second."""
    cache: int | None = None
    """Tokens that it has room for at once; None where that is no limit. A request begins when its prompt has room; what
    happens when completions outgrow the room, which costs an engine some time, is left out."""
    cores: float = 1.0
    """Cores that it uses with a full batch, which are also what it requests."""
    idle: float = 0.0
    """Use of the cores without any request, as a part of them."""

    @property
    def place_speed(self) -> float:
        """Return the tokens that a place of the batch generates in a second."""
        return self.speed / self.batch


@dataclass(frozen=True, slots=True)
class RequestWorld:
    """Everything that does not change while a plant of requests runs."""

    requests: Sequence[Request]
    """Requests in the order of their arrival."""
    engine: Engine
    metrics: tuple[MetricSpec, ...] = ()
    """Metrics of the ModelDeployment, which an autoscaler follows, too."""
    observables: tuple[Observable, ...] = ()
    """Observables of the metrics, in the same order."""
    replicas: int = 1
    """Number of replicas at the start."""
    pipeline: Pipeline = DIRECT
    autoscaler: Autoscaler | None = None
    overflow: int | None = None
    """Requests in the replicas at once beyond which the gateway sends single ones away; None where it does not."""
    remote_first_token: float = 0.5
    """Seconds until the first token of the remote backend."""
    gateway_lag: float = SECOND
    """Seconds until the gateway follows a new share."""
    first_token: float | None = None
    """Seconds within which first tokens have to come: by these the gateway moves its own limit, which is never above
    `overflow`. None where that limit stays as it is."""


class _Running(NamedTuple):
    """A request in the batch of a replica."""

    end: float
    number: int
    replica: "_Replica"
    begun: float
    """Time of the first token."""


class _Replica:
    """The state of a replica."""

    __slots__ = ("begun", "busy", "name", "prompts", "prompts_until", "ready_since", "running", "since", "waiting")

    def __init__(self, name: str, ready_since: datetime | None) -> None:
        self.name, self.ready_since = name, ready_since
        self.running: dict[int, _Running] = {}
        self.waiting: deque[int] = deque()
        self.prompts_until = 0.0
        """Time at which all prompts are processed."""
        self.prompts = 0
        """Tokens of the prompts in the batch."""
        self.begun = 0.0
        """Times at which the requests in the batch have begun, added up."""
        self.busy = 0.0
        """Seconds that places of the batch have been taken, added up until `since`."""
        self.since = 0.0

    def held(self, now: float, place_speed: float) -> float:
        """Return the tokens that the requests in the batch have: prompts, and what has been generated."""
        return self.prompts + place_speed * (len(self.running) * now - self.begun)

    def count(self, now: float) -> None:
        """Add up the time that places have been taken."""
        self.busy += len(self.running) * (now - self.since)
        self.since = now


class Moment(NamedTuple):
    """The state of the plant at the end of a tick."""

    share: int
    waiting: int
    running: int
    ready: int


class RequestPlant:
    """The state of a world of requests at a time, from zero on."""

    def __init__(self, world: RequestWorld, *, start: datetime, error: Callable[[], float]) -> None:
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
        self.arrived = 0
        """Number of requests that have arrived."""
        self.remote = bytearray(len(world.requests))
        """1 for each request that went to the remote backend."""
        self.first_tokens: list[float] = [NEVER] * len(world.requests)
        """Seconds from the arrival of each request to its first token; infinite while that is not known."""
        self.ends: list[float] = [NEVER] * len(world.requests)
        """Time at which each request has its last token; infinite while that is not known."""
        self.moments: list[Moment] = []
        """States at the end of each tick."""
        self.replica_seconds = 0.0
        """Seconds that replicas have been asked for, added up."""
        self.limit: StreamLimit | None = None
        """Limit of requests in the replicas at once, where first tokens move it: the gateway's own rule."""
        if world.first_token is not None and world.overflow is not None:
            self.limit = StreamLimit(world.first_token, world.overflow)
        self._start, self._error = start, error
        self._scale = Scale(world.replicas)
        self._replicas = [_Replica(f"replica-{number}", None) for number in range(world.replicas)]
        self._named = world.replicas
        self._leaving: list[_Replica] = []
        self._events: list[_Running] = []
        self._admissions: dict[int, Admission] = {}
        self._beginnings: list[tuple[float, int]] = []
        """Times of first tokens that are to come, where the gateway looks at them, with the numbers of the requests."""
        self._in_flight = 0
        self._owed = 0
        """Parts of a request, in percent, that are due to go away."""
        self._switches: deque[tuple[float, int]] = deque()
        self._recent: list[tuple[float, float]] = []
        """Times of first tokens and how long they took, from a minute before the last scrape on."""
        self._busy_before: dict[str, float] = {}
        self._scraped: deque[tuple[float, tuple[Reading, ...]]] = deque()
        self._readings: tuple[Reading, ...] = tuple(Reading() for _ in world.metrics)
        self._container = next(
            (one.container_resource.container for one in world.metrics if one.container_resource is not None), "model"
        )

    @property
    def tick_seconds(self) -> float:
        """Return the seconds of one tick."""
        return SECOND

    @property
    def ready(self) -> int:
        """Return the number of replicas that are ready."""
        return len(self._replicas)

    @property
    def desired(self) -> int:
        """Return the number of replicas that the workload asks for."""
        return self._scale.desired

    def readings(self, metrics: Sequence[MetricSpec]) -> Readings:  # noqa: ARG002 - those of the world
        """Return what can be read now for the metrics of the world."""
        return Readings(self._readings, tuple(map(self._pod, self._replicas)))

    def split(self, share: int) -> None:
        """Send this share of the requests away, when the gateway has followed."""
        self._switches.append((self.now + self.world.gateway_lag, share))

    def tick(self) -> bool:
        """Let one tick pass, and return whether the number of ready replicas has changed."""
        while self._switches and self._switches[0][0] <= self.now:
            self.share = self._switches.popleft()[1]
        self._serve(self.now + SECOND)
        self.now += SECOND
        pipeline, before = self.world.pipeline, len(self._replicas)
        if is_due(self.now, pipeline.period, SECOND):
            self._scraped.append((self.now + pipeline.delay, tuple(self._scrape())))
        while self._scraped and self._scraped[0][0] <= self.now:
            self._readings = self._scraped.popleft()[1]
        if self.world.autoscaler is not None:
            self._follow(self.world.autoscaler)
        self.replica_seconds += self._scale.desired * SECOND
        waiting = sum(len(one.waiting) for one in self._replicas) + sum(len(one.waiting) for one in self._leaving)
        self.moments.append(Moment(self.share, waiting, self._in_flight - waiting, len(self._replicas)))
        return len(self._replicas) != before

    def drain(self) -> None:
        """Serve what is left in the replicas, while nothing arrives, so that it is known when each request began."""
        self._serve(NEVER, arrivals=False)

    # Requests.

    def _serve(self, until: float, *, arrivals: bool = True) -> None:
        """Let everything happen that happens before a time."""
        requests, events = self.world.requests, self._events
        while True:
            arrival = requests[self.arrived].time if arrivals and self.arrived < len(requests) else NEVER
            end = events[0].end if events else NEVER
            begins = self._beginnings[0][0] if self._beginnings else NEVER
            if min(arrival, end, begins) >= until:
                return
            if begins <= end and begins <= arrival:
                self._begin()
            elif end <= arrival:
                self._end(heappop(events))
            else:
                self._arrive(self.arrived, arrival)
                self.arrived += 1

    def _arrive(self, number: int, now: float) -> None:
        world = self.world
        # Exact rather than drawn, as the gateway splits.
        self._owed += self.share
        away = self._owed >= 100
        if away:
            self._owed -= 100
        elif self.limit is not None:
            away = self.limit.is_reached(now, self._in_flight)
        elif world.overflow is not None:
            away = self._in_flight >= world.overflow
        if away:
            self.remote[number] = 1
            self.first_tokens[number], self.ends[number] = world.remote_first_token, now + world.remote_first_token
            return
        self._in_flight += 1
        if self.limit is not None:
            self._admissions[number] = self.limit.admit(now, self._in_flight, alone=self._in_flight == 1)
        replica = min(self._replicas, key=lambda one: len(one.running) + len(one.waiting))
        replica.waiting.append(number)
        self._admit(replica, now)

    def _admit(self, replica: _Replica, now: float) -> None:
        """Give free places of the batch to requests that wait."""
        engine, requests = self.world.engine, self.world.requests
        while replica.waiting and len(replica.running) < engine.batch:
            number = replica.waiting[0]
            request = requests[number]
            # A request that is too large for the cache is served alone.
            if (
                engine.cache is not None
                and replica.running
                and replica.held(now, engine.place_speed) + request.prompt > engine.cache
            ):
                return
            replica.waiting.popleft()
            replica.count(now)
            begun = max(now, replica.prompts_until) + request.prompt / engine.prompt_speed
            replica.prompts_until = begun
            end = begun + max(0, request.generated - 1) / engine.place_speed
            replica.prompts += request.prompt
            replica.begun += begun
            running = _Running(end, number, replica, begun)
            replica.running[number] = running
            heappush(self._events, running)
            self.first_tokens[number] = begun - request.time
            self.ends[number] = end
            self._recent.append((begun, begun - request.time))
            if self.limit is not None:
                heappush(self._beginnings, (begun, number))

    def _begin(self) -> None:
        """Let the gateway see the first token of a request."""
        begun, number = heappop(self._beginnings)
        admission = self._admissions.pop(number)
        if self.limit is not None:
            self.limit.first_event(admission, begun)

    def _end(self, running: _Running) -> None:
        replica, request = running.replica, self.world.requests[running.number]
        replica.count(running.end)
        del replica.running[running.number]
        replica.prompts -= request.prompt
        replica.begun -= running.begun
        self._in_flight -= 1
        if replica.waiting:
            self._admit(replica, running.end)
        elif not replica.running and replica in self._leaving:
            self._leaving.remove(replica)

    # Metrics.

    def _pod(self, replica: _Replica) -> Pod:
        requests = {"cpu": Quantity(round(self.world.engine.cores * NANO))}
        return Pod(replica.name, RUNNING, True, replica.ready_since, False, (Container(self._container, requests),), {})

    def _scrape(self) -> Iterator[Reading]:
        """Yield a reading of the present for each metric."""
        for replica in self._replicas:
            replica.count(self.now)
        begins = self.now - FIRST_TOKEN_WINDOW
        self._recent = [one for one in self._recent if one[0] > begins]
        for metric, observable in zip(self.world.metrics, self.world.observables, strict=True):
            yield self._reading(metric, observable)
        self._busy_before = {replica.name: replica.busy for replica in self._replicas}

    def _reading(self, metric: MetricSpec, observable: Observable) -> Reading:
        moment, pipeline = self._start + timedelta(seconds=self.now), self.world.pipeline
        window, container = 0.0, ""
        if observable.kind is Kind.FIRST_TOKEN:
            window = FIRST_TOKEN_WINDOW + pipeline.period
            values = {replica.name: self._first_token(observable.quantile) for replica in self._replicas}
        else:
            values = {replica.name: self._value(replica, observable.kind) for replica in self._replicas}
        if observable.kind is Kind.CPU:
            window = pipeline.period
            container = self._container if metric.type in (MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE) else ""
        if metric.type in (MetricType.EXTERNAL, MetricType.OBJECT):
            described = metric.object.described_object.name if metric.object is not None else "replicas"
            all_of_them = list(values.values())
            values = {described: max(all_of_them) if observable.kind is Kind.FIRST_TOKEN else sum(all_of_them)}
        samples = tuple(
            Sample(name, self._noisy(value), moment, timedelta(seconds=window), container)
            for name, value in values.items()
            if not math.isnan(value)
        )
        if samples:
            return Reading(samples)
        idle = tuple(Sample(name, Quantity(0), moment, timedelta(seconds=window), container) for name in values)
        return Reading(unread=_NOT_A_NUMBER, without_traffic=idle)

    def _noisy(self, value: float) -> Quantity:
        noise = self.world.pipeline.noise
        return Quantity(round((value * (1 + noise * self._error()) if noise else value) * NANO))

    def _value(self, replica: _Replica, kind: Kind) -> float:
        engine = self.world.engine
        match kind:
            case Kind.WAITING:
                return len(replica.waiting)
            case Kind.RUNNING:
                return len(replica.running)
            case Kind.CACHE:
                return min(1.0, max(0.0, replica.held(self.now, engine.place_speed)) / (engine.cache or math.inf))
            case _:
                busy = replica.busy - self._busy_before.get(replica.name, 0.0)
                used = busy / self.world.pipeline.period / engine.batch
                return engine.cores * min(1.0, engine.idle + (1 - engine.idle) * used)

    def _first_token(self, quantile: float) -> float:
        """Return a quantile of the times to first token in the last minute, or NaN where there was none."""
        taken = sorted(seconds for moment, seconds in self._recent if moment <= self.now)
        return taken[max(0, math.ceil(quantile * len(taken)) - 1)] if taken else math.nan

    # Replicas.

    def _follow(self, autoscaler: Autoscaler) -> None:
        scale = self._scale
        scale.start(self.now)
        self._match_scale()
        if not is_due(self.now, autoscaler.period, SECOND):
            return
        now = self._start + timedelta(seconds=self.now)
        readings = self.readings(self.world.metrics)
        measures = measure_all(self.world.metrics, readings, ready_replicas=self.ready, now=now)
        ratios = [float(one.ratio) for one in measures if isinstance(one, Measured)]
        if ratios:
            scale.follow(autoscaler, max(ratios) / autoscaler.target, self.now)
            self._match_scale()

    def _match_scale(self) -> None:
        """Begin the replicas that have become ready, and let those go that are no longer asked for."""
        while len(self._replicas) < self._scale.ready:
            replica = _Replica(f"replica-{self._named}", self._start + timedelta(seconds=self.now))
            replica.since = self.now
            self._named += 1
            self._replicas.append(replica)
        while len(self._replicas) > self._scale.ready:
            # It serves what it has, and gets nothing new.
            replica = self._replicas.pop()
            if replica.running or replica.waiting:
                self._leaving.append(replica)
