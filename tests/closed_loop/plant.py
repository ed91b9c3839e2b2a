"""A model under load on a virtual clock, with everything that closes the loop around a decision.

Requests arrive, the gateway splits them, and replicas use resources for the requests that stay local. A pipeline of
metrics reports that usage late and inexactly, an autoscaler may add replicas, and Metacontroller calls the next sync
and stores the status. The decision itself is `hooks.reconcile.sync`, with JSON as Metacontroller sends it. Nothing here
waits, and all random numbers come from a seed, so a run is the same every time.

All usage is in parts of the target: a replica with a load of `1` uses what its metric's target allows.
"""

import heapq
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final

from hooks import reasons
from hooks.kube.objects import Object, key_of
from hooks.kube.pods import RUNNING, Container, Pod
from hooks.kube.quantities import NANO, Quantity, parse
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.protocol import SyncResponse
from tests import builders
from tests.builders import Json

START: Final = builders.NOW
TARGET: Final = 80
"""`averageUtilization` of the metric, in percent of one CPU for each replica."""
CPU: Final[Json] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": TARGET}},
}
SILENT: Final = Unread(reasons.UNREACHABLE, "The source of the metric does not respond: see that it is up.")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Way of usage from replicas to a sample in hooks."""

    period: float = 15.0
    """Seconds from one scrape to the next."""
    scrapes: int = 1
    """Number of periods that a sample is an average over."""
    delay: float = 2.0
    """Seconds from a scrape until it can be read."""
    noise: float = 0.0
    """Largest error of a sample, as a part of it."""
    kept: float = 15.0
    """Seconds for which hooks keep what they read."""

    @property
    def slowest(self) -> float:
        """Return the longest time in seconds until hooks know what has happened."""
        return self.period * (self.scrapes + 1) + self.delay + self.kept


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """HorizontalPodAutoscaler on the same usage."""

    target: float
    """Target of the autoscaler, in parts of the target of the decision."""
    most: int = 10
    period: float = 15.0
    startup: float = 40.0
    """Seconds until a new replica is ready."""
    stabilization: float = 300.0
    """Seconds over which the highest recommendation counts on the way down."""
    tolerance: float = 0.1


@dataclass(slots=True)
class Replica:
    """Pod with its usage in all and at its last scrapes."""

    name: str
    ready_since: float
    used: float = 0.0
    scrapes: deque[tuple[float, float]] = field(default_factory=deque)


@dataclass(slots=True)
class HookReplica:
    """Replica of hooks, which has only its last reading and a clock."""

    skew: float = 0.0
    """Seconds by which its clock is wrong."""
    read_at: float | None = None
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Change of the share that was decided on."""

    time: float
    share: int
    reason: str


class Plant:
    """Model with everything around it, from time zero on."""

    def __init__(
        self,
        *,
        load: Sequence[tuple[float, float]],
        behavior: Json | None = None,
        metrics: Sequence[Json] = (CPU,),
        replicas: int = 1,
        idle: float = 0.0,
        limit: float = 1.25,
        follows_split: bool = True,
        pipeline: Pipeline | None = None,
        autoscaler: Autoscaler | None = None,
        gateway_lag: float = 1.0,
        silences: Sequence[tuple[float, float]] = (),
        skews: Sequence[float] = (0.0,),
        repeats: float = 0.0,
        stale: float = 0.0,
        restarts: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        """Args:
        load: pairs of a time and the load from then on, in parts of the load at which one replica reaches its target.
        behavior: spec.offloadingConfig.behavior.
        metrics: of the specification; the first gets its samples from the plant.
        replicas: number of replicas at the start.
        idle: what a replica uses without any request, in parts of the target.
        limit: most that a replica can use, in parts of the target.
        follows_split: whether only requests that stay local cause usage; otherwise all do, wherever they go.
        pipeline: pipeline of the metric.
        autoscaler: autoscaler of the replicas, if there is one.
        gateway_lag: seconds until the gateway follows a new route.
        silences: pairs of times between which the source of the metric does not respond.
        skews: of each replica of hooks, the seconds by which its clock is wrong; a sync reaches any of them.
        repeats: probability that a sync is called again at once.
        stale: probability that a sync is sent with the status before the last one.
        restarts: times at which all replicas of hooks restart.
        seed: seed of all random numbers.
        """
        self.pipeline = pipeline or Pipeline()
        self.changes: list[Change] = []
        self.status_writes: list[float] = []
        self.child_writes: list[float] = []
        self.syncs: list[tuple[float, SyncResponse]] = []
        self.now = 0.0
        self.share = 0
        """Share that the gateway follows, in percent."""
        self.load = 0.0
        self._random = random.Random(seed)
        self._idle, self._limit, self._lag, self._follows_split = idle, limit, gateway_lag, follows_split
        self._silences, self._repeats, self._stale = silences, repeats, stale
        self._autoscaler = autoscaler
        self._hooks = [HookReplica(skew) for skew in skews]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._due: float | None = None
        self._names = itertools.count()
        self.replicas: list[Replica] = [self._replica(-3600.0) for _ in range(replicas)]
        self._desired = replicas
        self._recommended: deque[tuple[float, int]] = deque()
        self.published: tuple[Sample, ...] = ()
        """Samples that the source of the metric returns now."""
        config = {"remoteBackend": builders.REMOTE, "metrics": list(metrics), "behavior": behavior or {}}
        self.parent = builders.model_deployment(offloadingConfig=config)
        self._before = self.parent
        self._children: dict[Any, tuple[Object, Json]] = {}
        for moment, amount in load:
            self._at(moment, lambda amount=amount: self._set_load(amount))  # type: ignore[misc]
        for moment in restarts:
            self._at(moment, self._restart)
        self._at(self._random.uniform(0, self.pipeline.period), self._scrape)
        if autoscaler is not None:
            self._at(self._random.uniform(0, autoscaler.period), self._autoscale)
        self._ask(0.0)

    def run(self, until: float) -> "Plant":
        """Run everything that happens before this time, and return the plant."""
        while self._queue and self._queue[0][0] < until:
            moment, _, event = heapq.heappop(self._queue)
            self._advance(moment)
            event()
        self._advance(until)
        return self

    def shares(self) -> list[int]:
        """Return all shares that were decided on, in order."""
        return [change.share for change in self.changes]

    def decided_at(self, moment: float) -> int:
        """Return the share that is decided on at a time."""
        return next((change.share for change in reversed(self.changes) if change.time <= moment), 0)

    @property
    def usage(self) -> float:
        """Return what each replica uses now, in parts of the target."""
        if not self.replicas:
            return 0.0
        here = self.load * (100 - self.share) / 100 if self._follows_split else self.load
        return min(self._limit, self._idle + here / len(self.replicas))

    # Events.

    def edit(self, moment: float, **behavior: Any) -> None:
        """Plan an edit of the behavior at a time."""

        def apply() -> None:
            spec = json.loads(json.dumps(self.parent["spec"]))
            spec["offloadingConfig"]["behavior"] |= behavior
            metadata = self.parent["metadata"] | {"generation": self.parent["metadata"]["generation"] + 1}
            self.parent = self._before = self.parent | {"spec": spec, "metadata": metadata}
            self._ask(0.0)

        self._at(moment, apply)

    def fail(self, moment: float, *, seconds: float) -> None:
        """Plan that no replica is ready for some seconds from a time on."""

        def down() -> None:
            count, self.replicas = len(self.replicas), []
            self._ask(0.5)
            self._at(self.now + seconds, lambda: up(count))

        def up(count: int) -> None:
            self.replicas = [self._replica(self.now) for _ in range(count)]
            self._ask(0.5)

        self._at(moment, down)

    def _set_load(self, amount: float) -> None:
        self.load = amount

    def _restart(self) -> None:
        self._hooks = [HookReplica(one.skew) for one in self._hooks]

    def _replica(self, ready_since: float) -> Replica:
        return Replica(f"demo-{next(self._names)}", ready_since)

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (moment, next(self._count), event))

    def _advance(self, moment: float) -> None:
        seconds = moment - self.now
        if seconds > 0:
            usage = self.usage
            for replica in self.replicas:
                replica.used += usage * seconds
        self.now = max(self.now, moment)

    def _scrape(self) -> None:
        pipeline, samples = self.pipeline, []
        for replica in self.replicas:
            replica.scrapes.append((self.now, replica.used))
            if len(replica.scrapes) <= pipeline.scrapes:
                continue
            if len(replica.scrapes) > pipeline.scrapes + 1:
                replica.scrapes.popleft()
            then, used = replica.scrapes[0]
            window = self.now - then
            error = 1 + pipeline.noise * self._random.uniform(-1, 1)
            cores = max(0.0, (replica.used - used) / window * error) * TARGET / 100
            samples.append(
                Sample(
                    replica.name,
                    Quantity(round(cores * NANO)),
                    START + timedelta(seconds=self.now),
                    timedelta(seconds=window),
                    container="server",
                )
            )
        self._at(self.now + pipeline.delay, lambda: self._publish(tuple(samples)))
        self._at(self.now + pipeline.period, self._scrape)

    def _publish(self, samples: tuple[Sample, ...]) -> None:
        self.published = samples

    def _autoscale(self) -> None:
        autoscaler = self._autoscaler
        assert autoscaler is not None
        self._at(self.now + autoscaler.period, self._autoscale)
        names = {replica.name for replica in self.replicas}
        values = [sample.value.nanos / NANO * 100 / TARGET for sample in self.published if sample.of in names]
        if not values:
            return
        ratio = sum(values) / len(values) / autoscaler.target
        desired = self._desired if abs(ratio - 1) <= autoscaler.tolerance else ceil(len(self.replicas) * ratio)
        desired = min(max(desired, 1), autoscaler.most)
        self._recommended.append((self.now, desired))
        while self._recommended[0][0] < self.now - autoscaler.stabilization:
            self._recommended.popleft()
        desired = max(desired, min(self._desired, max(count for _, count in self._recommended)))
        if desired > self._desired:
            for _ in range(desired - self._desired):
                self._at(self.now + autoscaler.startup, self._start_replica)
        self._desired = desired
        if desired < len(self.replicas):
            del self.replicas[desired:]
            self._ask(0.5)

    def _start_replica(self) -> None:
        if len(self.replicas) < self._desired:
            self.replicas.append(self._replica(self.now))
            self._ask(0.5)

    # Metacontroller and hooks.

    def _ask(self, seconds: float) -> None:
        """Plan a sync after some seconds, unless one is due before."""
        moment = self.now + seconds
        if self._due is None or moment < self._due:
            self._due = moment
            self._at(moment, lambda: self._sync_if_due(moment))

    def _sync_if_due(self, moment: float) -> None:
        if self._due == moment:
            self._due = None
            self.sync()
            if self._random.random() < self._repeats:
                self.sync()

    def sync(self) -> SyncResponse:
        """Run one sync of the model on any replica of hooks, apply its response and return it."""
        replica = self._random.choice(self._hooks)
        sent = self._before if self._random.random() < self._stale else self.parent
        response = builders.sync(
            sent,
            now=START + timedelta(seconds=self.now + replica.skew),
            readings=self._read(replica),
            children=[observed for _, observed in self._children.values()],
            related=[builders.workload(ready=len(self.replicas), replicas=max(1, self._desired))],
        )
        self.syncs.append((self.now, response))
        self._apply(response)
        if response.resync_after_seconds is not None:
            self._ask(response.resync_after_seconds)
        return response

    def _apply(self, response: SyncResponse) -> None:
        status = json.loads(json.dumps(response.status))
        if status != self.parent.get("status"):
            self.status_writes.append(self.now)
            self._before, self.parent = self.parent, self.parent | {"status": status}
            self._ask(0.3)
        else:
            self._before = self.parent
        for child in response.children:
            key = key_of(child)
            desired, _ = self._children.get(key, (None, {}))
            if desired != child:
                self.child_writes.append(self.now)
                self._children[key] = (child, builders.observed(child))
                self._ask(0.3)
                if child["kind"] == "ConfigMap":
                    self._route(response)

    def _route(self, response: SyncResponse) -> None:
        share = builders.weights(response).get("remote", 0)
        if share != (self.changes[-1].share if self.changes else 0):
            self.changes.append(Change(self.now, share, response.status["offloading"]["reason"]))
            self._at(self.now + self._lag, lambda: self._obey(share))

    def _obey(self, share: int) -> None:
        self.share = share

    def _read(self, replica: HookReplica) -> Readings:
        if any(start <= self.now < end for start, end in self._silences):
            return Readings((Reading(unread=SILENT),), self._pods())
        if replica.read_at is None or self.now - replica.read_at >= self.pipeline.kept:
            replica.read_at, replica.samples = self.now, self.published
        return Readings((Reading(replica.samples),), self._pods())

    def _pods(self) -> tuple[Pod, ...]:
        return tuple(
            Pod(
                replica.name,
                RUNNING,
                ready=True,
                ready_since=_whole(replica.ready_since),
                terminating=False,
                containers=(Container("server", {"cpu": parse("1")}),),
                requests={},
            )
            for replica in self.replicas
        )


def _whole(seconds: float) -> datetime:
    return (START + timedelta(seconds=seconds)).replace(microsecond=0)
