"""Pods as metrics need them: which of them serve, and which resources they request."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from hooks.kube.objects import Object
from hooks.kube.quantities import InvalidQuantity, Quantity, parse
from hooks.kube.unstructured import mapping, objects, text, time

RUNNING: Final = "Running"
"""Phase of a pod that serves. In the others (Pending, Succeeded, Failed, Unknown) it does not."""

Requests = Mapping[str, Quantity]
"""Requested amounts by resource. A resource that is absent is not requested, which is not the same as zero."""


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

    @classmethod
    def of(cls, item: Object) -> Self:
        """Read a Pod of v1. An invalid quantity counts as not requested."""
        metadata, spec, status = mapping(item, "metadata"), mapping(item, "spec"), mapping(item, "status")
        conditions = [item for item in objects(status, "conditions") if text(item, "type") == "Ready"]
        ready = conditions[0] if conditions else {}
        sidecars = [item for item in objects(spec, "initContainers") if text(item, "restartPolicy") == "Always"]
        return cls(
            name=text(metadata, "name"),
            phase=text(status, "phase"),
            ready=text(ready, "status") == "True",
            ready_since=time(ready, "lastTransitionTime"),
            terminating=bool(metadata.get("deletionTimestamp")),
            containers=tuple(
                Container(text(item, "name"), _requests(item)) for item in (*objects(spec, "containers"), *sidecars)
            ),
            requests=_requests(spec),
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
