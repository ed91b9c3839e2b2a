"""Scripted Prometheus servers that refuse, lie, hang or change their certificate, and what hooks say about them."""

import asyncio
import base64
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.metrics import MetricSource, prometheus_api
from hooks.metrics.installed import open_sources
from hooks.observation.readings import Reading
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics
from program.settings import SettingsError
from tests.authorities import Authority, strict_by_default
from tests.builders import Json
from tests.deadlines import NEVER
from tests.hook_server import HookServer, Request, Response
from tests.integration.servers import until
from tests.metric_responses import external_metric, object_metric
from tests.processes import self_signed
from tests.prometheus import informer_of

NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def vector(*samples: tuple[Json, Any]) -> Json:
    """Return a response with these series."""
    result = [{"metric": labels, "value": value} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def problem(kind: str, error: str = "canary of the server") -> Json:
    """Return an error response of Prometheus."""
    return {"status": "error", "errorType": kind, "error": error}


ONE = vector(({}, [1772366390.5, "1"]))


@asynccontextmanager
async def opened(
    address: str, metrics: Metrics | None = None, *, strict_tls: bool = False, **prometheus: Any
) -> AsyncIterator[MetricSource]:
    """Open a source that reads metrics from this server."""
    informer = informer_of(address, **prometheus)
    async with open_sources(informer, metrics or Metrics(), strict_tls=strict_tls) as sources:
        yield sources.metrics


async def read(source: MetricSource, expression: str = "x", namespace: str = "team-a") -> Reading:
    """Return the reading of an expression."""
    return await source.read(MetricSpec.model_validate(external_metric(expression)), namespace, None)


def unread(reading: Reading) -> tuple[str, str]:
    """Return the reason and the message of a reading that has no sample."""
    assert reading.unread is not None
    assert "secret" not in reading.unread.message
    return reading.unread.reason, reading.unread.message


TROUBLE = [
    (
        Response(problem("bad_data", "1:1: parse error"), 400),
        reasons.REFUSED,
        "refuses the expression: 1:1: parse error.",
    ),
    (Response(problem("execution"), 422), reasons.REFUSED, "cannot evaluate the expression"),
    (Response(problem("timeout"), 503), reasons.TIMED_OUT, "make it cheaper"),
    (Response(problem("canceled"), 503), reasons.TIMED_OUT, "make it cheaper"),
    (Response(problem("internal"), 500), reasons.REFUSED, "status 500"),
    (Response(problem("not_found"), 404), reasons.NOT_SERVED, "check its path"),
    (Response(b"nginx", 404), reasons.NOT_SERVED, "leads to no Prometheus API: check its path."),
    (Response(b"", 401), reasons.FORBIDDEN, "usernameFile and passwordFile, or bearerFile"),
    (Response(b"", 403), reasons.FORBIDDEN, "usernameFile and passwordFile, or bearerFile"),
    (Response(b"", 400), reasons.REFUSED, "status 400"),
    (Response(b"", 503), reasons.UNREACHABLE, "responds with status 503"),
    (Response(b"", 504), reasons.TIMED_OUT, "make it cheaper"),
    (Response(b"", 429), reasons.UNREACHABLE, "responds with status 429"),
    (Response(b"", 302, {"Location": "http://127.0.0.1:1/"}), reasons.UNREACHABLE, "address to where it leads"),
    (Response(b"<html>"), reasons.UNREACHABLE, "leads to something that is no Prometheus API"),
    (Response(b"[1]"), reasons.UNREACHABLE, "leads to something that is no Prometheus API"),
    (Response({"status": "success"}), reasons.REFUSED, "of a kind that hooks do not know"),
    (Response(problem("")), reasons.UNREACHABLE, "leads to something that is no Prometheus API"),
    (Response(vector(({}, ["now", "1"]))), reasons.REFUSED, "a value that hooks cannot read"),
    (Response(vector(({}, [1, 2]))), reasons.REFUSED, "a value that hooks cannot read"),
    (Response(vector(({}, None))), reasons.REFUSED, "a value that hooks cannot read"),
    (Response(vector(({}, [1e30, "1"]))), reasons.REFUSED, "a value that hooks cannot read"),
    (Response(vector(({}, [1, "many"]))), reasons.NOT_A_NUMBER, "NaN or an infinity"),
    (Response(b"x" * (9 << 20)), reasons.REFUSED, "more than 8 MiB"),
    (Response(delay=NEVER), reasons.TIMED_OUT, "did not respond in time"),
]


@pytest.mark.parametrize(("response", "reason", "words"), TROUBLE)
async def test_trouble_has_a_reason_and_a_sentence(response: Response, reason: str, words: str) -> None:
    """A reading that fails says what to change and does not repeat what the server says of its own troubles."""
    more: dict[str, Any] = {"timeoutSeconds": 0.5} if response.delay else {}
    async with HookServer(lambda _: response) as server, opened(server.url, **more) as source:
        stated, message = unread(await read(source))
    assert (stated, words in message) == (reason, True), message
    assert "canary" not in message


async def test_nothing_listens() -> None:
    """A reading from an address where nothing listens says that it cannot be connected to."""
    async with opened("127.0.0.1:1") as source:
        assert unread(await read(source)) == (
            reasons.UNREACHABLE,
            "The Prometheus server cannot be asked: it cannot be connected to.",
        )


async def test_a_histogram_is_no_number() -> None:
    """A native histogram is refused as no number, with a hint at histogram_quantile."""
    response = vector()
    response["data"]["result"] = [{"metric": {}, "histogram": [1, {"count": "1"}]}]
    async with HookServer(lambda _: Response(response)) as server, opened(server.url) as source:
        reason, message = unread(await read(source))
    assert (reason, "histogram_quantile" in message) == (reasons.REFUSED, True)


async def test_warnings_are_counted_and_logged_once() -> None:
    """A warning in a response is counted, logged once for each expression, and does not keep the value from use."""
    response = Response(ONE | {"warnings": ["w1"], "infos": ["i1"]})
    metrics = Metrics()
    with structlog.testing.capture_logs() as logs:
        async with HookServer(lambda _: response) as server, opened(server.url, metrics) as source:
            informed = MetricSpec.model_validate(object_metric("Service", "v1", "it", "x"))
            assert len((await read(source)).samples) == 1
            assert len((await source.read(informed, "team-a", None)).samples) == 1
            assert len((await read(source, "y")).samples) == 1
            assert len(server.requests) == 2  # x was asked once for both types
    assert [(entry["query"], entry["said"]) for entry in logs if entry["event"] == "prometheus_warning"] == [
        ("x", ["w1", "i1"]),
        ("y", ["w1", "i1"]),
    ]
    assert metrics.registry.get_sample_value("beamlit_hooks_source_warnings_total") == 2


async def test_memory_of_warnings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When more expressions had warnings than are remembered, the oldest is forgotten and logged again."""
    monkeypatch.setattr(prometheus_api, "WARNED", 1)
    with structlog.testing.capture_logs() as logs:
        async with HookServer(lambda _: Response(ONE | {"warnings": ["w"]})) as server:
            prometheus = MetricInformer.model_validate({"prometheus": {"address": server.url}}).prometheus
            asked = prometheus_api.PrometheusServer(prometheus, Metrics())
            for expression in ("x", "x", "y", "x"):
                await asked.query(expression)
            await asked.close()
    assert [entry["query"] for entry in logs] == ["x", "y", "x"]


async def test_short_expressions_are_in_the_url_and_long_ones_in_the_body() -> None:
    """A short expression is sent in the URL and a long one, which a proxy may refuse there, in the body, both with the
    timeout."""
    long = "+".join(["x"] * 1500)
    async with (
        HookServer(lambda _: Response(ONE)) as server,
        opened(f"{server.url}/pre/", timeoutSeconds=1.5) as source,
    ):
        await read(source, "sum(x) # ?&+")
        await read(source, long)
    first, second = server.requests
    assert (first.method, second.method) == ("GET", "POST")
    assert urlsplit(first.target).path == second.target == "/pre/api/v1/query"
    assert parse_qs(urlsplit(first.target).query) == {"query": ["sum(x) # ?&+"], "timeout": ["1.5s"]}
    assert parse_qs(second.body.decode()) == {"query": [long], "timeout": ["1.5s"]}


async def test_a_name_with_a_newline_or_worse_is_only_a_value() -> None:
    """An expression with a line break or an ampersand does not become a header field or another parameter."""
    async with HookServer(lambda _: Response(ONE)) as server, opened(server.url) as source:
        await read(source, "x\r\nInjected: 1&query=y\x00é")
    (request,) = server.requests
    assert "injected" not in request.headers
    assert parse_qs(urlsplit(request.target).query)["query"] == ["x\r\nInjected: 1&query=y\x00é"]


async def test_a_bearer_token_is_read_again(tmp_path: Path) -> None:
    """A changed bearer token is sent with the next request; while its file cannot be used the reading says so, and no
    message has any of its content."""
    token = tmp_path / "token"
    token.write_text("first\n")
    async with HookServer(lambda _: Response(ONE)) as server, opened(server.url, bearerFile=str(token)) as source:
        await read(source, "a")
        token.write_text("second and longer")
        await read(source, "b")
        token.write_text("")
        assert unread(await read(source, "c")) == (reasons.FORBIDDEN, "metricInformer.prometheus.bearerFile is empty.")
        token.write_text("secret\nInjected: 1")
        reason, message = unread(await read(source, "d"))
        assert (reason, "cannot be sent in a header field" in message) == (reasons.FORBIDDEN, True)
        token.unlink()
        token.mkdir()
        reason, message = unread(await read(source, "e"))
        assert (reason, message.startswith("metricInformer.prometheus.bearerFile cannot be read")) == (
            reasons.FORBIDDEN,
            True,
        )
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first",
        "Bearer second and longer",
    ]


async def test_basic_authentication(tmp_path: Path) -> None:
    """User name and password are read from their files and may contain any characters."""
    (tmp_path / "name").write_text("ünï")
    (tmp_path / "password").write_text("a:b\n")
    files: Json = {"usernameFile": str(tmp_path / "name"), "passwordFile": str(tmp_path / "password")}
    async with HookServer(lambda _: Response(ONE)) as server, opened(server.url, **files) as source:
        await read(source)
    (request,) = server.requests
    scheme, _, pair = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", "ünï:a:b")


@pytest.mark.parametrize("setting", ["usernameFile", "passwordFile", "bearerFile", "caFile"])
async def test_a_file_that_does_not_exist_ends_the_start(setting: str, tmp_path: Path) -> None:
    """A file that does not exist ends the start with an error that names its setting."""
    (tmp_path / "other").write_text("x")
    other = {"usernameFile": "passwordFile", "passwordFile": "usernameFile"}.get(setting)
    files: Json = {setting: str(tmp_path / "none")} | ({other: str(tmp_path / "other")} if other else {})
    with pytest.raises(
        SettingsError, match=rf"^metricInformer\.prometheus\.{setting} .*/none cannot be read: No such file"
    ):
        async with opened("127.0.0.1:1", **files):
            pass


async def test_a_ca_file_without_certificates_ends_the_start(tmp_path: Path) -> None:
    """A caFile that holds something else than certificates ends the start with an error."""
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"^metricInformer\.prometheus\.caFile .* holds no certificates in PEM\.$"):
        async with opened("127.0.0.1:1", caFile=str(tmp_path / "ca")):
            pass


@asynccontextmanager
async def over_tls(certificate: Path, key: Path) -> AsyncIterator[int]:
    """Run a server with this certificate that responds to one request on each connection, and yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(Response(ONE, headers={"Connection": "close"}).encoded())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@NEEDS_OPENSSL
async def test_certificates(tmp_path: Path) -> None:
    """A certificate is checked against the system's authorities, against caFile, which may change, or not at all."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (self_signed(tmp_path / name) for name in ("one", "two"))
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(first[0].read_bytes())
    async with over_tls(*second) as port:
        url = f"https://localhost:{port}"
        async with opened(url) as source:
            reason, message = unread(await read(source))
            assert (reason, "its certificate is not accepted, self-signed certificate" in message) == (
                reasons.UNREACHABLE,
                True,
            )
        async with opened(url, insecureSkipVerify=True) as source:
            assert len((await read(source)).samples) == 1
        async with opened(url, caFile=str(authorities)) as source:
            assert unread(await read(source, "a"))[0] == reasons.UNREACHABLE
        async with opened(url, caFile=str(authorities)) as source:
            authorities.write_bytes(second[0].read_bytes())
            assert len((await read(source, "b")).samples) == 1
            authorities.write_text("broken")
            assert len((await read(source, "c")).samples) == 1
            authorities.unlink()
            assert len((await read(source, "d")).samples) == 1
        async with opened(f"https://127.0.0.1:{port}", caFile=str(second[0])) as source:
            assert "IP address mismatch" in unread(await read(source))[1]


@pytest.mark.parametrize("strict", [False, True])
async def test_an_authority_without_key_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, strict: bool) -> None:
    """A private authority without key usage and key identifiers is accepted, unless `tls.strict` is set."""
    strict_by_default(monkeypatch)
    bare = Authority("bare", bare=True)
    authorities = tmp_path / "ca.pem"
    authorities.write_text(bare.pem)
    async with over_tls(*bare.issue("localhost").write(tmp_path, "server")) as port:
        url = f"https://localhost:{port}"
        async with opened(url, strict_tls=strict, caFile=str(authorities)) as source:
            reading = await read(source)
            assert (reading.unread is not None) is strict
            assert not strict or "its certificate is not accepted" in unread(reading)[1]


@pytest.mark.parametrize(
    ("greeting", "reason", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", reasons.UNREACHABLE, "it does not speak TLS as expected"),
        (b"", reasons.TIMED_OUT, "cannot be connected to in time"),
    ],
)
async def test_a_server_that_speaks_no_tls(greeting: bytes, reason: str, words: str) -> None:
    """A reading from a server that speaks no TLS says so, and no connection is left open."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        writer.write(greeting)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()
        open_ones.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    more: dict[str, Any] = {} if greeting else {"timeoutSeconds": 0.5}
    async with opened(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", **more) as source:
        stated, message = unread(await read(source))
        assert (stated, words in message) == (reason, True), message
        await until(lambda: not open_ones)
    server.close()


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is not used, because it would see the credentials."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with HookServer(lambda _: Response(ONE)) as server, opened(server.url) as source:
        assert len((await read(source)).samples) == 1


async def test_the_same_query_of_several_namespaces_is_sent_once() -> None:
    """Namespaces with the same expression share one query, unless a namespace label makes their queries differ."""
    async with HookServer(lambda _: Response(ONE, delay=0.1)) as server:
        async with opened(server.url) as source:
            await asyncio.gather(*(read(source, "x", f"n{number % 20}") for number in range(1000)))
        assert len(server.requests) == 1
        async with opened(server.url, namespaceLabel="ns") as source:
            await asyncio.gather(*(read(source, "x", f"n{number % 20}") for number in range(1000)))
        asked = [parse_qs(urlsplit(request.target).query)["query"][0] for request in server.requests[1:]]
    assert sorted(asked) == sorted(f'{{__name__="x",ns="n{number}"}}' for number in range(20))


async def test_one_namespace_does_not_take_the_metrics_of_another_away() -> None:
    """Expressions that time out put their own namespace on hold, and the same server is still read for the others."""

    def script(request: Request) -> Response:
        return Response(ONE, delay=NEVER if "slow" in request.target else 0)

    async with HookServer(script) as server, opened(server.url, timeoutSeconds=1.5) as source:
        for number in range(3):
            assert unread(await read(source, f"slow{number}", "a"))[0] == reasons.TIMED_OUT
        assert unread(await read(source, "quick", "a"))[0] == reasons.TIMED_OUT
        # The pause decides: no request is sent.
        assert not [request for request in server.requests if "quick" in request.target]
        assert len((await read(source, "quicker", "b")).samples) == 1
