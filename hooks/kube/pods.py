"""Pods as metrics need them: which of them serve, where they are, and which resources they request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from hooks.kube.objects import Object
from hooks.kube.quantities import InvalidQuantity, Quantity, parse
from hooks.kube.unstructured import integer, mapping, objects, text, time

RUNNING: Final = "Running"
"""Phase of a pod that serves. In the others (Pending, Succeeded, Failed, Unknown) it does not."""

Requests = Mapping[str, Quantity]
"""Requested amounts by resource. A resource that is absent is not requested, which is not the same as zero."""


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A TCP port that a container declares."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs as long as its pod."""

    name: str
    requests: Requests


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the workload that serves the model."""

    name: str
    phase: str
    ready: bool
    ready_since: datetime | None
    """Time at which `ready` last changed; None where the status does not tell."""
    terminating: bool
    containers: tuple[Container, ...]
    """Containers of the pod and its sidecars, which are the init containers that are always restarted. The other init
    containers have ended before a pod is ready: they use nothing, so their requests do not count."""
    requests: Requests
    """Requests of the pod as a whole. A resource named here replaces the requests of the containers for it."""
    address: str = ""
    """IP address of the pod; empty where it has none yet."""
    on_host_network: bool = False
    """Whether the pod has the network of its node, so that its address is the node's."""
    ports: tuple[ContainerPort, ...] = ()
    """Ports that its containers and sidecars declare."""

    @property
    def serves(self) -> bool:
        """Return whether the pod gets requests: it is running and ready, and not being deleted."""
        return self.phase == RUNNING and self.ready and not self.terminating

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read a Pod of v1. An invalid quantity counts as not requested."""
        metadata, spec, status = mapping(item, "metadata"), mapping(item, "spec"), mapping(item, "status")
        conditions = [item for item in objects(status, "conditions") if text(item, "type") == "Ready"]
        ready = conditions[0] if conditions else {}
        sidecars = [item for item in objects(spec, "initContainers") if text(item, "restartPolicy") == "Always"]
        running = (*objects(spec, "containers"), *sidecars)
        return cls(
            name=text(metadata, "name"),
            phase=text(status, "phase"),
            ready=text(ready, "status") == "True",
            ready_since=time(ready, "lastTransitionTime"),
            terminating=bool(metadata.get("deletionTimestamp")),
            containers=tuple(Container(text(item, "name"), _requests(item)) for item in running),
            requests=_requests(spec),
            address=text(status, "podIP"),
            on_host_network=spec.get("hostNetwork") is True,
            ports=declared_ports(running),
        )

    def without_request(self, resource: str, container: str | None) -> str | None:
        """Return the name of the first container that lacks a needed request, or None where none does.

        Args:
            resource: cpu or memory.
            container: the only one that matters; None for the pod as a whole.
        """
        if container is None and resource in self.requests:
            return None
        return next((item.name for item in self._chosen(container) if resource not in item.requests), None)

    def requested(self, resource: str, container: str | None) -> Quantity:
        """Return the sum of the requests. A container without a request adds nothing."""
        if container is None and resource in self.requests:
            return self.requests[resource]
        amounts = [item.requests[resource] for item in self._chosen(container) if resource in item.requests]
        return total(amounts)

    def _chosen(self, container: str | None) -> tuple[Container, ...]:
        return tuple(item for item in self.containers if container in (None, item.name))


def declared_ports(containers: Iterable[Mapping[str, Any]]) -> tuple[ContainerPort, ...]:
    """Return the TCP ports that containers of v1 declare, in their order."""
    return tuple(
        ContainerPort(number, text(port, "name"))
        for container in containers
        for port in objects(container, "ports")
        if is_tcp(port) and (number := integer(port, "containerPort"))
    )


def is_tcp(port: Mapping[str, Any]) -> bool:
    """Return whether the port of a container or of a Service is one of TCP, which is the default."""
    return text(port, "protocol") in ("", "TCP")


def total(amounts: list[Quantity]) -> Quantity:
    """Return the sum, in the format of the first amount."""
    nanos = sum(amount.nanos for amount in amounts)
    return Quantity(nanos, amounts[0].format) if amounts else Quantity(nanos)


def _requests(owner: Mapping[str, Any]) -> Requests:
    """Return `resources.requests` of a container or of a pod's specification."""
    found = {}
    for resource, amount in mapping(mapping(owner, "resources"), "requests").items():
        try:
            found[resource] = parse(amount)
        except InvalidQuantity:
            continue
    return found
