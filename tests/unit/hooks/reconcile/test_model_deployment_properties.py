"""Properties of the controller of a ModelDeployment for any input.

It comes to rest, it is deterministic, and time alone changes nothing before the moment that it announced.
"""

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


def whole(response: SyncResponse) -> bytes:
    """Return children and status of a response, without the seconds until the next sync."""
    return orjson.dumps([response.children, response.status])


@given(clusters)
def test_the_second_response_is_repeated(cluster: Cluster) -> None:
    """While the facts and the clock stay the same, the second response is repeated byte by byte."""
    cluster.sync()
    second = whole(cluster.sync())
    assert whole(cluster.sync()) == second
    assert whole(cluster.sync()) == second


@given(clusters, specs)
def test_the_second_response_after_an_edit_is_repeated(cluster: Cluster, edited: dict[str, Any]) -> None:
    """After an edit, accepted or not, the second response is repeated byte by byte."""
    cluster.settle()
    cluster.edit(**{name: None for name in cluster.parent["spec"] if name not in edited} | edited)
    second = whole(cluster.sync())
    assert whole(cluster.sync()) == second


@given(clusters, st.floats(0, 1, exclude_max=True))
def test_time_alone_changes_nothing_before_the_announced_moment(cluster: Cluster, share: float) -> None:
    """Before resyncAfterSeconds have passed, or ever without them, a sync gives the same children and status."""
    response = cluster.settle()
    later = cluster.after((10**6 if response.resync_after_seconds is None else response.resync_after_seconds) * share)
    assert whole(later) == whole(response)


@given(clusters, st.integers(0, 10**6))
def test_times_are_those_of_transitions(cluster: Cluster, late: int) -> None:
    """Every time in a status is the whole second of the sync that changed something, and stays when nothing changes."""
    start = cluster.now
    cluster.now = start + timedelta(microseconds=late % 10**6)
    status = cluster.settle().status
    times = {entry["lastTransitionTime"] for entry in status["conditions"]} | {status["offloading"]["since"]}
    assert times == {format_time(start)}


@given(clusters)
def test_the_same_facts_give_the_same_bytes(cluster: Cluster) -> None:
    """A response depends on the facts alone: neither on the order of keys nor on earlier requests."""
    cluster.settle()
    body = builders.request_body(cluster.parent, children=cluster.children, related=cluster.related)
    shuffled = json.loads(json.dumps(body), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    all_responses = [
        reconcile.sync(Observation.of(SyncRequest.from_json(each), cluster.defaults), now=cluster.now)
        for each in (copy.deepcopy(body), body, shuffled)
    ]
    assert len({body_of(response) for response in all_responses}) == 1
    assert len({route for response in all_responses if (route := _route_text(response))}) <= 1


def _route_text(response: SyncResponse) -> str:
    return next((item["data"]["route.json"] for item in response.children if item["kind"] == "ConfigMap"), "")


@given(clusters)
def test_every_response_passes_the_strict_decoder(cluster: Cluster) -> None:
    """Every response passes Metacontroller's strict decoder and keeps its meaning."""
    for response in (cluster.sync(), cluster.sync()):
        decoded = responses.decode_sync(orjson.dumps(response.as_json()), strict=True)
        assert decoded.children == response.children
        assert decoded.status == response.status
        assert response.status["conditions"]


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
    """Whatever spec or status hold, there is a response."""
    response = builders.sync(
        model_deployment() | {field: value}, related=[workload()], now=now.replace(tzinfo=NOW.tzinfo)
    )
    assert response.status["conditions"]
