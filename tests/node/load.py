"""Clients in a pod, which send requests for as long as something happens to the cluster."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.node import image
from tests.node.cluster import Cluster
from tests.processes import poll

_SCRIPT: Final = """\
import collections, http.client, json, os, sys, threading, time
host, path, model = sys.argv[1:]
body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
responses, failures = collections.Counter(), []
def send():
    while not os.path.exists("/tmp/stop"):
        connection = http.client.HTTPConnection(host, 80, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            code = "" if response.status == 200 else content[:300].decode(errors="replace")
            responses[f"{response.status} {response.headers.get('x-beamlit-backend')} {code}".strip()] += 1
        except (OSError, http.client.HTTPException) as exc:
            failures.append(f"{time.time():.1f} {exc!r}")
        finally:
            connection.close()
        with open("/tmp/count", "w") as file:
            file.write(str(responses.total() + len(failures)))
        time.sleep(0.05)
threads = [threading.Thread(target=send) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"responses": responses, "failures": failures}))
"""


@dataclass
class Load:
    """Requests that clients send one after the other, each on a connection of its own, and what came of them."""

    cluster: Cluster
    namespace: str
    responses: Counter[str] = field(default_factory=Counter)
    """Number of responses by status and backend, and the content of those that are no success; empty until the load has
    ended."""
    failures: list[str] = field(default_factory=list)
    """Requests without a whole response, each with its time; empty until the load has ended."""

    def until_more(self, count: int) -> None:
        """Wait until that many requests more were sent."""
        begin = self._count()
        poll(lambda: self._count() >= begin + count, f"{count} requests more are sent")

    def _count(self) -> int:
        return int(self.cluster.execute(self.namespace, "load", "cat", "/tmp/count") or 0)


@contextmanager
def running(cluster: Cluster, namespace: str, host: str, path: str, model: str) -> Iterator[Load]:
    """Send chat requests from a pod for as long as the context lasts."""
    command = ["python", "-c", _SCRIPT, host, f"{path}/v1/chat/completions", model]
    cluster.apply(pod("load", namespace, command))
    cluster.wait("condition=Ready", "pod/load", "-n", namespace)
    load = Load(cluster, namespace)
    try:
        poll(lambda: _begun(cluster, namespace), "requests are sent")
        yield load
        cluster.execute(namespace, "load", "python", "-c", "open('/tmp/stop', 'w')")
        cluster.wait("jsonpath={.status.phase}=Succeeded", "pod/load", "-n", namespace)
        result = json.loads(cluster.kubectl("logs", "load", "-n", namespace))
        load.responses, load.failures = Counter(result["responses"]), result["failures"]
    finally:
        cluster.kubectl("delete", "pod", "load", "-n", namespace)


def pod(name: str, namespace: str, command: list[str], labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a pod that runs a command in the product's image, which has a Python."""
    container = {"name": "main", "image": image.name(), "imagePullPolicy": "IfNotPresent", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        },
    }


def _begun(cluster: Cluster, namespace: str) -> bool:
    script = "import os; print(os.path.exists('/tmp/count'))"
    return cluster.execute(namespace, "load", "python", "-c", script).strip() == "True"
