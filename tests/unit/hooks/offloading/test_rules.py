"""The rules of offloading, and who remembers what."""

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
    """Percentage and reason for the adopted Deployment with so many ready replicas."""
    answer = builders.sync(model_deployment(**spec), related=[workload(ready=ready)], now=now)
    return answer.status["offloading"]["percentage"], answer.status["offloading"]["reason"]


def test_each_rule_is_one_sentence() -> None:
    """A rule's docstring is the sentence that the documentation repeats."""
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
def test_first_rule_that_answers_wins(spec: dict[str, Any], ready: int, expected: tuple[int, str]) -> None:
    """Each rule decides where it must, and yields to those before it."""
    assert split(ready=ready, **spec) == expected


@pytest.mark.parametrize(
    ("related", "reason"),
    [
        ([], reasons.WORKLOAD_MISSING),
        ([workload(replicas=0, ready=0)], reasons.SCALED_TO_ZERO),
        ([workload(generation=2, observed=1)], reasons.PROGRESSING),
        ([workload(deleting=True)], reasons.TERMINATING),
    ],
)
def test_why_no_replica_is_ready_is_why_requests_go_remote(related: list[builders.Json], reason: str) -> None:
    """The reason of the split is that of the readiness."""
    answer = builders.sync(model_deployment(), related=related)
    assert (answer.status["offloading"]["percentage"], answer.status["offloading"]["reason"]) == (100, reason)


@pytest.mark.parametrize("percentage", [0, 50, 100])
def test_an_outage_ends_with_the_first_ready_replica(percentage: int) -> None:
    """After an outage everything is decided anew, whatever the percentage of behavior is."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(percentage=percentage)), related=[workload()])
    assert weights(cluster.settle()) == {"local": 100, "remote": 0}
    for _ in range(3):
        assert weights(cluster.set_ready(0)) == {"local": 0, "remote": 100}
        assert weights(cluster.set_ready(1)) == {"local": 100, "remote": 0}


def test_a_healthy_workload_alone_never_offloads() -> None:
    """A ready replica means that nothing asks for offloading, not that something does."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(percentage=60)), related=[workload()])
    cluster.settle()
    assert weights(cluster.set_ready(2)) == {"local": 100, "remote": 0}


def test_removing_the_configuration_brings_everything_back() -> None:
    """Without offloadingConfig nothing is offloaded, even in the middle of an outage."""
    cluster = Cluster(model_deployment(), related=[workload(ready=0)])
    cluster.settle()
    assert weights(cluster.edit(offloadingConfig=None)) == {"local": 100}


def test_not_ready_for_delays_the_outage() -> None:
    """A short absence of replicas changes nothing; after notReadyForSeconds everything goes remote."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload()])
    cluster.now += timedelta(milliseconds=700)
    cluster.settle()
    answer = cluster.set_ready(0)
    assert (weights(answer), answer.resync_after_seconds) == ({"local": 100, "remote": 0}, 59.3)
    answer = cluster.after(30)
    assert (weights(answer), answer.resync_after_seconds) == ({"local": 100, "remote": 0}, 29.3)
    answer = cluster.after(29.3)
    assert weights(answer) == {"local": 0, "remote": 100}
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
    """While no local backend exists, waiting for it would only fail requests."""
    parent = model_deployment(offloadingConfig=behavior(notReadyForSeconds=60))
    assert weights(builders.sync(parent)) == {"remote": 100}


def test_a_time_to_come_in_status_delays_nothing() -> None:
    """A transition that somebody dated into the future counts from now on."""
    held = {"type": "LocalReady", "status": "False", "lastTransitionTime": "2027-01-01T00:00:00Z"}
    parent = model_deployment(status={"conditions": [held]}, offloadingConfig=behavior(notReadyForSeconds=60))
    cluster = Cluster(parent, related=[workload(ready=0)])
    cluster.settle()
    assert weights(cluster.after(60)) == {"local": 0, "remote": 100}


def test_an_override_ends_by_itself() -> None:
    """The answer says when the override ends, and then it has."""
    cluster = Cluster(model_deployment(offloadingConfig=override(30)), related=[workload()])
    answer = cluster.settle()
    assert (weights(answer), answer.resync_after_seconds) == ({"local": 70, "remote": 30}, 3600)
    assert weights(cluster.after(3599)) == {"local": 70, "remote": 30}
    assert weights(cluster.after(1)) == {"local": 100, "remote": 0}


def test_an_override_without_end_in_sight_is_looked_at_daily() -> None:
    """A moment centuries away is no delay that Metacontroller could count."""
    cluster = Cluster(
        model_deployment(offloadingConfig=override(30, until="9999-12-31T23:59:59Z")), related=[workload()]
    )
    assert cluster.settle().resync_after_seconds == 86400


def test_the_nearer_of_two_moments_counts() -> None:
    """With an override and a delay running, the answer comes back for whichever is first."""
    config = behavior(notReadyForSeconds=60, override={"percentage": 30, "until": LATER})
    cluster = Cluster(model_deployment(offloadingConfig=config), related=[workload(ready=0)])
    assert cluster.settle().resync_after_seconds == 60
    assert cluster.after(60).resync_after_seconds == 3540


def test_a_force_without_local_backend_sends_everything_to_the_remote() -> None:
    """There is nowhere else for the rest to go."""
    answer = builders.sync(model_deployment(offloadingConfig=override(30, "Force")))
    assert (weights(answer), answer.status["offloading"]["percentage"]) == ({"remote": 100}, 100)


def test_a_force_to_local_without_local_backend_leaves_nothing() -> None:
    """Mode Force 0 takes the remote out even where no local backend exists."""
    answer = builders.sync(model_deployment(offloadingConfig=override(0, "Force")))
    assert (weights(answer), builders.conditions(answer)["Ready"]) == ({}, ("False", reasons.REFERENCES_UNRESOLVED))


def test_requests_come_back_step_by_step_where_asked() -> None:
    """With returnSeconds 60 a replica that is ready again gets a quarter at once, and another every fifteen seconds."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(returnSeconds=60)), related=[workload(ready=0)])
    cluster.settle()
    cluster.now += timedelta(minutes=5)
    answer = cluster.set_ready(1)
    for percentage in (75, 50, 25):
        assert weights(answer)["remote"] == percentage
        assert answer.status["offloading"]["reason"] == reasons.RETURNING
        assert answer.resync_after_seconds == 15
        assert cluster.sync().status["offloading"] == answer.status["offloading"]
        later = cluster.after(14)
        assert (weights(later)["remote"], later.resync_after_seconds) == (percentage, 1)
        answer = cluster.after(1)
    assert (answer.status["offloading"]["percentage"], answer.status["offloading"]["reason"]) == (0, reasons.LOCAL)
    assert answer.resync_after_seconds is None


def test_the_way_back_ends_where_a_metric_asks_for_as_much() -> None:
    """Coming back stops at the share of the metrics, and a replica that is not ready again begins it anew."""
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
    answer = cluster.after(1)
    assert (answer.status["offloading"]["percentage"], answer.status["offloading"]["reason"]) == (
        40,
        reasons.METRIC_REACHED,
    )
