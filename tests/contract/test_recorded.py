"""Records of the real Metacontroller: the stand-in does the same, and hooks give the same responses.

The records come from `tests/e2e/test_differential.py`, whose scenarios run here on the stand-in alone.
"""

import asyncio
import re

import pytest

from tests.differential import products, records, running, snapshots
from tests.differential.catalog import ALL
from tests.differential.running import Outcome

STAND_IN = ("recorded", "stand-in")
HOOKS = ("recorded", "now")


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Return the outcome of every selected scenario on the stand-in."""
    chosen = running.selected(request)
    return asyncio.run(running.run(chosen, running.in_stand_ins(tmp_path_factory.mktemp("stand-ins")), at_once=8))


@pytest.mark.xdist_group("outcomes")
@pytest.mark.parametrize("name", ALL)
def test_the_stand_in_does_what_metacontroller_did(name: str, outcomes: dict[str, Outcome]) -> None:
    """The objects at rest, the effective writes and the webhook requests of the stand-in are as recorded."""
    outcome = outcomes[name]
    if isinstance(outcome, Exception):
        raise outcome
    snapshots.expect_same(records.read(name), outcome, STAND_IN)


@pytest.mark.parametrize("name", products.PRODUCTS)
async def test_hooks_give_the_recorded_responses(name: str) -> None:
    """Hooks give exactly the recorded response to a recorded request at the same time."""
    exchanges = records.read(name).exchanges
    assert exchanges
    for number, exchange in enumerate(exchanges):
        status, response = await products.respond_again(exchange)
        assert status == exchange.status
        lines = list(snapshots.compare(f"{number} {exchange.target}", exchange.answer, response, *HOOKS))
        assert not lines, "\n".join(("", *lines))


def test_differences_are_listed_by_path() -> None:
    """A changed label, an additional child and a missing write are one line of difference each."""
    one, other = records.read("two-parents"), records.read("two-parents")
    assert snapshots.differences(one, other, HOOKS) == []
    point = other.points[1]
    point.children["ConfigMap/one-child"]["metadata"]["labels"]["controller-uid"] = "x"
    point.children["ConfigMap/more"] = {"kind": "ConfigMap"}
    point.writes["ConfigMap/two-child"] = []
    before = one.points[1].children["ConfigMap/one-child"]["metadata"]["labels"]["controller-uid"]
    assert snapshots.differences(one, other, HOOKS) == [
        'two: children.ConfigMap/more: recorded absent, now {"kind": "ConfigMap"}',
        f'two: children.ConfigMap/one-child.metadata.labels.controller-uid: recorded "{before}", now "x"',
        'two: writes.ConfigMap/two-child: recorded ["create"], now []',
    ]


def test_every_record_has_a_scenario() -> None:
    """Every record has a scenario that uses it."""
    assert records.names() == sorted(ALL)


def test_records_have_nothing_of_the_machine() -> None:
    """No record has a port, a path of the machine or a token, and all have less than a megabyte."""
    texts = [path.read_text(encoding="utf-8") for path in records.FOLDER.glob("*.json")]
    assert not [text for text in texts if re.search(r"127\.0\.0\.1:[1-9]|/(root|home|tmp|work)/|eyJ|[Bb]earer", text)]
    assert sum(map(len, texts)) < 1_000_000
