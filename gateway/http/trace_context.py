"""Fields by which a request says which trace it belongs to: `traceparent` and `tracestate` (W3C Trace Context)."""

import re
from typing import Final, NamedTuple

from gateway.http.exchange import Fields

PARENT: Final = b"traceparent"
STATE: Final = b"tracestate"
SAMPLED: Final = 1
"""Flag of a trace whose spans are kept (W3C Trace Context 3.2.2.5.1)."""
RANDOM: Final = 2
"""Flag of a trace whose id is random in its right half (W3C Trace Context Level 2, 3.2.2.5.2)."""

_PARENT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MEMBERS: Final = 32
"""Largest number of members of a state (W3C Trace Context 3.3.1.1)."""


class TraceContext(NamedTuple):
    """Trace that a request belongs to, and the span in which its client sent it."""

    trace_id: bytes
    """Id of the trace: 32 hexadecimal digits."""
    span_id: bytes
    """Id of the client's span: 16 hexadecimal digits."""
    flags: int
    """Flags of the trace that are known here: `SAMPLED` and `RANDOM`."""


def received(fields: Fields) -> tuple[TraceContext | None, bool]:
    """Return the trace of a request, None without a valid one, and whether its state is of use.

    A state of no use is to be removed, as is one without a valid trace (W3C Trace Context 4.3).
    """
    parent: bytes | None = None
    several = False
    state: bytes | None = None
    for name, value in fields:
        if name == PARENT:
            several = parent is not None
            parent = value
        elif name == STATE:
            state = value if state is None else state + b"," + value
    context = None if parent is None or several else parsed(parent)
    return context, state is None or (context is not None and is_state(state))


def parsed(value: bytes) -> TraceContext | None:
    """Return the trace that a field `traceparent` names; None where the value is not valid.

    A version of the future may have further parts behind those of today.
    """
    matched = _PARENT.fullmatch(value)
    if matched is None:
        return None
    version, trace_id, span_id, flags, rest = matched.groups()
    if version == b"00" and rest is not None:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM))


def is_state(value: bytes) -> bool:
    """Return whether a value of the field `tracestate`, or several joined by commas, has its form."""
    members = [member for part in value.split(b",") if (member := part.strip(b" \t"))]
    return len(members) <= _MEMBERS and all(map(_MEMBER.fullmatch, members))


def without_state(fields: Fields) -> Fields:
    """Return the fields without those named `tracestate`."""
    return tuple(field for field in fields if field[0] != STATE)


def parent_field(trace_id: bytes, span_id: bytes, flags: int) -> bytes:
    """Return the value of the field `traceparent` for a request that is sent in this span."""
    return b"00-%b-%b-%02x" % (trace_id, span_id, flags)
