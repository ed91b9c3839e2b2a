"""The `openai` client at the gateway, while the local backend fails, dies and comes back."""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from benchmarks.processes import running
from gateway.api.v1alpha1 import Breaker, RouteDocument, ServedModel
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Running, document, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until
from tests.late_import import LateImport
from tools.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    import anthropic
    import openai
else:
    anthropic = LateImport("anthropic")
    openai = LateImport("openai")

SETTINGS: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"], "retry": {"budgetPerSecond": 1000}}}
MESSAGES: Any = [{"role": "user", "content": "hello"}]


class ModelServer:
    """Model server of the demo, which can be killed and started again on its port."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self._folder = folder
        self._stack = ExitStack()

    def start(self) -> None:
        """Start the server, and return when it listens."""
        command = [sys.executable, "-m", "examples.model_server", "--listen", f"127.0.0.1:{self.port}"]
        flags = ["--model", self.name, "--time-to-first-token", "0.01", "--tokens-per-second", "2000"]
        self._process = self._stack.enter_context(running(self.name, [*command, *flags], self.port, self._folder))

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()
        self.stop()

    def stop(self) -> None:
        """Stop the server if it runs."""
        self._stack.close()

    def demo(self, path: str) -> None:
        """Send a POST to a path under /_demo."""
        httpx.post(f"http://127.0.0.1:{self.port}/_demo/{path}", trust_env=False).raise_for_status()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[ModelServer, ModelServer]]:
    """Yield a local and a remote model server."""
    near, far = ModelServer("tiny-local", tmp_path), ModelServer("tiny-remote", tmp_path)
    try:
        near.start()
        far.start()
        yield near, far
    finally:
        near.stop()
        far.stop()


def client(gateway: Running) -> openai.AsyncOpenAI:
    """Return a client that never retries by itself."""
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none", max_retries=0)


async def test_a_client_does_not_repeat_what_stays_refused() -> None:
    """The clients of OpenAI and Anthropic send a request once whose model two namespaces have, though it is a 409."""
    async with gateway() as running:
        running.load_all({"one": [document()], "two": [document()]})
        url = f"http://127.0.0.1:{running.port}"
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as ask:
            assert ask.max_retries == 2
            with pytest.raises(openai.ConflictError, match="one/demo or two/demo"):
                await ask.chat.completions.create(model="demo", messages=MESSAGES)
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none") as claude:
            with pytest.raises(anthropic.ConflictError, match="one/demo or two/demo"):
                await claude.messages.create(model="demo", messages=MESSAGES, max_tokens=9)
        await until(lambda: len(running.lines()) == 2)
        assert [line["code"] for line in running.lines()] == ["ambiguous_model"] * 2


async def chat(ask: openai.AsyncOpenAI) -> None:
    """Request a chat completion and check it."""
    response = await ask.chat.completions.create(model="demo", messages=MESSAGES)
    assert (response.choices[0].message.content or "").endswith("You said: hello")


async def stream(ask: openai.AsyncOpenAI) -> None:
    """Request a chat completion as a stream; check that it is complete."""
    pieces = await ask.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
    text, reasons = "", set()
    async for piece in pieces:
        text += piece.choices[0].delta.content or ""
        reasons.add(piece.choices[0].finish_reason)
    assert text.endswith("You said: hello")
    assert "stop" in reasons


async def embeddings(ask: openai.AsyncOpenAI) -> None:
    """Request the embeddings of two texts."""
    assert len((await ask.embeddings.create(model="demo", input=["a", "b"])).data) == 2


async def models(ask: openai.AsyncOpenAI) -> None:
    """Request the list of models, and one of them."""
    assert [model.id async for model in ask.models.list()] == ["demo"]
    assert (await ask.models.retrieve("demo")).id == "demo"


KINDS: tuple[Callable[[openai.AsyncOpenAI], Awaitable[None]], ...] = (chat, stream, embeddings, models)


def route() -> RouteDocument:
    """Return a route to both servers, the remote one for failover only, whose breaker never opens."""
    breaker = Breaker(consecutive_failures=1000, minimum=1000000)
    return document(local(model="tiny-local"), remote(model="tiny-remote"), breaker=breaker)


async def test_clients_see_no_failure_of_the_local_server(servers: tuple[ModelServer, ModelServer]) -> None:
    """No chat, stream, embedding or list fails while the local server sends errors, is killed and comes back."""
    near, far = servers
    async with gateway(route(), local_port=near.port, remote_port=far.port, settings=SETTINGS) as running:
        over = asyncio.Event()
        done = streams = 0

        async def send_requests(number: int) -> None:
            nonlocal done, streams
            async with client(running) as ask:
                for kind in itertools.islice(itertools.cycle(KINDS), number, None):
                    if over.is_set():
                        return
                    # A stream that has begun cannot be retried: there is none while the server is killed.
                    if kind is not stream or may_stream.is_set():
                        streams += kind is stream
                        await kind(ask)
                        streams -= kind is stream
                        done += 1

        may_stream = asyncio.Event()
        may_stream.set()

        async def until_seen(*causes: str) -> None:
            """Wait until attempts have failed by one of the causes, and 40 more requests have succeeded."""
            async with asyncio.timeout(SECONDS):
                while not any(f'"cause":"{cause}"' in running.log.getvalue() for cause in causes):
                    await asyncio.sleep(0.02)
                before = done
                while done < before + 40:
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(send_requests(number))
            for status in ("503", "502", "429"):
                await asyncio.to_thread(near.demo, f"failures?every=2&status={status}")
                await until_seen(status)
            await asyncio.to_thread(near.demo, "failures?every=0")
            may_stream.clear()
            await until(lambda: streams == 0)
            await asyncio.to_thread(near.kill)
            may_stream.set()
            await until_seen("connect_failed", "upstream_reset")
            await asyncio.to_thread(near.start)
            while running.lines()[-1]["backend"] != "local":
                await asyncio.sleep(0.1)
            over.set()
        backends = {line["backend"] for line in running.lines()}
        assert {"local", "remote"} <= backends
        assert running.count("beamlit_gateway_refused_requests_total", code="internal_error") == 0
        assert all(line["status"] == 200 for line in running.lines())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
    ],
)
async def test_errors_of_a_backend_pass_as_they_are(status: int, kind: str) -> None:
    """An error response of a backend becomes the client's own class of error, with code and message."""
    body = b'{"error":{"message":"so it is","type":"t","code":"c","param":null}}'

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply(body, b"%d No" % status, b"content-type: application/json"))

    async with serving(script) as server, gateway(document(local()), local_port=server.port) as running:
        async with client(running) as ask:
            with pytest.raises(getattr(openai, kind)) as caught:
                await chat(ask)
        assert (caught.value.status_code, caught.value.code) == (status, "c")
        assert "so it is" in caught.value.message
        assert caught.value.request_id


async def test_errors_of_the_gateway_are_the_clients_own() -> None:
    """Errors of the gateway become the client's own classes of errors, with their codes."""
    async with gateway(document(local(), limits={"bodyBytes": 1000})) as running, client(running) as ask:
        with pytest.raises(openai.NotFoundError) as unknown:
            await ask.chat.completions.create(model="other", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await ask.models.retrieve("other")
        with pytest.raises(openai.APIStatusError) as large:
            await ask.embeddings.create(model="demo", input="a" * 2000)
        assert (large.value.status_code, large.value.code) == (413, "body_too_large")
        with pytest.raises(openai.InternalServerError) as gone:
            await chat(ask)
        assert (gone.value.status_code, gone.value.code) == (502, "connect_failed")


async def test_models_whose_ids_have_slashes() -> None:
    """The client's `retrieve` and `delete` of an id with slashes, which it encodes, lead where the id says."""

    async def script(side: ServerSide) -> None:
        while True:
            line = (await side.request()).partition(b" HTTP/1.1")[0].decode()
            model = {"id": line, "object": "model", "created": 1, "owned_by": "x", "deleted": True}
            await side.send(reply(orjson.dumps(model), b"200 OK", b"content-type: application/json"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        async with client(running) as ask:
            assert (await ask.models.retrieve("default/demo")).id == "default/demo"
            for unknown in ("default/other", "default/demo/more", "default%2Fdemo"):
                with pytest.raises(openai.NotFoundError) as caught:
                    await ask.models.retrieve(unknown)
                assert caught.value.code == "model_not_found"
            with pytest.raises(openai.APIStatusError) as refused:
                await ask.models.delete("default/demo")
            assert (refused.value.status_code, refused.value.response.headers["allow"]) == (405, "GET, HEAD")
        by_path = f"http://127.0.0.1:{running.port}/default/demo/v1"
        async with openai.AsyncOpenAI(base_url=by_path, api_key="none", max_retries=0) as ask:
            assert (await ask.models.retrieve("org/name")).id == "GET /v1/models/org%2Fname"
            assert (await ask.models.delete("/data/llama.gguf")).id == "DELETE /v1/models/%2Fdata%2Fllama.gguf"


async def test_deployments_whose_names_have_slashes() -> None:
    """Azure's client encodes the slash of a model's name in the path, which is renamed like that in the body."""

    async def script(side: ServerSide) -> None:
        while True:
            head, _, body = (await side.request()).partition(b"\r\n\r\n")
            line = head.partition(b" HTTP/1.1")[0].decode()
            seen = {"id": line, "object": "chat.completion", "created": 1, "model": orjson.loads(body)["model"]}
            await side.send(reply(orjson.dumps(seen | {"choices": []}), b"200 OK", b"content-type: application/json"))

    names = [ServedModel(name="lora", local_model="adapters/lora"), ServedModel(name="org/other")]
    several = document(local(model="tiny"), models=names)
    sent = {
        "default/demo": ("tiny", "tiny"),
        "default/lora": ("adapters%2Flora", "adapters/lora"),
        "org/other": ("org%2Fother", "org/other"),
    }
    async with serving(script) as server, gateway(several, local_port=server.port) as running:
        url = f"http://127.0.0.1:{running.port}/default/demo"
        async with openai.AsyncAzureOpenAI(azure_endpoint=url, api_key="none", api_version="1", max_retries=0) as ask:
            for name, (in_path, in_body) in sent.items():
                response = await ask.chat.completions.create(model=name, messages=MESSAGES)
                line = f"POST /openai/deployments/{in_path}/chat/completions?api-version=1"
                assert (response.id, response.model) == (line, in_body)
            with pytest.raises(openai.NotFoundError):
                await ask.chat.completions.create(model="default/other", messages=MESSAGES)
            with pytest.raises(openai.BadRequestError) as refused:
                await ask.chat.completions.create(model="default/../demo", messages=MESSAGES)
            assert refused.value.code == "malformed_request"


async def test_a_stream_that_dies_is_an_error_of_the_client() -> None:
    """A stream whose backend dies raises an error in the client and never looks complete."""
    choice = {"index": 0, "delta": {"content": "a"}}
    whole = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    piece = b"data: %b\n\n" % orjson.dumps(whole)

    async def script(side: ServerSide) -> None:
        await side.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await side.send(head + b"%x\r\n%b\r\n" % (len(piece), piece))
        await side.read()
        side.reset()

    async with serving(script) as server, gateway(document(local()), local_port=server.port) as running:
        async with client(running) as ask:
            pieces = await ask.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
            seen = [(await anext(pieces.__aiter__())).choices[0].delta.content]
            with pytest.raises(openai.APIError) as caught:
                seen += [one.choices[0].delta.content async for one in pieces]
        assert seen == ["a"]
        assert caught.value.code == "upstream_reset"
