"""Verdict of the fairness campaign: what counts as harm to the other tenants."""

from collections import Counter

import pytest

from faults.fairness.__main__ import Finding, Half, problems, too_slow
from faults.fairness.ways import WAYS

CHECKS = [0.5 + second for second in range(40)]
"""Times of health checks, one a second."""


def finding(*ratios: float, errors: int = 0, **seen: int) -> Finding:
    """Return a finding of which each pair has one of these ratios."""
    result = Finding(WAYS[0], errors=Counter({"chat reset": errors} if errors else {}))
    for number, ratio in enumerate(ratios):
        for hostile in (True, False):
            began = 4.0 * number + 2.0 * hostile
            result.halves[hostile].append(Half("", began, began + 2.0, p99=0.05 * (ratio if hostile else 1.0)))
    result.seen.update(seen or {"begun": 1})
    return result


def test_a_tenant_that_nobody_noticed() -> None:
    """Others that have no error and are no more than twice as slow in most pairs are not harmed."""
    assert problems(finding(1.0, 9.0, 1.9, 2.0, 9.0), CHECKS, short=False) == []


@pytest.mark.parametrize(
    ("harmed", "problem"),
    [
        (finding(1.0, 2.1, 2.1, 2.1, 1.0), "body: the others are 2.10 times as slow, allowed is 2"),
        (finding(1.0, errors=3), "body: 3 x chat reset"),
        (finding(1.0, reached=1, begun=1), "body: 1 requests got where no request may go"),
        (finding(1.0, closed=1), "body: nothing came of it: {'closed': 1}"),
    ],
    ids=["slow", "errors", "reached", "idle"],
)
def test_what_is_harm(harmed: Finding, problem: str) -> None:
    """An error, twice the time in most pairs, a forbidden place and a way that did nothing are problems."""
    assert problems(harmed, CHECKS, short=False) == [problem]


def test_health_checks_that_do_not_come() -> None:
    """A tenant that keeps the backends of others from being checked harms them."""
    times = [one for one in CHECKS if one % 4 < 2]
    (problem,) = problems(finding(1.0, 1.0, 1.0), times, short=False)
    assert problem == "body: the others' backends are checked 0.00 times a second, not 1.00"


def test_the_short_form_compares_no_times() -> None:
    """The short form looks at errors and not at times, which say nothing on a busy machine."""
    assert problems(finding(5.0), [], short=True) == []
    assert problems(finding(5.0, errors=1), [], short=True) == ["body: 1 x chat reset"]


def test_a_machine_that_is_too_slow() -> None:
    """Errors in the times without the hostile tenant say that the machine is too slow, and are no harm by it."""
    harmed, unharmed = finding(1.0, errors=3), finding(1.0)
    assert too_slow([harmed, unharmed]) == ""
    unharmed.errors_without.update({"chat reset": 2, "stream timeout": 1})
    harmed.errors_without.update({"chat reset": 2})
    assert problems(unharmed, CHECKS, short=False) == []
    assert too_slow([harmed, unharmed]).startswith(
        "The others had 5 errors without the hostile tenant, 4 x chat reset among them, so the campaign says nothing:"
    )
