"""The client of an API server with scripted servers: what it sends, what it reads, and how each call ends."""

import asyncio
import gc
import json
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from program.kubernetes import client as client_module
from program.kubernetes.client import KubernetesClient
from program.kubernetes.connection import connect
from program.kubernetes.errors import (
    ApiError,
    ApiInterrupted,
    ApiMalformed,
    ApiRefusal,
    ApiTooLarge,
    ApiUnreachable,
)
from tests.authorities import Authority, strict_by_default
from tests.integration.apiserver import BREAK, END, ApiServer, Collection, Scripted, config_map, kubeconfig

TOKEN = "canary-of-the-token"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Yield an API server with one collection of one object."""
    api = ApiServer()
    api.collections[MAPS] = Collection([config_map("a")])
    api.start()
    yield api
    api.stop()


@asynccontextmanager
async def opened(folder: Path, port: int, *, strict_tls: bool = False, **rest: Any) -> AsyncIterator[KubernetesClient]:
    """Open a client of a server on a local port, and afterwards assert by a garbage collection that nothing is left."""
    client = await connect(kubeconfig(folder, port, TOKEN, **rest), strict_tls=strict_tls)
    assert client is not None
    async with client:
        yield client
    del client
    gc.collect()


@asynccontextmanager
async def raw(response: bytes, *, end: bool = True) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Send these bytes on each connection after its first request; yield the port and the request heads."""
    heads: list[bytes] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(response)
            await writer.drain()
            if not end:
                await done.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def failed(client: KubernetesClient, **rest: Any) -> ApiError:
    """Return the error of a call, and assert that it does not repeat the token."""
    with pytest.raises(ApiError) as caught:
        await client.get("/x", **{"read_seconds": 10.0} | rest)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return caught.value


async def test_what_is_sent(tmp_path: Path) -> None:
    """A GET has the path and query as given, the token, and asks for JSON that is not compressed."""
    async with (
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as (port, heads),
        opened(tmp_path, port) as client,
    ):
        assert (
            await client.get("/a%3Fb%2Fc%20d/*", [("labelSelector", "a in (b,c)"), ("limit", "1")], read_seconds=1)
            == {}
        )
    request, *fields = heads[0].decode().lower().split("\r\n")
    assert request == "get /a%3fb%2fc%20d/*?labelselector=a+in+%28b%2cc%29&limit=1 http/1.1"
    assert f"authorization: bearer {TOKEN}" in fields
    assert "accept-encoding: identity" in fields
    assert "accept: application/json" in fields


async def test_a_patch(tmp_path: Path) -> None:
    """A JSON Patch is sent whole with its own content type, and the response is returned."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        bodies.extend((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n" + b'{"a":1}')
        writer.close()

    operations = [{"op": "remove", "path": "/spec"}]
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, opened(tmp_path, server.sockets[0].getsockname()[1]) as client:
        assert await client.patch("/x", operations, read_seconds=5) == {"a": 1}
    head, body = bodies
    assert head.startswith(b"PATCH /x HTTP/1.1\r\n")
    assert b"content-type: application/json-patch+json\r\n" in head.lower()
    assert json.loads(body) == operations


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(tmp_path: Path, api: ApiServer, status: int) -> None:
    """A redirect is an error, and the token is sent to no other server."""
    other = ApiServer()
    other.objects["/elsewhere"] = {}
    other.start()
    api.scripted["/x"] = Scripted(b"", status, headers={"location": f"http://127.0.0.1:{other.port}/elsewhere"})
    try:
        async with opened(tmp_path, api.port) as client:
            error = await failed(client)
    finally:
        other.stop()
    assert isinstance(error, ApiRefusal)
    assert error.status == status
    assert other.tokens == []


async def test_a_request_is_sent_once(tmp_path: Path) -> None:
    """A request whose connection ends before the response is an error and is not sent again."""
    async with raw(b"") as (port, heads), opened(tmp_path, port) as client:
        assert isinstance(await failed(client), ApiInterrupted)
    assert len(heads) == 1


async def test_no_cookie_is_kept(tmp_path: Path) -> None:
    """A cookie of a response is not sent with later requests."""
    response = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    async with raw(response) as (port, heads), opened(tmp_path, port) as client:
        for _ in range(2):
            await client.get("/x", read_seconds=5)
    assert len(heads) == 2
    assert not any(b"\r\ncookie:" in head.lower() for head in heads)


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", ApiInterrupted, "its response broke off"),
        (b"nonsense\r\n\r\n", ApiInterrupted, "does not respond in HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull", ApiMalformed, "no JSON object"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", ApiMalformed, "no JSON object"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            ApiMalformed,
            "an encoding that was not asked for",
        ),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", ApiRefusal, "responds with 403 Forbidden"),
    ],
)
async def test_a_response_that_cannot_be_used(
    tmp_path: Path, response: bytes, kind: type[ApiError], words: str
) -> None:
    """A response that cannot be used has an error of its own kind, in one line without the token."""
    async with raw(response) as (port, _), opened(tmp_path, port) as client:
        error = await failed(client)
    assert isinstance(error, kind)
    assert words in str(error)


async def test_what_a_refusal_says(tmp_path: Path, api: ApiServer) -> None:
    """An error has the message of a Status object in one line, and nothing of any other body."""
    api.scripted["/x"] = Scripted({"kind": "Status", "message": "a\nb  c."}, 409)
    async with opened(tmp_path, api.port) as client:
        error = await failed(client)
        assert isinstance(error, ApiRefusal)
        assert (str(error), error.explanation, error.is_status) == (
            "the API server responds with 409 Conflict: a b c",
            "a b c",
            True,
        )
        api.scripted["/x"] = Scripted(b"404 page not found\n" * 100_000, 404)
        error = await failed(client)
        assert isinstance(error, ApiRefusal)
        assert (error.status, error.explanation, error.is_status) == (404, "Not Found", False)


async def test_a_silent_server(tmp_path: Path) -> None:
    """A response that does not come before its deadline is given up."""
    async with raw(b"", end=False) as (port, _), opened(tmp_path, port) as client:
        assert str(await failed(client, read_seconds=0.2)).endswith("its response timed out")


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """A refused connection is an error that says that the server cannot be connected to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with opened(tmp_path, free.getsockname()[1]) as client:
            error = await failed(client)
    assert isinstance(error, ApiUnreachable)
    assert (error.timed_out, error.problem) == (False, "it cannot be connected to")
    assert str(error).endswith("Connection refused")


async def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    """A server whose name does not resolve is an error of the connection."""
    async with opened(tmp_path, 1, server="http://does-not-exist.invalid") as client:
        error = await failed(client)
    assert isinstance(error, ApiUnreachable)


async def test_a_certificate_of_another_authority(tmp_path: Path) -> None:
    """A certificate that is not accepted is an error with the reason."""
    certificate, key = Authority("other").issue("localhost").write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    (tmp_path / "ca.pem").write_text(Authority("ours").pem)
    authority: dict[str, Any] = {"certificate-authority": str(tmp_path / "ca.pem")}
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with opened(tmp_path, 0, server=address, **authority) as client:
            error = await failed(client)
    assert isinstance(error, ApiUnreachable)
    assert error.problem.startswith("its certificate is not accepted, ")


@pytest.mark.parametrize("strict", [False, True])
async def test_an_authority_without_key_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool) -> None:
    """An authority without key usage and key identifiers is accepted on every Python, unless verification is strict."""
    strict_by_default(monkeypatch)
    authority = Authority("bare", bare=True)
    certificate, key = authority.issue("localhost").write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    (tmp_path / "ca.pem").write_text(authority.pem)
    fields: dict[str, Any] = {"certificate-authority": str(tmp_path / "ca.pem")}
    api = ApiServer(context)
    api.objects["/x"] = {}
    api.start()
    try:
        address = f"https://localhost:{api.port}"
        async with opened(tmp_path, 0, server=address, strict_tls=strict, **fields) as client:
            if strict:
                assert "certificate is not accepted" in str(await failed(client))
            else:
                assert await client.get("/x", read_seconds=10) == {}
    finally:
        api.stop()


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
async def test_a_handshake_that_hangs(tmp_path: Path, how: str) -> None:
    """A TLS handshake that hangs ends at the connect deadline or with its cancelled call, and leaves no open socket."""
    async with raw(b"", end=False) as (port, _), opened(tmp_path, 0, server=f"https://127.0.0.1:{port}") as client:
        if how == "deadline":
            error = await failed(client, connect_seconds=0.2)
            assert isinstance(error, ApiUnreachable)
            assert error.timed_out
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.get("/x", read_seconds=None)


async def test_a_cancelled_call_gives_its_connection_up(tmp_path: Path) -> None:
    """A cancelled call closes its connection to the server at once."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
        assert await reader.read() == b""
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, opened(tmp_path, server.sockets[0].getsockname()[1]) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.get("/x", read_seconds=None)
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_body_above_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A body that never ends is given up at the size limit."""
    body = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 200_000
    async with raw(body, end=False) as (port, _), opened(tmp_path, port) as client:
        assert isinstance(await failed(client, limit=100_000), ApiTooLarge)


async def test_timeouts(tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch has no limit of its total time, only one of 90 s of silence; other calls have shorter limits."""
    seen: list[aiohttp.ClientTimeout] = []
    async with opened(tmp_path, api.port) as client:
        transport = client._transport
        call = transport._api.call_api

        async def spy(*arguments: Any, **rest: Any) -> Any:
            seen.append(rest["_request_timeout"])
            return await call(*arguments, **rest)

        monkeypatch.setattr(transport._api, "call_api", spy)
        async with client.watch(MAPS, "", "1", 600):
            pass
        async for _ in client.pages(MAPS, ""):
            pass
        api.objects["/x"] = {}
        await client.get("/x", read_seconds=None, connect_seconds=2)
    assert seen == [
        aiohttp.ClientTimeout(total=None, connect=5, sock_read=90),
        aiohttp.ClientTimeout(total=None, connect=5, sock_read=30),
        aiohttp.ClientTimeout(total=None, connect=2, sock_read=None),
    ]


async def test_a_watch(tmp_path: Path, api: ApiServer) -> None:
    """A watch asks for bookmarks, yields events one by one, and ends when the server ends it."""
    script = api.collections[MAPS]
    for number in range(3):
        script.push("ADDED", config_map(f"c{number}", number))
    script.push("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    script.events.put(END)
    async with opened(tmp_path, api.port) as client, client.watch(MAPS, "a=b", "7", 600.9) as events:
        kinds = [event["type"] async for event in events]
    assert kinds == ["ADDED"] * 3 + ["BOOKMARK"]
    assert script.queries == [
        {
            "watch": "true",
            "labelSelector": "a=b",
            "resourceVersion": "7",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "600",
        }
    ]


async def test_a_watch_that_is_refused(tmp_path: Path, api: ApiServer) -> None:
    """A watch that is refused raises an error with the status before its block is entered."""
    api.collections[MAPS].watch_status = 410
    async with opened(tmp_path, api.port) as client:
        with pytest.raises(ApiRefusal, match="410") as caught:
            async with client.watch(MAPS, "", "7", 60):
                pytest.fail("it is refused")
    assert caught.value.status == 410


@pytest.mark.parametrize("how", ["silent", "broken", "large", "malformed"])
async def test_a_watch_that_ends_badly(
    tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A watch that is silent, breaks off, or sends an event too large or malformed has an error of its own kind."""
    script = api.collections[MAPS]
    if how == "silent":
        monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.3)
    elif how == "broken":
        script.events.put(BREAK)
    elif how == "large":
        monkeypatch.setattr(client_module, "EVENT_BYTES", 100_000)
        script.push("ADDED", config_map("a", text="x" * 300_000))
    else:
        script.events.put(b"[]")
    expected = {
        "silent": (ApiInterrupted, "silent for"),
        "broken": (ApiInterrupted, "broke off"),
        "large": (ApiTooLarge, "larger than"),
        "malformed": (ApiMalformed, "no JSON object"),
    }[how]
    async with opened(tmp_path, api.port) as client, client.watch(MAPS, "", "1", 600) as events:
        with pytest.raises(expected[0], match=expected[1]):
            async for _ in events:
                pass


async def test_pages_above_the_limit_come_in_parts(
    tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is too large is requested again with fewer objects, and one object that is too large is an error."""
    monkeypatch.setattr(client_module, "PAGE_BYTES", 20_000)
    script = api.collections[MAPS]
    script.items = [config_map(f"c{number}", number, "x" * 3000) for number in range(20)]
    async with opened(tmp_path, api.port) as client:
        assert sum([len(items) async for items, _ in client.pages(MAPS, "")]) == 20
        assert [one["limit"] for one in script.queries][:4] == ["500", "62", "7", "1"]
        script.items = [config_map("huge", 1, "x" * 30_000)]
        with pytest.raises(ApiTooLarge):
            async for _ in client.pages(MAPS, ""):
                pass


async def test_a_machine_that_is_gone_is_noticed(tmp_path: Path, api: ApiServer) -> None:
    """An idle connection probes the other machine after 10 s, three times, 5 s apart."""
    async with opened(tmp_path, api.port) as client, client.watch(MAPS, "", "1", 600) as events:
        connection = events._response.connection
        assert connection is not None
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3]


async def test_many_watches_leave_room_for_other_calls(tmp_path: Path, api: ApiServer) -> None:
    """120 watches and a single read are open at the same time, although the package allows 100 by default."""
    api.objects["/x"] = {}
    async with opened(tmp_path, api.port) as client, AsyncExitStack() as stack:
        for _ in range(120):
            await stack.enter_async_context(client.watch(MAPS, "", "1", 600))
        assert await client.get("/x", read_seconds=10) == {}
