"""Desired children: whole, in stored form, and only what we own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import v1alpha1 as routes
from gateway.api.vocabulary import FailureCause
from hooks import reasons
from hooks.observation.observation import InstallDefaults
from tests import builders
from tests.builders import (
    AUTHORITY,
    TEMPLATE,
    Cluster,
    backend,
    backends,
    behavior,
    child,
    conditions,
    model_deployment,
    override,
    route,
    served,
    service,
    sync,
    weights,
    workload,
)

BOTH = ["weighted", "failover"]


def use(answer: Any) -> dict[str, list[str]]:
    """What each backend of the document may be chosen for."""
    document, _ = routes.read(child(answer, "ConfigMap")["data"]["route.json"])
    return {backend.id: list(map(str, backend.use)) for backend in document.backends}


@pytest.mark.parametrize(
    ("spec", "ready", "weights_", "uses"),
    [
        ({}, 1, {"local": 100, "remote": 0}, {"local": BOTH, "remote": BOTH}),
        ({}, 0, {"local": 0, "remote": 100}, {"local": BOTH, "remote": BOTH}),
        ({"offloadingConfig": None}, 1, {"local": 100}, {"local": BOTH}),
        ({"enabled": False}, 0, {"local": 100}, {"local": BOTH}),
        ({"policies": [{"name": "eu"}]}, 0, {"local": 100}, {"local": BOTH}),
        ({"offloadingConfig": behavior(percentage=0)}, 1, {"local": 100, "remote": 0}, {"local": BOTH, "remote": BOTH}),
        ({"offloadingConfig": override(0)}, 1, {"local": 100, "remote": 0}, {"local": BOTH, "remote": BOTH}),
        ({"offloadingConfig": override(100)}, 1, {"local": 0, "remote": 100}, {"local": BOTH, "remote": BOTH}),
        ({"offloadingConfig": override(30)}, 1, {"local": 70, "remote": 30}, {"local": BOTH, "remote": BOTH}),
        ({"offloadingConfig": override(0, "Force")}, 0, {"local": 100}, {"local": BOTH}),
        ({"offloadingConfig": override(100, "Force")}, 1, {"remote": 100}, {"remote": BOTH}),
        ({"offloadingConfig": override(30, "Force")}, 0, {"local": 70, "remote": 30}, {"local": BOTH, "remote": BOTH}),
        (
            {"gateway": {"retry": {"failover": False}}},
            1,
            {"local": 100, "remote": 0},
            {"local": ["weighted"], "remote": ["weighted"]},
        ),
        (
            {"gateway": {"retry": {"failover": False}}, "offloadingConfig": override(30)},
            1,
            {"local": 70, "remote": 30},
            {"local": ["weighted"], "remote": ["weighted"]},
        ),
        (
            {"offloadingConfig": behavior(overflow={"inFlight": 8})},
            1,
            {"local": 100, "remote": 0},
            {"local": BOTH, "remote": [*BOTH, "overflow"]},
        ),
        (
            {
                "gateway": {"retry": {"failover": False}},
                "offloadingConfig": behavior(overflow={"inFlight": 8}, percentage=0),
            },
            1,
            {"local": 100, "remote": 0},
            {"local": ["weighted"], "remote": ["weighted", "overflow"]},
        ),
        (
            {"policies": [{"name": "eu"}], "offloadingConfig": behavior(overflow={"inFlight": 8})},
            1,
            {"local": 100},
            {"local": BOTH},
        ),
        ({"gateway": {"serviceName": "gw"}}, 1, {"local": 100, "remote": 0}, {"local": BOTH, "remote": BOTH}),
    ],
)
def test_what_a_backend_may_be_chosen_for(
    spec: builders.Json, ready: int, weights_: dict[str, int], uses: dict[str, list[str]]
) -> None:
    """Who is in the document, with which weight, and for what."""
    answer = sync(model_deployment(**spec), related=[workload(ready=ready)])
    assert (weights(answer), use(answer)) == (weights_, uses)


specs = st.fixed_dictionaries(
    {
        "enabled": st.booleans(),
        "policies": st.sampled_from([[], [{"name": "eu"}]]),
        "gateway": st.sampled_from([None, {"retry": {"failover": False}}, {"retry": {"failover": True}}]),
        "offloadingConfig": st.none()
        | st.builds(
            lambda config, more: config | {"behavior": config["behavior"] | more},
            st.builds(override, st.sampled_from([0, 1, 50, 100]), st.sampled_from(["Normal", "Force"]))
            | st.builds(lambda seconds: behavior(notReadyForSeconds=seconds), st.sampled_from([0, 60])),
            st.sampled_from([{}, {"percentage": 0}, {"overflow": {"inFlight": 8}}]),
        ),
    }
)


@given(specs, st.booleans(), st.sampled_from([0, 1]))
def test_a_backend_is_in_the_document_iff_some_request_may_reach_it(
    spec: builders.Json, exists: bool, ready: int
) -> None:
    """Presence follows from what is allowed, weight from what is decided, and the weights are whole."""
    answer = sync(model_deployment(**spec), related=[workload(ready=ready)] if exists else [])
    config = spec["offloadingConfig"]
    forced = ((config or {}).get("behavior") or {}).get("override") or {}
    force = forced.get("percentage") if forced.get("mode") == "Force" else None
    may_remote = spec["enabled"] and not spec["policies"] and config is not None
    expected = set()
    if exists and not (may_remote and force == 100):
        expected.add("local")
    if may_remote and force != 0:
        expected.add("remote")
    assert set(backends(answer)) == expected
    assert sum(weights(answer).values()) == (100 if expected else 0)
    assert weights(answer).get("remote", 0) == route(answer).get("split", {}).get("percentage", 0)
    assert answer.status["offloading"]["percentage"] == weights(answer).get("remote", 0)
    assert answer.status["offloadingStatus"] == (weights(answer).get("remote", 0) > 0)
    failover = (spec["gateway"] or {}).get("retry", {}).get("failover", True)
    assert all(("failover" in entry) == failover for entry in use(answer).values())
    limited = "overflow" in ((config or {}).get("behavior") or {})
    overflows = {id_ for id_, entry in use(answer).items() if "overflow" in entry}
    assert overflows == ({"remote"} if limited and expected == {"local", "remote"} else set())
    assert backends(answer).get("local", {}).get("inFlight") == (8 if limited and "local" in expected else None)


def test_a_whole_document() -> None:
    """Every field of the specification arrives where the gateway reads it."""
    parent = model_deployment(
        serviceRef={"name": "demo-svc", "targetPort": 80},
        offloadingConfig=backend(
            host="models.example.com:8443",
            pathPrefix="/$workspace/$model",
            headersToAdd={"X-Team": "search"},
            headers=[{"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            authConfig={"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": "s"}}},
            tls={
                "serverName": "inner.example.com",
                "caBundle": AUTHORITY,
                "clientCertificateRef": {"name": "certificate"},
            },
            healthCheck={"path": "/up", "healthyThreshold": 2},
        )
        | {"behavior": {"overflow": {"inFlight": 8}}},
        gateway={
            "serviceName": "demo-gw",
            "localModel": "llama-local",
            "timeouts": {"connectSeconds": 1, "firstByteSeconds": 2, "idleSeconds": 3.5},
            "bodyLimitBytes": 0,
            "retry": {"causes": ["503", "firstByteTimeout", "503"], "bodyBytes": 0},
            "breaker": {"consecutiveFailures": 1, "errorPercentage": 50, "minimumRequests": 9, "openSeconds": 3},
            "queue": {"size": 7, "waitSeconds": 2},
            "healthCheck": {"path": "/health", "intervalSeconds": 2, "timeoutSeconds": 1, "unhealthyThreshold": 4},
        },
    )
    document = route(sync(parent, related=[workload(), service()]))
    assert document.pop("hash")
    assert document == {
        "apiVersion": "gateway.beamlit.com/v1alpha1",
        "name": "demo",
        "serviceNames": ["demo-gw", "demo-svc"],
        "clusterIps": ["10.96.0.7"],
        "backends": [
            {
                "id": "local",
                "service": "demo-local",
                "port": 80,
                "weight": 100,
                "model": "llama-local",
                "inFlight": 8,
                "health": {"path": "/health", "interval": 2.0, "timeout": 1.0, "unhealthy": 4},
            },
            {
                "id": "remote",
                "host": "models.example.com",
                "port": 8443,
                "scheme": "https",
                "pathPrefix": "/acme/llama",
                "model": "llama",
                "headers": {"set": {"x-team": "search"}, "setFrom": {"x-key": {"name": "s", "key": "k"}}},
                "credentials": {"oauth2": {"name": "s"}},
                "use": ["weighted", "failover", "overflow"],
                "tls": {
                    "serverName": "inner.example.com",
                    "caBundle": AUTHORITY,
                    "clientCertificate": "certificate",
                },
                "health": {"path": "/up", "healthy": 2},
            },
        ],
        "retry": {"on": ["firstByteTimeout", "503"], "bodyBytes": 0},
        "breaker": {"consecutiveFailures": 1, "minimum": 9, "open": 3.0},
        "queue": {"size": 7, "wait": 2.0},
        "timeouts": {"connect": 1.0, "firstByte": 2.0, "idle": 3.5},
        "limits": {"bodyBytes": 0},
    }


def test_what_says_nothing_new_is_left_out() -> None:
    """Defaults of the API are those of the document: an object without fields changes no byte."""
    plain = sync(model_deployment(), related=[workload()])
    gateway = {"retry": {"failover": True}, "breaker": {}}
    said = sync(model_deployment(gateway=gateway, offloadingConfig=backend(tls={})), related=[workload()])
    assert child(said, "ConfigMap") == child(plain, "ConfigMap")
    checked = model_deployment(gateway={"healthCheck": {"path": "/"}})
    assert backends(sync(checked, related=[workload()]))["local"]["health"] == {"path": "/"}
    waiting = model_deployment(gateway={"queue": {"size": 1}}, offloadingConfig=behavior(overflow={"inFlight": 1}))
    assert route(sync(waiting, related=[workload()]))["queue"] == {"size": 1}


def test_every_cause_reaches_the_document() -> None:
    """Each cause of a retry that the gateway knows can be written in a specification, and stands in the document."""
    causes = [cause.value for cause in FailureCause]
    document = route(sync(model_deployment(gateway={"retry": {"causes": causes}}), related=[workload()]))
    assert document["retry"]["on"] == causes


def test_the_default_backend_is_a_marker() -> None:
    """Neither host nor credentials of the default backend are in a document."""
    answer = sync(model_deployment(offloadingConfig={}), related=[workload()])
    assert backends(answer)["remote"] == {
        "id": "remote",
        "default": True,
        "pathPrefix": "/acme/llama",
        "model": "llama",
    }


def test_the_reason_travels_with_the_split() -> None:
    """Clients see why their request went where it went."""
    assert route(sync(model_deployment(), related=[workload(ready=0)]))["split"] == {
        "percentage": 100,
        "reason": reasons.NO_READY_REPLICA,
    }


def test_equal_meaning_gives_equal_bytes() -> None:
    """The order in which headers, services and other keys are written changes nothing."""
    one = backend(headersToAdd={"X-A": "1", "X-B": "2"})
    other = {"remoteBackend": dict(reversed(backend(headersToAdd={"x-b": "2", "x-a": "1"})["remoteBackend"].items()))}
    texts = {
        child(sync(model_deployment(offloadingConfig=config), related=[workload()]), "ConfigMap")["data"]["route.json"]
        for config in (one, other)
    }
    assert len(texts) == 1


def test_no_secret_is_in_any_answer() -> None:
    """An inline secret stays where the user wrote it; the document says only where that is."""
    oauth = {"clientId": "i", "clientSecret": "very-secret", "tokenUrl": "https://t"}
    parent = model_deployment(offloadingConfig=backend(authConfig={"type": "oauth", "oauthConfig": oauth}))
    answer = sync(parent, related=[workload()])
    assert b"very-secret" not in builders.body_of(answer)
    assert backends(answer)["remote"]["credentials"] == {"oauth2": {"kind": "ModelDeployment", "name": "demo"}}
    assert conditions(answer)["InlineSecret"] == ("True", reasons.INLINE_SECRET)


def test_the_local_service_says_what_is_behind_it() -> None:
    """A later sync can tell which workload the Service that serves now was made for."""
    answer = sync(model_deployment(), related=[workload()])
    assert child(answer, "Service", "demo-local")["metadata"]["annotations"] == {
        "deployment.beamlit.com/workload": "Deployment/demo"
    }


def test_the_gateway_service_leads_to_the_gateway() -> None:
    """spec.gateway.serviceName is a Service of type ExternalName in the model's namespace."""
    defaults = InstallDefaults(gateway_service=builders.GATEWAY, cluster_domain="corp.internal")
    answer = sync(model_deployment(gateway={"serviceName": "gw"}), related=[workload()], defaults=defaults)
    assert child(answer, "Service", "gw")["spec"] == {
        "type": "ExternalName",
        "externalName": "beamlit-gateway.beamlit.svc.corp.internal",
    }


def test_a_gateway_that_is_not_configured() -> None:
    """Without proxyService there is no Service to it, and one that exists stays as it is."""
    parent = model_deployment(gateway={"serviceName": "gw"})
    cluster = Cluster(parent, related=[workload()])
    before = child(cluster.settle(), "Service", "gw")
    cluster.defaults = InstallDefaults()
    answer = cluster.sync()
    assert child(answer, "Service", "gw") == before
    assert conditions(answer)["RefsResolved"] == ("False", reasons.GATEWAY_UNKNOWN)

    new = sync(parent, related=[workload()], defaults=InstallDefaults())
    assert [item["metadata"]["name"] for item in new.children] == ["demo-route", "demo-local"]


def deployment(**server: Any) -> builders.Json:
    """The spec of the desired Deployment."""
    spec: builders.Json = child(sync(served(server={"port": 8000, "template": TEMPLATE} | server)), "Deployment")[
        "spec"
    ]
    return spec


def test_replicas_are_sent_only_where_given() -> None:
    """Zero is a number; absent leaves the number to whoever scales."""
    assert "replicas" not in deployment()
    assert deployment(replicas=0)["replicas"] == 0
    assert deployment(replicas=3)["replicas"] == 3


def test_the_selector_rests_on_name_and_uid_only() -> None:
    """A selector can never be changed, so nothing that a user may change is in it."""
    labels = {"app": "mine", "deployment.beamlit.com/uid": "forged"}
    spec = deployment(template=TEMPLATE | {"metadata": {"labels": labels}})
    own = {"deployment.beamlit.com/name": "demo", "deployment.beamlit.com/uid": builders.UID}
    assert spec["selector"] == {"matchLabels": own}
    assert spec["template"]["metadata"]["labels"] == {"app": "mine"} | own


def test_a_template_comes_in_stored_form() -> None:
    """What the API server would drop or rewrite is dropped and rewritten before."""
    container = {
        "name": "server",
        "image": "server:1",
        "env": [],
        "resources": {"limits": {"cpu": 2, "memory": "1024Mi"}, "requests": {}},
    }
    pod = {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}], "nodeSelector": {}}
    spec = deployment(template={"metadata": {"labels": {}, "annotations": {}}, "spec": pod})["template"]
    assert spec["spec"] == {
        "containers": [
            {"name": "server", "image": "server:1", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}},
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    assert "annotations" not in spec["metadata"]


def test_the_last_known_addresses_stay_while_the_service_is_away() -> None:
    """A Service that is missing for a moment changes nothing in the route."""
    cluster = Cluster(model_deployment(serviceRef={"name": "demo-svc"}), related=[workload(), service()])
    before = cluster.settle()
    cluster.related = [workload()]
    answer = cluster.sync()
    assert answer.children == before.children
    assert conditions(answer)["RefsResolved"] == ("False", reasons.SERVICE_MISSING)
    assert conditions(answer)["LocalReady"] == ("True", reasons.REPLICAS_READY)


def test_unreadable_last_known_addresses_are_none() -> None:
    """A route that cannot be read says nothing about addresses."""
    cluster = Cluster(model_deployment(serviceRef={"name": "demo-svc"}), related=[workload(), service()])
    cluster.settle()
    cluster.related = [workload()]
    for item in cluster.children:
        if item["kind"] == "ConfigMap":
            item["data"] = {"route.json": "{"}
    assert "clusterIps" not in route(cluster.sync())
    for item in cluster.children:
        item.pop("data", None)
    assert "clusterIps" not in route(cluster.sync())
