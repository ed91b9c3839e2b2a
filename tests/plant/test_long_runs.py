"""Long runs and thousands of worlds of the decision in a closed loop; `make plant` runs them."""

from dataclasses import replace

import pytest

from tests.closed_loop.figures import HOUR, SHAPES, lasting, rows
from tests.closed_loop.loops import Case, Course, between, pairwise
from tools.repository import ROOT

CASES = list(pairwise(2000, seed=2))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.seed}")
def test_any_world(case: Case) -> None:
    """In any world a step of load makes one change up, a load that lasts few, and when it is gone every request comes
    back."""
    Course(case).check()


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: f"{case.seed}")
def test_a_load_that_falls_until_it_fits(case: Case) -> None:
    """In any world a load that falls to four fifths of what may be here comes back within 24 windows, and stays."""
    Course(replace(case, autoscaler=False), fits=0.8).check_load_that_fits()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentage", [25, 40, 50, 75, 90, 100])
@pytest.mark.parametrize("mode", ["fixed", "proportional"])
def test_eight_hours_of_load(mode: str, percentage: int, shape: str) -> None:
    """At a steady 1.5 times of capacity eight hours see 32 changes at most, and 22 after the first hour; a queue, which
    shows late that a step was too much, sees 50."""
    loop = lasting(percentage, mode, shape)
    assert len(loop.changes) <= 50, loop.changes
    if shape != "a queue":
        assert len(loop.changes) <= 32, loop.changes
        assert len(between(loop, HOUR)) <= 22, loop.changes


def test_the_figures_in_the_docs() -> None:
    """The page about offloading has the present figures."""
    page = (ROOT / "docs/offloading.md").read_text(encoding="utf-8").splitlines()
    for name, figures in rows():
        (line,) = [line for line in page if line.startswith(f"| {name} |")]
        assert [cell.rpartition("→")[2].strip() for cell in line.split("|")[2:-1]] == figures
