"""The rules of offloading: their order, delays, overrides and the way back."""

import inspect
from datetime import timedelta
from typing import Any

import pytest

from hooks import reasons
from hooks.offloading import rules
from tests import builders
from tests.builders import NOW, Cluster, behavior, model_deployment, override, weights, workload

LATER = "2026-03-01T13:00:00Z"


def split(*, ready: int = 1, now: Any = NOW, **spec: Any) -> tuple[int, str]:
    """Return percentage and reason for the adopted Deployment with this many ready replicas."""
    response = builders.sync(model_deployment(**spec), related=[workload(ready=ready)], now=now)
    return response.status["offloading"]["percentage"], response.status["offloading"]["reason"]


def test_each_rule_is_one_sentence() -> None:
    """The docstring of each rule is the one sentence that the documentation repeats."""
    for rule in rules.RULES:
        sentence = " ".join((inspect.getdoc(rule) or "").split())
        assert sentence.endswith(".")
        assert ". " not in sentence, rule.__name__


def test_rules_are_in_order() -> None:
    """The order of the rules is the order of precedence."""
    assert [rule.__name__ for rule in rules.RULES] == [
        "disabled",
        "nothing_to_offload_to",
        "policy_forbids",
        "forced_override",
        "no_ready_replica",
        "override",
        "returning",
        "metric_reached",
        "metric_missing",
        "release",
        "local",
    ]


@pytest.mark.parametrize(
    ("spec", "ready", "expected"),
    [
        ({}, 1, (0, reasons.LOCAL)),
        ({}, 0, (100, reasons.NO_READY_REPLICA)),
        ({"enabled": False}, 0, (0, reasons.DISABLED)),
        ({"offloadingConfig": None}, 0, (0, reasons.NOT_CONFIGURED)),
        ({"policies": [{"name": "eu"}]}, 0, (0, reasons.REMOTE_POLICY)),
        ({"policies": [{"name": "eu"}], "enabled": False}, 0, (0, reasons.DISABLED)),
        ({"policies": [{"name": "eu"}], "offloadingConfig": None}, 0, (0, reasons.NOT_CONFIGURED)),
        ({"offloadingConfig": override(30)}, 1, (30, reasons.OVERRIDE)),
        ({"offloadingConfig": override(30)}, 0, (100, reasons.NO_READY_REPLICA)),
        ({"offloadingConfig": override(0)}, 1, (0, reasons.OVERRIDE)),
        ({"offloadingConfig": override(0)}, 0, (100, reasons.NO_READY_REPLICA)),
        ({"offloadingConfig": override(30, "Force")}, 1, (30, reasons.OVERRIDE_FORCED)),
        ({"offloadingConfig": override(30, "Force")}, 0, (30, reasons.OVERRIDE_FORCED)),
        ({"offloadingConfig": override(0, "Force")}, 0, (0, reasons.OVERRIDE_FORCED)),
        ({"offloadingConfig": override(30), "enabled": False}, 1, (0, reasons.DISABLED)),
        (
            {"offloadingConfig": override(30, "Force"), "policies": [{"name": "eu"}]},
            1,
            (0, reasons.REMOTE_POLICY),
        ),
        ({"offloadingConfig": override(30, "Force", until="2026-03-01T12:00:00Z")}, 1, (0, reasons.LOCAL)),
        ({"offloadingConfig": override(30, until="2026-03-01T14:00:00+02:00")}, 1, (0, reasons.LOCAL)),
        ({"offloadingConfig": override(30, until="2026-03-01T12:00:01Z")}, 1, (30, reasons.OVERRIDE)),
        ({"offloadingConfig": behavior(percentage=0)}, 0, (100, reasons.NO_READY_REPLICA)),
        ({"offloadingConfig": behavior(percentage=50)}, 1, (0, reasons.LOCAL)),
    ],
)
def test_the_first_rule_that_decides_wins(spec: dict[str, Any], ready: int, expected: tuple[int, str]) -> None:
    """Each rule decides in its case, unless a rule before it decides."""
    assert split(ready=ready, **spec) == expected


@pytest.mark.parametrize(
    ("related", "reason"),
    [
        ([], reasons.WORKLOAD_MISSING),
        ([workload(replicas=0, ready=0)], reasons.SCALED_TO_ZERO),
        ([workload(ready=0, generation=2, observed=1)], reasons.PROGRESSING),
        ([workload(deleting=True)], reasons.TERMINATING),
    ],
)
def test_why_no_replica_is_ready_is_why_requests_go_remote(related: list[builders.Json], reason: str) -> None:
    """When no replica is ready, the reason of the split is the reason why."""
    response = builders.sync(model_deployment(), related=related)
    assert (response.status["offloading"]["percentage"], response.status["offloading"]["reason"]) == (100, reason)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_a_status_that_lags_behind_its_generation_changes_nothing(kind: str) -> None:
    """While a workload is scaled or rolled out, its status is older than its specification for a moment: the old
    replicas serve, and neither status nor route changes."""
    parent = model_deployment(modelSourceRef={"apiVersion": "apps/v1", "kind": kind, "name": "demo"})
    cluster = Cluster(parent, related=[workload(kind, ready=2)])
    before = cluster.settle()
    for generation in (2, 3, 7):
        cluster.related = [workload(kind, ready=2, replicas=3, generation=generation, observed=generation - 1)]
        response = cluster.after(1)
        assert (response.status, response.children) == (before.status, before.children)
        cluster.related = [workload(kind, ready=2, replicas=3, generation=generation)]
        assert cluster.after(1).status == before.status


@pytest.mark.parametrize("percentage", [0, 50, 100])
def test_an_outage_ends_with_the_first_ready_replica(percentage: int) -> None:
    """With the first ready replica after an outage all requests are local again, whatever the percentage is."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(percentage=percentage)), related=[workload()])
    assert weights(cluster.settle()) == {"local": 100, "remote": 0}
    for _ in range(3):
        assert weights(cluster.set_ready(0)) == {"local": 0, "remote": 100}
        assert weights(cluster.set_ready(1)) == {"local": 100, "remote": 0}


def test_a_healthy_workload_alone_never_offloads() -> None:
    """A workload with ready replicas and no metrics is never offloaded."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(percentage=60)), related=[workload()])
    cluster.settle()
    assert weights(cluster.set_ready(2)) == {"local": 100, "remote": 0}


def test_removing_the_configuration_brings_everything_back() -> None:
    """When offloadingConfig is removed, all requests are local, even in the middle of an outage."""
    cluster = Cluster(model_deployment(), related=[workload(ready=0)])
    cluster.settle()
    assert weights(cluster.edit(offloadingConfig=None)) == {"local": 100}


def test_not_ready_for_delays_the_outage() -> None:
    """A short absence of replicas changes nothing; after notReadyForSeconds everything goes remote."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload()])
    cluster.now += timedelta(milliseconds=700)
    cluster.settle()
    response = cluster.set_ready(0)
    assert (weights(response), response.resync_after_seconds) == ({"local": 100, "remote": 0}, 59.3)
    response = cluster.after(30)
    assert (weights(response), response.resync_after_seconds) == ({"local": 100, "remote": 0}, 29.3)
    response = cluster.after(29.3)
    assert weights(response) == {"local": 0, "remote": 100}
    assert weights(cluster.set_ready(1)) == {"local": 100, "remote": 0}


def test_a_recovery_starts_the_delay_anew() -> None:
    """notReadyForSeconds counts from the last moment a replica was ready."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload()])
    cluster.settle()
    cluster.set_ready(0)
    cluster.after(50)
    cluster.set_ready(1)
    cluster.set_ready(0)
    assert weights(cluster.after(59)) == {"local": 100, "remote": 0}
    assert weights(cluster.after(1)) == {"local": 0, "remote": 100}


def test_without_a_way_to_the_replicas_there_is_no_delay() -> None:
    """Without a local backend all requests go to the remote one at once, because waiting would only fail them."""
    parent = model_deployment(offloadingConfig=behavior(notReadyForSeconds=60))
    assert weights(builders.sync(parent)) == {"remote": 100}


def test_a_time_to_come_in_status_delays_nothing() -> None:
    """A transition time in the future, in a status that a user edited, counts as now."""
    held = {"type": "LocalReady", "status": "False", "lastTransitionTime": "2027-01-01T00:00:00Z"}
    parent = model_deployment(status={"conditions": [held]}, offloadingConfig=behavior(notReadyForSeconds=60))
    cluster = Cluster(parent, related=[workload(ready=0)])
    cluster.settle()
    assert weights(cluster.after(60)) == {"local": 0, "remote": 100}


def test_an_override_ends_by_itself() -> None:
    """The response asks for a sync at the end of the override, and that sync takes it back."""
    cluster = Cluster(model_deployment(offloadingConfig=override(30)), related=[workload()])
    response = cluster.settle()
    assert (weights(response), response.resync_after_seconds) == ({"local": 70, "remote": 30}, 3600)
    assert weights(cluster.after(3599)) == {"local": 70, "remote": 30}
    assert weights(cluster.after(1)) == {"local": 100, "remote": 0}


def test_an_override_without_end_in_sight_is_looked_at_daily() -> None:
    """An override that ends centuries from now asks for a sync in a day, a delay that Metacontroller can count."""
    cluster = Cluster(
        model_deployment(offloadingConfig=override(30, until="9999-12-31T23:59:59Z")), related=[workload()]
    )
    assert cluster.settle().resync_after_seconds == 86400


def test_the_nearer_of_two_moments_counts() -> None:
    """With an override and a delay running, the response asks for a sync at the nearer of the two moments."""
    config = behavior(notReadyForSeconds=60, override={"percentage": 30, "until": LATER})
    cluster = Cluster(model_deployment(offloadingConfig=config), related=[workload(ready=0)])
    assert cluster.settle().resync_after_seconds == 60
    assert cluster.after(60).resync_after_seconds == 3540


def test_a_force_without_local_backend_sends_everything_to_the_remote() -> None:
    """A forced override without a local backend sends all requests to the remote one."""
    response = builders.sync(model_deployment(offloadingConfig=override(30, "Force")))
    assert (weights(response), response.status["offloading"]["percentage"]) == ({"remote": 100}, 100)


def test_a_force_to_local_without_local_backend_leaves_nothing() -> None:
    """A forced override of 0 percent takes the remote backend out, even where no local backend exists."""
    response = builders.sync(model_deployment(offloadingConfig=override(0, "Force")))
    assert (weights(response), builders.conditions(response)["Ready"]) == ({}, ("False", reasons.REFERENCES_UNRESOLVED))


def test_requests_come_back_step_by_step_where_asked() -> None:
    """With returnSeconds 60 replicas that are ready again get a quarter at once, and another every fifteen seconds."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(returnSeconds=60)), related=[workload(ready=0)])
    cluster.settle()
    cluster.now += timedelta(minutes=5)
    response = cluster.set_ready(1)
    for percentage in (75, 50, 25):
        assert weights(response)["remote"] == percentage
        assert response.status["offloading"]["reason"] == reasons.RETURNING
        assert response.resync_after_seconds == 15
        assert cluster.sync().status["offloading"] == response.status["offloading"]
        later = cluster.after(14)
        assert (weights(later)["remote"], later.resync_after_seconds) == (percentage, 1)
        response = cluster.after(1)
    assert (response.status["offloading"]["percentage"], response.status["offloading"]["reason"]) == (0, reasons.LOCAL)
    assert response.resync_after_seconds is None


def test_the_way_back_ends_where_a_metric_asks_for_as_much() -> None:
    """The way back ends at the share that metrics ask for, and begins anew after another outage."""
    config = behavior(returnSeconds=4, percentage=40, triggerWindowSeconds=0)
    cluster = Cluster(
        model_deployment(offloadingConfig=config | {"metrics": [builders.external()]}), related=[workload()]
    )
    cluster.values = ("0",)
    cluster.settle()
    assert cluster.measure("100", after=60).status["offloading"]["percentage"] == 40
    cluster.now += timedelta(seconds=1)
    cluster.set_ready(0)
    assert cluster.set_ready(1).status["offloading"]["percentage"] == 75
    cluster.set_ready(0)
    cluster.set_ready(1)
    assert cluster.after(1).status["offloading"]["percentage"] == 50
    response = cluster.after(1)
    assert (response.status["offloading"]["percentage"], response.status["offloading"]["reason"]) == (
        40,
        reasons.METRIC_REACHED,
    )
