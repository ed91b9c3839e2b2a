"""The local backend of a specification: which pods serve the model, and on which port."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hooks import names, reasons
from hooks.api.model_deployment import ModelDeploymentSpec, ServiceReference
from hooks.kube.pods import ContainerPort
from hooks.kube.selectors import Operator, Selector
from hooks.observation.observation import Observation, Service, ServicePort, Unresolved, Workload

_PREFERRED_PORT_NAME: Final = "http"


@dataclass(frozen=True, slots=True)
class Local:
    """The pods behind the Service `<name>-local`: their labels and their port."""

    selector: Mapping[str, str]
    target_port: int | str
    """Port of the pods: its number, or the name that their containers give it."""


def pod_labels(observation: Observation) -> dict[str, str]:
    """Return the labels of the pods of a Deployment that hooks create, and its selector. A selector is immutable, so it
    is made of name and uid only."""
    return {
        names.NAME_LABEL: names.label_value(observation.parent.name),
        names.UID_LABEL: observation.parent.uid,
    }


def workload_name(spec: ModelDeploymentSpec, observation: Observation) -> tuple[str, str]:
    """Return kind and name of the workload that serves the model."""
    source = spec.model_source_ref
    if source is None:
        return "Deployment", names.deployment(observation.parent.name)
    return source.kind or "", source.name or ""


def find_workload(spec: ModelDeploymentSpec, observation: Observation) -> Workload | None:
    """Return the workload that serves the model, or None where it does not exist."""
    kind, name = workload_name(spec, observation)
    return observation.own_deployment(name) if spec.server is not None else observation.workload(kind, name)


def find_local(spec: ModelDeploymentSpec, workload: Workload | None, observation: Observation) -> Local | Unresolved:
    """Return the pods that serve the model. For a Deployment that hooks create they are known before it exists."""
    if spec.server is not None:
        return Local(pod_labels(observation), spec.server.port)
    if spec.service_ref is not None:
        return _behind_service(spec.service_ref, observation)
    return _behind_workload(spec, workload, observation)


def missing_references(
    spec: ModelDeploymentSpec, workload: Workload | None, observation: Observation
) -> Unresolved | None:
    """Return the first reference that leads nowhere, whether or not the local backend depends on it."""
    if spec.server is None and workload is None:
        return _no_workload(spec, observation)
    for field, reference in (("serviceRef", spec.service_ref), ("metricServiceRef", spec.metric_service_ref)):
        if reference is not None and observation.service(reference.name or "") is None:
            return _no_service(field, reference)
    return None


def cluster_ips(spec: ModelDeploymentSpec, observation: Observation) -> tuple[str, ...] | None:
    """Return the cluster IPs of the Service of serviceRef, or None where the Service is not known."""
    if spec.service_ref is None:
        return ()
    service = observation.service(spec.service_ref.name or "")
    return None if service is None else service.cluster_ips


def pod_port(target: int | str, workload: Workload | None) -> int | None:
    """Return the number of a pod's port, or None where no container declares its name."""
    if isinstance(target, int):
        return target
    ports = () if workload is None else workload.ports
    return next((port.number for port in ports if port.name == target), None)


def metric_port(spec: ModelDeploymentSpec, workload: Workload | None, observation: Observation) -> int | None:
    """Return the pod port behind metricServiceRef, or None where it is not known."""
    reference = spec.metric_service_ref
    service = None if reference is None else observation.service(reference.name or "")
    port = None if reference is None or service is None else _service_port(service, reference)
    return pod_port(port.target, workload) if isinstance(port, ServicePort) else None


def _behind_service(reference: ServiceReference, observation: Observation) -> Local | Unresolved:
    service = observation.service(reference.name or "")
    if service is None:
        return _no_service("serviceRef", reference)
    if service.external:
        return Unresolved(
            reasons.EXTERNAL_SERVICE,
            f"Service {service.name} is of type ExternalName, which leads out of the namespace: name in spec.serviceRef"
            " one that selects the model's pods, or the host in spec.offloadingConfig.remoteBackend.",
        )
    if not service.selector:
        return Unresolved(
            reasons.SERVICE_WITHOUT_SELECTOR,
            f"Service {service.name} selects no pods: name in spec.serviceRef one that selects the model's pods.",
        )
    port = _service_port(service, reference)
    return port if isinstance(port, Unresolved) else Local(service.selector, port.target)


def _service_port(service: Service, reference: ServiceReference) -> ServicePort | Unresolved:
    numbers = ", ".join(str(port.number) for port in service.ports)
    if reference.target_port is None:
        if len(service.ports) == 1:
            return service.ports[0]
        return Unresolved(
            reasons.PORT_UNKNOWN,
            f"Service {service.name} has the ports {numbers}: say in spec.serviceRef.targetPort which one is meant."
            if numbers
            else f"Service {service.name} has no TCP port.",
        )
    for port in service.ports:
        if port.number == reference.target_port:
            return port
    return Unresolved(
        reasons.PORT_UNKNOWN,
        f"Service {service.name} has no port {reference.target_port}, which spec.serviceRef.targetPort asks for;"
        f" it has {numbers or 'none'}.",
    )


def _behind_workload(
    spec: ModelDeploymentSpec, workload: Workload | None, observation: Observation
) -> Local | Unresolved:
    if workload is None:
        return _no_workload(spec, observation)
    labels = _as_labels(workload.selector)
    if labels is None:
        return Unresolved(
            reasons.WORKLOAD_SELECTOR_UNSUPPORTED,
            f"{workload.kind} {workload.name} does not select its pods by the values of labels alone, as a Service has"
            " to: put a Service that selects its pods and no others in front of it, and name it in spec.serviceRef.",
        )
    port = _serving_port(workload.ports)
    if port is None:
        return Unresolved(
            reasons.PORT_UNKNOWN,
            f"{workload.kind} {workload.name} declares no single container port, nor one named"
            f" {_PREFERRED_PORT_NAME}: name a Service and its port in spec.serviceRef.",
        )
    return Local(labels, port.number)


def _as_labels(selector: Selector | None) -> dict[str, str] | None:
    """Return the labels by which a Service selects the same pods, or None where there are none: a Service knows
    equality only.

    A part that is left out would send requests to pods that are not the workload's.
    """
    labels: dict[str, str] = {}
    for one in () if selector is None else selector.requirements:
        if one.operator is not Operator.IN or len(set(one.values)) != 1:
            return None
        if labels.setdefault(one.key, one.values[0]) != one.values[0]:
            return None
    return labels or None


def _serving_port(ports: tuple[ContainerPort, ...]) -> ContainerPort | None:
    """Return the only port, or the one whose name says that it speaks HTTP."""
    if len(ports) == 1:
        return ports[0]
    return next((port for port in ports if port.name == _PREFERRED_PORT_NAME), None)


def _no_workload(spec: ModelDeploymentSpec, observation: Observation) -> Unresolved:
    kind, name = workload_name(spec, observation)
    return Unresolved(
        reasons.WORKLOAD_MISSING, f"{kind} {name} does not exist: create it, or correct spec.modelSourceRef."
    )


def _no_service(field: str, reference: ServiceReference) -> Unresolved:
    return Unresolved(
        reasons.SERVICE_MISSING, f"Service {reference.name} does not exist: create it, or correct spec.{field}."
    )
