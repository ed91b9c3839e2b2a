"""Requests of hooks to the API server and Prometheus for the metrics of a specification, over real connections."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_plus

import pytest
import yaml

from hooks.gatherer import gather
from hooks.metrics.installed import open_sources
from hooks.settings import MetricInformer, PodPages
from hooks.telemetry import Metrics
from tests.builders import DEFAULTS, Json, model_deployment, sync_request, workload
from tests.metric_responses import PODS_PATH, pod, pod_list
from tests.prometheus import informer_of
from tests.unhurried import unhurry

_SERVED: Final[dict[str, Json]] = {
    "/apis/custom.metrics.k8s.io": {"versions": [{"version": "v1beta2"}]},
    **{
        path: {"resources": [{"name": f"{kind.lower()}s", "kind": kind, "namespaced": True} for kind in kinds]}
        for path, kinds in (("/api/v1", ("Pod", "Service")), ("/apis/apps/v1", ("Deployment", "StatefulSet")))
    },
}
"""Responses of API discovery, without which hooks send no further requests. Every other path is not found."""


class _Handler(BaseHTTPRequestHandler):
    paths: list[str]
    pods: Json

    def do_GET(self) -> None:
        """Record the path, and respond."""
        self.paths.append(unquote_plus(self.path))
        response = _SERVED.get(self.path) or (self.pods if self.path.startswith(PODS_PATH) else None)
        body = json.dumps(response or {"kind": "Status", "status": "error"}).encode()
        self.send_response(200 if response else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write no log."""


def _pod(port: int) -> Json:
    """Return a pod of the workload whose page is this server's."""
    item = pod("demo-0")
    item["spec"]["containers"][0]["ports"] = [{"name": "metrics", "containerPort": port}]
    item["status"]["podIP"] = "127.0.0.1"
    return item


class MetricRequests:
    """A server that is API server and Prometheus at once, and the requests of hooks to it."""

    def __init__(self, paths: list[str], address: str) -> None:
        self._paths = paths
        self._address = address
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator["MetricRequests"]:
        """Serve on loopback, as the cluster of this process."""
        paths: list[str] = []
        pods: Json = {}
        handler = type("Handler", (_Handler,), {"paths": paths, "pods": pods})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, pytest.MonkeyPatch.context() as patch:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            port = server.server_address[1]
            pods.update(pod_list([_pod(port)]))
            address = f"http://127.0.0.1:{port}"
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "users": [{"name": "u", "user": {"token": "word"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
            (folder / "kubeconfig").write_text(yaml.safe_dump(config))
            patch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
            unhurry(patch)
            try:
                yield cls(paths, address)
            finally:
                server.shutdown()
                thread.join()

    def about(self, measures: Json) -> tuple[str, ...]:
        """Return the requests for metrics with each type of source.

        Args:
            measures: `metrics` and `metricSource` of a specification, where it has them.
        """
        return (*self.of("kubernetes", measures), *self.of("prometheus", measures))

    def of(self, type_: str, measures: Json) -> tuple[str, ...]:
        """Return the requests for metrics with a type of source: paths with queries, sorted."""
        key = type_, json.dumps(measures, sort_keys=True)
        if key not in self._known:
            pages = PodPages(allowed_addresses=("127.0.0.0/8",))
            informer = informer_of(self._address).model_copy(update={"type": type_, "pods": pages})
            self._paths.clear()
            asyncio.run(_request(measures, informer))
            self._known[key] = tuple(sorted(self._paths))
        return self._known[key]


async def _request(measures: Json, informer: MetricInformer) -> None:
    parent = model_deployment(offloadingConfig=measures)
    async with open_sources(informer, Metrics()) as sources:
        await gather(sync_request(parent, related=[workload()]), DEFAULTS, sources)
