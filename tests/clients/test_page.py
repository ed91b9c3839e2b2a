"""The page of the admin port in Chromium: on a desk and on a phone, in the light and in the dark, and while it changes.

Its pictures are written to build/page.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.sync.client import ClientConnection

from benchmarks.processes import running
from gateway.api.v1alpha1 import Backend, Breaker, HealthCheck, RouteDocument, Split
from gateway.page.serving import MOST_LISTENERS
from tests.clients.chromium import Tab
from tests.clients.conftest import LOCAL, REMOTE, config_map
from tests.clients.model_server import ModelServer
from tests.deadlines import SECONDS
from tests.processes import poll
from tools.ports import free_port
from tools.repository import ROOT

PICTURES: Final = ROOT / "build/page"
PICTURE: Final = ROOT / "docs/pictures/page.png"
SCREENS: Final[dict[str, Any]] = {
    "light": {"width": 1280, "height": 900, "dark": False},
    "dark": {"width": 1280, "height": 900, "dark": True},
    "phone": {"width": 390, "height": 844, "dark": False, "phone": True},
    "phone-dark": {"width": 390, "height": 844, "dark": True, "phone": True},
    "narrow": {"width": 320, "height": 568, "dark": False, "phone": True},
}
MARKUP: Final = b"<img/src=x/onerror=document.title='broken'>"

pytestmark = pytest.mark.xdist_group("page")


@dataclass(frozen=True)
class Gateway:
    """A gateway with models in several states."""

    url: str
    """URL of its port for clients."""
    admin: str
    """URL of its port for administrators."""
    routes: Path

    def post(self, model: str, *, stream: bool = False) -> int:
        """Send a request for a model; return the status of the response."""
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        url = f"{self.url}/default/{model}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=SECONDS, trust_env=False).status_code


def _documents() -> Iterator[RouteDocument]:
    def backend(one: Backend, weight: int, **values: Any) -> Backend:
        return one.model_copy(update={"weight": weight, **values})

    yield RouteDocument(
        name="llama-70b",
        backends=(backend(LOCAL, 70, in_flight=16, first_token_target=2), backend(REMOTE, 30)),
        split=Split(percentage=30, reason="MetricReached"),
    )
    yield RouteDocument(
        name="qwen-coder",
        backends=(backend(LOCAL, 0), backend(REMOTE, 100)),
        split=Split(percentage=100, reason="NoReadyReplica"),
    )
    yield RouteDocument(name="text-embedder", backends=(backend(LOCAL, 100), backend(REMOTE, 0)))
    yield RouteDocument(
        name="whisper-large",
        backends=(backend(LOCAL, 100, service="gone", health=HealthCheck(path="/health")), backend(REMOTE, 0)),
        breaker=Breaker(open=600),
    )
    yield RouteDocument(name="unused", backends=(backend(LOCAL, 0),))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that has had some requests, also bad ones."""
    folder = tmp_path_factory.mktemp("page")
    routes = folder / "routes"
    routes.mkdir()
    for document in _documents():
        (routes / f"{document.name}.yaml").write_text(config_map(document))
    refused = config_map(RouteDocument(name="mistral", backends=(LOCAL,))).replace('"weight":100', '"weight":110')
    (routes / "mistral.yaml").write_text(refused)
    with ExitStack() as stack:
        server = stack.enter_context(ModelServer().running())
        port, admin = free_port(), free_port()
        config = folder / "config.yaml"
        config.write_text("namespaces: default\ngateway: {timeouts: {localConnectSeconds: 30, connectSeconds: 30}}\n")
        resolve = {
            "local.default.svc.cluster.local": server.ports["local"],
            "gone.default.svc.cluster.local": free_port(),
            "remote.example": server.ports["remote"],
        }
        command = [
            *(sys.executable, "-m", "gateway", "--config", str(config), "--routes", str(routes)),
            *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
            *(f"--resolve={name}:80=127.0.0.1:{to}" for name, to in resolve.items()),
        ]
        stack.enter_context(running("gateway", command, port, folder))
        result = Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", routes)
        for model in ("llama-70b", "text-embedder", "qwen-coder", "whisper-large"):
            for _ in range(7):
                assert result.post(model, stream=model != "text-embedder") == 200
        assert result.post("unused") == 503
        with socket.create_connection(("127.0.0.1", port), SECONDS) as raw:
            raw.sendall(b"GET /default/llama-70b/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % MARKUP)
            assert raw.recv(65536)
        yield result


@pytest.fixture
def tab(browser: ClientConnection) -> Iterator[Tab]:
    """A tab of which the browser tells everything."""
    one = Tab(browser)
    one.watch("Page", "Runtime", "Log", "Network", "Audits")
    yield one
    one.close()


def show(tab: Tab, gateway: Gateway, path: str = "/") -> None:
    """Open the page and wait until it is live."""
    tab.open(gateway.admin + path)
    poll(lambda: tab.run("document.getElementById('live')?.className") == "live live-on", "the page is live")


def complaints(tab: Tab, gateway: Gateway) -> list[Any]:
    """Return what the browser has against the page, and what was asked of others than the gateway."""
    told = []
    for event in tab.events:
        method, values = event["method"], event["params"]
        if "NavigationEntryMarkedSkippable" in str(values):
            continue  # the click was a script's
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Audits.issueAdded"):
            told.append(values)
        if method == "Network.requestWillBeSent" and not values["request"]["url"].startswith(gateway.admin + "/"):
            told.append(values["request"]["url"])
    return told


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page(tab: Tab, gateway: Gateway, screen: str) -> None:
    """The page is live on every screen, is not wider than it, and the browser has nothing to complain about."""
    tab.look_like(**SCREENS[screen])
    show(tab, gateway)
    tab.screenshot(PICTURES / f"{screen}.png")
    tab.screenshot(PICTURES / f"{screen}-whole.png", whole=True)
    wide = "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
    assert tab.run(f"{wide}.map(one => one.outerHTML.slice(0, 200))") == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert "document is refused" in tab.run("document.body.innerText")
    assert "img/src=x" in tab.run("document.body.innerText")
    assert tab.run("document.title").startswith("✕ ")
    assert complaints(tab, gateway) == []


def test_it_refreshes_itself(tab: Tab, gateway: Gateway) -> None:
    """A request shows without a reload, what a person has opened stays open, and a selection is not taken away."""
    tab.look_like(**SCREENS["light"])
    show(tab, gateway)
    tab.run("window.same = true")
    rows = "[...document.querySelectorAll('#requests tbody tr')]"
    count = f"{rows}.filter(one => one.innerText.includes('text-embedder')).length"
    before = tab.run(count)
    opened = "document.getElementById('route-default/text-embedder-route')"
    tab.run(f"{opened}.open && {opened}.querySelector('summary').click()")
    tab.run(f"{opened}.open || {opened}.querySelector('summary').click()")
    gateway.post("text-embedder")
    poll(lambda: tab.run(count) == before + 1, "the request shows")
    poll(lambda: tab.run(f"{opened}.open"), "what was opened stays open")
    tab.run("getSelection().selectAllChildren(document.querySelector('#requests h2'))")
    gateway.post("text-embedder")
    poll(lambda: "selected" in tab.run("document.getElementById('live').textContent"), "the selection stays")
    assert tab.run(count) == before + 1
    tab.run("getSelection().removeAllRanges()")
    poll(lambda: tab.run(count) == before + 2, "the section is shown when nothing is selected any more")
    assert tab.run("window.same")
    assert complaints(tab, gateway) == []


def test_a_filter(tab: Tab, gateway: Gateway) -> None:
    """The form filters by the query string, which the stream obeys, too, and links lead to the requests of a model."""
    show(tab, gateway, "/?route=default/whisper-large&reason=failover")
    rows = "[...document.querySelectorAll('#requests tbody tr')].map(one => one.cells[2].innerText)"
    assert set(tab.run(rows)) == {"default/whisper-large"}
    assert tab.run("document.querySelectorAll('.route').length") == 1
    tab.run("document.querySelector('.from a').click()")
    poll(lambda: tab.run("location.search") == "?route=default/whisper-large", "the link leads there")
    poll(lambda: tab.run("document.getElementById('live')?.className") == "live live-on", "the page is live")
    tab.run("document.querySelector('[name=route]').value = 'llama'")
    tab.run("document.querySelector('.filter button').click()")
    poll(lambda: "route=llama" in tab.run("location.search"), "the form is sent")
    poll(lambda: tab.run("document.getElementById('live')?.className") == "live live-on", "the page is live")
    assert tab.run("[...document.querySelectorAll('.route')].map(one => one.id)") == ["route-default/llama-70b-route"]
    assert complaints(tab, gateway) == []


def test_the_picture_of_the_docs(tab: Tab, gateway: Gateway) -> None:
    """The documentation has a small picture of the page; `make picture` takes it."""
    if os.environ.get("PAGE_PICTURE"):
        tab.look_like(width=960, height=550, dark=False)
        show(tab, gateway)
        tab.screenshot(PICTURE)
    assert PICTURE.stat().st_size < 100_000


HIDE: Final = """Object.defineProperty(document, 'hidden', {value: VALUE, configurable: true});
document.dispatchEvent(new Event('visibilitychange'))"""


def test_a_hidden_tab_costs_nothing(tab: Tab, gateway: Gateway) -> None:
    """A tab that is hidden gives its stream up, so that others may have it, and gets it again when it is shown."""
    show(tab, gateway)

    def taken() -> int:
        """Return how many more streams there may be."""
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client(trust_env=False, timeout=SECONDS))
            events = f"{gateway.admin}/events"
            responses = [stack.enter_context(client.stream("GET", events)) for _ in range(MOST_LISTENERS)]
            return [one.status_code for one in responses].count(200)

    poll(lambda: taken() == MOST_LISTENERS - 1, "the page has a stream")
    tab.run(HIDE.replace("VALUE", "true"))
    assert tab.run("document.getElementById('live').textContent").startswith("Paused at ")
    poll(lambda: taken() == MOST_LISTENERS, "the page has no stream any more")
    tab.run(HIDE.replace("VALUE", "false"))
    poll(lambda: tab.run("document.getElementById('live').className") == "live live-on", "the page is live again")


def test_a_gateway_that_goes_away(tab: Tab, gateway: Gateway) -> None:
    """A page that gets no stream says since when it is not live, and tries again."""
    show(tab, gateway)
    tab.send("Network.setBlockedURLs", urls=["*/events*"])
    tab.run(HIDE.replace("VALUE", "true"))
    tab.run(HIDE.replace("VALUE", "false"))
    poll(lambda: "Not live" in tab.run("document.getElementById('live').textContent"), "it says that it is not live")
    tab.send("Network.setBlockedURLs", urls=[])
    poll(lambda: tab.run("document.getElementById('live').className") == "live live-on", "the page is live again")


def test_without_scripts(tab: Tab, gateway: Gateway) -> None:
    """Without JavaScript the page shows everything, its filter works, and it is loaded again by itself."""
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(f"{gateway.admin}/?status=503")
    poll(lambda: tab.run("document.readyState") == "complete", "the page is there")
    refresh = "document.querySelector('meta[http-equiv=refresh]')?.content"
    assert tab.run(refresh) == "15"
    assert tab.run("document.querySelectorAll('#requests tbody tr').length") == 1
    assert tab.run("document.querySelectorAll('.route').length") == 6

    def loads() -> int:
        """Return how often the page was loaded so far."""
        tab.run("1")
        return [one["method"] for one in tab.events].count("Page.loadEventFired")

    before = loads()
    poll(lambda: loads() > before, "it is loaded again")
