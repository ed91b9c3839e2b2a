"""The page as a part of the admin port's app: the page itself, its files, and the stream by which it refreshes itself.

Everything is read only, and nothing is asked of another server. A page that is looked at gets each of its sections
again when it has changed. Few may look at the same time, and all of them together take a small part of the event loop's
time.
"""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.backends.endpoints import EndpointTable
from gateway.journal import Journal
from gateway.page import filtering
from gateway.page.filtering import Filter
from gateway.page.rendering import FILES, SECTIONS, Templates
from gateway.page.state import Gateway, PageState, gather
from gateway.routes.store import DocumentState, RouteStore
from program.pages import Pages
from program.web import IS_HEAD

MOST_LISTENERS: Final = 8
"""Pages that refresh themselves at the same time."""
REFRESH_SECONDS: Final = 2.0
"""Seconds from one look at the state to the next, for each page."""
SHARE: Final = 20
"""The event loop spends one part in so many of its time on pages that refresh themselves, at most."""

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Header fields of everything that the page consists of."""
_EVENT_STREAM: Final = "text/event-stream"


class StatusPage:
    """The page of one gateway."""

    def __init__(
        self,
        store: RouteStore,
        journal: Journal,
        *,
        describe: Callable[[DocumentState], Mapping[str, Any]],
        why_not_ready: Callable[[], str | None],
        endpoints: EndpointTable | None,
        rendering: Pages,
        stopped: asyncio.Event,
        access: bool,
    ) -> None:
        """Show the state of a gateway.

        Args:
            store: Routes and their runtime state.
            journal: Records of the last requests.
            describe: Function that returns the state of a route as `/routes` shows it.
            why_not_ready: Function that says why the gateway should get no requests; None when it should.
            endpoints: Pods of Services; None where requests are sent to the names of Services.
            rendering: Pages of the admin port, of which one is rendered at a time.
            stopped: Event that ends the streams, because the port closes.
            access: Whether requests need a credential of the installation.
        """
        host = socket.gethostname()
        self._gateway = Gateway(store, journal, describe, why_not_ready, endpoints, access, host, time.time())
        self._pages = rendering
        self._stopped = stopped
        self._templates = Templates()
        self.listeners = 0
        """Pages that refresh themselves now."""

    def add_to(self, app: FastAPI) -> None:
        """Add the page to an app, at `/`."""
        app.add_api_route("/", self.page, methods=["GET"], include_in_schema=False, response_model=None)
        app.add_api_route("/events", self.events, methods=["GET"], include_in_schema=False, response_model=None)
        app.add_api_route("/page/{name}", self.file, methods=["GET"], include_in_schema=False, response_model=None)

    async def page(self, request: Request) -> Response:
        """Return the whole page, as it is now."""
        await self._templates.load()
        wanted, problem = filtering.read(request.query_params)
        response = await self._pages.respond(request, self._whole(wanted, problem), "text/html; charset=utf-8")
        response.headers.update(HEADERS)
        return response

    async def file(self, name: str) -> Response:
        """Return a file of the page."""
        if name not in FILES:
            return PlainTextResponse("Not Found", 404)
        await self._templates.load()
        return Response(self._templates.file(name), headers={"content-type": FILES[name], **HEADERS})

    async def events(self, request: Request) -> Response:
        """Return a stream of the sections of the page, each when it has changed; 503 while too many pages have one."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("This stream is for the page of the gateway only.\n", 403)
        if request.scope.get(IS_HEAD):
            return Response(headers={"content-type": _EVENT_STREAM, **HEADERS})
        await self._templates.load()
        return _Stream(self, *filtering.read(request.query_params))

    async def sections(self, wanted: Filter, problem: str | None) -> AsyncGenerator[bytes, None]:
        """Yield the events of one page until the port closes."""
        sent: dict[str, int] = {}
        while not self._stopped.is_set():
            rendered = _Rendered()
            seconds = await self._pages.run(self._render(wanted, problem, rendered))
            for section, parts in rendered.sections.items():
                text = "".join(parts)
                if sent.get(section) != (digest := hash(text)):
                    sent[section] = digest
                    yield _event("section", {"id": section, "html": text})
            pause = max(REFRESH_SECONDS, seconds * SHARE * self.listeners)
            yield _event("now", {"at": rendered.at, "title": rendered.title, "next": round(pause, 1)})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause)

    def _whole(self, wanted: Filter, problem: str | None) -> Iterator[bytes]:
        """Yield the page in small pieces."""
        gathering = gather(self._gateway, wanted, problem)
        while True:
            try:
                next(gathering)
            except StopIteration as end:
                state: PageState = end.value
                break
            yield b""
        for piece in self._templates.page({"page": state}):
            yield piece.encode()

    def _render(self, wanted: Filter, problem: str | None, rendered: "_Rendered") -> Iterator[None]:
        """Render the sections of the page in small steps."""
        state = yield from gather(self._gateway, wanted, problem)
        rendered.at, rendered.title = state.now, state.title
        for section in SECTIONS:
            parts = rendered.sections[section] = []
            for piece in self._templates.section(section, {"page": state}):
                parts.append(piece)
                yield


class _Rendered:
    """Sections of the page as they are at one moment."""

    def __init__(self) -> None:
        self.at = ""
        self.title = ""
        self.sections: dict[str, list[str]] = {}


class _Stream(StreamingResponse):
    """Stream of one page, which counts as a listener as long as it lasts."""

    def __init__(self, page: StatusPage, wanted: Filter, problem: str | None) -> None:
        self._events = page.sections(wanted, problem)
        super().__init__(self._events, headers={"content-type": _EVENT_STREAM, **HEADERS})
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or 503 while as many others run as there may be."""
        if self._page.listeners >= MOST_LISTENERS:
            text = f"{MOST_LISTENERS} pages refresh themselves already. Close one of them.\n"
            await PlainTextResponse(text, 503, {"retry-after": "10"})(scope, receive, send)
            return
        self._page.listeners += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._page.listeners -= 1
            await self._events.aclose()


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    """Return an event of a stream."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
