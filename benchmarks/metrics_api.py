"""The API server as far as metrics are read from it: pods and every metrics API, with what is asked counted."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]


class MetricsApi:
    """An API server with namespaces in which each model has one pod, `<model>-0`, with the label `app: <model>`."""

    def __init__(self, models: dict[str, list[str]]) -> None:
        """Create the server. `models` are the names by namespace."""
        self.models = models
        self.asked: Counter[str] = Counter()
        """Number of requests by their purpose."""

    def response(self, path: str) -> tuple[str, Json]:
        """Return the purpose of a request, and the response to it."""
        parts = urlsplit(path)
        match parts.path.strip("/").split("/"):
            case ["apis", "custom.metrics.k8s.io"]:
                version = {"groupVersion": "custom.metrics.k8s.io/v1beta2", "version": "v1beta2"}
                return "discovery", {"kind": "APIGroup", "versions": [version], "preferredVersion": version}
            case ["api", "v1"]:
                kind = {"name": "services", "kind": "Service", "namespaced": True}
                return "discovery", {"kind": "APIResourceList", "groupVersion": "v1", "resources": [kind]}
            case ["api", "v1", "namespaces", namespace, "pods"]:
                return "pod lists", {"metadata": {}, "items": [_pod(name) for name in self.models[namespace]]}
            case ["apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods"]:
                return "pod metrics", {"items": [_usage(name) for name in self.models[namespace]]}
            case ["apis", "custom.metrics.k8s.io", _, "namespaces", _, "pods", "*", _]:
                name = parse_qs(parts.query)["labelSelector"][0].rpartition("=")[2]
                return "pods metrics", {"items": [_value("Pod", f"{name}-0")]}
            case ["apis", "custom.metrics.k8s.io", _, "namespaces", _, "services", name, _]:
                return "object metrics", {"items": [_value("Service", name)]}
            case ["apis", "external.metrics.k8s.io", "v1beta1", "namespaces", _, name]:
                item = {"metricName": name, "metricLabels": {}, "timestamp": _now(), "value": "1"}
                return "external metrics", {"items": [item]}
        return "unknown", {}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve until the end of the block, and yield a kubeconfig."""
        api, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                about, body = api.response(self.path)
                with lock:
                    api.asked[about] += 1
                data = json.dumps(body).encode()
                self.send_response(404 if about == "unknown" else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield yaml.safe_dump(
                {
                    "current-context": "x",
                    "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                    "users": [{"name": "x", "user": {"token": "x"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                }
            )
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod(model: str) -> Json:
    return {
        "metadata": {"name": f"{model}-0", "labels": {"app": model}},
        "spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _usage(model: str) -> Json:
    containers = [{"name": "server", "usage": {"cpu": "250m", "memory": "64Mi"}}]
    return {"metadata": {"name": f"{model}-0"}, "timestamp": _now(), "window": "15s", "containers": containers}


def _value(kind: str, name: str) -> Json:
    described = {"kind": kind, "name": name}
    return {"describedObject": described, "metric": {"name": "queue"}, "timestamp": _now(), "value": "1"}
