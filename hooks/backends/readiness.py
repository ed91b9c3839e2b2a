"""Readiness of the local replicas: one table for every kind of workload, read from the workload's own status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hooks import reasons
from hooks.kube.unstructured import integer
from hooks.observation.observation import Workload

READY_COUNT: Final[Mapping[str, str]] = {
    "Deployment": "readyReplicas",
    "StatefulSet": "readyReplicas",
    "DaemonSet": "numberReady",
    "ReplicaSet": "readyReplicas",
}
"""Status field that counts ready pods, by kind. An absent field means none."""

MESSAGES: Final[Mapping[str, str]] = {
    reasons.REPLICAS_READY: "At least one local replica is ready.",
    reasons.NO_READY_REPLICA: "No local replica is ready.",
    reasons.SCALED_TO_ZERO: "The workload is scaled to zero.",
    reasons.TERMINATING: "The workload is being deleted.",
    reasons.PROGRESSING: "The workload's status is older than its specification.",
    reasons.WORKLOAD_MISSING: "The workload does not exist.",
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the local replicas can serve, and the reason."""

    ready: int
    """Number of ready replicas."""
    reason: str
    message: str

    @property
    def is_ready(self) -> bool:
        """Whether at least one replica is ready."""
        return self.ready > 0


def readiness(workload: Workload | None) -> Readiness:
    """Return the readiness that the workload's status tells. What is not known for certain is not ready."""
    if workload is None:
        return _none(reasons.WORKLOAD_MISSING)
    if workload.deleting:
        return _none(reasons.TERMINATING)
    if workload.replicas == 0:
        return _none(reasons.SCALED_TO_ZERO)
    if workload.observed_generation is not None and workload.observed_generation < workload.generation:
        return _none(reasons.PROGRESSING)
    ready = integer(workload.counts, READY_COUNT[workload.kind]) or 0
    if ready <= 0:
        return _none(reasons.NO_READY_REPLICA)
    return Readiness(ready, reasons.REPLICAS_READY, MESSAGES[reasons.REPLICAS_READY])


def before_creation(replicas: int | None) -> Readiness:
    """Return the readiness of a workload that this response asks for, as it will be once created, so that its mere
    appearance changes nothing.

    Args:
        replicas: as wanted; None when left to the default, which is one.
    """
    return _none(reasons.SCALED_TO_ZERO if replicas == 0 else reasons.NO_READY_REPLICA)


def _none(reason: str) -> Readiness:
    return Readiness(0, reason, MESSAGES[reason])
