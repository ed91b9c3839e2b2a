"""What hooks ask gateways about their drills, and what becomes of every response."""

import asyncio
import gzip
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from hooks import reasons
from hooks.app import create_app
from hooks.clients import gateways as client
from hooks.clients.gateways import Gateways
from hooks.gatherer import gather
from hooks.observation.drills import Reading, Route
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tests.builders import DEFAULTS, NAMESPACE, Json, model_deployment, request_body, sync_request, workload
from tests.deadlines import NEVER, SECONDS
from tests.integration.hooks.gateways import AdminPort, asking, entry
from tools.ports import free_port

ROUTE: Route = (NAMESPACE, "demo")


class Clock:
    """Clock that moves when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.seconds


async def unread(gateways: Gateways) -> tuple[str, str]:
    """Return reason and message of why there is no report."""
    (reading,) = await gateways.readings(ROUTE)
    assert reading.unread is not None
    return reading.unread.reason, reading.unread.message


async def test_one_request_of_each_gateway_in_an_interval() -> None:
    """All syncs of an interval share one request to each gateway, and the last two rounds are remembered."""
    ports = [AdminPort(f"127.0.0.{number}", entry(), entry(name="other")) for number in (1, 2, 3)]
    clock, before = Clock(), datetime.now(UTC)
    async with asking(*ports, interval=client.INTERVAL_SECONDS, monotonic=clock) as opened:
        routes = [(NAMESPACE, name) for name in ("demo", "other", "none")] * 20
        first = await asyncio.gather(*(opened.readings(route) for route in routes))
        assert [len(port.asked) for port in ports] == [1, 1, 1]
        assert [len(one.drills) for (one,) in first[:3]] == [3, 3, 0]
        clock.seconds += client.INTERVAL_SECONDS
        ports[0].found = (entry("TokenRefused", "It says invalid_client.", failures=1),)
        newest, older = await opened.readings(ROUTE)
        assert before <= older.taken <= newest.taken
        assert sorted(one.reason for one in newest.drills) == ["Proven", "Proven", "TokenRefused"]
        assert {one.reason for one in older.drills} == {"Proven"}
        await opened.readings(ROUTE)
        clock.seconds += client.INTERVAL_SECONDS
        assert len(await opened.readings(ROUTE)) == 2
    assert [len(port.asked) for port in ports] == [3, 3, 3]


async def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has no credentials and wants no coding, whatever proxy the environment names."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    port = AdminPort("127.0.0.1", entry())
    async with asking(port) as opened:
        await opened.readings(ROUTE)
    (head,) = port.asked
    assert head.startswith("GET /drills HTTP/1.1\r\n")
    assert "accept-encoding: identity" in head.lower()
    assert not [line for line in head.lower().splitlines() if line.startswith(("authorization", "cookie"))]


def response(status: str, body: bytes = b"", *fields: str) -> bytes:
    """Return a response of a server."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields, "", "")).encode() + body


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (response("404 Not Found"), "responds with status 404 when it is asked what its drills found."),
        (response("302 Found", b"", "location: http://169.254.169.254/"), "responds with status 302"),
        (response("200 OK", b"ok"), "responds with something that is not JSON."),
        (response("200 OK", b"[" * 200_000), "responds with something that is not JSON."),
        (response("200 OK", b'{"drills": 1}'), "responds with JSON that has no drills in it."),
        (response("200 OK", gzip.compress(b"{}"), "content-encoding: gzip"), "encoding that was not asked for"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n" + b" " * ((8 << 20) + 70_000), "more than 8 MiB"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "cannot be asked: it does not respond in HTTP"),
    ],
    ids=["status", "redirect", "text", "deep", "other JSON", "compressed", "large", "other protocol"],
)
async def test_what_is_no_report(sent: bytes, words: str) -> None:
    """A gateway without a report is not asked elsewhere, and the reason says what it responds; the report of another
    gateway counts."""
    port, other = AdminPort("127.0.0.1"), AdminPort("127.0.0.2", entry())
    port.response = sent
    async with asking(port) as opened:
        reason, message = await unread(opened)
    assert reason == reasons.UNREACHABLE
    assert message.startswith("A gateway ")
    assert words in message
    async with asking(port, other) as opened:
        (reading,) = await opened.readings(ROUTE)
    assert [drill.reason for drill in reading.drills] == [reasons.PROVEN]


async def test_gateways_that_cannot_be_reached() -> None:
    """A closed port, a name without an address and a gateway that is silent are reasons why nothing is known; a silent
    gateway keeps no other one from being heard."""
    closed = Gateways(f"localhost:{free_port()}", Metrics(), seconds=SECONDS)
    assert "cannot be connected to" in (await unread(closed))[1]
    await closed.close()
    async with asking() as opened:
        assert "proxyService.adminAddress" in (await unread(opened))[1]
    silent, other = AdminPort("127.0.0.1"), AdminPort("127.0.0.2", entry())
    silent.response = b""
    async with asking(silent, seconds=0.2) as opened:
        assert "hooks may reach its port for administrators" in (await unread(opened))[1]
    async with asking(silent, other, seconds=2) as opened:
        (reading,) = await opened.readings(ROUTE)
    assert [drill.reason for drill in reading.drills] == [reasons.PROVEN]


async def test_the_number_of_gateways_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many gateways the first by address are asked."""
    monkeypatch.setattr(client, "GATEWAYS", 2)
    ports = [AdminPort(f"127.0.0.{number}", entry()) for number in (3, 1, 2)]
    async with asking(*ports) as opened:
        await opened.readings(ROUTE)
    assert [len(port.asked) for port in ports] == [0, 1, 1]


async def test_a_round_outlives_who_waits_for_it() -> None:
    """A caller that gives up does not end the round for the others."""
    port = AdminPort("127.0.0.1", entry())
    async with asking(port, interval=client.INTERVAL_SECONDS) as opened:
        gives_up = asyncio.create_task(opened.readings(ROUTE))
        other = asyncio.create_task(opened.readings(ROUTE))
        await asyncio.sleep(0)
        gives_up.cancel()
        assert len((await other)[0].drills) == 1
    assert len(port.asked) == 1


class Hanging:
    """Source that never responds."""

    async def readings(self, route: Route) -> tuple[Reading, ...]:
        """Wait."""
        await asyncio.sleep(NEVER)
        return ()


async def test_a_sync_does_not_wait_beyond_its_deadline() -> None:
    """A source that does not respond in time gives a sync no reading, and one that is not needed is not asked."""
    request = sync_request(model_deployment(), related=[workload()])
    observation = await gather(request, DEFAULTS, None, drill_source=Hanging(), seconds=0.05)
    assert observation.drills == ()
    for spec in ({"offloadingConfig": None}, {"enabled": False}, {"model": None}):
        request = sync_request(model_deployment(**spec), related=[workload()])
        assert (await gather(request, DEFAULTS, None, drill_source=Hanging())).drills is None


async def test_from_a_gateway_to_the_status() -> None:
    """A failure that a gateway reports is in the response to the second sync that sees it, with the gateway's words."""
    port = AdminPort("127.0.0.1", entry("CertificateRefused", "The certificate expired: renew it.", failures=3))
    parent: Json = model_deployment()
    now = datetime.now(UTC)
    async with asking(port) as opened:
        app = create_app(Settings(namespaces=()), Metrics(), drill_source=opened, clock=lambda: now)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hooks") as hooks:
            statuses = []
            for _ in range(3):
                body = json.dumps(request_body(parent, related=[workload(ready=0)]))
                headers = {"content-type": "application/json"}
                content = (await hooks.post("/modeldeployments/sync", content=body, headers=headers)).json()
                parent = parent | {"status": content["status"]}
                conditions = {one["type"]: one for one in content["status"]["conditions"]}
                statuses.append(conditions["OffloadReady"])
                now += timedelta(seconds=10)
    assert (statuses[0]["status"], statuses[0]["reason"]) == ("Unknown", "NotTried")
    assert (statuses[2]["status"], statuses[2]["reason"]) == ("False", "CertificateRefused")
    assert statuses[2]["message"] == "The certificate expired: renew it."
