"""Scenarios: the decisions are those of a sync, and the figures add up."""

import random

import pytest

from hooks.api.common import InvalidObject
from hooks.simulate.document import as_document
from hooks.simulate.generators import describe, generate
from hooks.simulate.limits import Limits
from hooks.simulate.outcome import LENGTHS, Prices, length_of, percentile
from hooks.simulate.request_plant import Engine
from hooks.simulate.requests import Request
from hooks.simulate.scenario import ALWAYS, AS_WRITTEN, NEVER, Case, Result, Setting, cases, prepare
from hooks.simulate.text import as_text, markdown
from tests import builders
from tests.unit.hooks.simulate.worlds import CPU, WAITING, outcome_of, parent_of

ENGINE = Engine(speed=600, batch=32)
HIGH = describe("step,from=1,to=6,at=300,until=1500")


def requests_of(seconds: float = 2400, seed: int = 1) -> list[Request]:
    """Return requests that are too many for one replica for twenty minutes."""
    return generate(HIGH, seconds, prompt=500, generated=200, draw=random.Random(seed).random)


@pytest.mark.parametrize("metric", [WAITING, CPU], ids=["waiting", "cpu"])
def test_a_step_of_load(metric: dict[str, object]) -> None:
    """A load that is too high makes the percentage go away soon, and every request stays again some time after it."""
    found = outcome_of(parent_of(metric, percentage=75), requests_of(), 4800, ENGINE)
    first, last = found.changes[0], found.changes[-1]
    assert (first.share, first.reason) == (75, "MetricReached")
    assert 300 < first.time < 420
    assert last.share == 0
    never = outcome_of(
        {**parent_of(metric), "spec": {**parent_of(metric)["spec"], "enabled": False}}, requests_of(), 4800, ENGINE
    )
    assert never.remote.requests == len(never.changes) == 0
    assert found.first_token.p95 is not None
    assert never.first_token.p95 is not None
    assert found.first_token.p95 < never.first_token.p95 / 10


def test_figures_add_up() -> None:
    """Local and remote requests are all requests, slices add up to them, and the cost is that of remote tokens."""
    requests = requests_of(seconds=1200)
    prices = Prices(prompt=2.0, generated=6.0, replica_hour=3.0)
    found = outcome_of(parent_of(WAITING, percentage=50), requests, 1200, ENGINE, prices=prices, slices=40)
    assert found.requests == len(requests)
    assert found.local.prompt + found.remote.prompt == sum(one.prompt for one in requests)
    assert found.local.generated + found.remote.generated == sum(one.generated for one in requests)
    assert found.remote_cost == pytest.approx(found.remote.prompt * 2e-6 + found.remote.generated * 6e-6)
    assert (found.replica_hours, found.replica_cost) == pytest.approx((1 / 3, 1))
    assert sum(one.seconds for one in found.slices) == 1200
    assert found.average_share == pytest.approx(
        sum(one.share * one.seconds for one in found.slices) / 1200, abs=100 / 1200 * (1 + len(found.changes))
    )


def test_cases() -> None:
    """The manifest comes first and its variants follow; the two to compare with differ from it in nothing else."""
    parent = parent_of(WAITING, percentage=50, mode="proportional", releaseWindowSeconds=60)
    found = cases(parent, [("a", parent_of())])
    assert [(one.name, one.is_comparison) for one in found] == [
        (AS_WRITTEN, False),
        ("a", False),
        (ALWAYS, True),
        (NEVER, True),
    ]
    assert found[2].parent == parent_of(WAITING, percentage=100, mode="fixed", releaseWindowSeconds=60)
    assert found[3].parent["spec"] == {**parent["spec"], "enabled": False}


def test_seeds() -> None:
    """The same requests give the same outcome, whatever the moment is that they begin at."""
    one, other = [outcome_of(parent_of(WAITING), requests_of(), 1200, ENGINE) for _ in range(2)]
    assert one == other


def notes_of(parent: dict[str, object]) -> tuple[str, ...]:
    """Return the notes about a ModelDeployment."""
    setting = Setting([], 60, ENGINE, builders.NOW, builders.DEFAULTS)
    return prepare(Case("", parent), setting, lambda: 0.0).notes


def test_notes() -> None:
    """What keeps the metrics from deciding is told: no metrics, no remote backend, an override, a policy, disabled."""
    assert notes_of(parent_of(WAITING)) == ()
    assert "metrics is empty" in notes_of(parent_of())[0]
    until = "2099-01-01T00:00:00Z"
    assert "An override sets" in notes_of(parent_of(WAITING, override={"percentage": 1, "until": until}))[0]
    policies = [{"refType": "localPolicy", "name": "europe"}]
    (refused,) = notes_of({**parent_of(WAITING), "spec": {**parent_of(WAITING)["spec"], "policies": policies}})
    assert "europe" in refused
    (off,) = notes_of({**parent_of(WAITING), "spec": {**parent_of(WAITING)["spec"], "enabled": False}})
    assert off.startswith("spec.enabled is false")
    with pytest.raises(InvalidObject, match="percentage"):
        notes_of(parent_of(WAITING, percentage=101))


def test_overflow_counts() -> None:
    """Requests beyond overflow.inFlight go away, whatever the share is, and none does while the model is disabled."""
    parent = parent_of(WAITING, overflow={"inFlight": 10})
    requests = [Request(number / 100, 100, 100) for number in range(100)]
    found = outcome_of(parent, requests, 60, ENGINE)
    assert (found.remote.requests, found.changes) == (90, ())
    off = {**parent, "spec": {**parent["spec"], "enabled": False}}
    assert outcome_of(off, requests, 60, ENGINE).remote.requests == 0


def test_overflow_by_time_counts() -> None:
    """With overflow.firstTokenSeconds requests go away so that first tokens of the others come in time."""
    requests = [Request(number / 20, 100, 100) for number in range(6000)]
    late, in_time = (
        outcome_of(parent_of(WAITING, percentage=0, overflow=overflow), requests, 300, ENGINE).first_token_local.p50
        for overflow in ({"inFlight": 500}, {"inFlight": 500, "firstTokenSeconds": 2})
    )
    assert late is not None
    assert in_time is not None
    assert in_time < 2 < late


def test_no_request() -> None:
    """Without any request there is an outcome without times, which can be printed in every form."""
    result = Result(Case("nothing", parent_of(WAITING)), outcome_of(parent_of(WAITING), [], 60, ENGINE), ())
    assert result.outcome.first_token.p95 is None
    assert "The share never changed." in as_text("title", [result], costs=True)
    assert as_document("title", [result], [])["results"][0]["timeToFirstToken"]["p50"] is None
    assert Limits(0, 0.0, 0.0).problems([result]) == []


def test_limits() -> None:
    """A result that exceeds a limit has a sentence for each, and one that is there for comparison has none."""
    outcome = outcome_of(parent_of(WAITING, percentage=75), requests_of(), 2400, ENGINE)
    result = Result(Case("it", parent_of(WAITING)), outcome, ())
    found = Limits(0, 1.0, 0.1).problems([result, Result(Case("other", {}, is_comparison=True), outcome, ())])
    assert len(found) == 3
    assert found[0] == f"it: {len(outcome.changes)} changes, more than --max-changes 0."
    assert Limits(10**6, 100.0, 10**6).problems([result]) == []
    head, line, *rows = markdown([result], costs=False).splitlines()
    assert head.count("|") == line.count("|") == rows[0].count("|")


def test_percentiles() -> None:
    """A percentile is the smallest value that so many percent of the values do not exceed."""
    assert [percentile(range(1, 101), part) for part in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert [percentile([7], part) for part in (1, 99)] == [7, 7]
    assert percentile([], 50) is None


def test_lengths_of_slices() -> None:
    """A slice is as short as the number of slices allows, of a length that people count time by."""
    assert [length_of(one, 120) for one in (60, 3502, 86400, 10**9)] == [1, 30, 900, LENGTHS[-1]]
    assert length_of(3502, 24, multiple_of=30) == 180
