"""CORS on the wire: preflights, responses of backends, responses and errors of the gateway itself."""

from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from gateway.api.v1alpha1 import Cors, DocumentError, RouteDocument, read
from gateway.settings import Settings
from program.settings import SettingsError
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, message, reply
from tests.integration.servers import ServerSide, serving

SITE = b"https://chat.example.com"
OTHER = b"https://other.example"
PATH = b"/default/demo/v1/chat/completions"


def install(*origins: str, **values: Any) -> dict[str, Any]:
    """Return settings that allow origins."""
    return {"gateway": {"cors": {"origins": list(origins), **values}}}


HERE = install("https://chat.example.com")


async def ask(running: Running, target: bytes, origin: bytes | None = SITE, *, method: bytes = b"GET") -> Response:
    """Send a request as a browser does for a website; return the response."""
    fields = b"" if origin is None else b"Origin: %b\r\n" % origin
    wire = b"%b %b HTTP/1.1\r\nHost: gateway\r\n%b\r\n" % (method, target, fields)
    return await running.ask(wire, method=method)


async def preflight(running: Running, target: bytes, origin: bytes = SITE, host: bytes = b"gateway") -> Response:
    """Send the preflight for a POST with a key; return the response."""
    wire = (
        b"OPTIONS %b HTTP/1.1\r\nHost: %b\r\nOrigin: %b\r\nAccess-Control-Request-Method: POST\r\n"
        b"Access-Control-Request-Headers: authorization,content-type\r\n\r\n" % (target, host, origin)
    )
    return await running.ask(wire, method=b"OPTIONS")


def permitted(response: Response) -> bytes | None:
    """Return the origin that may read the response, None where none may."""
    return response.value(b"access-control-allow-origin")


@pytest.mark.parametrize("target", [PATH, b"/v1/chat/completions", b"/v1/models", b"/v1/models/demo", b"/elsewhere"])
async def test_a_preflight_is_answered_here(target: bytes) -> None:
    """The gateway itself answers a preflight, also one that could only be matched by a model in a body."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=HERE) as running:
        response = await preflight(running, target)
        assert (response.status, response.body) == (204, b"")
        assert permitted(response) == SITE
        assert response.value(b"access-control-allow-headers") == b"authorization,content-type"
        assert response.value(b"access-control-allow-methods") == b"DELETE, GET, POST"
        assert response.value(b"access-control-max-age") == b"600"
        assert b"Origin" in response.values(b"vary")
        assert response.value(b"x-request-id")
        refused = await preflight(running, target, OTHER)
        assert (refused.status, permitted(refused)) == (204, None)
        assert refused.values(b"vary") == [b"Origin"]
        assert server.sides == []


async def test_without_a_rule_nothing_changes() -> None:
    """Without a rule OPTIONS goes to the backend, and so do fields of CORS that a backend sends."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply(b"", b"200 OK", b"access-control-allow-origin: *", b"vary: Origin"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await preflight(running, PATH)
        assert (response.status, permitted(response)) == (200, b"*")
        assert b"OPTIONS /v1/chat/completions" in server.sides[0].received
        assert response.values(b"vary") == [b"Origin"]
        assert (await preflight(running, b"/v1/chat/completions")).status == 400
        assert permitted(await ask(running, b"/v1/models")) is None


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (b"/v1/chat/completions", 400, "model_missing"),
        (b"/v1/models", 405, "method_not_allowed"),
        (b"/elsewhere", 404, "route_not_found"),
        (b"/health", 405, "method_not_allowed"),
    ],
)
async def test_a_preflight_while_cors_is_off_names_the_settings(target: bytes, status: int, code: str) -> None:
    """A preflight that leads nowhere is told which settings switch CORS on; any other request keeps its own message."""
    async with gateway() as running:
        response = await preflight(running, target)
        assert (response.status, response.code, permitted(response)) == (status, code, None)
        message = orjson.loads(response.body)["error"]["message"]
        for name in ("CORS is off", "gateway.cors.origins", "config.gateway.cors.origins", "spec.gateway.cors"):
            assert name in message
        plain = await running.ask(b"OPTIONS %b HTTP/1.1\r\nHost: gateway\r\n\r\n" % target, method=b"OPTIONS")
        assert (plain.status, plain.code) == (status, code)
        assert b"CORS" not in plain.body
    async with gateway(settings=HERE) as running:
        assert b"CORS" not in (await ask(running, target, method=b"OPTIONS")).body


async def test_a_preflight_that_names_its_model_goes_to_the_backend_while_cors_is_off() -> None:
    """Without a rule a preflight whose query names the model goes to the backend, as by path."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await preflight(running, b"/v1/realtime?model=demo")).status == 200


async def test_options_that_is_no_preflight_goes_to_the_backend() -> None:
    """OPTIONS without the method that a preflight asks about goes to the backend, and its response has the fields."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=HERE) as running:
        response = await ask(running, PATH, method=b"OPTIONS")
        assert response.body.startswith(b"OPTIONS /v1/chat/completions HTTP/1.1\r\n")
        assert permitted(response) == SITE


async def test_fields_of_the_backend_are_replaced() -> None:
    """Where there is a rule, fields of CORS that a backend sends are replaced, and all others stay."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            fields = (b"access-control-allow-origin: *", b"access-control-allow-credentials: true", b"vary: Accept",
                      b"access-control-expose-headers: *", b"x-more: 1")  # fmt: skip
            await side.send(reply(b"ok", b"200 OK", *fields))

    async with serving(script) as server, gateway(local_port=server.port, settings=HERE) as running:
        response = await ask(running, PATH)
        assert response.values(b"access-control-allow-origin") == [SITE]
        assert response.values(b"access-control-allow-credentials") == []
        exposed = response.value(b"access-control-expose-headers") or b""
        assert exposed == b"request-id, retry-after, x-beamlit-backend, x-beamlit-reason, x-request-id, x-should-retry"
        assert response.values(b"vary") == [b"Accept", b"Origin"]
        assert response.value(b"x-more") == b"1"
        for origin in (OTHER, None):
            response = await ask(running, PATH, origin)
            assert (response.status, response.body, permitted(response)) == (200, b"ok", None)
            assert response.values(b"vary") == [b"Accept", b"Origin"]


async def test_responses_of_the_gateway_have_the_fields() -> None:
    """The list of models and errors of the gateway can be read by the websites that are allowed."""
    async with gateway(document(local(0)), settings=HERE) as running:
        for target, status in (
            (b"/v1/models", 200),
            (b"/v1/models/demo", 200),
            (b"/v1/models/none", 404),
            (b"/nowhere", 404),
            (PATH, 503),
            (b"/default/demo/../x", 400),
        ):
            response = await ask(running, target)
            assert (response.status, permitted(response)) == (status, SITE), target
            assert b"Origin" in response.values(b"vary")
            assert permitted(await ask(running, target, OTHER)) is None
        response = await running.post(b"/v1/chat/completions", b'{"model":"none"}', b"Origin: " + SITE)
        assert (response.status, permitted(response)) == (404, SITE)


def head(line: bytes, *fields: bytes, origin: bytes = SITE) -> bytes:
    """Return the head of a request of a website, with the origin behind all other fields, as browsers send it."""
    return message(*fields, b"Origin: " + origin, line=line)


GET: Final = b"GET /default/demo/x HTTP/1.1"
POST: Final = b"POST /default/demo/x HTTP/1.1"
UNREAD: Final[list[tuple[int, bytes, tuple[bytes, ...]]]] = [
    (414, b"GET /default/demo/%b HTTP/1.1" % (b"a" * 9000), ()),
    (414, b"GET /default/demo/%b HTTP/1.1" % (b"a" * 9000), tuple(b"X-%d: 1" % number for number in range(200))),
    (405, b"TRACE /default/demo/x HTTP/1.1", ()),
    (405, b"CONNECT gateway:443 HTTP/1.1", ()),
    (501, b"PROPFIND /default/demo/x HTTP/1.1", ()),
    (505, b"GET /default/demo/x HTTP/2.0", ()),
    (421, b"GET http://elsewhere.example/default/demo/x HTTP/1.1", ()),
    (417, POST, (b"Expect: a-miracle",)),
    (431, GET, tuple(b"X-%d: 1" % number for number in range(200))),
    (400, POST, (b"Content-Length: 1", b"Content-Length: 1")),
    (400, POST, (b"Content-Length: many",)),
    (400, POST, (b"Transfer-Encoding: gzip",)),
    (400, GET, (b"Host: other",)),
    (400, GET, (b"Connection: Upgrade", b"Upgrade: websocket")),
    (400, GET, (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 8")),
]
"""Requests that are refused before there is an exchange: the status, the request line and the fields."""


@pytest.mark.parametrize(("status", "line", "fields"), UNREAD)
async def test_errors_of_parsing_have_the_fields(status: int, line: bytes, fields: tuple[bytes, ...]) -> None:
    """An allowed website may read why its request was refused before it was passed on; no other website may."""
    async with gateway(settings=HERE) as running:
        for origin, allowed in ((SITE, SITE), (OTHER, None)):
            client = await running.client()
            await client.send(head(line, *fields, origin=origin))
            response = await client.response()
            assert (response.status, permitted(response)) == (status, allowed)
            assert response.values(b"vary") == [b"Origin"]


async def test_a_refused_head_in_many_reads_has_the_fields() -> None:
    """The origin counts where the head came in many reads; that of an earlier request on the connection does not."""
    async with gateway(document(local(0)), settings=HERE) as running:
        client = await running.client()
        wire = head(GET, b"Expect: more", origin=SITE)
        await client.send(head(GET, origin=OTHER), *(wire[at : at + 7] for at in range(0, len(wire), 7)))
        assert permitted(await client.response()) is None
        response = await client.response()
        assert (response.status, permitted(response)) == (417, SITE)


async def test_a_fault_behind_the_origin_has_the_fields() -> None:
    """Where the parser gives up behind the origin, and where the head never becomes complete, the origin counts."""
    settings = install("https://chat.example.com", "http://localhost:3000")
    settings["gateway"]["timeouts"] = {"headSeconds": 0.3}
    begun = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\nOrigin: %b\r\n"
    async with gateway(settings=settings) as running:
        for rest, status in (
            (b"X: 1\r\nBroken\r\n\r\n", 400),
            (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"Cookie: %b\r\n\r\n" % (b"c" * 40000), 431),
            (b"X: 1\r\nUnfinished: ", 408),
        ):
            for origin in (SITE, b"http://localhost:3000"):
                client = await running.client()
                await client.send(begun % origin + rest)
                response = await client.response()
                assert (response.status, permitted(response)) == (status, origin)


async def test_a_body_with_broken_framing_has_the_fields() -> None:
    """A request whose body breaks off in a fault is refused with the fields."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=HERE) as running:
        for line in (POST, b"POST /v1/chat/completions HTTP/1.1"):
            client = await running.client()
            await client.send(head(line, b"Transfer-Encoding: chunked") + b"2\r\n{}\r\nzz\r\n")
            response = await client.response()
            assert (response.status, permitted(response)) == (400, SITE)


async def test_errors_of_parsing_with_all_origins_and_with_none() -> None:
    """Where all websites are allowed they may read each refusal; without a rule there are no fields."""
    unknown = b"\x16\x03\x01\x02"  # a TLS handshake, as a browser sends to an https URL of a plain port
    async with gateway(settings=install("*", maxAgeSeconds=1)) as running:
        for wire in (unknown, head(b"TRACE / HTTP/1.1"), head(GET, b"Expect: more")):
            client = await running.client()
            await client.send(wire)
            response = await client.response()
            assert (permitted(response), response.values(b"vary")) == (b"*", [])
    async with gateway() as running:
        for _, line, fields in UNREAD:
            client = await running.client()
            await client.send(head(line, *fields))
            response = await client.response()
            assert not [name for name, _ in response.fields if name.startswith(b"access-control") or name == b"vary"]


async def test_a_refused_connection_has_the_fields_of_all_origins() -> None:
    """A connection beyond the limit is refused before its request is known, in a way that all websites may read."""
    settings = install("*", exposedHeaders=["X-A"])
    settings["gateway"]["limits"] = {"connections": 1}
    async with gateway(settings=settings) as running:
        busy = await running.client()
        await busy.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        await busy.reader.readuntil(b"\r\n\r\n")
        response = await (await running.client()).response()
        assert (response.status, permitted(response)) == (503, b"*")


async def test_a_stream_has_the_fields() -> None:
    """An event stream and a chunked response have the fields in their heads."""

    async def script(side: ServerSide) -> None:
        await side.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await side.send(head + b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")

    async with serving(script) as server, gateway(local_port=server.port, settings=HERE) as running:
        response = await ask(running, PATH)
        assert (response.body, permitted(response)) == (b"data: 1\n\n", SITE)


def named(*origins: str, **values: Any) -> RouteDocument:
    """Return a route document with a rule of its own."""
    return document(cors=Cors(origins=origins, **values))


async def test_a_model_has_a_rule_of_its_own() -> None:
    """By host and path the model's rule counts in place of the installation's; by model the installation's does."""
    route = named("https://other.example", credentials=True, max_age=5, headers=("X-Team",), methods=("PUT",))
    async with serving(echo) as server, gateway(route, local_port=server.port, settings=HERE) as running:
        for target, host in ((PATH, b"gateway"), (b"/v1/chat/completions", b"demo.default")):
            response = await preflight(running, target, OTHER, host)
            assert permitted(response) == OTHER
            assert response.value(b"access-control-allow-credentials") == b"true"
            assert response.value(b"access-control-allow-headers") == b"x-team"
            assert response.value(b"access-control-allow-methods") == b"PUT"
            assert response.value(b"access-control-max-age") == b"5"
            assert permitted(await preflight(running, target, SITE, host)) is None
        assert permitted(await ask(running, PATH, OTHER)) == OTHER
        assert permitted(await ask(running, PATH)) is None
        assert permitted(await preflight(running, b"/v1/chat/completions")) == SITE
        response = await running.post(b"/v1/chat/completions", b'{"model":"demo"}', b"Origin: " + SITE)
        assert permitted(response) == SITE
        response = await running.post(b"/v1/chat/completions", b'{"model":"demo"}', b"Origin: " + OTHER)
        assert permitted(response) is None


async def test_a_rule_of_a_model_alone() -> None:
    """A model's rule counts where the installation has none, and comes into force with its document."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await preflight(running, PATH)).status == 200
        running.load(named("https://chat.example.com"))
        assert (await preflight(running, PATH)).status == 204
        assert permitted(await ask(running, PATH)) == SITE
        assert permitted(await ask(running, b"/v1/models")) is None


async def test_all_origins() -> None:
    """A rule for all origins allows every website, with fields that do not vary."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=install("*")) as running:
        for origin in (SITE, b"null", None):
            response = await ask(running, PATH, origin)
            assert permitted(response) == b"*"
            assert response.values(b"vary") == []


def test_credentials_of_all_websites_are_refused() -> None:
    """A document that allows credentials to all origins is refused, with a sentence that says what to change."""
    text = '{"name":"demo","cors":{"origins":["*"],"credentials":true}}'
    with pytest.raises(
        DocumentError, match=r"^cors must not allow credentials to the origin \*, .*: name the origins$"
    ):
        read(text)


def test_a_document_without_a_rule_is_as_before() -> None:
    """A document without a rule has the same bytes as before there were rules."""
    assert "cors" not in document().canonical_json()


def test_settings_with_credentials_of_all_websites_are_refused(tmp_path: Path) -> None:
    """Settings that allow credentials to all origins are an error at the start."""
    config = tmp_path / "config.yaml"
    config.write_text("gateway: {cors: {origins: ['*'], credentials: true}}")
    with pytest.raises(SettingsError, match=r"gateway\.cors must not allow credentials to the origin \*"):
        Settings.load(config, environment={})
