"""Keep-alive of event streams: comments that a client gets while nothing else comes for it.

A load balancer cuts a connection on which nothing passes for a while, and a server may be silent for longer before the
first event of a stream. A comment (HTML Living Standard 9.2) is no event, so attempts at other backends go on
underneath. The first one comes with the head of an event stream where the client had none: what fails after that is an
error event.

One sweep looks at all streams that wait for their first event; such a stream carries a number, not a timer.
"""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from gateway import errors
from gateway.http import forwarding
from gateway.http.event_stream import MarkFilter
from gateway.http.exchange import Exchange, Fields, ResponseHead, field
from gateway.http.stream_request import expects_events
from gateway.model_names.content_coding import Decoder, coding_of

if TYPE_CHECKING:
    from gateway.http.cors import CorsRule
    from gateway.plan import BackendPlan, RoutePlan
    from gateway.upstream.response import UpstreamResponse

COMMENT: Final = b": keep-alive\n\n"
"""Comment that a client gets, with the empty line that keeps it apart from events."""
EVERY_SECONDS: Final = 10.0
"""Seconds between two comments, or less where the first one comes earlier than that."""
SWEEP_SECONDS: Final = 1.0
"""Seconds between two looks at the streams that wait."""
_BODY_BYTES: Final = 4194304
"""Bytes of the largest request body that is looked through for what the client asks for."""


class Waiting(Protocol):
    """Context of a request whose client waits for an event stream."""

    request_id: bytes
    plan: "RoutePlan | None"
    backend: "BackendPlan | None"
    """Backend of the present attempt."""
    diversion: str | None
    """Reason why the request went to another backend than the split says."""
    cors: "CorsRule | None"
    """Rule for websites."""
    status: int
    """Status of the response."""
    events: bool
    """Whether the response is an event stream, into which an error event can be written."""


class KeepAlive:
    """Keep-alive of the response to one request."""

    __slots__ = ("_after", "_all", "_asks", "_before_head", "_context", "_exchange", "_heard", "_named", "_relayed",
                 "_silence", "due", "held", "needs_plain")  # fmt: skip

    def __init__(
        self,
        known: "KeepAlives",
        exchange: Exchange,
        context: Waiting,
        began: float,
        after: float,
        *,
        before_head: bool,
    ) -> None:
        """Wait for the first `after` seconds of silence.

        Args:
            known: All keep-alives, which this one is of until `stop`.
            exchange: Exchange with the client.
            context: Context of its request.
            began: Time of the loop's clock at which the silence began.
            after: Seconds of silence after which a comment is sent.
            before_head: Whether comments are sent before a backend has responded, where the client asks for a stream.
        """
        self.due = began + after
        """Time of the loop's clock at which `look` is due."""
        self.held: UpstreamResponse | None = None
        """Event stream of a backend that may still be dropped for that of another one."""
        self.needs_plain = before_head
        """Whether a response without content coding is needed, since comments may stand before it."""
        self._all = known
        self._exchange = exchange
        self._context = context
        self._after = after
        self._before_head = before_head
        """Whether the client may get the head of a stream before a backend has sent one."""
        self._asks: bool | None = None
        """Whether the client asks for an event stream; None while that was not looked up."""
        self._named = ""
        """Backend that the client was told about; empty where the gateway did not begin the response by itself."""
        self._relayed: UpstreamResponse | None = None
        """Response that the client gets."""
        self._heard = began
        """Time at which the client got something, as far as it is known."""
        self._silence = after
        """Seconds of silence after that which are too long."""

    @property
    def begun(self) -> bool:
        """Whether the client has got the head of an event stream before there was a response for it."""
        return bool(self._named)

    @property
    def relayed(self) -> bool:
        """Whether the client gets the response of a backend."""
        return self._relayed is not None

    @property
    def waits(self) -> bool:
        """Whether comments are all that the client has got."""
        return self._relayed is None or self._relayed.awaits_event

    def relay(self, response: "UpstreamResponse") -> None:
        """Take note that the client gets a response from now on, whose head has gone to it just now."""
        self._relayed = response
        if response.readable and response.awaits_event:
            self._heard = self._all.now()
            self.due = self._heard + self._silence
        else:
            self.stop()

    def go_on(self, response: "UpstreamResponse") -> None:
        """Let the client's stream, which has begun, go on with that of a backend, and name that where it is another."""
        self._relayed = response
        self._exchange.release_body()
        backend = self._context.backend
        if backend is not None and backend.backend.id != self._named:
            self._exchange.comment(self._naming())
        response.follow_comments()
        if not response.awaits_event:
            self.stop()

    def stop(self) -> None:
        """Send nothing more: the first event has arrived, or the response has ended."""
        self._all.discard(self)

    def look(self, now: float) -> None:
        """Send a comment where the client has got nothing for long enough."""
        relayed = self._relayed
        if relayed is not None and relayed.heard_at > self._heard:
            self._heard, self._silence = relayed.heard_at, self._after
            self.due = self._heard + self._silence
            if now < self.due:
                return
        begins = relayed is None and not self._named
        after_comments = relayed is not None and relayed.has_only_comments
        if not (self._begin(now) if begins else self._exchange.comment(COMMENT, after_line=after_comments)):
            return  # the next sweep looks again
        if relayed is not None and not relayed.heard_at and not isinstance(relayed.filter, MarkFilter):
            relayed.follow_comments()
        plan, backend = self._context.plan, self._context.backend
        if plan is not None and backend is not None:
            plan.series(backend.backend.id).keep_alives += 1
        self._heard, self._silence = now, min(EVERY_SECONDS, self._after)
        self.due = now + self._silence

    def _begin(self, now: float) -> bool:
        """Send the head of an event stream and a first comment where that can be done now; return whether it can."""
        exchange, context = self._exchange, self._context
        plan, backend = context.plan, context.backend
        if exchange.responded or plan is None or backend is None:
            return False
        held = self.held
        if held is None and (not self._before_head or self._asks is False):
            return False
        body = exchange.whole_body()
        if body is None:
            self.due = now + self._after  # it is still arriving, so the connection is not silent; or was not kept
            return False
        if held is not None:
            extra = (*backend.fields_for(context.diversion), (b"x-request-id", context.request_id))
            fields = forwarding.response_fields(held.head.fields, extra=extra)
            if context.cors is not None:
                fields = context.cors.applied(fields, exchange.head)
            comment = COMMENT
        else:
            if self._asks is None:
                self._asks = self._asks_for_events(body)
                if not self._asks:
                    return False
            fields = self._own_fields()
            comment = self._naming()
        try:
            exchange.begin(ResponseHead(200, b"OK", fields, None))
        except errors.BadResponse:
            self.stop()  # the same head will be refused when it is time to relay it
            return False
        self.needs_plain = True
        self._named = backend.backend.id
        context.status = 200
        context.events = True
        exchange.write(comment)
        return True

    def _naming(self) -> bytes:
        """Return a comment that names the backend of the present attempt, and why the request goes there."""
        context = self._context
        plan, backend = context.plan, context.backend
        if plan is None or backend is None:
            return COMMENT
        reason = context.diversion or plan.reason
        return b": keep-alive, backend %b, reason %b\n\n" % (backend.backend.id.encode(), reason.encode())

    def _own_fields(self) -> Fields:
        """Return the header fields of an event stream of which no backend has sent a head."""
        exchange, context = self._exchange, self._context
        fields: Fields = (
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx would keep the comments to itself
            (b"x-request-id", context.request_id),
        )
        if errors.is_anthropic(exchange.head.target):
            fields = (*fields, (b"request-id", context.request_id))
        if context.cors is not None:
            fields = (*fields, *context.cors.fields(exchange.head))
        return fields

    def _asks_for_events(self, body: bytes) -> bool:
        """Return whether the client asks for an event stream, by a body that is whole."""
        head = self._exchange.head
        content_coding = field(head.fields, b"content-encoding")
        if content_coding is not None:
            try:
                body = _decoded(body, content_coding)
            except errors.GatewayError:
                return False
        return len(body) <= _BODY_BYTES and expects_events(head, body)


class KeepAlives:
    """All requests whose clients may need comments, and the sweep that looks at them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self._loop = loop
        self._sweep_seconds = sweep_seconds
        self._known: set[KeepAlive] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def start(
        self, exchange: Exchange, context: Waiting, waited: float, after: float, *, before_head: bool = False
    ) -> KeepAlive:
        """Return the keep-alive of a request.

        Args:
            exchange: Exchange with the client.
            context: Context of its request.
            waited: Seconds for which the client has got nothing.
            after: Seconds of silence after which a comment is sent.
            before_head: Whether comments are sent before a backend has responded, where the client asks for a stream.
        """
        one = KeepAlive(self, exchange, context, self._loop.time() - waited, after, before_head=before_head)
        self._known.add(one)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)
        return one

    def now(self) -> float:
        """Return the time of the loop's clock."""
        return self._loop.time()

    def discard(self, one: KeepAlive) -> None:
        """Look no more at a request."""
        self._known.discard(one)

    def close(self) -> None:
        """Stop the sweep."""
        self._known.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        for one in [one for one in self._known if one.due <= now]:
            one.look(now)
        if self._known:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)


def _decoded(body: bytes, content_coding: bytes) -> bytes:
    """Return a body without its content coding.

    Raises:
        errors.RequestError: The coding is not known, the body does not have it, or is too large.
    """
    coding = coding_of(content_coding)
    if not coding:
        return body
    decoder = Decoder(coding, _BODY_BYTES)
    content = b"".join(decoder.steps(body))
    decoder.finish()
    return content
