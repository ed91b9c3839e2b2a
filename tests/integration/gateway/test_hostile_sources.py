"""Sources of routes that meet what is no object: nothing ends them, and what is good goes on."""

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api import v1alpha1
from gateway.routes import sources
from gateway.routes.sources import directory, objects, supervision
from gateway.routes.sources.configmaps import UNUSABLE, ConfigMapSource
from gateway.routes.sources.directory import DirectorySource
from gateway.routes.store import SOURCE, TABLE, RouteStore
from gateway.telemetry import Metrics
from tests.deadlines import NEVER, SECONDS
from tests.integration.apiserver import config_map as listed
from tests.integration.gateway.test_directory_source import config_map, percentage, write
from tests.integration.gateway.test_process import started, until_ready_is
from tests.integration.gateway.wire import document
from tests.integration.servers import until

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

DEEP = "[" * 200_000
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
names = st.sampled_from(["kind", "metadata", "data", "items", "labels", "name", "namespace", "creationTimestamp"])
words = st.sampled_from(["ConfigMap", "Secret", "List", "bad", "default"])
alike = st.recursive(values | words, lambda inner: st.dictionaries(names, inner) | st.lists(inner, max_size=3))


def changed(**parts: Any) -> dict[str, Any]:
    """Return a route ConfigMap named bad with other parts; `labels` and `name` are parts of its metadata."""
    one = config_map("bad")
    for part, value in parts.items():
        (one["metadata"] if part in one["metadata"] else one)[part] = value
    return one


def text(one: object) -> bytes:
    """Return an object as the bytes of a file."""
    return yaml.safe_dump(one).encode()


HOSTILE: Mapping[str, bytes] = {
    "labels.yaml": text(changed(labels=["a"])),
    "labels.json": json.dumps(changed(labels=5)).encode(),
    "data.yaml": text(changed(data="abc")),
    "value.yaml": text(changed(data={"route.json": {"name": "bad"}})),
    "items.yaml": text({"apiVersion": "v1", "kind": "List", "items": 5}),
    "number.yaml": text({"apiVersion": "v1", "kind": "List", "items": [5]}),
    "typed.yaml": text({"kind": "ConfigMapList", "items": [{"metadata": None}]}),
    "name.yaml": text(changed(name={"a": "b"})),
    "created.yaml": text(changed(creationTimestamp=["a"])),
    "list.json": b"[]",
    "deep.yaml": DEEP.encode(),
    "deep.json": b'{"kind": "ConfigMap", "metadata": ' + DEEP.encode(),
    "deeper.yaml": b"- " * 200_000,
    "bomb.yaml": text(config_map("bad")) + BOMB.encode(),
    "merges.yaml": text(config_map("bad")) + BOMB.replace("[", "{<<: [").replace("]", "]}").encode(),
    "alias.yaml": b"kind: ConfigMap\nmetadata: &a {name: a, labels: *a}\n",
    "times.yaml": b"kind: ConfigMap\nmetadata: {name: a, generation: " + b":".join([b"1"] * 500_000) + b"}\n",
    "float.yaml": b"kind: ConfigMap\nmetadata: {name: a, generation: " + b":".join([b"1"] * 400) + b".0}\n",
    "tag.yaml": b"!!python/object/apply:os.system [x]\n",
    "large.json": b'{"kind": "Pod", "metadata": {"a": [' + b"{}," * 1_200_000 + b"0]}}",
    "huge.yaml": b"#" * (5 << 20),
    os.fsdecode(b"n\xe9.yaml"): b"a: [",
}


async def test_no_file_ends_the_gateway_or_its_updates(tmp_path: Path) -> None:
    """The gateway serves and takes changes while its directory fills with files that are no objects, and names each."""
    async with started(tmp_path) as running, asyncio.timeout(SECONDS):
        for name, content in HOSTILE.items():
            (running.routes / name).write_bytes(content)
        places = {str(running.routes / name).encode(errors="backslashreplace").decode() for name in HOSTILE}

        async def shown() -> dict[str, Any]:
            return cast("dict[str, Any]", (await running.admin.get("/routes")).json())

        while (await shown())["sourceErrors"].keys() != places:
            assert running.process.returncode is None
            await asyncio.sleep(0.05)
        write(running.routes / "demo.yaml", config_map(timeouts={"connectSeconds": 3.0}))
        write(running.routes / "late.yaml", config_map("late"))
        while {one["name"] for one in (await shown())["routes"] if one["inForce"]} != {"demo", "late"}:
            await asyncio.sleep(0.05)
        assert "\nbeamlit_gateway_document_errors 22.0\n" in (await running.admin.get("/metrics")).text
        await until_ready_is(running, 200)
        for name in HOSTILE:
            (running.routes / name).unlink()
        while (await shown())["sourceErrors"]:
            await asyncio.sleep(0.05)
    assert "route_file_failed" not in running.errors.read_text()


async def test_no_document_ends_the_updates(tmp_path: Path) -> None:
    """A document that is large, nested too deep or requires something that is no name is refused by itself."""
    async with started(tmp_path) as running, asyncio.timeout(SECONDS):
        texts = {
            "deep": '{"name": "bad", "requires": [' + "[" * 1000 + "]" * 1000 + "]}",
            "deeper": DEEP,
            "large": json.dumps({"name": "bad", "requires": ["x" * (1 << 20)]}),
            "many": json.dumps({"name": "bad", "backends": [{}] * 100_000}),
            "number": "1" * 100_000,
        }
        for name, content in texts.items():
            one = config_map(name)
            one["data"]["route.json"] = content
            write(running.routes / f"{name}.yaml", one)
        write(running.routes / "late.yaml", config_map("late"))
        while True:
            routes = (await running.admin.get("/routes")).json()["routes"]
            states = {one["configMap"]: (one["error"], one["inForce"]) for one in routes}
            if len(states) == len(texts) + 2:
                break
            await asyncio.sleep(0.05)
        for name in texts:
            error, in_force = states[f"{name}-route"]
            assert error
            assert not in_force
            assert len(error) < 1000
        assert states["late-route"] == states["demo-route"] == (None, True)
    assert "route_document_failed" not in running.errors.read_text()


@given(alike, st.booleans())
@example(changed(labels=["a"]), True)
@example(changed(data="abc"), True)
@example({"kind": "List", "items": 5}, False)
def test_any_file_beside_a_good_one(value: Any, as_yaml: bool) -> None:
    """Any value as a file gives a snapshot with the objects of the other files."""
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder / "good.yaml", config_map())
        (folder / "a.yaml").write_text(yaml.safe_dump(value) if as_yaml else json.dumps(value))
        with structlog.testing.capture_logs() as lines:
            snapshot, _ = DirectorySource(folder).read()
        assert lines == []
        assert "default/demo-route" in {one.key for one in snapshot.config_maps}
        assert all(isinstance(one.text, str | None) for one in snapshot.config_maps)
    finally:
        shutil.rmtree(folder)


class Scripted:
    """API server with the ConfigMap good and something else, and a watch that sends an event about it and then ends."""

    def __init__(self, value: object, kind: str) -> None:
        self.value, self.kind = value, kind
        self.done = False
        """Whether the watch came to its end."""

    async def pages(self, *_: object) -> AsyncIterator[tuple[list[Any], str]]:
        """Yield one page."""
        yield ([listed("good")] if self.done else [listed("old"), self.value]), "1"

    @asynccontextmanager
    async def watch(self, *_: object) -> AsyncIterator[AsyncIterator[Any]]:
        """Yield the events."""

        async def events() -> AsyncIterator[Any]:
            if not self.done:
                self.done = True
                yield {"type": self.kind, "object": self.value}
            yield {"type": "ADDED", "object": listed("late")}
            await asyncio.sleep(NEVER)

        yield events()


@example({"metadata": {}}, "ADDED")
@given(alike, st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", ""]))
def test_any_object_of_the_cluster_beside_a_good_one(value: Any, kind: str) -> None:
    """Any value in a list or an event of the API server leaves the source running, later events count, and what has no
    name is no ConfigMap."""

    async def run() -> None:
        snapshots: list[sources.Snapshot] = []
        source = ConfigMapSource(cast("KubernetesClient", Scripted(value, kind)), None)
        task = asyncio.create_task(source.run(snapshots.append, lambda: None))
        await until(lambda: bool(snapshots) and "default/late" in {one.key for one in snapshots[-1].config_maps})
        assert not task.done()
        assert all(one.namespace and one.name for each in snapshots for one in each.config_maps)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with structlog.testing.capture_logs():
        if isinstance(value, dict):
            asyncio.run(run())


async def test_an_object_of_the_cluster_without_a_name_is_an_error_of_its_place() -> None:
    """An object that has no name is left out and is an error, also when it comes by an event."""
    snapshots: list[sources.Snapshot] = []
    source = ConfigMapSource(cast("KubernetesClient", Scripted({"metadata": [1]}, "ADDED")), None)
    task = asyncio.create_task(source.run(snapshots.append, lambda: None))
    try:
        await until(lambda: bool(snapshots) and "default/late" in {one.key for one in snapshots[-1].config_maps})
        assert snapshots[-1].errors == {"the cluster": UNUSABLE}
        assert {one.name for one in snapshots[-1].config_maps} == {"old", "late"}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Ending:
    """Source that does something else at each start, and then stays."""

    def __init__(self, *starts: Callable[[], object]) -> None:
        self._starts = list(starts)
        self.runs = 0
        self.go_on = asyncio.Event()
        """Event that lets the last start apply its snapshot."""

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Run as the next start does."""
        self.runs += 1
        if self.runs <= len(self._starts):
            apply(snapshot("a"))
            self._starts[self.runs - 1]()
            return
        await self.go_on.wait()
        apply(snapshot("a", "b"))
        await asyncio.Event().wait()

    async def secret(self, namespace: str, name: str) -> None:
        """Return no Secret."""

    async def model_deployment(self, namespace: str, name: str) -> None:
        """Return no ModelDeployment."""


def snapshot(*routes: str) -> sources.Snapshot:
    """Return a snapshot of routes with these names."""
    return sources.Snapshot(
        [sources.ConfigMap("default", name, "", document(name=name).canonical_json(), "test") for name in routes]
    )


def fail() -> None:
    """Fail as a bug would."""
    raise TypeError("unexpected")


@asynccontextmanager
async def supervised(source: sources.RouteSource, metrics: Metrics) -> AsyncIterator[RouteStore]:
    """Keep a source running for the block, and yield its store."""
    store = RouteStore(
        namespaces=None, cluster_domain="cluster.local", bare_hostnames="namespace", metrics=metrics, clock=time.time
    )
    task = asyncio.create_task(supervision.keep_running(source, store))
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


@pytest.mark.parametrize(
    ("start", "error"),
    [(fail, "the gateway failed at it: TypeError"), (lambda: None, "it ended")],
    ids=["fails", "ends"],
)
async def test_a_source_that_ends_is_an_error_and_begins_again(start: Callable[[], object], error: str) -> None:
    """A source that ends is an error in log, metric and readiness until it has begun again; routes stay meanwhile."""
    metrics, source = Metrics(), Ending(start)
    value = metrics.registry.get_sample_value
    with structlog.testing.capture_logs() as lines:
        async with supervised(source, metrics) as store:
            await until(lambda: source.runs == 2)
            assert store.source_errors == {SOURCE: error}
            assert store.why_not_ready(draining=False) == "routes are not followed"
            assert set(store.table.routes) == {"default/a"}
            assert value("beamlit_gateway_document_errors") == 1
            assert value("beamlit_gateway_route_source_ends_total") == 1
            source.go_on.set()
            await until(lambda: set(store.table.routes) == {"default/a", "default/b"})
            assert store.source_errors == {}
            assert store.why_not_ready(draining=False) is None
            assert value("beamlit_gateway_document_errors") == 0
    assert "route_source_ended" in [one["event"] for one in lines]


async def test_a_source_that_ends_at_once_is_no_tight_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time until a source begins again doubles, up to a longest one."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def short(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", short)
    source = Ending(*[fail] * 8)
    with structlog.testing.capture_logs():
        async with supervised(source, Metrics()):
            await until(lambda: source.runs == 9)
    assert [one for one in waits if one >= supervision.BACKOFF_SECONDS[0]] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


async def test_a_table_that_cannot_be_made_is_an_error() -> None:
    """A failure while a table is made leaves the source running and is an error until the next table."""
    metrics, source, failing = Metrics(), Ending(), [True]

    def refresh() -> None:
        if failing:
            fail()

    with structlog.testing.capture_logs() as lines:
        async with supervised(source, metrics) as store:
            store.subscribe(refresh)
            source.go_on.set()
            await until(lambda: store.source_errors == {TABLE: "the gateway failed at it: TypeError"})
            assert metrics.registry.get_sample_value("beamlit_gateway_document_errors") == 1
            failing.clear()
            store.apply(snapshot("c"))
            await until(lambda: set(store.table.routes) == {"default/c"})
            assert (store.source_errors, source.runs) == ({}, 1)
    assert [one["event"] for one in lines].count("routing_table_failed") == 1


async def test_a_bug_in_a_document_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that the gateway fails at is an error of that document; others are in force."""
    read = v1alpha1.read

    def failing(content: str | bytes) -> Any:
        return fail() if "bad" in str(content) else read(content)

    monkeypatch.setattr(v1alpha1, "read", failing)
    with structlog.testing.capture_logs() as lines:
        async with supervised(Ending(), Metrics()) as store:
            store.apply(snapshot("bad", "good"))
            await until(lambda: bool(store.table.routes))
            assert set(store.table.routes) == {"default/good"}
            assert store.documents["default/bad"].error == "the gateway failed at it: TypeError"
    assert "route_document_failed" in [one["event"] for one in lines]


async def test_a_bug_in_a_file_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the gateway fails at is an error of that file; others are in force."""

    def failing(content: str, **rest: Any) -> Any:
        return fail() if "bad" in content else objects.objects(content, **rest)

    monkeypatch.setattr(directory, "objects", failing)
    write(tmp_path / "bad.yaml", config_map("bad"))
    write(tmp_path / "demo.yaml", config_map(percentage=1))
    with structlog.testing.capture_logs() as lines:
        async with supervised(DirectorySource(tmp_path), Metrics()) as store:
            await store.loaded.wait()
            assert percentage(store) == 1
            assert store.source_errors == {str(tmp_path / "bad.yaml"): "the gateway failed at it: TypeError"}
    assert "route_file_failed" in [one["event"] for one in lines]
