"""Every scenario on the real Metacontroller and on the stand-in: the same objects at rest, the same effective writes.
The results of the real one are compared with `tests/contract/recorded/` as well, or written there with E2E_RECORD=1."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.differential import records, running, snapshots
from tests.differential.catalog import ALL
from tests.differential.running import Outcome
from tests.differential.snapshots import Record
from tests.e2e import controlplane
from tests.e2e.product import missing
from tests.e2e.real_world import Cluster

AT_ONCE = 16


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Outcomes of the selected scenarios on a control plane of their own, whose audit log counts the writes."""
    if reason := missing():
        pytest.skip(reason)
    chosen = running.selected(request)
    with controlplane.running(tmp_path_factory.mktemp("differential")) as plane:
        cluster = Cluster(plane)
        cluster.start({scenario.parent.resource: scenario.crd for scenario in chosen}.values())
        outcomes = asyncio.run(running.run(chosen, cluster.opening(), at_once=AT_ONCE))
        assert cluster.metacontroller.alive(), cluster.metacontroller.tail()
        cluster.count({name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Record)})
        yield outcomes


@pytest.fixture(scope="module")
def stand_in(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Outcomes of the selected scenarios on the stand-in."""
    opening = running.in_stand_ins(tmp_path_factory.mktemp("stand-ins"))
    return asyncio.run(running.run(running.selected(request), opening, at_once=8))


@pytest.mark.parametrize("name", ALL)
def test_both_do_the_same(name: str, real: dict[str, Outcome], stand_in: dict[str, Outcome]) -> None:
    """Children, parents, status, effective writes and the hook's requests are equal at each point of rest."""
    one, other = real[name], stand_in[name]
    for outcome in (one, other):
        if isinstance(outcome, Exception):
            raise outcome
    assert isinstance(one, Record)
    assert isinstance(other, Record)
    snapshots.expect_same(one, other, ("real", "stand-in"))


@pytest.mark.parametrize("name", ALL)
def test_metacontroller_does_what_it_did(name: str, real: dict[str, Outcome]) -> None:
    """The real Metacontroller does what its record says."""
    outcome = real[name]
    if isinstance(outcome, Exception):
        raise outcome
    if records.recording():
        records.write(name, outcome)
    snapshots.expect_same(outcome, records.read(name), ("real", "recorded"))
