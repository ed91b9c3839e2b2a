"""ModelDeployments with everything around them, and all responses of hooks about them over a few minutes.

Together they have every field of the specification in a place where it could matter.
"""

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.routes.sources.secrets import Secrets
from hooks.api.common import InvalidObject
from hooks.api.metrics import MetricSpec, MetricType
from hooks.kube.objects import key_of
from hooks.kube.pods import Container, Pod
from hooks.kube.quantities import parse
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.reasons import UNREACHABLE
from hooks.reconcile import model_deployment as reconcile
from tests.builders import (
    AUTHORITY,
    DEFAULTS,
    NAMESPACE,
    NOW,
    REMOTE,
    TEMPLATE,
    Json,
    body_of,
    customize,
    model_deployment,
    obeys,
    observation,
    observed,
    policy,
    service,
    workload,
)

STEP: Final = timedelta(seconds=10)
LEVELS: Final[tuple[float | None, ...]] = (
    *(0.1, 1.2, 1.2, 1.2, 1.2, 1.2),
    *(0.475,) * 7,
    *(None,) * 7,
    *(0.1,) * 14,
    *(None,) * 4,
)
"""Values of the metrics over time, as shares of AMOUNT.

They are high, then such that all traffic served locally would bring them just below their targets, then unread, then
low.
"""
AMOUNT: Final = 100
PODS: Final = tuple(
    Pod(
        name,
        phase="Running",
        ready=True,
        ready_since=NOW - timedelta(hours=1),
        terminating=False,
        containers=(
            Container("server", {"cpu": parse("150"), "memory": parse("300")}),
            Container("sidecar", {"cpu": parse("50"), "memory": parse("700")}),
        ),
        requests={},
    )
    for name in ("demo-0", "demo-1")
)


@dataclass(frozen=True, slots=True)
class World:
    """A specification with everything around it."""

    spec: Json
    ready: tuple[int, ...] = (1,)
    """Ready replicas at each sync, STEP apart."""
    levels: tuple[float | None, ...] = ()
    """Value of the metrics at each sync. There are as many syncs as the longer of the two sequences has."""

    def responses(self, spec: Json) -> Iterator[bytes]:
        """Yield every response of hooks about a specification in this world, in the order of time."""
        parent = model_deployment()
        parent["spec"] = spec
        yield repr(customize(parent)).encode()
        yield repr(asyncio.run(_credentials(parent))).encode()
        children: list[Json] = []
        related = [*_related(self.ready[0])]
        syncs = max(len(self.ready), len(self.levels), 2)
        for index in range(syncs):
            now = NOW + index * STEP
            ready = self.ready[min(index, len(self.ready) - 1)]
            related = [*_related(ready)]
            facts = observation(parent, children=children, related=related, defaults=DEFAULTS)
            if self.levels and not isinstance(facts.spec, InvalidObject) and facts.spec.offloading_config is not None:
                level = self.levels[min(index, len(self.levels) - 1)]
                metrics = tuple(_reading(metric, level, now) for metric in facts.spec.offloading_config.metrics)
                facts = dataclasses.replace(facts, readings=Readings(metrics, PODS))
            response = reconcile.sync(facts, now=now)
            yield body_of(response)
            before = {key_of(child): child for child in children}
            children = [observed(child, before.get(key_of(child))) for child in response.children]
            parent = parent | {"status": response.status}
            if index == syncs - 1:
                task = reconcile.decide_sync(facts, now=now, account="an account").registration.task
                yield repr(task and task.desired and task.desired.body).encode()


class _Stored:
    """A ModelDeployment as the gateway reads it from a cluster."""

    def __init__(self, parent: Json) -> None:
        self._parent = parent

    async def run(self, apply: object, confirm: object) -> None:
        """Provide no routes."""

    async def model_deployment(self, _namespace: str, _name: str) -> Json:
        """Return the ModelDeployment."""
        return self._parent

    async def secret(self, _namespace: str, _name: str) -> None:
        """Return no Secret."""


async def _credentials(parent: Json) -> Mapping[str, str]:
    """Return the inline credentials that the gateway reads from a ModelDeployment."""
    try:
        return await Secrets(_Stored(parent)).inline(NAMESPACE, "demo")
    except LookupError:
        return {}


def _related(ready: int) -> Iterator[Json]:
    """Yield the objects that a specification may refer to."""
    ports = [{"name": "http", "port": 80, "targetPort": 8000}, {"name": "more", "port": 81, "targetPort": 8001}]
    for name in ("demo", "other"):
        for kind in ("Deployment", "StatefulSet"):
            yield workload(kind, name, ready=ready)
        yield service(name, ports=ports, cluster_ip=f"10.96.0.{len(name)}", selector={"app": name})
    yield policy("eu")
    yield policy("other", locations=[{"type": "country", "name": "us"}])
    yield policy("named", locations=[{"type": "location", "name": "eu-west-3"}])
    yield policy("hardware", flavors=[{"type": "gpu", "name": "t4"}])


def _reading(metric: MetricSpec, level: float | None, now: datetime) -> Reading:
    """Return the reading of a metric of this type."""
    if level is None:
        return Reading(unread=Unread(UNREACHABLE, "The source does not respond."))
    value = parse(str(level * AMOUNT))
    match metric.type:
        case MetricType.RESOURCE | MetricType.CONTAINER_RESOURCE:
            samples = [Sample(pod.name, value, now, container=one.name) for pod in PODS for one in pod.containers]
        case MetricType.PODS:
            samples = [Sample(pod.name, value, now) for pod in PODS]
        case _:
            samples = [Sample("demo", value, now)]
    return Reading(tuple(samples))


def _reference(kind: str, api_version: str, name: str = "demo", **fields: Any) -> Json:
    """Return a reference with every field."""
    place = {"apiVersion": api_version, "kind": kind, "namespace": NAMESPACE, "name": name}
    return place | {"uid": "1", "resourceVersion": "2", "fieldPath": "spec"} | fields


SOURCE: Final = _reference("Deployment", "apps/v1")
GATEWAY: Final[Json] = {
    "serviceName": "ask-demo",
    "localModel": "tiny",
    "models": [{"name": "lora-a", "localModel": "adapter-a", "remoteModel": "big-a"}, {"name": "lora-b"}],
    "forwardHeaders": ["x-user-id"],
    "forwarded": "none",
    "usage": "always",
    "timeouts": {"connectSeconds": 1, "firstByteSeconds": 2, "firstTokenSeconds": 4, "idleSeconds": 3},
    "keepAlive": {"afterSeconds": 15, "beforeHead": True},
    "retry": {"failover": True},
    "bodyLimitBytes": 1000,
    "statefulPaths": "refuse",
    "affinity": {"type": "conversation", "header": "x-session"},
    "endpoints": "service",
    "drill": {"intervalSeconds": 60, "request": "models"},
    "cors": {
        "origins": ["https://chat.example.com", "http://localhost:3000"],
        "methods": ["POST"],
        "headers": ["authorization"],
        "exposedHeaders": ["x-ratelimit-limit"],
        "credentials": True,
        "maxAgeSeconds": 60,
    },
    "access": {
        "secretRefs": [{"name": "demo-keys"}, {"name": "more-keys"}],
        "jwt": {"audiences": ["models"], "groups": ["team-a", "team-c"]},
    },
    "localOnly": {"header": "x-data-class", "values": ["restricted"], "missing": "local"},
}
HEALTH: Final[Json] = {
    "path": "/health",
    "intervalSeconds": 4,
    "timeoutSeconds": 5,
    "unhealthyThreshold": 4,
    "healthyThreshold": 2,
}
SERVERLESS: Final[Json] = {
    "minNumReplicas": 1,
    "maxNumReplicas": 2,
    "metric": "cpu",
    "target": "3",
    "scaleUpMinimum": 2,
    "scaleDownDelay": "1m",
    "stableWindow": "2m",
    "lastPodRetentionPeriod": "3m",
}
INLINE: Final = {"clientId": "id", "clientSecret": "word", "tokenUrl": "https://models.example.com/token"}
HEADERS: Final[list[Json]] = [
    {"name": "x-plain", "value": "1"},
    {"name": "x-key", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "one"}}},
]


def _model(*, offloading: Mapping[str, Any] | None = None, **fields: Any) -> Json:
    """Return a specification whose workload exists, with defaults as the API server sets them."""
    spec: Json = {"model": "llama", "enabled": True, "modelSourceRef": SOURCE, "environment": "production"}
    return spec | fields | ({} if offloading is None else {"offloadingConfig": dict(offloading)})


def _remote(**fields: Any) -> Json:
    return {"remoteBackend": REMOTE | fields, "metrics": []}


def _oauth(config: Json) -> Json:
    return {"type": "oauth", "oauthConfig": config}


def _measured(metrics: list[Json], **behavior: Any) -> World:
    """Return a world whose metrics rise, become unreadable and fall."""
    fields = {"percentage": 50, "triggerWindowSeconds": 15, "releaseWindowSeconds": 40, "tolerance": 0.1} | behavior
    return World(_model(offloading={"remoteBackend": REMOTE, "metrics": metrics, "behavior": fields}), levels=LEVELS)


SELECTOR: Final[Json] = {
    "matchLabels": {"queue": "a"},
    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}],
}
METRIC: Final[Json] = {"name": "requests", "selector": SELECTOR}
EXTERNAL: Final[Json] = {
    "type": "External",
    "external": {"metric": METRIC, "target": {"type": "Value", "value": AMOUNT}},
}
_DESCRIBED: Final = {"apiVersion": "v1", "kind": "Service", "name": "demo"}


def _resource(target: Json, **fields: Any) -> Json:
    field = "containerResource" if "container" in fields else "resource"
    return {"type": f"{field[0].upper()}{field[1:]}", field: {"name": "cpu", "target": target} | fields}


WORLDS: Final[Mapping[str, World]] = {
    "everything": World(
        _model(
            serviceRef=_reference("Service", "v1", targetPort=80),
            metricServiceRef=_reference("Service", "v1", targetPort=80),
            policies=[],
            serverlessConfig=SERVERLESS,
            gateway=GATEWAY,
            offloading=_remote(
                pathPrefix="/$workspace/$model",
                workspace="acme",
                headersToAdd={"x-added": "1"},
                headersToRemove=["x-removed"],
                forwardHeaders=["x-key"],
                forwarded="append",
                price=1.5,
                promptPrice=0.25,
                headers=HEADERS,
                authConfig=_oauth(INLINE),
            ),
        )
    ),
    "attempts": World(
        _model(
            gateway={
                "retry": {"failover": True, "causes": ["reset", "503"], "bodyBytes": 5000},
                "breaker": {
                    "consecutiveFailures": 4,
                    "errorPercentage": 40,
                    "minimumRequests": 30,
                    "windowSeconds": 20,
                    "openSeconds": 5,
                },
                "queue": {"size": 9, "waitSeconds": 4},
                "healthCheck": HEALTH,
            },
            offloading={
                **_remote(
                    healthCheck=HEALTH,
                    tls={
                        "serverName": "inner.example.com",
                        "caBundle": AUTHORITY,
                        "clientCertificateRef": {"name": "certificate"},
                    },
                ),
                "behavior": {"overflow": {"inFlight": 8, "firstTokenSeconds": 1.5}},
            },
        )
    ),
    "a secret and policies": World(
        _model(
            policies=[_reference("Policy", "authorization.beamlit.com/v1alpha1", "eu", refType="localPolicy")],
            offloading=_remote(
                authConfig=_oauth({"clientSecretRef": {"name": "credentials"}}), location={"country": "fr"}
            ),
        ),
    ),
    "a continent": World(_model(policies=obeys("eu"), offloading=_remote(location={"continent": "EU"}))),
    "a name": World(_model(policies=obeys("named"), offloading=_remote(location={"name": "eu-west-3"}))),
    "hardware": World(
        _model(policies=obeys("hardware"), offloading=_remote(flavors=[{"type": "gpu", "name": "t4"}])),
    ),
    "a policy of the platform": World(
        _model(policies=[{"name": "eu", "refType": "remotePolicy"}], offloading=_remote(location={"country": "fr"})),
    ),
    "a server": World(
        {"model": "llama", "server": {"replicas": 1, "port": 8000, "template": TEMPLATE}},
    ),
    "no replica": World(
        _model(offloading={**_remote(), "behavior": {"percentage": 50, "notReadyForSeconds": 20}}),
        ready=(1, 0, 0, 0, 1, 1),
    ),
    "an override": World(
        _model(
            offloading={
                **_remote(),
                "behavior": {"override": {"percentage": 40, "mode": "Normal", "until": "2026-03-01T12:00:40Z"}},
            }
        ),
        ready=(1, 1, 0, 1, 1, 1),
    ),
    "cpu": _measured([_resource({"type": "Utilization", "averageUtilization": 100})]),
    "cpu of a container": _measured(
        [_resource({"type": "AverageValue", "averageValue": AMOUNT}, container="server")], mode="proportional"
    ),
    "cpu on average": _measured(
        [_resource({"type": "AverageValue", "averageValue": 2 * AMOUNT})], signal="gauge", onMissingMetrics="offload"
    ),
    "cpu of a container in percent": _measured(
        [_resource({"type": "Utilization", "averageUtilization": 66}, container="server")],
        percentage=100,
        stepPercentage=25,
    ),
    "pods": _measured(
        [{"type": "Pods", "pods": {"metric": METRIC, "target": {"type": "AverageValue", "averageValue": AMOUNT}}}],
        onMissingMetrics="release",
    ),
    "pages of pods": World(
        _model(
            offloading={
                "remoteBackend": REMOTE,
                "metrics": [
                    {
                        "type": "Pods",
                        "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": 100}},
                    }
                ],
                "metricSource": {"type": "pods", "port": "metrics", "path": "/metrics"},
            }
        ),
    ),
    "an object": _measured(
        [
            {
                "type": "Object",
                "object": {
                    "describedObject": _DESCRIBED,
                    "metric": METRIC,
                    "target": {"type": "Value", "value": AMOUNT},
                },
            }
        ],
        onMissingMetrics="hold",
    ),
    "an object on average": _measured(
        [
            {
                "type": "Object",
                "object": {
                    "describedObject": _DESCRIBED,
                    "metric": METRIC,
                    "target": {"type": "AverageValue", "averageValue": AMOUNT},
                },
            }
        ],
    ),
    "external": _measured([EXTERNAL, _resource({"type": "Utilization", "averageUtilization": 1000})]),
    "a metric described twice": _measured([{**EXTERNAL, **_resource({"type": "Utilization"})}]),
    "external on average": _measured(
        [{"type": "External", "external": {"metric": METRIC, "target": {"type": "AverageValue", "averageValue": 100}}}]
    ),
}
