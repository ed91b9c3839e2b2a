"""Event streams: which responses are one, and the search for the first event."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backends import failover
from gateway.http.event_stream import EVENT_BYTES, FirstEvent, MarkFilter, can_go_on, is_event_stream, is_readable
from gateway.http.exchange import ResponseHead
from gateway.http.usage_filter import UsageFilter


def first_event(*pieces: bytes) -> bytes | None:
    """Return the lines of the first event of a stream that arrives in pieces; None while it is not complete."""
    search = FirstEvent()
    for piece in pieces:
        search.add(piece)
    return search.event if search.found else None


@pytest.mark.parametrize(
    ("status", "length", "fields", "stream", "readable"),
    [
        (200, None, {b"content-type": b"text/event-stream"}, True, True),
        (200, None, {b"content-type": b"Text/Event-Stream; charset=utf-8"}, True, True),
        (200, None, {b"content-type": b"text/event-stream", b"content-encoding": b"gzip"}, True, False),
        (200, 9, {b"content-type": b"text/event-stream"}, False, True),
        (201, None, {b"content-type": b"text/event-stream"}, False, True),
        (200, None, {b"content-type": b"application/json"}, False, True),
        (200, None, {}, False, True),
    ],
)
def test_responses_that_are_event_streams(
    status: int, length: int | None, fields: dict[bytes, bytes], stream: bool, readable: bool
) -> None:
    """A 200 of this media type without a length is an event stream; with a content coding its events are not read."""
    head = ResponseHead(status, b"", tuple(fields.items()), length)
    assert (is_event_stream(head), is_readable(head)) == (stream, readable)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("lines", "event"),
    [
        (["data: x", ""], "data: x"),
        (["event: message_start", "data: {}", ""], "event: message_start\ndata: {}"),
        ([": keep-alive", "", ": keep-alive", "", "data: x", ""], "data: x"),
        ([":", "data: x", ": comment", "data: y", ""], "data: x\ndata: y"),
        (["id: 1", "", "retry: 3000", "", "data", ""], "data"),
        (["id: 1", "retry: 3000", "data: x", ""], "id: 1\nretry: 3000\ndata: x"),
        (["", "", "event: error", ""], "event: error"),
        (["nonsense", ""], "nonsense"),
        (["data: x"], None),
        ([": keep-alive", "", "retry: 1", ""], None),
    ],
)
def test_comments_are_no_first_event(lines: list[str], event: str | None, mark: bytes, end: str) -> None:
    """The first event is the first block that has more than comments, `id` and `retry`; its comments are left out."""
    stream = mark + (end.join(lines) + end).encode()
    expected = None if event is None else event.encode()
    assert first_event(stream) == expected
    assert first_event(*(bytes([byte]) for byte in stream)) == expected


LINES = [b"data: x", b"event: error", b":", b": c", b"id: 1", b"\r", b"\n", b"\r\n", b"\n\n", b"d"]
PIECES = st.lists(st.sampled_from([*LINES, b"\xef\xbb\xbf"]))


@given(PIECES, st.data())
def test_a_first_event_is_the_same_in_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    """The first event is found at the same byte and has the same lines, however the stream is cut."""
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert first_event(*pieces) == first_event(stream)
    search = FirstEvent()
    verdicts = [search.add(bytes([byte])) for byte in stream]
    assert verdicts == sorted(verdicts)


@given(PIECES, st.lists(st.sampled_from(LINES)))
@example([b"\r", b"\xef\xbb\xbf"], [b"\n\n"])
def test_what_is_unfinished_goes_on_as_the_stream_would(before: list[bytes], after: list[bytes]) -> None:
    """A stream whose beginning is replaced by what is unfinished of it has the same first event."""
    if first_event(*before) is not None:
        return
    search = FirstEvent()
    for piece in before:
        search.add(piece)
    unfinished = search.unfinished
    assert not any(line.startswith(b":") for line in unfinished.splitlines()[:-1])
    assert first_event(unfinished, *after) == first_event(*before, *after)


def test_nothing_is_waited_for_without_end() -> None:
    """A first event above 16 KiB is not waited for, and comments of any size are no event."""
    assert first_event(b"data: " + b"x" * (EVENT_BYTES - 7)) is None
    assert first_event(b"data: " + b"x" * (EVENT_BYTES - 6)) == b""
    assert first_event(b": " + b"x" * EVENT_BYTES) == b""
    assert first_event(*[b": keep-alive\n\n"] * 5000) is None
    assert first_event(*[b"data: x\n"] * (EVENT_BYTES // 7 + 1)) == b""
    assert first_event(b"data: " + b"x" * EVENT_BYTES + b"\n\n") == b"data: " + b"x" * EVENT_BYTES


def test_the_first_byte_of_a_stream_that_cannot_be_read_counts() -> None:
    """The first byte of a compressed stream counts as its first event, which is not looked at."""
    search = FirstEvent(readable=False)
    assert not search.add(b"")
    assert search.add(b"\x1f\x8b")
    assert search.event == b""


def test_an_error_behind_comments_is_found() -> None:
    """A stream that begins with comments and then has an error begins with an error."""
    event = first_event(b": keep-alive\n\n: keep-alive\n\n", b'data: {"error": {"code": 503}}\n\n')
    assert event is not None
    assert failover.error_status(event) == 503


@pytest.mark.parametrize(
    ("status", "kind", "length", "coding", "goes_on"),
    [
        (200, b"text/event-stream", None, None, True),
        (200, b"Text/Event-Stream;charset=utf-8", 9, None, True),
        (200, b"text/event-stream", None, b"gzip", False),
        (201, b"text/event-stream", None, None, False),
        (200, b"application/json", None, None, False),
        (200, None, None, None, False),
    ],
)
def test_what_may_follow_events(
    status: int, kind: bytes | None, length: int | None, coding: bytes | None, goes_on: bool
) -> None:
    """Only a body of events without content coding may follow what the client has got, of known length or not."""
    fields = ((b"content-type", kind), (b"content-encoding", coding))
    present = tuple((name, value) for name, value in fields if value is not None)
    assert can_go_on(ResponseHead(status, b"", present, length)) is goes_on


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    "stream", [b"", b"\xef", b"\xef\xbb\xbf", b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbf", b"data: 1\n\n"]
)
def test_only_the_mark_at_the_beginning_is_taken_out(stream: bytes, size: int) -> None:
    """Of a stream in pieces of any size the byte order mark at its beginning is taken out, and nothing else."""
    for following in (None, UsageFilter()):
        found = MarkFilter(following)
        pieces = [found.add(stream[start : start + size]) for start in range(0, len(stream), size)]
        assert b"".join((*pieces, found.finish())) == stream.removeprefix(b"\xef\xbb\xbf")
