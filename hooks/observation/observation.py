"""All facts a decision may rest on, frozen: one Observation per request, gathered before anything is decided.

What users may write freely was validated by nobody, so reading is lenient here: a value of the wrong type counts as
absent. The specification itself is read by `Observation.spec`, which says what is wrong with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from hooks.api.common import POLICY_API_VERSION, InvalidObject
from hooks.api.model_deployment import WORKLOAD_KINDS, ModelDeployment, ModelDeploymentSpec
from hooks.api.policy import Policy, PolicySpec
from hooks.api.remote_backend import Flavor, Location
from hooks.kube.objects import Key, Object, Objects
from hooks.kube.selectors import InvalidSelector, Selector
from hooks.kube.unstructured import integer, mapping, objects, text, texts, time
from hooks.observation.readings import Readings
from hooks.protocol import SyncRequest

APPS: Final = "apps/v1"
CORE: Final = "v1"


@dataclass(frozen=True, slots=True)
class DefaultRemote:
    """The install-wide default remote backend, as far as a decision needs it. Its credentials are the gateway's."""

    host: str
    scheme: str = "https"
    path_prefix: str = ""
    workspace: str = ""
    location: Location | None = None
    flavors: tuple[Flavor, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayService:
    """Where the gateway's Service is."""

    namespace: str
    name: str
    port: int = 80


@dataclass(frozen=True, slots=True)
class InstallDefaults:
    """What the administrator configured."""

    namespaces: frozenset[str] | None = None
    """Namespaces to manage; None = all."""
    default_remote: DefaultRemote | None = None
    gateway_service: GatewayService | None = None
    cluster_domain: str = "cluster.local"

    def manages(self, namespace: str) -> bool:
        """Whether ModelDeployments in that namespace are ours."""
        return self.namespaces is None or namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Something that the specification needs and that is not there. A fact, not an error: it may appear."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """A sentence that names what is missing."""


@dataclass(frozen=True, slots=True)
class Held:
    """A condition as the previous status has it."""

    status: str
    reason: str
    message: str
    since: datetime | None
    """Its lastTransitionTime; None when that is not a time."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The own facts of a ModelDeployment or a Policy."""

    namespace: str
    name: str
    uid: str
    generation: int
    """0 when unknown."""
    deleting: bool
    deleting_since: datetime | None
    """Its deletionTimestamp; None when that is not a time."""
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    """As stored; see `Observation.read_spec`."""
    status: Mapping[str, Any]
    """As we wrote it last, or as somebody changed it since."""
    held: Mapping[str, Held]
    """The conditions in that status, by type."""

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
                for condition in objects(mapping(item, "status"), "conditions")
            },
        )


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A TCP port of a container."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet."""

    kind: str
    name: str
    deleting: bool
    generation: int
    observed_generation: int | None
    """The generation its status is about; None when the status does not say."""
    replicas: int | None
    """Wanted replicas; None for a DaemonSet, or when left to the default."""
    counts: Mapping[str, Any]
    """Its status."""
    selector: Selector | None
    """Which pods are its own, matchLabels and matchExpressions together; None when it does not say."""
    ports: tuple[ContainerPort, ...]
    """Declared by its containers, in order."""

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
            ports=_ports(mapping(mapping(spec, "template"), "spec")),
        )


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A TCP port of a Service, and the port of the pods behind it: a number or a name."""

    number: int
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service that a specification refers to."""

    name: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[str, ...]
    """Its addresses in the cluster; none for a headless one."""

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read a Service of v1."""
        spec = mapping(item, "spec")
        addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
        return cls(
            name=text(mapping(item, "metadata"), "name"),
            selector=texts(spec, "selector"),
            ports=tuple(_service_ports(spec)),
            cluster_ips=tuple(
                address for address in addresses if isinstance(address, str) and address not in ("", "None")
            ),
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that is known when a decision is made."""

    parent: Parent
    children: Objects
    related: Objects
    defaults: InstallDefaults
    spec: ModelDeploymentSpec | InvalidObject
    """The specification, validated, or what is wrong with it."""
    readings: Readings | None = None
    """What was asked for beside the request; None where nothing was."""

    @classmethod
    def of(cls, request: SyncRequest, defaults: InstallDefaults) -> Self:
        """The facts in a request."""
        parent = Parent.of(request.parent)
        return cls(parent, request.children, request.related, defaults, _read_spec(parent))

    def read_spec(self) -> ModelDeploymentSpec:
        """The specification, validated.

        Raises:
            hooks.api.v1alpha1.InvalidObject: a value in it cannot be used.
        """
        if isinstance(self.spec, InvalidObject):
            raise self.spec
        return self.spec

    def key(self, api_version: str, kind: str, name: str) -> Key:
        """What an object of that name in the parent's namespace is called."""
        return Key(api_version, kind, self.parent.namespace, name)

    def workload(self, kind: str, name: str) -> Workload | None:
        """The related workload; None when there is none."""
        item = self.related.get(self.key(APPS, kind, name)) if kind in WORKLOAD_KINDS else None
        return None if item is None else Workload.of(item)

    def own_deployment(self, name: str) -> Workload | None:
        """Our child Deployment; None when there is none."""
        item = self.children.get(self.key(APPS, "Deployment", name))
        return None if item is None else Workload.of(item)

    def policy(self, name: str) -> PolicySpec | None:
        """What the related Policy allows; None when there is none.

        Raises:
            hooks.api.v1alpha1.InvalidObject: a value in it cannot be used.
        """
        item = self.related.get(self.key(POLICY_API_VERSION, "Policy", name))
        return None if item is None else Policy.read({"metadata": {"name": name}, "spec": item.get("spec")}).spec

    def service(self, name: str) -> Service | None:
        """The related Service; None when there is none."""
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


def _is_tcp(port: Mapping[str, Any]) -> bool:
    return text(port, "protocol") in ("", "TCP")


def _ports(pod: Mapping[str, Any]) -> tuple[ContainerPort, ...]:
    return tuple(
        ContainerPort(number, text(port, "name"))
        for container in objects(pod, "containers")
        for port in objects(container, "ports")
        if _is_tcp(port) and (number := integer(port, "containerPort"))
    )


def _service_ports(spec: Mapping[str, Any]) -> list[ServicePort]:
    ports = []
    for port in objects(spec, "ports"):
        number = integer(port, "port")
        if number and _is_tcp(port):
            # Absent means the same number (core/v1 ServicePort).
            ports.append(ServicePort(number, integer(port, "targetPort") or text(port, "targetPort") or number))
    return ports
