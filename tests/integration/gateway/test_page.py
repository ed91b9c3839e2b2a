"""The page of the admin port: what it shows, what it never does, and the stream by which it refreshes itself."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from gateway import admin
from gateway.api.v1alpha1 import Backend, RouteDocument, Split
from gateway.backends.endpoints import EndpointTable
from gateway.journal import Journal
from gateway.page import serving, state
from gateway.page.filtering import Filter
from gateway.page.rendering import FILES, STATIC
from gateway.routes import sources
from gateway.routes.store import RouteStore
from gateway.telemetry import Metrics
from program.pages import Pages
from tests.deadlines import SECONDS
from tests.integration.gateway.test_admin_limits import on_a_port
from tests.integration.gateway.test_process import started
from tests.integration.gateway.test_store import snapshot, text
from tests.integration.servers import until
from tests.unit.gateway.test_journal import record

MARKUP = "<img src=x onerror=alert(1)>\"'&amp;"


class Text(HTMLParser):
    """Text of a page, its elements and their attributes, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self._words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        """Note text."""
        self._words.append(data)

    @property
    def words(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self._words).split())


@dataclass
class Place:
    """A gateway's state, its admin app and a client for it."""

    store: RouteStore
    journal: Journal
    endpoints: EndpointTable
    stopped: asyncio.Event
    app: FastAPI
    client: httpx.AsyncClient
    draining: list[bool] = field(default_factory=lambda: [False])

    async def page(self, path: str = "/") -> Text:
        """Return the page as a browser reads it."""
        response = await self.client.get(path)
        assert response.status_code == 200
        return Text(response.text)

    async def apply(self, *entries: tuple[str, str, str | None], errors: dict[str, str] | None = None) -> None:
        """Bring routes into force."""
        before = self.store.generation
        one = snapshot(*entries)
        self.store.apply(sources.Snapshot(one.config_maps, errors or {}))
        await until(lambda: self.store.generation > before)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A gateway without routes."""
    store = RouteStore(
        namespaces=None, cluster_domain="cluster.local", bare_hostnames="namespace", metrics=Metrics(), clock=time.time
    )
    journal, endpoints, stopped, draining = Journal(1000), EndpointTable(), asyncio.Event(), [False]
    app = admin.create_app(
        store, Metrics(), journal, draining=lambda: draining[0], endpoints=endpoints, stopped=stopped
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        yield Place(store, journal, endpoints, stopped, app, client, draining)
    store.close()


def split(name: str, local: int, reason: str = "Local") -> str:
    """Return the text of a document with a local and a remote backend."""
    backends = (
        Backend(id="local", service="demo-local", port=80, weight=local),
        Backend(id="remote", host="remote.example", port=8443, weight=100 - local),
    )
    return RouteDocument(
        name=name, backends=backends, split=Split(percentage=100 - local, reason=reason)
    ).canonical_json()


async def test_what_it_shows(place: Place) -> None:
    """The page shows routes with split and reason, their backends, the last requests with attempts, and the age."""
    await place.apply(
        ("default", "demo", split("demo", 70, "MetricReached")), ("default", "other", split("other", 100))
    )
    place.journal.append(record(at=time.time(), route="default/other", first_event=0.75))
    place.journal.append(
        record(at=time.time(), backend="remote", reason="Failover", failures=[("local", "connectFailure", 0.003, None)])
    )
    words = (await place.page()).words
    for part in (
        "! 1 of 2 models needs a look",
        "local 70 %, remote 30 %",
        "because of MetricReached",
        "Responses of the last 5 min: remote 100 %",
        "A metric has reached its target",
        "other serves local 100 %",
        "remote.example:8443",
        "local ✕ connectFailure after 3 ms → remote ✓ responded after 497 ms",
        "1 request went elsewhere than the split says: Failover ×1, the last one ",
        "750 ms",
        " s ago. The gateway runs since",
        "Every source can be read",
        "This page shows one gateway.",
    ):
        assert part in words, part


async def test_the_state_of_the_gateway(place: Place) -> None:
    """The page says what is wrong: not ready, sources that cannot be read, old routes, conflicts and lost slices."""
    assert "Not ready: routes are not loaded yet" in (await place.page()).words
    await place.apply()
    assert "→ There are no models" in (await place.page()).words
    await place.apply(
        ("a", "x", text("x")), ("a", "y", text("x")), ("b", "x", text("x")), ("a", "bad", "{"),
        errors={"namespace d": "away"},
    )  # fmt: skip
    place.store.refreshed_at = time.time() - 500
    place.endpoints.errors["namespace e"] = "forbidden"
    place.endpoints.left_out["f"] = 7
    words = (await place.page()).words
    for part in (
        "✕ 2 of 4 models are in trouble",
        "Two models claim the same: ",
        "namespace d: away.",
        "were last confirmed 8 min ago",
        "a/bad The route document is refused",
        "Pods of namespace e are not known: forbidden.",
        "EndpointSlices of f had no room 7 times.",
        "EndpointSlices of f: 7 changes had no room.",
    ):
        assert part in words, part
    place.draining[0] = True
    assert "Not ready: draining" in (await place.page()).words


async def test_the_worst_comes_first(place: Place) -> None:
    """The headline says how many models fail before it says how many others need a look."""
    await place.apply(
        ("default", "bad", "{"), ("default", "away", split("away", 0, "NoReadyReplica")), ("default", "ok", text("ok"))
    )
    page = await place.page()
    assert "✕ 1 of 3 models is in trouble, 1 more needs a look" in page.words


class Found:
    """Results of drills that all are the same."""

    gateway = "vm"

    def of(self, route: str, backend: str) -> dict[str, Any] | None:
        """Return the result at a remote backend."""
        return None if backend == "local" else {
            "reason": "TokenRefused", "message": f"{MARKUP} refuses.", "observedTime": "2026-01-01T00:00:00Z",
            "consecutiveFailures": 2, "lastSuccessTime": None, "by": None,
        }  # fmt: skip

    def listed(self, namespace: str | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield nothing."""
        yield from ()

    async def by_hand(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Send nothing."""
        return []


async def test_drills(place: Place) -> None:
    """The page shows what drills found at remote backends, where there are any."""
    await place.apply(("default", "demo", split("demo", 100)))
    assert "Drill" not in (await place.page()).words
    app = admin.create_app(place.store, Metrics(), place.journal, draining=lambda: False, drills=Found())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        page = Text((await client.get("/")).text)
    assert f"Drill at remote: TokenRefused . {MARKUP} refuses. That was at 2026-01-01T00:00:00Z" in page.words
    assert page.words.count("remote: the drill found TokenRefused.") == 2
    assert "img" not in page.tags


@pytest.mark.parametrize(("access", "words"), [(False, "Access is off: everyone"), (True, "Requests need an API key")])
async def test_who_may_use_the_gateway(place: Place, access: bool, words: str) -> None:
    """The page says whether everyone may use the models."""
    app = admin.create_app(place.store, Metrics(), place.journal, draining=lambda: False, access=access)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        assert words in Text((await client.get("/")).text).words


async def test_a_gateway_that_remembers_no_requests(place: Place) -> None:
    """Where `gateway.limits.decisions` is 0 the page says why it has no requests."""
    await place.apply(("default", "demo", text()))
    assert "No request has ended yet." in (await place.page()).words
    app = admin.create_app(place.store, Metrics(), Journal(0), draining=lambda: False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        assert "gateway.limits.decisions is 0" in Text((await client.get("/")).text).words


async def test_names_with_markup_are_text(place: Place) -> None:
    """What has markup in it, in whatever place, is shown as it is and makes no element and no attribute."""
    await place.apply((MARKUP, MARKUP, "{"), errors={MARKUP: MARKUP})
    place.endpoints.errors[MARKUP] = MARKUP
    place.journal.append(
        record(at=time.time(), target=b"/" + MARKUP.encode(), request_id=MARKUP.encode(), route=MARKUP, backend=MARKUP,
               reason=MARKUP, code=None, broken=MARKUP, caller=MARKUP, pod=MARKUP, not_retryable=MARKUP,
               failures=[(MARKUP, MARKUP, 0.1, MARKUP)])
    )  # fmt: skip
    clean = await place.page()
    for query in ("", f"?route={MARKUP}", f"?status={MARKUP}", f"?reason={MARKUP}"):
        page = await place.page(f"/{query}")
        assert page.words.count(MARKUP) > 5, query
        assert set(page.tags) <= {*clean.tags, "a"}, query
        assert not [name for name, _ in page.attributes if name.startswith("on")], query
        assert "img" not in page.tags
        assert page.tags.count("script") == 1


async def test_it_is_for_no_other_site(place: Place) -> None:
    """A browser may load nothing that the gateway does not serve, run no other script, and show it in no frame."""
    await place.apply(("default", "demo", text()))
    for path in ("/", "/?status=x", *(f"/page/{name}" for name in FILES)):
        fields = (await place.client.get(path)).headers
        policy = dict(part.split(" ", 1) for part in fields["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == policy["script-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in fields["content-security-policy"]
        assert (fields["x-content-type-options"], fields["referrer-policy"]) == ("nosniff", "no-referrer")
    page = await place.page()
    assert not [value for name, value in page.attributes if name in ("href", "src", "action") and "//" in value]
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
    files = "".join((STATIC / name).read_text() for name in FILES)
    assert set(re.findall(r"https?://[^\s\"']+", files)) == {"http://www.w3.org/2000/svg"}
    assert len(page.ids) == len(set(page.ids))


async def test_it_is_read_only(place: Place) -> None:
    """The page, its files and its stream have no other methods than GET and HEAD; other files are not served."""
    for path in ("/", "/events", "/page/page.css"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await place.client.request(method, path)).status_code == 405
        assert (await place.client.head(path)).status_code == 200
    for name in ("none", "page.html", "..%2frendering.py", "../serving.py", "%2e%2e/serving.py"):
        assert (await place.client.get(f"/page/{name}")).status_code == 404


async def test_filters(place: Place) -> None:
    """Routes and requests are filtered by the gateway; a filter that nothing matches says so, and a bad one, too."""
    await place.apply(*(("default", name, text(name)) for name in ("demo", "demo-2", "other")))
    for status, reason, route in ((200, "Local", "demo"), (502, "Failover", "demo"), (503, "Local", "other")):
        place.journal.append(record(at=time.time(), status=status, reason=reason, route=f"default/{route}",
                                    request_id=f"{status}-{route}".encode()))  # fmt: skip

    async def shown(query: str) -> tuple[list[str], list[str]]:
        page = await place.page(f"/?{query}")
        routes = [one.removeprefix("route-default/") for one in page.ids if one.startswith("route-")]
        return routes, re.findall(r"\d{3}-(?:demo|other)", page.words)

    assert await shown("") == (["demo", "demo-2", "other"], ["503-other", "502-demo", "200-demo"])
    assert await shown("route=default/demo") == (["demo"], ["502-demo", "200-demo"])
    assert await shown("route=demo") == (["demo", "demo-2"], ["502-demo", "200-demo"])
    assert await shown("route=default/demo&status=502&reason=failover") == (["demo"], ["502-demo"])
    assert (await shown("status=5xx"))[1] == ["503-other", "502-demo"]
    assert await shown("route=none") == ([], [])
    words = (await place.page("/?route=none")).words
    assert "No model has such a name." in words
    assert "No request that this gateway remembers is like this." in words
    assert "A status is a number such as 502" in (await place.page("/?status=bad")).words


async def test_what_is_too_much_is_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows so many routes, requests and sentences at most, those in trouble first, and says so."""
    for name, most in (("MOST_ROUTES", 3), ("MOST_REQUESTS", 4), ("MOST_NOTES", 2), ("MOST_ERRORS", 2)):
        monkeypatch.setattr(state, name, most)
    names = [f"model-{number}" for number in range(8)]
    bad = {f"broken-{number}": "{" for number in range(2)}
    routes = [("default", name, text(name)) for name in names] + [("z", name, one) for name, one in bad.items()]
    await place.apply(*routes, errors={f"place-{number}": "away" for number in range(5)})
    for _ in range(9):
        place.journal.append(record(at=time.time()))
    page = await place.page()
    assert [one for one in page.ids if one.startswith("route-")] == [
        "route-default/model-0", "route-z/broken-0", "route-z/broken-1",
    ]  # fmt: skip
    assert page.words.count("/a/b") == 4
    for part in ("3 of 10 are shown", "the newest 4 of 9 that this gateway remembers", "and 5 more.", "and 3 more."):
        assert part in page.words, part


@dataclass
class Stream:
    """Stream of one page."""

    status: int
    lines: AsyncIterator[str]

    async def next(self) -> tuple[str, dict[str, Any]]:
        """Return the name and the data of the next event."""
        name = ""
        async with asyncio.timeout(SECONDS):
            async for line in self.lines:
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return name, orjson.loads(line.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    async def ended(self) -> None:
        """Read the rest of the stream."""
        async with asyncio.timeout(SECONDS):
            with suppress(httpx.RemoteProtocolError):
                async for _ in self.lines:
                    pass

    async def round(self) -> dict[str, str]:
        """Return the sections that come before the next time of the state."""
        result: dict[str, str] = {}
        while (event := await self.next())[0] == "section":
            result[event[1]["id"]] = event[1]["html"]
        assert event[1]["at"].endswith("Z")
        return result


@asynccontextmanager
async def stream(port: int, query: str = "", **fields: str) -> AsyncIterator[Stream]:
    """Open a stream for the block."""
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SECONDS) as client,
        client.stream("GET", f"/events{query}", headers=fields) as response,
    ):
        yield Stream(response.status_code, response.aiter_lines())


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look at the state often."""
    monkeypatch.setattr(serving, "REFRESH_SECONDS", 0.02)
    monkeypatch.setattr(serving, "SHARE", 1)


@pytest.mark.usefixtures("fast")
async def test_the_stream(place: Place) -> None:
    """A stream brings all sections at first, then those that have changed, by the filter of its page."""
    await place.apply(*(("default", name, text(name)) for name in ("demo", "other")))
    async with on_a_port(place.app) as port, stream(port, "?route=default/demo") as one:
        first = await one.round()
        assert list(first) == ["now", "routes", "requests", "sources"]
        assert "route-default/demo" in first["routes"]
        assert "route-default/other" not in first["routes"]
        place.journal.append(record(at=time.time(), request_id=b"seen", target=MARKUP.encode()))
        place.journal.append(record(at=time.time(), request_id=b"unseen", route="default/other"))
        while "requests" not in (changed := await one.round()):
            pass
        assert "seen" in changed["requests"]
        assert "unseen" not in changed["requests"]
        assert "&lt;img src=x" in changed["requests"]
        place.stopped.set()
        await one.ended()


async def test_the_number_of_streams_has_a_bound(place: Place) -> None:
    """Only so many pages have a stream; the next one gets 503, and a place when another page has gone."""
    await place.apply(("default", "demo", text()))
    async with on_a_port(place.app) as port, AsyncExitStack() as stack:
        open_ones = [await stack.enter_async_context(stream(port)) for _ in range(serving.MOST_LISTENERS)]
        assert {one.status for one in open_ones} == {200}
        assert await open_ones[0].round()
        async with stream(port) as one:
            assert one.status == 503
        await stack.aclose()

        async def has_room() -> bool:
            async with stream(port) as one:
                return one.status == 200

        async with asyncio.timeout(SECONDS):
            while not await has_room():
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
async def test_the_stream_is_for_the_page_alone(place: Place, site: str, status: int) -> None:
    """Another site in the same browser cannot take the places of the page."""
    async with on_a_port(place.app) as port, stream(port, **{"sec-fetch-site": site}) as one:
        assert one.status == status


async def test_head_of_the_stream_ends(place: Place) -> None:
    """HEAD of the stream has its type and ends at once."""
    response = await place.client.head("/events")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")


async def test_pages_take_a_small_part_of_the_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer a page takes to render, and the more of them there are, the less often it is rendered."""
    monkeypatch.setattr(serving, "REFRESH_SECONDS", 0.001)
    waits: list[float] = []

    async def wait_for(waiting: Any, pause: float) -> None:
        waiting.close()
        waits.append(pause)
        raise TimeoutError

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    monkeypatch.setattr(Pages, "run", lambda _self, _steps: asyncio.sleep(0, 0.25))
    page = serving.StatusPage(
        place.store, place.journal, describe=lambda _: {}, why_not_ready=lambda: None, endpoints=None,
        rendering=Pages(), stopped=asyncio.Event(), access=False,
    )  # fmt: skip
    page.listeners = 3
    events = page.sections(Filter(), None)
    for _ in range(3):
        await anext(events)
    await events.aclose()
    assert waits == [pytest.approx(0.25 * serving.SHARE * 3)] * 2


async def test_a_running_gateway(tmp_path: Path) -> None:
    """The page of a process shows its host and refreshes itself, and its stream does not delay the end."""
    async with started(tmp_path, config="gateway: {lameDuckSeconds: 0, drainSeconds: 1}") as running:
        page = Text((await running.admin.get("/")).text)
        assert "Beamlit gateway" in page.words
        for name, kind in FILES.items():
            response = await running.admin.get(f"/page/{name}")
            assert (response.status_code, response.headers["content-type"]) == (200, kind)
        async with stream(int(running.admin.base_url.port or 0)) as one:
            assert "now" in await one.round()
            running.process.terminate()
            await one.ended()
        assert await running.ended() == 0
