"""Desired children: whole, in stored form, and only with fields that hooks own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import v1alpha1 as routes
from gateway.api.vocabulary import NAMED_CAUSES
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


def use(response: Any) -> dict[str, list[str]]:
    """Return what each backend of the route document may be chosen for."""
    document, _ = routes.read(child(response, "ConfigMap")["data"]["route.json"])
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
    """The route document has each backend that may be chosen, with its weight and its uses."""
    response = sync(model_deployment(**spec), related=[workload(ready=ready)])
    assert (weights(response), use(response)) == (weights_, uses)


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
    """A backend is in the document if and only if a request may reach it, and the weights add up to 100."""
    response = sync(model_deployment(**spec), related=[workload(ready=ready)] if exists else [])
    config = spec["offloadingConfig"]
    forced = ((config or {}).get("behavior") or {}).get("override") or {}
    force = forced.get("percentage") if forced.get("mode") == "Force" else None
    may_remote = spec["enabled"] and not spec["policies"] and config is not None
    expected = set()
    if exists and not (may_remote and force == 100):
        expected.add("local")
    if may_remote and force != 0:
        expected.add("remote")
    assert set(backends(response)) == expected
    assert sum(weights(response).values()) == (100 if expected else 0)
    assert weights(response).get("remote", 0) == route(response).get("split", {}).get("percentage", 0)
    assert response.status["offloading"]["percentage"] == weights(response).get("remote", 0)
    assert response.status["offloadingStatus"] == (weights(response).get("remote", 0) > 0)
    failover = (spec["gateway"] or {}).get("retry", {}).get("failover", True)
    assert all(("failover" in entry) == failover for entry in use(response).values())
    limited = "overflow" in ((config or {}).get("behavior") or {})
    overflows = {id_ for id_, entry in use(response).items() if "overflow" in entry}
    assert overflows == ({"remote"} if limited and expected == {"local", "remote"} else set())
    assert backends(response).get("local", {}).get("inFlight") == (8 if limited and "local" in expected else None)


def test_a_whole_document() -> None:
    """Every field of the specification arrives in the field of the document that the gateway reads."""
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
        | {"behavior": {"overflow": {"inFlight": 8, "firstTokenSeconds": 2}}},
        gateway={
            "serviceName": "demo-gw",
            "localModel": "llama-local",
            "models": [
                {"name": "lora-b", "localModel": "adapter", "remoteModel": "big"},
                {"name": "lora-a", "localModel": "lora-a"},
            ],
            "timeouts": {"connectSeconds": 1, "firstByteSeconds": 2, "firstTokenSeconds": 2.5, "idleSeconds": 3.5},
            "keepAlive": {"afterSeconds": 0, "beforeHead": True},
            "bodyLimitBytes": 0,
            "retry": {"causes": ["503", "firstTokenTimeout", "firstByteTimeout", "503"], "bodyBytes": 0},
            "breaker": {"consecutiveFailures": 1, "errorPercentage": 50, "minimumRequests": 9, "openSeconds": 3},
            "queue": {"size": 7, "waitSeconds": 2},
            "healthCheck": {"path": "/health", "intervalSeconds": 2, "timeoutSeconds": 1, "unhealthyThreshold": 4},
            "cors": {
                "origins": ["https://b.example", "https://a.example", "https://b.example"],
                "methods": ["PUT", "GET"],
                "headers": ["X-Team", "Authorization"],
                "exposedHeaders": ["X-RateLimit-Limit"],
                "credentials": True,
                "maxAgeSeconds": 0,
            },
            "access": {
                "secretRefs": [{"name": "more-keys"}, {"name": "demo-keys"}],
                "jwt": {"audiences": ["models"], "groups": ["b", "a"]},
            },
            "localOnly": {"header": "X-Data-Class", "values": ["Secret", "restricted", "secret"], "missing": "local"},
        },
    )
    document = route(sync(parent, related=[workload(), service()]))
    assert document.pop("hash")
    assert document == {
        "apiVersion": "gateway.beamlit.com/v1alpha1",
        "name": "demo",
        "serviceNames": ["demo-gw", "demo-svc"],
        "clusterIps": ["10.96.0.7"],
        "models": [{"name": "lora-a"}, {"name": "lora-b", "localModel": "adapter", "remoteModel": "big"}],
        "requires": ["access", "accessJwt", "localOnly", "models"],
        "backends": [
            {
                "id": "local",
                "service": "demo-local",
                "port": 80,
                "weight": 100,
                "model": "llama-local",
                "inFlight": 8,
                "firstTokenTarget": 2.0,
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
        "retry": {"on": ["firstByteTimeout", "firstTokenTimeout", "503"], "bodyBytes": 0},
        "breaker": {"consecutiveFailures": 1, "minimum": 9, "open": 3.0},
        "queue": {"size": 7, "wait": 2.0},
        "timeouts": {"connect": 1.0, "firstByte": 2.0, "firstToken": 2.5, "idle": 3.5},
        "keepAlive": {"after": 0.0, "beforeHead": True},
        "limits": {"bodyBytes": 0},
        "cors": {
            "origins": ["https://a.example", "https://b.example"],
            "methods": ["GET", "PUT"],
            "headers": ["authorization", "x-team"],
            "exposedHeaders": ["x-ratelimit-limit"],
            "credentials": True,
            "maxAge": 0,
        },
        "access": {
            "secrets": ["demo-keys", "more-keys"],
            "jwt": {"audiences": ["models"], "groups": ["a", "b"]},
        },
        "localOnly": {"header": "x-data-class", "values": ["restricted", "secret"], "missing": "local"},
    }


def test_defaults_are_left_out() -> None:
    """Defaults of the specification are those of the document, so that an empty object changes no byte of it."""
    plain = sync(model_deployment(), related=[workload()])
    gateway = {"retry": {"failover": True}, "breaker": {}}
    explicit = sync(model_deployment(gateway=gateway, offloadingConfig=backend(tls={})), related=[workload()])
    assert child(explicit, "ConfigMap") == child(plain, "ConfigMap")
    checked = model_deployment(gateway={"healthCheck": {"path": "/"}})
    assert backends(sync(checked, related=[workload()]))["local"]["health"] == {"path": "/"}
    waiting = model_deployment(gateway={"queue": {"size": 1}}, offloadingConfig=behavior(overflow={"inFlight": 1}))
    assert route(sync(waiting, related=[workload()]))["queue"] == {"size": 1}


def test_every_cause_reaches_the_document() -> None:
    """Each cause that the gateway knows, and any other error status, can be specified and arrives in the document."""
    causes = [*NAMED_CAUSES, "400", "408", "429", "500", "529", "599"]
    document = route(sync(model_deployment(gateway={"retry": {"causes": causes}}), related=[workload()]))
    assert document["retry"]["on"] == causes


def test_the_default_backend_is_a_marker() -> None:
    """The route document has neither host nor credentials of the default remote backend."""
    response = sync(model_deployment(offloadingConfig={}), related=[workload()])
    assert backends(response)["remote"] == {
        "id": "remote",
        "default": True,
        "pathPrefix": "/acme/llama",
        "model": "llama",
    }


def test_the_reason_travels_with_the_split() -> None:
    """The route document has the reason of the split, which clients see."""
    assert route(sync(model_deployment(), related=[workload(ready=0)]))["split"] == {
        "percentage": 100,
        "reason": reasons.NO_READY_REPLICA,
    }


def test_equal_meaning_gives_equal_bytes() -> None:
    """The order of headers, Services and other keys does not change the route document."""
    one = backend(headersToAdd={"X-A": "1", "X-B": "2"})
    other = {"remoteBackend": dict(reversed(backend(headersToAdd={"x-b": "2", "x-a": "1"})["remoteBackend"].items()))}
    texts = {
        child(sync(model_deployment(offloadingConfig=config), related=[workload()]), "ConfigMap")["data"]["route.json"]
        for config in (one, other)
    }
    assert len(texts) == 1


def test_no_secret_is_in_any_response() -> None:
    """The route document refers to an inline secret and does not have its value."""
    oauth = {"clientId": "i", "clientSecret": "very-secret", "tokenUrl": "https://t"}
    parent = model_deployment(offloadingConfig=backend(authConfig={"type": "oauth", "oauthConfig": oauth}))
    response = sync(parent, related=[workload()])
    assert b"very-secret" not in builders.body_of(response)
    assert backends(response)["remote"]["credentials"] == {"oauth2": {"kind": "ModelDeployment", "name": "demo"}}
    assert conditions(response)["InlineSecret"] == ("True", reasons.INLINE_SECRET)


def test_the_local_service_says_what_is_behind_it() -> None:
    """The local Service has an annotation with the workload behind it."""
    response = sync(model_deployment(), related=[workload()])
    assert child(response, "Service", "demo-local")["metadata"]["annotations"] == {
        "deployment.beamlit.com/workload": "Deployment/demo"
    }


def test_the_gateway_service_leads_to_the_gateway() -> None:
    """spec.gateway.serviceName gives a Service of type ExternalName in the namespace of the model."""
    defaults = InstallDefaults(gateway_service=builders.GATEWAY, cluster_domain="corp.internal")
    response = sync(model_deployment(gateway={"serviceName": "gw"}), related=[workload()], defaults=defaults)
    assert child(response, "Service", "gw")["spec"] == {
        "type": "ExternalName",
        "externalName": "beamlit-gateway.beamlit.svc.corp.internal",
    }


def test_a_gateway_that_is_not_configured() -> None:
    """Without proxyService there is no Service to the gateway, and an existing one stays as it is."""
    parent = model_deployment(gateway={"serviceName": "gw"})
    cluster = Cluster(parent, related=[workload()])
    before = child(cluster.settle(), "Service", "gw")
    cluster.defaults = InstallDefaults()
    response = cluster.sync()
    assert child(response, "Service", "gw") == before
    assert conditions(response)["RefsResolved"] == ("False", reasons.GATEWAY_UNKNOWN)

    new = sync(parent, related=[workload()], defaults=InstallDefaults())
    assert [item["metadata"]["name"] for item in new.children] == ["demo-route", "demo-local"]


def deployment(**server: Any) -> builders.Json:
    """Return the spec of the desired Deployment."""
    spec: builders.Json = child(sync(served(server={"port": 8000, "template": TEMPLATE} | server)), "Deployment")[
        "spec"
    ]
    return spec


def test_replicas_are_sent_only_where_given() -> None:
    """A Deployment has the replicas of spec.server, zero too; absent ones leave the number to an autoscaler."""
    assert "replicas" not in deployment()
    assert deployment(replicas=0)["replicas"] == 0
    assert deployment(replicas=3)["replicas"] == 3


def test_the_selector_rests_on_name_and_uid_only() -> None:
    """The selector of a Deployment, which is immutable, has nothing that a user may change."""
    labels = {"app": "mine", "deployment.beamlit.com/uid": "forged"}
    spec = deployment(template=TEMPLATE | {"metadata": {"labels": labels}})
    own = {"deployment.beamlit.com/name": "demo", "deployment.beamlit.com/uid": builders.UID}
    assert spec["selector"] == {"matchLabels": own}
    assert spec["template"]["metadata"]["labels"] == {"app": "mine"} | own


def test_a_template_comes_in_stored_form() -> None:
    """A pod template is in the form in which the API server stores it."""
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
    """The route document keeps the addresses of a Service that does not exist for a moment."""
    cluster = Cluster(model_deployment(serviceRef={"name": "demo-svc"}), related=[workload(), service()])
    before = cluster.settle()
    cluster.related = [workload()]
    response = cluster.sync()
    assert response.children == before.children
    assert conditions(response)["RefsResolved"] == ("False", reasons.SERVICE_MISSING)
    assert conditions(response)["LocalReady"] == ("True", reasons.REPLICAS_READY)


def test_unreadable_last_known_addresses_are_dropped() -> None:
    """A present route document that cannot be read gives no addresses."""
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
