"""Token endpoints of all kinds on loopback: forms of authentication, addresses, and verification of certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import structlog

from gateway import errors
from gateway.api.v1alpha1 import Tls
from gateway.credentials.cache import Credentials, from_settings
from program.addresses import Destination
from program.oauth.credentials import ClientCredentials
from program.settings import OAuth
from tests.authorities import Authority, Pair
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.test_credentials import DEFAULT, INLINE, REMOTE, Route, Secrets, until_refused
from tests.integration.servers import ServerSide, serving
from tests.integration.token_server import GRANTED, TokenServer

BEARER: Final = b"Bearer granted"
PLAIN: Final = "plain-secret_1.2~3"
SECRETS: Final = (PLAIN, "a+b", "100%", "a:b", "ä€", "a b", "%2B", "a%2Bb", "+/=", "&=+%:ä ~*", '"\\')
SERVERS: Final[dict[str, dict[str, Any]]] = {
    "decodes": {"decodes": True},
    "does not decode": {"decodes": False},
    "body alone": {"post": True},
    "decodes, or body": {"decodes": True, "post": True},
    "does not decode, or body": {"decodes": False, "post": True},
}


ENDPOINT: Final = {
    "clientId": "id",
    "clientSecret": "s",
    "tokenUrl": "http://token.test/token",
    "hosts": "run.example",
}
LONG: Final = "parameters must have values of 4096 characters at most, and a has a longer one"


class Addresses:
    """Resolver with the same addresses for every host."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int, Destination, str]] = []

    async def resolve(self, host: str, port: int, *, destination: Destination, owner: str) -> Sequence[tuple[str, int]]:
        """Return the addresses, whatever the host."""
        self.asked.append((host, port, destination, owner))
        if not self.addresses:
            raise errors.AddressRefused
        return self.addresses

    def doubt(self, host: str, *, owner: str) -> None:
        """Keep the addresses."""


@asynccontextmanager
async def made(
    secrets: Secrets,
    addresses: Addresses,
    *,
    default: Callable[[], ClientCredentials] | None = None,
    timeout: float = SECONDS,
) -> AsyncIterator[Credentials]:
    """Yield credentials of a gateway that finds token endpoints at these addresses."""
    credentials = Credentials(secrets, addresses, default=default, timeout_seconds=timeout, wait_seconds=timeout + 5)
    try:
        yield credentials
    finally:
        await credentials.close()


@asynccontextmanager
async def served(
    server: TokenServer, data: Mapping[str, str] | None = None, *, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Credentials, Secrets]]:
    """Yield credentials of a gateway, and Secrets with one that leads to `server` and has `data` in addition."""
    secrets = Secrets()
    async with serving(server.script, context) as scripted:
        scheme = "http" if context is None else "https"
        secrets.objects["default", "oauth"] = {
            "clientId": server.client_id,
            "clientSecret": server.secret,
            "tokenUrl": f"{scheme}://user.test/token?tenant=a",
            "hosts": "run.example",
            **(data or {}),
        }
        async with made(secrets, Addresses(("127.0.0.1", scripted.port))) as credentials:
            yield credentials, secrets


async def failure(credentials: Credentials, backend: Any = REMOTE) -> dict[str, Any]:
    """Return the log line of a token that cannot be had."""
    with structlog.testing.capture_logs() as lines, pytest.raises(errors.CredentialsFailed):
        await credentials.authorization(Route(), backend)
    [line] = [one for one in lines if one["event"] == "token_unavailable"]
    return dict(line)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("kind", SERVERS)
async def test_every_secret_works_at_every_server(kind: str, secret: str) -> None:
    """A secret works at every endpoint, whether it decodes HTTP Basic, does not, or takes the body alone; the form that
    worked is the first of the next request."""
    server = TokenServer(secret=secret, **SERVERS[kind])
    async with served(server) as (credentials, _):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        first = list(server.attempts)
        assert len(first) <= (2 if secret == PLAIN else 3)
        if kind.startswith("decodes"):
            assert first == ["basic"]
        assert await credentials.authorization(Route(), REMOTE, refresh=BEARER) == BEARER
        assert server.attempts == [*first, first[-1]]


@pytest.mark.parametrize("client_id", ["a+b", "100%", "ä", "a b"])
@pytest.mark.parametrize("kind", SERVERS)
async def test_every_id_works_at_every_server(kind: str, client_id: str) -> None:
    """A client id works at every endpoint, because it is encoded as the secret is."""
    server = TokenServer(client_id=client_id, **SERVERS[kind])
    async with served(server) as (credentials, _):
        assert await credentials.authorization(Route(), REMOTE) == BEARER


@pytest.mark.parametrize(("kind", "attempts"), [("decodes", ["basic"]), ("body alone", ["basic", "post"])])
async def test_an_id_with_a_colon_is_sent_in_forms_that_can_hold_it(kind: str, attempts: list[str]) -> None:
    """A client id with a colon is never sent in HTTP Basic without encoding, which would end it at the colon."""
    server = TokenServer(client_id="a:b", **SERVERS[kind])
    async with served(server) as (credentials, _):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        assert server.attempts == attempts


@pytest.mark.parametrize(
    ("form", "kind", "works"),
    [
        ("client_secret_basic", "decodes", True),
        ("client_secret_basic", "does not decode", False),
        ("client_secret_basic", "body alone", False),
        ("client_secret_basic_raw", "decodes", False),
        ("client_secret_basic_raw", "does not decode", True),
        ("client_secret_post", "body alone", True),
        ("client_secret_post", "decodes", False),
        (" client_secret_post\n", "body alone", True),
    ],
)
async def test_token_auth_pins_one_form(form: str, kind: str, works: bool) -> None:
    """With `tokenAuth` only that form is tried, whether or not it works."""
    server = TokenServer(secret="a+b", **SERVERS[kind])
    async with served(server, {"tokenAuth": form}) as (credentials, _):
        if works:
            assert await credentials.authorization(Route(), REMOTE) == BEARER
        else:
            assert (await failure(credentials))["error"] == "invalid_client"
        assert len(server.attempts) == 1


@pytest.mark.parametrize(
    ("refusal", "attempts"),
    [
        ((401, {"error": "invalid_client"}), ["basic", "basic", "post"]),
        ((400, {"error": "invalid_client"}), ["basic", "basic", "post"]),
        ((401, b""), ["basic", "basic", "post"]),
        ((401, b"<html>"), ["basic", "basic", "post"]),
        ((401, {"error": "unauthorized_client"}), ["basic"]),
        ((400, {"error": "invalid_scope"}), ["basic"]),
        ((400, b""), ["basic"]),
        ((403, {"error": "invalid_client"}), ["basic"]),
        ((429, {"error": "invalid_client"}), ["basic"]),
        ((500, {"error": "invalid_client"}), ["basic"]),
        ((200, {"error": "invalid_client"}), ["basic"]),
    ],
)
async def test_only_an_unknown_client_is_sent_in_another_form(refusal: tuple[int, Any], attempts: list[str]) -> None:
    """Only after an error that says that the client is unknown is another form tried, and after a failure no request is
    sent at once."""
    server = TokenServer(secret="a+b", refusal=refusal)
    async with served(server) as (credentials, _):
        line = await failure(credentials)
        assert line["status"] == refusal[0]
        for _ in range(3):
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
        assert server.attempts == attempts


async def test_the_pause_is_longer_after_several_forms() -> None:
    """A wrong secret causes no more than one token request a second, however many forms are tried."""
    server = TokenServer(secret="a+b", decodes=False)
    async with served(server, {"clientSecret": "wrong+b"}) as (credentials, _):
        began = asyncio.get_running_loop().time()
        while len(server.attempts) < 6:
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
            await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began >= 3


async def test_the_form_that_worked_is_remembered_for_the_endpoint_and_may_change() -> None:
    """A second client of the same endpoint begins with the form that worked, and the others are still tried."""
    server = TokenServer(secret="a+b", decodes=False)
    async with served(server) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        secrets.objects["other", "oauth"] = dict(secrets.objects["default", "oauth"])
        assert await credentials.authorization(Route("other"), REMOTE) == BEARER
        assert server.attempts == ["basic", "basic", "basic"]
        server.decodes = True
        assert await credentials.authorization(Route("other"), REMOTE, refresh=BEARER) == BEARER
        assert server.attempts == ["basic"] * 5
        server.decodes, server.post = None, True
        assert await credentials.authorization(Route(), REMOTE, refresh=BEARER) == BEARER
        assert server.attempts == [*["basic"] * 7, "post"]


async def test_a_secret_that_needs_no_encoding_does_not_forget_what_is_known() -> None:
    """A token for a secret that needs no encoding leaves the form that is remembered for the endpoint."""
    server = TokenServer(secret="a+b", decodes=False)
    async with served(server) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        server.secret = PLAIN
        plain = {**secrets.objects["default", "oauth"], "clientSecret": PLAIN}
        secrets.objects["other", "oauth"] = plain
        assert await credentials.authorization(Route("other"), REMOTE) == BEARER
        server.secret = "a+b"
        assert await credentials.authorization(Route(), REMOTE, refresh=BEARER) == BEARER
        assert server.attempts == ["basic"] * 4


async def test_further_parameters_are_sent() -> None:
    """Scope, audience, several resources and further parameters are fields of the token request, in every form."""
    more = {
        "scope": "read write",
        "audience": " https://api.example/ä \n",
        "resource": "https://a.example/?x=1&y=2\n urn:b",
        "parameters": "organization=acme & co\n\n  requested_token_use = on behalf=of\nempty=\n",
    }
    for kind in ("decodes", "body alone"):
        server = TokenServer(**SERVERS[kind])
        async with served(server, more) as (credentials, _):
            assert await credentials.authorization(Route(), REMOTE) == BEARER
        form = {key: value for key, value in server.forms[-1].items() if not key.startswith("client_")}
        assert form == {
            "grant_type": ["client_credentials"],
            "scope": ["read write"],
            "audience": ["https://api.example/ä"],
            "resource": ["https://a.example/?x=1&y=2", "urn:b"],
            "organization": ["acme & co"],
            "requested_token_use": ["on behalf=of"],
            "empty": [""],
        }


async def test_without_further_parameters_nothing_is_added() -> None:
    """A token request has the grant type alone when the keys for further parameters are empty."""
    server = TokenServer(decodes=True)
    async with served(server, dict.fromkeys(("audience", "resource", "parameters", "tokenAuth"), " \n")) as (
        credentials,
        _,
    ):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
    assert server.forms == [{"grant_type": ["client_credentials"]}]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokenAuth", "basic", "tokenAuth must be client_secret_basic, client_secret_basic_raw or client_secret_post"),
        ("parameters", "canary", "parameters must be name=value, one on each line"),
        ("parameters", "client_secret=canary", "parameters must not have client_secret: the gateway sets it"),
        ("parameters", "grant_type=canary", "parameters must not have grant_type: the gateway sets it"),
        ("parameters", "scope=canary", "parameters must not have scope: it has a key of its own"),
        ("parameters", "a b=canary", "parameters must have names of letters, digits and - . _ ~ : [ ]"),
        (
            "parameters",
            "a=" + "canary" * 1000,
            LONG,
        ),
        ("parameters", "\n".join(f"a{n}=canary" for n in range(33)), "parameters must have 32 entries at most"),
        ("ca.crt", "canary", "the authorities are no certificates in PEM"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nä\n", "the authorities are no certificates in PEM"),
    ],
)
async def test_a_value_that_cannot_be_used_is_named_and_the_last_good_ones_stay(
    key: str, value: str, words: str
) -> None:
    """The log names the key of a Secret with a wrong value and not the value, and the last good values work on."""
    server = TokenServer(decodes=True)
    async with served(server, {key: value}) as (credentials, secrets):
        line = await failure(credentials)
        assert (line["reason"], line["detail"]) == ("credential_invalid", words)
        assert "canary" not in repr(line)
        assert server.attempts == []
    async with served(server) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        secrets.objects["default", "oauth"][key] = value
        with structlog.testing.capture_logs() as lines:
            assert await credentials.authorization(Route(), REMOTE, refresh=BEARER) == BEARER
        assert [(one["event"], one["reason"]) for one in lines] == [("credential_unusable", words)]
        assert len(server.attempts) == 2


async def test_hosts_count_at_once_although_another_key_is_wrong() -> None:
    """A change of `hosts` in a Secret counts at once, even if another key of it is wrong."""
    server = TokenServer(decodes=True)
    async with served(server) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        secrets.objects["default", "oauth"] |= {"hosts": "other.example", "tokenAuth": "?"}
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE, refresh=BEARER)
        other = REMOTE.model_copy(update={"host": "other.example"})
        assert await credentials.authorization(Route(), other) == BEARER


@pytest.mark.parametrize("kind", ["bearer", "BEARER", "Bearer", "BearerToken", "bearertoken", None])
async def test_token_types_are_compared_without_regard_to_case(kind: str | None) -> None:
    """A token of type Bearer or BearerToken, in any case, or without a type is sent as Bearer."""
    granted = {key: value for key, value in (GRANTED | {"token_type": kind}).items() if value is not None}
    async with served(TokenServer(decodes=True, granted=granted)) as (credentials, _):
        assert await credentials.authorization(Route(), REMOTE) == BEARER


@pytest.mark.parametrize("kind", ["mac", "DPoP", "", 1, [], "bearer token"])
async def test_another_token_type_is_refused(kind: Any) -> None:
    """A token of another type than Bearer is refused."""
    server = TokenServer(decodes=True, granted=GRANTED | {"token_type": kind})
    async with served(server) as (credentials, _):
        assert (await failure(credentials))["reason"] == "token_type_unknown"


@pytest.mark.parametrize("life", [1, 3600, 0.5, "3600", "0.5", "1e400", " 60 ", None])
async def test_the_life_of_a_token_is_a_number_a_text_or_absent(life: Any) -> None:
    """A token is used whether its lifetime is a number, a text or absent."""
    granted = {key: value for key, value in (GRANTED | {"expires_in": life}).items() if value is not None}
    async with served(TokenServer(decodes=True, granted=granted)) as (credentials, _):
        assert await credentials.authorization(Route(), REMOTE) == BEARER


async def resetting(side: ServerSide) -> None:
    """Read the request and reset the connection."""
    await side.request()
    side.reset()


async def silent(side: ServerSide) -> None:
    """Read the request and never respond."""
    await side.request()
    await side.gone()


@pytest.mark.parametrize("trouble", [resetting, silent, None], ids=["resets", "is silent", "is not there"])
@pytest.mark.parametrize("place", [0, 1])
async def test_every_address_is_tried(trouble: Callable[[ServerSide], Any] | None, place: int) -> None:
    """A token comes from the first address that responds, and only that one gets the next form of authentication."""
    server, secrets = TokenServer(secret="a+b", decodes=False), Secrets()
    async with serving(server.script) as good, serving(trouble or silent) as bad:
        port = bad.port if trouble is not None else 1
        addresses = [("127.0.0.1", port), ("127.0.0.1", port)]
        addresses.insert(place, ("127.0.0.1", good.port))
        secrets.objects["default", "oauth"] = {
            "clientId": "id",
            "clientSecret": "a+b",
            "tokenUrl": "http://token.test:81/token",
            "hosts": "run.example",
        }
        resolver = Addresses(*addresses)
        async with made(secrets, resolver, timeout=3.0) as credentials:
            assert await credentials.authorization(Route(), REMOTE) == BEARER
        assert resolver.asked == [("token.test", 81, "remote", "default/oauth")]
        assert server.attempts == ["basic", "basic"]
        assert len(bad.sides) == (0 if trouble is None else place)


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ((), "address_refused"),
        ((("127.0.0.1", 1),), "connect_failed"),
        ((("127.0.0.1", 1), ("127.0.0.1", 2)), "connect_failed"),
    ],
)
async def test_no_address_that_responds(addresses: tuple[tuple[str, int], ...], reason: str) -> None:
    """The log says why no address responds: it is refused, or cannot be connected to."""
    secrets = Secrets()
    secrets.objects["default", "oauth"] = dict(ENDPOINT)
    async with made(secrets, Addresses(*addresses)) as credentials:
        line = await failure(credentials)
    assert (line["reason"], line["endpoint"]) == (reason, "http://token.test/token")
    assert "status" not in line


@pytest.mark.parametrize(
    ("trouble", "timeout", "reason"),
    [(resetting, NEVER, "connection_broken"), (silent, 0.4, "timed_out")],
    ids=["resets", "is silent"],
)
async def test_an_endpoint_that_does_not_respond(
    trouble: Callable[[ServerSide], Any], timeout: float, reason: str
) -> None:
    """The log has different reasons for a broken connection and for a silent endpoint."""
    secrets = Secrets()
    async with serving(trouble) as bad:
        secrets.objects["default", "oauth"] = dict(ENDPOINT)
        async with made(secrets, Addresses(("127.0.0.1", bad.port)), timeout=timeout) as credentials:
            assert (await failure(credentials))["reason"] == reason


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return a private certificate authority."""
    return Authority("private")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """Return a certificate of the private authority for the token endpoint."""
    return authority.issue("user.test")


@pytest.fixture
def context(pair: Pair, tmp_path: Path) -> ssl.SSLContext:
    """Return the TLS context of a token endpoint whose certificate the private authority has issued."""
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    result.load_cert_chain(*pair.write(tmp_path, "endpoint"))
    return result


async def test_the_secret_brings_the_authority(context: ssl.SSLContext, authority: Authority) -> None:
    """The endpoint's certificate is verified by the authority in `ca.crt` of the Secret, which counts at once when it
    changes."""
    server = TokenServer(decodes=True)
    async with served(server, {"ca.crt": f"\n{authority.pem}\n"}, context=context) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        secrets.objects["default", "oauth"]["ca.crt"] = Authority("another").pem
        with pytest.raises(errors.CredentialsFailed):
            await credentials.authorization(Route(), REMOTE, refresh=BEARER)
    assert len(server.attempts) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_without_ca_crt_the_endpoint_is_not_trusted(
    context: ssl.SSLContext, authority: Authority, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `ca.crt` only the system's authorities count, whatever the environment names, and nothing is sent."""
    (tmp_path / "ca.crt").write_text(authority.pem)
    monkeypatch.setenv(variable, str(tmp_path / "ca.crt"))
    server = TokenServer(decodes=True)
    async with served(server, context=context) as (credentials, _):
        line = await failure(credentials)
        assert line["reason"] == "tls_failed"
        assert "certificate" in line["detail"]
        assert line["endpoint"] == "https://user.test/token"
    assert server.attempts == []


async def test_the_name_of_the_endpoint_is_verified(authority: Authority, tmp_path: Path) -> None:
    """A token endpoint with a certificate for another name is refused, although its authority is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("other.test", "127.0.0.1").write(tmp_path, "other"))
    server = TokenServer(decodes=True)
    async with served(server, {"ca.crt": authority.pem}, context=context) as (credentials, _):
        line = await failure(credentials)
        assert line["reason"] == "tls_failed"
        assert "user.test" in line["detail"]
    assert server.attempts == []


async def test_an_endpoint_that_speaks_no_tls_has_a_reason_of_its_own() -> None:
    """For an endpoint that speaks no TLS the log says that TLS failed."""

    async def plain(side: ServerSide) -> None:
        await side.reader.read(1)
        await side.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    secrets = Secrets()
    secrets.objects["default", "oauth"] = ENDPOINT | {"tokenUrl": "https://token.test/token"}
    async with serving(plain) as server, made(secrets, Addresses(("127.0.0.1", server.port))) as credentials:
        assert (await failure(credentials))["reason"] == "tls_failed"


async def test_the_bundle_of_a_route_does_not_count_for_a_secret(context: ssl.SSLContext, authority: Authority) -> None:
    """`caBundle` of a route, whose author must not decide which endpoint gets a Secret, does not count for it."""
    server = TokenServer(decodes=True)
    async with served(server, context=context) as (credentials, _):
        backend = REMOTE.model_copy(update={"tls": Tls(ca_bundle=authority.pem)})
        assert (await failure(credentials, backend))["reason"] == "tls_failed"
    assert server.attempts == []


async def test_the_bundle_of_a_model_deployment_counts_for_its_own_secret(
    context: ssl.SSLContext, authority: Authority
) -> None:
    """For inline credentials the endpoint may have a certificate of the ModelDeployment's own `tls.caBundle`."""
    server = TokenServer(decodes=True)
    async with served(server, {"tls.caBundle": authority.pem}, context=context) as (credentials, secrets):
        secrets.objects["default", "inline/demo"] = secrets.objects["default", "oauth"]
        assert await credentials.authorization(Route(), INLINE) == BEARER


async def test_the_default_remote_backend_has_the_same_settings(
    context: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    """The default remote backend takes everything that a Secret may have from the configuration, and its authorities
    from a file, of which the last good ones stay."""
    (tmp_path / "ca.crt").write_text(authority.pem)
    server = TokenServer(secret="a+b", post=True)
    settings = OAuth.model_validate(
        {
            "clientId": "id",
            "clientSecret": "a+b",
            "tokenUrl": "https://user.test/token",
            "audience": "the service",
            "resource": "urn:a urn:b",
            "parameters": {"organization": "acme"},
            "tokenAuth": "client_secret_post",
            "caFile": str(tmp_path / "ca.crt"),
        }
    )
    async with serving(server.script, context) as scripted:
        addresses = Addresses(("127.0.0.1", scripted.port))
        async with made(Secrets(), addresses, default=lambda: from_settings(settings)) as credentials:
            assert await credentials.authorization(Route(), DEFAULT) == BEARER
            assert addresses.asked == [("user.test", 443, "configured", "")]
            for content in ("no certificates", None):
                if content is None:
                    (tmp_path / "ca.crt").unlink()
                else:
                    (tmp_path / "ca.crt").write_text(content)
                await asyncio.sleep(1.05)  # the shortest time between two refreshes
                with structlog.testing.capture_logs() as lines:
                    assert await credentials.authorization(Route(), DEFAULT, refresh=BEARER) == BEARER
                assert [one["event"] for one in lines] == ["credential_unusable"]
    assert server.attempts == ["post"] * 3
    assert server.forms[0] == {
        "grant_type": ["client_credentials"],
        "audience": ["the service"],
        "resource": ["urn:a", "urn:b"],
        "organization": ["acme"],
        "client_id": ["id"],
        "client_secret": ["a+b"],
    }


@pytest.mark.parametrize(
    ("code", "shown"), [("invalid_client", "invalid_client"), ("canary-secret", "other"), ("", None), (["x"], None)]
)
async def test_the_log_line_names_endpoint_status_and_code(code: Any, shown: str | None) -> None:
    """The log line of a refusal has endpoint, status and a known error code, without a query and other words of the
    endpoint."""
    refusal = {"error": code, "error_description": "canary-secret canary", "error_uri": "https://canary"}
    server = TokenServer(client_id="canary-id", secret="canary-secret", refusal=(401, refusal))
    async with served(server) as (credentials, _):
        line = await failure(credentials)
    assert line == {
        "event": "token_unavailable",
        "log_level": "warning",
        "kind": "Secret",
        "namespace": "default",
        "name": "oauth",
        "reason": "token_status_401",
        "detail": "",
        "endpoint": "http://user.test/token",
        "status": 401,
        **({} if shown is None else {"error": shown}),
    }


async def test_a_withdrawn_secret_is_not_used_again() -> None:
    """Credentials of a deleted Secret are forgotten, also while a new one with its name cannot be read."""
    server = TokenServer(decodes=True, granted=GRANTED | {"expires_in": 0.3})
    async with served(server) as (credentials, secrets):
        assert await credentials.authorization(Route(), REMOTE) == BEARER
        data = secrets.objects.pop(("default", "oauth"))
        await until_refused(lambda: credentials.authorization(Route(), REMOTE))
        secrets.failure = OSError("the API server is away")
        secrets.objects["default", "oauth"] = data
        for _ in range(30):
            with pytest.raises(errors.CredentialsFailed):
                await credentials.authorization(Route(), REMOTE)
            await asyncio.sleep(0.05)
