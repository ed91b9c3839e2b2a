"""Mutations of HTTP messages, and two parsers that read them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11
import httptools

_SIGNS = b'\r\n \t:;,0123456789aAfF-+_\0\x0b\x7f\x80\xff/?#%"*'
_FIELDS = (
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 70", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Connection: close", b"Connection: keep-alive, X-A", b"Connection: Upgrade",
    b"Upgrade: h2c", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Expect: 100-continue", b"Host: other",
    b"X-A: 1", b"Trailer: X-T", b"TE: trailers",
    b"Keep-Alive: timeout=1", b"Content-Type: text/event-stream", b"X_A: 1", b"X-Request-Id: a",
)  # fmt: skip


def mutated(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of `seeds`, or two in a row, changed in up to four places."""
    message = bytearray(dice.choice(seeds))
    if dice.random() < 0.3:
        message += dice.choice(seeds)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 4))):
        at = dice.randrange(len(message) + 1)
        what = dice.randrange(7)
        if what == 0:
            del message[at : at + dice.choice((1, 1, 2, 5))]
        elif what == 1:
            message[at:at] = bytes(dice.choices(_SIGNS, k=dice.choice((1, 1, 2))))
        elif what == 2:
            message[at : at + 1] = bytes((dice.choice(_SIGNS),))
        elif what == 3:
            message[at : at + 1] = bytes((dice.randrange(256),))
        elif what == 4:
            message = message[:at] + dice.choice(seeds)[dice.randrange(20) :]
        else:
            lines = bytes(message).split(b"\r\n")
            line = dice.randrange(len(lines))
            if what == 5:
                lines.insert(line, dice.choice(_FIELDS))
            elif dice.random() < 0.5:
                lines.insert(line, lines[dice.randrange(len(lines))])
            else:
                del lines[line]
            message = bytearray(b"\r\n".join(lines))
        if not message:
            message += b"\r\n"
    return bytes(message)


def pieces(dice: random.Random, message: bytes) -> list[bytes]:
    """Return the message in one to four segments."""
    cuts = sorted(dice.randrange(len(message) + 1) for _ in range(dice.choice((0, 0, 1, 3))))
    return [part for part in (message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)) if part]


@dataclass
class Parsed:
    """Message as a parser read it."""

    line: tuple[bytes, ...]
    """Method and target of a request, or the status of a response."""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False


class Unreadable(Exception):
    """The parser refuses the bytes."""


def by_h11(data: bytes, *, responses_to: Sequence[bytes] | None = None, ended: bool = True) -> list[Parsed]:
    """Return the requests in `data`, or the responses to requests of the methods `responses_to`, as h11 reads them.

    The last one may be incomplete.

    Raises:
        Unreadable: The bytes are no messages.
    """
    found: list[Parsed] = []
    methods = list(responses_to or ())
    connection = h11.Connection(h11.SERVER if responses_to is None else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if responses_to is not None:
        _ask(connection, methods.pop(0))
    if data:
        connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            if ended and ("without sending complete message" in str(exc) or "ConnectionClosed" in str(exc)):
                return found  # the connection ended within the message, or before it
            raise Unreadable(str(exc)) from exc
        if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return found
        if event is h11.PAUSED:
            rest = connection.trailing_data[0]
            if responses_to is None:
                connection.send(h11.Response(status_code=400, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
            elif not rest:
                return found
            elif not methods or connection.our_state is not h11.DONE:
                raise Unreadable("more than was asked for")
            connection.start_next_cycle()
            if responses_to is not None:
                _ask(connection, methods.pop(0))
        elif isinstance(event, h11.Request):
            found.append(Parsed((event.method, event.target), list(event.headers)))
        elif isinstance(event, h11.Response):
            found.append(Parsed((b"%d" % event.status_code,), list(event.headers)))
        elif isinstance(event, h11.Data):
            found[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found[-1].complete = True
            if responses_to is not None and not connection.trailing_data[0]:
                return found


def _ask(connection: h11.Connection, method: bytes) -> None:
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())


class _Messages:
    """Callbacks of httptools that keep the messages."""

    def __init__(self) -> None:
        self.found: list[Parsed] = []
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser
        self.url = b""

    def on_message_begin(self) -> None:
        self.url = b""
        self.found.append(Parsed(()))

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.found[-1].line:
            self.found[-1].fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            self.found[-1].line = (self.parser.get_method(), self.url)
        else:
            self.found[-1].line = (b"%d" % self.parser.get_status_code(),)

    def on_body(self, body: bytes) -> None:
        self.found[-1].body += body

    def on_message_complete(self) -> None:
        self.found[-1].complete = True


def by_httptools(data: bytes, *, responses: bool = False) -> list[Parsed]:
    """Return the requests or responses in `data` as httptools reads them, which the gateway uses with rules of its own.

    Interim responses are left out, as in `by_h11`, and so is a message whose head is incomplete.

    Raises:
        Unreadable: The bytes are no messages.
    """
    messages = _Messages()
    parser = httptools.HttpResponseParser if responses else httptools.HttpRequestParser
    messages.parser = parser(messages)
    try:
        messages.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # what follows is no HTTP
    except httptools.HttpParserError as exc:
        raise Unreadable(str(exc)) from exc
    return [one for one in messages.found if one.line and not (responses and one.line[0].startswith(b"1"))]
