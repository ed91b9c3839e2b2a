"""The cluster source against a scripted API server: pages, bookmarks, versions that are too old, streams that break."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from kubernetes.aio.client import Configuration

from gateway.routes import sources
from gateway.routes.sources import configmaps
from gateway.routes.sources.configmaps import ConfigMapSource
from gateway.routes.store import RouteStore
from gateway.telemetry import Metrics
from program.kubernetes import client
from program.kubernetes.client import KubernetesClient
from program.kubernetes.errors import ApiError
from tests.deadlines import SECONDS
from tests.integration.apiserver import BREAK, END, ApiServer, Collection, config_map
from tests.integration.gateway.wire import document
from tests.integration.servers import until

PLACE = "namespace default"
SECRET = "/api/v1/namespaces/default/secrets/s"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """A scripted API server."""
    api = ApiServer()
    api.start()
    yield api
    api.stop()


def path(namespace: str = "default") -> str:
    """Where the ConfigMaps of a namespace are."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def script(api: ApiServer) -> Collection:
    """The ConfigMaps of the namespace `default`: one, named a."""
    script = api.collections[path()] = Collection([config_map("a")])
    return script


@asynccontextmanager
async def source_of(
    api: ApiServer, namespaces: frozenset[str] | None = None, relist_seconds: float = 300.0
) -> AsyncIterator[ConfigMapSource]:
    """Open a source that asks the scripted server."""
    async with KubernetesClient(Configuration(host=f"http://127.0.0.1:{api.port}")) as opened:
        yield ConfigMapSource(opened, namespaces, relist_seconds=relist_seconds)


@dataclass
class Followed:
    """What the source told."""

    store: RouteStore
    """Fed by the source as in the gateway."""
    snapshots: list[sources.Snapshot] = field(default_factory=list)
    confirmed: int = 0

    @property
    def texts(self) -> dict[str, str | None]:
        """What is known now."""
        return {one.name: one.text for one in self.snapshots[-1].config_maps} if self.snapshots else {}

    @property
    def errors(self) -> dict[str, str]:
        """What cannot be read now."""
        return dict(self.snapshots[-1].errors) if self.snapshots else {}


@asynccontextmanager
async def followed(
    api: ApiServer, *namespaces: str, everywhere: bool = False, relist_seconds: float = 300.0
) -> AsyncIterator[Followed]:
    """A source that follows the scripted server, in the namespace `default` unless told otherwise."""
    served = None if everywhere else frozenset(namespaces or {"default"})
    told = Followed(
        RouteStore(
            namespaces=served,
            cluster_domain="cluster.local",
            bare_hostnames="namespace",
            metrics=Metrics(),
            clock=time.time,
        )
    )

    def apply(snapshot: sources.Snapshot) -> None:
        told.snapshots.append(snapshot)
        told.store.apply(snapshot)

    def confirm() -> None:
        told.confirmed += 1
        told.store.confirm()

    async with source_of(api, served, relist_seconds) as source:
        task = asyncio.create_task(source.run(apply, confirm))
        try:
            yield told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            told.store.close()


async def passes(seconds: float) -> None:
    """Some time in which something must not happen."""
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > seconds, seconds + SECONDS)


async def test_pages_make_one_snapshot(api: ApiServer, script: Collection) -> None:
    """2,000 routes come in pages, are applied whole, and are watched from the version of the list."""
    script.items = [config_map(f"c{number}", number) for number in range(2000)]
    script.version = 77
    async with followed(api) as told:
        await until(lambda: script.watched == ["77"])
        await until(lambda: len(told.texts) == 2000)
        assert len(told.snapshots) == 1
        assert {one["labelSelector"] for one in script.queries} == {"gateway.beamlit.com/route=v1alpha1"}
        assert [one.get("limit") for one in script.queries] == ["500", "500", "500", "500", None]
        assert script.queries[-1]["allowWatchBookmarks"] == "true"


async def test_lists_every_five_minutes_and_not_all_at_once(api: ApiServer) -> None:
    """A watch is asked for until the next list: five minutes, give or take a tenth, each another time."""
    names = [f"n{number}" for number in range(12)]
    scripts = [api.collections.setdefault(path(name), Collection()) for name in names]
    async with followed(api, *names):
        await until(lambda: all(script.watched for script in scripts))
        seconds = [int(script.queries[-1]["timeoutSeconds"]) for script in scripts]
        assert all(269 <= one <= 330 for one in seconds)
        assert len(set(seconds)) > 3


async def test_events_and_bookmarks(api: ApiServer, script: Collection) -> None:
    """Added, modified, deleted, each at once; a bookmark confirms, and the next watch goes on from its version."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        steps: list[tuple[str, dict[str, object], dict[str, str]]] = [
            ("ADDED", config_map("b", 2), {"a": "a", "b": "a"}),
            ("MODIFIED", config_map("a", 3, "new"), {"a": "new", "b": "a"}),
            ("DELETED", config_map("b", 4), {"a": "new"}),
        ]
        for kind, item, expected in steps:
            script.push(kind, item)
            await until(lambda expected=expected: told.texts == expected)  # type: ignore[misc]
        before = told.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
        await until(lambda: told.confirmed == before + 1)
        script.events.put(END)
        await until(lambda: script.watched == ["1", "9"])
        assert script.lists == 1
        assert told.errors == {}


async def test_the_origin_is_for_people(api: ApiServer) -> None:
    """Without namespaces the whole cluster is followed, and a route's origin is `namespace/name`."""
    script = api.collections["/api/v1/configmaps"] = Collection([config_map("a"), config_map("a", namespace="other")])
    async with followed(api, everywhere=True) as told:
        await until(lambda: bool(told.snapshots))
        assert {one.origin for one in told.snapshots[-1].config_maps} == {"default/a", "other/a"}
        script.list_status = 500
        script.events.put(BREAK)
        await until(lambda: "500" in told.errors.get("the cluster", ""))


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_is_too_old_is_listed_anew(api: ApiServer, script: Collection, how: str) -> None:
    """410, in the stream or as the answer to a watch: list again at once, without an error."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        script.items, script.version = [config_map("b", 5)], 5
        if how == "event":
            script.push("ERROR", {"code": 410, "reason": "Expired"})
        else:
            script.watch_statuses = [410]
            script.events.put(END)
        await until(lambda: set(told.texts) == {"b"})
        await until(lambda: script.watched[-1] == "5")
        assert script.lists == 2
        assert not any(one.errors for one in told.snapshots)


async def test_a_page_that_is_too_old_starts_the_list_anew(api: ApiServer, script: Collection) -> None:
    """410 in the middle of a list: nothing is applied of it, and the next one starts from its first page."""
    script.items, script.page = [config_map("a"), config_map("b")], 1
    script.list_statuses = [200, 410]
    async with followed(api) as told:
        await until(lambda: set(told.texts) == {"a", "b"})
        assert script.lists == 2
        assert len(told.snapshots) == 1


async def test_410_for_ever_is_no_tight_loop(api: ApiServer, script: Collection) -> None:
    """An API server that calls every version too old is asked ever more rarely, and that is told."""
    script.watch_status = 410
    async with followed(api) as told:
        await until(lambda: "410" in told.errors.get(PLACE, ""))
        await passes(1.0)
        assert script.lists <= 8
        assert set(told.texts) == {"a"}


async def test_a_broken_stream_loses_nothing(api: ApiServer, script: Collection) -> None:
    """A stream that breaks off in an event: what was known stays, the reason is told, and a list brings the rest."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(told.texts) == {"a", "b"})
        script.items = [config_map("a"), config_map("b", 2), config_map("c", 3)]
        script.events.put(BREAK)
        await until(lambda: set(told.texts) == {"a", "b", "c"} and not told.errors)
        broken = next(one for one in told.snapshots if one.errors)
        assert not broken.fresh
        assert {one.name for one in broken.config_maps} == {"a", "b"}
        assert script.lists == 2


async def test_a_watch_that_is_refused_leaves_lists(api: ApiServer, script: Collection) -> None:
    """Who may list and not watch is told so all the time, gets changes by lists, and asks ever more rarely."""
    script.watch_status = 403
    async with followed(api) as told:
        await until(lambda: "403" in told.errors.get(PLACE, ""))
        script.items = [config_map("b", 2)]
        await until(lambda: set(told.texts) == {"b"})
        assert "403" in told.errors[PLACE]
        await passes(1.0)
        assert script.lists <= 8
        script.watch_status = 200
        await until(lambda: not told.errors)


async def test_a_missed_event_is_repaired(api: ApiServer, script: Collection) -> None:
    """What no watch ever said is found by the next list."""
    async with followed(api, relist_seconds=1.0) as told:
        await until(lambda: set(told.texts) == {"a"})
        script.items = [config_map("b", 2)]
        await until(lambda: set(told.texts) == {"b"})
        assert not any(one.errors for one in told.snapshots)


async def test_a_watch_without_end_is_ended(api: ApiServer, script: Collection) -> None:
    """Even where something in between lets no watch end in time, the next list comes."""
    script.endless = True
    async with followed(api, relist_seconds=1.0) as told:
        await until(lambda: script.watched == ["1"])
        script.items = [config_map("b", 2)]
        async with asyncio.timeout(SECONDS):
            while set(told.texts) != {"b"}:
                script.push("BOOKMARK", {"metadata": {"resourceVersion": "1"}})
                await asyncio.sleep(0.05)


async def test_a_bug_does_not_end_it(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is logged with its trace, seen as an error, and routes are followed on."""
    read, broken = configmaps._config_map, [True]

    def config_map_of(item: Mapping[str, Any]) -> sources.ConfigMap:
        if broken:
            raise RuntimeError("nobody expected it")
        return read(item)

    monkeypatch.setattr(configmaps, "_config_map", config_map_of)
    with structlog.testing.capture_logs() as lines:
        async with followed(api) as told:
            await until(lambda: "RuntimeError" in told.errors.get(PLACE, ""))
            broken.clear()
            await until(lambda: set(told.texts) == {"a"} and not told.errors)
    assert "routes_following_failed" in [one["event"] for one in lines]


async def test_watches_that_end_at_once(api: ApiServer, script: Collection) -> None:
    """No error, and no tight loop either."""
    for _ in range(100):
        script.events.put(END)
    async with followed(api) as told:
        await until(lambda: bool(told.snapshots))
        await passes(1.0)
        assert 2 <= len(script.watched) <= 8
        assert told.errors == {}


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_errors_keep_what_is_known(api: ApiServer, script: Collection, status: int) -> None:
    """Forbidden or failing: one error by its place, in the API server's words, and the routes stay."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        script.list_status = status
        script.push("ERROR", {"code": 500, "reason": "InternalError"})
        await until(lambda: told.errors.get(PLACE, "").endswith(f": scripted {status}"))
        assert str(status) in told.errors[PLACE]
        assert set(told.texts) == {"a"}
        assert told.store.loaded.is_set()
        await until(lambda: PLACE in told.store.source_errors)
        script.list_status = 200
        await until(lambda: not told.errors)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"items": ["x"]}', b'{"items": {"a": 1}}', b"\xff"],
    ids=["html", "list", "text", "object", "bytes"],
)
async def test_a_list_that_is_none(api: ApiServer, script: Collection, body: bytes) -> None:
    """Something in between answers 200 with anything: told, and outlived."""
    script.body = body
    async with followed(api) as told:
        await until(lambda: PLACE in told.errors)
        assert not told.store.loaded.is_set()
        script.body = None
        await until(lambda: set(told.texts) == {"a"} and not told.errors)


@pytest.mark.parametrize(
    "event", [b"{", b"7", b"{}", b'{"type": "ADDED", "object": 1}', b'{"type":"ERROR","object":{}}']
)
async def test_an_event_that_is_none(api: ApiServer, script: Collection, event: bytes) -> None:
    """Told, and repaired by a list."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        script.items = [config_map("b", 2)]
        script.events.put(event)
        await until(lambda: set(told.texts) == {"b"} and not told.errors)
        assert any(one.errors for one in told.snapshots)


async def test_objects_without_parts(api: ApiServer, script: Collection) -> None:
    """A ConfigMap without data, and events of an unknown type, are no reason to stop."""
    script.items = [{"metadata": {"name": "empty", "namespace": "default"}}]
    async with followed(api) as told:
        await until(lambda: told.texts == {"empty": None})
        await until(lambda: script.watched == ["1"])
        script.push("NEW-IN-2040", config_map("x"))
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(told.texts) == {"empty", "b"})


async def test_not_ready_before_the_first_list(api: ApiServer, script: Collection) -> None:
    """Without an API server nothing is loaded, the error can be seen, and the log has one line about it."""
    script.list_status = 500
    with structlog.testing.capture_logs() as lines:
        async with followed(api) as told:
            await until(lambda: script.lists >= 3)
            assert not told.store.loaded.is_set()
            assert "500" in told.store.source_errors[PLACE]
            assert told.store.refreshed_at == 0
            assert told.confirmed == 0
            assert [one["event"] for one in lines] == ["routes_cannot_be_read"]
            script.list_status = 200
            await until(told.store.loaded.is_set)
            await until(lambda: not told.store.source_errors)
    assert "routes_are_followed_again" in [one["event"] for one in lines]


async def test_the_log_says_it_again(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble that lasts has a line every minute, not one for every try."""
    monkeypatch.setattr(configmaps, "LOG_SECONDS", 0.5)
    script.list_status = 500
    with structlog.testing.capture_logs() as lines:
        async with followed(api):
            await until(lambda: len(lines) == 2)
            assert script.lists > 2


async def test_a_closed_namespace_does_not_stop_the_others(api: ApiServer, script: Collection) -> None:
    """One error, the other namespace is served and followed; once it may be read it is."""
    closed = api.collections[path("closed")] = Collection([config_map("late", namespace="closed")], list_status=403)
    async with followed(api, "default", "closed") as told:
        await until(told.store.loaded.is_set)
        await until(lambda: list(told.errors) == ["namespace closed"])
        assert set(told.texts) == {"a"}
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(told.texts) == {"a", "b"})
        assert "namespace closed" in told.errors
        closed.list_status = 200
        await until(lambda: set(told.texts) == {"a", "b", "late"} and not told.errors)


async def test_a_namespace_that_does_not_answer_yet_is_waited_for(api: ApiServer, script: Collection) -> None:
    """Half a table is not served as if it were whole."""
    slow = api.collections[path("slow")] = Collection([config_map("late", namespace="slow")], list_status=503)
    async with followed(api, "default", "slow") as told:
        await until(lambda: set(told.texts) == {"a"} and slow.lists > 1)
        assert not told.store.loaded.is_set()
        slow.list_status = 200
        await until(told.store.loaded.is_set)
        assert len(told.store.documents) == 2


async def test_the_table_is_as_old_as_its_oldest_part(api: ApiServer, script: Collection) -> None:
    """News of one namespace make the table no younger while another cannot be read; a closed one does not count."""
    other = api.collections[path("other")] = Collection([config_map("b", namespace="other")])
    api.collections[path("closed")] = Collection(list_status=403)
    async with followed(api, "default", "other", "closed") as told:
        await until(lambda: told.store.loaded.is_set() and len(told.store.documents) == 2)
        await until(lambda: bool(script.watched and other.watched))
        before = told.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "2"}})
        await until(lambda: told.confirmed > before)
        other.list_status = 503
        other.events.put(BREAK)
        await until(lambda: "namespace other" in told.store.source_errors)
        stands, before = told.store.refreshed_at, told.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "3"}})
        script.push("ADDED", config_map("c", 4))
        await until(lambda: len(told.store.documents) == 3)
        assert (told.store.refreshed_at, told.confirmed) == (stands, before)
        other.list_status = 200
        await until(lambda: told.store.refreshed_at > stands)


async def test_nothing_that_may_be_read_is_not_ready(api: ApiServer, script: Collection) -> None:
    """A gateway that may read no namespace at all does not take traffic only to answer 404."""
    script.list_status = 403
    async with followed(api) as told:
        await until(lambda: "403" in told.store.source_errors.get(PLACE, ""))
        await until(lambda: script.lists >= 2)
        assert not told.store.loaded.is_set()


async def test_the_api_server_goes_away_and_comes_back(api: ApiServer, script: Collection) -> None:
    """The table and readiness stay, its age grows, and what changed meanwhile is caught up."""
    script.items = [config_map("demo", text=document().canonical_json())]
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        api.stop()
        await until(lambda: PLACE in told.store.source_errors)
        stands = told.store.refreshed_at
        await passes(0.5)
        assert told.store.refreshed_at == stands
        assert told.store.loaded.is_set()
        assert len(told.store.table.routes) == 1
        script.items.append(config_map("b", 2))
        api.start()
        await until(lambda: set(told.texts) == {"demo", "b"} and not told.errors)
        await until(lambda: told.store.refreshed_at > stands and not told.store.source_errors)


async def test_a_slow_list_is_given_up(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has a deadline, and single objects are read meanwhile."""
    monkeypatch.setattr(client, "LIST_SECONDS", 0.3)
    script.delay = 5
    api.objects[SECRET] = {"data": {}}
    async with followed(api) as told:
        await until(lambda: script.lists >= 1)
        async with source_of(api) as source:
            assert await source.secret("default", "s") == {}
        await until(lambda: "timed out" in told.errors.get(PLACE, ""))
        script.delay = 0
        await until(told.store.loaded.is_set)


async def test_a_silent_watch_is_given_up(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without events and bookmarks for too long is dead, and everything is listed."""
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.3)
    async with followed(api) as told:
        await until(lambda: set(told.texts) == {"a"})
        script.items = [config_map("b", 2)]
        await until(lambda: set(told.texts) == {"b"})


async def test_large_pages_are_asked_for_in_parts(
    api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into memory at once comes in smaller pages; one object that never fits is an error."""
    monkeypatch.setattr(client, "PAGE_BYTES", 20_000)
    script.items = [config_map(f"c{number}", number, "x" * 3000) for number in range(20)]
    async with followed(api) as told:
        await until(lambda: len(told.texts) == 20)
        assert told.errors == {}
        assert [one.get("limit") for one in script.queries][:4] == ["500", "62", "7", "1"]
        script.items = [config_map("huge", 1, "x" * 30_000)]
        script.events.put(BREAK)
        await until(lambda: "larger than" in told.errors.get(PLACE, ""))
        assert len(told.texts) == 20


async def test_an_event_without_end(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events arrive whole however large the pieces are; one above the limit ends the watch."""
    monkeypatch.setattr(client, "EVENT_BYTES", 300_000)
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"])
        script.push("ADDED", config_map("large", 2, "x" * 200_000))
        await until(lambda: len(told.texts.get("large") or "") == 200_000)
        script.push("ADDED", config_map("larger", 2, "x" * 600_000))
        await until(lambda: any("larger than" in one.errors.get(PLACE, "") for one in told.snapshots))


async def test_many_events_are_few_snapshots(api: ApiServer, script: Collection) -> None:
    """A snapshot is of all there is: events that come together make one."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"] and set(told.texts) == {"a"})
        for number in range(200):
            script.push("ADDED", config_map(f"b{number}", number + 2))
        await until(lambda: len(told.texts) == 201)
        assert len(told.snapshots) < 100


async def test_nothing_is_told_after_the_end(api: ApiServer, script: Collection) -> None:
    """A source that was cancelled applies no change that arrives later."""
    async with followed(api) as told:
        await until(lambda: script.watched == ["1"] and set(told.texts) == {"a"})
    script.push("ADDED", config_map("b", 2))
    await until(script.events.empty)
    await passes(0.2)
    assert set(told.texts) == {"a"}


async def test_secrets_by_name(api: ApiServer) -> None:
    """Data is decoded, labels come with it; an object that does not exist is None."""
    api.objects[SECRET] = {
        "metadata": {"labels": {"gateway.beamlit.com/credential": "true"}},
        "data": {"clientId": base64.b64encode(b"id").decode(), "binary": base64.b64encode(b"\xff").decode()},
    }
    found = "/apis/deployment.beamlit.com/v1alpha1/namespaces/default/modeldeployments/m"
    api.objects[found] = {"spec": {"model": "m"}}
    async with source_of(api) as source:
        secret = await source.secret("default", "s")
        assert secret == {"clientId": "id", "label:gateway.beamlit.com/credential": "true"}
        assert await source.secret("default", "none") is None
        assert await source.model_deployment("default", "m") == {"spec": {"model": "m"}}
        assert await source.model_deployment("default", "none") is None


async def test_secrets_that_cannot_be_had(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbidden, slow or away is an OSError with a short text."""
    monkeypatch.setattr(configmaps, "GET_SECONDS", 0.2)
    api.objects[SECRET] = {"data": {}}
    api.refused[SECRET] = 403
    async with source_of(api) as source:
        with pytest.raises(OSError, match=r"^the API server responds with 403 Forbidden: scripted 403$"):
            await source.secret("default", "s")
        api.refused.clear()
        api.delay = 2
        with pytest.raises(OSError, match="timed out"):
            await source.secret("default", "s")
        api.stop()
        with pytest.raises(OSError, match="cannot be asked") as caught:
            await source.secret("default", "s")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


async def test_a_busy_api_server_is_asked_once_more(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 is what the first reader of a custom resource may get: it is waited out, once."""
    monkeypatch.setattr(configmaps, "BUSY_SECONDS", 0.05)
    api.objects[SECRET] = {"data": {}}
    async with source_of(api) as source:
        api.statuses = [429]
        assert await source.secret("default", "s") == {}
        api.statuses = [429, 429, 200]
        with pytest.raises(ApiError, match="429") as caught:
            await source.secret("default", "s")
    assert (caught.value.status, api.statuses) == (429, [200])


async def test_few_objects_are_read_at_the_same_time(api: ApiServer) -> None:
    """Four reads are on their way at once, the others wait for them, and a cancelled one makes room."""
    api.delay = 30
    async with source_of(api) as source, asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(source.secret("default", "s")) for _ in range(6)]
        await until(lambda: len(api.tokens) == 4)
        await passes(0.3)
        assert len(api.tokens) == 4
        reads[0].cancel()
        await until(lambda: len(api.tokens) == 5)
        for read in reads:
            read.cancel()


@pytest.mark.parametrize("name", ["..", ".", "", "../../other/secrets/s", "s?watch=1", "s/x"])
async def test_a_name_is_one_segment(api: ApiServer, name: str) -> None:
    """No name leads to another object than the one in that namespace."""
    api.objects[SECRET] = api.objects["/api/v1/namespaces/other/secrets/s"] = {"data": {}}
    async with source_of(api) as source:
        try:
            found = await source.secret("default", name)
        except OSError:
            found = None
    assert found is None
