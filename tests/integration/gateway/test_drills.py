"""Drills over real sockets: what each mistake is called, when drills are sent, and what they leave alone."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from faults.name_server import name_server
from gateway import admin
from gateway.api.v1alpha1 import Backend, Credentials, Drill, Headers, OAuth2, RouteDocument, SecretKey, Timeouts, Tls
from gateway.api.vocabulary import DrillRequest
from gateway.drill import drills, peers
from gateway.drill.findings import LIST_BYTES
from gateway.drill.peers import Peers
from program.oauth.credentials import ClientCredentials
from tests.authorities import Authority, Pair, self_signed
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.test_credentials import Secrets
from tests.integration.gateway.wire import Running, document, gateway, local, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until
from tests.integration.token_server import TokenServer
from tools.ports import free_port

ROOT: Final = Authority("drill root")
OTHER: Final = Authority("another root")
MODELS: Final = DrillRequest.MODELS
COMPLETION: Final = DrillRequest.COMPLETION
CANARY: Final = "canary-secret"
KEYED: Final = Headers(set_from={"authorization": SecretKey(name="key", key="key")})
TOKEN: Final = Credentials(oauth2=OAuth2(name="oauth"))
LIST: Final = orjson.dumps({"object": "list", "data": [{"id": "big-1"}, {"id": "org/big-2"}]})


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "LEAST_SECONDS", 0.0)


def settings(interval: float = NEVER, **drill: Any) -> dict[str, Any]:
    """Return settings with drills, and with loopback for remote backends and token endpoints."""
    return {"gateway": {"allowedAddresses": ["127.0.0.0/8"], "drill": {"intervalSeconds": interval, **drill}}}


def result(running: Running, name: str = "demo", backend: str = "remote") -> dict[str, Any]:
    """Return the last result at a backend."""
    return next(one for one in running.drills.listed(name=name) if one["backend"] == backend)


def listing(server: ScriptedServer) -> AbstractAsyncContextManager[Running]:
    """Return a gateway that lists the models of a server with a key, again and again."""
    route = document(remote(100, headers=KEYED), drill=Drill(request=MODELS))
    return gateway(route, remote_port=server.port, settings=settings(0.02), secrets=key_for())


async def found(running: Running, reason: str, name: str = "demo") -> dict[str, Any]:
    """Wait until the last result has this reason, and return it."""
    await until(lambda: result(running, name)["reason"] == reason)
    return result(running, name)


async def first(running: Running, name: str = "demo") -> dict[str, Any]:
    """Wait for the first result, and return it."""
    await until(lambda: result(running, name)["reason"] != "NotTried")
    return result(running, name)


def key_for(host: str = "remote.test") -> Secrets:
    """Return Secrets with a key for a host."""
    secrets = Secrets()
    secrets.objects["default", "key"] = {"key": f"Bearer {CANARY}", "hosts": host}
    return secrets


def oauth(port: int, secret: str = CANARY) -> dict[str, str]:
    """Return the data of a Secret with client credentials."""
    return {
        "clientId": "id",
        "clientSecret": secret,
        "tokenUrl": f"http://127.0.0.1:{port}/token",
        "hosts": "remote.test",
    }


def responding(*responses: bytes) -> Callable[[ServerSide], Awaitable[None]]:
    """Return the script of a server with one response after the other, the last of them again and again."""
    rest = list(responses)

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(rest.pop(0) if len(rest) > 1 else rest[0])

    return script


async def silent(side: ServerSide) -> None:
    """Accept a connection and send nothing."""
    await side.gone()


# Without a request


async def test_a_drill_without_a_request_sends_no_byte() -> None:
    """A drill connects to the remote backend, sends nothing, and says what it has proved; hooks read it as JSON."""
    async with (
        serving(silent) as server,
        gateway(document(local(), remote()), remote_port=server.port, settings=settings()) as running,
    ):
        one = await found(running, "Proven")
        assert one == {
            "namespace": "default",
            "name": "demo",
            "backend": "remote",
            "reason": "Proven",
            "message": "The drill proved the name and the connection; it sent no request.",
            "observedTime": one["lastSuccessTime"],
            "consecutiveFailures": 0,
            "lastSuccessTime": one["observedTime"],
            "by": "drill",
            "request": "none",
            "lastServedTime": None,
            "completion": None,
            "generation": None,
        }
        await until(lambda: len(server.sides) == 1 and server.sides[0].reader.at_eof())
        assert server.sides[0].received == b""
        assert running.count("beamlit_gateway_drill_success", namespace="default", model="demo", backend="remote") == 1
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "reason": "Proven"}
        assert running.count("beamlit_gateway_drills_total", **labels) == 1
        assert abs(running.count("beamlit_gateway_drill_timestamp_seconds", **labels) - time.time()) < SECONDS


async def test_the_admin_port_shows_drills() -> None:
    """`/drills` lists the results of all remote backends or of one model, and `/routes` has each at its backend."""
    other = document(remote(100), name="other")
    async with (
        serving(silent) as server,
        gateway(document(local(), remote()), other, remote_port=server.port, settings=settings()) as running,
    ):
        await found(running, "Proven")
        await found(running, "Proven", "other")
        app = admin.create_app(
            running.store, running.metrics, running.journal, draining=lambda: False, drills=running.drills
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
            everything = (await client.get("/drills")).json()
            assert everything["gateway"] == running.drills.gateway != ""
            assert [one["name"] for one in everything["drills"]] == ["demo", "other"]
            one = (await client.get("/drills?namespace=default&name=demo")).json()["drills"]
            assert one == [everything["drills"][0]]
            assert (await client.get("/drills?namespace=elsewhere")).json()["drills"] == []
            assert (await client.get(f"/drills?name={'a' * 254}")).status_code == 422
            here, there = (await client.get("/routes")).json()["routes"][0]["backends"]
            assert "drill" not in here
            assert there["drill"] == {key: one[0][key] for key in there["drill"]}
            assert there["drill"]["reason"] == "Proven"


async def test_drills_are_off_where_the_interval_is_0() -> None:
    """Without an interval there is no connection, and the result says so; a document may ask for drills itself."""
    quiet = document(remote(100), name="quiet")
    tried = document(remote(100), name="tried", drill=Drill(interval=NEVER))
    async with (
        serving(silent) as server,
        gateway(quiet, tried, remote_port=server.port, settings=settings(0)) as running,
    ):
        await found(running, "Proven", "tried")
        assert "intervalSeconds" in result(running, "quiet")["message"]
        assert result(running, "quiet")["observedTime"] is None
        assert len(server.sides) == 1


async def test_a_name_that_does_not_resolve() -> None:
    """A host without an address is NameUnknown."""
    backend = Backend(id="remote", host="nowhere.test", weight=100)
    with name_server({}) as names:
        async with gateway(document(backend), settings=settings(), open_server=names.open) as running:
            one = await first(running)
            assert (one["reason"], one["consecutiveFailures"]) == ("NameUnknown", 1)
            assert one["message"].startswith("The name nowhere.test does not resolve")
            assert (one["lastSuccessTime"], one["by"]) == (None, None)


async def test_a_silent_name_server() -> None:
    """A host about which no name server says anything in time is NameUnknown."""
    backend = Backend(id="remote", host="nowhere.test", weight=100)
    with name_server({}, silent=("nowhere.test",)) as names:
        route = document(backend, timeouts=Timeouts(connect=0.1))
        async with gateway(route, settings=settings(), open_server=names.open) as running:
            one = await first(running)
            assert one["reason"] == "NameUnknown"
            assert "name server" in one["message"]


async def test_an_address_that_is_not_allowed() -> None:
    """A host that leads to an address which is not allowed is ConnectFailed, and the sentence names the setting."""
    backend = Backend(id="remote", host="127.0.0.1", port=free_port(), weight=100)
    async with gateway(document(backend), settings={"gateway": {"drill": {"intervalSeconds": NEVER}}}) as running:
        one = await first(running)
        assert one["reason"] == "ConnectFailed"
        assert "gateway.allowedAddresses" in one["message"]


async def test_a_port_that_refuses_connections_and_what_a_failure_leaves_alone() -> None:
    """A failed drill is ConnectFailed; it is counted and logged once, and changes neither breaker, health nor split."""
    with capture_logs() as lines:
        async with gateway(document(local(), remote()), remote_port=free_port(), settings=settings(0.01)) as running:
            await until(lambda: result(running)["consecutiveFailures"] >= 7)
            one = result(running)
            assert one["reason"] == "ConnectFailed"
            assert one["message"].startswith("remote.test:80 refuses connections")
            page = orjson.loads(b"".join(admin.routes_page(running.store)))
            there = page["routes"][0]["backends"][1]
            assert (there["breaker"], there["healthy"], there["weight"]) == ("closed", True, 0)
            assert running.store.why_not_ready(draining=False) is None
            labels = {"namespace": "default", "model": "demo", "backend": "remote"}
            assert running.metrics.registry.get_sample_value("beamlit_gateway_drill_success", labels) == 0
    assert [line["reason"] for line in lines if line["event"] == "drill_failed"] == ["ConnectFailed"]


CERTIFICATES: Final[dict[str, tuple[Pair, str, str]]] = {
    "expired": (ROOT.issue("remote.test", days=(-3, -1)), ROOT.pem, "has expired"),
    "not yet valid": (ROOT.issue("remote.test", days=(1, 3)), ROOT.pem, "is not valid yet"),
    "wrong authority": (OTHER.issue("remote.test"), ROOT.pem, "tls.caBundle"),
    "self-signed": (self_signed("remote.test"), ROOT.pem, "tls.caBundle"),
    "wrong name": (ROOT.issue("other.test"), ROOT.pem, "tls.serverName"),
    "broken bundle": (ROOT.issue("remote.test"), "no certificate", "tls.caBundle"),
}


def secured(folder: Path, pair: Pair, clients: Authority | None = None) -> ssl.SSLContext:
    """Return the TLS context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(folder, "server"))
    if clients is not None:
        context.load_verify_locations(cadata=clients.pem)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def encrypted(bundle: str, **values: Any) -> Backend:
    """Return the remote backend over TLS."""
    tls = Tls(ca_bundle=bundle, client_certificate=values.pop("certificate", None))
    return Backend(id="remote", host="remote.test", weight=100, scheme="https", tls=tls, **values)


@pytest.mark.parametrize(("pair", "bundle", "words"), CERTIFICATES.values(), ids=CERTIFICATES)
async def test_a_certificate_that_is_not_accepted(tmp_path: Path, pair: Pair, bundle: str, words: str) -> None:
    """A certificate that is not accepted is CertificateRefused, and the sentence says what is wrong with it."""
    async with (
        serving(silent, secured(tmp_path, pair)) as server,
        gateway(document(encrypted(bundle)), remote_port=server.port, settings=settings()) as running,
    ):
        one = await first(running)
        assert one["reason"] == "CertificateRefused"
        assert words in one["message"]


async def test_a_server_without_tls() -> None:
    """A server that speaks no TLS where it should is CertificateRefused."""

    async def script(side: ServerSide) -> None:
        await side.reader.read(1)
        await side.send(reply(b"no", b"400 Bad Request"))

    async with (
        serving(script) as server,
        gateway(document(encrypted(ROOT.pem)), remote_port=server.port, settings=settings()) as running,
    ):
        one = await first(running)
        assert one["reason"] == "CertificateRefused"
        assert one["message"].startswith("The TLS handshake with remote.test:443 failed")


async def test_a_good_certificate(tmp_path: Path) -> None:
    """A certificate that is accepted is part of what is proved."""
    async with (
        serving(silent, secured(tmp_path, ROOT.issue("remote.test"))) as server,
        gateway(document(encrypted(ROOT.pem)), remote_port=server.port, settings=settings()) as running,
    ):
        one = await first(running)
        assert one["message"] == "The drill proved the name, the connection and the certificate; it sent no request."


# Credentials


async def test_a_wrong_client_secret_and_its_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong client secret is TokenRefused in words that do not have it; once it is corrected there is a drill."""
    monkeypatch.setattr(drills, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(drills, "WATCH_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(drills, "RETRY_SECONDS", NEVER)
    tokens = TokenServer(secret=CANARY, decodes=True)
    secrets = Secrets()
    async with serving(responding(reply(b"{}"))) as server, serving(tokens.script) as endpoint:
        secrets.objects["default", "oauth"] = oauth(endpoint.port, "wrong-secret")
        route = document(remote(100, credentials=TOKEN))
        async with gateway(route, remote_port=server.port, settings=settings(), secrets=secrets) as running:
            one = await first(running)
            assert one["reason"] == "TokenRefused"
            assert "401 invalid_client" in one["message"]
            assert "Secret default/oauth" in one["message"]
            assert "wrong-secret" not in orjson.dumps(one).decode()
            secrets.objects["default", "oauth"] = oauth(endpoint.port)
            one = await found(running, "Proven")
            assert (one["consecutiveFailures"], one["by"]) == (0, "drill")
            assert one["message"].startswith(
                "The drill proved the name, the connection and the token endpoint; it sent no"
            )
            secrets.objects["default", "oauth"] = oauth(endpoint.port, "wrong-again")
            assert (await found(running, "TokenRefused"))["lastSuccessTime"] is not None
            assert (await running.post(b"/default/demo/x", b"{}")).status == 200
            assert result(running)["by"] == "traffic"
            assert result(running)["reason"] == "TokenRefused"  # requests go on with the older token


async def test_an_older_token_does_not_prove_a_wrong_client_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a token was refused, drills go on to fail until a new one can be had, whatever token is left."""
    monkeypatch.setattr(drills, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(drills, "WATCH_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(drills, "RETRY_SECONDS", 0.01)
    tokens = TokenServer(secret=CANARY, decodes=True)
    secrets = Secrets()
    async with serving(responding(reply(b"{}"))) as server, serving(tokens.script) as endpoint:
        secrets.objects["default", "oauth"] = oauth(endpoint.port)
        route = document(remote(100, credentials=TOKEN))
        async with gateway(route, remote_port=server.port, settings=settings(), secrets=secrets) as running:
            proven = (await found(running, "Proven"))["lastSuccessTime"]
            secrets.objects["default", "oauth"] = oauth(endpoint.port, "wrong-secret")
            await until(lambda: result(running)["consecutiveFailures"] >= 3)
            assert (result(running)["reason"], result(running)["lastSuccessTime"]) == ("TokenRefused", proven)
            secrets.objects["default", "oauth"] = oauth(endpoint.port)
            await found(running, "Proven")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "Secret default/oauth does not exist"),
        ({"clientId": "id"}, "there is no clientSecret"),
        ({"clientId": "id", "clientSecret": CANARY, "tokenUrl": "ftp://x", "hosts": "remote.test"}, "tokenUrl"),
    ],
)
async def test_credentials_that_are_not_there(data: dict[str, str] | None, words: str) -> None:
    """A Secret that does not exist, or lacks a key, is CredentialMissing, and the sentence names it."""

    class Missing(Secrets):
        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            if (namespace, name) not in self.objects:
                raise LookupError(f"Secret {namespace}/{name} does not exist")
            return await super().secret(namespace, name)

    secrets = Missing()
    if data is not None:
        secrets.objects["default", "oauth"] = data
    async with (
        serving(silent) as server,
        gateway(
            document(remote(100, credentials=TOKEN)), remote_port=server.port, settings=settings(), secrets=secrets
        ) as running,
    ):
        one = await first(running)
        assert one["reason"] == "CredentialMissing"
        assert words in one["message"]
        assert "Secret default/oauth" in one["message"]
        assert CANARY not in one["message"]


async def test_a_secret_for_another_host() -> None:
    """A key that is not for the host of the backend is CredentialMissing."""
    async with (
        serving(silent) as server,
        gateway(
            document(remote(100, headers=KEYED)),
            remote_port=server.port,
            settings=settings(),
            secrets=key_for("other.test"),
        ) as running,
    ):
        one = await first(running)
        assert one["reason"] == "CredentialMissing"
        assert one["message"].startswith("Secret default/key: it is not for the host remote.test")


async def test_a_token_endpoint_that_is_not_there() -> None:
    """A token endpoint whose port is closed is ConnectFailed, one whose name is unknown is NameUnknown."""
    secrets = Secrets()
    with name_server({}) as names:
        secrets.objects["default", "oauth"] = oauth(free_port())
        route = document(remote(100, credentials=TOKEN))
        async with serving(silent) as server:
            async with gateway(route, remote_port=server.port, settings=settings(), secrets=secrets) as running:
                one = await first(running)
                assert one["reason"] == "ConnectFailed"
                assert "token endpoint http://127.0.0.1" in one["message"]
            secrets.objects["default", "oauth"]["tokenUrl"] = "http://nowhere.test/token"
            async with gateway(
                route, remote_port=server.port, settings=settings(), secrets=secrets, open_server=names.open
            ) as running:
                one = await first(running)
                assert one["reason"] == "NameUnknown"
                assert "http://nowhere.test/token" in one["message"]


async def test_the_default_remote_backend_has_its_credentials_from_the_configuration() -> None:
    """A wrong secret of the default remote backend is TokenRefused, and the sentence names the configuration."""
    tokens = TokenServer(secret=CANARY, decodes=True)
    async with serving(silent) as server, serving(tokens.script) as endpoint:
        default = ClientCredentials("id", "wrong-secret", f"http://127.0.0.1:{endpoint.port}/token")
        configuration = settings() | {"defaultRemoteBackend": {"host": f"127.0.0.1:{server.port}", "scheme": "http"}}
        route = document(Backend(id="remote", default=True, weight=100))
        async with gateway(route, settings=configuration, default=default) as running:
            one = await first(running)
            assert one["reason"] == "TokenRefused"
            assert one["message"].endswith("in the section defaultRemoteBackend of the configuration.")


async def test_a_client_certificate_that_a_server_asks_for(tmp_path: Path) -> None:
    """A request without the client certificate that a server asks for is no success; with it the list is read."""
    secrets = Secrets()
    pair = ROOT.issue("client")
    secrets.objects["default", "mine"] = {"tls.crt": pair.chain, "tls.key": pair.key, "hosts": "remote.test"}
    context = secured(tmp_path, ROOT.issue("remote.test"), clients=ROOT)
    ask = {"drill": Drill(request=MODELS)}
    async with serving(responding(reply(LIST)), context) as server:
        bare = document(encrypted(ROOT.pem, model="big-1"), name="bare", **ask)
        shown = document(encrypted(ROOT.pem, model="big-1", certificate="mine"), name="shown", **ask)
        async with gateway(bare, shown, remote_port=server.port, settings=settings(), secrets=secrets) as running:
            assert (
                "the certificate and the credentials; it lists big-1"
                in (await found(running, "Proven", "shown"))["message"]
            )
            one = await first(running, "bare")
            assert one["reason"] in ("ConnectFailed", "CertificateRefused")
            assert "client certificate" in one["message"]


# The list of models


def asking(request: DrillRequest, **values: Any) -> RouteDocument:
    """Return a document whose remote backend gets a key and has another name for the model."""
    return document(local(), remote(model="big-1", headers=KEYED, **values), drill=Drill(request=request))


RESPONSES: Final[dict[str, tuple[bytes, str, str]]] = {
    "listed": (reply(LIST), "Proven", "the connection and the credentials; it lists big-1"),
    "no such path": (reply(b"no", b"404 Not Found"), "Proven", "responded with 404"),
    "not told": (reply(b"no", b"404 Not Found"), "Proven", "whether the credentials are accepted is not known."),
    "no method": (reply(b"no", b"405 Method Not Allowed"), "Proven", "responded with 405"),
    "busy": (reply(b"no", b"503 Service Unavailable"), "Proven", "responded with 503"),
    "a web page": (reply(b"<html>"), "Proven", "no list of models"),
    "not listed": (reply(b'{"data":[{"id":"small"}]}'), "ModelUnknown", "does not list big-1, but small"),
    "nothing listed": (reply(b'{"data":[]}'), "ModelUnknown", "but no name"),
    "unauthorized": (reply(b"no", b"401 Unauthorized"), "TokenRefused", "responded with 401"),
    "forbidden": (reply(b"no", b"403 Forbidden"), "Forbidden", "responded with 403"),
    "no response": (b"", "ConnectFailed", "closed the connection"),
    "no HTTP": (b"220 mail.test ESMTP\r\n\r\n", "ConnectFailed", "no valid HTTP"),
}


@pytest.mark.parametrize(("response", "reason", "words"), RESPONSES.values(), ids=RESPONSES)
async def test_the_list_of_models(response: bytes, reason: str, words: str) -> None:
    """A drill that asks for the list of models sends the credentials, and only a list without the name says no."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(response)

    async with (
        serving(script) as server,
        gateway(
            asking(MODELS, path_prefix="/workspace"),
            remote_port=server.port,
            settings=settings(),
            secrets=key_for(),
        ) as running,
    ):
        one = await first(running)
        assert one["reason"] == reason
        assert words in one["message"]
        is_told = b" 200 OK" in response or reason in ("TokenRefused", "Forbidden")
        assert one["request"] == ("models" if is_told else "none")
        received = server.sides[0].received
        assert received.startswith(b"GET /workspace/v1/models HTTP/1.1\r\nhost: remote.test\r\n")
        assert b"authorization: Bearer " + CANARY.encode() in received
        assert CANARY not in one["message"]


async def test_a_version_in_the_prefix_is_not_repeated() -> None:
    """Behind a path prefix that ends with /v1 the list of models is at /models."""
    async with (
        serving(responding(reply(LIST))) as server,
        gateway(
            asking(MODELS, path_prefix="/api/v1"), remote_port=server.port, settings=settings(), secrets=key_for()
        ) as running,
    ):
        await found(running, "Proven")
        assert server.sides[0].received.startswith(b"GET /api/v1/models HTTP/1.1\r\n")


async def test_a_refused_key_is_read_again_once() -> None:
    """A 401 makes the drill read the key again and ask once more, as a request does."""
    async with (
        serving(responding(reply(b"no", b"401 Unauthorized"), reply(LIST))) as server,
        gateway(asking(MODELS), remote_port=server.port, settings=settings(), secrets=key_for()) as running,
    ):
        await found(running, "Proven")


async def test_a_server_that_wants_the_callers_key() -> None:
    """Where the gateway has no credentials of its own, a 401 is about the caller's and no failure."""
    route = document(remote(100, model="big-1"), drill=Drill(request=MODELS))
    async with (
        serving(responding(reply(b"no", b"401 Unauthorized"))) as server,
        gateway(route, remote_port=server.port, settings=settings()) as running,
    ):
        assert "no credentials of its own" in (await first(running))["message"]


async def test_a_list_without_end() -> None:
    """Of a list that is hostile in size no more than a bound is read, and it says nothing about the name."""
    ended = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                await side.send(b"10000\r\n" + b"[" * 65536 + b"\r\n")
        except ConnectionError:
            ended.set()

    async with (
        serving(script) as server,
        gateway(asking(MODELS), remote_port=server.port, settings=settings(), secrets=key_for()) as running,
    ):
        one = await first(running)
        assert one["reason"] == "Proven"
        assert f"longer than {LIST_BYTES} bytes" in one["message"]
        await until(ended.is_set)


# A completion


COMPLETIONS: Final[dict[str, tuple[bytes, str, str]]] = {
    "served": (reply(b"{}"), "Proven", "it served one token of big-1"),
    "no model": (
        reply(b'{"error":{"code":"model_not_found","message":"no"}}', b"404 Not Found"),
        "ModelUnknown",
        "does not serve big-1",
    ),
    "no path": (reply(b"no", b"404 Not Found"), "Proven", "says nothing about the name"),
    "no parameter": (reply(b'{"error":{"param":"max_tokens"}}', b"400 Bad Request"), "Proven", "responded with 400"),
    "quota": (reply(b"{}", b"429 Too Many Requests"), "Forbidden", "quota"),
    "broken": (reply(b"{}", b"500 Internal Server Error"), "ConnectFailed", "responded with 500"),
}


@pytest.mark.parametrize(("response", "reason", "words"), COMPLETIONS.values(), ids=COMPLETIONS)
async def test_a_completion(response: bytes, reason: str, words: str) -> None:
    """A drill with a completion asks for one token by the name that the backend knows."""
    async with (
        serving(responding(response)) as server,
        gateway(asking(COMPLETION), remote_port=server.port, settings=settings(), secrets=key_for()) as running,
    ):
        one = await first(running)
        assert one["reason"] == reason
        assert words in one["message"]
        head, _, body = server.sides[0].received.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        content = orjson.loads(body)
        assert (content["model"], content["max_tokens"]) == ("big-1", 1)
        served = b" 200 OK" in response
        assert (one["lastServedTime"] is not None, one["completion"] is not None) == (served, served)
        if served:
            assert (one["request"], one["completion"]["time"]) == ("completion", one["lastServedTime"])
            assert 0 < one["completion"]["seconds"] < SECONDS


async def ask(running: Running, query: str, kind: str = "application/json") -> httpx.Response:
    """Ask the admin port for a completion."""
    app = admin.create_app(
        running.store, running.metrics, running.journal, draining=lambda: False, drills=running.drills
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        return await client.post(f"/drills?{query}", content=b"{}", headers={"content-type": kind})


async def test_a_completion_that_somebody_asks_for() -> None:
    """`POST /drills` sends one completion, says how long it took, and sends no other within a few seconds; what it
    found is the result of the route's drills, too."""
    async with (
        serving(responding(reply(b"{}"))) as server,
        gateway(document(local(), remote(model="big-1")), remote_port=server.port, settings=settings()) as running,
    ):
        assert (await found(running, "Proven"))["completion"] is None
        response = await ask(running, "namespace=default&name=demo")
        (one,) = response.json()["drills"]
        assert (response.status_code, response.json()["gateway"]) == (200, running.drills.gateway)
        assert (one["namespace"], one["name"], one["backend"], one["reason"]) == ("default", "demo", "remote", "Proven")
        assert one["message"].endswith("it served one token of big-1.")
        assert result(running)["completion"]["seconds"] == one["seconds"] > 0
        assert orjson.loads(server.sides[1].received.partition(b"\r\n\r\n")[2])["max_tokens"] == 1
        (again,) = (await ask(running, "namespace=default&name=demo")).json()["drills"]
        assert (again["reason"], again["seconds"], len(server.sides)) == ("NotTried", None, 2)
        assert "less than 10 seconds ago" in again["message"]


async def test_a_completion_during_a_cool_down() -> None:
    """Nothing is sent to a backend that has asked for a pause, whoever asks for it."""
    async with (
        serving(responding(reply(b"no", b"429 Too Many Requests", b"retry-after: 60"))) as server,
        gateway(document(remote(100)), remote_port=server.port, settings=settings(0)) as running,
    ):
        assert (await running.post(b"/default/demo/x", b"{}")).status == 429
        (one,) = (await ask(running, "namespace=default&name=demo")).json()["drills"]
        assert (one["reason"], len(server.sides)) == ("NotTried", 1)
        assert "has asked for a pause" in one["message"]


async def test_a_completion_where_there_are_no_drills() -> None:
    """Where drills are off a completion is sent nevertheless, and nothing but its response has the result."""
    refusing = reply(b'{"error":{"code":"model_not_found"}}', b"404 Not Found")
    async with (
        serving(responding(refusing)) as server,
        gateway(document(remote(100, model="big-1")), remote_port=server.port, settings=settings(0)) as running,
    ):
        (one,) = (await ask(running, "namespace=default&name=demo")).json()["drills"]
        assert (one["reason"], one["seconds"]) == ("ModelUnknown", None)
        assert result(running)["reason"] == "NotTried"


@pytest.mark.parametrize(
    ("query", "kind", "status"),
    [
        ("namespace=default&name=other", "application/json", 404),
        ("namespace=default", "application/json", 422),
        ("namespace=default&name=demo", "text/plain", 415),
    ],
)
async def test_what_cannot_be_asked_for(query: str, kind: str, status: int) -> None:
    """A model without a remote backend here, a query without a model, and a request that any website could have a
    browser send are refused with a sentence."""
    async with serving(silent) as server, gateway(document(remote(100)), remote_port=server.port) as running:
        response = await ask(running, query, kind)
        assert response.status_code == status
        assert response.json()["error"]


async def test_gateways_take_turns_at_completions() -> None:
    """Of three gateways each sends a completion with every third of its drills, and no request with the others."""
    async with (
        serving(responding(reply(b"{}"))) as server,
        gateway(
            asking(COMPLETION), remote_port=server.port, settings=settings(0.02, replicas=3), secrets=key_for()
        ) as running,
    ):
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "reason": "Proven"}
        await until(lambda: running.count("beamlit_gateway_drills_total", **labels) >= 9)
        await until(lambda: all(side.reader.at_eof() for side in server.sides[:9]))
        sent = [bool(side.received) for side in server.sides[:9]]
        assert sum(sent) == 3
        assert sent[:3] == sent[3:6] == sent[6:9]


async def test_one_of_several_gateways_sends_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways that know each other by a name send the completions of a backend from one of them, with each drill."""

    async def resolve(name: str) -> list[str]:
        return ["10.0.0.1", "10.0.0.2"] if name == "gateways.test" else ["10.0.0.1"]

    monkeypatch.setattr(peers, "lookup", resolve)
    routes = [document(remote(100, model="big-1"), name=f"m{n}", drill=Drill(request=COMPLETION)) for n in range(8)]
    async with (
        serving(responding(reply(b"{}"))) as server,
        gateway(*routes, remote_port=server.port, settings=settings(replicas=99, peers="gateways.test")) as running,
    ):
        for one in routes:
            await found(running, "Proven", one.name)
        chosen = [result(running, one.name)["request"] for one in routes]
        assert set(chosen) == {"completion", "none"}
        mine = Peers("gateways.test", "this")
        for one, request in zip(routes, chosen, strict=True):
            assert (request == "completion") is await mine.choose_this(f"default/{one.name}/remote")


# When there are drills


async def test_a_request_that_succeeds_counts_as_a_drill() -> None:
    """A POST that succeeds after a failed drill proves the backend, and while requests succeed there is no drill."""
    refusing = reply(b"no", b"401 Unauthorized")
    async with (
        serving(responding(refusing, refusing, reply(b"{}"))) as server,
        gateway(
            document(remote(100, model="big-1", headers=KEYED), drill=Drill(request=MODELS)),
            document(Backend(id="remote", host="127.0.0.1", port=free_port(), weight=100), name="other"),
            remote_port=server.port,
            settings=settings(NEVER),
            secrets=key_for(),
        ) as running,
    ):
        assert (await first(running))["reason"] == "TokenRefused"
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200
        one = result(running)
        assert (one["reason"], one["by"], one["consecutiveFailures"]) == ("Proven", "traffic", 0)
        assert one["observedTime"] == one["lastSuccessTime"] is not None


async def test_a_key_that_requests_find_refused() -> None:
    """A 401 to a request is the result, which drills without a request do not end, and a request that succeeds does."""
    refusing = reply(b"no", b"401 Unauthorized")
    async with (
        serving(responding(refusing, refusing, reply(b"{}"))) as server,
        gateway(
            document(remote(100, headers=KEYED)), remote_port=server.port, settings=settings(0.02), secrets=key_for()
        ) as running,
    ):
        assert "does not tell whether the credentials are accepted" in (await found(running, "Proven"))["message"]
        assert (await running.post(b"/default/demo/x", b"{}")).code == "credentials_refused"
        one = await found(running, "TokenRefused")
        assert (one["consecutiveFailures"], one["by"]) == (1, "drill")
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "reason": "Proven"}
        before = running.count("beamlit_gateway_drills_total", **labels)
        await until(lambda: running.count("beamlit_gateway_drills_total", **labels) >= before + 3)
        assert result(running)["reason"] == "TokenRefused"
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200
        assert (result(running)["reason"], result(running)["by"]) == ("Proven", "traffic")


async def test_a_response_that_says_nothing_ends_no_refusal() -> None:
    """A 404 to the list of models does not show that a key is accepted that requests have found refused."""

    async def script(side: ServerSide) -> None:
        while True:
            is_drill = (await side.request()).startswith(b"GET ")
            await side.send(reply(b"no", b"404 Not Found" if is_drill else b"401 Unauthorized"))

    async with (
        serving(script) as server,
        listing(server) as running,
    ):
        await found(running, "Proven")
        assert (await running.post(b"/default/demo/x", b"{}")).code == "credentials_refused"
        assert (await found(running, "TokenRefused"))["request"] == "client"
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "reason": "Proven"}
        before = running.count("beamlit_gateway_drills_total", **labels)
        await until(lambda: running.count("beamlit_gateway_drills_total", **labels) >= before + 3)
        assert result(running)["reason"] == "TokenRefused"


async def test_a_refusal_during_a_drill_that_says_nothing_counts() -> None:
    """A 401 to a request counts although a drill that had begun before it ends after it, with a 404."""
    drills, refused = [asyncio.Event() for _ in range(3)], asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            if not (await side.request()).startswith(b"GET "):
                await side.send(reply(b"no", b"401 Unauthorized"))
                continue
            next((one for one in drills if not one.is_set()), drills[-1]).set()
            if drills[1].is_set():
                await refused.wait()
            await side.send(reply(b"no", b"404 Not Found"))

    async with (
        serving(script) as server,
        listing(server) as running,
        asyncio.timeout(SECONDS),
    ):
        await drills[1].wait()
        assert (await running.post(b"/default/demo/x", b"{}")).code == "credentials_refused"
        refused.set()
        await drills[2].wait()  # so the second one has ended
        assert result(running)["reason"] == "TokenRefused"


async def test_there_is_no_drill_while_requests_succeed_or_a_backend_cools_down() -> None:
    """A backend whose requests succeed, or that has asked for a pause, is not tried, while others are."""
    busy, resting = document(remote(100), name="busy"), document(remote(100), name="resting")
    async with (
        serving(responding(reply(b"{}"), reply(b"no", b"429 Too Many Requests", b"retry-after: 60"))) as server,
        gateway(document(remote(100)), busy, resting, remote_port=server.port, settings=settings(0)) as running,
    ):
        assert (await running.post(b"/default/busy/x", b"{}")).status == 200
        assert (await running.post(b"/default/resting/x", b"{}")).status == 429
        runtime = running.store.find_runtime("default/busy")
        assert runtime is not None
        tried = Drill(interval=0.02)
        running.load(*(one.model_copy(update={"drill": tried}) for one in (document(remote(100)), busy, resting)))
        runtime.backends["remote"].traffic.succeeded_at = perf_counter() + NEVER
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "reason": "Proven"}
        await until(lambda: running.count("beamlit_gateway_drills_total", **labels) >= 10)
        for name in ("busy", "resting"):
            assert running.count("beamlit_gateway_drills_total", **labels | {"model": name}) <= 1
        assert "has asked for a pause" in result(running, "resting")["message"]
        assert result(running, "busy")["by"] == "traffic"


async def test_a_change_of_the_route_begins_anew_and_a_change_of_weights_does_not() -> None:
    """Another weight leaves the result as it is; another server, or other credentials, are tried at once."""
    async with (
        serving(silent) as server,
        gateway(document(local(100), remote(0)), remote_port=server.port, settings=settings()) as running,
    ):
        before = await found(running, "Proven")
        running.load(document(local(50), remote(50)))
        assert result(running) == before
        assert len(server.sides) == 1
        running.load(document(local(50), remote(50, headers=KEYED)))
        assert result(running)["reason"] == "NotTried"
        assert (await first(running))["reason"] == "CredentialMissing"
        running.load(document(local(50), Backend(id="remote", host="127.0.0.1", port=server.port, weight=50)))
        await found(running, "Proven")
        running.load(document(local()))
        assert list(running.drills.listed()) == []
        assert running.metrics.registry.get_sample_value("beamlit_gateway_drill_success", {}) is None


async def test_a_refused_key_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in a Secret is tried at once when it has changed, like client credentials."""
    monkeypatch.setattr(drills, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(drills, "WATCH_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(drills, "RETRY_SECONDS", NEVER)

    async def script(side: ServerSide) -> None:
        while True:
            right = b"authorization: Bearer right" in await side.request()
            await side.send(reply(LIST) if right else reply(b"no", b"401 Unauthorized"))

    secrets = key_for()
    async with (
        serving(script) as server,
        gateway(asking(MODELS), remote_port=server.port, settings=settings(), secrets=secrets) as running,
    ):
        assert (await first(running))["reason"] == "TokenRefused"
        secrets.objects["default", "key"] = {"key": "Bearer right", "hosts": "remote.test"}
        await found(running, "Proven")


async def test_a_client_certificate_that_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client certificate in a Secret is tried at once when it has changed."""
    monkeypatch.setattr(drills, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(drills, "WATCH_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(drills, "RETRY_SECONDS", NEVER)
    secrets = Secrets()

    def show(authority: Authority) -> None:
        pair = authority.issue("client")
        secrets.objects["default", "mine"] = {"tls.crt": pair.chain, "tls.key": pair.key, "hosts": "remote.test"}

    show(OTHER)
    context = secured(tmp_path, ROOT.issue("remote.test"), clients=ROOT)
    route = document(encrypted(ROOT.pem, model="big-1", certificate="mine"), drill=Drill(request=MODELS))
    async with (
        serving(responding(reply(LIST)), context) as server,
        gateway(route, remote_port=server.port, settings=settings(), secrets=secrets) as running,
    ):
        assert (await first(running))["reason"] in ("ConnectFailed", "CertificateRefused")
        show(ROOT)
        await found(running, "Proven")


async def test_a_drill_keeps_the_pause_that_its_response_asks_for() -> None:
    """A response to a drill that asks for a pause gets it, and requests are not held back by it."""
    busy = reply(b"{}", b"429 Too Many Requests", b"retry-after: 60")
    async with (
        serving(responding(busy, reply(b"{}"))) as server,
        serving(silent) as other,
        gateway(
            document(remote(100, model="big-1"), drill=Drill(request=COMPLETION)),
            document(Backend(id="remote", host="127.0.0.1", port=other.port, weight=100), name="other"),
            remote_port=server.port,
            settings=settings(0.02),
        ) as running,
    ):
        assert (await first(running))["reason"] == "Forbidden"
        labels = {"namespace": "default", "model": "other", "backend": "remote", "reason": "Proven"}
        before = running.count("beamlit_gateway_drills_total", **labels)
        await until(lambda: running.count("beamlit_gateway_drills_total", **labels) >= before + 9)
        assert result(running)["consecutiveFailures"] == 1
        sent = len(server.sides)
        running.load(document(remote(100, model="big-2"), drill=Drill(request=COMPLETION)))
        await until(lambda: "has asked for a pause" in result(running)["message"])  # also after a change of the route
        assert len(server.sides) == sent
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200


async def test_many_routes_are_followed_in_many_turns_of_the_loop() -> None:
    """However many routes change at the same time, each backend is tried in the end, and one that goes is not."""
    many = [document(remote(100), name=f"m{number}") for number in range(3 * drills.ROUTES_AT_A_TIME)]
    async with serving(silent) as server, gateway(remote_port=server.port, settings=settings(60)) as running:
        running.load(*many)
        assert len(list(running.drills.listed())) == drills.ROUTES_AT_A_TIME
        running.load(*many[10:-10])
        await until(lambda: len(list(running.drills.listed())) == len(many) - 20)
        assert {one["name"] for one in running.drills.listed()} == {one.name for one in many[10:-10]}
        await found(running, "Proven", many[-11].name)


async def test_no_route_asks_for_drills_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short an interval a route asks for, there is a least one between two drills at a backend."""
    monkeypatch.setattr(drills, "LEAST_SECONDS", NEVER)
    often = document(remote(100), drill=Drill(interval=0.01))
    async with (
        serving(silent) as server,
        gateway(often, remote_port=server.port, settings=settings(0.01)) as running,
    ):
        await found(running, "Proven")
        running.load(often, document(remote(100), name="later"))
        await found(running, "Proven", "later")
        assert len(server.sides) == 2


async def test_servers_that_hang_make_no_other_wait() -> None:
    """Servers of one namespace that never end the handshake take slots of their own, and others are tried meanwhile."""
    async with serving(silent) as hung, serving(silent) as sound:
        late = [
            Backend(id=f"b{index}", host="127.0.0.1", port=hung.port, scheme="https", weight=0) for index in range(9)
        ]
        many = [document(*late, name=f"late-{number}") for number in range(12)]
        async with gateway(remote_port=sound.port, settings=settings()) as running:
            running.load_all({"bad": many})
            await until(lambda: len(hung.sides) >= drills.NAMESPACE_AT_ONCE)
            running.load_all({"bad": many, "default": [document(remote(100))]})
            assert (await first(running))["reason"] == "Proven"
            assert len(hung.sides) == drills.NAMESPACE_AT_ONCE


async def test_a_drill_that_never_began_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill that a change of the route ends before its first step leaves the slots of the route to later ones."""
    monkeypatch.setattr(drills, "SPREAD_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    async with serving(silent) as server, gateway(remote_port=server.port, settings=settings()) as running:
        for _ in range(drills.AT_ONCE):
            running.load(document(remote(100)))
            changed = asyncio.Event()
            loop.call_later(0, running.load, document(local()))
            loop.call_later(0, changed.set)
            await changed.wait()
        assert server.sides == []
        running.load(document(remote(100)))
        await found(running, "Proven")


async def test_a_request_counts_once_however_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that succeeded before a drill failed does not prove the backend when the clock is set forward."""

    async def script(side: ServerSide) -> None:
        while True:
            is_drill = b"/chat/completions" in await side.request()
            await side.send(reply(b"no", b"503 Service Unavailable") if is_drill else reply(b"{}"))

    one = document(remote(100), drill=Drill(request=COMPLETION, interval=0.05))
    async with serving(script) as server, gateway(one, remote_port=server.port, settings=settings()) as running:
        await found(running, "ConnectFailed")
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200
        await until(lambda: result(running)["by"] == "traffic")
        await found(running, "ConnectFailed")
        now = time.time
        monkeypatch.setattr("time.time", lambda: now() + 3600)
        assert result(running)["reason"] == "ConnectFailed"
