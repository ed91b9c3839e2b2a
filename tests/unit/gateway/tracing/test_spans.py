"""Traces as the data path notes them: which are kept, what backends get, and what waits for the exporter."""

from typing import Any

import pytest

from gateway.http.trace_context import parsed
from gateway.journal import RequestRecord
from gateway.tracing.spans import RequestTrace, Tracer
from tests.integration.servers import request_head

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"


class Request:
    """Request as the tracer sees it."""

    tls = False

    def __init__(self, *fields: tuple[bytes, bytes]) -> None:
        self.head = request_head(fields=fields)


def begin(tracer: Tracer, *fields: tuple[bytes, bytes]) -> tuple[RequestTrace | None, Request]:
    """Return the trace of a request with these fields, and the request."""
    request: Any = Request(*fields)
    return tracer.begin(request, 1.0), request


def parent(flags: int = 1) -> tuple[bytes, bytes]:
    """Return the field of a client's trace."""
    return b"traceparent", b"00-%b-%b-%02x" % (TRACE, SPAN, flags)


def record() -> RequestRecord:
    """Return the record of a request."""
    return RequestRecord(
        at=0.0, request_id=b"1", peer="", method=b"GET", target=b"/", host="", route=None, backend=None, weight=None,
        reason=None, status=200, code=None, broken=None, seconds=1.0, first_byte=None, failures=None,
        not_retryable=None, queued=0.0,
    )  # fmt: skip


def test_a_trace_is_continued() -> None:
    """A kept trace of the client goes on, and its state stays in the request."""
    state = (b"tracestate", b"a=1")
    trace, request = begin(Tracer(0.0), parent(3), state)
    assert trace is not None
    assert (trace.trace_id, trace.parent_id, trace.flags, trace.is_sampled) == (TRACE, SPAN, 3, True)
    assert request.head.fields == (parent(3), state)


def test_a_trace_that_is_not_kept_passes() -> None:
    """A trace whose client keeps nothing has no spans here, and the fields pass as they came."""
    state = (b"tracestate", b"a=1")
    trace, request = begin(Tracer(1.0), parent(0), state)
    assert trace is None
    assert request.head.fields == (parent(0), state)


@pytest.mark.parametrize("fields", [(), ((b"traceparent", b"00-no"),), (parent(), parent())])
def test_a_trace_begins_here(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Without one valid parent a trace begins here, with a random id and without the client's state."""
    seen = set()
    for _ in range(3):
        trace, request = begin(Tracer(), *fields, (b"tracestate", b"a=1"), (b"x", b"y"))
        assert trace is not None
        assert (trace.parent_id, trace.flags) == (b"", 3)
        assert request.head.fields == (*fields, (b"x", b"y"))
        seen.add(trace.trace_id)
    assert len(seen - {TRACE}) == 3


@pytest.mark.parametrize(("half", "kept"), [(b"3fffffffffffffff", True), (b"4000000000000000", False)])
def test_the_ratio_is_told_by_the_id(half: bytes, kept: bool) -> None:
    """The ratio keeps the traces with the lowest ids, whatever their client says: all who use it decide alike."""
    for flags in (0, 1):
        trace, _ = begin(
            Tracer(0.25, parent_based=False), (b"traceparent", b"00-%b%b-%b-%02x" % (TRACE[:16], half, SPAN, flags))
        )
        assert trace is not None
        assert trace.is_sampled is kept
        assert trace.parent_id == SPAN


def test_the_ratio_of_traces_that_begin_here() -> None:
    """About the given part of the traces that begin here is kept, and backends learn which these are."""
    tracer = Tracer(0.5)
    kept = 0
    for _ in range(400):
        trace, _ = begin(tracer)
        assert trace is not None
        fields: dict[bytes, bytes] = {}
        trace.begin_attempt("local", None, "host", 80, 1.0)
        trace.put_into(fields, frozenset())
        context = parsed(fields[b"traceparent"])
        assert context is not None
        assert context.flags & 1 == trace.is_sampled
        assert len(trace.attempts) == trace.is_sampled
        kept += trace.is_sampled
    assert 100 < kept < 300


def test_each_attempt_is_a_parent() -> None:
    """Each backend gets the id of its own attempt, all in the trace of the client."""
    trace, _ = begin(Tracer(), parent())
    assert trace is not None
    sent = []
    for backend in ("local", "remote"):
        trace.begin_attempt(backend, None, "host", 80, 1.0)
        fields: dict[bytes, bytes] = {}
        trace.put_into(fields, frozenset())
        trace.end_attempt(None, 503, "503", 2.0)
        context = parsed(fields[b"traceparent"])
        assert context is not None
        assert context.trace_id == TRACE
        sent.append(context.span_id)
    assert sent == [one.span_id for one in trace.attempts]
    assert len({*sent, SPAN, trace.span_id}) == 4


def test_a_field_that_a_route_sets_or_removes_stays_so() -> None:
    """A backend for which the route sets or removes `traceparent` gets none of ours."""
    trace, _ = begin(Tracer(), parent())
    assert trace is not None
    fields: dict[bytes, bytes] = {}
    trace.put_into(fields, frozenset({b"traceparent"}))
    assert fields == {}


def test_too_many_are_dropped() -> None:
    """Traces beyond the size of the queue are dropped and counted, and those that waited longest are taken first."""
    tracer = Tracer(size=3, wake_at=2)
    traces = [begin(tracer, parent())[0] for _ in range(5)]
    for number, trace in enumerate(traces):
        assert trace is not None
        tracer.end(trace, record(), 2.0)
        assert tracer.ready.is_set() is (number >= 1)
    assert tracer.dropped == 2
    assert tracer.take(2) == traces[:2]
    assert tracer.take(2) == traces[2:3]
    assert tracer.take(2) == []


def test_a_trace_that_is_not_kept_never_waits() -> None:
    """A trace that begins here and is not kept is not exported."""
    tracer = Tracer(0.0)
    trace, _ = begin(tracer)
    assert trace is not None
    tracer.end(trace, record(), 2.0)
    assert tracer.take(10) == []
