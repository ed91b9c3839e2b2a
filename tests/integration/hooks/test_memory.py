"""hooks as a process with the memory that the chart gives it: no request that it accepts ends it."""

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import yaml

from hooks.settings import Settings
from tests.builders import REMOTE, model_deployment, request_body
from tests.deadlines import SECONDS
from tests.integration.hooks.test_process import serving
from tests.memory_limits import limited, peak_bytes, quantity
from tools.repository import ROOT

pytestmark = pytest.mark.long

BASE: Final = 112 << 20
"""Bytes of memory of hooks before the first request, with all that a cluster needs, and room for small requests."""
FACTOR: Final = 42
"""Bytes of memory at most for a byte of a body: those of an object in an object with a key of no characters."""
LIMIT: Final = quantity(
    yaml.safe_load((ROOT / "charts/beamlit-controller/values.yaml").read_text())["hooks"]["resources"]["limits"][
        "memory"
    ]
)
"""Bytes of memory that the chart gives hooks."""

ITEMS: Final[Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]]] = {
    "unknown": ('{"":{}}', lambda items: request_body(model_deployment()) | {"unknown": items}),
    "template": (
        '{"":{}}',
        lambda items: request_body(
            model_deployment(
                modelSourceRef=None,
                server={"template": {"spec": {"containers": [{"name": "a", "image": "b", "unknown": items}]}}},
            )
        ),
    ),
    "policies": ("{}", lambda items: request_body(model_deployment(policies=items))),
    "metrics": (
        "{}",
        lambda items: request_body(model_deployment(offloadingConfig={"remoteBackend": REMOTE, "metrics": items})),
    ),
    "headers": ('{"a":1}', lambda items: request_body(model_deployment(gateway={"models": items}))),
}
"""An item, and the body that has a list of as many as it may."""


def largest(kind: str) -> bytes:
    """Return the largest body of a kind that hooks accept by default."""
    item, make = ITEMS[kind]
    head, _, tail = json.dumps(make(["HERE"])).partition('"HERE"')
    room = Settings().hooks.body_bytes - len(head) - len(tail)
    return (head + ",".join([item] * (room // (len(item) + 1))) + tail).encode()


def ask(port: int, path: str, body: bytes) -> int:
    """Send a request; return the status of its response, 429 when hooks closed the connection before the body's end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    except ConnectionError:
        return 429
    finally:
        connection.close()


def test_the_default_limit_fits_the_charts_memory() -> None:
    """The largest body by default, of the kind that takes most memory, fits in what the chart gives hooks."""
    assert BASE + FACTOR * Settings().hooks.body_bytes <= LIMIT


@pytest.mark.parametrize("kind", ITEMS)
def test_no_body_ends_hooks(kind: str) -> None:
    """The largest bodies of the costliest kinds, three at once and again, leave hooks below the chart's limit."""
    body = largest(kind)
    assert Settings().hooks.body_bytes - 10 < len(body) <= Settings().hooks.body_bytes
    statuses: list[int] = []

    def send(port: int) -> None:
        statuses.extend([ask(port, f"/modeldeployments/{hook}", body) for hook in ("customize", "sync")])

    with limited(LIMIT) as prefix, serving("serve", prefix=prefix) as (process, port, _):
        threads = [threading.Thread(target=send, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        send(port)
        assert statuses[-2:] == [200, 200]
        assert len(statuses) == 8
        assert set(statuses) <= {200, 429}
        assert process.poll() is None
        assert peak_bytes(process.pid) <= BASE + FACTOR * len(body)
