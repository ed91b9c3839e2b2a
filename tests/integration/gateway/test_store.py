"""Store of the routing table: the table is replaced as a whole, each document is checked alone."""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from math import inf

import httpx
import orjson
import pytest

from gateway import admin
from gateway.api.v1alpha1 import Breaker
from gateway.journal import Journal
from gateway.routes import sources
from gateway.routes.store import COALESCE_SECONDS, RouteStore
from gateway.telemetry import Metrics
from program.metric_parts import PART
from tests.integration.gateway.wire import document, local, remote
from tests.integration.servers import until


class Clock:
    """Clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that shows 1000."""
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    """Return metrics of this test."""
    return Metrics()


@pytest.fixture
def slice_seconds() -> float:
    """Return the time a table is built without a pause: as long as it takes, on a busy machine too."""
    return inf


@pytest.fixture
def store(clock: Clock, metrics: Metrics, slice_seconds: float) -> Iterator[RouteStore]:
    """Yield a store without routes."""
    store = RouteStore(
        namespaces=frozenset({"default"}),
        cluster_domain="cluster.local",
        bare_hostnames="namespace",
        metrics=metrics,
        clock=clock,
        slice_seconds=slice_seconds,
    )
    yield store
    store.close()


def snapshot(*entries: tuple[str, str, str | None], created: str = "2026-01-01T00:00:00Z") -> sources.Snapshot:
    """Return a snapshot of ConfigMaps, given as namespace, name and text."""
    return sources.Snapshot([sources.ConfigMap(*entry[:2], created, entry[2], "test") for entry in entries])


def text(name: str = "demo", **values: object) -> str:
    """Return the text of a route document."""
    return document(name=name, **values).canonical_json()


async def test_the_first_load_counts_at_once(store: RouteStore, metrics: Metrics) -> None:
    """The first complete snapshot is in force at once, so a ready gateway has all routes."""
    assert not store.loaded.is_set()
    store.apply(snapshot(("default", "a", text())))
    assert store.loaded.is_set()
    assert set(store.table.routes) == {"default/demo"}
    assert metrics.registry.get_sample_value("beamlit_gateway_routes") == 1


async def test_the_split_is_a_metric(store: RouteStore, metrics: Metrics) -> None:
    """The share of each backend in the split in force is a metric, as long as the route is there."""
    weight, labels = "beamlit_gateway_backend_weight", {"namespace": "default", "model": "demo"}

    def weights() -> list[float | None]:
        found = (metrics.registry.get_sample_value(weight, labels | {"backend": one}) for one in ("local", "remote"))
        return list(found)

    store.apply(snapshot(("default", "a", document(local(70), remote(30)).canonical_json())))
    assert weights() == [70, 30]
    store.apply(snapshot(("default", "a", document(local(0), remote(100)).canonical_json())))
    await until(lambda: weights() == [0, 100])
    store.apply(snapshot())
    await until(lambda: weights() == [None, None])


async def test_metrics_of_many_routes_come_in_parts(store: RouteStore, metrics: Metrics) -> None:
    """Metrics of routes are given some routes at a time, each route once, and once without any where there is none."""
    families = ("beamlit_gateway_arrived_requests", "beamlit_gateway_backend_weight")

    def parts() -> list[tuple[str, int]]:
        return [(one.name, len(one.samples)) for one in metrics.routes_in_force.collect()]

    assert parts() == [(name, 0) for name in families]
    number = 2 * PART + 1
    store.apply(snapshot(*(("default", f"a{one}", text(f"a{one}")) for one in range(number))))
    assert parts() == [(name, samples) for name in families for samples in (PART, PART, 1)]


@pytest.mark.parametrize("slice_seconds", [0.0])
async def test_a_large_table_is_built_between_turns(store: RouteStore) -> None:
    """The old table stays in force until the new one is complete; a change that comes meanwhile is applied next."""
    store.apply(snapshot(*(("default", f"a{number}", text(f"a{number}")) for number in range(50))))
    assert (store.loaded.is_set(), store.generation) == (False, 0)
    store.apply(snapshot(("default", "b", text("b"))))
    turns = 0
    while not store.loaded.is_set():
        assert not store.table.routes
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert (len(store.table.routes), store.generation) == (50, 1)
    first = store.table
    await until(lambda: store.generation == 2)
    assert (set(store.table.routes), len(first.routes)) == ({"default/b"}, 50)


@pytest.mark.parametrize("slice_seconds", [0.0])
async def test_closing_the_store_cancels_a_swap(store: RouteStore) -> None:
    """No table comes into force after the store was closed."""
    store.apply(snapshot(*(("default", f"a{number}", text(f"a{number}")) for number in range(50))))
    await asyncio.sleep(0)
    store.close()
    for _ in range(500):
        await asyncio.sleep(0)
    assert store.generation == 0


async def test_changes_that_come_together_make_one_table(store: RouteStore) -> None:
    """Fifty changes at once make one swap, and the last one counts."""
    store.apply(snapshot())
    for number in range(50):
        store.apply(snapshot(("default", "a", text(limits={"bodyBytes": number}))))
    assert store.generation == 1
    await until(lambda: store.generation == 2)
    assert store.table.routes["default/demo"].document.limits.body_bytes == 49
    await asyncio.sleep(2 * COALESCE_SECONDS)  # no further swap follows
    assert store.generation == 2


@pytest.mark.parametrize("broken", [None, "{", '{"apiVersion": "gateway.beamlit.com/v1alpha1"}', '{"name": 1}'])
async def test_k_34_the_last_good_document_stays(
    store: RouteStore, clock: Clock, metrics: Metrics, broken: str | None
) -> None:
    """A document that does not parse is reported; the last good one stays in force with its time."""
    store.apply(snapshot(("default", "a", text(limits={"bodyBytes": 7}))))
    clock.now = 2000
    store.apply(snapshot(("default", "a", broken)))
    await until(lambda: store.generation == 2)
    known = store.documents["default/a"]
    assert known.error
    assert known.applied_at == 1000
    assert store.table.routes["default/demo"].document.limits.body_bytes == 7
    assert metrics.registry.get_sample_value("beamlit_gateway_document_errors") == 1
    store.apply(snapshot(("default", "a", text())))
    await until(lambda: store.generation == 3)
    assert store.documents["default/a"].error is None
    assert metrics.registry.get_sample_value("beamlit_gateway_document_errors") == 0


async def test_a_document_that_was_never_good_is_no_route(store: RouteStore) -> None:
    """A document that never parsed is reported and makes no route; other documents do."""
    store.apply(snapshot(("default", "bad", "{"), ("default", "good", text())))
    assert store.documents["default/bad"].good is None
    assert set(store.table.routes) == {"default/demo"}


async def test_k_05_two_documents_for_one_model(store: RouteStore) -> None:
    """Of two documents for one model one makes a route, which alone has its state, and the conflict is listed."""
    store.apply(snapshot(("default", "a", text()), ("default", "b", text(limits={"bodyBytes": 1}))))
    assert len(store.table.routes) == 1
    local = store.table.routes["default/demo"].document.backends[0]
    store.runtime("default/demo").backend(local, "server", Breaker()).breaker.report(healthy=False, now=0.0)
    page = orjson.loads(b"".join(admin.routes_page(store)))
    winner, loser = page["routes"]
    assert (winner["backends"][0]["healthy"], loser["backends"][0]["healthy"]) == (False, True)
    assert (winner["configMap"], winner["inForce"], winner["error"]) == ("a", True, None)
    assert (loser["configMap"], loser["inForce"]) == ("b", False)
    assert loser["error"].startswith("ConfigMap default/a has a document of the name demo, too, and comes first")
    assert page["conflicts"] == [
        {"claim": "name default/demo", "winner": "ConfigMap default/a", "loser": "ConfigMap default/b"}
    ]


async def test_the_error_of_a_document_that_makes_no_route_is_that_of_its_newest_version(store: RouteStore) -> None:
    """A document that has lost its name, and whose newest version is refused, shows why that version is refused."""
    store.apply(snapshot(("default", "a", text()), ("default", "b", text())))
    store.apply(snapshot(("default", "a", text()), ("default", "b", "{")))
    await until(lambda: store.generation == 2)
    winner, loser = orjson.loads(b"".join(admin.routes_page(store)))["routes"]
    assert (winner["inForce"], loser["inForce"]) == (True, False)
    assert "is not JSON" in loser["error"]


async def test_another_namespace_is_not_served(store: RouteStore) -> None:
    """Documents of a namespace that is not in the settings make no routes, which their state says."""
    store.apply(snapshot(("team-b", "a", text())))
    assert store.table.routes == {}
    (state,) = orjson.loads(b"".join(admin.routes_page(store)))["routes"]
    assert (state["inForce"], state["error"]) == (False, "this gateway does not serve the namespace team-b")


async def test_state_of_a_route_outlives_its_documents(store: RouteStore) -> None:
    """The runtime state of a route is kept over swaps, and dropped when the route and its requests are gone."""
    store.apply(snapshot(("default", "a", text())))
    state = store.runtime("default/demo")
    state.turn, state.in_flight = 42, 1
    store.apply(snapshot(("default", "a", text(limits={"bodyBytes": 1}))))
    await until(lambda: store.generation == 2)
    assert store.runtime("default/demo") is state
    store.apply(snapshot())
    await until(lambda: store.generation == 3)
    assert store.runtime("default/demo") is state  # a request is in flight
    state.in_flight = 0
    store.apply(snapshot(("default", "other", text("other"))))
    await until(lambda: store.generation == 4)
    assert store.runtime("default/demo") is not state


async def test_confirming_is_being_up_to_date(store: RouteStore, clock: Clock) -> None:
    """A confirmation that nothing has changed makes the table as young as a snapshot does."""
    store.apply(snapshot())
    clock.now = 1500
    store.confirm()
    assert store.refreshed_at == 1500


async def test_an_error_does_not_hide_a_change_that_comes_with_it(store: RouteStore, clock: Clock) -> None:
    """When a change and an error come together, the age of the table is counted from the change."""
    store.apply(snapshot())
    clock.now = 1500
    news = snapshot(("default", "a", text()))
    store.apply(news)
    store.apply(replace(news, errors={"namespace other": "forbidden"}, fresh=False))
    await until(lambda: store.generation == 2)
    assert store.refreshed_at == 1500
    assert store.source_errors == {"namespace other": "forbidden"}
    clock.now = 2000
    store.apply(replace(news, fresh=False))
    await until(lambda: store.generation == 3)
    assert store.refreshed_at == 1500


async def test_an_incomplete_snapshot_is_not_in_force(store: RouteStore, metrics: Metrics) -> None:
    """Before the first complete snapshot only errors are shown, on the admin page and in a metric."""
    half = replace(snapshot(("default", "a", text())), errors={"namespace b": "away"}, fresh=False, complete=False)
    store.apply(half)
    assert not store.loaded.is_set()
    assert (len(store.table.routes), store.refreshed_at) == (0, 0)
    assert orjson.loads(b"".join(admin.routes_page(store)))["sourceErrors"] == {"namespace b": "away"}
    assert metrics.registry.get_sample_value("beamlit_gateway_document_errors") == 1
    store.apply(snapshot(("default", "a", text())))
    assert store.loaded.is_set()
    assert orjson.loads(b"".join(admin.routes_page(store)))["sourceErrors"] == {}


async def test_the_page_shows_the_age(store: RouteStore, metrics: Metrics) -> None:
    """The admin page shows the age of the table in seconds, and `never` before the first load."""
    app = admin.create_app(store, metrics, Journal(10), draining=lambda: False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        assert "up to date: never." in (await client.get("/")).text
        store.apply(snapshot())
        store.refreshed_at = time.time() - 42
        page = (await client.get("/")).text
        assert re.search(r"up to date: \d{4}-\d\d-\d\dT[\d:]+Z, 4[23] s ago\.", page)
        assert 42 <= (await client.get("/routes")).json()["ageSeconds"] < 44


async def test_unknown_fields_are_counted(store: RouteStore, metrics: Metrics) -> None:
    """A field of a newer controller is ignored and counted in a metric."""
    newer = text()[:-1] + ',"fancy":1}'
    store.apply(snapshot(("default", "a", newer)))
    assert set(store.table.routes) == {"default/demo"}
    assert metrics.registry.get_sample_value("beamlit_gateway_document_unknown_fields") == 1
