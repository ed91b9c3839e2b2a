"""TLS towards backends: which certificates are accepted, which are presented, and when they change (P17, SE-14)."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from gateway.api.v1alpha1 import Backend, Tls
from gateway.credentials import secrets
from program.validity import ends_of
from tests.authorities import Authority, Pair, self_signed, strict_by_default
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Running, document, gateway, reply
from tests.integration.servers import ServerSide, serving, until
from tools.ports import free_port

GET: Final = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"
ROOT: Final = Authority("root")
OTHER: Final = Authority("other root")
INTERMEDIATE: Final = Authority("intermediate", ROOT)


def context(folder: Path, pair: Pair, *, clients: Authority | None = None) -> ssl.SSLContext:
    """Return the TLS context of a server, which with `clients` requires a certificate of this authority."""
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    result.load_cert_chain(*pair.write(folder, "server"))
    if clients is not None:
        result.load_verify_locations(cadata=clients.pem)
        result.verify_mode = ssl.CERT_REQUIRED
    return result


def backend(**tls: Any) -> Backend:
    """Return the remote backend over TLS."""
    return Backend(id="remote", host="remote.test", weight=100, port=443, scheme="https", tls=Tls(**tls))


async def respond_to_all(side: ServerSide) -> None:
    """Respond to every request with the name in the client's certificate, or `anonymous` without one."""
    peer = side.writer.get_extra_info("peercert") or {}
    subject = dict(part[0] for part in peer.get("subject", ()))
    while await side.request():
        await side.send(reply(subject.get("commonName", "anonymous").encode()))


BAD: Final[dict[str, tuple[Pair, str]]] = {
    "self-signed": (self_signed("remote.test"), ROOT.pem),
    "wrong-name": (ROOT.issue("other.test"), ROOT.pem),
    "name-in-subject-only": (ROOT.issue("other.test", common_name="remote.test"), ROOT.pem),
    "address-instead-of-name": (ROOT.issue("127.0.0.1"), ROOT.pem),
    "wildcard-too-high": (ROOT.issue("*.test.example"), ROOT.pem),
    "expired": (ROOT.issue("remote.test", days=(-3, -1)), ROOT.pem),
    "not-yet-valid": (ROOT.issue("remote.test", days=(1, 3)), ROOT.pem),
    "wrong-authority": (OTHER.issue("remote.test"), ROOT.pem),
    "missing-intermediate": (INTERMEDIATE.issue("remote.test"), ROOT.pem),
    "broken-bundle": (ROOT.issue("remote.test"), "no certificate"),
}


@pytest.mark.parametrize(("pair", "bundle"), BAD.values(), ids=BAD)
async def test_p17_a_bad_certificate_gets_no_byte(tmp_path: Path, pair: Pair, bundle: str) -> None:
    """P17, SE-14: for a server that cannot be verified the client gets a 502, and the server no byte of the request."""
    async with (
        serving(respond_to_all, context(tmp_path, pair)) as server,
        gateway(document(backend(ca_bundle=bundle)), remote_port=server.port) as running,
    ):
        response = await running.ask(GET)
        assert (response.status, response.code) == (502, "tls_failed")
        assert all(side.received == b"" for side in server.sides)


async def test_p17_the_systems_authorities_know_no_test_server(tmp_path: Path) -> None:
    """P17: without a bundle the system's authorities count, so a server of an unknown one is refused."""
    async with (
        serving(respond_to_all, context(tmp_path, ROOT.issue("remote.test"))) as server,
        gateway(document(backend()), remote_port=server.port) as running,
    ):
        assert (await running.ask(GET)).code == "tls_failed"
        assert all(side.received == b"" for side in server.sides)


GOOD: Final[dict[str, tuple[Pair, dict[str, str]]]] = {
    "root": (ROOT.issue("remote.test"), {"ca_bundle": ROOT.pem}),
    "intermediate": (INTERMEDIATE.issue("remote.test", chain=(INTERMEDIATE,)), {"ca_bundle": ROOT.pem}),
    "two-in-the-bundle": (OTHER.issue("remote.test"), {"ca_bundle": ROOT.pem + OTHER.pem}),
    "server-name": (ROOT.issue("inner.example"), {"ca_bundle": ROOT.pem, "server_name": "inner.example"}),
    "wildcard": (ROOT.issue("*.inner.example"), {"ca_bundle": ROOT.pem, "server_name": "a.inner.example"}),
}


@pytest.mark.parametrize(("pair", "tls"), GOOD.values(), ids=GOOD)
async def test_p17_a_good_certificate_is_accepted(tmp_path: Path, pair: Pair, tls: dict[str, str]) -> None:
    """P17: a certificate of the route's authorities for the backend's name, or for the route's `serverName`, which SNI
    sends, is accepted."""
    names: list[str] = []
    served = context(tmp_path, pair)
    served.sni_callback = lambda _socket, name, _context: names.append(name)
    async with (
        serving(respond_to_all, served) as server,
        gateway(document(backend(**tls)), remote_port=server.port) as running,
    ):
        response = await running.ask(GET)
        assert (response.status, response.body) == (200, b"anonymous")
        assert names == [tls.get("server_name", "remote.test")]


async def test_an_authority_without_key_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private authority without key usage and key identifiers is accepted, unless `tls.strict` is set."""
    strict_by_default(monkeypatch)
    bare = Authority("bare", bare=True)
    route = document(backend(ca_bundle=bare.pem))
    async with serving(respond_to_all, context(tmp_path, bare.issue("remote.test"))) as server:
        async with gateway(route, remote_port=server.port) as running:
            assert (await running.ask(GET)).status == 200
        async with gateway(route, remote_port=server.port, settings={"tls": {"strict": True}}) as running:
            assert (await running.ask(GET)).code == "tls_failed"


OLD: Final = {
    "tls-1.0": ["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"],
    "tls-1.1": ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
    "h2-only": ["-alpn", "h2"],
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("words", OLD.values(), ids=OLD)
async def test_p17_old_tls_and_other_protocols(tmp_path: Path, words: list[str]) -> None:
    """P17: for a server with TLS before 1.2, or with h2 alone, the client gets a 502, and the server no byte."""
    certificate, key = ROOT.issue("remote.test").write(tmp_path, "server")
    async with s_server(certificate, key, *words) as (port, output):
        async with gateway(document(backend(ca_bundle=ROOT.pem)), remote_port=port) as running:
            response = await running.ask(GET)
            assert response.status == 502
            assert response.code in ("tls_failed", "connect_failed")
        assert b"default/demo" not in await output()


async def test_p17_a_server_of_openssl_works_with_current_tls(tmp_path: Path) -> None:
    """P17: OpenSSL's own server, which other tests start with old protocols, works with current TLS and HTTP/1.1."""
    certificate, key = ROOT.issue("remote.test").write(tmp_path, "server")
    async with (
        s_server(certificate, key, "-alpn", "http/1.1", "-www") as (port, _),
        gateway(document(backend(ca_bundle=ROOT.pem)), remote_port=port) as running,
    ):
        assert (await running.ask(b"GET /default/demo/ HTTP/1.1\r\nHost: gateway\r\n\r\n")).status == 200


@asynccontextmanager
async def s_server(certificate: Path, key: Path, *words: str) -> AsyncIterator[tuple[int, Any]]:
    """Run OpenSSL's own server, and yield its port and a function that ends it and returns what it has written."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-key", str(key), *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    async def output() -> bytes:
        process.kill()
        return (await process.communicate())[0]

    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            while b"ACCEPT" not in await process.stdout.readline():
                pass
        yield port, output
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_se_14_an_authority_that_is_replaced_counts_for_new_connections(tmp_path: Path) -> None:
    """SE-14: another `caBundle` in the document counts for new connections, and running requests go on."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        request = await side.request()
        if b"/slow" in request:
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbe")
            await go.wait()
            await side.send(b"gun")
        else:
            await side.send(reply())
        await respond_to_all(side)

    async with (
        serving(script, context(tmp_path, ROOT.issue("remote.test"))) as server,
        gateway(document(backend(ca_bundle=ROOT.pem)), remote_port=server.port) as running,
    ):
        slow = await running.client()
        await slow.send(GET.replace(b"/x", b"/slow"))
        assert (await slow.response(head_only=True)).status == 200
        assert (await running.ask(GET)).status == 200
        before = len(server.sides)
        running.load(document(backend(ca_bundle=OTHER.pem)))
        assert (await running.ask(GET)).code == "tls_failed"
        running.load(document(backend(ca_bundle=OTHER.pem + ROOT.pem)))
        assert (await running.ask(GET)).status == 200
        assert len(server.sides) > before
        go.set()
        body = b""
        while len(body) < 5:
            body += await slow.some()
        assert body == b"begun"


# Certificates of the gateway


class Vault:
    """Reader of labelled Secrets that are in memory."""

    def __init__(self, **secrets: Mapping[str, str]) -> None:
        self.secrets: dict[str, Mapping[str, str]] = dict(secrets)

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the data of a Secret in the namespace `default`."""
        if namespace != "default":
            raise LookupError(name)
        return self.secrets[name]

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Raise: there are no inline credentials."""
        raise LookupError(model_deployment)


def shown(pair: Pair, hosts: str = "remote.test") -> dict[str, str]:
    """Return the data of a Secret of type kubernetes.io/tls that names the hosts it may be presented to."""
    return {"tls.crt": pair.chain, "tls.key": pair.key, "hosts": hosts}


@asynccontextmanager
async def asking(tmp_path: Path, vault: Vault, **values: Any) -> AsyncIterator[tuple[Running, Any]]:
    """Yield a gateway that presents the Secret `mine`, and a server that requires a certificate of ROOT."""
    served = context(tmp_path, ROOT.issue("remote.test", "demo-local.default.svc.cluster.local"), clients=ROOT)
    place = backend(ca_bundle=ROOT.pem, client_certificate="mine").model_copy(update=values)
    async with (
        serving(respond_to_all, served) as server,
        gateway(document(place), remote_port=server.port, local_port=server.port, secrets=vault) as running,
    ):
        yield running, server


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    """The server gets the Secret's certificate, intermediates included, and its connection is used again."""
    pair = INTERMEDIATE.issue("x", common_name="the gateway", chain=(INTERMEDIATE,))
    async with asking(tmp_path, Vault(mine=shown(pair))) as (running, server):
        for _ in range(3):
            response = await running.ask(GET)
            assert (response.status, response.body) == (200, b"the gateway")
        assert len(server.sides) == 1


async def test_ends_of_certificates_are_metrics(tmp_path: Path) -> None:
    """A metric says when the certificates end that a server and the gateway have shown, and the route's authority."""
    mine = ROOT.issue("x", common_name="the gateway", days=(-1, 9))
    metric = "beamlit_gateway_certificate_end_timestamp_seconds"
    async with asking(tmp_path, Vault(mine=shown(mine))) as (running, _):
        authority = {"certificate": "authority", "name": "default/demo/remote"}
        assert running.count(metric, **authority) == ends_of(ROOT.pem)[0]
        labels = {"certificate": "server", "name": "remote.test:443"}
        assert running.metrics.registry.get_sample_value(metric, labels) is None
        assert (await running.ask(GET)).status == 200
        served = (tmp_path / "server.crt").read_text()
        assert running.count(metric, **labels) == ends_of(served)[0]
        assert running.count(metric, certificate="client", name="default/mine") == ends_of(mine.chain)[0]


async def test_a_renewed_client_certificate_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of its Secret the new client certificate is presented, and no old connection is used any more."""
    monkeypatch.setattr(secrets, "_FRESH_SECONDS", 0.05)
    vault = Vault(mine=shown(ROOT.issue("x", common_name="old")))
    async with asking(tmp_path, vault) as (running, _):
        assert (await running.ask(GET)).body == b"old"
        vault.secrets["mine"] = shown(ROOT.issue("x", common_name="new"))
        seen = []
        async with asyncio.timeout(SECONDS):
            while b"new" not in seen:
                seen.append((await running.ask(GET)).body)
                await asyncio.sleep(0.01)
        assert set(seen) <= {b"old", b"new"}
        assert (await running.ask(GET)).body == b"new"


UNUSABLE: Final[dict[str, Mapping[str, str] | None]] = {
    "missing": None,
    "other-host": shown(ROOT.issue("x"), hosts="other.test"),
    "other-port": shown(ROOT.issue("x"), hosts="remote.test:8443"),
    "no-hosts": {key: value for key, value in shown(ROOT.issue("x")).items() if key != "hosts"},
    "no-key": {key: value for key, value in shown(ROOT.issue("x")).items() if key != "tls.key"},
    "key-of-another": shown(Pair(ROOT.issue("x").chain, ROOT.issue("x").key)),
    "garbage": shown(Pair("canary-certificate", "canary-key")),
}


@pytest.mark.parametrize("secret", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_client_certificate_that_is_of_no_use(tmp_path: Path, secret: Mapping[str, str] | None) -> None:
    """For a Secret that is missing, for another host or broken the client gets a 502, no connection is opened, and no
    log has its content."""
    vault = Vault() if secret is None else Vault(mine=secret)
    with capture_logs() as logs:
        async with asking(tmp_path, vault) as (running, server):
            response = await running.ask(GET)
            assert (response.status, response.code) == (502, "credentials_failed")
            assert server.sides == []
            written = json.dumps(logs, default=repr) + running.log.getvalue()
    [line] = [one for one in logs if one["event"] == "credential_unusable"]
    assert (line["namespace"], line["name"]) == ("default", "mine")
    assert "PRIVATE" not in written
    assert "canary" not in written
    for value in (secret or {}).values():
        assert value not in written or value in ("other.test", "remote.test:8443", "remote.test")


async def test_a_client_certificate_that_the_server_does_not_know(tmp_path: Path) -> None:
    """For a server that refuses the client certificate the client gets a 502."""
    async with asking(tmp_path, Vault(mine=shown(OTHER.issue("x")))) as (running, server):
        response = await running.ask(GET)
        assert response.status == 502
        assert all(side.received == b"" for side in server.sides)


async def test_a_service_of_the_namespace_needs_no_hosts(tmp_path: Path) -> None:
    """A client certificate for a Service, which is in the Secret's own namespace, needs no `hosts`."""
    secret = {key: value for key, value in shown(ROOT.issue("x", common_name="inside")).items() if key != "hosts"}
    place = {"id": "local", "service": "demo-local", "host": None, "port": 80}
    async with asking(tmp_path, Vault(mine=secret), **place) as (running, _):
        assert (await running.ask(GET)).body == b"inside"


async def test_connections_of_one_certificate_are_not_used_for_another(tmp_path: Path) -> None:
    """Two routes to one server with different certificates share no connection."""
    vault = Vault(mine=shown(ROOT.issue("x", common_name="one")), other=shown(ROOT.issue("x", common_name="two")))
    async with asking(tmp_path, vault) as (running, server):
        running.load(
            document(backend(ca_bundle=ROOT.pem, client_certificate="mine")),
            document(backend(ca_bundle=ROOT.pem, client_certificate="other"), name="second"),
        )
        for _ in range(3):
            assert (await running.ask(GET)).body == b"one"
            assert (await running.ask(GET.replace(b"/demo/", b"/second/"))).body == b"two"
        assert len(server.sides) == 2
        await until(lambda: running.upstream.stats.open == 2)
