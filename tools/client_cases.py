"""List of real clients that `make clients` holds against the gateway, with the outcome of each kind of call.

The suite `tests/clients` holds each client to its outcomes, and the page docs/compatibility.md shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

WORKS: Final = "works"
"""Outcome of a call that gives the client what it asked for."""
CALLS: Final[Mapping[str, str]] = {
    "chat": "a whole response",
    "stream": "a stream of events",
    "qualified": "a whole response, with the model's name as `namespace/name`: the model server gets the bare name",
    "embeddings": "vectors of two texts",
    "transcription": "a text of a recording, by a form with a file and the model's name",
    "list": "the list of models",
    "retrieve": "one model, by its bare name",
    "namespaced": "one model, as `namespace/name`",
    "cancel": "the client leaves in the middle of a stream: the model server sees it",
    "unknown": "a model that does not exist",
    "none": "a model without a backend",
    "failover": "the local server is gone: the remote one responds",
    "silence": "a stream whose server is silent for long, before its head and before its first event: comments come",
    "late": "a stream whose server is silent for long and then has no room: an error event behind comments",
}
"""Kinds of calls, each with its meaning."""


@dataclass(frozen=True, slots=True)
class Client:
    """A real client and what it makes of each call."""

    name: str
    """Name of the client as people know it."""
    language: str
    package: str = ""
    """Name of its package in uv.lock or in package-lock.json; empty for a part of a program."""
    program: str = ""
    """Program that the client is or runs in, where its version is in no lock file."""
    unknown: str = "404 model_not_found"
    """What the client shows for a model that does not exist: the class of its error or the status, and the code."""
    none: str = "503 no_backend"
    """What the client shows for a model without a backend."""
    late: str = "event rate_limited"
    """What the client shows for an error event: the class of its error, or the word event, and the code."""
    without: frozenset[str] = frozenset()
    """Calls that the client does not have."""
    more: tuple[str, ...] = ()
    """Further things that are tested with this client alone, each as a sentence."""

    @property
    def outcomes(self) -> Mapping[str, str]:
        """Outcome of each call that the client has."""
        errors = {"unknown": self.unknown, "none": self.none, "late": self.late}
        return {call: errors.get(call, WORKS) for call in CALLS if call not in self.without}


CLIENTS: Final[Mapping[str, Client]] = {
    "openai-python": Client(
        "openai",
        "Python",
        "openai",
        unknown="NotFoundError model_not_found",
        none="InternalServerError no_backend",
        late="APIError rate_limited",
    ),
    "anthropic-python": Client(
        "anthropic",
        "Python",
        "anthropic",
        unknown="NotFoundError not_found_error",
        none="ServiceUnavailableError overloaded_error",
        late="APIStatusError rate_limit_error",
        without=frozenset({"embeddings", "transcription"}),
    ),
    "httpx": Client("httpx", "Python", "httpx"),
    "aiohttp": Client("aiohttp", "Python", "aiohttp"),
    "openai-node": Client(
        "openai",
        "Node",
        "openai",
        unknown="NotFoundError model_not_found",
        none="InternalServerError no_backend",
        late="APIError rate_limited",
    ),
    "undici": Client("undici", "Node", "undici"),
    "fetch-undici": Client("fetch of undici", "Node", "undici"),
    "fetch-node": Client("fetch", "Node", program="node"),
    "java": Client(
        "java.net.http",
        "Java",
        program="java",
        without=frozenset({"transcription"}),
        more=(
            "`HttpClient.newHttpClient()` offers HTTP/2 with each request; the offer is ignored.",
            "Its WebSocket, whose handshake has `Content-Length: 0`, opens by the model's name.",
        ),
    ),
    "curl": Client(
        "curl",
        "command line",
        program="curl",
        more=(
            "`--http2` offers HTTP/2; the offer is ignored, with and without a body, and the connection is used again.",
            "`--compressed` gets a response as the model server compressed it.",
            "An upload with `Expect: 100-continue`, with a length or in chunks, is told to go on.",
            "`--head` gets the head that a GET has.",
        ),
    ),
    "chromium": Client(
        "fetch, EventSource",
        "browser, from another origin",
        program="chromium",
        more=(
            "A page reads `x-beamlit-backend`, `x-beamlit-reason` and `x-request-id`, in errors too.",
            "`EventSource` gets the events of a GET by path, with and without credentials.",
            "`credentials: include` works for an origin that the rule names, and fails where it allows `*`.",
            "A page of another origin reads neither responses nor errors; its preflights reach no model server.",
        ),
    ),
}
"""Clients by the name that tests have."""
