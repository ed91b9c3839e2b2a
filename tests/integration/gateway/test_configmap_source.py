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
from gateway.routes.sources import configmaps, scope
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
    """Start a scripted API server."""
    api = ApiServer()
    api.start()
    yield api
    api.stop()


def path(namespace: str = "default") -> str:
    """Return the path of the ConfigMaps of a namespace."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def script(api: ApiServer) -> Collection:
    """Give the namespace `default` one ConfigMap, named a."""
    script = api.collections[path()] = Collection([config_map("a")])
    return script


@asynccontextmanager
async def source_of(
    api: ApiServer, namespaces: frozenset[str] | None = None, relist_seconds: float = 300.0
) -> AsyncIterator[ConfigMapSource]:
    """Open a source that asks the scripted server."""
    async with KubernetesClient(Configuration(host=f"http://127.0.0.1:{api.port}"), 512) as opened:
        yield ConfigMapSource(opened, namespaces, relist_seconds=relist_seconds)


@dataclass
class Followed:
    """Snapshots and confirmations of a source."""

    store: RouteStore
    """Store that the source applies to, as in the gateway."""
    snapshots: list[sources.Snapshot] = field(default_factory=list)
    confirmed: int = 0

    @property
    def texts(self) -> dict[str, str | None]:
        """Texts of the ConfigMaps in the last snapshot, by name."""
        return {one.name: one.text for one in self.snapshots[-1].config_maps} if self.snapshots else {}

    @property
    def errors(self) -> dict[str, str]:
        """Errors in the last snapshot, by place."""
        return dict(self.snapshots[-1].errors) if self.snapshots else {}


@asynccontextmanager
async def followed(
    api: ApiServer, *namespaces: str, everywhere: bool = False, relist_seconds: float = 300.0
) -> AsyncIterator[Followed]:
    """Run a source that follows the scripted server for the block, by default in the namespace `default`."""
    served = None if everywhere else frozenset(namespaces or {"default"})
    followed_source = Followed(
        RouteStore(
            namespaces=served,
            cluster_domain="cluster.local",
            bare_hostnames="namespace",
            metrics=Metrics(),
            clock=time.time,
        )
    )

    def apply(snapshot: sources.Snapshot) -> None:
        followed_source.snapshots.append(snapshot)
        followed_source.store.apply(snapshot)

    def confirm() -> None:
        followed_source.confirmed += 1
        followed_source.store.confirm()

    async with source_of(api, served, relist_seconds) as source:
        task = asyncio.create_task(source.run(apply, confirm))
        try:
            yield followed_source
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            followed_source.store.close()


async def passes(seconds: float) -> None:
    """Let some time pass in which something must not happen."""
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > seconds, seconds + SECONDS)


async def test_pages_make_one_snapshot(api: ApiServer, script: Collection) -> None:
    """2,000 routes come in pages, are applied as one snapshot, and are watched from the version of the list."""
    script.items = [config_map(f"c{number}", number) for number in range(2000)]
    script.version = 77
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["77"])
        await until(lambda: len(followed_source.texts) == 2000)
        assert len(followed_source.snapshots) == 1
        assert {one["labelSelector"] for one in script.queries} == {"gateway.beamlit.com/route=v1alpha1"}
        assert [one.get("limit") for one in script.queries] == ["500", "500", "500", "500", None]
        assert script.queries[-1]["allowWatchBookmarks"] == "true"


async def test_lists_every_five_minutes_and_not_all_at_once(api: ApiServer) -> None:
    """A watch lasts until the next list: five minutes, give or take a tenth, and another time for each namespace."""
    names = [f"n{number}" for number in range(12)]
    scripts = [api.collections.setdefault(path(name), Collection()) for name in names]
    async with followed(api, *names):
        await until(lambda: all(script.watched for script in scripts))
        seconds = [int(script.queries[-1]["timeoutSeconds"]) for script in scripts]
        assert all(269 <= one <= 330 for one in seconds)
        assert len(set(seconds)) > 3


async def test_events_and_bookmarks(api: ApiServer, script: Collection) -> None:
    """Each event counts at once; a bookmark confirms the routes, and the next watch begins at its version."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        steps: list[tuple[str, dict[str, object], dict[str, str]]] = [
            ("ADDED", config_map("b", 2), {"a": "a", "b": "a"}),
            ("MODIFIED", config_map("a", 3, "new"), {"a": "new", "b": "a"}),
            ("DELETED", config_map("b", 4), {"a": "new"}),
        ]
        for kind, item, expected in steps:
            script.push(kind, item)
            await until(lambda expected=expected: followed_source.texts == expected)  # type: ignore[misc]
        before = followed_source.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
        await until(lambda: followed_source.confirmed == before + 1)
        script.events.put(END)
        await until(lambda: script.watched == ["1", "9"])
        assert script.lists == 1
        assert followed_source.errors == {}


async def test_the_origin_is_for_people(api: ApiServer) -> None:
    """Without namespaces the whole cluster is followed, and a route's origin is `namespace/name`."""
    script = api.collections["/api/v1/configmaps"] = Collection([config_map("a"), config_map("a", namespace="other")])
    async with followed(api, everywhere=True) as followed_source:
        await until(lambda: bool(followed_source.snapshots))
        assert {one.origin for one in followed_source.snapshots[-1].config_maps} == {"default/a", "other/a"}
        script.list_status = 500
        script.events.put(BREAK)
        await until(lambda: "500" in followed_source.errors.get("the cluster", ""))


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_is_too_old_is_listed_anew(api: ApiServer, script: Collection, how: str) -> None:
    """After 410, in the stream or as the response to a watch, the source lists again at once, without an error."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.items, script.version = [config_map("b", 5)], 5
        if how == "event":
            script.push("ERROR", {"code": 410, "reason": "Expired"})
        else:
            script.watch_statuses = [410]
            script.events.put(END)
        await until(lambda: set(followed_source.texts) == {"b"})
        await until(lambda: script.watched[-1] == "5")
        assert script.lists == 2
        assert not any(one.errors for one in followed_source.snapshots)


async def test_a_page_that_is_too_old_starts_the_list_anew(api: ApiServer, script: Collection) -> None:
    """After 410 in the middle of a list nothing of it is applied, and the next list starts from its first page."""
    script.items, script.page = [config_map("a"), config_map("b")], 1
    script.list_statuses = [200, 410]
    async with followed(api) as followed_source:
        await until(lambda: set(followed_source.texts) == {"a", "b"})
        assert script.lists == 2
        assert len(followed_source.snapshots) == 1


async def test_410_for_ever_is_no_tight_loop(api: ApiServer, script: Collection) -> None:
    """An API server that calls each version too old is asked ever more rarely, and the error says so."""
    script.watch_status = 410
    async with followed(api) as followed_source:
        await until(lambda: "410" in followed_source.errors.get(PLACE, ""))
        await passes(1.0)
        assert script.lists <= 8
        assert set(followed_source.texts) == {"a"}


async def test_a_broken_stream_loses_nothing(api: ApiServer, script: Collection) -> None:
    """When a stream breaks off in an event, the routes stay, the error says so, and a list brings the rest."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(followed_source.texts) == {"a", "b"})
        script.items = [config_map("a"), config_map("b", 2), config_map("c", 3)]
        script.events.put(BREAK)
        await until(lambda: set(followed_source.texts) == {"a", "b", "c"} and not followed_source.errors)
        broken = next(one for one in followed_source.snapshots if one.errors)
        assert not broken.fresh
        assert {one.name for one in broken.config_maps} == {"a", "b"}
        assert script.lists == 2


async def test_a_watch_that_is_refused_leaves_lists(api: ApiServer, script: Collection) -> None:
    """A gateway that may list and not watch has an error, gets changes by lists, and asks ever more rarely."""
    script.watch_status = 403
    async with followed(api) as followed_source:
        await until(lambda: "403" in followed_source.errors.get(PLACE, ""))
        script.items = [config_map("b", 2)]
        await until(lambda: set(followed_source.texts) == {"b"})
        assert "403" in followed_source.errors[PLACE]
        await passes(1.0)
        assert script.lists <= 8
        script.watch_status = 200
        await until(lambda: not followed_source.errors)


async def test_a_missed_event_is_repaired(api: ApiServer, script: Collection) -> None:
    """A change that no watch has sent is found by the next list."""
    async with followed(api, relist_seconds=1.0) as followed_source:
        await until(lambda: set(followed_source.texts) == {"a"})
        script.items = [config_map("b", 2)]
        await until(lambda: set(followed_source.texts) == {"b"})
        assert not any(one.errors for one in followed_source.snapshots)


async def test_a_watch_without_end_is_ended(api: ApiServer, script: Collection) -> None:
    """A watch that a proxy does not let end in time is ended, so that the next list comes."""
    script.endless = True
    async with followed(api, relist_seconds=1.0) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.items = [config_map("b", 2)]
        async with asyncio.timeout(SECONDS):
            while set(followed_source.texts) != {"b"}:
                script.push("BOOKMARK", {"metadata": {"resourceVersion": "1"}})
                await asyncio.sleep(0.05)


async def test_a_bug_does_not_end_it(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is logged with its trace and is an error of the source, which goes on."""
    read, broken = configmaps._config_map, [True]

    def config_map_of(item: Mapping[str, Any]) -> sources.ConfigMap | None:
        if broken:
            raise RuntimeError("unexpected")
        return read(item)

    monkeypatch.setattr(configmaps, "_config_map", config_map_of)
    with structlog.testing.capture_logs() as lines:
        async with followed(api) as followed_source:
            await until(lambda: "RuntimeError" in followed_source.errors.get(PLACE, ""))
            broken.clear()
            await until(lambda: set(followed_source.texts) == {"a"} and not followed_source.errors)
    assert "routes_following_failed" in [one["event"] for one in lines]


async def test_watches_that_end_at_once(api: ApiServer, script: Collection) -> None:
    """Watches that end at once are no error, and lead to no tight loop."""
    for _ in range(100):
        script.events.put(END)
    async with followed(api) as followed_source:
        await until(lambda: bool(followed_source.snapshots))
        await passes(1.0)
        assert 2 <= len(script.watched) <= 8
        assert followed_source.errors == {}


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_errors_keep_what_is_known(api: ApiServer, script: Collection, status: int) -> None:
    """An API server that refuses or fails is one error by its place, in its own words, and the routes stay."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.list_status = status
        script.push("ERROR", {"code": 500, "reason": "InternalError"})
        await until(lambda: followed_source.errors.get(PLACE, "").endswith(f": scripted {status}"))
        assert str(status) in followed_source.errors[PLACE]
        assert set(followed_source.texts) == {"a"}
        assert followed_source.store.loaded.is_set()
        await until(lambda: PLACE in followed_source.store.source_errors)
        script.list_status = 200
        await until(lambda: not followed_source.errors)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"items": ["x"]}', b'{"items": {"a": 1}}', b"\xff"],
    ids=["html", "list", "text", "object", "bytes"],
)
async def test_a_response_that_is_no_list(api: ApiServer, script: Collection, body: bytes) -> None:
    """A response with status 200 that is no list is an error, and the source goes on."""
    script.body = body
    async with followed(api) as followed_source:
        await until(lambda: PLACE in followed_source.errors)
        assert not followed_source.store.loaded.is_set()
        script.body = None
        await until(lambda: set(followed_source.texts) == {"a"} and not followed_source.errors)


@pytest.mark.parametrize(
    "event", [b"{", b"7", b"{}", b'{"type": "ADDED", "object": 1}', b'{"type":"ERROR","object":{}}']
)
async def test_a_malformed_event(api: ApiServer, script: Collection, event: bytes) -> None:
    """A malformed event is an error, after which a list brings what it may have changed."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.items = [config_map("b", 2)]
        script.events.put(event)
        await until(lambda: set(followed_source.texts) == {"b"} and not followed_source.errors)
        assert any(one.errors for one in followed_source.snapshots)


async def test_objects_without_parts(api: ApiServer, script: Collection) -> None:
    """The source goes on after a ConfigMap without data and after an event of an unknown type."""
    script.items = [{"metadata": {"name": "empty", "namespace": "default"}}]
    async with followed(api) as followed_source:
        await until(lambda: followed_source.texts == {"empty": None})
        await until(lambda: script.watched == ["1"])
        script.push("NEW-IN-2040", config_map("x"))
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(followed_source.texts) == {"empty", "b"})


async def test_not_ready_before_the_first_list(api: ApiServer, script: Collection) -> None:
    """Without an API server the store is not loaded, its error is visible, and the log has one line about it."""
    script.list_status = 500
    with structlog.testing.capture_logs() as lines:
        async with followed(api) as followed_source:
            await until(lambda: script.lists >= 3)
            assert not followed_source.store.loaded.is_set()
            assert "500" in followed_source.store.source_errors[PLACE]
            assert followed_source.store.refreshed_at == 0
            assert followed_source.confirmed == 0
            assert [one["event"] for one in lines] == ["routes_cannot_be_read"]
            script.list_status = 200
            await until(followed_source.store.loaded.is_set)
            await until(lambda: not followed_source.store.source_errors)
    assert "routes_are_followed_again" in [one["event"] for one in lines]


async def test_the_log_says_it_again(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble that lasts has a log line each minute, not one for each attempt."""
    monkeypatch.setattr(scope, "LOG_SECONDS", 0.5)
    script.list_status = 500
    with structlog.testing.capture_logs() as lines:
        async with followed(api):
            await until(lambda: len(lines) == 2)
            assert script.lists > 2


async def test_a_closed_namespace_does_not_stop_the_others(api: ApiServer, script: Collection) -> None:
    """A namespace that the gateway may not read is one error while others are followed, and is read once it may be."""
    closed = api.collections[path("closed")] = Collection([config_map("late", namespace="closed")], list_status=403)
    async with followed(api, "default", "closed") as followed_source:
        await until(followed_source.store.loaded.is_set)
        await until(lambda: list(followed_source.errors) == ["namespace closed"])
        assert set(followed_source.texts) == {"a"}
        script.push("ADDED", config_map("b", 2))
        await until(lambda: set(followed_source.texts) == {"a", "b"})
        assert "namespace closed" in followed_source.errors
        closed.list_status = 200
        await until(lambda: set(followed_source.texts) == {"a", "b", "late"} and not followed_source.errors)


async def test_a_namespace_that_does_not_respond_yet_is_waited_for(api: ApiServer, script: Collection) -> None:
    """The store is not loaded while a namespace was neither listed nor refused."""
    slow = api.collections[path("slow")] = Collection([config_map("late", namespace="slow")], list_status=503)
    async with followed(api, "default", "slow") as followed_source:
        await until(lambda: set(followed_source.texts) == {"a"} and slow.lists > 1)
        assert not followed_source.store.loaded.is_set()
        slow.list_status = 200
        await until(followed_source.store.loaded.is_set)
        assert len(followed_source.store.documents) == 2


async def test_the_table_is_as_old_as_its_oldest_part(api: ApiServer, script: Collection) -> None:
    """The table does not become younger by one namespace while another cannot be read; a closed one does not count."""
    other = api.collections[path("other")] = Collection([config_map("b", namespace="other")])
    api.collections[path("closed")] = Collection(list_status=403)
    async with followed(api, "default", "other", "closed") as followed_source:
        await until(lambda: followed_source.store.loaded.is_set() and len(followed_source.store.documents) == 2)
        await until(lambda: bool(script.watched and other.watched))
        before = followed_source.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "2"}})
        await until(lambda: followed_source.confirmed > before)
        other.list_status = 503
        other.events.put(BREAK)
        await until(lambda: "namespace other" in followed_source.store.source_errors)
        stands, before = followed_source.store.refreshed_at, followed_source.confirmed
        script.push("BOOKMARK", {"metadata": {"resourceVersion": "3"}})
        script.push("ADDED", config_map("c", 4))
        await until(lambda: len(followed_source.store.documents) == 3)
        assert (followed_source.store.refreshed_at, followed_source.confirmed) == (stands, before)
        other.list_status = 200
        await until(lambda: followed_source.store.refreshed_at > stands)


async def test_nothing_that_may_be_read_is_not_ready(api: ApiServer, script: Collection) -> None:
    """A gateway that may read no namespace at all is not ready: it could only respond with 404."""
    script.list_status = 403
    async with followed(api) as followed_source:
        await until(lambda: "403" in followed_source.store.source_errors.get(PLACE, ""))
        await until(lambda: script.lists >= 2)
        assert not followed_source.store.loaded.is_set()


async def test_the_api_server_goes_away_and_comes_back(api: ApiServer, script: Collection) -> None:
    """While the API server is away, table and readiness stay and the age grows; later changes are caught up."""
    script.items = [config_map("demo", text=document().canonical_json())]
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        api.stop()
        await until(lambda: PLACE in followed_source.store.source_errors)
        stands = followed_source.store.refreshed_at
        await passes(0.5)
        assert followed_source.store.refreshed_at == stands
        assert followed_source.store.loaded.is_set()
        assert len(followed_source.store.table.routes) == 1
        script.items.append(config_map("b", 2))
        api.start()
        await until(lambda: set(followed_source.texts) == {"demo", "b"} and not followed_source.errors)
        await until(lambda: followed_source.store.refreshed_at > stands and not followed_source.store.source_errors)


async def test_a_slow_list_is_given_up(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is slow is given up at its deadline, and single objects are read meanwhile."""
    monkeypatch.setattr(client, "LIST_SECONDS", 0.3)
    script.delay = 5
    api.objects[SECRET] = {"data": {}}
    async with followed(api) as followed_source:
        await until(lambda: script.lists >= 1)
        async with source_of(api) as source:
            assert await source.secret("default", "s") == {}
        await until(lambda: "timed out" in followed_source.errors.get(PLACE, ""))
        script.delay = 0
        await until(followed_source.store.loaded.is_set)


async def test_a_silent_watch_is_given_up(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without events and bookmarks for too long is given up, and the source lists again."""
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.3)
    async with followed(api) as followed_source:
        await until(lambda: set(followed_source.texts) == {"a"})
        script.items = [config_map("b", 2)]
        await until(lambda: set(followed_source.texts) == {"b"})


async def test_large_pages_are_asked_for_in_parts(
    api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is too large comes in smaller ones; one object that is too large is an error."""
    monkeypatch.setattr(client, "PAGE_BYTES", 20_000)
    script.items = [config_map(f"c{number}", number, "x" * 3000) for number in range(20)]
    async with followed(api) as followed_source:
        await until(lambda: len(followed_source.texts) == 20)
        assert followed_source.errors == {}
        assert [one.get("limit") for one in script.queries][:4] == ["500", "62", "7", "1"]
        script.items = [config_map("huge", 1, "x" * 30_000)]
        script.events.put(BREAK)
        await until(lambda: "larger than" in followed_source.errors.get(PLACE, ""))
        assert len(followed_source.texts) == 20


async def test_an_event_without_end(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event arrives whole in many pieces; an event above the limit ends the watch."""
    monkeypatch.setattr(client, "EVENT_BYTES", 300_000)
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"])
        script.push("ADDED", config_map("large", 2, "x" * 200_000))
        await until(lambda: len(followed_source.texts.get("large") or "") == 200_000)
        script.push("ADDED", config_map("larger", 2, "x" * 600_000))
        await until(lambda: any("larger than" in one.errors.get(PLACE, "") for one in followed_source.snapshots))


async def test_many_events_are_few_snapshots(api: ApiServer, script: Collection) -> None:
    """Events that come together make one snapshot."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"] and set(followed_source.texts) == {"a"})
        for number in range(200):
            script.push("ADDED", config_map(f"b{number}", number + 2))
        await until(lambda: len(followed_source.texts) == 201)
        assert len(followed_source.snapshots) < 100


async def test_nothing_is_applied_after_the_end(api: ApiServer, script: Collection) -> None:
    """A source that was cancelled applies no change that arrives later."""
    async with followed(api) as followed_source:
        await until(lambda: script.watched == ["1"] and set(followed_source.texts) == {"a"})
    script.push("ADDED", config_map("b", 2))
    await until(script.events.empty)
    await passes(0.2)
    assert set(followed_source.texts) == {"a"}


async def test_secrets_by_name(api: ApiServer) -> None:
    """A Secret is read by its name with decoded data and its labels, and one that does not exist is None."""
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


async def test_secrets_that_cannot_be_read(api: ApiServer, script: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret that is forbidden, slow or out of reach is an OSError with a short text."""
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
    """A read is repeated once after 429, which the first reader of a custom resource may get."""
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
    """A name with dots, slashes or a query leads to no object outside its own path."""
    api.objects[SECRET] = api.objects["/api/v1/namespaces/other/secrets/s"] = {"data": {}}
    async with source_of(api) as source:
        try:
            found = await source.secret("default", name)
        except OSError:
            found = None
    assert found is None
