"""Pods of Services: EndpointSlices as Kubernetes makes them, read into a table that says which pods a Service has.

An EndpointSlice belongs to one Service and to one family of addresses; all of its pods have the same port, and those of
other slices of the Service may have another one. A pod may be in two slices for a moment, or in one of each family:
it counts once. https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/

A user who may write EndpointSlices in a namespace decides where the Services of that namespace lead, as ever. What a
slice says counts for its own namespace only, and its addresses are checked when they are connected to.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeGuard
from weakref import WeakValueDictionary

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""Label of an EndpointSlice that has the name of its Service."""
SELECTOR: Final = (
    "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io,"
    "app.kubernetes.io/managed-by=beamlit-controller"
)
"""Label selector of the EndpointSlices that Kubernetes makes for the Services of models, whose labels they repeat."""

SERVICE_PODS: Final = 1000
"""Number of pods of one Service that are used: the first ones by name, in every gateway."""
NAMESPACE_PODS: Final = 20_000
"""Number of pods in all EndpointSlices of one namespace that are kept."""
NAMESPACE_SLICES: Final = 5000
"""Number of EndpointSlices of one namespace that are kept."""

_FAMILIES: Final = {"IPv4": 4, "IPv6": 6}
"""Versions of IP by the type of the addresses."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PLAIN: Final = {label: value for label, _, value in (part.partition("=") for part in SELECTOR.split(","))}


class PodState(IntEnum):
    """Whether a pod gets requests, the better the higher."""

    UNREADY = 0
    """It gets none: it does not pass its readiness probe, or has not begun to."""
    LEAVING = 1
    """It terminates and still serves: it gets requests only while no pod is ready."""
    READY = 2


class Endpoint(NamedTuple):
    """A pod of a Service, and where it serves."""

    name: str
    """Name of the pod, in the namespace of the Service."""
    uid: str
    """UID of the pod, which another pod of the same name does not have; empty where it is not known."""
    addresses: tuple[str, ...]
    """Its addresses, at most one of each family: that of IPv4 first."""
    port: int
    state: PodState


class EndpointSlice(NamedTuple):
    """What counts of an EndpointSlice."""

    namespace: str
    name: str
    service: str
    """Name of the Service, in the same namespace."""
    ports: int
    """Number of its TCP ports: with several, a slice does not say which one a request is for."""
    endpoints: tuple[Endpoint, ...]


class ServiceEndpoints:
    """The pods of one Service now. They change at any time, so each request looks here."""

    __slots__ = ("__weakref__", "pods")

    def __init__(self) -> None:
        self.pods: tuple[Endpoint, ...] = ()
        """Pods that get requests, in the order of their names; none where the name of the Service is to be used."""


class _Namespace:
    """The EndpointSlices of one namespace."""

    __slots__ = ("pods", "slices")

    def __init__(self) -> None:
        self.slices: dict[str, EndpointSlice] = {}
        self.pods = 0
        """Number of endpoints in all of them."""


class EndpointTable:
    """The pods of all Services, by what EndpointSlices say."""

    def __init__(
        self, resolved: Iterable[tuple[str, int]] = (), permit: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Know no pod yet.

        Args:
            resolved: Hosts and ports whose addresses the administrator has set (`gateway.resolve`): a Service among
                them leads there, and not to its pods. A pod among them may have any address.
            permit: Function that returns whether a pod may have an address; one at any other address does not count.
        """
        self.errors: dict[str, str] = {}
        """Why the slices of a place cannot be read or followed, by place."""
        self.left_out: dict[str, int] = {}
        """Number of changes of slices that had no room, by namespace."""
        self._resolved = frozenset((host.lower(), port) for host, port in resolved)
        self._permit = permit
        self._namespaces: dict[str, _Namespace] = {}
        self._services: WeakValueDictionary[tuple[str, str], ServiceEndpoints] = WeakValueDictionary()
        """Pods as their backends see them, by Service."""
        self._by_service: dict[tuple[str, str], dict[str, EndpointSlice]] = {}
        """Slices by Service, then by name."""

    def follow(self, namespace: str, service: str, host: str, port: int) -> ServiceEndpoints | None:
        """Return the pods of a Service, kept up to date from now on; None where its name is always used.

        Args:
            namespace: Namespace of the Service.
            service: Name of the Service.
            host: Host name of the Service.
            port: Port of the Service.
        """
        if self._is_resolved(host, port):
            return None
        key = (namespace, service)
        followed = self._services.get(key)
        if followed is None:
            followed = self._services[key] = ServiceEndpoints()
            followed.pods = serving(self._by_service.get(key, {}).values())
        return followed

    def pods(self, namespace: str, service: str, host: str, port: int) -> tuple[Endpoint, ...] | None:
        """Return the pods of a Service now, as `follow` returns them; None where its name is always used."""
        if self._is_resolved(host, port):
            return None
        return serving(self._by_service.get((namespace, service), {}).values())

    def _is_resolved(self, host: str, port: int) -> bool:
        return (host.lower(), port) in self._resolved

    def put(self, one: EndpointSlice) -> bool:
        """Keep a slice, in place of the one of the same name; return whether that changed anything.

        A slice for which its namespace has no room is left out, and counted; pods at refused addresses do not count.
        """
        one = one._replace(endpoints=tuple(filter(self._is_permitted, one.endpoints)))
        kept = self._namespaces.setdefault(one.namespace, _Namespace())
        before = kept.slices.get(one.name)
        if before == one:
            return False
        pods = kept.pods - (0 if before is None else len(before.endpoints)) + len(one.endpoints)
        if pods > NAMESPACE_PODS or (before is None and len(kept.slices) >= NAMESPACE_SLICES):
            self.left_out[one.namespace] = self.left_out.get(one.namespace, 0) + 1
            return self.remove(one.namespace, one.name)
        kept.pods = pods
        kept.slices[one.name] = one
        if before is not None and before.service != one.service:
            self._forget(before)
        self._by_service.setdefault((one.namespace, one.service), {})[one.name] = one
        self._update((one.namespace, one.service))
        return True

    def remove(self, namespace: str, name: str) -> bool:
        """Forget a slice; return whether it was known."""
        kept = self._namespaces.get(namespace)
        before = None if kept is None else kept.slices.pop(name, None)
        if kept is None or before is None:
            return False
        kept.pods -= len(before.endpoints)
        if not kept.slices:
            del self._namespaces[namespace]
        self._forget(before)
        return True

    def keep_only(self, names: Mapping[str, set[str]], namespace: str | None = None) -> bool:
        """Forget the slices that a list does not have; return whether there was any.

        Args:
            names: Names of the slices in the list, by namespace.
            namespace: Namespace that was listed; None when all of them were.
        """
        changed = False
        for one in [namespace] if namespace is not None else list(self._namespaces):
            kept = self._namespaces.get(one)
            for name in [] if kept is None else [name for name in kept.slices if name not in names.get(one, ())]:
                changed = self.remove(one, name) or changed
        return changed

    def _is_permitted(self, pod: Endpoint) -> bool:
        return all((address, pod.port) in self._resolved or self._permit(address) for address in pod.addresses)

    def _forget(self, one: EndpointSlice) -> None:
        """Take a slice from its Service."""
        key = (one.namespace, one.service)
        slices = self._by_service[key]
        slices.pop(one.name, None)
        if not slices:
            del self._by_service[key]
        self._update(key)

    def _update(self, key: tuple[str, str]) -> None:
        followed = self._services.get(key)
        if followed is not None:
            followed.pods = serving(self._by_service.get(key, {}).values())


def serving(slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    """Return the pods in the slices of one Service that get requests, in the order of their names.

    These are the ready ones; while none is ready those that still serve until they end, as kube-proxy does. There is
    none where a slice has several ports, of which it does not say which one is meant.
    """
    found: dict[tuple[str, str, int], Endpoint] = {}
    for one in slices:
        if one.ports > 1:
            return ()
        for endpoint in one.endpoints:
            key = (endpoint.name, endpoint.uid, endpoint.port)
            other = found.get(key)
            found[key] = endpoint if other is None else _merged(other, endpoint)
    for state in (PodState.READY, PodState.LEAVING):
        pods = sorted(one for one in found.values() if one.state is state)
        if pods:
            return tuple(pods[:SERVICE_PODS])
    return ()


def _merged(one: Endpoint, other: Endpoint) -> Endpoint:
    """Return a pod that is in two slices: with the addresses of both families, in the better of both states."""
    addresses = {":" in address: address for address in (*other.addresses, *one.addresses)}
    return one._replace(
        addresses=tuple(addresses[six] for six in (False, True) if six in addresses),
        state=max(one.state, other.state),
    )


def read(item: Mapping[str, Any]) -> EndpointSlice | None:
    """Return an EndpointSlice as an API server or a file has it; None for one that is none of a model's Service.

    Endpoints are left out that are no pods of the slice's own namespace, or whose address is none.
    """
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        return None
    namespace, name, labels = metadata.get("namespace"), metadata.get("name"), metadata.get("labels")
    if not _is_name(namespace) or not _is_name(name) or not isinstance(labels, dict):
        return None
    service = labels.get(SERVICE_LABEL)
    if not _is_name(service) or any(labels.get(label) != value for label, value in _PLAIN.items()):
        return None
    family = _FAMILIES.get(str(item.get("addressType")))
    ports = _ports(item.get("ports"))
    endpoints = item.get("endpoints")
    if family is None or not ports or not isinstance(endpoints, list):
        return EndpointSlice(namespace, name, service, len(ports), ())
    known = (_endpoint(one, namespace, family, ports[0]) for one in endpoints[:SERVICE_PODS])
    return EndpointSlice(namespace, name, service, len(ports), tuple(one for one in known if one is not None))


def _ports(value: object) -> list[int]:
    """Return the numbers of the TCP ports of a slice."""
    result = []
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, dict) or (one.get("protocol") or "TCP") != "TCP":
            continue
        number = one.get("port")
        if type(number) is int and 0 < number < 65536:
            result.append(number)
    return result


def _endpoint(value: object, namespace: str, family: int, port: int) -> Endpoint | None:
    """Return an endpoint of a slice; None where it is no pod of `namespace`."""
    if not isinstance(value, dict):
        return None
    target, addresses = value.get("targetRef"), value.get("addresses")
    if not isinstance(target, dict) or target.get("kind") != "Pod" or target.get("namespace") != namespace:
        return None
    name, uid = target.get("name"), target.get("uid")
    if not _is_name(name) or not isinstance(addresses, list) or not addresses:
        return None
    address = _address(addresses[0], family)  # the others, if any, are those of the same pod
    if address is None:
        return None
    return Endpoint(name, uid[:64] if isinstance(uid, str) else "", (address,), port, _state(value.get("conditions")))


def _state(value: object) -> PodState:
    """Return the state that the conditions of an endpoint mean; what they do not say is as the API says it."""
    conditions = value if isinstance(value, dict) else {}
    if conditions.get("ready") is not False:
        return PodState.READY
    if conditions.get("serving") is True and conditions.get("terminating") is True:
        return PodState.LEAVING
    return PodState.UNREADY


def _address(value: object, family: int) -> str | None:
    """Return an address of a family in its usual spelling, None for anything else."""
    try:
        address = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return str(address) if address is not None and address.version == family and "%" not in str(address) else None


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
