"""The controller of a ModelDeployment as three pure functions: sync, customize, finalize.

Read `sync` from the top: the specification is read and checked, what it refers to is found, the split is decided, the
children that follow are made and held against what is observed, and all of it is reported. A specification that cannot
be accepted changes nothing of what was decided before, except that readiness still sets the weights.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from hooks import names, reasons
from hooks.api.common import AUTHORIZATION_GROUP, VERSION, InvalidObject
from hooks.api.metrics import MetricSpec
from hooks.api.model_deployment import WORKLOAD_KINDS, ModelDeploymentSpec
from hooks.backends.local import Local, find_local, find_workload, metric_port, missing_references, pod_port
from hooks.backends.policies import missing_policies, refusals
from hooks.backends.readiness import Readiness, before_creation, readiness
from hooks.backends.remote import Remote, find_remote
from hooks.errors import ForbiddenChild, NotAccepted
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import integer, mapping, objects, text, time
from hooks.observation.conditions import Condition
from hooks.observation.observation import APPS, CORE, InstallDefaults, Observation, Parent, Unresolved, Workload
from hooks.offloading.hysteresis import NOTHING, Course
from hooks.offloading.measures import Measured, Missing, measure_all
from hooks.offloading.rules import Decision, Facts, Previous, Split, decide, not_ready_deadline
from hooks.platform import ownership, registration
from hooks.platform.registration import PlatformTask, Registration
from hooks.protocol import PARENT_KIND, CustomizeRequest, CustomizeResponse, FinalizeResponse, RelatedRule, SyncResponse
from hooks.reconcile import conditions, validation
from hooks.reconcile.children import KINDS, Parts, kept_split, make_children, with_readiness
from hooks.reconcile.last_applied import as_decided_last
from hooks.reconcile.status import Report, build_status, overview
from hooks.reconcile.synced import PATIENCE, Applied, compare

RESYNC_SECONDS: Final = 30.0
"""How often a parent with metrics is looked at while all of them are far below their targets."""
NEAR_SECONDS: Final = 15.0
"""How often it is otherwise. Metrics are no fresher than that."""
NEAR: Final = Fraction(3, 4)
"""The ratio from which on a metric is near its target."""
JITTER: Final = 0.1
"""Share of either by which parents differ, so that they do not all come at once."""
MAX_RESYNC_SECONDS: Final = 86400.0
"""A moment further away is looked for again tomorrow. Metacontroller counts in nanoseconds of an int64, and an override
until the year 9999 would be none."""

_PLURALS: Final = {kind: f"{kind.lower()}s" for kind in WORKLOAD_KINDS}


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a specification that is in force comes to, before children are made of it."""

    facts: Facts
    workload: Workload | None
    local: Local | Unresolved
    backing: Local | Object | None
    """The local backend, or the one that was decided last."""
    previous: Previous
    metrics: tuple[MetricSpec, ...]
    decision: Decision


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a sync comes to."""

    children: tuple[Object, ...]
    report: Report
    registration: Registration
    """With the platform."""
    instants: tuple[datetime | None, ...]
    """Moments at which something may change by itself."""
    period: float | None = None
    """Seconds after which metrics are looked at again, in any case; None without metrics."""
    assessment: Assessment | None = None


@dataclass(frozen=True, slots=True)
class Synced:
    """The answer to a sync, and what goes with it."""

    response: SyncResponse
    assessment: Assessment | None
    """How it came about; None when the specification is not in force."""
    task: PlatformTask | None
    """What is to be done on the platform before it is given."""


def sync(observation: Observation, *, now: datetime) -> SyncResponse:
    """What should exist, and what is true.

    Raises:
        ForbiddenChild, DamagedAnnotation: as `sync_assessed`.
    """
    return sync_assessed(observation, now=now).response


def sync_assessed(
    observation: Observation, *, now: datetime, account: str | None = None, check: bool = False
) -> Synced:
    """The same, with what goes with it.

    Args:
        observation: all facts.
        now: the present.
        account: on the platform; None without one: then there is nothing to be done there.
        check: whether it is time to look whether what should be there is.

    Raises:
        ForbiddenChild: the answer would reach beyond the parent.
        DamagedAnnotation: nothing new can be decided, and what was decided last cannot be read.
    """
    try:
        outcome = _accepted(observation, now, account, check=check)
    except InvalidObject as exc:
        outcome = _not_accepted(NotAccepted(reasons.INVALID_SPEC, f"{exc}."), observation, now, account)
    except NotAccepted as exc:
        outcome = _not_accepted(exc, observation, now, account)
    check_children(outcome.children, observation)
    answer = SyncResponse(
        status=build_status(outcome.report, observation.parent, now=now),
        children=outcome.children,
        resync_after_seconds=_resync_after(outcome, observation.parent, now),
    )
    return Synced(answer, outcome.assessment, outcome.registration.task)


def customize(request: CustomizeRequest, defaults: InstallDefaults) -> CustomizeResponse:  # noqa: ARG001
    """Which objects belong to a parent's facts: the workload, Services and Policies it names, in its own namespace.

    Metacontroller keeps the answer for as long as the specification stays the same, so it rests on nothing else, not
    even on the configuration. The specification may be anything: what can be named is.
    """
    parent = Parent.of(request.parent)
    spec = parent.spec
    wanted: dict[tuple[str, str], set[str]] = {}
    source = mapping(spec, "modelSourceRef")
    kind = text(source, "kind")
    if kind in _PLURALS:
        wanted[APPS, _PLURALS[kind]] = {_referred(source, parent)}
    services = {_referred(mapping(spec, field), parent) for field in ("serviceRef", "metricServiceRef")}
    wanted[CORE, "services"] = services
    policies = {
        _referred(policy, parent) for policy in objects(spec, "policies") if policy.get("refType") == "localPolicy"
    }
    wanted[f"{AUTHORIZATION_GROUP}/{VERSION}", "policies"] = policies
    return CustomizeResponse(
        tuple(
            RelatedRule(api_version, resource, parent.namespace, tuple(sorted(found - {""})))
            for (api_version, resource), found in wanted.items()
            if found - {""}
        )
    )


def finalize(
    observation: Observation, *, now: datetime, account: str | None = None
) -> tuple[FinalizeResponse, Registration]:
    """Let everything go: at once without an account on the platform, for then Kubernetes collects the children; else
    when no child is observed any more and then nothing is left on the platform. With what is to be done there first.
    """
    parent = observation.parent
    message = "The ModelDeployment is being deleted."
    found = registration.undecided(PARENT_KIND, parent, account=account)
    done, resync = account is None, None
    if account is not None and observation.children:
        resync = RESYNC_SECONDS
    elif account is not None:
        found = registration.leaving(PARENT_KIND, parent, now=now)
        done, resync = found.task is None and found.resync is None, found.resync
    told = tuple(
        found.condition if type_ == found.condition.type else Condition(type_, held.status, held.reason, held.message)
        for type_, held in parent.held.items()
        if type_ and type_ != "Ready"
    )
    previous = Previous.of(parent)
    split = Split(previous.percentage or 0, previous.reason, text(mapping(parent.status, "offloading"), "message"))
    ready = Condition("Ready", "False", reasons.TERMINATING, message)
    report = Report((*told, ready), split, platform=found.fields)
    return FinalizeResponse(
        status=build_status(report, parent, now=now), children=(), finalized=done, resync_after_seconds=resync
    ), found


def check_children(children: tuple[Object, ...], observation: Observation) -> None:
    """The last gate: whatever was decided, no answer reaches beyond the parent.

    Raises:
        ForbiddenChild: a child of another kind or namespace, under a name that is not derived, or twice.
    """
    parent = observation.parent
    own = {
        "Deployment": {names.deployment(parent.name)},
        "Service": {names.local_service(parent.name), text(mapping(parent.spec, "gateway"), "serviceName")},
        "ConfigMap": {names.route(parent.name)},
    }
    seen: set[Key] = set()
    for child in children:
        key = key_of(child)
        if key is None or (key.api_version, key.kind) not in KINDS:
            raise ForbiddenChild("a child is of a kind that is never created")
        if key.namespace != parent.namespace:
            raise ForbiddenChild(f"{key} is not in the namespace of its parent")
        # A child that is observed belongs to this parent already: its name passed here when it was created.
        if key.name not in own[key.kind] and key not in observation.children:
            raise ForbiddenChild(f"{key} has a name that is not derived from its parent")
        if key in seen:
            raise ForbiddenChild(f"{key} is asked for twice")
        seen.add(key)


def assess(observation: Observation, *, now: datetime) -> Assessment:
    """Find what the specification refers to, measure its metrics, decide.

    Raises:
        InvalidObject, NotAccepted: it cannot be in force.
    """
    parent = observation.parent
    if not observation.defaults.manages(parent.namespace):
        raise NotAccepted(
            reasons.NAMESPACE_NOT_MANAGED,
            f"Namespace {parent.namespace} is not managed: add it to `namespaces` in the controller's configuration.",
        )
    spec = observation.read_spec()
    validation.check(spec, observation)
    workload = find_workload(spec, observation)
    local = find_local(spec, workload, observation)
    local_service = names.local_service(parent.name)
    backing = local if isinstance(local, Local) else _kept(CORE, "Service", local_service, observation)
    ready = _readiness(spec, workload, local, has_local=backing is not None)
    previous = Previous.of(parent)
    metrics = () if spec.offloading_config is None else spec.offloading_config.metrics
    facts = Facts(
        spec=spec,
        observation=observation,
        readiness=ready,
        has_local=backing is not None,
        remote=find_remote(spec, observation),
        refusals=refusals(spec, observation),
        measures=measure_all(metrics, observation.readings, ready_replicas=ready.ready, now=now, since=previous.since),
    )
    return Assessment(facts, workload, local, backing, previous, metrics, decide(facts, previous, now=now))


def _accepted(observation: Observation, now: datetime, account: str | None, *, check: bool) -> _Outcome:
    """The story of a specification that is in force.

    Raises:
        InvalidObject, NotAccepted: it cannot be.
    """
    found = assess(observation, now=now)
    parent, facts, decision = observation.parent, found.facts, found.decision
    spec, remote, ready, local = facts.spec, facts.remote, facts.readiness, found.local
    parts = Parts(
        spec=spec,
        local=found.backing,
        remote=remote if isinstance(remote, Remote) else None,
        split=decision.split,
        gateway_service=None
        if observation.defaults.gateway_service is not None
        else _kept(CORE, "Service", _gateway_service_name(spec), observation),
    )
    children = make_children(parts, observation)
    validation.check_size(children)
    applied = compare(children, observation, now=now)
    unresolved = _unresolved(
        spec,
        missing_references(spec, found.workload, observation),
        local,
        remote,
        *missing_policies(facts.refusals),
        _unknown_gateway(spec, observation),
    )
    serving_port = pod_port(local.target_port, found.workload) if isinstance(local, Local) else None
    ports = {
        "servingPort": serving_port or integer(parent.status, "servingPort"),
        "metricPort": metric_port(spec, found.workload, observation),
    }
    registered = _registered(found, ports, applied, account, now, check=check)
    told = overview(
        Condition("Accepted", "True", reasons.ACCEPTED, "The specification is in force."),
        (
            conditions.references_resolved(unresolved),
            conditions.local_ready(ready),
            conditions.metrics_available(found.metrics, facts.measures),
            conditions.offloading(decision.split),
            conditions.policy_satisfied(spec, facts.refusals),
            registered.condition,
            conditions.synced(applied),
        ),
        conditions.warnings(applied, observation),
        serving=ready.is_ready or decision.split.percentage > 0,
        local_only=bool(unresolved) and all(one.reason in reasons.NOWHERE_TO_OFFLOAD for one in unresolved),
        deleting=parent.deleting,
    )
    standings = conditions.standings(found.metrics, facts.measures, decision.course)
    report = Report(told, decision.split, ports, decision.course.memory, standings, registered.fields)
    instants = (decision.next_instant, applied.next_instant)
    return _Outcome(children, report, registered, instants, _period(facts.measures, decision.course), found)


def _registered(
    found: Assessment,
    ports: Mapping[str, int | None],
    applied: Applied,
    account: str | None,
    now: datetime,
    *,
    check: bool,
) -> Registration:
    """How the model stands to the platform. Nothing is done there before the children are as desired, unless they are
    not for longer than it takes: then something else is wrong with them, which the condition Synced tells."""
    observation, split = found.facts.observation, found.decision.split
    parent = observation.parent
    if account is None or parent.deleting:
        return registration.undecided(PARENT_KIND, parent, account=account)
    wanted = ownership.model(
        found.facts.spec, observation, offloading=split.percentage > 0, ports=ports, account=account
    )
    held = parent.held.get("Synced")
    waited = held is not None and held.status == "False" and held.since is not None and now - held.since >= PATIENCE
    return registration.standing(PARENT_KIND, parent, wanted, now=now, settled=applied.in_sync or waited, check=check)


def _not_accepted(problem: NotAccepted, observation: Observation, now: datetime, account: str | None) -> _Outcome:
    """What was decided last, with the replicas still setting the weights. The platform keeps what it has.

    Raises:
        DamagedAnnotation: it cannot be read.
    """
    parent = observation.parent
    kept = tuple(
        as_decided_last(key, child)
        for key, child in sorted(observation.children.items(), key=lambda item: item[0])
        if (key.api_version, key.kind) in KINDS
    )
    managed = problem.reason != reasons.NAMESPACE_NOT_MANAGED
    ready = _kept_readiness(kept, observation) if managed else None
    behavior = mapping(mapping(parent.spec, "offloadingConfig"), "behavior")
    until = time(mapping(behavior, "override"), "until") if managed else None
    deadline = not_ready_deadline(Previous.of(parent), max(0, integer(behavior, "notReadyForSeconds") or 0), now)
    children = tuple(
        with_readiness(child, ready, overdue=now >= deadline, override_over=until is not None and until <= now)
        if child["kind"] == "ConfigMap"
        else child
        for child in kept
    )
    route = next((child for child in children if child["kind"] == "ConfigMap"), None)
    split = kept_split(route) if route is not None else None
    split = split or Split(0, reasons.NOT_ACCEPTED, "Nothing was decided yet.", remote=False)
    unknown = "Not evaluated before the specification is accepted."
    applied = compare(children, observation, now=now)
    registered = registration.undecided(PARENT_KIND, parent, account=account)
    told = overview(
        Condition("Accepted", "False", problem.reason, str(problem)),
        (
            Condition("RefsResolved", "Unknown", reasons.NOT_EVALUATED, unknown),
            Condition("LocalReady", "Unknown", reasons.NOT_EVALUATED, unknown)
            if ready is None
            else conditions.local_ready(ready),
            Condition("MetricsAvailable", "Unknown", reasons.NOT_EVALUATED, unknown),
            conditions.offloading(split),
            Condition("PolicySatisfied", "Unknown", reasons.NOT_EVALUATED, unknown),
            registered.condition,
            Condition("Synced", "Unknown", reasons.NOT_EVALUATED, unknown)
            if route is None
            else conditions.synced(applied),
        ),
        conditions.warnings(applied, observation),
        serving=True,
        deleting=parent.deleting,
    )
    ports = {name: integer(parent.status, name) for name in ("servingPort", "metricPort")}
    waiting = ready is not None and not ready.is_ready and deadline > now
    instants = (deadline if waiting else None, until if until is not None and until > now else None)
    report = Report(told, split, ports, Previous.of(parent).memory, platform=registered.fields)
    return _Outcome(children, report, registered, (*instants, applied.next_instant))


def _kept(api_version: str, kind: str, name: str, observation: Observation) -> Object | None:
    """The child as it was decided last; None when it does not exist."""
    key = observation.key(api_version, kind, name)
    child = observation.children.get(key)
    return None if child is None else as_decided_last(key, child)


def _readiness(
    spec: ModelDeploymentSpec, workload: Workload | None, local: Local | Unresolved, *, has_local: bool
) -> Readiness:
    """Of the local replicas; none is ready for requests while there is no way to them."""
    if not has_local and isinstance(local, Unresolved):
        return Readiness(0, local.reason, local.message)
    if workload is None and spec.server is not None:
        return before_creation(spec.server.replicas)
    return readiness(workload)


def _kept_readiness(kept: tuple[Object, ...], observation: Observation) -> Readiness | None:
    """Of the workload behind the local Service that was decided last; None when that is not known.

    The specification may name another workload by now, of which nothing follows for the one that serves.
    """
    for child in kept:
        kind, _, name = text(mapping(child["metadata"], "annotations"), names.WORKLOAD_ANNOTATION).partition("/")
        if not name:
            continue
        source = mapping(observation.parent.spec, "modelSourceRef")
        if observation.own_deployment(name) is not None and kind == "Deployment":
            return readiness(observation.own_deployment(name))
        workload = observation.workload(kind, name)
        asked_for = (text(source, "kind"), _referred(source, observation.parent)) == (kind, name)
        if "server" in observation.parent.spec:
            asked_for = (kind, name) == ("Deployment", names.deployment(observation.parent.name))
        return readiness(workload) if workload is not None or asked_for else None
    return None


def _gateway_service_name(spec: ModelDeploymentSpec) -> str:
    return (spec.gateway.service_name or "") if spec.gateway is not None else ""


def _referred(reference: Mapping[str, Any], parent: Parent) -> str:
    """The name in a reference to the parent's own namespace; empty when there is none."""
    return text(reference, "name") if text(reference, "namespace") in ("", parent.namespace) else ""


def _unknown_gateway(spec: ModelDeploymentSpec, observation: Observation) -> Unresolved | None:
    if not _gateway_service_name(spec) or observation.defaults.gateway_service is not None:
        return None
    return Unresolved(
        reasons.GATEWAY_UNKNOWN,
        "spec.gateway.serviceName needs `proxyService` in the controller's configuration: where the gateway's Service"
        " is.",
    )


def _unresolved(spec: ModelDeploymentSpec, *results: object) -> tuple[Unresolved, ...]:
    """What was looked for and not found. That nothing was configured is no reference; and what a disabled model would
    need is not needed."""
    return tuple(
        result
        for result in results
        if isinstance(result, Unresolved)
        and result.reason != reasons.NOT_CONFIGURED
        and (spec.enabled or result.reason not in reasons.NOWHERE_TO_OFFLOAD)
    )


def _period(measures: tuple[Measured | Missing, ...], course: Course) -> float | None:
    """Seconds after which metrics are looked at again; None when there are none, or nobody asks for them."""
    if all(isinstance(one, Missing) and one.reason == reasons.NOT_EVALUATED for one in measures):
        return None
    far = all(isinstance(one, Measured) and one.ratio < NEAR for one in measures)
    return RESYNC_SECONDS if far and course.memory == NOTHING else NEAR_SECONDS


def _resync_after(outcome: _Outcome, parent: Parent, now: datetime) -> float | None:
    """Seconds until something may change by itself, or until metrics are due, of which every parent has its own time.

    None without either: whatever else there is to know of comes with an event, and Metacontroller's own period repairs
    what was missed. It asks the API server once for each sync, which for a thousand models at rest adds up.
    """
    seconds = [
        max((instant - now) / timedelta(seconds=1), 0.001) for instant in outcome.instants if instant is not None
    ]
    if outcome.period is not None:
        share = zlib.crc32(parent.uid.encode()) / 0xFFFFFFFF
        seconds.append(round(outcome.period * (1 - JITTER + 2 * JITTER * share), 3))
    if outcome.registration.resync is not None:
        seconds.append(outcome.registration.resync)
    return min(*seconds, MAX_RESYNC_SECONDS) if seconds else None
