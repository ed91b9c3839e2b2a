"""The custom resource of a scenario, and the children that its hook returns."""

from typing import Any, Final

from metacontroller.local.apiserver.objects import Kind
from tests.differential.snapshots import Json

GROUP: Final = "example.com"

SPEC: Final[Json] = {
    "type": "object",
    "default": {},
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "selector": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
STATUS: Final[Json] = {
    "type": "object",
    "properties": {
        "observedGeneration": {"type": "integer"},
        "word": {"type": "string"},
        "ratio": {"type": "number"},
        "conditions": {
            "type": "array",
            "items": {"type": "object", "properties": {"type": {"type": "string"}, "status": {"type": "string"}}},
        },
    },
}


def kind_of(scenario: str) -> Kind:
    """Return the kind of a scenario's own parent: `first-sync` has FirstSync, firstsyncs."""
    name = "".join(word.capitalize() for word in scenario.split("-"))
    schema = crd(name)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return Kind(GROUP, "v1", name, f"{name.lower()}s", status=True, generation=True, schema=schema)


def crd(name: str) -> Json:
    """Return the CustomResourceDefinition of a kind."""
    plural = f"{name.lower()}s"
    schema = {"type": "object", "properties": {"spec": SPEC, "status": STATUS}}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {"kind": name, "plural": plural, "singular": name.lower(), "listKind": f"{name}List"},
            "scope": "Namespaced",
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def config_map(name: str = "one-child", *, metadata: Json | None = None, **fields: Any) -> Json:
    """Return a ConfigMap; its `data` has one key unless given."""
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **(metadata or {})}}
    return head | {"data": {"key": "value"}} | fields


def service(name: str = "one-service", **spec: Any) -> Json:
    """Return a Service with one port."""
    fields = {"selector": {"app": "one"}, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": fields | spec}


def pods(*, labels: Json | None = None, container: Json | None = None, **spec: Any) -> Json:
    """Return a pod template with one container."""
    first = {"name": "server", "image": "example.com/server:1", **(container or {})}
    return {"metadata": {"labels": labels or {"app": "one"}}, "spec": {"containers": [first], **spec}}


def deployment(name: str = "one-server", *, template: Json | None = None, **spec: Any) -> Json:
    """Return a Deployment without pods, unless replicas are given."""
    fields = {"replicas": 0, "selector": {"matchLabels": {"app": "one"}}, "template": template or pods()}
    whole = {key: value for key, value in (fields | spec).items() if value is not ...}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": whole}


RICH: Final = pods(
    container={
        "args": ["--one", "--two"],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}},
            {"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        ],
        "ports": [{"containerPort": 8000}, {"name": "metrics", "containerPort": 9000, "protocol": "TCP"}],
        "resources": {
            "limits": {"cpu": "1000m", "memory": "1024Mi", "nvidia.com/gpu": 1},
            "requests": {"cpu": 0.5},
        },
        "livenessProbe": {"httpGet": {"port": 8000}},
        "readinessProbe": {"tcpSocket": {"port": "metrics"}, "periodSeconds": 5},
        "startupProbe": {"grpc": {"port": 8000}},
        "lifecycle": {"preStop": {"httpGet": {"port": 8000}}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "securityContext": {"runAsNonRoot": True},
    },
    initContainers=[{"name": "first", "image": "example.com/init"}],
    serviceAccountName="server",
    nodeSelector={"disk": "ssd"},
    tolerations=[{"key": "gpu", "operator": "Exists"}],
    affinity={},
    topologySpreadConstraints=[
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
         "labelSelector": {"matchLabels": {"app": "one"}}}
    ],
    volumes=[
        {"name": "scratch", "emptyDir": {}},
        {"name": "sized", "emptyDir": {"sizeLimit": "2048Mi", "medium": "Memory"}},
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "host", "hostPath": {"path": "/host"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
        {"name": "projected", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t"}},
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]}},
        {"name": "down", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ],
)  # fmt: skip
"""A pod template to which the API server adds every default that this project knows of."""
