"""Properties of decisions by metrics, for any memory, measurement and configuration."""

import copy
from datetime import datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.common import format_time
from hooks.kube.quantities import parse
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.protocol import SyncResponse
from tests import builders
from tests.builders import NOW, Cluster, Json, body_of, external, model_deployment, workload

GONE = Unread(reasons.UNREACHABLE, "The source does not respond: start it.")
TRIALS = {"heldShare", "claim", "attempts"}
MEMORY = {"percentage", "reason", "message", "since", "reachedSince", "belowSince", "step", *TRIALS}

seconds = st.integers(-4000, 0) | st.sampled_from([0, -1, -15, -60, -300])
times = seconds.map(lambda number: format_time(NOW + timedelta(seconds=number)))
values = st.integers(0, 300).map(str) | st.sampled_from(["89.999999999", "90", "99.999999999", "100"])
percents = st.integers(0, 100)
behaviors = st.fixed_dictionaries(
    {},
    optional={
        "percentage": percents,
        "mode": st.sampled_from(["fixed", "proportional"]),
        "signal": st.sampled_from(["load", "gauge"]),
        "triggerWindowSeconds": st.sampled_from([0, 15, 60]),
        "releaseWindowSeconds": st.sampled_from([0, 60, 300]),
        "tolerance": st.sampled_from([0, 0.1, 0.5]),
        "stepPercentage": st.integers(1, 100),
        "onMissingMetrics": st.sampled_from(["hold", "release", "offload"]),
        "returnSeconds": st.sampled_from([0, 120]),
    },
)
known_reasons = st.sampled_from(
    [reasons.LOCAL, reasons.METRIC_REACHED, reasons.RELEASING, reasons.METRICS_MISSING, reasons.NO_READY_REPLICA]
)
states = st.fixed_dictionaries(
    {"percentage": percents, "reason": known_reasons, "since": times},
    optional={
        "reachedSince": times,
        "belowSince": times,
        "step": percents,
        "heldShare": percents,
        "claim": st.sampled_from(["Supported", "Blind", "Other"]),
        "attempts": st.fixed_dictionaries({"supported": st.integers(0, 4), "blind": st.integers(0, 3)}),
    },
)


Levels = list[str | Unread]
rests = st.lists(values | st.just(GONE), max_size=2)


def remembering(behavior: Json, state: Any, *levels: str | Unread, now: datetime = NOW, ready: int = 1) -> Cluster:
    """Return a cluster whose ModelDeployment has this behavior, this memory and metrics with these values."""
    metrics = [external(f"queue-{number}") for number in range(len(levels))]
    config = {"remoteBackend": builders.REMOTE, "metrics": metrics, "behavior": behavior}
    parent = model_deployment(offloadingConfig=config, status={"offloading": state})
    cluster = Cluster(parent, related=[workload(ready=ready)], now=now)
    cluster.values = levels
    return cluster


def share(response: SyncResponse) -> int:
    """Return the percentage of status, which is the weight of the remote backend in the route."""
    remote = builders.weights(response).get("remote", 0)
    assert response.status["offloading"]["percentage"] == remote
    return remote


def whole(response: SyncResponse) -> bytes:
    """Return children and status as bytes, without the moment of the next sync."""
    return orjson.dumps([response.children, response.status])


def remembered(response: SyncResponse) -> Json:
    """Return share and windows, without the states of metrics and the reason, which change right after a switch."""
    return {
        name: value for name, value in response.status["offloading"].items() if name in MEMORY - {"reason", "message"}
    }


histories = st.lists(
    st.tuples(values | st.just(GONE), st.sampled_from([0, 1, 15, 60, 61, 120, 300, 301, 2400]), st.none() | percents),
    max_size=8,
)
"""Syncs: the value of the first metric, the seconds since the sync before, and the percentage if that is edited."""


@given(behaviors, histories, values, values, st.sampled_from([0, 1, 15, 61, 301]), rests)
@settings(max_examples=100)
def test_a_higher_value_never_offloads_less(
    behavior: Json, history: list[tuple[str | Unread, int, int | None]], one: str, other: str, after: int, rest: Levels
) -> None:
    """After the same history, and with the same other metrics, a higher value never lowers the share.

    Missing metrics are left out in mode proportional where they count as reached: they ask for a whole step, and a
    measured one only for what it needs.
    """
    if behavior.get("mode") == "proportional" and behavior.get("onMissingMetrics") == "offload":
        rest = [value for value in rest if value is not GONE]
        history = [step for step in history if step[0] is not GONE]
    low, high = sorted((one, other), key=float)
    cluster = remembering(behavior, {}, low, *rest)
    for value, seconds_later, percentage in history:
        if percentage is not None:
            behavior = behavior | {"percentage": percentage}
            cluster.edit(offloadingConfig=cluster.parent["spec"]["offloadingConfig"] | {"behavior": behavior})
        cluster.measure(value, *rest, after=seconds_later)
    shares = [share(copy.deepcopy(cluster).measure(value, *rest, after=after)) for value in (low, high)]
    assert shares[0] <= shares[1]


@given(behaviors, states, st.lists(values | st.just(GONE), min_size=1, max_size=3), st.integers(0, 1))
def test_the_same_facts_give_the_same_response(
    behavior: Json, state: Json, levels: list[str | Unread], ready: int
) -> None:
    """The same request gets the same bytes, whatever was synced before, and is not changed by it."""
    cluster = remembering(behavior, state, *levels, ready=ready)
    given_ = copy.deepcopy(cluster.parent)
    first = body_of(remembering(behavior, state, *levels, ready=ready).sync())
    remembering(behavior, state, "500").sync()
    assert body_of(cluster.sync()) == first
    assert cluster.parent | {"status": None} == given_ | {"status": None}
    assert body_of(remembering(behavior, state, *levels, ready=ready).sync()) == first


@given(behaviors, states, st.lists(values | st.just(GONE), min_size=1, max_size=3), st.integers(0, 999_999))
@settings(max_examples=100)
def test_a_repeated_sync_decides_nothing_anew(
    behavior: Json, state: Json, levels: list[str | Unread], late: int
) -> None:
    """Syncs repeated at the same instant leave share and windows as they are.

    The second response says that metrics settle, the third that the route was written, and from then on no byte
    changes. With onMissingMetrics release there is a window here: without one only new measurements separate the steps
    down, and a missing metric has none.
    """
    if behavior.get("onMissingMetrics") == "release":
        behavior = behavior | {"releaseWindowSeconds": behavior.get("releaseWindowSeconds", 300) or 1}
    cluster = remembering(behavior, state, *levels, now=NOW + timedelta(microseconds=late))
    first, second, third = cluster.sync(), cluster.sync(), cluster.sync()
    assert remembered(first) == remembered(second) == remembered(third)
    assert builders.route(third) == builders.route(second)
    assert whole(cluster.sync()) == whole(third)


@given(behaviors, states, values, st.lists(values, min_size=1, max_size=4), st.integers(0, 15), st.integers(-2, 15))
@settings(max_examples=100)
def test_what_was_read_before_a_change_never_undoes_it(
    behavior: Json, state: Json, value: str, older: list[str], age: int, later: int
) -> None:
    """A replica of hooks whose cache is older than a change of the share leaves it alone, whatever its clock says."""
    cluster = remembering(behavior | {"returnSeconds": 0}, state, value)
    before = state["percentage"]
    cluster.sync()
    changed = share(cluster.sync())
    if changed == before:
        return
    for old in older:
        response = builders.sync(
            cluster.parent,
            now=NOW + timedelta(seconds=later),
            readings=Readings((Reading((Sample("series", parse(old), NOW - timedelta(seconds=age)),)),)),
            children=cluster.children,
            related=cluster.related,
        )
        assert share(response) == changed
        cluster.parent |= {"status": response.status}


garbled = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5) | times,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    garbled
    | st.dictionaries(
        st.sampled_from([*sorted(MEMORY), "metrics", "new"]),
        garbled | st.just(format_time(NOW + timedelta(days=400))) | st.just("2026-02-30T00:00:00Z"),
    ),
    percents,
    values,
)
@settings(max_examples=60)
def test_a_damaged_memory_is_survived(state: Any, percentage: int, value: str) -> None:
    """With any value in the status the share stays within the percentage, and the next cycle is as usual."""
    cluster = remembering({"percentage": percentage, "releaseWindowSeconds": 60}, state, value)
    assert 0 <= share(cluster.sync()) <= percentage
    cluster.measure("200", after=1)
    assert share(cluster.measure("200", after=15)) == percentage
    cluster.measure("0", after=1)
    shares = [share(cluster.measure("0", after=61)) for _ in range(6)]
    assert shares[-1] == 0
    assert shares == sorted(shares, reverse=True)


@given(behaviors, states, values)
@settings(max_examples=60)
def test_status_holds_no_measured_values(behavior: Json, state: Json, value: str) -> None:
    """Status has only the known fields, with times of whole seconds up to now, and no number in a message."""
    cluster = remembering(behavior, state, value)
    offloading = cluster.sync().status["offloading"]
    assert set(offloading) <= {*MEMORY, "metrics"}
    assert not any(letter.isdigit() for letter in offloading["message"])
    assert [set(metric) for metric in offloading["metrics"]] == [{"name", "type", "state"}]
    assert not any(letter.isdigit() for letter in offloading["metrics"][0]["state"])
    for name in ("since", "reachedSince", "belowSince"):
        assert offloading.get(name, "") <= format_time(NOW)
        assert len(offloading.get(name, format_time(NOW))) == len("2026-03-01T12:00:00Z")


@given(
    behaviors,
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 1), values | st.just(GONE)), min_size=1, max_size=12),
)
@settings(max_examples=100)
def test_the_share_is_within_the_percentage_while_replicas_are_ready(
    behavior: Json, course: list[tuple[int, int, str | Unread]]
) -> None:
    """The share is within the percentage while a replica is ready, and 100 otherwise, from the first sync on."""
    cluster = remembering(behavior | {"returnSeconds": 0}, {}, "0")
    for pause, ready, value in course:
        cluster.now += timedelta(seconds=pause)
        cluster.values = (value,)
        decided = share(cluster.set_ready(ready))
        assert decided <= behavior.get("percentage", 100) if ready else decided == 100
