"""Figures of the way back, as docs/offloading.md has them: `python -m tests.closed_loop.figures` prints the table."""

from typing import Any, Final

from hooks.simulate.loop import Loop
from hooks.simulate.plant import Pipeline, Shape
from tests.closed_loop.loops import back_after, between, new_loop, steps

WINDOW: Final = 300.0
HOUR: Final = 3600.0
PIPELINE: Final = Pipeline(delay=30.0)
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "usage": {},
    "usage that saturates": {"limit": 1.25},
    "a queue": {"shape": Shape.QUEUE},
}
PERCENTAGES: Final = (50, 75, 100)


def lasting(percentage: int, mode: str, shape: str) -> Loop:
    """Return a loop after eight hours at one and a half times of capacity."""
    loop = new_loop(1.5, spec={"percentage": percentage, "mode": mode}, pipeline=PIPELINE, **SHAPES[shape])
    loop.run(8 * HOUR)
    return loop


def windows_back(percentage: int, mode: str, idle: float) -> float:
    """Return the windows until every request is back after the load is gone; infinite where that is never."""
    loop = new_loop(
        steps((0, 3.0), (150, 0.0)), spec={"percentage": percentage, "mode": mode}, idle=idle, pipeline=PIPELINE
    )
    loop.run(150)
    return back_after(loop, 150, 30 * WINDOW) / WINDOW


def writes_at_rest(percentage: int) -> int:
    """Return the writes of status in an hour of a noisy metric, two hours after the load has fallen a little."""
    spec = {"percentage": percentage, "mode": "proportional"}
    pipeline = Pipeline(delay=PIPELINE.delay, noise=0.02)
    loop = new_loop(steps((0, 1.9), (HOUR, 1.5)), spec=spec, pipeline=pipeline)
    loop.run(4 * HOUR)
    return sum(moment > 3 * HOUR for moment in loop.writes)


def rows() -> list[tuple[str, list[str]]]:
    """Return the rows of the table: what is looked at, and the figure for each percentage."""
    result = []
    for mode in ("fixed", "proportional"):
        for idle in (0.0, 0.25, 0.5, 0.85):
            times = [windows_back(percentage, mode, idle) for percentage in PERCENTAGES]
            figures = ["never" if time == float("inf") else f"{time:.1f}" for time in times]
            result.append((f"{mode}: windows until all is back, idle use {idle * 100:g} % of the target", figures))
    for mode in ("fixed", "proportional"):
        for shape in SHAPES:
            loops = [lasting(percentage, mode, shape) for percentage in PERCENTAGES]
            figures = [f"{len(loop.changes)}, {len(between(loop, HOUR))}" for loop in loops]
            result.append((f"{mode}: changes in 8 h at 1.5 times of capacity, and after the first, {shape}", figures))
    late = [str(writes_at_rest(percentage)) for percentage in PERCENTAGES]
    result.append(("proportional: writes of status in an hour at rest, 2 % noise", late))
    return result


def table() -> str:
    """Return the table of these figures in Markdown."""
    head = f"| | {' | '.join(f'{percentage} %' for percentage in PERCENTAGES)} |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| {name} | {' | '.join(figures)} |\n" for name, figures in rows())


if __name__ == "__main__":
    print(table())
