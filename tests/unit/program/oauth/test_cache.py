"""One token for all who wait, and what becomes of it when it ends, is refused or is of another client."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from program.oauth.cache import Pacing, TokenCache
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token

PACING = Pacing(wait=1.0, refused=60.0, failed=60.0, refresh=60.0)


class Source:
    """Gives tokens that are counted, or fails."""

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
    """A source that works."""
    return Source()


@pytest.fixture
async def cache(source: Source) -> AsyncIterator[TokenCache]:
    """A cache with long pauses."""
    cache = TokenCache(source.fetch, PACING, lambda: {"kind": "test"})
    yield cache
    await cache.close()


async def test_a_token_is_fetched_once(cache: TokenCache, source: Source) -> None:
    """All who wait get one token, and so do those who come later."""
    values = await asyncio.gather(*(cache.authorization() for _ in range(50)))
    assert set(values) == {b"Bearer t1"}
    assert await cache.authorization() == b"Bearer t1"
    assert source.fetched == 1
    assert "t1" not in repr(cache)


async def test_ready_is_the_token_while_nothing_has_to_be_done(cache: TokenCache) -> None:
    """A token in the last fifth of its life is not ready: it is to be renewed."""
    assert cache.ready(0.0) == b""
    await cache.authorization()
    assert cache.ready(cache.renew_at - 1) == b"Bearer t1"
    assert cache.ready(cache.renew_at) == b""
    life = cache.ends_at - cache.renew_at
    assert 3600 * 0.2 <= life <= 3600 * 0.25 + 1


async def test_a_caller_that_goes_away_takes_the_token_from_none(cache: TokenCache, source: Source) -> None:
    """The fetch goes on for the others."""
    source.gate.clear()
    first, second = (asyncio.ensure_future(cache.authorization()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == b"Bearer t1"


async def test_a_failure_is_told_to_all_and_the_pause_is_kept(cache: TokenCache, source: Source) -> None:
    """Each caller gets an error of its own, one line is logged, and the endpoint is not asked again at once."""
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
    """Each has a pause of its own."""
    cache = TokenCache(source.fetch, Pacing(1.0, refused=60.0, failed=0.0, refresh=0.0), dict)
    source.error = TokenUnavailable("x", status=status)
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await cache.authorization()
    assert source.fetched == fetched


async def test_who_waits_is_let_go(source: Source) -> None:
    """After the longest wait there is no token for the caller; the fetch goes on, and the token is used."""
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
    """A token whose life is over when it arrives is none."""
    source.life = 0.0
    with pytest.raises(TokenUnavailable, match="token_ended"):
        await cache.authorization()


async def test_a_renewal_that_fails_leaves_the_token(cache: TokenCache, source: Source) -> None:
    """The old token is used until its end, and the next renewal waits."""
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
    """Of many callers with the same refused value one fetches; within the pause the new one is not replaced again."""
    refused = await cache.authorization()
    assert set(await asyncio.gather(*(cache.authorization(refused) for _ in range(20)))) == {b"Bearer t2"}
    assert await cache.authorization(refused) == b"Bearer t2"
    assert await cache.authorization(b"Bearer t2") == b"Bearer t2"
    assert source.fetched == 2


async def test_a_refused_token_is_not_returned_when_it_cannot_be_replaced(cache: TokenCache, source: Source) -> None:
    """The callers that saw the refusal get none; others still get the token."""
    refused = await cache.authorization()
    source.error = TokenUnavailable("x")
    for _ in range(2):
        with pytest.raises(TokenUnavailable):
            await cache.authorization(refused)
    assert source.fetched == 2
    assert await cache.authorization() == refused


async def test_a_withdrawn_client_loses_its_token(cache: TokenCache, source: Source) -> None:
    """When the credentials are gone, so is what they bought."""
    await cache.authorization()
    cache.renew_at = 0.0
    source.error = TokenUnavailable("credential_missing")
    await cache.authorization()
    await asyncio.gather(*cache._tasks)
    assert cache.value == b""
    with pytest.raises(TokenUnavailable):
        await cache.authorization()


async def test_another_client_gets_another_token(cache: TokenCache, source: Source) -> None:
    """A token that is on its way for the client before is not the new one's, whichever comes first."""
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


async def test_close_cancels_what_is_under_way(cache: TokenCache, source: Source) -> None:
    """Nothing is left running."""
    source.gate.clear()
    waiting = asyncio.ensure_future(cache.authorization())
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
