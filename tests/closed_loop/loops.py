"""Loops of `hooks.simulate` as tests need them, and what must hold for every one of them.

The plant of `hooks.simulate` is quicker than the one in `plant.py`, which sends each sync through JSON and all of
hooks: here only the decision and its status are made, so that hundreds of worlds can be tried.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from hooks.simulate.loop import METRIC, Change, Loop
from hooks.simulate.plant import TICK, Autoscaler, Load, Pipeline, Shape, World
from tests import builders

TOLERANCE: Final = 0.1


def steps(*pairs: tuple[float, float]) -> Load:
    """Return a load that is the second of a pair from the time on that is the first."""

    def load(now: float) -> float:
        return next((amount for moment, amount in reversed(pairs) if moment <= now), 0.0)

    return load


def new_loop(load: Load | float, *, seed: int = 0, spec: Mapping[str, Any] | None = None, **fields: Any) -> Loop:
    """Return a loop at time zero; `spec` is the behavior, and all other fields are those of a world."""
    numbers = random.Random(seed)
    config = {"remoteBackend": builders.REMOTE, "metrics": [METRIC], "behavior": dict(spec or {})}
    return Loop(
        builders.model_deployment(offloadingConfig=config),
        World(load if callable(load) else steps((0.0, load)), **fields),
        defaults=builders.DEFAULTS,
        start=builders.NOW,
        error=lambda: numbers.uniform(-1, 1),
    )


def between(loop: Loop, start: float, end: float = float("inf")) -> list[Change]:
    """Return the changes from one time to another."""
    return [change for change in loop.changes if start <= change.time < end]


def back_after(loop: Loop, start: float, most: float) -> float:
    """Run until every request stays, and return the seconds since a time; infinite where that takes longer than
    `most`."""
    while loop.share and loop.plant.now < start + most:
        loop.run(loop.plant.now + TICK)
    return (
        loop.changes[-1].time - start if loop.changes and not loop.share else (0.0 if not loop.share else float("inf"))
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One combination of everything that a loop depends on."""

    mode: str
    percentage: int
    idle: float
    """Use of an idle replica, as a part of the largest at which requests can come back."""
    delay: float
    noise: str
    shape: str
    replicas: int
    step: int
    high: float
    """Load of each replica while there is much."""
    autoscaler: bool
    window: int
    seed: int


FACTORS: Final[Mapping[str, Sequence[Any]]] = {
    "mode": ("fixed", "proportional"),
    "percentage": (1, 7, 25, 40, 50, 75, 76, 90, 99, 100),
    "idle": (0.0, 0.1, 0.25, 0.5, 0.75, 0.94),
    "delay": (0.0, 15.0, 30.0, 60.0),
    "noise": ("none", "1 %", "2 %", "5 % with tolerance 0.2"),
    "shape": ("linear", "saturating", "queue"),
    "replicas": (1, 3),
    "step": (10, 25, 50),
    "high": (1.3, 1.5, 2.0, 4.0),
    "autoscaler": (False, True),
    "window": (60, 90),
}
NOISE: Final = {"none": 0.0, "1 %": 0.01, "2 %": 0.02, "5 % with tolerance 0.2": 0.05}


def pairwise(count: int, *, seed: int) -> Iterator[Case]:
    """Return cases in which any two values of two factors soon stand together."""
    numbers = random.Random(seed)
    names = list(FACTORS)
    uncovered: set[tuple[str, Any, str, Any]] = set()
    for number in range(count):
        if not uncovered:
            for one, other in itertools.combinations(names, 2):
                uncovered |= {(one, a, other, b) for a in FACTORS[one] for b in FACTORS[other]}
        rows = [{name: numbers.choice(FACTORS[name]) for name in names} for _ in range(12)]
        row = max(rows, key=lambda row: len(_pairs(row) & uncovered))
        uncovered -= _pairs(row)
        yield Case(**row, seed=number)


def _pairs(row: Mapping[str, Any]) -> set[tuple[str, Any, str, Any]]:
    return {(one, row[one], other, row[other]) for one, other in itertools.combinations(row, 2)}


class Course:
    """A case that runs from little load to much and to none, with what must hold."""

    START: Final = 300.0

    def __init__(self, case: Case, *, fits: float = 0.0) -> None:
        """Create the loop of a case.

        Args:
            case: the case.
            fits: use of the replicas when there is much load no more, as a part of the largest at which requests can
                come back; idle use is part of it.
        """
        self.case = case
        self.tolerance = 0.2 if "tolerance" in case.noise else TOLERANCE
        self.limit = 1 - self.tolerance
        self.idle = 0.0 if case.shape == "queue" else case.idle * self.limit
        self.window = float(case.window)
        # A step shows itself when a sample of the time after it can be read, and a sync reads it.
        self.settles = case.delay + 50.0
        self.turn = max(self.window, self.settles) + 15.0
        self.lasting = 30 * self.turn
        self.ends = self.START + self.lasting
        self.steps = ceil(case.percentage / case.step)
        scaled = case.autoscaler and case.shape != "queue"
        last = max(0.0, fits * self.limit - self.idle) * case.replicas
        self.loop = new_loop(
            steps((0.0, 0.0), (self.START, case.high * case.replicas), (self.ends, last)),
            seed=case.seed,
            spec={
                "mode": case.mode,
                "percentage": case.percentage,
                "stepPercentage": case.step,
                "tolerance": self.tolerance,
                "releaseWindowSeconds": case.window,
            },
            shape=Shape.QUEUE if case.shape == "queue" else Shape.USAGE,
            limit=1.25 if case.shape == "saturating" else 10.0,
            idle=self.idle,
            replicas=case.replicas,
            pipeline=Pipeline(delay=case.delay, noise=NOISE[case.noise]),
            autoscaler=Autoscaler(target=0.6) if scaled else None,
        )

    def check(self) -> None:
        """Run the case, and assert everything that must hold."""
        self.check_rise()
        self.check_lasting_load()
        self.check_no_load()

    def check_rise(self) -> None:
        """Assert that a step of load makes one change up in mode fixed, and one for each step in mode proportional."""
        loop, case = self.loop, self.case
        loop.run(self.START)
        assert loop.changes == []
        loop.run(self.START + 15 + (self.steps + 1) * self.turn)
        shares = [0, *[change.share for change in loop.changes]]
        rises = list(itertools.takewhile(lambda pair: pair[1] > pair[0], itertools.pairwise(shares)))
        assert max(shares) <= case.percentage
        if case.mode == "fixed":
            assert shares[1] == case.percentage
            assert len(rises) == 1
        elif case.shape != "saturating":
            # A metric that saturates says less than there is, and so does one that is mostly idle use: each move brings
            # it nearer to its target.
            assert 1 <= len(rises) <= self.steps + (1 if case.idle <= 0.25 else 8)

    def check_lasting_load(self) -> None:
        """Assert that a load that stays makes two changes in a window at most, a step and its restoration, and one
        attempt in eight windows in the end; unless an autoscaler makes room for it, and then all of it comes back."""
        loop, fits = self.loop, self.ends
        while loop.plant.now < self.ends:
            loop.run(loop.plant.now + 15)
            plant = loop.plant
            if self.idle + plant.world.load(plant.now - TICK) / plant.ready > 0.8 * self.limit:
                fits = self.ends
            else:
                fits = min(fits, plant.now)
        if fits < self.ends - 24 * self.turn:
            assert loop.share == 0, loop.changes
            return
        if self.case.autoscaler:
            return
        risen = self.START + 15 + (self.steps + 2) * self.turn
        changes = between(loop, risen)
        for first, second, third in zip(changes, changes[1:], changes[2:], strict=False):
            # A queue shows late that a step was too much, and a queue that has piled up asks for more than that step.
            is_step = third.share < second.share
            if is_step or self.case.shape != "queue":
                assert third.time - first.time >= self.window, loop.changes
            assert not is_step or third.time - second.time >= self.window, loop.changes
        late = between(loop, self.ends - 12 * self.turn)
        shares = [change.share for change in late]
        descents = sum(
            lower < high >= before for before, high, lower in zip(shares, shares[1:], shares[2:], strict=False)
        )
        assert descents <= 3, loop.changes

    def check_load_that_fits(self) -> None:
        """Assert that every request comes back within 24 windows, and stays, once the load has fallen so far that it
        fits."""
        # A queue may yet ask for a share, by a sample of before.
        start = self.ends + self.settles
        self.loop.run(start)
        assert back_after(self.loop, start, 24 * self.turn) <= 24 * self.turn, self.loop.changes[-12:]
        self.loop.run(self.loop.plant.now + 9 * self.window)
        assert self.loop.share == 0, self.loop.changes[-12:]

    def check_no_load(self) -> None:
        """Assert that every request comes back when the load is gone, whatever idle replicas use."""
        most = (8 + self.steps) * self.turn + self.settles + 30
        # A queue may yet ask for a share, by a sample of before.
        self.loop.run(self.ends + self.settles)
        assert back_after(self.loop, self.ends, most) <= most, self.loop.changes[-12:]
        self.loop.run(self.loop.plant.now + 9 * self.window)
        assert self.loop.share == 0
        assert {"heldShare", "claim", "attempts", "step"}.isdisjoint(self.loop.state)
