"""Steps of load up and down, which the share follows once each without oscillating."""

from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import reasons
from tests.closed_loop.laws import SLACK, changes_during, check_bounds, check_pace, check_steps, check_trials
from tests.closed_loop.plant import Autoscaler, Pipeline, Plant

WINDOW = 60
HIGH = 1.5
LOW = 0.3
CYCLE = 2400.0
STEPS = [(0.0, LOW), (300.0, HIGH), (900.0, LOW), (300.0 + CYCLE, HIGH), (900.0 + CYCLE, LOW)]
END = 2 * CYCLE


def behavior(percentage: int, **more: Any) -> dict[str, Any]:
    """Return a behavior with a short release window."""
    return {"percentage": percentage, "releaseWindowSeconds": WINDOW, **more}


@pytest.mark.parametrize("percentage", [1, 2, 10, 25, 26, 50, 60, 75, 76, 80, 90, 99, 100])
def test_percentages(percentage: int) -> None:
    """At any percentage the share goes up with the load and back with it in two cycles, although an idle replica uses a
    twentieth of the target. `test_way_back.py` does the same for every percentage."""
    plant = Plant(load=STEPS, behavior=behavior(percentage), idle=0.05).run(END)
    check_bounds(plant, percentage)
    check_pace(plant, WINDOW)
    check_trials(plant, percentage)
    for start, end in ((300, 900), (300 + CYCLE, 900 + CYCLE)):
        up = changes_during(plant, start, end)
        assert up[0] == percentage
        within = plant.pipeline.slowest + 15 + SLACK
        assert plant.decided_at(start + within) == percentage, "it offloads within its window and the delays"
        assert plant.decided_at(end + 8 * WINDOW + ceil(percentage / 25) * (WINDOW + SLACK)) == 0


@pytest.mark.parametrize("percentage", [76, 88, 99, 100])
@pytest.mark.parametrize("step", [10, 50, 100])
def test_steps_of_any_size_lead_back(percentage: int, step: int) -> None:
    """With steps of any size all requests come back, although an idle replica uses some of the target."""
    plant = Plant(
        load=[(0, LOW), (300, HIGH), (900, LOW)], behavior=behavior(percentage, stepPercentage=step), idle=0.05
    ).run(900 + 8 * WINDOW + (100 / step + 1) * (WINDOW + 40) + 100)
    check_bounds(plant, percentage)
    check_pace(plant, WINDOW)
    check_trials(plant, percentage)
    assert plant.decided_at(END) == 0


def test_overload_that_lasts_is_probed_less_and_less() -> None:
    """At six times the target the share goes one step down after one, two, four and then eight windows, and up again at
    once."""
    plant = Plant(load=[(0, LOW), (300, 6.0)], behavior=behavior(100)).run(1500)
    check_pace(plant, WINDOW)
    shares = plant.shares()
    assert set(shares[::2]) == {100}
    assert set(shares[1::2]) == {75}
    assert 7 <= len(shares) <= 11
    plant.run(1500 + 3600)
    assert len(plant.shares()) - len(shares) <= 2 * ceil(3600 / (8 * WINDOW))


@pytest.mark.parametrize("load", [0.91, 0.95, 0.99])
@pytest.mark.parametrize("percentage", [30, 75])
def test_a_load_between_tolerance_and_target_fits_here(load: float, percentage: int) -> None:
    """A load below the target and within the tolerance offloads nothing, and comes back without being sent away again
    when it was more before."""
    plant = Plant(load=[(0, load), (600, 6.0), (700, load)], behavior=behavior(percentage)).run(600)
    assert plant.shares() == []
    plant.run(2400)
    assert plant.shares()[0] == percentage
    assert plant.shares() == sorted(plant.shares(), reverse=True)
    assert plant.usage < 1


def test_a_gauge_is_left_in_steps() -> None:
    """With `signal: gauge` the share stays full until the metric falls, then goes down one step in each window."""
    plant = Plant(
        load=[(0, LOW), (300, HIGH), (900, LOW)],
        behavior=behavior(60, signal="gauge", stepPercentage=20),
        follows_split=False,
    ).run(1500)
    check_pace(plant, WINDOW)
    assert plant.shares() == [60, 40, 20, 0]
    assert plant.decided_at(900 + 4 * WINDOW - 1) == 60


@pytest.mark.parametrize("load", [1.2, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("ceiling", [40, 100])
def test_proportional_brings_the_metric_to_its_target(load: float, ceiling: int) -> None:
    """In proportional mode the metric settles at its target from both sides, within the tolerance and one percent of
    the load, as far as the largest share allows and in changes of one step at most."""
    steps = [(0.0, LOW), (300.0, load), (1200.0, 2 * load), (2400.0, load), (3600.0, LOW)]
    plant = Plant(load=steps, behavior=behavior(ceiling, mode="proportional"), limit=20)
    for start, end in ((300, 1200), (1200, 2400), (2400, 3600)):
        plant.run(end)
        share = plant.decided_at(end)
        if share < ceiling:
            assert 0.9 - plant.load / 100 <= plant.usage < 1, (share, plant.changes)
        else:
            assert plant.usage >= 0.9 - plant.load / 100
        late = [change for change in plant.changes if start + 600 <= change.time < end and change.share > ceiling]
        assert not late
    plant.run(4800)
    assert plant.decided_at(4800) == 0
    check_bounds(plant, ceiling)
    check_pace(plant, WINDOW)
    check_steps(plant, 25, both_ways=True)


@pytest.mark.parametrize(
    ("autoscaler", "mode", "percentage"),
    [
        (Autoscaler(0.7), "fixed", 50),
        (Autoscaler(0.5, startup=180), "fixed", 75),
        (Autoscaler(0.5, startup=180), "fixed", 100),
        (Autoscaler(0.7, startup=180), "proportional", 100),
        (Autoscaler(0.8, startup=180), "proportional", 60),
    ],
)
def test_an_autoscaler_beside_it_brings_the_requests_back(autoscaler: Autoscaler, mode: str, percentage: int) -> None:
    """An autoscaler with a lower target adds replicas while requests are offloaded, and then they stay local."""
    plant = Plant(
        load=[(0, 0.3), (300, 3.0)], behavior=behavior(percentage, mode=mode), autoscaler=autoscaler, limit=5
    ).run(3600)
    assert max(plant.shares()) <= percentage
    assert plant.decided_at(3600) == 0
    assert len(plant.replicas) * 0.9 > 3.0
    check_pace(plant, WINDOW)
    peak = plant.shares().index(max(plant.shares()))
    assert plant.shares()[peak:] == sorted(plant.shares()[peak:], reverse=True), "nothing goes up again"


def test_an_outage_leaves_nothing_behind() -> None:
    """Without a ready replica all requests are offloaded, and afterwards the metrics decide on the share again."""
    plant = Plant(load=[(0, LOW)], behavior=behavior(100), replicas=2)
    plant.fail(600, seconds=120)
    plant.run(1800)
    assert [(change.share, change.reason) for change in plant.changes] == [
        (100, reasons.NO_READY_REPLICA),
        (0, reasons.LOCAL),
    ]
    assert plant.parent["status"]["offloading"]["reason"] == reasons.LOCAL
    assert plant.changes[1].time < 600 + 120 + 5


pipelines = st.builds(
    Pipeline,
    period=st.sampled_from([5.0, 15.0, 30.0, 60.0]),
    scrapes=st.sampled_from([1, 2, 4]),
    delay=st.sampled_from([0.5, 5.0, 20.0]),
    noise=st.sampled_from([0.0, 0.01, 0.03]),
)


@given(
    pipelines,
    st.integers(1, 100),
    st.sampled_from([1, 2, 5]),
    st.floats(0, 0.05),
    st.sampled_from([1.1, 1.25, 2.0, 10.0]),
    st.sampled_from([(0.0,), (0.0, 0.0), (0.0, -2.0, 1.0)]),
    st.floats(1.1, 6.0),
    st.floats(0.0, 0.7),
    st.integers(0, 1000),
)
@settings(max_examples=25)
def test_any_world(
    pipeline: Pipeline,
    percentage: int,
    replicas: int,
    idle: float,
    limit: float,
    skews: tuple[float, ...],
    high: float,
    low: float,
    seed: int,
) -> None:
    """The laws hold with slow, averaged and noisy metrics, hooks whose clocks differ, and repeated syncs."""
    back = 900 + 5 * pipeline.slowest
    cleared = 8 * WINDOW + ceil(percentage / 25) * (WINDOW + pipeline.slowest + SLACK)
    plant = Plant(
        load=[(0, 0.2 * replicas), (300, high * replicas), (back, low * replicas)],
        behavior=behavior(percentage),
        idle=idle,
        limit=limit,
        pipeline=pipeline,
        replicas=replicas,
        skews=skews,
        repeats=0.2,
        seed=seed,
    ).run(back + cleared + 2 * (pipeline.slowest + SLACK))
    check_bounds(plant, percentage)
    check_pace(plant, WINDOW, skew=max(map(abs, skews)))
    assert plant.decided_at(plant.now) == 0
    assert plant.shares()[0] == percentage
    check_trials(plant, percentage)
