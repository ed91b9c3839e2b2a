"""Trouble of the platform or of a call to it: the condition, what is tried again, and when."""

import asyncio
import base64
import contextlib
import copy
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import orjson
import pytest
import structlog
from prometheus_client import generate_latest

from hooks import reasons
from hooks.app import create_app
from hooks.platform.beamlit import client as beamlit
from hooks.platform.beamlit import http, registrar, tokens
from hooks.platform.beamlit.client import SLOT_SECONDS, Beamlit
from hooks.platform.beamlit.credentials import Account, Fixed, TokenFile
from hooks.platform.beamlit.errors import PlatformError, Rejected, Unasked, Unauthorized, Unreachable
from hooks.platform.beamlit.http import CONNECTIONS
from hooks.platform.beamlit.registrar import CALL_SECONDS
from hooks.platform.state import PlatformKey
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tests.authorities import Authority, strict_by_default, trusted_by_system
from tests.builders import NOW, Json, model_deployment, request_body, workload
from tests.deadlines import NEVER
from tests.integration.apiserver import UNSERVED, ApiServer, Scripted
from tests.platform import CLIENT_ID, SECRET, TOKEN, Platform, Trouble
from tests.registered import World, message, registered, running, world

LLAMA = PlatformKey("models", "llama", "production")
BODY: Json = {"metadata": {"name": "llama", "environment": "production"}, "spec": {"enabled": True}}


@pytest.fixture
def servers() -> Iterator[tuple[Platform, ApiServer]]:
    """Run a platform and an API server."""
    with running() as both:
        yield both


@pytest.fixture
async def cluster(servers: tuple[Platform, ApiServer], tmp_path: Path) -> AsyncIterator[World]:
    """Run hooks that know both servers, with a Deployment that has a ready replica."""
    async with world(*servers, tmp_path) as cluster:
        cluster.related = [workload()]
        yield cluster


@pytest.fixture
async def client(servers: tuple[Platform, ApiServer]) -> AsyncIterator[Beamlit]:
    """Make a client of the platform."""
    client = Beamlit(servers[0].url, Fixed(Account(CLIENT_ID, SECRET)), Metrics(), retry_seconds=(0.0, 0.01))
    yield client
    await client.close()


async def failing(cluster: World, **spec: Any) -> Json:
    """Return the response to the sync at which a model is to be registered."""
    item = cluster.apply(model_deployment(**spec))
    await cluster.sync(item)
    return await cluster.sync(item)


# Responses of the platform.

JUNK = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b'{"metadata": 1}',
    b'{"a": ' + b"[" * 500,
    b'{"metadata": {"name": "' + b"x" * http.RESPONSE_BYTES + b'"}}',
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:12]))
@pytest.mark.parametrize("on", ["GET", "POST"])
async def test_garbage(cluster: World, junk: bytes, on: str) -> None:
    """A response that is no object of the API counts as no response."""
    cluster.platform.troubles(*[Trouble(200, junk)] * 9, on=on)
    response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNREACHABLE)
    assert response["status"]["platform"]["attempts"] == 1
    assert 4 <= response["resyncAfterSeconds"] <= 6


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (300, reasons.UNREACHABLE),
        (301, reasons.UNREACHABLE),
        (304, reasons.UNREACHABLE),
        (400, reasons.REJECTED),
        (402, reasons.REJECTED),
        (403, reasons.UNAUTHORIZED),
        (405, reasons.REJECTED),
        (409, reasons.CONFLICT),
        (413, reasons.REJECTED),
        (418, reasons.REJECTED),
        (422, reasons.REJECTED),
        (429, reasons.UNREACHABLE),
        (500, reasons.UNREACHABLE),
        (503, reasons.UNREACHABLE),
        (504, reasons.UNREACHABLE),
        (599, reasons.UNREACHABLE),
    ],
)
@pytest.mark.parametrize("on", ["GET", "POST"])
async def test_c20_no_status_is_unexpected(cluster: World, status: int, reason: str, on: str) -> None:
    """Every status becomes a condition; the original crashed on one that it did not expect."""
    cluster.platform.troubles(*[Trouble(status, headers={"location": "/v0/models"})] * 2, on=on)
    response = await failing(cluster)
    assert registered(response) == ("False", reason)
    assert message(response).endswith(".")


async def test_c20_no_labels_are_no_crash(cluster: World) -> None:
    """A model without labels, ports and pods is registered; the original wrote into a map that was not there."""
    cluster.related = []
    item = cluster.apply(model_deployment(offloadingConfig=None))
    item["metadata"]["labels"] = None
    await cluster.settle(item)
    cluster.pass_time(15)
    assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
    found = cluster.platform.model()
    assert found is not None
    assert "podTemplate" not in found["spec"]


@pytest.mark.parametrize("trouble", [Trouble(500), Trouble(422), Trouble(cut=True), Trouble(200, b"{")])
async def test_c21_a_failure_is_no_success(cluster: World, trouble: Trouble) -> None:
    """C21: the original recorded a failure as a success, and a success not at all.

    Here a failure is attempted again with growing delays, and a success is recorded in status.
    """
    cluster.platform.always(trouble)
    item = cluster.apply(model_deployment())
    await cluster.sync(item)
    pauses = []
    for attempt in range(1, 10):
        cluster.close_circuit()
        response = await cluster.sync(item)
        assert item["status"]["platform"]["attempts"] == attempt
        assert "hash" not in item["status"]["platform"]
        pauses.append(response["resyncAfterSeconds"])
        cluster.pass_time(pauses[-1] / 2)
        calls = len(cluster.platform.calls)
        await cluster.sync(item)
        assert len(cluster.platform.calls) == calls
        cluster.pass_time(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[0] < 7
    assert 400 < pauses[-1] <= 720
    cluster.platform.troubles()
    cluster.close_circuit()
    assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
    assert item["status"]["platform"].keys() == {"name", "environment", "hash"}


async def test_something_else_is_tried_at_once(cluster: World) -> None:
    """A corrected specification is registered at once, without the delay of the rejected one."""
    cluster.platform.troubles(Trouble(422, {"message": "no"}), on="POST")
    item = cluster.apply(model_deployment())
    await cluster.sync(item)
    assert registered(await cluster.sync(item)) == ("False", reasons.REJECTED)
    cluster.edit(item, serverlessConfig={"maxNumReplicas": 2})
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)


@pytest.mark.parametrize(
    "body", [{"message": "the name\n is\x1b[31m\ttoo long"}, {"error": "the name is [31m too long"}]
)
async def test_the_words_of_the_platform(cluster: World, body: Json) -> None:
    """The condition repeats in one line what the platform has against a model."""
    cluster.platform.troubles(Trouble(422, body), on="POST")
    assert message(await failing(cluster)) == "The platform refuses: the name is [31m too long."


@pytest.mark.parametrize("body", [b"", b"[1]", {"message": 1}, {"message": "x" * 10_000}])
async def test_the_words_of_the_platform_are_bounded(cluster: World, body: bytes | Json) -> None:
    """The message is short when the platform says nothing, no text, or too much."""
    cluster.platform.troubles(Trouble(422, body), on="POST")
    assert len(message(await failing(cluster))) < 300


async def test_a_status_at_rest(cluster: World) -> None:
    """While the platform is away only the count of attempts changes in status, and the platform's facts stay."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.stop()
    cluster.edit(item, serverlessConfig={"maxNumReplicas": 2})
    seen = []
    for _ in range(3):
        response = await cluster.sync(item)
        cluster.pass_time(response["resyncAfterSeconds"])
        status = copy.deepcopy(item["status"])
        assert status.pop("platform")["hash"]
        seen.append(status)
        assert registered(response) == ("False", reasons.UNREACHABLE)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["workspace"] == "acme"
    assert seen[0]["createdAtOnBeamlit"]
    cluster.platform.start()


# Repetitions.


@pytest.mark.parametrize("trouble", [Trouble(502), Trouble(503), Trouble(504), Trouble(cut=True)])
async def test_what_can_be_repeated_is(client: Beamlit, servers: Any, trouble: Trouble) -> None:
    """A GET, PUT or DELETE is repeated once after a passing failure."""
    platform = servers[0]
    platform.troubles(trouble)
    assert await client.find(LLAMA) is None
    await client.create(LLAMA, BODY)
    platform.troubles(trouble)
    await client.replace(LLAMA, BODY)
    platform.troubles(trouble)
    await client.delete(LLAMA)
    platform.troubles(trouble, trouble)
    with pytest.raises(Unreachable):
        await client.find(LLAMA)


@pytest.mark.parametrize("trouble", [Trouble(502), Trouble(503), Trouble(500), Trouble(cut=True)])
async def test_a_creation_is_not_repeated(client: Beamlit, servers: Any, trouble: Trouble) -> None:
    """A POST is not repeated after a failure, because the platform may have carried it out."""
    platform = servers[0]
    platform.troubles(trouble)
    with pytest.raises(Unreachable) as caught:
        await client.create(LLAMA, BODY)
    assert caught.value.sent
    assert platform.store == {}


async def test_a_platform_that_is_not_there(client: Beamlit, servers: Any) -> None:
    """A request that could not be sent counts as not carried out."""
    servers[0].stop()
    with pytest.raises(Unreachable) as caught:
        await client.create(LLAMA, BODY)
    assert not caught.value.sent
    servers[0].start()


async def test_a_response_that_was_lost(cluster: World) -> None:
    """A model whose creation got no response is known by its label: it is updated, not created twice, and deleted."""
    cluster.platform.troubles(Trouble(lost=True), on="POST")
    response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNREACHABLE)
    item = cluster.api.objects[cluster.path(model_deployment())]
    assert item["status"]["platform"]["name"] == "llama"
    gone = copy.deepcopy(item)
    cluster.pass_time(10)
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.writes() == [("POST", "/v0/models"), ("PUT", "/v0/models/llama")]
    cluster.apply(gone)
    await cluster.sync(cluster.delete(gone))
    assert (await cluster.sync(gone))["finalized"]
    assert cluster.platform.store == {}


async def test_a_removal_whose_response_was_lost(cluster: World) -> None:
    """A model whose removal got no response is created again when it is desired again."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.troubles(Trouble(lost=True), Trouble(cut=True), on="DELETE")
    cluster.edit(item, enabled=False)
    assert registered(await cluster.settle(item)) == ("False", reasons.UNREACHABLE)
    assert cluster.platform.store == {}
    cluster.edit(item, enabled=True)
    assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.model() is not None


# Time.


@pytest.mark.parametrize("on", ["", "POST"])
async def test_a_hanging_platform_costs_less_than_a_second(
    cluster: World, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three syncs wait briefly for a platform that does not respond; later ones send nothing until a probe succeeds."""
    assert CALL_SECONDS < 0.95
    monkeypatch.setattr(registrar, "CALL_SECONDS", 2.0)  # more than a busy machine takes for what comes before
    platform = cluster.platform
    await asyncio.sleep(0)
    platform.troubles(*[Trouble(delay=NEVER)] * 9, on=on)
    item = cluster.apply(model_deployment())
    await cluster.sync(item)
    for turn in range(3):
        response = await cluster.sync(item)
        assert platform.at_once == turn + 1  # It has not responded to these yet.
        assert registered(response) == ("False", reasons.UNREACHABLE)
        assert message(response) == "The platform does not respond in time."
        if on:
            cluster.close_circuit()  # as if it responded in between
        cluster.pass_time(response["resyncAfterSeconds"])
    if not on:
        calls = len(platform.calls)
        response = await cluster.sync(item)
        assert platform.at_once == 3
        assert message(response) == "The platform does not respond in time."
        assert len(platform.calls) == calls
        assert item["status"]["platform"]["attempts"] == 3
        assert cluster.sample("circuit", state="open") == 1
        assert cluster.sample("requests_total", operation="get", result="unasked") == 1
        cluster.pass_time(60)
    platform.troubles()
    cluster.close_circuit()
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.sample("circuit", state="closed") == 1
    assert cluster.sample("circuit", state="open") == 0


async def test_one_probe(client: Beamlit, servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the pause one call is made as a probe, and the others follow when it got a response."""
    platform = servers[0]
    platform.stop()
    for _ in range(3):
        with pytest.raises(Unreachable):
            await client.find(LLAMA)
    with pytest.raises(Unasked) as caught:
        await client.find(LLAMA)
    assert 4 < (caught.value.retry_after or 0) <= 5
    platform.start()
    client._circuit._until = 0.0
    platform.always(Trouble(delay=1))
    results = await asyncio.gather(*(client.find(LLAMA) for _ in range(5)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["NoneType"] + ["Unasked"] * 4
    assert await asyncio.gather(*(client.find(LLAMA) for _ in range(5))) == [None] * 5


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(client: Beamlit, servers: Any, status: int) -> None:
    """No call is made for as long as the platform asks for in Retry-After."""
    platform = servers[0]
    await client.find(LLAMA)
    platform.troubles(Trouble(status, headers={"retry-after": "1"}))
    with pytest.raises(Unreachable) as caught:
        await client.find(LLAMA)
    assert caught.value.retry_after == 1
    calls = len(platform.calls)
    with pytest.raises(Unasked) as unasked:
        await client.find(PlatformKey("policies", "eu"))
    assert 0.5 < (unasked.value.retry_after or 0) <= 1
    assert len(platform.calls) == calls
    client._circuit._asked_to_wait_until = time.monotonic()
    assert await client.find(PlatformKey("policies", "eu")) is None


@pytest.mark.parametrize(
    ("written", "least", "most"),
    [
        ("30", 30, 30),
        ("0", 1, 1),
        ("999999999999", 3600, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1, 1),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600, 3600),
        ("Wed, 21 Oct 2099 07:28:00 -0000", 3600, 3600),
        ("soon", 5, 5),
        ("", 5, 5),
        ({"retry-after-ms": "7500"}, 7.5, 7.5),
        ({"retry-after-ms": "20", "retry-after": "9"}, 1, 1),
        ({"retry-after-ms": "9000000"}, 3600, 3600),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9, 9),
        ({"retry-after-ms": "soon"}, 5, 5),
    ],
)
async def test_retry_after_in_all_its_forms(
    client: Beamlit, servers: Any, written: str | dict[str, str], least: float, most: float
) -> None:
    """Retry-After is seconds or a date, and retry-after-ms is finer and wins, both within bounds; values that cannot be
    read are a few seconds."""
    headers = {"retry-after": written} if isinstance(written, str) else written
    servers[0].always(Trouble(429, headers=headers))
    client._tokens._account, client._tokens._cache.value = Account(CLIENT_ID, SECRET), b"Bearer t"
    client._tokens._cache.renew_at = client._tokens._cache.ends_at = 1e18
    with pytest.raises(Unreachable) as caught:
        await client.find(LLAMA)
    assert least <= (caught.value.retry_after or 0) <= most


async def test_retry_after_reaches_the_response(cluster: World) -> None:
    """The pause that the platform asks for is the time until the next sync."""
    cluster.platform.troubles(Trouble(429, headers={"retry-after": "77"}))
    assert (await failing(cluster))["resyncAfterSeconds"] == 77


async def test_few_calls_at_the_same_time(cluster: World) -> None:
    """The number of calls at the same time is bounded, however many objects are new."""
    items = []
    for number in range(30):
        item = model_deployment(model=f"m-{number}")
        item["metadata"] |= {"name": f"m-{number}", "uid": f"uid-{number}"}
        items.append(cluster.apply(item))
        await cluster.sync(item)
    cluster.platform.script = lambda _method, path: None if path.endswith("token") else Trouble(delay=0.02)
    responses = await asyncio.gather(*(cluster.sync(item) for item in items))
    assert 1 < cluster.platform.most_at_once <= CONNECTIONS + 1
    assert len(cluster.platform.bought) == 1
    assert {registered(one)[1] for one in responses} <= {reasons.UP_TO_DATE, reasons.NOT_EVALUATED}
    for item in items:
        assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)


def test_waiting_for_others_leaves_time_for_the_platform() -> None:
    """Two calls that wait for a slot take less than half of the time that a task has."""
    assert 2 * SLOT_SECONDS <= CALL_SECONDS / 2


async def test_what_waits_for_others_is_no_failure(cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that finds no free slot is tried again soon, and the condition says nothing about the platform."""
    monkeypatch.setattr(beamlit, "SLOT_SECONDS", 0.05)
    for _ in range(CONNECTIONS):
        await cluster.beamlit._slots.acquire()
    response = await failing(cluster)
    assert registered(response) == ("Unknown", reasons.NOT_EVALUATED)
    assert response["resyncAfterSeconds"] == 1
    assert "platform" not in response["status"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cluster.beamlit.find(LLAMA)
    assert cluster.sample("circuit", state="closed") == 1


# Tokens.


async def test_a_token_is_bought_once_and_renewed_early(client: Beamlit, servers: Any) -> None:
    """A token is fetched once for all calls that wait for it, and renewed beside the calls late in its life."""
    platform = servers[0]
    await asyncio.gather(*(client.find(LLAMA) for _ in range(8)))
    assert len(platform.bought) == 1
    client._tokens._cache.renew_at = 0.0
    await client.find(LLAMA)
    await client.find(LLAMA)
    await asyncio.gather(*client._tokens._cache._tasks)
    assert len(platform.bought) == 2
    client._tokens._cache.ends_at = 0.0
    await client.find(LLAMA)
    assert len(platform.bought) == 3


async def test_a_renewal_that_fails_changes_nothing(client: Beamlit, servers: Any) -> None:
    """After a renewal that failed, calls go on with the old token, and the next renewal waits."""
    platform = servers[0]
    await client.find(LLAMA)
    platform.secret = "changed"
    client._tokens._cache.renew_at = 0.0
    for _ in range(3):
        await client.find(LLAMA)
        await asyncio.gather(*client._tokens._cache._tasks)
    assert len(platform.bought) == 1
    client._tokens._cache.ends_at = 0.0
    with pytest.raises(Unauthorized):
        await client.find(LLAMA)


async def test_401_once(client: Beamlit, servers: Any) -> None:
    """A token that the platform refuses is replaced at once."""
    platform = servers[0]
    await client.find(LLAMA)
    platform.refused_tokens |= set(platform.bought)
    assert await client.find(LLAMA) is None
    assert len(platform.bought) == 2


async def test_401_always(cluster: World) -> None:
    """A platform that refuses every token gets one new one for each call; then the condition says so."""
    cluster.platform.script = lambda _method, path: None if path.endswith("/oauth/token") else Trouble(401)
    response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNAUTHORIZED)
    assert len(cluster.platform.bought) == 2
    assert cluster.sample("circuit", state="closed") == 1


async def test_credentials_that_are_refused(cluster: World) -> None:
    """With refused credentials the token endpoint alone is asked, and not for every object."""
    cluster.platform.secret = "changed"
    response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNAUTHORIZED)
    assert message(response) == "The platform gives no token for the credentials of hooks: see that they are valid."
    assert cluster.platform.calls == []
    asked = cluster.sample("requests_total", operation="token", result="unauthorized")
    await cluster.sync(cluster.api.objects[cluster.path(model_deployment())])
    assert cluster.sample("requests_total", operation="token", result="unauthorized") == asked == 1


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize("secret", ["a+b", "100%", "a:b c", "%2B"])
async def test_a_secret_of_any_characters(servers: tuple[Platform, ApiServer], secret: str, decodes: bool) -> None:
    """A secret works whether or not the platform decodes it, and the form that worked is the first of the next request.

    None of its forms is repeated from what the platform says.
    """
    platform = servers[0]
    platform.secret, platform.decodes = secret, decodes
    client = Beamlit(platform.url, Fixed(Account(CLIENT_ID, secret)), Metrics())
    try:
        await client.find(LLAMA)
        assert len(platform.clients) == (1 if decodes else 2)
        platform.refused_tokens |= set(platform.bought)
        await client.find(LLAMA)
        assert len(platform.clients) == (2 if decodes else 3)
        words = " ".join((secret, quote_plus(secret), *platform.clients))
        platform.troubles(Trouble(422, {"message": words}))
        with pytest.raises(Rejected) as caught:
            await client.find(LLAMA)
        assert set(str(caught.value).removeprefix("The platform refuses: ").removesuffix(".").split()) == {"***"}
    finally:
        await client.close()


@pytest.mark.parametrize(("trusted", "strict"), [(True, False), (False, False), (True, True)])
async def test_the_certificate_of_the_platform(
    trusted: bool, strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is verified by the authorities of the system, and by no bundle that a library brings.

    An authority without key usage and key identifiers is accepted, unless verification is strict.
    """
    strict_by_default(monkeypatch)
    authority = Authority("private", bare=True)
    (tmp_path / "system.pem").write_text((authority if trusted else Authority("another")).pem)
    trusted_by_system(monkeypatch, tmp_path / "system.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1").write(tmp_path, "platform"))
    platform = Platform(context)
    platform.start()
    account, pauses = Fixed(Account(CLIENT_ID, SECRET)), (0.0, 0.01)
    client = Beamlit(platform.url, account, Metrics(), strict_tls=strict, retry_seconds=pauses)
    try:
        if trusted and not strict:
            assert await client.find(LLAMA) is None
        else:
            with pytest.raises(Unreachable, match="its certificate is not accepted"):
                await client.find(LLAMA)
            assert platform.clients == []
    finally:
        await client.close()
        platform.stop()


async def test_the_log_says_why_there_is_no_token(client: Beamlit, servers: Any) -> None:
    """The log line has the endpoint, the status and the error code, and nothing of the account."""
    servers[0].secret = "changed"
    with structlog.testing.capture_logs() as lines, pytest.raises(Unauthorized):
        await client.find(LLAMA)
    assert lines == [
        {
            "event": "token_unavailable",
            "log_level": "warning",
            "kind": "platform",
            "reason": "token_status_401",
            "detail": "",
            "endpoint": f"{servers[0].url}/oauth/token",
            "status": 401,
            "error": "invalid_client",
        }
    ]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"[]",
        b'{"access_token": 1}',
        b'{"access_token": "a b"}',
        b'{"access_token": "\\n"}',
        b'{"access_token": ""}',
    ],
)
async def test_a_token_that_cannot_be_sent(client: Beamlit, servers: Any, junk: bytes) -> None:
    """A token that cannot be sent in a header field counts as no token."""
    servers[0].always(Trouble(200, junk))
    with pytest.raises(Unreachable) as caught:
        await client.find(LLAMA)
    assert str(caught.value) == "The platform responds with something that is no token."


@pytest.mark.parametrize("life", [None, "3600", "x", 0, -1, True, [], "1e400"])
async def test_the_life_of_a_token(client: Beamlit, servers: Any, life: Any) -> None:
    """A lifetime of a token that cannot be read counts as a short one."""
    platform = servers[0]
    platform.life = life
    await client.find(LLAMA)
    await client.find(LLAMA)
    assert len(platform.bought) == 1


async def test_a_token_endpoint_that_is_down(client: Beamlit, servers: Any) -> None:
    """The pause that the token endpoint asks for in Retry-After is in the error."""
    servers[0].always(Trouble(503, headers={"retry-after": "9"}))
    with pytest.raises(Unreachable) as caught:
        await client.find(LLAMA)
    assert caught.value.retry_after == 9


async def test_a_token_that_does_not_come(client: Beamlit, servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token request that gets no response is given up at its deadline."""
    monkeypatch.setattr(tokens, "TOKEN_SECONDS", 0.1)
    servers[0].always(Trouble(delay=NEVER))
    with pytest.raises(Unreachable) as caught:
        await client.find(LLAMA)
    assert str(caught.value) == "The platform gives no token in time."


async def test_a_token_request_outlives_its_caller(client: Beamlit, servers: Any) -> None:
    """A token request goes on when its caller is gone, and the next call uses the token."""
    platform = servers[0]
    platform.script = lambda _method, path: Trouble(delay=1) if path.endswith("/oauth/token") else None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.find(LLAMA)
    assert await client.find(LLAMA) is None
    assert len(platform.bought) == 1


async def test_a_secret_is_renewed_without_a_restart(servers: tuple[Platform, ApiServer], tmp_path: Path) -> None:
    """A file that is replaced, as a kubelet does it, counts at once; one that holds no token leaves the last one."""

    def write(secret: str) -> None:
        (tmp_path / "new").write_text(base64.b64encode(f"{CLIENT_ID}:{secret}".encode()).decode() + "\n")
        (tmp_path / "new").rename(tmp_path / "token")

    write("before")
    servers[0].secret = "before"
    async with world(*servers, tmp_path, accounts=TokenFile(tmp_path / "token")) as cluster:
        cluster.related = [workload()]
        item = cluster.apply(model_deployment())
        assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
        cluster.platform.secret = "after"
        cluster.platform.refused_tokens |= set(cluster.platform.bought)
        write("after")
        cluster.edit(item, serverlessConfig={})
        assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
        (tmp_path / "token").write_text("no token")
        with structlog.testing.capture_logs() as lines:
            cluster.edit(item, serverlessConfig={"maxNumReplicas": 5})
            assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
        assert [one["event"] for one in lines if one["log_level"] == "warning"] == ["platform_token_unusable"]


# The API server.


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Scripted(b"{}", 403), "Hooks may not read modeldeployments"),
        (Scripted(b"{", 200), "something that is no JSON object"),
        (Scripted(b"{}", 500), "responds with status 500"),
        (Scripted({}, delay=NEVER), "The API server does not respond in time."),
        (UNSERVED, "install the CustomResourceDefinitions"),
    ],
)
async def test_without_the_object_nothing_is_written(
    cluster: World, script: Scripted, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is registered for an object that cannot be read from the API server."""
    if script.delay:
        monkeypatch.setattr(registrar, "CALL_SECONDS", 0.8)
    cluster.api.scripted[cluster.path(model_deployment())] = script
    response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNREACHABLE)
    assert words in message(response)
    assert cluster.platform.calls == []


# Without the platform.


async def test_c19_without_a_token_there_is_no_call(servers: tuple[Platform, ApiServer], tmp_path: Path) -> None:
    """Without a token there is no call and nothing is missing; the original called its platform for local use too."""
    app = create_app(Settings.model_validate({"namespaces": ""}), Metrics(), clock=lambda: NOW)
    transport = httpx.ASGITransport(app)
    status = {"workspace": "acme", "platform": {"name": "llama", "environment": "production", "hash": "0"}}
    body = orjson.dumps(request_body(model_deployment(status=status), related=[workload()]))
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks") as hooks:
        response = (await hooks.post("/modeldeployments/sync", content=body)).json()
        assert registered(response) == ("False", reasons.DISABLED)
        assert response["children"]
        assert response["status"].items() >= status.items()
        conditions = {one["type"]: one["status"] for one in response["status"]["conditions"]}
        assert conditions["Accepted"] == "True"
        last = (await hooks.post("/modeldeployments/finalize", content=body)).json()
        assert (last["finalized"], last["children"]) == (True, [])
    assert servers[0].calls == []
    assert servers[1].tokens == []


async def test_a_bug_costs_no_local_decision(cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is logged and becomes a condition, and the response has its children."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(registrar, "claim", broken)
    cluster.platform.put("models", BODY)
    with structlog.testing.capture_logs() as lines:
        response = await failing(cluster)
    assert registered(response) == ("False", reasons.UNREACHABLE)
    assert message(response) == "Hooks failed with an error of their own: their log has the details."
    assert response["children"]
    assert "platform_failed" in [one["event"] for one in lines]


# Secrets.


@pytest.mark.parametrize("status", [0, 401, 403, 409, 422, 429, 500])
async def test_c23_the_secret_is_nowhere(cluster: World, status: int) -> None:
    """Neither secret nor token is in a response, a log line or a metric, even when the platform repeats them."""
    with structlog.testing.capture_logs() as lines:
        await failing(cluster, model="before")
        tokens = list(cluster.platform.bought)
        echo = {"message": f"{SECRET} {TOKEN} {tokens[-1]} are not allowed"}
        if status:
            cluster.platform.troubles(*[Trouble(status, echo)] * 9)
        item = cluster.apply(model_deployment())
        cluster.children.clear()
        for _ in range(3):
            await cluster.sync(item)
            cluster.pass_time(100)
    text = "".join(response.text for response in cluster.responses) + repr(lines) + repr(cluster.metrics)
    text += (
        generate_latest(cluster.metrics.registry).decode()
        + repr(vars(cluster.beamlit))
        + repr(vars(cluster.beamlit._tokens))
    )
    assert lines
    for canary in (SECRET, TOKEN, *cluster.platform.bought):
        assert canary not in text
    if status == 422:
        assert "*** *** *** are not allowed" in text


async def test_c23_errors_do_not_repeat_what_they_are_about(client: Beamlit, servers: Any) -> None:
    """No error has the secret in its text or in its chain."""
    platform = servers[0]
    await client.find(LLAMA)
    for trouble in (Trouble(cut=True), Trouble(401), Trouble(422, {"error": platform.bought[0]}), Trouble(500)):
        platform.always(trouble)
        with pytest.raises(PlatformError) as caught:
            await client.create(LLAMA, BODY)
        chain: BaseException | None = caught.value
        assert SECRET not in f"{chain!r}{chain}"
        assert "canary" not in str(chain)
        with contextlib.suppress(PlatformError):
            client._circuit.responded()


async def test_a_name_that_is_a_path(client: Beamlit, servers: Any) -> None:
    """A name is sent as one segment of the path, or refused."""
    for name in ("..", "."):
        with pytest.raises(Rejected):
            await client.find(PlatformKey("models", name, "production"))
    for name in ("a/b", "a?b", "a%2fb", "ü", "a#b"):
        key = PlatformKey("models", name, "production")
        await client.create(key, {"metadata": {"name": name, "environment": "production"}, "spec": {}})
        assert await client.find(key) is not None
    assert {key[1] for key in servers[0].store} == {"a/b", "a?b", "a%2fb", "ü", "a#b"}


async def test_what_the_platform_lost(client: Beamlit, servers: Any) -> None:
    """A PUT of an object that is gone fails, so that a later sync creates it."""
    with pytest.raises(Unreachable):
        await client.replace(LLAMA, BODY)
