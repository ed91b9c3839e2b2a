"""Spans of a request as OpenTelemetry's conventions for HTTP and generative AI name them.

Nothing secret is here: no header fields but x-request-id, no query, no body. Whatever comes from a client is cut.
"""

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from gateway.journal import PATH_CHARACTERS, RequestRecord
from gateway.tracing.spans import AttemptSpan, RequestTrace, new_span_id

Value = str | int | float | bool | tuple[str, ...]
Kind = Literal["server", "internal", "client"]

NAME_CHARACTERS: Final = 256
"""Characters of the name of a model or a caller that an attribute has."""
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Methods that are named as they are; all others are `_OTHER`."""
_CLIENT_GONE: Final = "client_gone"

_CALLS: Final = (
    ("/chat/completions", "chat", "openai"),
    ("/completions", "text_completion", "openai"),
    ("/embeddings", "embeddings", "openai"),
    ("/responses", "chat", "openai"),
    ("/messages", "chat", "anthropic"),
)
"""Ends of paths with the operation and the provider whose API has it."""


class Span(NamedTuple):
    """Span of a trace."""

    name: str
    kind: Kind
    span_id: str
    parent_id: str | None
    """Id of the span around it; None where the trace begins with it."""
    is_remote: bool
    """Whether the span around it is that of the client."""
    began: int
    """Nanoseconds since 1970."""
    ended: int
    failed: bool
    """Whether its status is an error."""
    attributes: dict[str, Value]


def spans(trace: RequestTrace) -> Iterator[Span]:
    """Yield the spans of a request that has ended: of the request, of its wait in a queue, and of its attempts."""
    record = trace.record
    if record is None:
        return
    call = _call(record)
    yield _request(trace, record, call)
    if trace.queue_began:
        yield _queue(trace, record)
    for number, attempt in enumerate(trace.attempts):
        is_last = number == len(trace.attempts) - 1
        yield _attempt(trace, record, call, attempt, number, is_last=is_last)


def _request(trace: RequestTrace, record: RequestRecord, call: tuple[str, str, str] | None) -> Span:
    """Return the span of a request, from its head to the end of the response."""
    method = record.method.decode("latin-1")
    known = method if method in _METHODS else "_OTHER"
    attributes: dict[str, Value] = {
        "http.request.method": known,
        "url.scheme": "https" if trace.tls else "http",
        "url.path": record.target.partition(b"?")[0][:PATH_CHARACTERS].decode("latin-1"),
        "server.address": record.host[:PATH_CHARACTERS],
        "http.request.header.x-request-id": (record.request_id.decode("latin-1"),),
    }
    attributes |= _of_call(call, trace.model)
    given = {
        "beamlit.route": record.route,
        "beamlit.backend": record.backend,
        "beamlit.pod": record.pod,
        "beamlit.reason": record.reason,
        "beamlit.code": record.code,
        "beamlit.broken": record.broken,
        "beamlit.caller": record.caller and _cut(record.caller),
        "gen_ai.response.time_to_first_chunk": record.first_event,
    }
    attributes |= {name: value for name, value in given.items() if value is not None} | _usage(record)
    gone = record.broken == _CLIENT_GONE
    if not gone or record.first_byte is not None:
        attributes["http.response.status_code"] = record.status
    error = record.code if record.status >= 500 and record.code else None
    if record.broken is not None:
        error = record.broken
    elif record.status >= 500:
        error = error or str(record.status)
    if error is not None:
        attributes["error.type"] = error
    name = "HTTP" if known == "_OTHER" else known
    if call is not None:
        attributes["http.route"] = f"/v1{call[0]}"
        name = f"{name} /v1{call[0]}"
    return Span(
        name, "server", trace.span_id.decode(), trace.parent_id.decode() or None, bool(trace.parent_id),
        _time(trace, record, trace.started), _time(trace, record, trace.ended), error is not None and not gone,
        attributes,
    )  # fmt: skip


def _queue(trace: RequestTrace, record: RequestRecord) -> Span:
    """Return the span of the wait in the queue of a backend."""
    error = None if trace.attempts else record.code or record.broken
    attributes: dict[str, Value] = {}
    if trace.queue is not None:
        attributes["beamlit.backend"] = trace.queue
    if error is not None:
        attributes["error.type"] = error
    return Span(
        "queue", "internal", new_span_id().decode(), trace.span_id.decode(), False,
        _time(trace, record, trace.queue_began), _time(trace, record, trace.started + record.queued),
        error is not None and error != _CLIENT_GONE, attributes,
    )  # fmt: skip


def _attempt(
    trace: RequestTrace,
    record: RequestRecord,
    call: tuple[str, str, str] | None,
    attempt: AttemptSpan,
    number: int,
    *,
    is_last: bool,
) -> Span:
    """Return the span of an attempt. That of the response that the client gets ends with the response."""
    method = record.method.decode("latin-1")
    known = method if method in _METHODS else "_OTHER"
    attributes: dict[str, Value] = {
        "http.request.method": known,
        "server.address": attempt.host,
        "server.port": attempt.port,
        "beamlit.backend": attempt.backend,
    }
    attributes |= _of_call(call, attempt.model)
    if attempt.pod is not None:
        attributes["beamlit.pod"] = attempt.pod
    if number:
        attributes["http.request.resend_count"] = number
    if attempt.status:
        attributes["http.response.status_code"] = attempt.status
    cause = attempt.cause
    if cause is None and is_last:
        cause = record.broken if attempt.status else record.broken or record.code
        attributes |= _usage(record)
        if record.first_event is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = max(
                0.0, trace.started + record.first_event - attempt.began
            )
    if cause is None and attempt.status >= 400:
        cause = str(attempt.status)
    if cause is not None:
        attributes["error.type"] = cause
    name = "HTTP" if known == "_OTHER" else known
    if call is not None:
        name = call[1] if attempt.model is None else f"{call[1]} {_cut(attempt.model)}"
    return Span(
        name, "client", attempt.span_id.decode(), trace.span_id.decode(), False,
        _time(trace, record, attempt.began), _time(trace, record, attempt.ended or trace.ended),
        cause is not None and cause != _CLIENT_GONE, attributes,
    )  # fmt: skip


def _call(record: RequestRecord) -> tuple[str, str, str] | None:
    """Return the call of an inference API that a request is, by the end of its path; None for any other request."""
    path = record.target.partition(b"?")[0].decode("latin-1").removesuffix("/")
    if record.method != b"POST":
        return None
    return next((call for call in _CALLS if path.endswith(call[0])), None)


def _of_call(call: tuple[str, str, str] | None, model: str | None) -> dict[str, Value]:
    """Return the attributes of a call of an inference API."""
    attributes: dict[str, Value] = {}
    if call is not None:
        attributes = {"gen_ai.operation.name": call[1], "gen_ai.provider.name": call[2]}
    if model is not None:
        attributes["gen_ai.request.model"] = _cut(model)
    return attributes


def _cut(name: str) -> str:
    """Return the beginning of a name; half a surrogate pair, which JSON may have, becomes `?`: UTF-8 has none."""
    return name[:NAME_CHARACTERS].encode("utf-8", "replace").decode()


def _usage(record: RequestRecord) -> dict[str, Value]:
    """Return the tokens that the response has named."""
    given = {
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
    }
    return {name: value for name, value in given.items() if value is not None}


def _time(trace: RequestTrace, record: RequestRecord, moment: float) -> int:
    """Return a time of the monotonic clock as nanoseconds since 1970."""
    return int((record.at + (moment - trace.started)) * 1e9)
