"""Assessment of a specification that is in force: what it refers to, its metrics, and the split that follows."""

from dataclasses import dataclass
from datetime import datetime

from hooks import names, reasons
from hooks.api.metrics import MetricSpec
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends.local import Local, find_local, find_workload
from hooks.backends.policies import refusals
from hooks.backends.readiness import Readiness, before_creation, readiness
from hooks.backends.remote import find_remote
from hooks.errors import NotAccepted
from hooks.kube.objects import Object
from hooks.observation.observation import CORE, Observation, Unresolved, Workload
from hooks.offloading.measures import measure_all
from hooks.offloading.rules import Decision, Facts, Previous, decide
from hooks.reconcile import validation
from hooks.reconcile.last_applied import find_last_applied


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything that is known of a ModelDeployment before children are made of it."""

    facts: Facts
    workload: Workload | None
    local: Local | Unresolved
    backing: Local | Object | None
    """The local backend; the local Service as it was applied last while the backend is not known; None without both."""
    previous: Previous
    metrics: tuple[MetricSpec, ...]
    decision: Decision


def assess(observation: Observation, *, now: datetime) -> Assessment:
    """Find what the specification refers to, measure its metrics and decide the split.

    Raises:
        InvalidObject: a value of the specification cannot be used.
        NotAccepted: the specification cannot be in force.
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
    backing = local if isinstance(local, Local) else find_last_applied(CORE, "Service", local_service, observation)
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
        measures=measure_all(
            metrics,
            observation.readings,
            ready_replicas=ready.ready,
            now=now,
            since=previous.since,
            offloads=bool(previous.percentage),
        ),
    )
    return Assessment(facts, workload, local, backing, previous, metrics, decide(facts, previous, now=now))


def _readiness(
    spec: ModelDeploymentSpec, workload: Workload | None, local: Local | Unresolved, *, has_local: bool
) -> Readiness:
    """Return the readiness of the local replicas. None is ready for requests while no Service leads to them."""
    if not has_local and isinstance(local, Unresolved):
        return Readiness(0, local.reason, local.message)
    if workload is None and spec.server is not None:
        return before_creation(spec.server.replicas)
    return readiness(workload)
