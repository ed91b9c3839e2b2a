"""The cluster source against a scripted API server: pages, bookmarks, versions that are too old, streams that break."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from gateway import sources
from gateway.cluster import Cluster
from gateway.sources.configmaps import ConfigMapSource
from tests.integration.servers import until

PATH = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, version: int, text: str = "a") -> dict[str, Any]:
    """A ConfigMap as an API server lists it."""
    metadata = {"name": name, "namespace": "default", "resourceVersion": str(version)}
    return {"metadata": metadata, "data": {"route.json": text}}


@dataclass
class Script:
    """What the API server answers; tests change it."""

    items: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    page: int = 100
    status: int = 200
    """Of every answer."""
    streams: list[list[dict[str, Any] | str]] = field(default_factory=list)
    """Events of the next watches; `break` cuts the stream, `hold` keeps it open. Without any a watch is held."""
    lists: int = 0
    watched: list[str] = field(default_factory=list)
    """The versions that were watched from."""
    closing: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Plays the script."""

    script: Script

    def do_GET(self) -> None:
        """List or watch."""
        script = self.script
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        if script.status != 200:
            self.send_response(script.status)
            self.send_header("content-length", "0")
            self.end_headers()
        elif "watch" in query:
            self._watch(query)
        else:
            start = int(query.get("continue", "0"))
            script.lists += start == 0
            more = start + script.page < len(script.items)
            metadata = {"resourceVersion": str(script.version), "continue": str(start + script.page) if more else ""}
            body = json.dumps({"metadata": metadata, "items": script.items[start : start + script.page]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _watch(self, query: dict[str, str]) -> None:
        self.script.watched.append(query["resourceVersion"])
        assert query["allowWatchBookmarks"] == "true"
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in self.script.streams.pop(0) if self.script.streams else ["hold"]:
            if event == "break":
                self.wfile.write(b'7\r\n{"ty')
                return
            if event == "hold":
                self.script.closing.wait(min(20.0, float(query["timeoutSeconds"])))
                break
            data = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def script() -> Iterator[Script]:
    """A scripted API server; its address is in `Handler.server_address`."""
    script = Script()
    yield script
    script.closing.set()


@dataclass
class Followed:
    """What the source told."""

    snapshots: list[sources.Snapshot] = field(default_factory=list)
    confirmed: int = 0

    @property
    def texts(self) -> dict[str, str | None]:
        """What is known now."""
        return {one.name: one.text for one in self.snapshots[-1].config_maps} if self.snapshots else {}


@asynccontextmanager
async def followed(script: Script, **rest: Any) -> AsyncIterator[Followed]:
    """A source that follows the scripted server."""
    handler = type("Scripted", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    settings.retries = False
    told = Followed()

    def confirm() -> None:
        told.confirmed += 1

    source = ConfigMapSource(Cluster(client.ApiClient(settings)), frozenset({"default"}), **rest)
    task = asyncio.create_task(source.run(told.snapshots.append, confirm))
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        script.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def event(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """A watch event."""
    return {"type": kind, "object": item}


async def test_pages_make_one_snapshot(script: Script) -> None:
    """A list of several pages is applied whole, and watched from its version."""
    script.items = [config_map(f"c{number}", number) for number in range(25)]
    script.page, script.version = 10, 77
    async with followed(script) as told:
        await until(lambda: len(told.texts) == 25)
        await until(lambda: script.watched == ["77"])
        assert len(told.snapshots) == 1


async def test_events_and_bookmarks(script: Script) -> None:
    """Added, modified, deleted; a bookmark says that nothing else happened, and the next watch goes on from there."""
    script.items = [config_map("a", 1)]
    script.streams = [
        [
            event("ADDED", config_map("b", 2)),
            event("MODIFIED", config_map("a", 3, "new")),
            event("DELETED", config_map("b", 4)),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ]
    ]
    async with followed(script) as told:
        await until(lambda: told.texts == {"a": "new"})
        await until(lambda: script.watched == ["1", "9"])
        assert told.confirmed >= 1
        assert script.lists == 1


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_is_too_old_is_listed_anew(script: Script, how: str) -> None:
    """410, in the stream or as the answer: list again at once, without an error."""
    script.items = [config_map("a", 1)]
    script.streams = [[event("ERROR", {"code": 410, "reason": "Expired"})]]
    async with followed(script) as told:
        await until(lambda: script.lists == 2)
        assert told.snapshots[-1].errors == {}
        if how == "status":
            script.items.append(config_map("b", 2))
            script.streams = [[event("ERROR", {"code": 410, "reason": "Gone"})]]
            script.closing.set()  # the held watch ends, and the next one gets the event
            await until(lambda: set(told.texts) == {"a", "b"}, 5)


async def test_a_broken_stream_loses_nothing(script: Script) -> None:
    """A stream that breaks off in an event: what was known stays, the reason is told, and a list brings the rest."""
    script.items = [config_map("a", 1)]
    script.streams = [[event("ADDED", config_map("b", 2)), "break"]]
    async with followed(script) as told:
        await until(lambda: any(one.errors for one in told.snapshots))
        broken = next(one for one in told.snapshots if one.errors)
        assert not broken.fresh
        assert {one.name for one in broken.config_maps} == {"a", "b"}
        script.items = [config_map("a", 1), config_map("b", 2), config_map("c", 3)]
        await until(lambda: set(told.texts) == {"a", "b", "c"}, 5)
        assert told.snapshots[-1].errors == {}


async def test_a_missed_event_is_repaired(script: Script) -> None:
    """What no watch ever said is found by the next list."""
    script.items = [config_map("a", 1)]
    script.streams = [[], []]  # watches that end at once are not an error
    async with followed(script, relist_seconds=1.0) as told:
        await until(lambda: set(told.texts) == {"a"})
        script.items = [config_map("b", 2)]
        await until(lambda: set(told.texts) == {"b"}, 5)


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_errors_keep_what_is_known(script: Script, status: int) -> None:
    """Forbidden or failing: one error by its place, and the routes stay."""
    script.items = [config_map("a", 1)]
    script.streams = [[event("ERROR", {"code": 500, "reason": "InternalError"})]]
    async with followed(script) as told:
        await until(lambda: set(told.texts) == {"a"})
        script.status = status
        await until(lambda: str(status) in told.snapshots[-1].errors.get("namespace default", ""), 5)
        assert set(told.texts) == {"a"}
        script.status = 200
        await until(lambda: not told.snapshots[-1].errors, 5)


async def test_not_ready_before_the_first_list(script: Script) -> None:
    """Without an API server nothing is applied, so nothing is ready; a forbidden namespace is known to be so."""
    script.status = 500
    async with followed(script) as told:
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 0.5)
        assert told.snapshots == []
        script.status = 403
        await until(lambda: bool(told.snapshots), 5)
        assert "403" in told.snapshots[0].errors["namespace default"]
