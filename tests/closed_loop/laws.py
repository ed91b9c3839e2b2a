"""What holds of every course of shares, whatever the world around it is like."""

from tests.closed_loop.plant import Plant

SLACK = 20.0
"""Seconds until the next sync when nothing announces it: 15 and a tenth, a second of the clock, a second of the way."""


def changes_during(plant: Plant, start: float, end: float) -> list[int]:
    """The shares that were decided on from one time to another."""
    return [change.share for change in plant.changes if start <= change.time < end]


def check_bounds(plant: Plant, percentage: int) -> None:
    """While replicas are ready the share is never above the percentage."""
    assert all(0 <= change.share <= percentage for change in plant.changes), plant.changes


def check_pace(plant: Plant, window: float, *, skew: float = 0.0) -> None:
    """A share goes down only after it has stood for the release window; up is free. Times have whole seconds."""
    for before, after in zip(plant.changes, plant.changes[1:], strict=False):
        assert after.share > before.share or after.time - before.time > window - 1 - 2 * skew, plant.changes


def check_steps(plant: Plant, step: int, *, both_ways: bool = False) -> None:
    """No change down, or none at all, is larger than the step."""
    for before, after in zip([0, *plant.shares()], plant.shares(), strict=False):
        assert (abs(after - before) if both_ways else before - after) <= step, plant.changes
