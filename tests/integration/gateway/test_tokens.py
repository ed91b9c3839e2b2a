"""Access by tokens (JWT) of an issuer: which are valid, what a refusal says, and how keys of the issuer are kept."""

import asyncio
import base64
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.jwk import OctKey
from structlog.testing import capture_logs

from gateway.__main__ import token_rules
from gateway.access.directory import KeyDirectory
from gateway.access.issuer import Issuer as Watched
from gateway.access.issuer_client import RESPONSE_BYTES, IssuerClient
from gateway.access.tokens import Tokens
from gateway.settings import JwtSettings
from gateway.upstream.resolver import Resolver
from program.addresses import AddressRules
from tests.authorities import Authority
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.wire import Running, document, echo, gateway
from tests.integration.issuer import AUDIENCE, DISCOVERY, Issuer, ec_key, issuing, okp_key, page, rsa_key
from tests.integration.servers import serving, until
from tools.ports import free_port
from tools.repository import ROOT

TARGET: Final = b"/v1/chat/completions"
BODY: Final = b'{"model": "demo"}'


def bearer(token: bytes) -> bytes:
    """Return the field with a token."""
    return b"Authorization: Bearer " + token


def server_context(folder: Path, authority: Authority) -> ssl.SSLContext:
    """Return the context of a server at localhost, with a certificate of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost").write(folder, "issuer"))
    return context


def client_of(jwt: JwtSettings, **values: Any) -> IssuerClient:
    """Return a client of the issuer that the settings name."""
    return IssuerClient(
        Resolver(AddressRules.parse()),
        issuer=jwt.issuer,
        jwks_url=jwt.jwks_url,
        ca_file=jwt.ca_file,
        strict_tls=True,
        **values,
    )


@asynccontextmanager
async def running(
    url: str, *documents: Any, keys: Path | None = None, pause: float = 0.01, **values: Any
) -> AsyncIterator[tuple[Running, list[bytes]]]:
    """Yield a gateway that takes tokens of an issuer, and what its local server has received."""
    section = {"issuer": url, "audiences": [AUDIENCE], **values}
    jwt = JwtSettings.model_validate(section)
    issuer = Watched(
        url, client_of(jwt).load, refresh_seconds=NEVER, pause_seconds=pause, retry_seconds=pause, wait_seconds=SECONDS
    )
    tokens = Tokens(token_rules(jwt), issuer)
    access: dict[str, Any] = {"jwt": section}
    if keys is not None:
        access["keysDirectory"] = str(keys)
    async with serving(echo) as near:
        task = asyncio.create_task(issuer.watch())
        try:
            async with gateway(
                *documents,
                local_port=near.port,
                settings={"gateway": {"access": access}},
                access=None if keys is None else KeyDirectory(keys),
                tokens=tokens,
            ) as one:
                yield one, [side.received for side in near.sides]
                assert b"eyJ" not in b"".join(side.received for side in near.sides)
        finally:
            task.cancel()


async def status(one: Running, token: bytes) -> int:
    """Return the status of a request with a token."""
    return (await one.post(TARGET, BODY, bearer(token))).status


async def test_a_caller_is_known_by_its_token() -> None:
    """A request with a valid token is served; its caller is in the log, in /decisions and in a counter."""
    async with issuing() as (issuer, _), running(issuer.url) as (one, _):
        token = issuer.token()
        for field in (bearer(token), b"x-api-key: " + token):
            for target in (TARGET, b"/default/demo/v1/messages"):
                assert (await one.post(target, BODY, field)).status == 200
        listed = await one.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % bearer(token))
        assert [model["id"] for model in orjson.loads(listed.body)["data"]] == ["demo"]
        await until(lambda: len(one.lines()) == 5)
        assert {line["caller"] for line in one.lines()} == {"oidc:alice"}
        assert {entry["caller"] for entry in one.journal.decisions()} == {"oidc:alice"}
        assert one.count("beamlit_gateway_caller_requests_total", caller="oidc:alice") == 5
        assert issuer.asked == [issuer.path + DISCOVERY, issuer.path + "/certs"]
        assert b"eyJ" not in b"".join(issuer.heads) + one.log.getvalue().encode()


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> bytes:
    """Return a token with these parts, whether or not they go together."""
    parts = (orjson.dumps(header), orjson.dumps(claims), signature)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def refused_tokens(issuer: Issuer) -> dict[str, tuple[bytes, str]]:
    """Return tokens that are not valid, each with words of the reason, by what is wrong with them."""
    now, public = int(time.time()), rsa_key("first").as_pem(private=False)
    header, claims = {"alg": "none"}, issuer.claims()
    shared = OctKey.import_key(b"a secret of thirty-two characters", {"kid": "first"})
    swapped = {"alg": "HS256", "kid": "first"}
    hmac = pyjwt.api_jws.PyJWS().get_algorithm_by_name("HS256")
    signing = by_hand(swapped, claims).rpartition(b".")[0]
    return {
        "expired": (issuer.token(exp=now - 120), "has expired"),
        "not valid yet": (issuer.token(nbf=now + 600), "not valid yet"),
        "made in the future": (issuer.token(iat=now + 600), "not valid yet"),
        "without an end": (issuer.token(exp=None), "when it expires"),
        "with an end that is a text": (issuer.token(exp=str(now + 600)), "when it expires"),
        "for others": (issuer.token(aud="another"), "audience"),
        "for several others": (issuer.token(aud=["a", "b"]), "audience"),
        "for nobody": (issuer.token(aud=None), "audience"),
        "of another issuer": (issuer.token(iss=issuer.url + "/"), "not of the issuer"),
        "of no issuer": (issuer.token(iss=None), "not of the issuer"),
        "without a name": (issuer.token(sub=None), "who the caller is"),
        "with a name that is a list": (issuer.token(name=["a"], sub=""), "who the caller is"),
        "signed by another key": (issuer.token(rsa_key("other"), header={"kid": "first"}), "signature"),
        "of an unknown key": (issuer.token(rsa_key("other")), "does not publish"),
        "of a key of another type": (issuer.token(ec_key("first")), "does not publish"),
        "unsigned": (by_hand(header, claims), "algorithm"),
        "unsigned, in capitals": (by_hand({"alg": "NONE"}, claims), "algorithm"),
        "signed with a secret": (issuer.token(shared), "algorithm"),
        "signed with the public key as a secret": (
            signing + b"." + base64.urlsafe_b64encode(hmac.sign(signing, public)).rstrip(b"="),
            "algorithm",
        ),
        "with its own key": (
            issuer.token(rsa_key("other"), header={"jwk": rsa_key("other").as_dict(private=False), "kid": "first"}),
            "signature",
        ),
        "with a signature that is cut": (issuer.token()[:-8], "signature"),
        "without a signature": (issuer.token().rpartition(b".")[0] + b".", "signature"),
        "with other claims": (
            b".".join((issuer.token().split(b".")[0], by_hand({}, issuer.claims(sub="bob")).split(b".")[1], b"AAAA")),
            "signature",
        ),
        "no base64": (b"!!!.!!!.!!!", "no signed JWT"),
        "no JSON": (b".".join((base64.urlsafe_b64encode(b"{").rstrip(b"="), b"e30", b"AA")), "no signed JWT"),
        "nested deeply": (b".".join((base64.urlsafe_b64encode(b"[" * 6000).rstrip(b"="), b"e30", b"AA")), "JWT"),
        "encrypted": (by_hand({"alg": "RSA-OAEP", "enc": "A256GCM"}, {}) + b".AA.AA", "no signed JWT"),
        "with a payload that is not encoded": (
            by_hand({"alg": "RS256", "kid": "first", "crit": ["b64"], "b64": False}, claims),
            "no signed JWT",
        ),
        "with a condition that is not known": (
            by_hand({"alg": "RS256", "kid": "first", "crit": ["x"], "x": 1}, claims),
            "no signed JWT",
        ),
        "too large": (issuer.token(padding="x" * 16384), "too large: this gateway takes tokens of 16 KiB at most"),
        "with a large header": (by_hand({"alg": "RS256", "kid": "first", "x": "x" * 9000}, claims), "signature"),
    }


async def test_what_is_not_valid_is_refused() -> None:
    """A token that is not valid is 401 in the form of the API, and the challenge says why (RFC 6750 3)."""
    async with issuing() as (issuer, _), running(issuer.url, pause=SECONDS) as (one, _):
        assert await status(one, issuer.token()) == 200
        for what, (token, words) in refused_tokens(issuer).items():
            response = await one.post(TARGET, BODY, bearer(token))
            assert (response.status, response.code) == (401, "unauthorized"), what
            message = orjson.loads(response.body)["error"]["message"]
            assert words in message, (what, message)
            challenge = f'Bearer realm="beamlit", error="invalid_token", error_description="{message}"'
            assert response.value(b"www-authenticate") == challenge.encode(), what
        anthropic = await one.post(b"/default/demo/v1/messages", BODY, bearer(issuer.token(aud="another")))
        assert orjson.loads(anthropic.body)["error"]["type"] == "authentication_error"
        missing = await one.post(TARGET, BODY)
        assert missing.value(b"www-authenticate") == b'Bearer realm="beamlit"'
        assert "needs a token" in orjson.loads(missing.body)["error"]["message"]
        assert len(issuer.asked) == 2


async def test_clocks_may_differ() -> None:
    """A token that has expired within the skew of clocks is valid, and so is one that is valid in a moment."""
    async with issuing() as (issuer, _):
        now = int(time.time())
        tokens = issuer.token(exp=now - 10), issuer.token(nbf=now + 30)
        async with running(issuer.url) as (one, _):
            assert [await status(one, token) for token in tokens] == [200, 200]
        async with running(issuer.url, clockSkewSeconds=0) as (one, _):
            assert [await status(one, token) for token in tokens] == [401, 401]


async def test_algorithms_can_be_fewer() -> None:
    """Where the settings name algorithms, a token that is signed by another one is refused."""
    issuer = Issuer(keys=[rsa_key("first"), ec_key("curve")])
    async with issuing(issuer), running(issuer.url, algorithms=["ES256"]) as (one, _):
        assert await status(one, issuer.token(ec_key("curve"))) == 200
        assert await status(one, issuer.token(rsa_key("first"))) == 401


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "EdDSA"])
async def test_a_token_of_another_library_is_valid(algorithm: str) -> None:
    """Tokens that PyJWT has signed are valid, with every kind of key, and with or without the id of the key."""
    key: Any = {"R": rsa_key("first"), "P": rsa_key("first"), "E": ec_key("first")}[algorithm[0]]
    if algorithm == "EdDSA":
        key = okp_key("first")
    elif algorithm == "ES384":
        key = ec_key("first", "P-384")
    async with issuing(Issuer(keys=[ec_key("curve"), key])) as (issuer, _), running(issuer.url) as (one, _):
        private = serialization.load_pem_private_key(key.as_pem(private=True), None)
        for header in ({"kid": "first"}, {}):
            token = pyjwt.encode(issuer.claims(), private, algorithm, headers=header)  # type: ignore[arg-type]
            assert await status(one, token.encode()) == 200


async def test_groups_of_keycloak() -> None:
    """A token as Keycloak makes it is served where one of its roles is asked for, and 403 where it has none."""
    roles = {"roles": ["offline_access", "uma_authorization", "models"]}
    claims: dict[str, Any] = {
        "jti": "a4f0c3a2-5f1c-4a6e-9d7a-0b7f0f9f2f11",
        "aud": ["realm-management", AUDIENCE, "account"],
        "sub": "f:6a2c:alice",
        "typ": "Bearer",
        "azp": "chat",
        "acr": "1",
        "realm_access": roles,
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "scope": "openid email profile",
        "preferred_username": "alice@example.com",
    }
    settings: dict[str, Any] = {
        "groupsClaim": "realm_access.roles",
        "nameClaim": "preferred_username",
        "groups": ["models"],
    }
    async with issuing() as (issuer, _), running(issuer.url, **settings) as (one, _):
        assert await status(one, issuer.token(**claims)) == 200
        response = await one.post(TARGET, BODY, bearer(issuer.token(**{**claims, "realm_access": {"roles": []}})))
        assert (response.status, response.code) == (403, "forbidden")
        assert response.value(b"www-authenticate") == b'Bearer realm="beamlit", error="insufficient_scope"'
        await until(lambda: len(one.lines()) == 2)
        assert [line.get("caller") for line in one.lines()] == ["oidc:alice@example.com", None]


async def test_keys_and_tokens_side_by_side(tmp_path: Path) -> None:
    """Where both are on, a request has an API key or a token; neither is the other's name."""
    (tmp_path / "alice").write_bytes(b"canary.of.the-key-of-alice")
    async with issuing() as (issuer, _), running(issuer.url, keys=tmp_path) as (one, _):
        key = b"x-api-key: canary.of.the-key-of-alice"
        assert (await one.post(TARGET, BODY, key)).status == 200
        assert await status(one, issuer.token()) == 200
        assert (await one.post(TARGET, BODY, key, bearer(issuer.token(aud="another")))).status == 200
        unknown = await one.post(TARGET, BODY, b"x-api-key: canary-that-nobody-has")
        assert "API key" in orjson.loads(unknown.body)["error"]["message"]
        missing = await one.post(TARGET, BODY)
        assert "token or an API key" in orjson.loads(missing.body)["error"]["message"]
        await until(lambda: len(one.lines()) == 5)
        assert [line.get("caller") for line in one.lines()] == ["alice", "oidc:alice", "alice", None, None]


async def test_which_credential_counts_does_not_depend_on_earlier_requests(tmp_path: Path) -> None:
    """A key counts before a token, and the first valid token before others, also once one of them is remembered."""
    (tmp_path / "alice").write_bytes(b"canary-key-of-alice")
    async with issuing() as (issuer, _), running(issuer.url, keys=tmp_path) as (one, _):
        bob, carol = bearer(issuer.token(sub="bob")), b"api-key: " + issuer.token(sub="carol")
        invalid, key = b"x-api-key: " + issuer.token(aud="another"), b"x-api-key: canary-key-of-alice"
        requests = ((bob, key), (carol,), (bob, carol), (bob, key), (carol, bob), (invalid, bob))
        for fields in requests:
            assert (await one.post(TARGET, BODY, *fields)).status == 200
        await until(lambda: len(one.lines()) == len(requests))
        callers = ["alice", "oidc:carol", "oidc:bob", "alice", "oidc:carol", "oidc:bob"]
        assert [line["caller"] for line in one.lines()] == callers


async def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was verified is known by its digest until it ends, and no signature is verified for it again."""
    verified: list[bool] = []
    before = jws.validate_compact

    def counted(*words: Any, **values: Any) -> bool:
        verified.append(True)
        return before(*words, **values)

    monkeypatch.setattr(jws, "validate_compact", counted)
    async with issuing() as (issuer, _), running(issuer.url, clockSkewSeconds=0) as (one, _):
        token, other = issuer.token(), issuer.token(sub="bob")
        for _ in range(3):
            assert await status(one, token) == 200
        assert await status(one, other) == 200
        assert len(verified) == 2
        short = b""
        for seconds in (2, 8, 32):  # the machine may be so busy that a short life ends before the request is there
            del verified[:]
            short = issuer.token(exp=int(time.time()) + seconds)
            if await status(one, short) == 200:
                break
        async with asyncio.timeout(SECONDS + 32):
            while await status(one, short) != 401:
                await asyncio.sleep(0.05)
        assert len(verified) == 1


async def test_keys_are_rotated() -> None:
    """A token of a new key is valid once the issuer has been asked again; those of a key that is gone are not."""
    async with issuing() as (issuer, _), running(issuer.url) as (one, _):
        old, new = issuer.token(), issuer.token(rsa_key("other"))
        assert await status(one, old) == 200
        issuer.keys = [rsa_key("first"), rsa_key("other")]
        assert await status(one, new) == 401
        await until(lambda: len(issuer.asked) == 4)
        async with asyncio.timeout(SECONDS):
            while await status(one, new) != 200:
                await asyncio.sleep(0.01)
        assert await status(one, old) == 200
        issuer.keys = [rsa_key("other")]
        assert await status(one, issuer.token(ec_key("unknown"))) == 401
        async with asyncio.timeout(SECONDS):
            while await status(one, old) != 401:
                await asyncio.sleep(0.01)
        assert await status(one, new) == 200


async def test_keys_are_rotated_under_one_id() -> None:
    """An issuer may give a new key the id of the old one, or no id: a signature that is not valid asks for it again."""
    certs = Issuer().path + "/certs"
    for kid in ("1", None):

        def published(name: str, kid: str | None = kid) -> bytes:
            key = {**rsa_key(name).as_dict(private=False), "kid": kid}
            return page({"keys": [{member: value for member, value in key.items() if value is not None}]})

        header = {"kid": kid}
        async with issuing(Issuer(pages={certs: published("first")})) as (issuer, _), running(issuer.url) as (one, _):
            assert await status(one, issuer.token(header=header)) == 200
            issuer.pages[certs] = published("other")
            new = issuer.token(rsa_key("other"), header=header)
            async with asyncio.timeout(SECONDS):
                while await status(one, new) != 200:
                    await asyncio.sleep(0.01)
            assert await status(one, issuer.token(header=header)) == 401


async def test_a_key_without_an_id_verifies_a_token_that_names_one() -> None:
    """An issuer may publish its key without the id that its tokens name; another key's signature is refused even so."""
    key = {name: value for name, value in rsa_key("first").as_dict(private=False).items() if name != "kid"}
    pages = {Issuer().path + "/certs": page({"keys": [key]})}
    async with issuing(Issuer(pages=pages)) as (issuer, _), running(issuer.url) as (one, _):
        assert await status(one, issuer.token(header={"kid": "2026-11"})) == 200
        assert await status(one, issuer.token(rsa_key("other"), header={"kid": "2026-11"})) == 401


async def test_unknown_keys_do_not_load_the_issuer() -> None:
    """However many tokens name a key that is not known, the issuer is asked once in a pause."""
    async with issuing() as (issuer, _), running(issuer.url, pause=NEVER) as (one, _):
        assert await status(one, issuer.token()) == 200
        for number in range(20):
            assert await status(one, issuer.token(rsa_key("other"), header={"kid": str(number)})) == 401
        assert len(issuer.asked) == 2


async def test_an_issuer_that_is_away() -> None:
    """Without keys a request is 503; the keys that were loaded last stay in force when the issuer is away."""
    port = free_port()
    issuer = Issuer(url=f"http://127.0.0.1:{port}/realms/main")
    async with running(issuer.url) as (one, _):
        response = await one.post(TARGET, BODY, bearer(issuer.token()))
        assert (response.status, response.code, response.value(b"retry-after")) == (503, "access_unavailable", b"1")
        assert await status(one, issuer.token(aud="another")) == 401
    async with issuing() as (issuer, _), running(issuer.url) as (one, _):
        assert await status(one, issuer.token()) == 200
        with capture_logs() as logs:
            issuer.pages[issuer.path + "/certs"] = page({}, b"503 Service Unavailable")
            assert await status(one, issuer.token(rsa_key("other"))) == 401
            await until(lambda: any(line["event"] == "access_issuer_unusable" for line in logs))
            await until(lambda: len(issuer.asked) > 8)
            assert await status(one, issuer.token(sub="bob")) == 200
        told = [line for line in logs if line["event"] == "access_issuer_unusable"]
        assert [(line["issuer"], line["has_keys"]) for line in told] == [(issuer.url, True)]
        assert "responds with 503" in told[0]["reason"]


async def test_a_gateway_without_tokens_loads_nothing_for_them() -> None:
    """What verifies signatures takes memory, so a gateway that takes no tokens does not load it."""
    code = "import sys, gateway.__main__; print([name for name in ('joserfc', 'cryptography') if name in sys.modules])"
    words = (sys.executable, "-c", code)
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"[]\n"


async def test_requests_wait_for_the_first_keys() -> None:
    """While the keys are loaded for the first time a request waits for them, and a token that is of no use does not."""
    gate = asyncio.Event()
    async with issuing(Issuer(gate=gate)) as (issuer, _), running(issuer.url) as (one, _):
        waiting = asyncio.create_task(status(one, issuer.token()))
        await until(lambda: bool(issuer.asked))
        assert await status(one, issuer.token(aud="another")) == 401
        assert not waiting.done()
        gate.set()
        assert await waiting == 200


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (DISCOVERY, page({}, b"302 Found", b"location: /realms/main/certs"), "responds with 302"),
        (DISCOVERY, page(b"<html>"), "no JSON object"),
        (DISCOVERY, page({"issuer": "https://evil.example", "jwks_uri": "x"}), "is of the issuer 'https://evil.exampl"),
        (DISCOVERY, page({"issuer": None, "jwks_uri": "x"}), "is of the issuer null"),
        ("/certs", page({}, b"404 Not Found"), "responds with 404"),
        ("/certs", page(b"x" * (RESPONSE_BYTES + 1)), "is larger than 256 KiB"),
        ("/certs", page(b"x", b"200 OK", b"content-encoding: gzip"), "is compressed"),
        ("/certs", b"no HTTP\r\n\r\n", "connection_broken"),
    ],
)
async def test_what_an_issuer_may_not_respond(path: str, content: bytes, words: str) -> None:
    """A response of the issuer that cannot be used is a reason for the log, and no redirect is followed."""
    async with issuing() as (issuer, _):
        issuer.pages[issuer.path + path] = content
        client = client_of(JwtSettings.model_validate({"issuer": issuer.url, "audiences": ["a"]}))
        with pytest.raises(Exception, match=words):
            await client.load()
        assert len(issuer.asked) == (1 if path == DISCOVERY else 2)


async def test_an_issuer_that_is_slow() -> None:
    """A load has an end, however slowly the issuer sends."""

    async def script(side: Any) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            await side.send(b"x")
            await asyncio.sleep(0.01)

    async with serving(script) as server:
        jwt = JwtSettings.model_validate(
            {"issuer": "https://none.test", "jwksUrl": f"http://127.0.0.1:{server.port}/", "audiences": ["a"]}
        )
        with pytest.raises(Exception, match=r"longer than 0\.3 seconds"):
            await client_of(jwt, timeout_seconds=0.3).load()


async def test_an_authority_of_its_own(tmp_path: Path) -> None:
    """The certificate of an issuer is verified by the authorities in `caFile`, where there are some by no others."""
    authority, other = Authority("issuers"), Authority("others")
    context = server_context(tmp_path, authority)
    (tmp_path / "ca.crt").write_text(authority.pem)
    (tmp_path / "other.crt").write_text(other.pem)
    async with issuing(context=context) as (issuer, _):

        async def load(**values: Any) -> bytes:
            section = {"issuer": issuer.url, "audiences": ["a"], **values}
            return await client_of(JwtSettings.model_validate(section)).load()

        assert b'"keys"' in await load(caFile=str(tmp_path / "ca.crt"))
        for values in ({}, {"caFile": str(tmp_path / "other.crt")}):
            with pytest.raises(Exception, match="tls_failed"):
                await load(**values)
        with pytest.raises(Exception, match=r"none\.crt cannot be read"):
            await load(caFile=str(tmp_path / "none.crt"))


async def test_keys_of_an_encrypted_issuer_are_asked_for_encrypted(tmp_path: Path) -> None:
    """An issuer at https that names an address of its keys at http is not believed."""
    authority = Authority("issuers")
    context = server_context(tmp_path, authority)
    (tmp_path / "ca.crt").write_text(authority.pem)
    async with issuing(context=context) as (issuer, _):
        issuer.pages[issuer.path + DISCOVERY] = page({"issuer": issuer.url, "jwks_uri": "http://localhost/certs"})
        section = {"issuer": issuer.url, "audiences": ["a"], "caFile": str(tmp_path / "ca.crt")}
        with pytest.raises(Exception, match="no usable jwks_uri: 'http://localhost/certs'"):
            await client_of(JwtSettings.model_validate(section)).load()


async def test_a_refusal_is_counted_by_no_name() -> None:
    """A request whose token is refused has no caller in the log, whatever name the token claims."""
    async with issuing() as (issuer, _), running(issuer.url, document()) as (one, _):
        assert await status(one, issuer.token(rsa_key("other"), header={"kid": "first"}, sub="mallory")) == 401
        await until(lambda: len(one.lines()) == 1)
        assert "mallory" not in one.log.getvalue()
        assert one.count("beamlit_gateway_refused_requests_total", code="unauthorized") == 1
