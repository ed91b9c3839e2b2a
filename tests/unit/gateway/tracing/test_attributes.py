"""Spans of a request by the conventions: names, statuses and bounds of what comes from a client."""

from typing import Any

import pytest

from gateway.journal import RequestRecord
from gateway.tracing.attributes import Span, spans
from gateway.tracing.spans import RequestTrace

LONG = "x" * 5000


def traced(
    *attempts: tuple[int, str | None], model: str | None = None, queued: float = 0.0, **values: Any
) -> list[Span]:
    """Return the spans of a request with attempts of these statuses and causes, one second each."""
    trace = RequestTrace(b"1" * 32, b"", 1, started=100.0, tls=True)
    trace.model = model
    if queued:
        trace.begin_wait("local", 100.5)
    for number, (status, cause) in enumerate(attempts):
        trace.begin_attempt("local", "pod-0", "host", 80, 101.0 + number)
        trace.end_attempt(model, status, cause, 102.0 + number)
    fields: dict[str, Any] = {
        "at": 1000.0, "request_id": b"id", "peer": "192.0.2.1", "method": b"POST", "target": b"/v1/chat/completions",
        "host": "host", "route": "default/demo", "backend": "local", "weight": 100, "reason": "Local", "status": 200,
        "code": None, "broken": None, "seconds": 10.0, "first_byte": 2.0, "failures": None, "not_retryable": None,
    }  # fmt: skip
    trace.record = RequestRecord(**fields | {"queued": queued} | values)
    trace.ended = 110.0
    return list(spans(trace))


def test_times() -> None:
    """Spans have the times of the wall clock; a failed attempt ends when it fails, the last one with the request."""
    request, queue, first, last = traced((503, "503"), (200, None), queued=0.75)
    seconds = [(round(one.began / 1e9, 3), round(one.ended / 1e9, 3)) for one in (request, queue, first, last)]
    assert seconds == [(1000.0, 1010.0), (1000.5, 1000.75), (1001.0, 1002.0), (1002.0, 1010.0)]


def test_what_a_client_sends_is_cut() -> None:
    """No attribute is long, whatever a client sends, and a query is in none of them."""
    targets = (b"/" + LONG.encode() + b"?key=canary", b"/v1/chat/completions?key=canary")
    for target in targets:
        for method in (b"POST", LONG.encode()):
            for span in traced((200, None), model=LONG, target=target, host=LONG, caller=LONG, method=method):
                assert len(span.name) < 300
                assert all(len(value) <= 256 for value in span.attributes.values() if isinstance(value, str | tuple))
                assert "canary" not in repr(span)


def test_names_can_be_written_as_utf_8() -> None:
    """Half a surrogate pair in the name of a model, which JSON may have and UTF-8 has not, becomes a question mark."""
    for span in traced((200, None), model="\ud800x", caller="\udfff"):
        span.name.encode()
        assert span.attributes["gen_ai.request.model"] == "?x"
    assert span.name == "chat ?x"


@pytest.mark.parametrize(
    ("target", "operation", "provider"),
    [
        (b"/v1/chat/completions", "chat", "openai"),
        (b"/default/demo/v1/completions?x", "text_completion", "openai"),
        (b"/v1/embeddings/", "embeddings", "openai"),
        (b"/v1/responses", "chat", "openai"),
        (b"/v1/messages", "chat", "anthropic"),
        (b"/v1/images/generations", None, None),
        (b"/v1/responses/resp_1", None, None),
    ],
)
def test_calls(target: bytes, operation: str | None, provider: str | None) -> None:
    """The operation and whose API it is are told by the end of the path."""
    request, attempt = traced((200, None), target=target, model="m")
    for span in (request, attempt):
        assert span.attributes.get("gen_ai.operation.name") == operation
        assert span.attributes.get("gen_ai.provider.name") == provider
        assert span.attributes["gen_ai.request.model"] == "m"
    assert attempt.name == ("POST" if operation is None else f"{operation} m")
    assert traced(target=target, method=b"GET")[0].name == "GET"


@pytest.mark.parametrize(
    ("values", "attempts", "errors"),
    [
        ({}, [(200, None)], [(False, None), (False, None)]),
        ({"status": 404}, [(404, None)], [(False, None), (True, "404")]),
        ({"status": 500}, [(500, None)], [(True, "500"), (True, "500")]),
        ({"status": 401, "code": "unauthorized", "backend": None}, [], [(False, None)]),
        ({"status": 503, "code": "no_backend", "backend": None}, [], [(True, "no_backend")]),
        ({"status": 502, "code": "connect_failed"}, [(0, "connect_failed")], [(True, "connect_failed")] * 2),
        ({"broken": "upstream_reset"}, [(200, None)], [(True, "upstream_reset")] * 2),
        ({"broken": "client_gone"}, [(200, None)], [(False, "client_gone")] * 2),
        ({"status": 413, "code": "body_too_large"}, [(0, None)], [(False, None), (True, "body_too_large")]),
    ],
)
def test_errors(
    values: dict[str, Any], attempts: list[tuple[int, str | None]], errors: list[tuple[bool, str | None]]
) -> None:
    """A request has failed with a status from 500 on or where it broke off, an attempt from 400 on, too; a client that
    left is no failure."""
    found = traced(*attempts, **values)
    assert [(span.failed, span.attributes.get("error.type")) for span in found] == errors


def test_a_client_that_left_before_the_response() -> None:
    """Without a response there is no status."""
    request, attempt = traced((0, None), status=499, broken="client_gone", first_byte=None)
    assert "http.response.status_code" not in request.attributes
    assert "http.response.status_code" not in attempt.attributes


def test_a_wait_in_vain() -> None:
    """A wait that ends without a slot has failed, with the code of the response."""
    _, queue = traced(queued=5.0, status=503, code="queue_timeout")
    assert (queue.name, queue.failed, queue.attributes["error.type"]) == ("queue", True, "queue_timeout")
