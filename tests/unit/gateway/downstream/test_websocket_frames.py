"""Frames of a WebSocket that come in pieces, compared with a library that writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from gateway.downstream.websocket_frames import FrameScanner, close_frame

LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]) | st.integers(0, 300)
FRAMES = st.lists(
    st.tuples(st.sampled_from([Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG]), LENGTHS),
    max_size=6,
)


def wire(opcode: Opcode, length: int, *, masked: bool) -> bytes:
    """Return a frame as the library writes it."""
    if opcode in (Opcode.PING, Opcode.PONG):
        length %= 126
    return Frame(opcode, bytes([opcode]) * length).serialize(mask=masked)


@given(FRAMES, st.booleans(), st.lists(st.integers(1, 70000), max_size=30), st.booleans())
def test_the_ends_of_frames_are_known_in_any_pieces(
    frames: list[tuple[Opcode, int]], masked: bool, cuts: list[int], closes: bool
) -> None:
    """In any pieces of a stream the scanner knows whether a frame has ended, and whether the last one was a close."""
    pieces = [wire(opcode, length, masked=masked) for opcode, length in frames]
    if closes:
        pieces.append(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=masked))
    ends = {0}
    for piece in pieces:
        ends.add(max(ends) + len(piece))
    data = b"".join(pieces)
    tracked = FrameScanner()
    position = 0
    for cut in [*cuts, len(data)]:
        piece = data[position : position + cut]
        tracked.feed(piece)
        position += len(piece)
        assert tracked.between == (position in ends)
        assert len(tracked._begun) < 14
    assert tracked.closed == closes


@given(FRAMES)
def test_byte_by_byte(frames: list[tuple[Opcode, int]]) -> None:
    """Headers of frames that come byte by byte are put together."""
    data = b"".join(wire(opcode, length % 200, masked=True) for opcode, length in frames)
    tracked = FrameScanner()
    for byte in data:
        tracked.feed(bytes([byte]))
    assert tracked.between
    assert not tracked.closed


@given(st.binary(min_size=4, max_size=4) | st.just(b""))
def test_the_close_frame_of_the_gateway(mask: bytes) -> None:
    """The library reads the gateway's own frame as a close with status 1001, masked or not."""
    reader = StreamReader()
    reader.feed_data(close_frame(mask))
    with pytest.raises(StopIteration) as parsed:
        next(Frame.parse(reader.read_exact, mask=bool(mask)))
    frame = parsed.value.value
    assert frame.opcode is Opcode.CLOSE
    assert Close.parse(frame.data) == Close(1001, "")
