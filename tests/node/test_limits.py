"""Hostile bodies at the memory limits of the chart: no container is killed."""

import json
from typing import Final

import pytest

from hooks.settings import Settings
from tests.node import load
from tests.node.cluster import Cluster
from tests.node.release import CLIENTS, GATEWAY, NAME, NAMESPACE, Release

_SCRIPT: Final = """\
import http.client, json, ssl, sys, threading
host, port, path, tls, bodies = sys.argv[1:]
port, tls, bodies, responses = int(port), tls == "tls", json.loads(bodies), []
def send(head, item, tail, size):
    head, item, tail = (word.encode() for word in (head, item, tail))
    body = (head + item * ((size - len(head) - len(tail)) // len(item)) + tail).ljust(size)
    if tls:
        connection = http.client.HTTPSConnection(host, port, timeout=300, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=300)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        responses.append(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as exc:
        responses.append(repr(exc))
for *body, count in bodies:
    threads = [threading.Thread(target=send, args=body) for _ in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(json.dumps(responses))
"""
_LARGEST: Final = 32 << 20
_GATEWAY: Final = (
    ('{"model": "demo-server", "a": [', '{"a":[]},', '{"model": "x"}]}', _LARGEST, 2),
    ('{"a": [', '"abc",', '1], "model": "demo-server"}', _LARGEST, 2),
    ('{"model": "demo-server"', ',"":{}', "}", _LARGEST, 2),
    ('{"model": "demo-server", "a": ', "[", "", _LARGEST, 2),
    ('{"model": "demo-server", "image": "', "A", '"}', 20 << 20, 12),
)
"""Begin, middle, end and size of bodies for the gateway, and how many of each are sent at once."""
_BODY_BYTES: Final = Settings().hooks.body_bytes
_HOOKS: Final = (
    ('{"a": ', "[", "", _BODY_BYTES, 2),
    ('{"a": [', '{"":{}},', "1]}", _BODY_BYTES, 4),
    ('{"parent": {"metadata": {"name": "', "A", '"}}}', _BODY_BYTES, 4),
    ('{"parent": {"metadata": {"name": "', "A", '"}}}', 64 << 20, 2),
)
"""The same for hooks."""


@pytest.mark.parametrize("component", ["gateway", "hooks"])
def test_no_body_ends_a_container(applied: Release, component: str) -> None:
    """Bodies that cost most to hold and to read are refused or passed on; no container is killed for its memory, and
    requests are served afterwards."""
    cluster = applied.cluster
    if component == "gateway":
        place = (CLIENTS, f"{NAME}-gateway.{NAMESPACE}", 80, "/v1/chat/completions", "plain", _GATEWAY)
        labels = None
    else:
        policy = cluster.get("networkpolicy", f"{NAME}-hooks", NAMESPACE)
        (peer,) = policy["spec"]["ingress"][0]["from"]
        labels = peer["podSelector"]["matchLabels"]
        place = (NAMESPACE, f"{NAME}-hooks.{NAMESPACE}.svc", 8443, "/modeldeployments/sync", "tls", _HOOKS)
    before = applied.restarts()
    responses = _send(cluster, labels, *place)
    assert len(responses) == sum(body[-1] for body in place[-1])
    assert all(isinstance(one, int) and one < 504 for one in responses), responses
    assert applied.restarts().items() >= before.items()
    assert applied.client.ask(f"{GATEWAY}/default/demo-server", "demo-server").status == 200
    killed = [pod for pod in cluster.get("pods", namespace=NAMESPACE)["items"] if "OOMKilled" in json.dumps(pod)]
    assert not killed


def _send(
    cluster: Cluster, labels: dict[str, str] | None, namespace: str, host: str, port: int, path: str, tls: str,
    bodies: tuple[tuple[str, str, str, int, int], ...],
) -> list[int | str]:  # fmt: skip
    """Send bodies from a pod, and return the status of each response, or the error in its place."""
    command = ["python", "-c", _SCRIPT, host, str(port), path, tls, json.dumps(bodies)]
    pod = load.pod("hostile", namespace, command, labels)
    cluster.apply(pod)
    try:
        cluster.wait("jsonpath={.status.phase}=Succeeded", "pod/hostile", "-n", namespace, seconds=300)
        responses: list[int | str] = json.loads(cluster.kubectl("logs", "hostile", "-n", namespace))
        return responses
    finally:
        cluster.kubectl("delete", "pod", "hostile", "-n", namespace)
