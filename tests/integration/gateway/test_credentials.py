"""Tokens from real token endpoints on loopback, and field values from Secrets."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from gateway import errors
from gateway.api.v1alpha1 import Backend, Headers, OAuth2, SecretKey
from gateway.api.v1alpha1 import Credentials as DocumentCredentials
from gateway.credentials import secrets as module
from gateway.credentials.cache import Credentials
from gateway.upstream.resolver import Resolver
from program.addresses import AddressRules
from program.oauth.credentials import ClientCredentials
from tests.authorities import Authority, strict_by_default, trusted_by_system
from tests.deadlines import SECONDS
from tests.integration.servers import ScriptedServer, ServerSide, serving, until
from tests.ticks import ticking

CANARY_SECRET = "canary-client-secret"
CANARY_TOKEN = "canary-access-token"


@dataclass(frozen=True)
class Route:
    """Route, as far as credentials see it."""

    namespace: str = "default"


class Secrets:
    """Reader of labelled Secrets that are in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, str]] = {}
        self.reads = 0
        self.failure: OSError | None = None
        """Error of every read; None when Secrets can be read."""
        self.gate: asyncio.Event | None = None
        """Event that every read waits for; None for no wait."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the data of a Secret."""
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return dict(self.objects[namespace, name])

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Return the credentials that a ModelDeployment has inline."""
        return dict(self.objects[namespace, "inline/" + model_deployment])


REMOTE = Backend(id="remote", host="run.example", credentials=DocumentCredentials(oauth2=OAuth2(name="oauth")))
INLINE = REMOTE.model_copy(
    update={"credentials": DocumentCredentials(oauth2=OAuth2(kind="ModelDeployment", name="demo"))}
)
DEFAULT = Backend(id="remote", default=True)


@asynccontextmanager
async def made(
    secrets: Secrets,
    *,
    default: ClientCredentials | None = None,
    allowed: str = "127.0.0.0/8",
    timeout: float = 2.0,
    wait: float = 2.0,
    strict_tls: bool = False,
) -> AsyncIterator[Credentials]:
    """Make credentials of a gateway that may connect to addresses in the range `allowed`."""
    resolver = Resolver(AddressRules.parse(allowed=[allowed]))
    credentials = Credentials(
        secrets,
        resolver,
        default=(lambda: default) if default is not None else None,
        timeout_seconds=timeout,
        wait_seconds=wait,
        strict_tls=strict_tls,
    )
    try:
        yield credentials
    finally:
        await credentials.close()
        resolver.close()


def secret_for(server: ScriptedServer, **more: str) -> dict[str, str]:
    """Return the data of a Secret whose token endpoint is `server`."""
    url = f"http://127.0.0.1:{server.port}/oauth/token"
    return {"clientId": "id", "clientSecret": CANARY_SECRET, "tokenUrl": url, "hosts": "run.example", **more}


def responding(
    body: object, *, status: bytes = b"200 OK", fields: bytes = b"", gate: asyncio.Event | None = None
) -> Callable[[ServerSide], Awaitable[None]]:
    """Return the script of a token endpoint with one response; `{n}` in it is the number of the connection."""

    async def script(side: ServerSide) -> None:
        await side.request()
        if gate is not None:
            await gate.wait()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = data.replace(b"{n}", b"%d" % side.number)
        await side.send(b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, fields, len(data), data))

    return script


GOOD = {"access_token": CANARY_TOKEN + "{n}", "token_type": "Bearer", "expires_in": 3600}


async def test_c10_a_token_is_bought_once_and_kept() -> None:
    """C10: A token is requested once for many requests, by HTTP Basic, and with the scope that the Secret has."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server, scope="a b")
        for _ in range(3):
            assert await credentials.authorization(Route(), REMOTE) == f"Bearer {CANARY_TOKEN}0".encode()
        received = server.sides[0].received
        basic = base64.b64encode(f"id:{CANARY_SECRET}".encode())
        assert b"authorization: basic " + basic.lower() in received.lower()
        assert b"POST /oauth/token HTTP/1.1" in received
        assert b"grant_type=client_credentials" in received
        assert b"scope=a+b" in received
        assert len(server.sides) == 1


async def test_se_12_to_11_many_requests_make_one_exchange() -> None:
    """SE-12, TO-11: 500 requests wait for one token, and those that are cancelled do not cancel it for the others."""
    secrets = Secrets()
    gate = asyncio.Event()
    async with serving(responding(GOOD, gate=gate)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        waiting = [asyncio.ensure_future(credentials.authorization(Route(), REMOTE)) for _ in range(500)]
        await until(lambda: len(server.sides) == 1)
        for task in waiting[:100]:
            task.cancel()
        gate.set()
        assert set(await asyncio.gather(*waiting[100:])) == {f"Bearer {CANARY_TOKEN}0".encode()}
        assert len(server.sides) == 1


async def test_se_12_a_token_is_renewed_before_its_end_and_used_meanwhile() -> None:
    """SE-12: At 80 % of a token's life a new one is fetched in the background, and the old one is used meanwhile."""
    secrets = Secrets()
    async with serving(responding({**GOOD, "expires_in": 5})) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        first = await credentials.authorization(Route(), REMOTE)
        await asyncio.sleep(4.1)
        assert await credentials.authorization(Route(), REMOTE) == first
        await until(lambda: len(server.sides) == 2)
        seen: list[bytes | None] = []
        async with asyncio.timeout(SECONDS):
            while not seen or seen[-1] == first:
                seen.append(await credentials.authorization(Route(), REMOTE))
                await asyncio.sleep(0.01)
        assert seen[-1] == f"Bearer {CANARY_TOKEN}1".encode()


async def test_c8_a_token_that_has_ended_is_not_sent() -> None:
    """C8: A token that has ended is never sent; when its endpoint is back, there is a new one."""
    secrets = Secrets()

    async def script(side: ServerSide) -> None:
        good = side.number != 1
        await responding({**GOOD, "expires_in": 0.2} if good else b"", status=b"200 OK" if good else b"503 No")(side)

    async with serving(script) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        assert await credentials.authorization(Route(), REMOTE) == f"Bearer {CANARY_TOKEN}0".encode()
        await asyncio.sleep(0.25)
        for _ in range(2):  # the one that asks, and one that finds that it is too soon to ask again
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
        assert len(server.sides) == 2
        token: bytes | None = None
        async with asyncio.timeout(SECONDS):
            while token is None:
                try:
                    token = await credentials.authorization(Route(), REMOTE)
                except errors.CredentialsFailed:
                    await asyncio.sleep(0.05)
        assert token == f"Bearer {CANARY_TOKEN}2".encode()


async def test_c8_a_refused_token_that_cannot_be_renewed_is_not_used() -> None:
    """C8: A request whose token was refused gets none while the endpoint is away; others still get the old one."""
    secrets = Secrets()

    async def script(side: ServerSide) -> None:
        await responding(GOOD, status=b"200 OK" if side.number != 1 else b"503 No")(side)

    async with serving(script) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        refused = await credentials.authorization(Route(), REMOTE)
        assert refused is not None
        for _ in range(2):  # the one that asks, and one that finds that it is too soon to ask again
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE, refresh=refused)
        assert await credentials.authorization(Route(), REMOTE) == refused
        assert len(server.sides) == 2


async def test_se_13_rt_09_a_401_makes_one_new_token_from_the_secret_as_it_is_now() -> None:
    """SE-13, RT-09: A refused token is replaced once for all requests that got the refusal, with the rotated secret."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        refused = await credentials.authorization(Route(), REMOTE)
        assert refused is not None
        secrets.objects["default", "oauth"] = secret_for(server, clientSecret="rotated")
        fresh = await asyncio.gather(*(credentials.authorization(Route(), REMOTE, refresh=refused) for _ in range(20)))
        assert set(fresh) == {f"Bearer {CANARY_TOKEN}1".encode()}
        assert base64.b64encode(b"id:rotated") in server.sides[1].received
        assert await credentials.authorization(Route(), REMOTE, refresh=True) == fresh[0]  # too soon for another
        assert len(server.sides) == 2


BAD_RESPONSES = {
    "not_json": b"<html>",
    "not_an_object": b"[]",
    "no_token": {"token_type": "bearer"},
    "token_not_text": {"access_token": 1},
    "token_empty": {"access_token": ""},
    "token_with_line_break": {"access_token": "a\r\nx: y"},
    "token_with_trailing_newline": {"access_token": "a\n"},
    "token_with_space": {"access_token": "a b"},
    "token_not_ascii": {"access_token": "ä"},
    "token_too_long": {"access_token": "a" * 20000},
    "response_too_long": {"access_token": "a", "x": "a" * 70000},
    "other_type": {"access_token": "a", "token_type": "mac"},
    "error": {"error": "invalid_client", "error_description": CANARY_SECRET},
}


@pytest.mark.parametrize("body", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
async def test_se_11_bad_responses_are_refused(body: object) -> None:
    """SE-11: A response without a usable bearer token is a failure, and the endpoint is not asked again at once."""
    secrets = Secrets()
    async with serving(responding(body)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        for _ in range(3):
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
        assert len(server.sides) == 1


@pytest.mark.parametrize("status", [b"500 Oops", b"401 No", b"201 Odd", b"302 Found", b"307 Temporary", b"204 Nothing"])
async def test_se_10_se_11_only_200_is_a_response(status: bytes) -> None:
    """SE-10, SE-11: A status other than 200 is a failure even with a token in it, and no redirect is followed."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as other:
        location = b"location: http://127.0.0.1:%d/\r\n" % other.port
        body: object = b"" if status.startswith(b"204") else GOOD
        async with serving(responding(body, status=status, fields=location)) as server, made(secrets) as credentials:
            secrets.objects["default", "oauth"] = secret_for(server)
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
        assert other.sides == []


@pytest.mark.parametrize("life", [None, "3600", 1e12, 0.5, 0, -1, "soon", [1], True])
async def test_se_11_odd_lives_are_bounded(life: object) -> None:
    """SE-11: A token is used when its life is absent, a number in a string, absurdly long, or no positive number."""
    secrets = Secrets()
    response = {"access_token": "a"} if life is None else {"access_token": "a", "expires_in": life}
    async with serving(responding(response)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        assert await credentials.authorization(Route(), REMOTE) == b"Bearer a"


async def test_se_11_a_slow_endpoint_is_given_up() -> None:
    """SE-11: A token request that takes too long as a whole is given up."""
    secrets = Secrets()
    async with serving(responding(GOOD, gate=asyncio.Event())) as server, made(secrets, timeout=0.2) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE)


async def test_c8_requests_do_not_wait_for_a_token_as_long_as_its_endpoint_may_take() -> None:
    """C8: A request waits for a token for a limited time, a later one not at all; the token is used when it comes."""
    secrets, gate = Secrets(), asyncio.Event()
    async with serving(responding(GOOD, gate=gate)) as server, made(secrets, wait=0.3) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE)
        async with ticking() as ticks:
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
            assert ticks() < 25  # less than the wait
        gate.set()
        token: bytes | None = None
        async with asyncio.timeout(SECONDS):
            while token is None:
                try:
                    token = await credentials.authorization(Route(), REMOTE)
                except errors.CredentialsFailed:
                    await asyncio.sleep(0.01)
        assert token == f"Bearer {CANARY_TOKEN}0".encode()
        assert len(server.sides) == 1


async def test_se_15_a_token_endpoint_is_not_looked_for_inside() -> None:
    """SE-15: Addresses are checked for a token URL in a Secret, and not for one in the administrator's settings."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server:
        own = ClientCredentials("id", CANARY_SECRET, secret_for(server)["tokenUrl"])
        async with made(secrets, allowed="192.0.2.0/24", default=own) as credentials:
            secrets.objects["default", "oauth"] = secret_for(server)
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
            assert server.sides == []
            assert await credentials.authorization(Route(), DEFAULT) == f"Bearer {CANARY_TOKEN}0".encode()


@pytest.mark.parametrize("strict", [False, True])
async def test_an_authority_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, strict: bool) -> None:
    """A token endpoint is verified by the authorities of the system.

    They need neither key usage nor key identifiers, unless verification is strict.
    """
    strict_by_default(monkeypatch)
    bare = Authority("bare", bare=True)
    (tmp_path / "system.pem").write_text(bare.pem)
    trusted_by_system(monkeypatch, tmp_path / "system.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*bare.issue("127.0.0.1").write(tmp_path, "server"))
    secrets = Secrets()
    async with serving(responding(GOOD), context) as server, made(secrets, strict_tls=strict) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server, tokenUrl=f"https://127.0.0.1:{server.port}/token")
        if strict:
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
            assert server.sides == []
        else:
            assert await credentials.authorization(Route(), REMOTE) == f"Bearer {CANARY_TOKEN}0".encode()


async def test_se_16_proxy_variables_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-16: A token request goes to the token URL, whatever proxy the environment names."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as proxy, serving(responding(GOOD)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with made(secrets) as credentials:
            secrets.objects["default", "oauth"] = secret_for(server)
            assert await credentials.authorization(Route(), REMOTE)
        assert (len(proxy.sides), len(server.sides)) == (0, 1)


@pytest.mark.parametrize(
    ("hosts", "port", "works"),
    [
        ("run.example", None, True),
        ("other.example, RUN.example.", None, True),
        ("run.example:80", None, True),
        ("run.example:8080", 8080, True),
        ("run.example:8080", None, False),
        ("example", None, False),
        ("xrun.example", None, False),
        ("*", None, False),
        ("", None, False),
    ],
)
async def test_se_09_k_26_a_token_goes_only_to_the_hosts_its_secret_names(
    hosts: str, port: int | None, works: bool
) -> None:
    """SE-09: A token is sent to the hosts that its Secret names, whatever the document says that refers to it."""
    secrets = Secrets()
    backend = REMOTE.model_copy(update={"port": port})
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server, hosts=hosts)
        if works:
            assert await credentials.authorization(Route(), backend)
        else:
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), backend)


async def test_k_03_a_cached_token_is_checked_for_each_host() -> None:
    """A second document that refers to the same Secret gets no token for another host or another namespace."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        assert await credentials.authorization(Route(), REMOTE)
        for route, host in ((Route(), "evil.example"), (Route("other"), "run.example")):
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(route, REMOTE.model_copy(update={"host": host}))


async def test_k_26_inline_credentials_are_for_their_own_host() -> None:
    """Inline credentials of a ModelDeployment work for its own remoteBackend and for no other."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "inline/demo"] = secret_for(server)
        assert await credentials.authorization(Route(), INLINE)
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), INLINE.model_copy(update={"host": "evil.example"}))


async def test_no_credentials_are_no_failure() -> None:
    """A backend without credentials gets no Authorization; a reference to a missing Secret is a failure."""
    async with made(Secrets()) as credentials:
        assert await credentials.authorization(Route(), Backend(id="local", service="demo-local")) is None
        assert await credentials.authorization(Route(), DEFAULT) is None
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE)


@pytest.mark.parametrize(
    "url",
    ["", "/x", "ftp://run.example/", "http://", "http://u:p@127.0.0.1/", "http://a b/", "http://h/\n", "http://h:x/"],
)
async def test_a_wrong_token_url_is_refused(url: str) -> None:
    """A token URL must be absolute, http or https, and without a user."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = {**secret_for(server), "tokenUrl": url.replace("\n", "\nx")}
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE)


async def test_field_values_come_from_secrets_for_their_hosts() -> None:
    """Values of `setFrom` are read, trimmed, cached, and read again after a refusal."""
    secrets = Secrets()
    secrets.objects["default", "key"] = {"k": "v1\n", "hosts": "run.example"}
    headers = Headers(set_from={"X-Api-Key": SecretKey(name="key", key="k"), "Host": SecretKey(name="key", key="k")})
    backend = Backend(id="remote", host="run.example", headers=headers)
    async with made(secrets) as credentials:
        assert await credentials.headers(Route(), backend) == {b"x-api-key": b"v1"}
        secrets.objects["default", "key"]["k"] = "v2"
        assert await credentials.headers(Route(), backend) == {b"x-api-key": b"v1"}
        assert await credentials.headers(Route(), backend, refresh=True) == {b"x-api-key": b"v2"}
        assert secrets.reads == 2
        service = Backend(id="local", service="demo-local", headers=headers)
        assert await credentials.headers(Route(), service) == {b"x-api-key": b"v2"}


@pytest.mark.parametrize(
    ("backend", "data"),
    [
        ({"host": "evil.example"}, {"k": "v", "hosts": "run.example"}),
        ({"host": "run.example"}, {"k": "a\r\nb: c", "hosts": "run.example"}),
        ({"host": "run.example"}, {"k": "ä", "hosts": "run.example"}),
        ({"host": "run.example"}, {"other": "v", "hosts": "run.example"}),
        ({"host": "run.example"}, None),
        ({"default": True}, {"k": "v", "hosts": "run.example"}),
    ],
)
async def test_field_values_that_cannot_be_used(backend: dict[str, object], data: dict[str, str] | None) -> None:
    """A value is refused for another host, for the default backend, and where it is missing or no field value."""
    secrets = Secrets()
    if data is not None:
        secrets.objects["default", "key"] = data
    headers = Headers(set_from={"x-api-key": SecretKey(name="key", key="k")})
    async with made(secrets) as credentials:
        with pytest.raises(errors.CredentialsFailed):
            await credentials.headers(Route(), Backend(id="remote", headers=headers, **backend))


HEADERS = Headers(set_from={"x-api-key": SecretKey(name="key", key="k")})
KEYED = Backend(id="remote", host="run.example", headers=HEADERS)
AWAY = OSError("the API server responds with 503 Service Unavailable")


async def until_refused(ask: Callable[[], Awaitable[object]]) -> None:
    """Call `ask` until it raises CredentialsFailed."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await ask()
            except errors.CredentialsFailed:
                return
            await asyncio.sleep(0.01)


async def test_one_read_for_all_that_wait() -> None:
    """A Secret is read once for all requests that need it, and those that are cancelled do not cancel the read."""
    secrets = Secrets()
    secrets.objects["default", "key"] = {"k": "v", "hosts": "run.example"}
    secrets.gate = asyncio.Event()
    async with made(secrets) as credentials:
        waiting = [asyncio.ensure_future(credentials.headers(Route(), KEYED)) for _ in range(200)]
        await until(lambda: secrets.reads == 1)
        for task in waiting[:50]:
            task.cancel()
        secrets.gate.set()
        assert all(value == {b"x-api-key": b"v"} for value in await asyncio.gather(*waiting[50:]))
        assert secrets.reads == 1


@pytest.mark.parametrize("failure", [None, AWAY], ids=["missing", "away"])
async def test_a_secret_that_cannot_be_read_is_not_read_again_at_once(failure: OSError | None) -> None:
    """Requests that fail because a Secret is missing do not each ask the API server, and the log says why once."""
    secrets = Secrets()
    secrets.failure = failure
    with structlog.testing.capture_logs() as lines:
        async with made(secrets) as credentials:
            for _ in range(50):
                with pytest.raises(errors.CredentialsFailed):
                    await credentials.headers(Route(), KEYED)
            assert secrets.reads == 1
            secrets.failure = None
            secrets.objects["default", "key"] = {"k": "v", "hosts": "run.example"}
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        assert await credentials.headers(Route(), KEYED) == {b"x-api-key": b"v"}
                        break
                    except errors.CredentialsFailed:
                        await asyncio.sleep(0.05)
    assert [(one["event"], one["namespace"], one["name"]) for one in lines] == [
        ("credential_unusable", "default", "key")
    ]
    assert str(failure or "key") in lines[0]["reason"]


async def test_field_values_outlive_the_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the API server is away the values read last are used without a wait, until the Secret is gone."""
    monkeypatch.setattr(module, "_FRESH_SECONDS", 0.1)
    secrets = Secrets()
    secrets.objects["default", "key"] = {"k": "v", "hosts": "run.example"}
    async with made(secrets) as credentials:
        assert await credentials.headers(Route(), KEYED) == {b"x-api-key": b"v"}
        secrets.failure = AWAY

        async def reads(number: int) -> None:
            async with asyncio.timeout(SECONDS):
                while secrets.reads < number:
                    assert await credentials.headers(Route(), KEYED) == {b"x-api-key": b"v"}
                    await asyncio.sleep(0.01)

        await reads(4)
        secrets.failure = None
        secrets.objects["default", "key"]["k"] = "v2"
        async with asyncio.timeout(SECONDS):
            while await credentials.headers(Route(), KEYED) != {b"x-api-key": b"v2"}:
                await asyncio.sleep(0.01)
        del secrets.objects["default", "key"]
        await until_refused(lambda: credentials.headers(Route(), KEYED))


async def test_tokens_outlive_the_api_server() -> None:
    """While a Secret cannot be read, tokens are requested with the data read last; when it is gone, they are not."""
    secrets = Secrets()
    async with serving(responding({**GOOD, "expires_in": 0.2})) as server, made(secrets) as credentials:
        secrets.objects["default", "oauth"] = secret_for(server)
        assert await credentials.authorization(Route(), REMOTE)
        secrets.failure = AWAY
        async with asyncio.timeout(SECONDS):
            while len(server.sides) < 3:
                assert await credentials.authorization(Route(), REMOTE)
                await asyncio.sleep(0.01)
        with pytest.raises(errors.CredentialsFailed):  # still for no other host
            await credentials.authorization(Route(), REMOTE.model_copy(update={"host": "evil.example"}))
        secrets.failure = None
        del secrets.objects["default", "oauth"]
        await until_refused(lambda: credentials.authorization(Route(), REMOTE))


async def test_the_log_says_why() -> None:
    """The log names a credential that is of no use, and the reason: another host, a key that is missing."""
    secrets = Secrets()
    async with serving(responding(GOOD)) as server:
        with structlog.testing.capture_logs() as lines:
            async with made(secrets) as credentials:
                secrets.objects["default", "oauth"] = secret_for(server, hosts="other.example")
                secrets.objects["default", "key"] = {"hosts": "run.example"}
                secrets.objects["default", "half"] = {"clientId": "id"}
                half = DocumentCredentials(oauth2=OAuth2(name="half"))
                for _ in range(3):
                    with pytest.raises(errors.CredentialsFailed):
                        await credentials.authorization(Route(), REMOTE)
                    with pytest.raises(errors.CredentialsFailed):
                        await credentials.headers(Route(), KEYED)
                    with pytest.raises(errors.CredentialsFailed):
                        await credentials.authorization(Route(), REMOTE.model_copy(update={"credentials": half}))
    logged = [(one["name"], one["reason"], one.get("detail")) for one in lines]
    assert logged == [
        ("oauth", "it is not for the host run.example", None),
        ("key", "k is missing or no field value", None),
        ("half", "credential_incomplete", "there is no clientSecret"),
    ]


async def test_k_19_p18_secrets_appear_in_no_log_and_no_error() -> None:
    """P18: Neither a secret nor a token is in a log line, an error or a representation, whatever goes wrong."""
    secrets = Secrets()
    seen: list[str] = []
    bodies: list[object] = [GOOD, {"error": CANARY_SECRET + CANARY_TOKEN}, {"access_token": CANARY_TOKEN + "\n"}, b"!"]
    with structlog.testing.capture_logs() as logs:
        for body in bodies:
            async with serving(responding(body)) as server:
                own = ClientCredentials("id", CANARY_SECRET, secret_for(server)["tokenUrl"])
                async with made(secrets, default=own) as credentials:
                    secrets.objects["default", "oauth"] = secret_for(server)
                    for backend in (REMOTE, DEFAULT):
                        try:
                            await credentials.authorization(Route(), backend)
                        except errors.CredentialsFailed as exc:
                            seen += [repr(exc), exc.message, repr(exc.__cause__), repr(exc.__context__)]
                    seen += [repr(credentials._entries), repr(own)]
    assert len(logs) == 2 * (len(bodies) - 1)
    text = repr(logs) + "".join(seen)
    assert CANARY_SECRET not in text
    assert CANARY_TOKEN not in text
