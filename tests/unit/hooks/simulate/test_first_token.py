"""Overflow by time to first token in the plant: the limit finds what replicas can do, and a fall brings all back."""

import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from hooks.simulate.outcome import percentile
from hooks.simulate.request_plant import Engine, RequestPlant
from hooks.simulate.requests import Request
from tests.unit.hooks.simulate.worlds import plant_of, ran

TARGET: Final = 2.0
STEP: Final = 60.0
"""Time at which the load steps up."""
SETTLED: Final = STEP + 30.0
"""Time from which on first tokens come in time."""
FALL: Final = 660.0
"""Time at which the load falls."""
END: Final = 900.0
ENGINE: Final = Engine(speed=960.0, batch=32)
"""A replica with 32 places of 30 tokens a second each."""
LONG: Final = Engine(speed=2560.0, batch=128)
TOKENS: Final = 150


class Course(NamedTuple):
    """What became of the requests that came in a time."""

    p95: float
    """95th percentile of the local first tokens, in seconds."""
    remote: float
    """Part of the requests that went away, in percent."""


def requests(rate: Callable[[float], float], tokens: int = TOKENS, seed: int = 1) -> Iterator[Request]:
    """Yield requests that come at random at a rate, with prompts and completions of random length."""
    draw, time = random.Random(seed), 0.0
    while True:
        time += draw.expovariate(rate(time))
        if time >= END:
            return
        yield Request(time, round(draw.expovariate(1 / 300)), 1 + round(draw.expovariate(1 / tokens)))


def course(plant: RequestPlant, begin: float, end: float) -> Course:
    """Return what became of the requests that came in a time."""
    numbers = [number for number, one in enumerate(plant.world.requests) if begin <= one.time < end]
    local = sorted(plant.first_tokens[number] for number in numbers if not plant.remote[number])
    return Course(percentile(local, 95) or 0.0, 100 * sum(plant.remote[number] for number in numbers) / len(numbers))


@pytest.mark.parametrize(
    ("engine", "replicas", "tokens", "seed"), [(ENGINE, 1, TOKENS, 1), (ENGINE, 3, 2 * TOKENS, 2), (LONG, 1, TOKENS, 3)]
)
def test_a_step_of_load(engine: Engine, replicas: int, tokens: int, seed: int) -> None:
    """Half a minute after a step to 1.5 times of capacity first tokens are in time and stay it; a fall brings all back.

    No more requests go away than have to, give or take 10 points.
    """
    capacity = engine.speed * replicas / tokens

    def rate(time: float) -> float:
        return capacity * (0.8 if time < STEP else 1.5 if time < FALL else 0.6)

    world = list(requests(rate, tokens, seed))
    plant = ran(plant_of(world, engine, replicas=replicas, overflow=500, first_token=TARGET), END)
    assert course(plant, 0, STEP).remote == 0
    overloaded = course(plant, SETTLED, FALL)
    assert overloaded.p95 < TARGET
    assert abs(overloaded.remote - 100 * (1 - 1 / 1.5)) < 10
    for begin in range(int(SETTLED), int(FALL) - 119, 120):
        assert course(plant, begin, begin + 120).p95 < 1.1 * TARGET
    back = course(plant, FALL + 60, END)
    assert (back.remote, back.p95 < TARGET) == (0, True)


def test_without_a_target() -> None:
    """By the number in flight alone the same step makes first tokens as late as the limit lets them."""
    capacity = ENGINE.speed / TOKENS
    world = list(requests(lambda time: capacity * (0.8 if time < STEP else 1.5)))
    plant = ran(plant_of(world, ENGINE, overflow=200), END)
    assert course(plant, SETTLED + 120, END).p95 > 10 * TARGET


def test_lone_slow_prompts() -> None:
    """Prompts that take longer than the target and are alone at the replica cut nothing, and none goes away."""
    world = [Request(number * 10.0, 40_000, 10) for number in range(80)]
    plant = ran(plant_of(world, ENGINE, overflow=8, first_token=TARGET), END)
    assert plant.limit is not None
    assert (plant.limit.last, sum(plant.remote), min(plant.first_tokens)) == (None, 0, 4.0)


def test_slow_prompts_among_others() -> None:
    """A slow prompt now and then, among requests that the replica has room for, cuts nothing either."""
    calm = requests(lambda _: 0.5 * ENGINE.speed / TOKENS)
    slow = (Request(5.0 + number * 30, 30_000, 50) for number in range(29))
    world = sorted([*calm, *slow], key=lambda one: one.time)
    plant = ran(plant_of(world, ENGINE, overflow=200, first_token=TARGET), END)
    assert plant.limit is not None
    assert (plant.limit.last, sum(plant.remote)) == (None, 0)
