"""Decision of a sync while the specification is not accepted.

The children stay as they were applied last, and the platform keeps what it has. Only the replicas, and the end of an
override, still set the weights.
"""

from datetime import datetime
from typing import Final

from hooks import names, reasons
from hooks.backends import proof
from hooks.backends.readiness import Readiness, readiness
from hooks.errors import NotAccepted
from hooks.kube.objects import Object
from hooks.kube.unstructured import integer, mapping, text, time
from hooks.observation.conditions import Condition
from hooks.observation.observation import Observation
from hooks.offloading.rules import Previous, Split, not_ready_deadline
from hooks.platform import registration
from hooks.protocol import PARENT_KIND
from hooks.reconcile import conditions
from hooks.reconcile.children import KINDS, last_applied_split, with_readiness
from hooks.reconcile.conditions import ModelConditions
from hooks.reconcile.decision import SyncDecision
from hooks.reconcile.drill_record import DrillRecord
from hooks.reconcile.last_applied import last_applied
from hooks.reconcile.related import name_in_namespace
from hooks.reconcile.synced import compare

_NOT_EVALUATED: Final = "Not evaluated before the specification is accepted."


def keep_last_applied(
    problem: NotAccepted, observation: Observation, *, now: datetime, account: str | None
) -> SyncDecision:
    """Return the decision to keep what was applied last.

    Args:
        problem: why the specification is not accepted.
        observation: the facts.
        now: the present.
        account: the account on the platform; None without one.

    Raises:
        DamagedAnnotation: what was applied last cannot be read.
    """
    parent = observation.parent
    applied = tuple(
        last_applied(key, child)
        for key, child in sorted(observation.children.items(), key=lambda item: item[0])
        if (key.api_version, key.kind) in KINDS
    )
    is_managed = problem.reason != reasons.NAMESPACE_NOT_MANAGED
    ready = _readiness(applied, observation) if is_managed else None
    behavior = mapping(mapping(parent.spec, "offloadingConfig"), "behavior")
    until = time(mapping(behavior, "override"), "until") if is_managed else None
    deadline = not_ready_deadline(Previous.of(parent), max(0, integer(behavior, "notReadyForSeconds") or 0), now)
    children = tuple(
        with_readiness(child, ready, overdue=now >= deadline, override_over=until is not None and until <= now)
        if child["kind"] == "ConfigMap"
        else child
        for child in applied
    )
    route = next((child for child in children if child["kind"] == "ConfigMap"), None)
    split = last_applied_split(route) if route is not None else None
    split = split or Split(0, reasons.NOT_ACCEPTED, "Nothing was decided yet.", remote=False)
    comparison = compare(children, observation, now=now)
    accepted = Condition("Accepted", "False", problem.reason, str(problem))
    refs_resolved = _not_evaluated("RefsResolved")
    synced = _not_evaluated("Synced") if route is None else conditions.synced(comparison)
    is_waiting = ready is not None and not ready.is_ready and deadline > now
    override_end = until if until is not None and until > now else None
    return SyncDecision(
        parent=parent,
        now=now,
        children=children,
        conditions=ModelConditions(
            accepted=accepted,
            refs_resolved=refs_resolved,
            local_ready=_not_evaluated("LocalReady") if ready is None else conditions.local_ready(ready),
            metrics_available=_not_evaluated("MetricsAvailable"),
            offloading=conditions.offloading(split),
            offload_ready=_not_evaluated(proof.TYPE),
            policy_satisfied=_not_evaluated("PolicySatisfied"),
            synced=synced,
            ready=conditions.ready(accepted, refs_resolved, synced, serving=True, deleting=parent.deleting),
            warnings=conditions.warnings(comparison, observation),
        ),
        split=split,
        ports={name: integer(parent.status, name) for name in ("servingPort", "metricPort")},
        registration=registration.unchanged(PARENT_KIND, parent, account=account),
        instants=(deadline if is_waiting else None, override_end, comparison.next_instant),
        memory=Previous.of(parent).memory,
        drill=DrillRecord.of(parent),
    )


def _not_evaluated(type_: str) -> Condition:
    return Condition(type_, "Unknown", reasons.NOT_EVALUATED, _NOT_EVALUATED)


def _readiness(applied: tuple[Object, ...], observation: Observation) -> Readiness | None:
    """Return the readiness of the workload behind the local Service as applied last; None when it is not known.

    The specification may name another workload by now, which says nothing about the one that serves.
    """
    for child in applied:
        kind, _, name = text(mapping(child["metadata"], "annotations"), names.WORKLOAD_ANNOTATION).partition("/")
        if not name:
            continue
        own = observation.own_deployment(name)
        if own is not None and kind == "Deployment":
            return readiness(own)
        workload = observation.workload(kind, name)
        return readiness(workload) if workload is not None or _specifies(kind, name, observation) else None
    return None


def _specifies(kind: str, name: str, observation: Observation) -> bool:
    """Return whether the specification, as it is now, names this workload as the one that serves the model."""
    parent = observation.parent
    if "server" in parent.spec:
        return (kind, name) == ("Deployment", names.deployment(parent.name))
    source = mapping(parent.spec, "modelSourceRef")
    return (text(source, "kind"), name_in_namespace(source, parent)) == (kind, name)
