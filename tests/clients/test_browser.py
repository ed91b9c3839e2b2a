"""Chromium at the gateway: pages of other origins with fetch, streams and EventSource."""

import json
from typing import Any, Final

import pytest
from websockets.sync.client import ClientConnection

from tests.clients.chromium import Tab
from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check, check_bytes
from tests.processes import poll
from tools.repository import ROOT

FETCHING: Final = (ROOT / "tests/clients/fetching.mjs").read_text(encoding="utf-8").replace("export ", "")

pytestmark = pytest.mark.xdist_group("browser")


class Page(Tab):
    """A page of a site in the browser."""

    def __init__(self, connection: ClientConnection, site: str) -> None:
        super().__init__(connection)
        self.open(f"{site}/page")
        poll(lambda: self.run("document.title + location.origin") == f"page{site}", f"the page of {site}")


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
