"""Frames of a WebSocket in bytes that pass by: where they end, and a close frame of ours (RFC 6455 5.2, 5.5.1)."""

from typing import Final

GOING_AWAY: Final = (1001).to_bytes(2, "big")
"""Status code of an endpoint that leaves (RFC 6455 7.4.1), as the payload of a close frame."""


class FrameScanner:
    """Position in one direction of a WebSocket. A frame of ours may stand between two frames and nowhere else."""

    __slots__ = ("_begun", "_left", "closed")

    def __init__(self) -> None:
        self.closed = False
        """Whether a close frame has begun: no frame may follow it."""
        self._begun = b""
        """Bytes of an incomplete frame header; 13 at most."""
        self._left = 0
        """Bytes of the present frame that have not passed yet."""

    @property
    def between(self) -> bool:
        """Whether a frame has ended and no other has begun."""
        return not self._left and not self._begun

    def feed(self, data: bytes) -> None:
        """Follow the frames through `data`, which comes behind what was fed before."""
        if self._left >= len(data):
            self._left -= len(data)
            return
        position, self._left = self._left, 0
        if self._begun:
            data, self._begun = self._begun + data, b""
        end = len(data)
        while end - position > 1:
            length = data[position + 1] & 0x7F
            size = 2 if length < 126 else 4 if length == 126 else 10
            start = position + size + (4 if data[position + 1] & 0x80 else 0)
            if start > end:
                break
            if size > 2:
                length = int.from_bytes(data[position + 2 : position + size], "big")
            if data[position] & 0x0F == 0x08:
                self.closed = True
            position = start + length
            if position > end:
                self._left = position - end
                return
        self._begun = data[position:]


def close_frame(mask: bytes = b"") -> bytes:
    """Return a close frame with the status "going away"; for a server, `mask` is four bytes (RFC 6455 5.3)."""
    if not mask:
        return b"\x88\x02" + GOING_AWAY
    return b"\x88\x82" + mask + bytes(one ^ other for one, other in zip(GOING_AWAY, mask, strict=False))
