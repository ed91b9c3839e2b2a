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
    desired: int = 0
    """Number of replicas that the workload asks for; 0 where it is not known."""

    @property
    def is_ready(self) -> bool:
        """Whether at least one replica is ready."""
        return self.ready > 0

    @property
    def is_scaling(self) -> bool:
        """Whether fewer replicas are ready than the workload asks for."""
        return self.ready < self.desired


def readiness(workload: Workload | None) -> Readiness:
    """Return the readiness that the workload's status reports.

    A status that is older than the specification counts as it stands: each scaling and each rollout has such a moment,
    and the old replicas serve through it.
    """
    if workload is None:
        return _none(reasons.WORKLOAD_MISSING)
    if workload.deleting:
        return _none(reasons.TERMINATING)
    if workload.replicas == 0:
        return _none(reasons.SCALED_TO_ZERO)
    ready = integer(workload.counts, READY_COUNT[workload.kind]) or 0
    if ready <= 0:
        lags = workload.observed_generation is not None and workload.observed_generation < workload.generation
        return _none(reasons.PROGRESSING if lags else reasons.NO_READY_REPLICA)
    desired = workload.replicas
    if desired is None:
        # A DaemonSet counts its nodes; the others have one replica by default.
        desired = integer(workload.counts, "desiredNumberScheduled") or 1
    return Readiness(ready, reasons.REPLICAS_READY, MESSAGES[reasons.REPLICAS_READY], desired)


def before_creation(replicas: int | None) -> Readiness:
    """Return the readiness of a workload that this response asks for, as it will be once created, so that its mere
    appearance changes nothing.

    Args:
        replicas: as wanted; None when left to the default, which is one.
    """
    return _none(reasons.SCALED_TO_ZERO if replicas == 0 else reasons.NO_READY_REPLICA)


def _none(reason: str) -> Readiness:
    return Readiness(0, reason, MESSAGES[reason])
