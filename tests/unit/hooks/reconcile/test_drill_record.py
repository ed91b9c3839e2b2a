"""The record of a drill by hand: an override of mode Drill, and what came of it."""

from datetime import timedelta
from typing import Any

import pytest

from hooks import reasons
from hooks.observation.drills import Drill
from hooks.protocol import SyncResponse
from hooks.reconcile.drill_record import LATE
from hooks.reconcile.resync import SOON_SECONDS
from tests.builders import NOW, Cluster, Json, backends, conditions, model_deployment, override, weights, workload

UNTIL = "2026-03-01T12:02:00Z"
SUCCESS = Drill(reasons.PROVEN, "", 0, succeeded=NOW + timedelta(seconds=50), served=NOW + timedelta(seconds=50))
CONNECTED = Drill(reasons.PROVEN, "", 0, succeeded=NOW + timedelta(seconds=50), request="none")
OLD = Drill(reasons.PROVEN, "", 0, succeeded=NOW - timedelta(hours=1))
REFUSED = Drill(reasons.TOKEN_REFUSED, "Correct the client secret.", 3)


def begun() -> Cluster:
    """Return a cluster whose model is in a drill of 20 % until two minutes from now."""
    cluster = Cluster(model_deployment(offloadingConfig=override(20, "Drill", UNTIL)), related=[workload()])
    assert weights(cluster.settle()) == {"local": 80, "remote": 20}
    return cluster


def record(response: SyncResponse) -> Json | None:
    """Return the record in the status."""
    found: Json | None = response.status["offloading"].get("drill")
    return found


def outcome(response: SyncResponse) -> str:
    """Return the outcome in the record."""
    return str((record(response) or {})["outcome"])


def test_it_runs_like_a_normal_override() -> None:
    """While it lasts the record says so, and the split is that of an override; without a ready replica all requests go
    to the remote backend nevertheless."""
    cluster = begun()
    response = cluster.sync()
    assert conditions(response)["Offloading"] == ("True", reasons.OVERRIDE)
    assert record(response) == {
        "percentage": 20,
        "since": "2026-03-01T12:00:00Z",
        "until": UNTIL,
        "outcome": "Running",
        "message": "It lasts.",
    }
    assert weights(cluster.set_ready(0)) == {"local": 0, "remote": 100}
    assert outcome(cluster.sync()) == "Running"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((OLD, SUCCESS), "Passed"),
        ((OLD,), "Unproven"),
        ((CONNECTED,), "Unproven"),
        ((), "Unproven"),
        ((REFUSED,), "Failed"),
    ],
)
def test_what_came_of_it(found: tuple[Drill, ...], expected: str) -> None:
    """At its end it has passed if a gateway reports that the remote backend has served since it began, for which a
    connection is not enough, and failed if every gateway fails; the record stays, and the split is that of the metrics
    again."""
    cluster = begun()
    for _ in range(3):
        cluster.drill(*found, after=30)
    response = cluster.drill(*found, after=30)
    assert outcome(response) == expected
    assert weights(response) == {"local": 100, "remote": 0}
    assert record(cluster.after(3600)) == record(response)


def test_what_gateways_report_after_its_end_counts() -> None:
    """At the end what gateways reported before is not the last word: it waits for a reading from after the end, and is
    synced for it soon."""
    cluster = begun()
    cluster.drill(OLD, after=115)
    waiting = cluster.after(5)
    assert (outcome(waiting), weights(waiting)) == ("Running", {"local": 100, "remote": 0})
    assert waiting.resync_after_seconds == pytest.approx(SOON_SECONDS, rel=0.11)
    assert outcome(cluster.drill(SUCCESS)) == "Passed"


def test_it_does_not_wait_forever() -> None:
    """Where gateways report nothing after its end, it is unproven in the end."""
    cluster = begun()
    cluster.drill(OLD, after=115)
    assert outcome(cluster.after(5)) == "Running"
    assert outcome(cluster.after(LATE.seconds)) == "Unproven"


def test_it_fails_at_once() -> None:
    """A remote backend that is found not to serve ends the record before the override ends, with the reason."""
    cluster = begun()
    cluster.drill(REFUSED)
    response = cluster.drill(REFUSED)
    assert (outcome(response), weights(response)["remote"]) == ("Failed", 20)
    assert (record(response) or {})["message"] == REFUSED.message
    cluster.drill(SUCCESS)
    cluster.drill(SUCCESS)
    assert outcome(cluster.after(600)) == "Failed"


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"behavior": {}}, "Interrupted"), (override(30), "Interrupted"), (override(50, "Drill", UNTIL), "Running")],
)
def test_a_change_interrupts_it(config: Json, expected: str) -> None:
    """An override that is changed or taken away interrupts it; another drill begins a record of its own."""
    cluster = begun()
    config = {**cluster.parent["spec"]["offloadingConfig"], **config}
    assert outcome(cluster.edit(offloadingConfig=config)) == expected


def test_a_specification_that_is_not_accepted_keeps_it() -> None:
    """The record stays while the specification is not accepted, and goes on after that."""
    cluster = begun()
    assert outcome(cluster.edit(serviceRef={"name": "x", "namespace": "team-b"})) == "Running"
    assert outcome(cluster.edit(serviceRef=None)) == "Running"


@pytest.mark.parametrize(
    "spec", [{"enabled": False}, {"offloadingConfig": override(20, "Drill", "2026-03-01T11:00:00Z")}]
)
def test_nothing_is_recorded_where_nothing_is_tried(spec: dict[str, Any]) -> None:
    """An override that is not in force, or has ended, begins no record."""
    fields = {"offloadingConfig": override(20, "Drill", UNTIL)} | spec
    cluster = Cluster(model_deployment(**fields), related=[workload()])
    assert record(cluster.settle()) is None


@pytest.mark.parametrize(
    "damaged", [{"outcome": "Odd"}, {"percentage": 101}, {"since": "soon"}, {"until": 5}, {"percentage": True}]
)
def test_a_record_that_cannot_be_read_is_forgotten(damaged: Json) -> None:
    """A record that a user has damaged is as none: the drill begins anew."""
    cluster = begun()
    status = cluster.parent["status"]
    drill = {**status["offloading"]["drill"], **damaged}
    cluster.parent = {**cluster.parent, "status": {**status, "offloading": {**status["offloading"], "drill": drill}}}
    response = cluster.after(10)
    assert (record(response) or {})["since"] == "2026-03-01T12:00:10Z"
    assert "remote" in backends(response)
