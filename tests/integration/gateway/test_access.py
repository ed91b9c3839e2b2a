"""Access by API keys: who is served, what a client without a key learns, and where a key is found afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from structlog.testing import capture_logs

from gateway import admin
from gateway.__main__ import _read
from gateway.access.directory import KeyDirectory
from gateway.api.v1alpha1 import Cors
from gateway.journal import decision
from program.settings import SettingsError
from tests.integration.gateway.wire import Running, document, echo, gateway, local, remote
from tests.integration.servers import ScriptedServer, serving, until

KEY: Final = b"canary-5e1f0c9a77d2"
OTHER: Final = b"canary-of-another-caller"
BODY: Final = b'{"model": "demo"}'
HANDSHAKE: Final = (
    b"GET /default/demo/v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def bearer(key: bytes = KEY) -> bytes:
    """Return the field by which OpenAI's clients send a key."""
    return b"Authorization: Bearer " + key


@asynccontextmanager
async def running(
    folder: Path, *documents: Any, **settings: Any
) -> AsyncIterator[tuple[Running, list[ScriptedServer]]]:
    """Yield a gateway with the keys in a folder, and its local and remote server."""
    access = KeyDirectory(folder, poll_seconds=0.02)
    section = {"allowedAddresses": ["127.0.0.0/8"], "access": {"keysDirectory": str(folder)}, **settings}
    async with serving(echo) as near, serving(echo) as far:
        task = asyncio.create_task(access.watch())
        try:
            async with gateway(
                *documents, local_port=near.port, remote_port=far.port, settings={"gateway": section}, access=access
            ) as one:
                yield one, [near, far]
        finally:
            task.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the keys of two callers, as the kubelet makes one of a Secret."""
    data = tmp_path / "..data"
    data.mkdir()
    for name, key in (("team-a", KEY + b"\n"), ("team-b", OTHER)):
        (data / name).write_bytes(key)
        (tmp_path / name).symlink_to(Path("..data") / name)
    return tmp_path


def received(servers: list[ScriptedServer]) -> bytes:
    """Return all that backends have received."""
    return b"".join(side.received for server in servers for side in server.sides)


@pytest.mark.parametrize(
    "target", [b"/v1/chat/completions", b"/default/demo/v1/messages", b"/v1/models", b"/v1/nothing", b"/default/none/x"]
)
async def test_without_a_key_nothing_is_served(folder: Path, target: bytes) -> None:
    """A request without a key is 401 in the form of its API, whether or not there is what it asks for."""
    async with running(folder) as (one, servers):
        response = await one.post(target, BODY)
        assert response.status == 401
        assert response.value(b"www-authenticate") == b'Bearer realm="beamlit"'
        error = orjson.loads(response.body)["error"]
        if b"messages" in target:
            assert (error["type"], error["details"]["error_code"]) == ("authentication_error", "unauthorized")
        else:
            assert error["code"] == "unauthorized"
        assert received(servers) == b""
        assert one.count("beamlit_gateway_refused_requests_total", code="unauthorized") == 1
        assert one.count("beamlit_gateway_arrived_requests_total", namespace="default", model="demo") == 0
        wrong = await one.post(target, BODY, bearer(b"canary-that-nobody-has"))
        assert (wrong.status, wrong.value(b"www-authenticate")) == (
            401, b'Bearer realm="beamlit", error="invalid_token"',
        )  # fmt: skip
        assert b"canary" not in wrong.body


@pytest.mark.parametrize("field", [bearer(), b"X-Api-Key: " + KEY, b"Api-Key: " + KEY])
async def test_the_caller_is_known_by_name(folder: Path, field: bytes) -> None:
    """A request with a key is served; its caller's name is in the log, in /decisions and in a counter."""
    async with running(folder) as (one, _):
        assert (await one.post(b"/v1/chat/completions", BODY, field)).status == 200
        assert (await one.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field)).status == 200
        await until(lambda: len(one.lines()) == 2)
        assert [line["caller"] for line in one.lines()] == ["team-a", "team-a"]
        assert [entry["caller"] for entry in one.journal.decisions()] == ["team-a", "team-a"]
        assert one.count("beamlit_gateway_caller_requests_total", caller="team-a") == 2


async def test_a_key_is_found_nowhere_else(folder: Path) -> None:
    """A key reaches neither backends, local or remote, nor the log, metrics, pages and error bodies."""
    route = document(local(50), remote(50))
    async with running(folder, route) as (one, servers):
        shown = b""
        with capture_logs() as logs:
            for field in (bearer(), b"X-Api-Key: " + KEY, b"Api-Key: " + KEY):
                for target in (b"/default/demo/x", b"/v1/none", b"/v1/chat/completions"):
                    response = await one.post(target, BODY, field)
                    shown += response.body + repr(response.fields).encode()
            protocols = b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + KEY
            for _ in range(2):
                await one.ask(HANDSHAKE + protocols + b"\r\n\r\n")
        got = received(servers)
        assert got.count(b"sec-websocket-protocol: realtime\r\n") == 2
        assert all(server.sides for server in servers)
        shown += b"".join(admin.routes_page(one.store)) + repr(logs).encode()
        await until(lambda: len(one.lines()) == 11)
        shown += one.log.getvalue().encode() + orjson.dumps([decision(record) for record in one.journal._records])
        shown += repr(list(one.metrics.registry.collect())).encode()
        assert b"canary" not in got + shown


async def test_a_route_may_forward_it_on_purpose(folder: Path) -> None:
    """A backend whose `forwardHeaders` names the field gets the caller's key, and no other backend does."""
    route = document(local(50), remote(50, forward_headers=("authorization",)))
    async with running(folder, route) as (one, (near, far)):
        for _ in range(2):
            assert (await one.post(b"/default/demo/x", BODY, bearer())).status == 200
        assert KEY in received([far])
        assert KEY not in received([near])


async def test_keys_are_replaced_while_the_gateway_runs(folder: Path) -> None:
    """A changed Secret is in force without a restart; while it cannot be read, the last keys stay in force."""
    async with running(folder) as (one, _):

        async def status(key: bytes) -> int:
            return (await one.post(b"/v1/chat/completions", BODY, bearer(key))).status

        newer = folder / "..newer"
        newer.mkdir()
        (newer / "team-a").write_bytes(b"canary-after-rotation")
        (folder / "..data").rename(folder / "..older")
        newer.rename(folder / "..data")
        for _ in range(2000):
            if await status(b"canary-after-rotation") == 200:
                break
        assert await status(b"canary-after-rotation") == 200
        assert await status(KEY) == 401
        with capture_logs() as logs:
            folder.rename(folder.with_name("gone"))
            await until(lambda: any(line["event"] == "access_keys_unreadable" for line in logs))
            assert await status(b"canary-after-rotation") == 200
        assert [line["event"] for line in logs].count("access_keys_unreadable") == 1


async def test_websites_can_read_the_refusal(folder: Path) -> None:
    """A preflight needs no key, and a refusal has the fields by which the page of a website reads it."""
    cors = Cors(origins=("https://chat.example.com",))
    origin = b"Origin: https://chat.example.com"
    async with running(folder, document(cors=cors)) as (one, _):
        preflight = await one.ask(
            b"OPTIONS /default/demo/x HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Method: POST\r\n%b\r\n\r\n" % origin
        )
        assert preflight.status == 204
        refused = await one.post(b"/default/demo/x", BODY, origin)
        assert refused.status == 401
        assert refused.value(b"access-control-allow-origin") == b"https://chat.example.com"


async def test_health_needs_no_key(folder: Path) -> None:
    """Load balancers ask for /health without a key."""
    async with running(folder) as (one, _):
        assert (await one.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200


async def test_without_access_credentials_pass_as_ever() -> None:
    """Where access is off, a local backend gets the credentials of the caller, and there is no caller's name."""
    async with serving(echo) as near, gateway(local_port=near.port) as one:
        assert (await one.post(b"/default/demo/x", BODY, bearer())).status == 200
        assert KEY in received([near])
        await until(lambda: bool(one.lines()))
        assert "caller" not in one.lines()[0]


def test_a_folder_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    """A gateway whose keys cannot be read does not start, and says which setting is meant."""
    assert _read("gateway.access.keysDirectory", None, KeyDirectory) is None
    with pytest.raises(SettingsError, match=r"gateway\.access\.keysDirectory: .*none cannot be read: No such file"):
        _read("gateway.access.keysDirectory", tmp_path / "none", KeyDirectory)


def test_what_cannot_be_used_is_logged_by_name(folder: Path) -> None:
    """An entry that is no key is a line of the log with its name and without its value."""
    (folder / "team-c").write_bytes(b"canary")
    (folder / "folder").mkdir()
    with capture_logs() as logs:
        KeyDirectory(folder)
    assert [line.get("name") for line in logs if line["event"] == "access_key_unusable"] == ["team-c"]
    assert "canary" not in repr(logs)
