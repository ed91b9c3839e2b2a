"""What sync and finalize of a ModelDeployment decided, from which the response follows.

A decision may come with a task on the platform. The shell carries it out and gives the registration as it is then to
`response`, which builds the status: whole, and once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hooks import reasons
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, text
from hooks.observation.conditions import Condition
from hooks.observation.observation import Parent
from hooks.offloading.hysteresis import NOTHING, Memory
from hooks.offloading.rules import Previous, Split
from hooks.platform.registration import Registration
from hooks.protocol import FinalizeResponse, SyncResponse
from hooks.reconcile.assessment import Assessment
from hooks.reconcile.conditions import ModelConditions
from hooks.reconcile.drill_record import DrillRecord
from hooks.reconcile.resync import resync_after
from hooks.reconcile.status import MetricStanding, StatusContent, build_status


@dataclass(frozen=True, slots=True)
class SyncDecision:
    """Decision of a sync."""

    parent: Parent
    now: datetime
    """Time of the decision."""
    children: tuple[Object, ...]
    conditions: ModelConditions
    split: Split
    ports: Mapping[str, int | None]
    """Values of servingPort and metricPort; None where one is not known."""
    registration: Registration
    """Registration with the platform before its task is carried out."""
    instants: tuple[datetime | None, ...]
    """Moments at which the response may change by itself."""
    memory: Memory = NOTHING
    """Record of the metrics' windows, steps and trials for the next sync."""
    metrics: tuple[MetricStanding, ...] = ()
    period: float | None = None
    """Seconds after which metrics or the gateways' drills are read again; None when none is read."""
    assessment: Assessment | None = field(default=None, repr=False)
    """What the decision follows from; None while the specification is not in force."""
    drill: DrillRecord | None = None
    """Record of the last drill by hand."""

    def response(self, registration: Registration) -> SyncResponse:
        """Return the response, for the registration as it is after its task."""
        content = StatusContent(
            self.conditions.in_order(registration.condition),
            self.split,
            self.ports,
            self.memory,
            self.metrics,
            registration.status_fields,
            self.drill,
        )
        return SyncResponse(
            status=build_status(content, self.parent, now=self.now),
            children=self.children,
            resync_after_seconds=resync_after(
                self.instants, self.period, registration.resync, self.parent, now=self.now
            ),
        )


@dataclass(frozen=True, slots=True)
class FinalizeDecision:
    """Decision of a finalize: no child should exist, and the parent may go when its registration is at rest."""

    parent: Parent
    now: datetime
    """Time of the decision."""
    registration: Registration
    """Registration with the platform before its task is carried out."""

    def response(self, registration: Registration) -> FinalizeResponse:
        """Return the response, for the registration as it is after its task. The other conditions stay as they are."""
        parent = self.parent
        conditions = tuple(
            registration.condition
            if type_ == registration.condition.type
            else Condition(type_, held.status, held.reason, held.message)
            for type_, held in parent.held.items()
            if type_ and type_ != "Ready"
        )
        ready = Condition("Ready", "False", reasons.TERMINATING, "The ModelDeployment is being deleted.")
        previous = Previous.of(parent)
        message = text(mapping(parent.status, "offloading"), "message")
        split = Split(previous.percentage or 0, previous.reason, message)
        content = StatusContent(
            (*conditions, ready), split, platform_fields=registration.status_fields, drill=DrillRecord.of(parent)
        )
        return FinalizeResponse(
            status=build_status(content, parent, now=self.now),
            children=(),
            finalized=registration.is_at_rest,
            resync_after_seconds=registration.resync,
        )
