"""All facts that a decision may rest on, frozen: one Observation per request, gathered before anything is decided.

Some of what users may write was never validated, so reading is lenient here: a value of the wrong type counts as
absent. The specification itself is read by `Observation.spec`, which says what is wrong with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, Self

from hooks.api.common import MOST_CONDITIONS, POLICY_API_VERSION, InvalidObject
from hooks.api.model_deployment import WORKLOAD_KINDS, ModelDeployment, ModelDeploymentSpec
from hooks.api.policy import Policy, PolicySpec
from hooks.api.remote_backend import Flavor, Location
from hooks.kube.objects import Key, Object, Objects
from hooks.kube.pods import ContainerPort, declared_ports, is_tcp
from hooks.kube.selectors import InvalidSelector, Selector
from hooks.kube.unstructured import integer, mapping, objects, text, texts, time
from hooks.observation.drills import Reading
from hooks.observation.readings import Readings
from hooks.protocol import SyncRequest

APPS: Final = "apps/v1"
CORE: Final = "v1"


@dataclass(frozen=True, slots=True)
class DefaultRemote:
    """The default remote backend of the installation, as a decision needs it. Its credentials belong to the gateway."""

    host: str
    scheme: str = "https"
    path_prefix: str = ""
    workspace: str = ""
    location: Location | None = None
    flavors: tuple[Flavor, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayService:
    """The Service of the gateway."""

    namespace: str
    name: str
    port: int = 80


@dataclass(frozen=True, slots=True)
class InstallDefaults:
    """The configuration that the administrator gave for all models."""

    namespaces: frozenset[str] | None = None
    """Namespaces whose ModelDeployments are managed; None for all."""
    default_remote: DefaultRemote | None = None
    gateway_service: GatewayService | None = None
    cluster_domain: str = "cluster.local"

    def manages(self, namespace: str) -> bool:
        """Return whether ModelDeployments in that namespace are managed."""
        return self.namespaces is None or namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An object or a value that the specification refers to and that does not exist. This is a fact, not an error: it
    may appear later."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """Sentence that names what is missing."""


@dataclass(frozen=True, slots=True)
class Held:
    """A condition as the previous status holds it."""

    status: str
    reason: str
    message: str
    since: datetime | None
    """lastTransitionTime of the condition; None where that is not a time."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The parent of a request, a ModelDeployment or a Policy: its metadata, specification and previous status."""

    namespace: str
    name: str
    uid: str
    generation: int
    """metadata.generation; 0 where it is unknown."""
    deleting: bool
    deleting_since: datetime | None
    """metadata.deletionTimestamp; None where that is not a time."""
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    """Specification as stored, not validated; see `Observation.read_spec`."""
    status: Mapping[str, Any]
    """Status as hooks wrote it last, or as another client changed it since."""
    held: Mapping[str, Held]
    """Conditions of that status, by type."""

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read an object with a namespace and a name."""
        metadata = item["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=text(metadata, "uid"),
            generation=integer(metadata, "generation") or 0,
            deleting=bool(metadata.get("deletionTimestamp")),
            deleting_since=time(metadata, "deletionTimestamp"),
            labels=texts(metadata, "labels"),
            spec=mapping(item, "spec"),
            status=mapping(item, "status"),
            held={
                text(condition, "type"): Held(
                    text(condition, "status"),
                    text(condition, "reason"),
                    text(condition, "message"),
                    time(condition, "lastTransitionTime"),
                )
                for condition in objects(mapping(item, "status"), "conditions", MOST_CONDITIONS)
            },
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet."""

    kind: str
    name: str
    deleting: bool
    generation: int
    observed_generation: int | None
    """status.observedGeneration; None where it is absent."""
    replicas: int | None
    """Desired replicas; None for a DaemonSet, and where the specification leaves them to the default."""
    counts: Mapping[str, Any]
    """Status of the workload."""
    selector: Selector | None
    """Selector of the workload's pods, matchLabels and matchExpressions together; None where it has none."""
    ports: tuple[ContainerPort, ...]
    """Ports that its containers declare, in their order."""

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read a workload of apps/v1."""
        metadata, spec, status = mapping(item, "metadata"), mapping(item, "spec"), mapping(item, "status")
        return cls(
            kind=text(item, "kind"),
            name=text(metadata, "name"),
            deleting=bool(metadata.get("deletionTimestamp")),
            generation=integer(metadata, "generation") or 0,
            observed_generation=integer(status, "observedGeneration"),
            replicas=integer(spec, "replicas"),
            counts=status,
            selector=_selector(mapping(spec, "selector")),
            ports=declared_ports(objects(mapping(mapping(spec, "template"), "spec"), "containers")),
        )


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A TCP port of a Service, and the port of the pods behind it: a number or a name."""

    number: int
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service that the specification refers to."""

    name: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[str, ...]
    """Cluster IPs of the Service; empty for a headless one."""
    external: bool = False
    """Whether the Service is a name for a host elsewhere (type ExternalName); Kubernetes ignores its selector."""

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read a Service of v1."""
        spec = mapping(item, "spec")
        addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
        return cls(
            name=text(mapping(item, "metadata"), "name"),
            selector=texts(spec, "selector"),
            ports=tuple(_service_ports(spec)),
            cluster_ips=tuple(address for address in addresses if isinstance(address, str) and _is_address(address)),
            external=spec.get("type") == "ExternalName",
        )


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return "%" not in value


@dataclass(frozen=True, slots=True)
class Observation:
    """All facts of one request."""

    parent: Parent
    children: Objects
    related: Objects
    defaults: InstallDefaults
    spec: ModelDeploymentSpec | InvalidObject
    """Specification, validated, or the error that says what is wrong with it."""
    readings: Readings | None = None
    """Metrics and pods that were read for this request; None where nothing was read."""
    drills: tuple[Reading, ...] | None = None
    """What gateways reported of their drills in the last two rounds, the newest first; None where none is asked."""

    @classmethod
    def of(cls, request: SyncRequest, defaults: InstallDefaults) -> Self:
        """Return the facts of a request."""
        parent = Parent.of(request.parent)
        return cls(parent, request.children, request.related, defaults, _read_spec(parent))

    def read_spec(self) -> ModelDeploymentSpec:
        """Return the validated specification.

        Raises:
            hooks.api.common.InvalidObject: A value in it cannot be used.
        """
        if isinstance(self.spec, InvalidObject):
            raise self.spec
        return self.spec

    def key(self, api_version: str, kind: str, name: str) -> Key:
        """Return the key of an object with that name in the parent's namespace."""
        return Key(api_version, kind, self.parent.namespace, name)

    def workload(self, kind: str, name: str) -> Workload | None:
        """Return the related workload, or None where there is none."""
        item = self.related.get(self.key(APPS, kind, name)) if kind in WORKLOAD_KINDS else None
        return None if item is None else Workload.of(item)

    def own_deployment(self, name: str) -> Workload | None:
        """Return the child Deployment, or None where there is none."""
        item = self.children.get(self.key(APPS, "Deployment", name))
        return None if item is None else Workload.of(item)

    def policy(self, name: str) -> PolicySpec | None:
        """Return the specification of the related Policy, or None where there is none.

        Raises:
            hooks.api.common.InvalidObject: A value in it cannot be used.
        """
        item = self.related.get(self.key(POLICY_API_VERSION, "Policy", name))
        return None if item is None else Policy.read({"metadata": {"name": name}, "spec": item.get("spec")}).spec

    def service(self, name: str) -> Service | None:
        """Return the related Service, or None where there is none."""
        item = self.related.get(self.key(CORE, "Service", name))
        return None if item is None else Service.of(item)


def _read_spec(parent: Parent) -> ModelDeploymentSpec | InvalidObject:
    try:
        return ModelDeployment.read({"metadata": {"name": parent.name}, "spec": parent.spec}).spec
    except InvalidObject as exc:
        return exc


def _selector(item: Mapping[str, Any]) -> Selector | None:
    try:
        found = Selector.read(item)
    except InvalidSelector:
        return None
    return found if found.requirements else None


def _service_ports(spec: Mapping[str, Any]) -> list[ServicePort]:
    ports = []
    for port in objects(spec, "ports"):
        number = integer(port, "port")
        if number and is_tcp(port):
            # Absent means the same number (core/v1 ServicePort).
            ports.append(ServicePort(number, integer(port, "targetPort") or text(port, "targetPort") or number))
    return ports
