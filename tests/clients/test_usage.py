"""The `openai` client at a gateway that asks for the tokens of every stream."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import running
from tests.clients.calls import MESSAGES
from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.deadlines import SECONDS
from tests.processes import poll
from tools.ports import free_port

BODY = {"model": "demo", "messages": MESSAGES, "stream": True}
LABELS = {"namespace": "default", "model": "demo", "backend": "local"}


@pytest.fixture(scope="module")
def asking(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Yield another gateway in front of the same server, with `usage: always`."""
    folder = tmp_path_factory.mktemp("usage")
    port, admin = free_port(), free_port()
    config = Path(folder, "config.yaml")
    config.write_text("namespaces: default\ngateway: {usage: always, timeouts: {localConnectSeconds: 30}}\n")
    command = [
        *(sys.executable, "-m", "gateway", "--config", str(config), "--routes", str(place.folder / "routes")),
        *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
        f"--resolve=local.default.svc.cluster.local:80=127.0.0.1:{place.server.ports['local']}",
    ]
    with running("gateway", command, port, folder):
        yield Place(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", place.server, folder)


def tokens(asking: Place) -> dict[str, float]:
    """Return the tokens of the model that the gateway has counted, by their direction."""
    text = httpx.get(f"{asking.admin}/metrics", trust_env=False).raise_for_status().text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    found = [one for one in samples if one.name == "beamlit_gateway_tokens_total"]
    return {one.labels["direction"]: one.value for one in found if one.labels.items() >= LABELS.items()}


def test_a_client_sees_the_usage_that_it_asks_for(asking: Place) -> None:
    """A client that asks for usage gets it, one that does not gets a choice in every chunk, and both are counted."""
    with openai.OpenAI(base_url=f"{asking.url}/v1", api_key="key", max_retries=0, timeout=SECONDS) as client:
        stream = client.chat.completions.create(
            model="demo", messages=MESSAGES, stream=True, extra_headers={"x-case": "usage/not-asked"}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
        assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
        poll(lambda: tokens(asking) == {"input": 1, "output": 3}, "the tokens of a request")
        stream = client.chat.completions.create(
            model="demo",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-case": "usage/asked"},
        )
        *first, last = list(stream)
        assert len(first) == len(chunks)
        assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 3)
        poll(lambda: tokens(asking) == {"input": 2, "output": 6}, "the tokens of both requests")
    for case in ("usage/not-asked", "usage/asked"):
        assert json.loads(asking.server.wait_for(case).body)["stream_options"] == {"include_usage": True}


def test_all_other_bytes_stay(place: Place, asking: Place) -> None:
    """A stream has the same bytes whether the gateway asks for usage or not."""
    bodies = [
        httpx.post(f"{one.url}/v1/chat/completions", json=BODY, trust_env=False, timeout=SECONDS).content
        for one in (place, asking)
    ]
    assert bodies[0] == bodies[1]
    assert bodies[0].endswith(b"data: [DONE]\n\n")
