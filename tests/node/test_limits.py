"""Hostile bodies at the memory limits of the chart: no container is killed."""

import json
from typing import Any, Final

from hooks.settings import Settings
from tests.node import load
from tests.node.cluster import Cluster
from tests.node.release import CLIENTS, GATEWAY, MODEL, NAME, NAMESPACE, Release

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
_Body = tuple[str, str, str, int, int]
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


def test_no_body_ends_the_gateway(applied: Release) -> None:
    """Bodies that cost the gateway most to hold and to read are refused or passed on; no container is killed for its
    memory, and requests are served afterwards."""
    target = (f"{NAME}-gateway.{NAMESPACE}", "80", "/v1/chat/completions", "plain")
    _check(applied, CLIENTS, {}, target, _GATEWAY)


def test_no_body_ends_hooks(applied: Release) -> None:
    """Bodies that cost hooks most to hold and to read are refused or responded to, from a pod that may call hooks; no
    container is killed for its memory, and models are served afterwards."""
    policy = applied.cluster.get("networkpolicy", f"{NAME}-hooks", NAMESPACE)
    (peer,) = policy["spec"]["ingress"][0]["from"]
    target = (f"{NAME}-hooks.{NAMESPACE}.svc", "8443", "/modeldeployments/sync", "tls")
    _check(applied, NAMESPACE, peer["podSelector"]["matchLabels"], target, _HOOKS)


def _check(
    release: Release,
    namespace: str,
    labels: dict[str, str],
    target: tuple[str, str, str, str],
    bodies: tuple[_Body, ...],
) -> None:
    """Send bodies from a pod, and check that each got a response, and that no container was started again."""
    cluster, before = release.cluster, release.restarts()
    responses = _send(
        cluster, load.pod("hostile", namespace, ["python", "-c", _SCRIPT, *target, json.dumps(bodies)], labels)
    )
    assert len(responses) == sum(body[-1] for body in bodies)
    assert all(isinstance(one, int) and one < 504 for one in responses), responses
    assert release.restarts() == before
    assert release.client.ask(f"{GATEWAY}/default/{MODEL}", MODEL).status == 200
    killed = [pod for pod in cluster.get("pods", namespace=NAMESPACE)["items"] if "OOMKilled" in json.dumps(pod)]
    assert not killed


def _send(cluster: Cluster, pod: dict[str, Any]) -> list[int | str]:
    """Run the pod, and return the status of the response to each body that it sent, or the error in its place."""
    place = (f"pod/{pod['metadata']['name']}", "-n", pod["metadata"]["namespace"])
    cluster.apply(pod)
    try:
        cluster.wait("jsonpath={.status.phase}=Succeeded", *place, seconds=300)
        responses: list[int | str] = json.loads(cluster.kubectl("logs", *place))
        return responses
    finally:
        cluster.kubectl("delete", *place)
