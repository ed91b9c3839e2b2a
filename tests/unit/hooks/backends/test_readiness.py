"""Readiness of workloads, by one rule for every kind."""

from typing import Any

import pytest

from hooks import reasons
from hooks.api.model_deployment import WORKLOAD_KINDS
from hooks.backends.readiness import READY_COUNT, Readiness, readiness
from hooks.observation.observation import Workload
from tests import builders


def of(kind: str = "Deployment", **fields: Any) -> Readiness:
    """Return the readiness of a workload with these fields."""
    return readiness(Workload.of(builders.workload(kind, **fields)))


def test_every_kind_has_a_rule() -> None:
    """The table has exactly the kinds that a ModelDeployment may refer to."""
    assert set(READY_COUNT) == set(WORKLOAD_KINDS)


@pytest.mark.parametrize("kind", WORKLOAD_KINDS)
@pytest.mark.parametrize(
    ("ready", "reason"), [(0, reasons.NO_READY_REPLICA), (1, reasons.REPLICAS_READY), (2, reasons.REPLICAS_READY)]
)
def test_one_ready_replica_is_enough_for_any_kind(kind: str, ready: int, reason: str) -> None:
    """A workload of any kind is ready with one ready replica."""
    result = of(kind, ready=ready, replicas=3)
    assert (result.ready, result.reason, result.is_ready) == (ready, reason, ready > 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"replicas": 0, "ready": 2}, reasons.SCALED_TO_ZERO),
        ({"deleting": True}, reasons.TERMINATING),
        ({"generation": 3, "observed": 2}, reasons.REPLICAS_READY),
        ({"generation": 3, "observed": 2, "ready": 0}, reasons.PROGRESSING),
        ({"ready": -1}, reasons.NO_READY_REPLICA),
        ({"replicas": None}, reasons.REPLICAS_READY),
        ({"generation": 3, "observed": 3}, reasons.REPLICAS_READY),
    ],
)
def test_reasons_of_readiness(fields: dict[str, Any], reason: str) -> None:
    """A workload that is being deleted, is scaled to zero, or reports no replica is not ready, and the reason says
    which; one whose status is old counts as it is reported."""
    assert of(**fields).reason == reason


def test_a_deleted_workload_is_not_ready() -> None:
    """A workload that does not exist has no ready replica."""
    assert (readiness(None).ready, readiness(None).reason) == (0, reasons.WORKLOAD_MISSING)


def test_a_status_without_generation_is_believed() -> None:
    """A status without observedGeneration counts as one of the present generation."""
    item = builders.workload(generation=3)
    del item["status"]["observedGeneration"]
    assert readiness(Workload.of(item)).is_ready


def test_a_workload_without_status_is_not_ready() -> None:
    """A workload that has no status yet has no ready replica."""
    item = builders.workload()
    del item["status"]
    assert readiness(Workload.of(item)).reason == reasons.NO_READY_REPLICA
