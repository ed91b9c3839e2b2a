"""The way back in the closed loop: whatever the metric is like, requests come back when they fit, and few changes are
made while they do not."""

from dataclasses import replace
from typing import Any

import pytest

from hooks import reasons
from hooks.simulate.plant import Autoscaler, Pipeline, Shape
from tests.closed_loop.loops import Case, Course, back_after, between, new_loop, pairwise, steps

WINDOW = 300.0
"""Seconds of a window at defaults."""
HOUR = 3600.0
SHAPES: dict[str, dict[str, Any]] = {
    "linear": {},
    "saturating": {"limit": 1.25},
    "queue": {"shape": Shape.QUEUE},
}


@pytest.mark.parametrize("percentage", [25, 50, 75, 90, 100])
@pytest.mark.parametrize("idle", [0.0, 0.14, 0.225, 0.45, 0.7, 0.85])
def test_idle_usage_never_sticks(percentage: int, idle: float) -> None:
    """When the load is gone, every request is back within 7.15 windows, though idle replicas use up to 85 percent of
    the target."""
    loop = new_loop(steps((0, 3.0), (1200, 0.0)), spec={"percentage": percentage}, idle=idle)
    loop.run(1200)
    assert loop.share > 0
    assert back_after(loop, 1200, 10 * WINDOW) <= 7.15 * WINDOW, loop.changes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentage", [50, 75, 100])
def test_a_load_that_lasts_is_tried_less_and_less(shape: str, percentage: int) -> None:
    """At a steady 1.5 times of capacity three hours see 16 changes at most, and after the first hour one attempt in
    eight windows, alike for a linear metric, one that saturates, and a queue."""
    loop = new_loop(1.5, spec={"percentage": percentage}, **SHAPES[shape])
    loop.run(3 * HOUR)
    assert len(loop.changes) <= 16, loop.changes
    assert len(between(loop, HOUR)) <= 7


@pytest.mark.parametrize("percentage", [50, 75, 90, 100])
def test_a_queue_that_lasts_is_tried_less_and_less_in_mode_proportional(percentage: int) -> None:
    """In mode proportional, a queue at a steady 1.5 times of capacity is tried once in eight windows after the first
    hour, though what has piled up while a step was too much may ask for more than that step."""
    loop = new_loop(1.5, spec={"percentage": percentage, "mode": "proportional"}, **SHAPES["queue"])
    loop.run(3 * HOUR)
    late = between(loop, HOUR - 2 * WINDOW)
    shares = [change.share for change in late]
    attempts = sum(before < top > after for before, top, after in zip(shares, shares[1:], shares[2:], strict=False))
    assert attempts <= 4, loop.changes
    assert len(loop.changes) <= 30, loop.changes


@pytest.mark.parametrize("percentage", [50, 75, 100])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_proportional_share_at_rest_writes_nothing(percentage: int, noise: float) -> None:
    """In mode proportional a load that lasts makes two changes, and with two percent of noise nothing is written in the
    hours that follow."""
    spec = {"percentage": percentage, "mode": "proportional"}
    loop = new_loop(1.5, spec=spec, pipeline=Pipeline(noise=noise))
    loop.run(HOUR)
    assert len(loop.changes) == 2
    writes = len(loop.writes)
    loop.run(3 * HOUR)
    assert len(loop.writes) == writes


@pytest.mark.parametrize("before", [1.6, 1.7, 1.9, 2.0])
def test_a_proportional_share_that_came_down_rests(before: int) -> None:
    """In mode proportional, noise around the target less the tolerance neither moves the share nor changes the reason
    after the load has fallen."""
    spec = {"mode": "proportional"}
    loop = new_loop(steps((0, before), (HOUR, 1.5)), spec=spec, pipeline=Pipeline(noise=0.02))
    loop.run(3 * HOUR)
    writes = len(loop.writes)
    loop.run(5 * HOUR)
    assert len(loop.writes) == writes


@pytest.mark.parametrize("load", [1.9, 1.96, 2.0, 2.04, 2.5])
def test_a_fixed_share_at_rest_writes_nothing(load: float) -> None:
    """In mode fixed, a metric that stays near its target or above it while half of the requests are offloaded writes
    nothing, although its noise crosses the target."""
    loop = new_loop(load, spec={"percentage": 50}, pipeline=Pipeline(noise=0.02))
    loop.run(HOUR)
    writes = len(loop.writes)
    loop.run(2 * HOUR)
    assert (loop.share, len(loop.writes)) == (50, writes)


@pytest.mark.parametrize("load", [1.2, 1.5, 2.5])
def test_the_sentence_at_rest_is_true(load: float) -> None:
    """Whenever the share is at rest, its sentence says so: of a metric that keeps it up, or of an attempt to come."""
    loop = new_loop(load, spec={"percentage": 100})
    for _ in range(480):
        loop.run(loop.plant.now + 30)
        state = loop.state
        if not state["percentage"]:
            continue
        if state["reason"] == reasons.RELEASING:
            assert state["message"].startswith("The metrics are below their targets: as long as they stay there")
            assert state["metrics"][0]["state"] in ("Below", reasons.SETTLING)
        else:
            assert state["message"].endswith("not all are far enough below theirs for requests to come back.")
            assert state["metrics"][0]["state"] in ("Reached", "Between", reasons.SETTLING)


@pytest.mark.parametrize("mode", ["fixed", "proportional"])
def test_scaling_changes_nothing_at_rest(mode: str) -> None:
    """An autoscaler that adds replicas while requests are offloaded makes room for all of them, and nothing is sent
    away again."""
    loop = new_loop(
        steps((0, 0.3), (600, 3.0)), spec={"mode": mode}, autoscaler=Autoscaler(), pipeline=Pipeline(delay=30)
    )
    loop.run(3 * HOUR)
    assert loop.share == 0
    assert loop.plant.ready * 0.72 > 3.0
    assert between(loop, 2 * HOUR) == []


def peak(percentage: int, cycles: int) -> list[list[int]]:
    """Return the shares of each cycle of a load that is high for five minutes."""
    length = 2100.0
    edges = [(number * length + moment, load) for number in range(cycles) for moment, load in ((60, 1.5), (360, 0.3))]
    spec = {"percentage": percentage, "releaseWindowSeconds": 60}
    loop = new_loop(steps((0, 0.3), *edges), spec=spec, idle=0.05)
    shares = []
    for number in range(cycles):
        loop.run(number * length + 360 + 12 * 75)
        assert loop.share == 0
        changes = between(loop, number * length)
        assert changes[0].time <= number * length + 60 + 65
        shares.append([change.share for change in changes])
        if number + 1 < cycles:
            loop.run((number + 1) * length)
    return shares


@pytest.mark.parametrize("percentage", range(1, 101))
def test_every_percentage(percentage: int) -> None:
    """At every percentage the share goes up to it with the load in one change, and back to 0 with it."""
    (shares,) = peak(percentage, 1)
    assert shares[0] == percentage == max(shares)


@pytest.mark.parametrize("percentage", [1, 26, 50, 75, 90, 100])
def test_every_cycle_is_like_the_first(percentage: int) -> None:
    """A load that comes again after eight windows of rest gets the same shares again."""
    first, second, third = peak(percentage, 3)
    assert first == second == third


CASES = list(pairwise(200, seed=1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.seed}")
def test_any_world(case: Case) -> None:
    """In any world a step of load makes one change up, a load that lasts few, and when it is gone every request comes
    back."""
    Course(case).check()


@pytest.mark.parametrize("case", CASES[::8], ids=lambda case: f"{case.seed}")
def test_a_load_that_falls_until_it_fits(case: Case) -> None:
    """A load that falls to four fifths of what may be here comes back within 24 windows, and is not sent away again."""
    Course(replace(case, autoscaler=False), fits=0.8).check_load_that_fits()
