"""Generators of requests: a load that is described in one line instead of a trace.

Requests arrive at random times of a Poisson process, whose rate is a function of the time, and have random numbers of
tokens (geometric, the mean being given). Random numbers come from a function, so that the same seed gives the same
requests.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hooks.simulate.durations import DURATION, duration
from hooks.simulate.requests import MOST_REQUESTS, Request, TooMany
from program.problems import listed

Rate = Callable[[float], float]
"""A function that returns the requests per second at a time."""


class BadLoad(ValueError):
    """The description of a load cannot be used. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Described:
    """A load as it was described."""

    rate: Rate
    highest: float
    """Largest rate there may be."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of load: its parameters with their defaults, and how its rate follows from them."""

    rates: Mapping[str, float | None]
    """Parameters in requests per second; None where one must be given."""
    times: Mapping[str, float | None]
    """Parameters in seconds."""
    make: Callable[[Mapping[str, float]], Rate]
    words: str


def _step(given: Mapping[str, float]) -> Rate:
    low, high, start, end = given["from"], given["to"], given["at"], given["until"]
    return lambda now: high if start <= now < end else low


def _ramp(given: Mapping[str, float]) -> Rate:
    low, high, start, end = given["from"], given["to"], given["at"], given["until"]

    def rate(now: float) -> float:
        if now >= end:
            return high
        return low if now <= start else low + (high - low) * (now - start) / (end - start)

    return rate


def _diurnal(given: Mapping[str, float]) -> Rate:
    low, high, period = given["low"], given["high"], given["period"]
    return lambda now: low + (high - low) * (1 - math.cos(2 * math.pi * now / period)) / 2


def _bursts(given: Mapping[str, float]) -> Rate:
    base, burst, every, length = given["base"], given["burst"], given["every"], given["length"]
    return lambda now: burst if now % every >= every - length else base


_HOUR: Final = 3600.0
KINDS: Final[Mapping[str, _Kind]] = {
    "step": _Kind(
        {"from": None, "to": None},
        {"at": 600.0, "until": math.inf},
        _step,
        "step,from=1,to=4,at=10m,until=40m",
    ),
    "ramp": _Kind(
        {"from": None, "to": None},
        {"at": 0.0, "until": _HOUR},
        _ramp,
        "ramp,from=1,to=8,at=10m,until=50m",
    ),
    "diurnal": _Kind(
        {"low": None, "high": None},
        {"period": 24 * _HOUR},
        _diurnal,
        "diurnal,low=1,high=8,period=24h",
    ),
    "bursts": _Kind(
        {"base": None, "burst": None},
        {"every": 900.0, "length": 60.0},
        _bursts,
        "bursts,base=2,burst=10,every=15m,length=60s",
    ),
}
"""Kinds of loads by their names."""


def describe(text: str) -> Described:
    """Return the load that a text describes, such as `step,from=2,to=8,at=10m`.

    Raises:
        BadLoad: it describes none.
    """
    name, *parts = [part.strip() for part in text.split(",")]
    kind = KINDS.get(name)
    if kind is None:
        raise BadLoad(f"must begin with {listed(list(KINDS))}, as in {KINDS['step'].words}")
    known = {**kind.rates, **kind.times}
    given: dict[str, float] = {key: value for key, value in known.items() if value is not None}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise BadLoad(f"has {part!r}: a {name} has {listed(list(known), 'and')}, as in {kind.words}")
        given[key] = _rate(key, value) if key in kind.rates else _time(key, value)
    if missing := [key for key in known if key not in given]:
        raise BadLoad(f"needs {listed([f'{key}=' for key in missing], 'and')}, as in {kind.words}")
    _check(name, given)
    return Described(kind.make(given), max(given[key] for key in kind.rates))


def _check(name: str, given: Mapping[str, float]) -> None:
    if name in ("step", "ramp") and given["until"] <= given["at"]:
        raise BadLoad("must have an until= that is later than at=")
    if name == "diurnal" and given["period"] <= 0:
        raise BadLoad("must have a period= that is longer than 0")
    if name == "bursts" and not 0 < given["length"] <= given["every"]:
        raise BadLoad("must have a length= that is longer than 0 and no longer than every=")


def _rate(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 100_000:
        raise BadLoad(f"must have requests per second from 0 to 100000 as {key}=, not {value!r}")
    return number


def _time(key: str, value: str) -> float:
    seconds = duration(value)
    if seconds is None:
        raise BadLoad(f"must have {DURATION} as {key}=, not {value!r}")
    return seconds


def generate(
    load: Described, seconds: float, *, prompt: float, generated: float, draw: Callable[[], float]
) -> list[Request]:
    """Return the requests that arrive in a time.

    Args:
        load: the load.
        seconds: length of the time.
        prompt: tokens of a prompt on average, at least 1.
        generated: tokens of a completion on average, at least 1.
        draw: returns a random number from 0 to less than 1.

    Raises:
        TooMany: there are too many requests.
    """
    requests: list[Request] = []
    now, highest = 0.0, load.highest
    while highest > 0:
        now -= math.log(1 - draw()) / highest
        if now >= seconds:
            break
        # Thinning (Lewis and Shedler 1979): of the times of the highest rate, as many stay as the rate is of it.
        if draw() * highest < load.rate(now):
            requests.append(Request(now, _tokens(prompt, draw()), _tokens(generated, draw())))
            if len(requests) > MOST_REQUESTS:
                raise TooMany(f"has more than {MOST_REQUESTS:,} requests: lower its rate, or the duration")
    return requests


def _tokens(mean: float, number: float) -> int:
    """Return a number of tokens: geometric, at least 1."""
    return 1 if mean <= 1 else 1 + int(math.log(1 - number) / math.log(1 - 1 / mean))
