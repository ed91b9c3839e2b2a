"""Generators: the rate of arrivals follows what was described."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.simulate import generators
from hooks.simulate.durations import duration, written
from hooks.simulate.generators import BadLoad, Described, describe, generate
from hooks.simulate.requests import Request, TooMany


def requests_of(load: Described, seconds: float, seed: int = 1) -> list[Request]:
    """Return requests of 1,000 and 200 tokens on average."""
    return generate(load, seconds, prompt=1000, generated=200, draw=random.Random(seed).random)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("step,from=2,to=8,at=10m,until=40m", {0: 2, 599: 2, 600: 8, 2399: 8, 2400: 2}),
        ("step,from=2,to=8", {599: 2, 600: 8, 1e9: 8}),
        ("ramp,from=1,to=5,at=100,until=300", {0: 1, 100: 1, 200: 3, 300: 5, 400: 5}),
        ("ramp,from=5,to=1,at=0,until=100s", {0: 5, 50: 3, 100: 1}),
        ("diurnal,low=2,high=6,period=24h", {0: 2, 21600: 4, 43200: 6, 86400: 2}),
        ("bursts,base=1,burst=9,every=15m,length=60s", {0: 1, 839: 1, 840: 9, 899: 9, 900: 1}),
        (" bursts , base=1 , burst=9 ", {0: 1, 840: 9}),
    ],
)
def test_rates(text: str, rates: dict[float, float]) -> None:
    """The rate of a load is what its description says."""
    load = describe(text)
    assert {now: pytest.approx(load.rate(now)) for now in rates} == rates
    assert load.highest >= max(rates.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steady", "must begin with step, ramp, diurnal or bursts, as in step,from=1,to=4,at=10m,until=40m"),
        ("step,from=1", "needs to=, as in step,from=1,to=4,at=10m,until=40m"),
        ("step", "needs from= and to=, as in step,from=1,to=4,at=10m,until=40m"),
        ("step,from=1,to=x", "must have requests per second from 0 to 100000 as to=, not 'x'"),
        ("step,from=1,to=-2", "must have requests per second from 0 to 100000 as to=, not '-2'"),
        ("step,from=1,to=2,at=soon", "must have a length of time such as 30s, 10m or 1.5h as at=, not 'soon'"),
        ("step,from=1,to=2,at=10,until=5", "must have an until= that is later than at="),
        ("diurnal,low=1,high=2,period=0", "must have a period= that is longer than 0"),
        ("bursts,base=1,burst=2,every=10,length=20", "must have a length= that is longer than 0 and no longer than"),
        ("ramp,from=1,to=2,high=3", "has 'high=3': a ramp has from, to, at and until, as in ramp,from=1"),
    ],
)
def test_what_cannot_be_used(text: str, message: str) -> None:
    """A description that cannot be used is refused with what to write."""
    with pytest.raises(BadLoad) as caught:
        describe(text)
    assert str(caught.value).startswith(message)


def test_numbers_of_requests_and_tokens() -> None:
    """As many requests arrive as the rate says, and their tokens are as many as was asked for, on average."""
    requests = requests_of(describe("step,from=2,to=10,at=500,until=2000"), 1000)
    low = [one for one in requests if one.time < 500]
    assert len(low) == pytest.approx(1000, rel=0.1)
    assert len(requests) - len(low) == pytest.approx(5000, rel=0.05)
    assert sum(one.prompt for one in requests) / len(requests) == pytest.approx(1000, rel=0.05)
    assert sum(one.generated for one in requests) / len(requests) == pytest.approx(200, rel=0.05)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.sampled_from(["step,from=0,to=3,at=10", "bursts,base=0,burst=9,every=30,length=5"]))
def test_generated_requests(seed: int, text: str) -> None:
    """Requests arrive in order, within the time and while there is a load, each with tokens; a seed gives the same."""
    load = describe(text)
    requests = requests_of(load, 60, seed)
    assert requests == sorted(requests, key=lambda one: one.time) == requests_of(load, 60, seed)
    assert all(0 <= one.time < 60 and load.rate(one.time) > 0 for one in requests)
    assert all(one.prompt >= 1 and one.generated >= 1 for one in requests)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load with too many requests is refused, and one without any has none."""
    monkeypatch.setattr(generators, "MOST_REQUESTS", 10)
    with pytest.raises(TooMany, match="has more than 10 requests"):
        requests_of(describe("step,from=100,to=100"), 60)
    assert requests_of(describe("step,from=0,to=0"), 60) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800), (" 5m ", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    """A length of time is read in the unit that stands behind it."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5", "1e3", "5 m", "inf", "5x", "9" * 30])
def test_no_durations(text: str) -> None:
    """Anything else is no length of time."""
    assert duration(text) is None


def test_lengths_in_words() -> None:
    """A length of time is printed with a unit that fits it."""
    times = (0.0534, 1.25, 99.9, 150, 3600, 5400)
    assert [written(one) for one in times] == ["53 ms", "1.2 s", "99.9 s", "2 min", "1 h", "1 h 30 min"]
