"""The controller of a ModelDeployment as pure functions: what sync and finalize decide.

Read `decide_sync` from the top: the specification is read and checked, what it refers to is found, the split is
decided, the children that follow are made and compared with the observed ones, and all of it becomes conditions. A
specification that cannot be accepted changes nothing of what was applied before, except that readiness still sets the
weights.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from hooks import reasons
from hooks.api.common import InvalidObject
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends import proof
from hooks.backends.local import Local, metric_port, missing_references, pod_port
from hooks.backends.policies import missing_policies
from hooks.backends.proof import Verdict
from hooks.backends.remote import Remote
from hooks.errors import NotAccepted
from hooks.kube.unstructured import integer
from hooks.observation.conditions import Condition
from hooks.observation.observation import CORE, Observation, Unresolved
from hooks.offloading.rules import behavior
from hooks.platform import registration
from hooks.platform.ownership import desired_model
from hooks.platform.registration import Registration
from hooks.protocol import PARENT_KIND, SyncResponse
from hooks.reconcile import conditions, validation
from hooks.reconcile.assessment import Assessment, assess
from hooks.reconcile.children import ResolvedSpec, make_children
from hooks.reconcile.conditions import ModelConditions
from hooks.reconcile.decision import FinalizeDecision, SyncDecision
from hooks.reconcile.drill_record import DrillRecord, next_record
from hooks.reconcile.last_applied import find_last_applied
from hooks.reconcile.last_gate import check_children
from hooks.reconcile.not_accepted import keep_last_applied
from hooks.reconcile.resync import RESYNC_SECONDS, drills_period, metrics_period, shorter
from hooks.reconcile.synced import CHILD_DEADLINE, Comparison, compare


def sync(observation: Observation, *, now: datetime) -> SyncResponse:
    """Return the response to a sync where there is no account on the platform.

    Raises:
        ForbiddenChild: as `decide_sync` does.
        DamagedAnnotation: as `decide_sync` does.
    """
    decision = decide_sync(observation, now=now)
    return decision.response(decision.registration)


def decide_sync(
    observation: Observation, *, now: datetime, account: str | None = None, recheck: bool = False
) -> SyncDecision:
    """Decide which children should exist and what is true of the ModelDeployment.

    Args:
        observation: the facts.
        now: the present.
        account: the account on the platform; None without one, and then there is no task there.
        recheck: whether a recheck of the platform is due.

    Raises:
        ForbiddenChild: a child would reach beyond the parent.
        DamagedAnnotation: the specification is not accepted, and what was applied last cannot be read.
    """
    try:
        decision = _decide(observation, now, account, recheck=recheck)
    except InvalidObject as exc:
        problem = NotAccepted(reasons.INVALID_SPEC, f"{exc}.")
        decision = keep_last_applied(problem, observation, now=now, account=account)
    except NotAccepted as exc:
        decision = keep_last_applied(exc, observation, now=now, account=account)
    check_children(decision.children, observation)
    return decision


def decide_finalize(observation: Observation, *, now: datetime, account: str | None = None) -> FinalizeDecision:
    """Decide whether the ModelDeployment may go.

    Without an account on the platform it goes at once, for Kubernetes collects its children. With one it goes when no
    child is observed any more and nothing is left on the platform.
    """
    parent = observation.parent
    if account is not None and not observation.children:
        leaving = registration.plan_removal(PARENT_KIND, parent, now=now)
    else:
        leaving = registration.unchanged(PARENT_KIND, parent, account=account)
    if account is not None and observation.children:
        leaving = replace(leaving, resync=RESYNC_SECONDS)
    return FinalizeDecision(parent, now, leaving)


def _decide(observation: Observation, now: datetime, account: str | None, *, recheck: bool) -> SyncDecision:
    """Decide for a specification that is in force.

    Raises:
        InvalidObject: a value of the specification cannot be used.
        NotAccepted: the specification cannot be in force.
    """
    assessment = assess(observation, now=now)
    parent, facts, split = observation.parent, assessment.facts, assessment.decision.split
    spec, remote, local = facts.spec, facts.remote, assessment.local
    resolved = ResolvedSpec(
        spec=spec,
        local=assessment.backing,
        remote=remote if isinstance(remote, Remote) else None,
        split=split,
        gateway_service=None
        if observation.defaults.gateway_service is not None
        else find_last_applied(CORE, "Service", _gateway_service_name(spec), observation),
    )
    children = make_children(resolved, observation)
    validation.check_size(children)
    comparison = compare(children, observation, now=now)
    unresolved = _unresolved(
        spec,
        missing_references(spec, assessment.workload, observation),
        local,
        remote,
        *missing_policies(facts.refusals),
        _unknown_gateway(spec, observation),
    )
    serving_port = pod_port(local.target_port, assessment.workload) if isinstance(local, Local) else None
    ports = {
        "servingPort": serving_port or integer(parent.status, "servingPort"),
        "metricPort": metric_port(spec, assessment.workload, observation),
    }
    course = assessment.decision.course
    proven = _proven(observation, now)
    drill = next_record(
        DrillRecord.of(parent),
        behavior(spec).override,
        split,
        proven,
        observation.drills[0] if observation.drills else None,
        now=now,
    )
    awaits = proven.awaits or (drill is not None and drill.awaits(now))
    return SyncDecision(
        parent=parent,
        now=now,
        children=children,
        conditions=_conditions(assessment, unresolved, comparison, proven),
        split=split,
        ports=ports,
        registration=_registration(assessment, ports, comparison, account, now, recheck=recheck),
        instants=(assessment.decision.next_instant, comparison.next_instant),
        memory=course.memory,
        metrics=conditions.standings(assessment.metrics, facts.measures, course),
        period=shorter(
            metrics_period(facts.measures, course),
            drills_period(observation.drills, awaits=awaits) if split.remote else None,
        ),
        assessment=assessment,
        drill=drill,
    )


def _proven(observation: Observation, now: datetime) -> Verdict:
    """Return what the gateways' drills say of the remote backend."""
    if observation.drills is None:
        return proof.NOT_ASKED
    held = observation.parent.held
    ready = held.get("Ready")
    failed = ready is not None and ready.reason == reasons.REMOTE_FAILS
    return proof.settled(observation.drills, held.get(proof.TYPE), now, failed=failed)


def _conditions(
    assessment: Assessment, unresolved: tuple[Unresolved, ...], comparison: Comparison, proven: Verdict
) -> ModelConditions:
    facts, split = assessment.facts, assessment.decision.split
    accepted = Condition("Accepted", "True", reasons.ACCEPTED, "The specification is in force.")
    refs_resolved = conditions.references_resolved(unresolved)
    synced = conditions.synced(comparison)
    return ModelConditions(
        accepted=accepted,
        refs_resolved=refs_resolved,
        local_ready=conditions.local_ready(facts.readiness),
        metrics_available=conditions.metrics_available(assessment.metrics, facts.measures),
        offloading=conditions.offloading(split),
        offload_ready=conditions.offload_ready(split, proven),
        policy_satisfied=conditions.policy_satisfied(facts.spec, facts.refusals),
        synced=synced,
        ready=conditions.ready(
            accepted,
            refs_resolved,
            synced,
            serving=facts.readiness.is_ready or split.percentage > 0,
            remote_alone=None if facts.readiness.is_ready and split.local else proven,
            deleting=facts.observation.parent.deleting,
            local_only=bool(unresolved) and all(one.reason in reasons.NOWHERE_TO_OFFLOAD for one in unresolved),
        ),
        warnings=conditions.warnings(comparison, facts.observation),
    )


def _registration(
    assessment: Assessment,
    ports: Mapping[str, int | None],
    comparison: Comparison,
    account: str | None,
    now: datetime,
    *,
    recheck: bool,
) -> Registration:
    """Return the registration of the model.

    Nothing is done on the platform before the children are as desired, or have not been for longer than their deadline:
    then something else is wrong with them, which the condition Synced reports.
    """
    observation, split = assessment.facts.observation, assessment.decision.split
    parent = observation.parent
    if account is None or parent.deleting:
        return registration.unchanged(PARENT_KIND, parent, account=account)
    desired = desired_model(
        assessment.facts.spec, observation, offloading=split.percentage > 0, ports=ports, account=account
    )
    held = parent.held.get("Synced")
    is_overdue = (
        held is not None and held.status == "False" and held.since is not None and now - held.since >= CHILD_DEADLINE
    )
    settled = comparison.in_sync or is_overdue
    return registration.plan(PARENT_KIND, parent, desired, now=now, settled=settled, recheck=recheck)


def _gateway_service_name(spec: ModelDeploymentSpec) -> str:
    return (spec.gateway.service_name or "") if spec.gateway is not None else ""


def _unknown_gateway(spec: ModelDeploymentSpec, observation: Observation) -> Unresolved | None:
    if not _gateway_service_name(spec) or observation.defaults.gateway_service is not None:
        return None
    return Unresolved(
        reasons.GATEWAY_UNKNOWN,
        "spec.gateway.serviceName needs `proxyService` in the controller's configuration: where the gateway's Service"
        " is.",
    )


def _unresolved(spec: ModelDeploymentSpec, *results: object) -> tuple[Unresolved, ...]:
    """Return what was not found among the results.

    A remote backend that is not configured is no reference, and what a disabled model would need is not needed.
    """
    return tuple(
        result
        for result in results
        if isinstance(result, Unresolved)
        and result.reason != reasons.NOT_CONFIGURED
        and (spec.enabled or result.reason not in reasons.NOWHERE_TO_OFFLOAD)
    )
