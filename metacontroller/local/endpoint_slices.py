"""EndpointSlices of processes, as the controller of Kubernetes writes them for the Services that select pods.

A slice has one port for all of its pods. Processes on one machine have different ones, so each port has a slice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from metacontroller.local.apiserver.objects import Object, copy, equal, key_of
from metacontroller.local.apiserver.server import ApiServer

SERVICE_LABEL: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}


class Pod(NamedTuple):
    """A process that is a pod."""

    name: str
    address: str
    port: int
    ready: bool


def write_slices(api: ApiServer, namespace: str, labels: Mapping[str, Any], pods: Sequence[Pod]) -> None:
    """Write the EndpointSlices of all Services in a namespace that select pods with these labels."""
    kind = api.kind_named("discovery.k8s.io/v1", "EndpointSlice")
    services = [item for _, item in api.all_of(api.kind_named("v1", "Service"), namespace) if _selects(item, labels)]
    desired = {key_of(kind, one): one for service in services for one in make_slices(service, pods)}
    names = {service["metadata"]["name"] for service in services}
    for key, item in list(api.all_of(kind, namespace)):
        if item["metadata"].get("labels", {}).get(SERVICE_LABEL) in names and key not in desired:
            api.delete(key)
    for key, item in desired.items():
        before = api.find(key)
        if before is None:
            api.create(item)
        elif any(not equal(before.get(part), item[part]) for part in ("endpoints", "ports")):
            api.update(item)


def make_slices(service: Object, pods: Iterable[Pod]) -> list[Object]:
    """Return the EndpointSlices of a Service, one for each port of its pods."""
    ports: dict[int, list[Pod]] = {}
    for pod in pods:
        ports.setdefault(pod.port, []).append(pod)
    return [_slice(service, port, those) for port, those in ports.items()]


def _slice(service: Object, port: int, pods: Iterable[Pod]) -> Object:
    metadata = service["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": metadata["uid"], "controller": True}
    port_name = ((service["spec"].get("ports") or [{}])[0]).get("name", "")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{port}",
            "namespace": namespace,
            "labels": copy(metadata.get("labels") or {}) | {SERVICE_LABEL: name} | MANAGED_BY,
            "ownerReferences": [owner | {"blockOwnerDeletion": True}],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [pod.address],
                "conditions": {"ready": pod.ready, "serving": pod.ready, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod.name},
            }
            for pod in pods
        ],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def _selects(service: Object, labels: Mapping[str, Any]) -> bool:
    selector = service["spec"].get("selector") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())
