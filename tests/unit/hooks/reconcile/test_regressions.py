"""Bugs of the original controller that this one must not have, each with its number in the list of them.

The measures of C2 to C4 alone are in `test_measures.py`; here they decide about the split.
"""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from hooks import reasons
from hooks.api.metrics import LabelSelector, MetricType
from hooks.kube.pods import RUNNING, Container, Pod
from hooks.kube.quantities import parse
from hooks.metrics import promql, vectors
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.protocol import SyncResponse
from hooks.reconcile import model_deployment as reconcile
from tests import builders
from tests.builders import NOW, Cluster, Json, external, model_deployment, workload

TRIGGER = timedelta(seconds=15)
GONE = Unread(reasons.UNREACHABLE, "The source does not respond: start it.")


def config(*metrics: Json, **behavior: Any) -> Json:
    """Return an offloadingConfig with these metrics and a release window of a minute."""
    return {
        "remoteBackend": builders.REMOTE,
        "metrics": list(metrics),
        "behavior": {"releaseWindowSeconds": 60, **behavior},
    }


def watched(*, kind: str = "Deployment", ready: int = 1, **behavior: Any) -> Cluster:
    """Return a cluster at rest with a ModelDeployment whose only metric has the target 100 and the value 0."""
    parent = model_deployment(
        offloadingConfig=config(external(), **behavior),
        modelSourceRef={"apiVersion": "apps/v1", "kind": kind, "name": "demo"},
    )
    cluster = Cluster(parent, related=[workload(kind, ready=ready, replicas=3)])
    cluster.values = ("0",)
    cluster.settle()
    return cluster


def share(response: SyncResponse) -> int:
    """Return the percentage that the route sends to the remote backend, which status has too."""
    remote = builders.weights(response).get("remote", 0)
    assert response.status["offloading"]["percentage"] == remote
    return remote


def pods(*requests: str | None) -> tuple[Pod, ...]:
    """Return a ready pod with a container `server` for each request for cpu; None requests nothing."""
    return tuple(
        Pod(
            f"demo-{number}",
            RUNNING,
            ready=True,
            ready_since=NOW - timedelta(hours=1),
            terminating=False,
            containers=(Container("server", {} if amount is None else {"cpu": parse(amount)}),),
            requests={},
        )
        for number, amount in enumerate(requests)
    )


def usage(*values: str) -> tuple[Sample, ...]:
    """Return a sample of cpu for each of those pods."""
    return tuple(
        Sample(f"demo-{number}", parse(value), NOW, timedelta(0), "server") for number, value in enumerate(values)
    )


def decided(metric: Json, reading: Reading, serving: tuple[Pod, ...] = (), *, ready: int = 1) -> SyncResponse:
    """Return the response for a model with one metric, percentage 50 and no trigger window."""
    parent = model_deployment(offloadingConfig=config(metric, percentage=50, triggerWindowSeconds=0))
    observation = builders.observation(parent, related=[workload(ready=ready, replicas=ready)])
    return reconcile.sync(dataclasses.replace(observation, readings=Readings((reading,), serving)), now=NOW)


def utilization(percent: int, **source: str) -> Json:
    """Return a metric of cpu, of the pod or of a container."""
    kind = "ContainerResource" if source else "Resource"
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": kind, f"{kind[0].lower()}{kind[1:]}": {"name": "cpu", "target": target, **source}}


@pytest.mark.parametrize("percentage", [1, 50, 100])
def test_c1a_metrics_offload_again_after_a_release(percentage: int) -> None:
    """C1a: the original never offloaded again after a release; here every cycle is like the first."""
    cluster = watched(percentage=percentage)
    for _ in range(4):
        assert share(cluster.measure("150", after=1)) == 0
        assert share(cluster.measure("150", after=15)) == percentage
        cluster.measure("0", after=1)
        shares = [share(cluster.measure("0", after=60)) for _ in range(4)]
        assert shares[-1] == 0
        cluster.measure("0", after=600)


@pytest.mark.parametrize("percentage", [1, 50, 100])
def test_c1b_a_healthy_workload_offloads_nothing(percentage: int) -> None:
    """C1b: the original offloaded at any change of a healthy workload; here only a metric offloads."""
    cluster = watched(percentage=percentage, ready=2)
    for ready in (1, 2, 3, 2):
        assert share(cluster.set_ready(ready)) == 0
        cluster.related[0]["metadata"]["labels"] = {"changed": str(ready)}
        assert share(cluster.after(10)) == 0


@pytest.mark.parametrize("percentage", [1, 99, 100])
@pytest.mark.parametrize("load", ["0", "150"])
def test_c1c_an_outage_ends(percentage: int, load: str) -> None:
    """C1c: the original stayed remote for good after an outage; here metrics count as soon as a replica is ready."""
    cluster = watched(percentage=percentage)
    expected = 0
    if load != "0":
        cluster.measure(load, after=1)
        expected = share(cluster.measure(load, after=15))
        assert expected == percentage
    cluster.now += timedelta(seconds=1)
    assert share(cluster.set_ready(0)) == 100
    assert share(cluster.after(3600)) == 100
    cluster.now += timedelta(seconds=1)
    back = cluster.set_ready(1)
    assert share(back) == expected
    assert builders.conditions(back)["LocalReady"] == ("True", reasons.REPLICAS_READY)
    shares = [share(cluster.measure("0", after=60)) for _ in range(8)]
    assert shares[-1] == 0
    cluster.measure("0", after=3600)
    cluster.measure("100", after=1)
    assert share(cluster.measure("100", after=15)) == percentage


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_c2_replicas_at_their_target_offload_however_many_they_are(replicas: int) -> None:
    """C2: the original divided by the replicas twice; here 90 percent is the target however many replicas there are."""
    serving = pods(*["500m"] * replicas)
    at, below = usage(*["450m"] * replicas), usage(*["449m"] * replicas)
    assert share(decided(utilization(90), Reading(at), serving, ready=replicas)) == 50
    assert share(decided(utilization(90), Reading(below), serving, ready=replicas)) == 0


def described(kind: str, target: str, amount: str) -> Json:
    """Return a metric of this type with this target."""
    source: Json = {"metric": {"name": "queue"}}
    if kind == "Object":
        source["describedObject"] = {"apiVersion": "v1", "kind": "Service", "name": "demo"}
    field = "averageValue" if target == "AverageValue" else "value"
    return {"type": kind, kind.lower(): {**source, "target": {"type": target, field: amount}}}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("Pods", "AverageValue"),
        ("Object", "Value"),
        ("Object", "AverageValue"),
        ("External", "Value"),
        ("External", "AverageValue"),
    ],
)
def test_c3_high_load_offloads_and_low_load_does_not(kind: str, target: str) -> None:
    """C3: the original compared the wrong way round, and thousandths with whole units."""
    name = "demo-0" if kind == "Pods" else "demo"
    for amount, value, expected in (
        ("10", "10", 50),
        ("10", "9999m", 0),
        ("10", "10000m", 50),
        ("10000m", "9", 0),
        ("10", "1k", 50),
        ("10", "1", 0),
    ):
        reading = Reading((Sample(name, parse(value), NOW),))
        response = decided(described(kind, target, amount), reading, pods("1"))
        assert share(response) == expected, (amount, value)


def test_c4_a_container_is_not_taken_for_a_resource() -> None:
    """C4: the original asked for a resource named like the container; here it is the cpu of the container."""
    response = decided(utilization(90, container="server"), Reading(usage("450m")), pods("500m"))
    assert share(response) == 50
    assert response.status["offloading"]["metrics"][0]["name"] == "server/cpu"


def test_c4_another_object_is_not_the_described_one() -> None:
    """C4: the original ignored describedObject; here a sample of another object does not count."""
    metric = described("Object", "Value", "10")
    other = decided(metric, Reading((Sample("other", parse("99"), NOW),)))
    assert share(other) == 0
    assert builders.conditions(other)["MetricsAvailable"] == ("False", reasons.NO_SAMPLE)
    assert share(decided(metric, Reading((Sample("demo", parse("99"), NOW),)))) == 50


@pytest.mark.parametrize("amount", [None, "0"])
def test_c4_no_requests_are_a_condition(amount: str | None) -> None:
    """C4: the original divided by zero; here the condition has the reason, and nothing is offloaded."""
    response = decided(utilization(90), Reading(usage("450m")), pods(amount))
    assert share(response) == 0
    assert builders.conditions(response)["MetricsAvailable"] == ("False", reasons.NO_REQUESTS)


@pytest.mark.parametrize("metric", [{"type": kind} for kind in MetricType])
def test_c4_a_metric_that_is_not_described_is_a_condition(metric: Json) -> None:
    """C4: the original read a field that was absent; here the condition names the field."""
    response = decided(metric, Reading())
    assert share(response) == 0
    assert builders.conditions(response)["MetricsAvailable"] == ("False", reasons.MISDECLARED)
    message = builders.condition(response, "MetricsAvailable")["message"]
    assert f"{metric['type'][0].lower()}{metric['type'][1:]}" in message


def test_c4_an_unknown_type_is_no_crash() -> None:
    """C4: the original ended its process; here the specification is not accepted, and the message names the field."""
    response = decided({"type": "Weather"}, Reading())
    assert builders.conditions(response)["Accepted"] == ("False", reasons.INVALID_SPEC)
    assert "metrics" in builders.condition(response, "Accepted")["message"]


def test_c5_selectors_are_one_set_of_matchers() -> None:
    """C5: the original wrote `a{x="1"}{y="2"}`, and a rate around queries; here a query stays as it is."""
    labels = LabelSelector.model_validate({"matchLabels": {"y": "2", "x": "1"}})
    assert promql.selected("a", labels) == 'a{x="1",y="2"}'
    for query in ("a", 'sum(rate(a{b="c"}[5m]))', "a / b"):
        assert promql.selected(query, None) == query
        assert promql.selected(query, LabelSelector()) == query


def test_c5_a_scalar_is_its_value() -> None:
    """C5: the original decoded the type of a scalar instead of its value."""
    response = {"data": {"resultType": "scalar", "result": [NOW.timestamp(), "42.5"]}}
    (point,) = vectors.points(response)
    assert (point.value, point.time) == (parse("42.5"), NOW)


@pytest.mark.parametrize(
    ("metric", "reading"),
    [
        (external(), Reading((Sample("any", parse("200"), NOW + TRIGGER),))),
        (utilization(50), Reading(tuple(dataclasses.replace(one, time=NOW + TRIGGER) for one in usage("1")))),
    ],
    ids=lambda value: "" if isinstance(value, Reading) else value["type"],
)
def test_c5_the_window_is_the_same_for_every_source(metric: Json, reading: Reading) -> None:
    """C5: the original applied the trigger window to some sources only; here it holds for each."""
    cluster = Cluster(model_deployment(offloadingConfig=config(metric, percentage=50)), related=[workload()])
    shares = []
    for _ in range(16):
        observation = builders.observation(cluster.parent, children=cluster.children, related=cluster.related)
        known = Readings((reading,), pods("1"))
        response = reconcile.sync(dataclasses.replace(observation, readings=known), now=cluster.now)
        cluster.parent |= {"status": response.status}
        shares.append(share(response))
        cluster.now += timedelta(seconds=1)
    assert shares == [0] * 15 + [50]


@pytest.mark.parametrize("window", [0, 5, 60, 3600])
def test_c6_windows_are_configured(window: int) -> None:
    """C6: the original had its windows in its code; here both are in the specification, and the one back is a minute at
    least."""
    cluster = watched(percentage=50, triggerWindowSeconds=window, releaseWindowSeconds=window)
    for value, before, after, seconds in (("100", 0, 50, window), ("0", 50, 0, max(window, 60))):
        first = share(cluster.measure(value, after=1))
        if seconds:
            assert first == share(cluster.measure(value, after=seconds - 1)) == before
            first = share(cluster.measure(value, after=1))
        assert first == after


def test_c6_a_metric_that_cannot_be_read_is_a_condition() -> None:
    """C6: the original only logged that a metric was unreadable; here the condition says so, and a setting decides."""
    for setting, expected in (("hold", 50), ("release", 0), ("offload", 50)):
        cluster = watched(percentage=50, onMissingMetrics=setting)
        cluster.measure("100", after=1)
        cluster.measure("100", after=15)
        gone = cluster.measure(GONE, after=1)
        assert builders.conditions(gone)["MetricsAvailable"] == ("False", reasons.UNREACHABLE)
        assert share(cluster.measure(GONE, after=60)) == expected, setting


def test_c6_a_value_around_its_target_does_not_flap() -> None:
    """C6: the original followed every value; here a value around its target changes nothing, up or down."""
    cluster = watched(percentage=50)
    for _ in range(20):
        assert share(cluster.measure("101", after=10)) == 0
        assert share(cluster.measure("99", after=10)) == 0
    cluster.measure("101", after=1)
    assert share(cluster.measure("101", after=15)) == 50
    for _ in range(20):
        assert share(cluster.measure("91", after=30)) == 50
        assert share(cluster.measure("101", after=20)) == 50
    for _ in range(20):
        assert share(cluster.measure("44", after=30)) == 50
        assert share(cluster.measure("96", after=30)) == 50


def test_c6b_a_deleted_workload_is_not_healthy() -> None:
    """C6b: the original reported ready replicas of a deleted workload; here it has none, nor while it is deleted."""
    cluster = watched(percentage=50)
    cluster.related = [workload(deleting=True)]
    assert share(cluster.sync()) == 100
    cluster.related = []
    missing = cluster.after(1)
    assert share(missing) == 100
    assert builders.conditions(missing)["LocalReady"] == ("False", reasons.WORKLOAD_MISSING)
    cluster.related = [workload()]
    assert share(cluster.after(1)) == 0


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
@pytest.mark.parametrize(("ready", "expected"), [(0, 100), (1, 0), (3, 0)])
def test_c6b_one_rule_for_every_kind(kind: str, ready: int, expected: int) -> None:
    """C6b: the original needed all replicas of a ReplicaSet; here one is enough for each kind."""
    assert share(watched(kind=kind, ready=ready).sync()) == expected


def test_c6b_metrics_of_a_daemon_set_work() -> None:
    """C6b: the original needed a scale subresource, which a DaemonSet does not have."""
    cluster = watched(kind="DaemonSet", ready=3, percentage=50)
    cluster.measure("100", after=1)
    assert share(cluster.measure("100", after=15)) == 50


def test_c16_false_and_zero_are_values() -> None:
    """C16: the original's writes turned `enabled: false` and `percentage: 0` into their defaults; here they count."""
    cluster = watched(percentage=0)
    cluster.measure("500", after=1)
    response = cluster.measure("500", after=15)
    assert share(response) == 0
    assert cluster.parent["spec"]["offloadingConfig"]["behavior"]["percentage"] == 0
    disabled = cluster.edit(enabled=False)
    assert share(disabled) == 0
    assert disabled.status["offloading"]["reason"] == reasons.DISABLED
    assert set(disabled.as_json()) <= {"status", "children", "resyncAfterSeconds"}
    assert all(child["kind"] != "ModelDeployment" for child in (*response.children, *disabled.children))
