"""Filter that takes the event with the tokens of a request out of a stream whose client has not asked for it."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.usage_filter import EVENT_BYTES, UsageFilter

USAGE = {"id": "a", "object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 7, "nested": {"a": 1}}}
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
OTHERS = (
    b"data: [DONE]",
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}',
    b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}',
    b'data: {"choices":[],"prompt_filter_results":[]}',
    b'data: {"choices":[],"usage":null}',
    b'data: "usage"',
    b'data: {"usage":{',
    b'event: message_delta\ndata: {"usage":{"output_tokens":15}}',
    b'data: {"choices":[],"usage":{"prompt_tokens":1},"more":"%b"}' % (b"x" * EVENT_BYTES),
    b"data: %b" % (b"x" * EVENT_BYTES),
    b"id: 7",
    b"x",
)
"""Events that stay in the stream."""


def filtered(pieces: list[bytes]) -> bytes:
    """Return what a client gets of a stream that comes in pieces."""
    one = UsageFilter()
    return b"".join(one.add(piece) for piece in pieces) + one.finish()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Return a stream in pieces."""
    at = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in pairwise(at)]


def usage_event(end: bytes, *, spaces: bool, lines: bool) -> bytes:
    """Return the event with the tokens: compact or with spaces, in one line of data or in several."""
    text = orjson.dumps(USAGE)
    if spaces:
        text = text.replace(b":", b": ").replace(b",", b", ")
    eol = end[: len(end) // 2]
    if lines:
        text = text.replace(b",", b"," + eol + b"data:", 2)
    return b"data: " + text + end


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a stream with and without the events with tokens."""
    end = draw(st.sampled_from(ENDS))
    eol = end[: len(end) // 2]
    whole: list[bytes] = []
    rest: list[bytes] = []
    for kind in draw(st.lists(st.integers(0, 5), max_size=8)):
        if kind == 0:
            whole.append(usage_event(end, spaces=draw(st.booleans()), lines=draw(st.booleans())))
            continue
        one = (
            draw(st.sampled_from(OTHERS)).replace(b"\n", eol) + end
            if kind < 4
            else (b": c" + eol, b": c" + end)[kind - 4]
        )
        whole.append(one)
        rest.append(one)
    return b"".join(whole), b"".join(rest)


@given(streams(), st.lists(st.integers(0, 10**6), max_size=30))
def test_a_client_gets_all_but_the_event_however_the_stream_is_cut(
    stream: tuple[bytes, bytes], places: list[int]
) -> None:
    """However a stream is cut and its lines end, all of it reaches the client but the events with the tokens."""
    whole, rest = stream
    assert filtered(cut(whole, places)) == rest


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_every_cut_of_one_stream(end: bytes, step: int) -> None:
    """The event is found in a stream that comes byte by byte, and at any distance from a boundary."""
    first, done = OTHERS[1] + end, OTHERS[0] + end
    whole = first + usage_event(end, spaces=True, lines=False) + done
    for start in range(step):
        pieces = [whole[:start], *(whole[at : at + step] for at in range(start, len(whole), step))]
        assert filtered(pieces) == first + done


def test_each_event_goes_on_once_it_is_complete() -> None:
    """A complete event, a comment and a blank line wait for nothing; an event that is too large waits for no end."""
    one = UsageFilter()
    assert one.add(OTHERS[0] + b"\n\n" + OTHERS[1] + b"\n") == OTHERS[0] + b"\n\n"
    assert one.add(b"\n: c\n") == OTHERS[1] + b"\n\n: c\n"
    assert one.add(b"data: ") == b""
    assert one.add(b"x" * EVENT_BYTES) == b"data: " + b"x" * EVENT_BYTES
    assert one.add(b"y") == b"y"
    assert one.add(b"\n\n" + usage_event(b"\n\n", spaces=False, lines=False)) == b"\n\n"
    assert one.finish() == b""


def test_a_stream_that_breaks_off() -> None:
    """What is there of an event reaches the client at the end, unless it is the event with the tokens."""
    assert filtered([b"data: [DO"]) == b"data: [DO"
    assert filtered([usage_event(b"\n\n", spaces=False, lines=False)[:-1]]) == b""
    cut_off = usage_event(b"\n\n", spaces=False, lines=False)[:-5]
    assert filtered([cut_off]) == cut_off
