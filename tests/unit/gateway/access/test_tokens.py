"""Tokens: whatever bytes come in the place of one, the refusal is an error of the client."""

import asyncio
import base64
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt

from gateway import errors
from gateway.access.caller import Caller
from gateway.access.issuer import Issuer, KeysUnavailable
from gateway.access.remembered import MOST_TOKENS, RememberedTokens
from gateway.access.signing_keys import SigningKeys
from gateway.access.tokens import TokenRules, Tokens
from tests.deadlines import NEVER, SECONDS
from tests.integration.issuer import ec_key

RULES = TokenRules("https://issuer.test", ("beamlit",), ("ES256", "RS256"), "sub", "groups", frozenset(), 0)


class Loaded(Issuer):
    """Issuer whose keys are there."""

    def __init__(self) -> None:
        super().__init__("https://issuer.test", self.none)
        self._keys = SigningKeys(orjson.dumps({"keys": [ec_key("first").as_dict(private=False)]}))

    async def none(self) -> bytes:
        """Return nothing: it is not asked for."""
        return b""


def encoded(value: Any) -> bytes:
    """Return a part of a token."""
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else orjson.dumps(value)).rstrip(b"=")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk", "jku", "x5c", "exp", "nbf", "iat", "iss", "aud"])
HEADERS = st.fixed_dictionaries({"alg": st.sampled_from(["ES256", "RS256", "HS256", "none"]) | JSON}).flatmap(
    lambda first: st.dictionaries(NAMES, JSON, max_size=3).map(lambda more: {**more, **first})
)
VALID = {"iss": "https://issuer.test", "aud": "beamlit", "exp": 2**40, "sub": "alice"}
CLAIMS = st.dictionaries(NAMES, JSON, max_size=3).map(lambda some: {**VALID, **some}) | JSON
PART = st.binary(max_size=40)
TOKENS = (
    st.builds(lambda *parts: b".".join(map(encoded, parts)), HEADERS, CLAIMS, PART)
    | st.builds(lambda *parts: b".".join(map(encoded, parts)), JSON, PART, PART)
    | st.builds(lambda *parts: b".".join(parts), PART, PART, PART)
)


@settings(max_examples=300, deadline=None)
@given(TOKENS)
def test_any_bytes_are_refused(token: bytes) -> None:
    """Bytes that the issuer has not signed are never valid, and raise nothing but the refusal."""
    with pytest.raises(errors.TokenRefused):
        asyncio.run(Tokens(RULES, Loaded()).caller(token, b""))


@pytest.mark.parametrize("end", [1e300, 10**400, 2**63])
async def test_an_end_that_is_far_away_is_one(end: float) -> None:
    """A token whose `exp` is larger than any time is verified again after a while, as every other one."""
    claims = {**VALID, "exp": end}
    token = jwt.encode({"alg": "ES256", "kid": "first"}, claims, ec_key("first"), ["ES256"]).encode()
    now = time.time()
    tokens = Tokens(RULES, Loaded(), clock=lambda: now)
    assert (await tokens.caller(token, b"digest")).name == "oidc:alice"
    assert tokens.remembered(b"digest") is not None
    now += 4000
    assert tokens.remembered(b"digest") is None


async def test_a_wait_for_the_first_keys_has_an_end() -> None:
    """A request waits for a bounded time while keys are loaded for the first time, and not at all after a failure."""

    async def hang() -> bytes:
        await asyncio.sleep(NEVER)
        return b""

    async def fail() -> bytes:
        raise KeysUnavailable("the issuer is away")

    for load, seconds in ((hang, 0.01), (fail, NEVER)):
        issuer = Issuer("https://issuer.test", load, wait_seconds=seconds, pause_seconds=NEVER, retry_seconds=NEVER)
        task = asyncio.create_task(issuer.watch())
        async with asyncio.timeout(SECONDS):
            with pytest.raises(errors.IssuerUnavailable) as refused:
                await issuer.keys()
        assert refused.value.retry_after == 1
        task.cancel()


def test_tokens_that_are_remembered_have_a_bound() -> None:
    """Of too many tokens the oldest is forgotten; one that has ended is, too."""
    remembered = RememberedTokens()
    caller = Caller("oidc:alice")
    for number in range(MOST_TOKENS + 5):
        remembered.add(b"%d" % number, caller, 10.0)
    assert len(remembered) == MOST_TOKENS
    assert remembered.find(b"4", 5.0) is None
    assert remembered.find(b"5", 5.0) is caller
    assert remembered.find(b"5", 10.0) is None
    assert len(remembered) == MOST_TOKENS - 1
    remembered.clear()
    assert len(remembered) == 0
