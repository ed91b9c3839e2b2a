"""Token cache: one token for all callers, and what happens when it ends, is refused or belongs to another client."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from program.oauth.cache import Pacing, TokenCache
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token

PACING = Pacing(wait=1.0, refused=60.0, failed=60.0, refresh=60.0)


class Source:
    """Source of numbered tokens, which can be made to fail or to wait."""

    def __init__(self) -> None:
        self.fetched = 0
        self.life = 3600.0
        self.error: TokenUnavailable | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Token:
        """Return the next token."""
        self.fetched += 1
        number = self.fetched
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Token(f"t{number}", self.life)


@pytest.fixture
def source() -> Source:
    """Return a source that works."""
    return Source()


@pytest.fixture
async def cache(source: Source) -> AsyncIterator[TokenCache]:
    """Yield a cache with long pauses."""
    cache = TokenCache(source.fetch, PACING, lambda: {"kind": "test"})
    yield cache
    await cache.close()


async def test_a_token_is_fetched_once(cache: TokenCache, source: Source) -> None:
    """All callers that wait get one token, and so do later ones."""
    values = await asyncio.gather(*(cache.authorization() for _ in range(50)))
    assert set(values) == {b"Bearer t1"}
    assert await cache.authorization() == b"Bearer t1"
    assert source.fetched == 1
    assert "t1" not in repr(cache)


async def test_ready_is_the_token_while_nothing_has_to_be_done(cache: TokenCache) -> None:
    """`ready` returns the token until it is due for renewal, after three quarters to four fifths of its life."""
    assert cache.ready(0.0) == b""
    await cache.authorization()
    assert cache.ready(cache.renew_at - 1) == b"Bearer t1"
    assert cache.ready(cache.renew_at) == b""
    life = cache.ends_at - cache.renew_at
    assert 3600 * 0.2 <= life <= 3600 * 0.25 + 1


async def test_a_caller_that_is_cancelled_does_not_stop_the_fetch(cache: TokenCache, source: Source) -> None:
    """The fetch goes on for the other callers when one of them is cancelled."""
    source.gate.clear()
    first, second = (asyncio.ensure_future(cache.authorization()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == b"Bearer t1"


async def test_a_failure_reaches_all_callers_and_begins_a_pause(cache: TokenCache, source: Source) -> None:
    """After a failure each caller gets an error of its own, one line is logged, and no request is sent for a pause."""
    source.error = TokenUnavailable("token_status_503", status=503)
    with structlog.testing.capture_logs() as lines:
        results = await asyncio.gather(*(cache.authorization() for _ in range(3)), return_exceptions=True)
        with pytest.raises(TokenUnavailable):
            await cache.authorization()
    assert len({id(one) for one in results}) == 3
    assert source.fetched == 1
    expected = {"event": "token_unavailable", "kind": "test", "reason": "token_status_503", "status": 503}
    assert [line.items() >= expected.items() for line in lines] == [True]


@pytest.mark.parametrize(("status", "fetched"), [(401, 1), (503, 2)])
async def test_pauses_after_a_refusal_and_after_another_failure(source: Source, status: int, fetched: int) -> None:
    """The pause after a refusal and that after another failure are separate settings."""
    cache = TokenCache(source.fetch, Pacing(1.0, refused=60.0, failed=0.0, refresh=0.0), dict)
    source.error = TokenUnavailable("x", status=status)
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await cache.authorization()
    assert source.fetched == fetched


async def test_a_caller_waits_for_a_bounded_time(source: Source) -> None:
    """After the longest wait the caller gets an error; the fetch goes on, and its token is used later."""
    cache = TokenCache(source.fetch, Pacing(0.05, 60.0, 60.0, 60.0), dict)
    source.gate.clear()
    with pytest.raises(TokenUnavailable, match="token_late"):
        await cache.authorization()
    assert cache.busy
    source.gate.set()
    await asyncio.gather(*cache._tasks)
    assert not cache.busy
    assert await cache.authorization() == b"Bearer t1"


async def test_a_token_that_ends_at_once_is_not_returned(cache: TokenCache, source: Source) -> None:
    """A token whose life is over when it arrives is an error."""
    source.life = 0.0
    with pytest.raises(TokenUnavailable, match="token_ended"):
        await cache.authorization()


async def test_a_renewal_that_fails_leaves_the_token(cache: TokenCache, source: Source) -> None:
    """When a renewal fails, the old token is used until its end, and the next renewal waits."""
    await cache.authorization()
    cache.renew_at = 0.0
    source.error = TokenUnavailable("x")
    for _ in range(3):
        assert await cache.authorization() == b"Bearer t1"
        await asyncio.gather(*cache._tasks)
    assert source.fetched == 2
    cache.ends_at = 0.0
    with pytest.raises(TokenUnavailable):
        await cache.authorization()


async def test_a_refused_token_is_replaced_once(cache: TokenCache, source: Source) -> None:
    """Many callers with the same refused token cause one fetch, and within the pause the new token is not replaced."""
    refused = await cache.authorization()
    assert set(await asyncio.gather(*(cache.authorization(refused) for _ in range(20)))) == {b"Bearer t2"}
    assert await cache.authorization(refused) == b"Bearer t2"
    assert await cache.authorization(b"Bearer t2") == b"Bearer t2"
    assert source.fetched == 2


async def test_a_refused_token_is_not_returned_when_it_cannot_be_replaced(cache: TokenCache, source: Source) -> None:
    """Callers that saw the refusal of a token get an error when it cannot be replaced; others still get the token."""
    refused = await cache.authorization()
    source.error = TokenUnavailable("x")
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await cache.authorization(refused)
    assert source.fetched == 2
    assert await cache.authorization() == refused


async def test_a_withdrawn_client_loses_its_token(cache: TokenCache, source: Source) -> None:
    """When the credentials are gone, the token that they gave is dropped."""
    await cache.authorization()
    cache.renew_at = 0.0
    source.error = TokenUnavailable("credential_missing")
    await cache.authorization()
    await asyncio.gather(*cache._tasks)
    assert cache.value == b""
    with pytest.raises(TokenUnavailable):
        await cache.authorization()


async def test_another_client_gets_another_token(cache: TokenCache, source: Source) -> None:
    """A token that was requested for the previous client is not used for the new one, whichever comes first."""
    source.gate.clear()
    before = asyncio.ensure_future(cache.authorization())
    await asyncio.sleep(0)
    cache.forget()
    after = asyncio.ensure_future(cache.authorization())
    await asyncio.sleep(0)
    source.gate.set()
    assert await after == b"Bearer t2"
    await asyncio.gather(before, return_exceptions=True)
    assert await cache.authorization() == b"Bearer t2"
    assert source.fetched == 2


async def test_close_cancels_the_running_fetch(cache: TokenCache, source: Source) -> None:
    """Closing the cache cancels a running fetch and its callers."""
    source.gate.clear()
    waiting = asyncio.ensure_future(cache.authorization())
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
