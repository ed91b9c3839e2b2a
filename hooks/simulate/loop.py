"""The closed loop: the decisions of a sync and the plant that they act on, on one virtual clock."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.backends.readiness import MESSAGES, Readiness
from hooks.kube.objects import Object, Objects, key_of
from hooks.observation.observation import InstallDefaults, Observation, Parent
from hooks.observation.readings import Readings
from hooks.offloading.measures import measure_all
from hooks.offloading.rules import Facts, Previous, decide
from hooks.protocol import SyncRequest
from hooks.reconcile import conditions
from hooks.reconcile.assessment import assess
from hooks.reconcile.resync import metrics_period, resync_after
from hooks.reconcile.status import StatusContent, build_status
from hooks.simulate.plant import Plant, World

METRIC: Final[Object] = {
    "type": "External",
    "external": {"metric": {"name": "plant"}, "target": {"type": "AverageValue", "averageValue": "1"}},
}
"""The metric of a plant, as an entry of spec.offloadingConfig.metrics."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the share."""

    time: float
    """Seconds since time zero."""
    share: int
    reason: str


class Controlled(Protocol):
    """A plant as the loop around it needs it."""

    now: float
    """Seconds since time zero."""

    @property
    def tick_seconds(self) -> float:
        """Return the seconds of one tick."""

    @property
    def ready(self) -> int:
        """Return the number of replicas that are ready."""

    @property
    def desired(self) -> int:
        """Return the number of replicas that the workload asks for."""

    def readings(self, metrics: Sequence[MetricSpec]) -> Readings:
        """Return what can be read now for these metrics."""

    def split(self, share: int) -> None:
        """Send this share of the requests away, when the gateway has followed."""

    def tick(self) -> bool:
        """Let one tick pass, and return whether the number of ready replicas has changed."""


P = TypeVar("P", bound=Controlled)


class ClosedLoop(Generic[P]):
    """A ModelDeployment and the plant that it is served by, synced as Metacontroller does it."""

    def __init__(
        self, parent: Object, plant: P, *, defaults: InstallDefaults, start: datetime, related: Iterable[Object] = ()
    ) -> None:
        """Create a loop at time zero.

        Args:
            parent: the ModelDeployment.
            plant: the plant, at time zero.
            defaults: the configuration of the installation.
            start: the moment of time zero.
            related: objects that the ModelDeployment refers to, such as its policies.

        Raises:
            hooks.api.common.InvalidObject: a value of the specification cannot be used.
            hooks.errors.NotAccepted: the specification cannot be in force.
        """
        self.plant = plant
        self.changes: list[Change] = []
        """All changes of the share, in order."""
        self.writes: list[float] = []
        """Times at which the state of offloading in status was written."""
        self.share_seconds = 0.0
        """Share over time: seconds at one percent."""
        self._defaults, self._start = defaults, start
        self._related = tuple(related)
        self._parent, self._facts = self._facts_of(parent)
        self._previous = Previous.of(self._parent)
        self._object = parent
        self._due = 0.0

    @property
    def state(self) -> dict[str, Any]:
        """Return status.offloading."""
        state: dict[str, Any] = dict(self._parent.status.get("offloading", {}))
        return state

    @property
    def share(self) -> int:
        """Return the share that was decided on last."""
        return self.changes[-1].share if self.changes else 0

    def edit(self, spec: Object) -> None:
        """Apply another specification, which the next sync sees. Raise as the constructor does."""
        self._object = self._object | {"spec": spec, "status": dict(self._parent.status)}
        self._parent, self._facts = self._facts_of(self._object)
        self._previous = Previous.of(self._parent)
        self._due = self.plant.now

    def run(self, until: float) -> None:
        """Let time pass until a time."""
        plant = self.plant
        while plant.now < until:
            if plant.now >= self._due:
                self.sync()
            if plant.tick():
                self._due = plant.now
            self.share_seconds += self.share * plant.tick_seconds

    def sync(self) -> None:
        """Decide once on what can be read now, and apply it."""
        now, parent = self._start + timedelta(seconds=self.plant.now), self._parent
        previous, facts = self._previous, self._observed(now)
        decision = decide(facts, previous, now=now)
        known = (conditions.local_ready(facts.readiness),)
        standings = conditions.standings(_metrics(facts), facts.measures, decision.course)
        content = StatusContent(known, decision.split, memory=decision.course.memory, metrics=standings)
        status = build_status(content, parent, now=now)
        period = metrics_period(facts.measures, decision.course)
        after = resync_after((decision.next_instant,), period, None, parent, now=now)
        tick = self.plant.tick_seconds
        self._due = self.plant.now + max(tick, after if after is not None else tick)
        if status == parent.status:
            return
        if status["offloading"] != parent.status.get("offloading"):
            self.writes.append(self.plant.now)
            # Metacontroller syncs again when it sees the status that it wrote.
            self._due = self.plant.now + tick
        self._parent = Parent.of(self._object | {"status": status})
        self._previous = Previous.of(self._parent)
        if decision.split.percentage != self.share:
            self.changes.append(Change(self.plant.now, decision.split.percentage, decision.split.reason))
            self.plant.split(decision.split.percentage)

    def _observed(self, now: datetime) -> Facts:
        """Return the facts of the present."""
        plant, facts = self.plant, self._facts
        reason = reasons.REPLICAS_READY if plant.ready else reasons.NO_READY_REPLICA
        previous = self._previous
        measures = measure_all(
            _metrics(facts),
            plant.readings(_metrics(facts)),
            ready_replicas=plant.ready,
            now=now,
            since=previous.since,
            offloads=bool(previous.percentage),
        )
        readiness = Readiness(plant.ready, reason, MESSAGES[reason], plant.desired)
        return replace(facts, readiness=readiness, has_local=True, measures=measures)

    def _facts_of(self, parent: Object) -> tuple[Parent, Facts]:
        """Return the parent, and what does not change while its specification stays the same."""
        observation = observe(parent, self._defaults, self._related)
        return observation.parent, assess(observation, now=self._start).facts


class Loop(ClosedLoop[Plant]):
    """A ModelDeployment whose metrics are all the metric of one plant."""

    def __init__(
        self, parent: Object, world: World, *, defaults: InstallDefaults, start: datetime, error: Callable[[], float]
    ) -> None:
        """Create a loop at time zero around a world.

        `error` returns a random number from -1 to 1, for the noise of samples. Raise as `ClosedLoop` does.
        """
        super().__init__(parent, Plant(world, start=start, error=error), defaults=defaults, start=start)


def observe(parent: Object, defaults: InstallDefaults, related: Iterable[Object] = ()) -> Observation:
    """Return what a sync sees of a ModelDeployment that has no children yet, and of the objects that it refers to."""
    found: Objects = {key: item for item in related if (key := key_of(item)) is not None}
    request = SyncRequest(controller={}, parent=parent, children={}, related=found, finalizing=False)
    return Observation.of(request, defaults)


def _metrics(facts: Facts) -> tuple[MetricSpec, ...]:
    configuration = facts.spec.offloading_config
    return () if configuration is None else configuration.metrics
