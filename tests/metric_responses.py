"""Metrics of specifications, and responses of the metrics APIs and the API server, for tests to script."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.builders import NAMESPACE, Json

USAGE_PATH = f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods"
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
CUSTOM = "/apis/custom.metrics.k8s.io"
EXTERNAL = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}"
TARGET: Json = {"type": "AverageValue", "averageValue": "1"}
CPU: Json = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def pods_metric(name: str = "queue", **metric: Any) -> Json:
    """Return a metric of type Pods."""
    return {"type": "Pods", "pods": {"metric": {"name": name, **metric}, "target": TARGET}}


def object_metric(kind: str, api_version: str | None = None, name: str = "it", metric: str = "queue") -> Json:
    """Return a metric of type Object."""
    described = {"kind": kind, "name": name} | ({} if api_version is None else {"apiVersion": api_version})
    return {"type": "Object", "object": {"describedObject": described, "metric": {"name": metric}, "target": TARGET}}


def external_metric(name: str = "queue", **metric: Any) -> Json:
    """Return a metric of type External."""
    target = {"type": "Value", "value": "1"}
    return {"type": "External", "external": {"metric": {"name": name, **metric}, "target": target}}


def pod(name: str, labels: Mapping[str, str] | None = None, cpu: str = "1") -> Json:
    """Return a ready pod with one container, of the workload `demo` unless `labels` say otherwise."""
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "demo"} if labels is None else labels},
        "spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod_list(pods: Iterable[Json], token: str = "") -> Json:
    """Return a PodList, or a page of one."""
    return {"kind": "PodList", "metadata": {"resourceVersion": "1", "continue": token}, "items": list(pods)}


def usage(name: str, cpu: str = "250m", memory: str = "64Mi", time: str = "2026-03-01T11:59:50Z") -> Json:
    """Return a PodMetrics with one container."""
    containers = [{"name": "server", "usage": {"cpu": cpu, "memory": memory}}]
    return {"metadata": {"name": name}, "timestamp": time, "window": "15.5s", "containers": containers}


def usage_list(items: Iterable[Json]) -> Json:
    """Return a PodMetricsList."""
    return {"kind": "PodMetricsList", "items": list(items)}


def custom_value(name: str, value: str, *, version: str = "v1beta2", window: int | None = None) -> Json:
    """Return a MetricValue of an object in the form of an API version."""
    metric: Json = {"metric": {"name": "queue"}} if version == "v1beta2" else {"metricName": "queue"}
    windows = {} if window is None else {"windowSeconds" if version == "v1beta2" else "window": window}
    described = {"kind": "Pod", "name": name, "namespace": NAMESPACE}
    return {"describedObject": described, **metric, **windows, "timestamp": "2026-03-01T11:59:50Z", "value": value}


def group(*versions: str, preferred: str = "") -> Json:
    """Return the APIGroup of custom.metrics.k8s.io."""
    known = [{"groupVersion": f"custom.metrics.k8s.io/{one}", "version": one} for one in versions]
    return {"kind": "APIGroup", "versions": known, "preferredVersion": {"version": preferred or versions[0]}}


def status(code: int, message: str = "scripted") -> Json:
    """Return a Status of meta/v1."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
