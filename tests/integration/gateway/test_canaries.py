"""Every credential, as a canary, in a gateway that runs as a process: each of them is found at its own place only."""

import base64
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gateway.api.v1alpha1 import (
    KEY,
    LABEL,
    LABEL_VALUE,
    Access,
    AccessJwt,
    Backend,
    Credentials,
    Headers,
    OAuth2,
    RouteDocument,
    SecretKey,
)
from tests.integration.collector import collecting
from tests.integration.gateway.test_directory_source import write
from tests.integration.gateway.test_process import started
from tests.integration.gateway.test_websocket import handshake
from tests.integration.gateway.wire import reply
from tests.integration.issuer import AUDIENCE, Issuer, issuing, rsa_key
from tests.integration.servers import ServerSide, serving, until
from tests.integration.token_server import GRANTED, TokenServer

KEY_OF_CALLER: Final = b"canary-key-of-a-caller"
KEY_OF_MODEL: Final = b"canary-key-of-a-model"
SECRET: Final = b"canary-secret-of-a-client+1"
TOKEN: Final = b"canary-token-that-was-bought"
VALUE: Final = b"canary-value-of-a-field"
OF_COLLECTOR: Final = b"canary-for-the-collector-of-traces"
OF_QUERY: Final = b"canary-that-is-in-a-query"
SUBPROTOCOL: Final = b"base64url.bearer.authorization.k8s.io."


def base64url(value: bytes) -> bytes:
    """Return a value in base64url, without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def secret(name: str, **data: bytes) -> dict[str, Any]:
    """Return a labeled Secret."""
    metadata = {"name": name, "namespace": "default", "labels": {"gateway.beamlit.com/credential": ""}}
    values = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": values}


def route(document: RouteDocument) -> dict[str, Any]:
    """Return the ConfigMap of a route."""
    metadata = {"name": f"{document.name}-route", "namespace": "default", "labels": {LABEL: LABEL_VALUE}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: document.canonical_json()}}


def forms(canary: bytes) -> Iterator[bytes]:
    """Yield a canary in the forms that it may have: as it is, for a URL, and in base64 wherever it begins."""
    yield canary
    if quote(canary).encode() != canary:
        yield quote(canary).encode()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + canary)
        yield coded[4 if before else 0 : len(coded) // 4 * 4 - 4]


def found(canary: bytes, places: dict[str, bytes]) -> set[str]:
    """Return the places where a canary is."""
    return {place for place, content in places.items() if any(form in content for form in forms(canary))}


async def test_every_credential_is_at_its_place_only(tmp_path: Path) -> None:
    """Keys and tokens of callers are nowhere; a client secret is at its token endpoint, and what it buys at the remote.

    Every byte counts that servers receive, that clients get, and that the gateway writes or shows.
    """
    endpoint = TokenServer(secret=SECRET.decode(), decodes=True, granted=GRANTED | {"access_token": TOKEN.decode()})

    async def backend(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply())

    async with AsyncExitStack() as stack:
        issuer, issuers = await stack.enter_async_context(issuing(Issuer(path="")))
        collector = stack.enter_context(collecting())
        near, far = [await stack.enter_async_context(serving(backend)) for _ in range(2)]
        tokens = await stack.enter_async_context(serving(endpoint.script))
        keys = tmp_path / "keys"
        keys.mkdir()
        (keys / "team-a").write_bytes(KEY_OF_CALLER)
        (tmp_path / "callers.yaml").write_text("callers: {team-a: {priority: high}}")
        remote = Backend(
            id="remote",
            host="127.0.0.1",
            port=far.port,
            scheme="http",
            weight=50,
            credentials=Credentials(oauth2=OAuth2(kind="Secret", name="oauth")),
            headers=Headers(set_from={"x-api-key": SecretKey(name="value", key="key")}),
        )
        local = Backend(id="local", service="demo-local", port=80, weight=50)
        documents = (
            RouteDocument(name="demo", backends=(local, remote)),
            RouteDocument(
                name="own",
                backends=(local, remote),
                access=Access(secrets=("own-keys",), jwt=AccessJwt(groups=("none",))),
                requires=("access", "accessJwt"),
            ),
        )
        url, hosts = f"http://127.0.0.1:{tokens.port}/token", f"127.0.0.1:{far.port}".encode()
        write(
            tmp_path / "routes" / "others.yaml",
            *map(route, documents),
            secret("oauth", hosts=hosts, clientId=b"id", clientSecret=SECRET, tokenUrl=url.encode()),
            secret("value", hosts=hosts, key=VALUE),
            secret("own-keys", team=KEY_OF_MODEL),
        )
        access = {
            "keysDirectory": str(keys),
            "rulesFile": str(tmp_path / "callers.yaml"),
            "jwt": {"issuer": issuer.url, "audiences": [AUDIENCE]},
        }
        section = {
            "access": access,
            "allowedAddresses": ["127.0.0.0/8"],
            "logLevel": "debug",
            "tracing": {"endpoint": collector.url},
        }
        environment = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{OF_COLLECTOR.decode()}"}
        jwt, bad = issuer.token(), issuer.token(rsa_key("other"), header={"kid": "first"}, sub="canary-name")
        key, own = b"x-api-key: " + KEY_OF_CALLER, b"api-key: " + KEY_OF_MODEL
        callers = (
            (key,),
            (b"Authorization: Bearer " + KEY_OF_CALLER, own),
            (b"Authorization: Bearer " + jwt,),
            (b"Authorization: Bearer " + jwt, own),
            (b"x-api-key: " + jwt,),
            (b"Authorization: Bearer " + bad,),
            (b"Authorization: Bearer " + KEY_OF_MODEL,),
        )
        shown = b""
        async with started(tmp_path, near.port, json.dumps({"gateway": section}), environment, local={}) as running:
            (tmp_path / "routes" / "demo.yaml").unlink()
            statuses = set()
            for fields in callers:
                asking = [b"/default/%b/x?api_key=%b" % (model, OF_QUERY) for model in (b"demo", b"own")]
                for target in (b"/default/demo/x", *asking, b"/v1/models"):
                    start = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" % target
                    response = await running.ask(start + b"\r\n".join(fields) + b"\r\n\r\n{}")
                    statuses.add(response.status)
                    shown += repr((response.fields, response.body)).encode()
            listed = await running.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % key)
            shown += listed.body
            for offer in (b"openai-insecure-api-key." + KEY_OF_CALLER, SUBPROTOCOL + base64url(KEY_OF_CALLER)):
                response = await running.ask(handshake(b"Sec-WebSocket-Protocol: realtime, " + offer))
                statuses.add(response.status)
                shown += repr((response.fields, response.body)).encode()
            assert statuses == {200, 401, 403, 405}
            for path in ("/metrics", "/decisions", "/routes", "/", "/?route=default/own", "/readyz", "/drills"):
                page = await running.admin.get(path)
                assert page.status_code == 200, path
                shown += page.content
            async with running.admin.stream("GET", "/events") as events:
                async for line in events.aiter_lines():
                    shown += line.encode()
                    if line == "event: now":  # after all sections of the page
                        break
            assert b'{"id":"requests","html":' in shown
            await until(lambda: running.output.read_bytes().count(b'"event":"request"') >= 4 * len(callers) + 3)
            running.process.terminate()
            assert await running.ended() == 0
        places = {
            "shown": shown,
            "output": running.output.read_bytes(),
            "errors": running.errors.read_bytes(),
            "local": b"".join(side.received for side in near.sides),
            "remote": b"".join(side.received for side in far.sides),
            "token endpoint": b"".join(side.received for side in tokens.sides),
            "issuer": b"".join(side.received for side in issuers.sides),
            "spans": b"".join(collector.content),
            "collector": repr(collector.fields).encode(),
        }
        assert all(places.values()), {name: len(content) for name, content in places.items()}
        expected: list[tuple[bytes, set[str]]] = [
            (KEY_OF_CALLER, set()),
            (KEY_OF_MODEL, set()),
            (b"canary-name", set()),
            (OF_QUERY, {"local"}),
            *((part, set()) for part in (*jwt.split(b".")[1:], *bad.split(b".")[1:])),
            (SECRET, {"token endpoint"}),
            (TOKEN, {"remote"}),
            (VALUE, {"remote"}),
            (OF_COLLECTOR, {"collector"}),
        ]
        for canary, where in expected:
            assert found(canary, places) == where, canary
        assert b"oidc:alice" in places["output"]
        assert b"team-a" in places["output"]
        assert b"team-a" in places["spans"]
        assert all(name not in places["remote"] + places["local"] for name in (b"oidc:alice", b"team-a"))
