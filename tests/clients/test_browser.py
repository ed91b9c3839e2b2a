"""Chromium at the gateway: pages of other origins with fetch, streams and EventSource."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check, check_bytes, require
from tests.deadlines import SECONDS
from tests.processes import poll
from tools.repository import ROOT

FETCHING: Final = (ROOT / "tests/clients/fetching.mjs").read_text(encoding="utf-8").replace("export ", "")
PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

pytestmark = pytest.mark.xdist_group("browser")


class Page:
    """A page in the browser, over the DevTools protocol."""

    def __init__(self, connection: ClientConnection, site: str) -> None:
        self._connection = connection
        self._number = 0
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._send("Page.navigate", self._session, url=f"{site}/page")
        poll(lambda: self.run("document.title + location.origin") == f"page{site}", f"the page of {site}")

    def _send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({} if session is None else {"sessionId": session})))
        while True:
            response = json.loads(self._connection.recv(timeout=2 * SECONDS))
            if response.get("id") == self._number:
                assert "error" not in response, response
                return response["result"]

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page; a promise is awaited."""
        result = self._send("Runtime.evaluate", self._session, expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientConnection]:
    """Connection to a browser with a folder of its own."""
    program = require("chromium-headless-shell", *PROGRAMS)
    folder = tmp_path_factory.mktemp("browser")
    log = folder / "log"
    profile = folder / "profile"
    with log.open("wb") as output:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        poll(lambda: _devtools(log) or process.poll() is not None, "the browser listens", seconds=2 * SECONDS)
        assert process.poll() is None, log.read_text()
        with connect(_devtools(log), max_size=None, proxy=None) as connection:
            yield connection
            connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _devtools(log: Path) -> str:
    """Return the address of the DevTools protocol, which the browser prints; empty until then."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("DevTools listening on ")), "")


@pytest.fixture(scope="module")
def page(browser: ClientConnection, place: Place) -> Page:
    """A page of the origin that may use the gateway, with the calls in it."""
    page = Page(browser, place.site)
    page.run(FETCHING)
    return page


@pytest.fixture(scope="module")
def stranger(browser: ClientConnection, place: Place) -> Page:
    """A page of an origin that may not."""
    return Page(browser, place.other_site)


@calls_of("chromium")
def test_a_call(place: Place, page: Page, client: str, call: str) -> None:
    """A call of a page has its outcome, errors of the gateway included, and the model server gets no preflight."""
    outcome = page.run(f"withFetch(fetch.bind(window), {place.url!r})({call!r}, '{client}/{call}')")
    check(place, client, call, outcome)


def fields(page: Page, url: str, options: str = "{}") -> Any:
    """Return status, body and header fields that the page can read; the name of the error where it can read nothing."""
    return page.run(
        f"fetch({url!r}, {options}).then(async one => [one.status, await one.text(), Object.fromEntries(one.headers)],"
        " error => error.name)"
    )


def test_what_the_page_can_read(place: Place, page: Page) -> None:
    """The page reads the fields of the gateway, in responses of a model and in errors."""
    status, _, names = fields(page, f"{place.url}/default/demo/v1/x?case=chromium/exposed")
    assert (status, names["x-beamlit-backend"], names["x-beamlit-reason"]) == (200, "local", "Local")
    assert names["x-request-id"]
    status, body, names = fields(page, f"{place.url}/v1/models/missing")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    assert names["x-request-id"]


def test_a_key_in_a_field(place: Place, page: Page) -> None:
    """A page may send a key and fields of its own, which the browser asks the gateway about first."""
    case = "chromium/key"
    options = "{method: 'POST', body: '{}', headers: {authorization: 'Bearer key', 'x-stainless-lang': 'js'}}"
    assert fields(page, f"{place.url}/default/demo/v1/x?case={case}", options)[0] == 200
    recorded = place.server.wait_for(case)
    assert recorded.line.startswith("POST /v1/x")
    assert dict(recorded.fields)["authorization"] == "Bearer key"
    check_bytes(recorded)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_method_that_is_not_allowed(place: Place, page: Page, method: str) -> None:
    """A page cannot use a method that the rule does not have, and the model server gets nothing."""
    case = f"chromium/{method}"
    assert fields(page, f"{place.url}/default/demo/v1/x?case={case}", f"{{method: {method!r}}}") == "TypeError"
    assert place.server.of(case) == []


EVENTS: Final = """new Promise((resolve, reject) => {
  const source = new EventSource(URL, {withCredentials: WITH});
  let all = '';
  source.onmessage = (event) => {
    if (event.data === '[DONE]') { source.close(); resolve(all); return; }
    all += JSON.parse(event.data).choices[0].delta.content ?? '';
  };
  source.onerror = () => { source.close(); resolve('error'); };
})"""


@pytest.mark.parametrize("credentials", ["false", "true"])
def test_an_event_source(place: Place, page: Page, stranger: Page, credentials: str) -> None:
    """EventSource gets the events of a GET, with and without credentials; a page of another origin gets an error."""
    url = f"{place.url}/default/demo/v1/events?case=chromium/events-{credentials}"
    code = EVENTS.replace("URL", repr(url)).replace("WITH", credentials)
    assert page.run(code) == TEXT
    assert stranger.run(code) == "error"


SOCKET: Final = """new Promise((resolve) => {
  const socket = new WebSocket(URL, OFFERED);
  socket.onmessage = (event) => resolve([socket.protocol, event.data]);
  socket.onerror = () => resolve('error');
})"""


@pytest.mark.parametrize(
    ("offered", "reaches", "selected"),
    [
        (["realtime", "openai-insecure-api-key.sk-mine"], "realtime", "realtime"),
        (["openai-insecure-api-key.sk-mine"], None, "openai-insecure-api-key.sk-mine"),
        (["authorization", "bearer", "mine"], None, "authorization"),
    ],
)
def test_a_key_as_a_subprotocol(
    place: Place, page: Page, offered: list[str], reaches: str | None, selected: str
) -> None:
    """A WebSocket opens whose page offers a key as a subprotocol, also alone; the remote server never gets the key."""
    case = f"chromium/socket-{len(offered)}-{reaches}"
    url = f"{place.url}/default/away/v1/realtime?case={case}".replace("http:", "ws:")
    code = SOCKET.replace("URL", repr(url)).replace("OFFERED", json.dumps(offered))
    assert page.run(code) == [selected, TEXT]
    recorded = place.server.wait_for(case)
    assert b"mine" not in recorded.head
    assert dict(recorded.fields).get("sec-websocket-protocol") == reaches


def test_credentials(place: Place, page: Page) -> None:
    """A response with credentials can be read where the rule names the origin, and not where it allows every one."""
    options = "{credentials: 'include'}"
    assert fields(page, f"{place.url}/default/demo/v1/x", options)[0] == 200
    assert fields(page, f"{place.url}/default/open/v1/x", options) == "TypeError"
    assert fields(page, f"{place.url}/default/open/v1/x")[0] == 200


def test_a_page_of_another_origin(place: Place, stranger: Page) -> None:
    """A page of another origin can read neither responses nor errors, and its preflights are refused."""
    for path in ("/v1/models", "/v1/models/missing", "/default/demo/v1/x"):
        assert fields(stranger, place.url + path) == "TypeError"
    case = "chromium/stranger"
    options = "{method: 'POST', body: '{}', headers: {authorization: 'Bearer key'}}"
    assert fields(stranger, f"{place.url}/default/demo/v1/x?case={case}", options) == "TypeError"
    assert place.server.of(case) == []
    # A model may allow every origin by a rule of its own.
    assert fields(stranger, f"{place.url}/default/open/v1/x?case={case}", options)[0] == 200
