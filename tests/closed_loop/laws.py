"""Checks of what holds for every course of shares, whatever the load and the metrics are like."""

from tests.closed_loop.plant import Plant

SLACK = 20.0
"""Seconds until the next sync when nothing triggers one: 15 and a tenth, and a second each for clock and delivery."""


def changes_during(plant: Plant, start: float, end: float) -> list[int]:
    """Return the shares that were decided on from one time to another."""
    return [change.share for change in plant.changes if start <= change.time < end]


def check_bounds(plant: Plant, percentage: int) -> None:
    """Assert that the share is never above the percentage; for runs in which replicas are always ready."""
    assert all(0 <= change.share <= percentage for change in plant.changes), plant.changes


def check_pace(plant: Plant, window: float, *, skew: float = 0.0) -> None:
    """Assert that a share goes down only after it has stood for the release window, to the whole second."""
    for before, after in zip(plant.changes, plant.changes[1:], strict=False):
        assert after.share > before.share or after.time - before.time > window - 1 - 2 * skew, plant.changes


def check_trials(plant: Plant, percentage: int) -> None:
    """Assert that a change up leads to the percentage, or takes a change down back; for runs in mode fixed."""
    if plant.parent["spec"]["offloadingConfig"]["behavior"].get("mode") == "proportional":
        return
    shares = [0, *plant.shares()]
    for before, last, after in zip(shares, shares[1:], shares[2:], strict=False):
        assert after <= last or after in (before, percentage), plant.changes


def check_steps(plant: Plant, step: int, *, both_ways: bool = False) -> None:
    """Assert that no change down, and with `both_ways` no change up either, is larger than the step."""
    for before, after in zip([0, *plant.shares()], plant.shares(), strict=False):
        assert (abs(after - before) if both_ways else before - after) <= step, plant.changes
