"""What holds for the controller whatever it is given: it comes to rest, it is deterministic, and time alone changes
nothing before the moment it announced."""

import copy
import json
from datetime import datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.api.common import format_time
from hooks.observation.observation import DefaultRemote, InstallDefaults, Observation
from hooks.protocol import SyncRequest, SyncResponse
from hooks.reconcile import model_deployment as reconcile
from metacontroller.local.controller import responses
from tests import builders
from tests.builders import DEFAULTS, NOW, TEMPLATE, Cluster, body_of, model_deployment, policy, service, workload

moments = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=2)).map(lambda delta: NOW + delta)
overrides = st.builds(
    lambda percentage, mode, until: {"percentage": percentage, "mode": mode, "until": format_time(until)},
    st.integers(0, 100),
    st.sampled_from(["Normal", "Force"]),
    moments,
)
behaviors = st.fixed_dictionaries(
    {},
    optional={
        "percentage": st.integers(0, 100),
        "notReadyForSeconds": st.integers(0, 3600),
        "override": overrides,
        "overflow": st.builds(lambda number: {"inFlight": number}, st.integers(1, 9)),
    },
)
remotes = st.fixed_dictionaries(
    {"host": st.sampled_from(["m.example.com", "m.example.com:8443", "m:0"])},
    optional={
        "pathPrefix": st.sampled_from(["", "/$workspace/$model", "/../x"]),
        "scheme": st.sampled_from(["http", "https"]),
        "tls": st.sampled_from([{}, {"caBundle": builders.AUTHORITY}, {"caBundle": "none"}]),
        "healthCheck": st.just({"path": "/"}),
        "location": st.sampled_from([{}, {"country": "fr"}, {"country": "us"}, {"country": "xx"}]),
        "headersToAdd": st.dictionaries(
            st.sampled_from(["X-A", "x-b", "Host"]), st.sampled_from(["", "v"]), max_size=2
        ),
    },
)
configs = st.fixed_dictionaries({}, optional={"remoteBackend": remotes, "behavior": behaviors})
references = st.fixed_dictionaries(
    {"name": st.sampled_from(["demo-svc", "missing"])},
    optional={"namespace": st.sampled_from([builders.NAMESPACE, "team-b"]), "targetPort": st.sampled_from([80, 81])},
)
servers = st.fixed_dictionaries(
    {"port": st.just(8000), "template": st.sampled_from([TEMPLATE, {}, {"spec": {"containers": []}}])},
    optional={"replicas": st.integers(0, 3)},
)
specs = st.fixed_dictionaries(
    {"model": st.sampled_from(["llama", "..", "a/b"])},
    optional={
        "enabled": st.booleans(),
        "offloadingConfig": configs,
        "serviceRef": references,
        "metricServiceRef": references,
        "policies": st.lists(st.sampled_from([{"name": "eu"}, *builders.obeys("eu", "gone")]), max_size=2),
        "gateway": st.fixed_dictionaries(
            {},
            optional={
                "serviceName": st.sampled_from(["gw", "demo-local"]),
                "retry": st.sampled_from([{"failover": False}, {"causes": ["503"]}]),
                "queue": st.just({"size": 1}),
                "breaker": st.just({"openSeconds": 1}),
            },
        ),
        "server": servers,
    },
)
worlds = st.lists(
    st.sampled_from(
        [
            *(workload(), workload(ready=0), workload(replicas=0), workload(observed=0)),
            *(service(), service(selector={}), policy(), policy(spec=None)),
        ]
    ),
    max_size=3,
)
defaults = st.sampled_from(
    [
        DEFAULTS,
        InstallDefaults(),
        InstallDefaults(namespaces=frozenset({"other"})),
        InstallDefaults(default_remote=DefaultRemote("h", "https", "/$workspace")),
    ]
)
clusters = st.builds(
    lambda spec, world, installed, server_side: Cluster(
        model_deployment(**({"modelSourceRef": None} if "server" in spec else {}) | spec),
        related=world,
        defaults=installed,
        server_side=server_side,
    ),
    specs,
    worlds,
    defaults,
    st.booleans(),
)


def whole(answer: SyncResponse) -> bytes:
    """Children and status, without the moment of the next sync."""
    return orjson.dumps([answer.children, answer.status])


@given(clusters)
def test_rest_comes_with_the_second_answer(cluster: Cluster) -> None:
    """With workloads and clock standing still, the second answer is repeated byte by byte."""
    cluster.sync()
    second = whole(cluster.sync())
    assert whole(cluster.sync()) == second
    assert whole(cluster.sync()) == second


@given(clusters, specs)
def test_rest_comes_after_an_edit(cluster: Cluster, edited: dict[str, Any]) -> None:
    """The same from any earlier state, also when the edit is a mistake."""
    cluster.settle()
    cluster.edit(**{name: None for name in cluster.parent["spec"] if name not in edited} | edited)
    second = whole(cluster.sync())
    assert whole(cluster.sync()) == second


@given(clusters, st.floats(0, 1, exclude_max=True))
def test_time_alone_changes_nothing_before_the_announced_moment(cluster: Cluster, share: float) -> None:
    """Until resyncAfterSeconds have passed, or ever where there are none, a sync gives the same children and status."""
    answer = cluster.settle()
    later = cluster.after((10**6 if answer.resync_after_seconds is None else answer.resync_after_seconds) * share)
    assert whole(later) == whole(answer)


@given(clusters, st.integers(0, 10**6))
def test_times_are_those_of_transitions(cluster: Cluster, late: int) -> None:
    """Every time in status is the whole second of the sync that changed it, and stays when nothing changes."""
    start = cluster.now
    cluster.now = start + timedelta(microseconds=late % 10**6)
    status = cluster.settle().status
    times = {entry["lastTransitionTime"] for entry in status["conditions"]} | {status["offloading"]["since"]}
    assert times == {format_time(start)}


@given(clusters)
def test_the_same_facts_give_the_same_bytes(cluster: Cluster) -> None:
    """An answer depends on nothing but the facts: not on the order of keys, not on what was asked before."""
    cluster.settle()
    body = builders.request_body(cluster.parent, children=cluster.children, related=cluster.related)
    shuffled = json.loads(json.dumps(body), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    answers_ = [
        reconcile.sync(Observation.of(SyncRequest.from_json(each), cluster.defaults), now=cluster.now)
        for each in (copy.deepcopy(body), body, shuffled)
    ]
    assert len({body_of(answer) for answer in answers_}) == 1
    assert len({route for answer in answers_ if (route := _route_text(answer))}) <= 1


def _route_text(answer: SyncResponse) -> str:
    return next((item["data"]["route.json"] for item in answer.children if item["kind"] == "ConfigMap"), "")


@given(clusters)
def test_every_answer_passes_the_strict_decoder(cluster: Cluster) -> None:
    """Metacontroller reads what was meant, and no answer is one that deletes everything by accident."""
    for answer in (cluster.sync(), cluster.sync()):
        decoded = responses.decode_sync(orjson.dumps(answer.as_json()), strict=True)
        assert decoded.children == answer.children
        assert decoded.status == answer.status
        assert answer.status["conditions"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "server", "name", "behavior", "conditions", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(["spec", "status"]),
    st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1)),  # noqa: DTZ001
)
@settings(max_examples=200)
def test_no_parent_makes_a_sync_fail(value: Any, field: str, now: datetime) -> None:
    """Whatever stands in spec or status, there is an answer."""
    answer = builders.sync(
        model_deployment() | {field: value}, related=[workload()], now=now.replace(tzinfo=NOW.tzinfo)
    )
    assert answer.status["conditions"]
