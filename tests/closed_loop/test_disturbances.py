"""Disturbances that do not change the course of shares: restarts, old caches, repeated syncs, silent sources."""

from typing import Any

import pytest

from hooks import reasons
from hooks.offloading.hysteresis import Attempts, Claim
from tests.closed_loop.laws import changes_during, check_bounds, check_pace, check_trials
from tests.closed_loop.plant import Pipeline, Plant

WINDOW = 60
STEPS = [(0.0, 0.3), (300.0, 1.5), (900.0, 0.3)]
END = 1500.0


def run(percentage: int = 50, mode: str = "fixed", high: float = 1.5, **world: Any) -> Plant:
    """Run a plant through a step of load up and one down, and return it."""
    behavior = {"percentage": percentage, "releaseWindowSeconds": WINDOW, "mode": mode}
    return Plant(load=[(0.0, 0.3), (300.0, high), (900.0, 0.3)], behavior=behavior, **world).run(END)


KINDS = pytest.mark.parametrize(
    ("percentage", "mode"), [(1, "fixed"), (50, "fixed"), (90, "fixed"), (100, "fixed"), (80, "proportional")]
)
FRESH = Pipeline(kept=0)


@KINDS
def test_a_restart_changes_nothing(percentage: int, mode: str) -> None:
    """A restart of hooks every seven seconds loses their cache and changes no decision."""
    restarts = [7.0 * number for number in range(int(END // 7))]
    plant, fresh = run(percentage, mode, restarts=restarts), run(percentage, mode, restarts=restarts, pipeline=FRESH)
    assert fresh.changes == run(percentage, mode, pipeline=FRESH).changes
    # The proportional share follows the last digit, and so when it was read; the attempts from 100 percent follow the
    # second in which it was read.
    assert mode == "proportional" or percentage == 100 or plant.shares() == run(percentage, mode).shares()


@KINDS
@pytest.mark.parametrize("seed", range(4))
def test_replicas_with_caches_of_different_age(percentage: int, mode: str, seed: int) -> None:
    """No transition is undone, whichever replica of hooks a sync reaches and however old its cache is."""
    plant = run(percentage, mode, skews=(0, 0, 0), seed=seed, pipeline=Pipeline(period=5))
    alone = run(percentage, mode, seed=seed, pipeline=Pipeline(period=5))
    plant.run(END + 8 * WINDOW)
    check_bounds(plant, percentage)
    check_pace(plant, WINDOW)
    # The proportional share follows the last digit of what was read.
    assert mode == "proportional" or plant.shares()[:2] == alone.shares()[:2]
    check_trials(plant, percentage)
    assert changes_during(plant, 900, plant.now)[-1] == 0


@KINDS
def test_repeated_and_late_syncs(percentage: int, mode: str) -> None:
    """The course of shares is the same when half of the syncs come twice and half with the status before the last."""
    repeated = run(percentage, mode, repeats=0.5, stale=0.5, seed=3, pipeline=FRESH)
    check_pace(repeated, WINDOW)
    assert repeated.shares() == run(percentage, mode, pipeline=FRESH, seed=3).shares()


@pytest.mark.parametrize("load", [0.3, 6])
@pytest.mark.parametrize("percentage", [0, 1, 50, 75])
def test_an_hour_of_noise_writes_nothing(load: float, percentage: int) -> None:
    """A noisy metric far from its target changes neither status nor route, whether or not requests are offloaded."""
    behavior = {"percentage": percentage, "releaseWindowSeconds": WINDOW}
    noisy = Pipeline(noise=0.1)
    plant = Plant(load=[(0, 3 * load)], behavior=behavior, pipeline=noisy, replicas=3, limit=9, idle=0.02).run(600)
    assert plant.decided_at(600) == (percentage if load > 1 else 0)
    before = len(plant.status_writes), len(plant.child_writes)
    assert before[0] > 0
    assert len({sample.value.nanos for sample in plant.published}) == 3, "it does not stand still"
    plant.run(600 + 3600)
    assert (len(plant.status_writes), len(plant.child_writes)) == before


def test_status_is_written_at_transitions_only() -> None:
    """A step of load up and one down cause few writes of the status, and three of the route."""
    plant = run(high=6.0, pipeline=Pipeline(noise=0.03))
    # For each window, each switch, and once the metric has settled.
    assert len([moment for moment in plant.status_writes if moment > 200]) <= 10
    # For each of the two switches, and once for the reason, when the way back begins.
    assert len([moment for moment in plant.child_writes if moment > 200]) == 3


def during(on_missing: str, start: float, end: float, **world: Any) -> list[int]:
    """Return the share at the end of a silence of the source from `start` to `end`, and the shares after it."""
    behavior = {"percentage": 50, "releaseWindowSeconds": WINDOW, "onMissingMetrics": on_missing}
    plant = Plant(load=world.pop("load", STEPS), behavior=behavior, silences=[(start, end)], **world).run(END)
    check_bounds(plant, 50)
    return [plant.decided_at(end - 1), *changes_during(plant, end - 1, END)]


@pytest.mark.parametrize(
    ("on_missing", "expected"), [("hold", [50, 0]), ("release", [0, 50, 0]), ("offload", [50, 25, 0])]
)
def test_a_silence_under_load(on_missing: str, expected: list[int]) -> None:
    """While the source is away under load, `hold` and `offload` keep the share, and `release` lowers it. Where a step
    down has failed shortly before, requests come back step by step."""
    assert during(on_missing, 450, 700) == expected


@pytest.mark.parametrize(("on_missing", "expected"), [("hold", [0]), ("release", [0]), ("offload", [50, 0])])
def test_a_silence_at_rest(on_missing: str, expected: list[int]) -> None:
    """Without load only `offload` offloads while the source is away, and the first samples bring requests back."""
    assert during(on_missing, 450, 700, load=[(0, 0.3)]) == expected


def test_a_silence_that_outlasts_the_load() -> None:
    """With `hold` the share stays until there are metrics again, although the load ends before, and not longer."""
    assert during("hold", 600, 1200) == [50, 0]


@pytest.mark.parametrize("edit", [0, 20, 80])
def test_the_percentage_is_edited_under_load(edit: int) -> None:
    """An edited percentage is in force with the next sync, and the share still goes back to 0 when the load ends."""
    behavior = {"percentage": 50, "releaseWindowSeconds": WINDOW}
    plant = Plant(load=STEPS, behavior=behavior)
    plant.edit(600, percentage=edit)
    plant.run(END)
    assert plant.decided_at(602) == edit
    assert plant.changes[-1].share == 0
    assert plant.parent["status"]["offloading"]["reason"] == reasons.LOCAL


def test_the_plant_shows_what_oscillates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that releases after each window in which the metric is below its target, whatever came of it before,
    oscillates in the plant, so the plant can show that the real decision does not."""

    def forgets(attempts: Attempts, claim: Claim) -> Attempts:
        return attempts

    monkeypatch.setattr("hooks.offloading.hysteresis.PATIENCE", 1)
    monkeypatch.setattr("hooks.offloading.hysteresis.Attempts.failed", forgets)
    assert len(run().shares()) > 8
