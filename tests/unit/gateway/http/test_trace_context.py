"""Trace context of requests: which values of `traceparent` and `tracestate` are valid (W3C Trace Context)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.trace_context import (
    RANDOM,
    SAMPLED,
    TraceContext,
    is_state,
    parent_field,
    parsed,
    received,
    without_state,
)

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"
VALID = b"00-%b-%b-01" % (TRACE, SPAN)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (VALID, SAMPLED),
        (b"00-%b-%b-00" % (TRACE, SPAN), 0),
        (b"00-%b-%b-03" % (TRACE, SPAN), SAMPLED | RANDOM),
        (b"00-%b-%b-ff" % (TRACE, SPAN), SAMPLED | RANDOM),
        (b"cc-%b-%b-01" % (TRACE, SPAN), SAMPLED),
        (b"cc-%b-%b-01-what-comes-later" % (TRACE, SPAN), SAMPLED),
        (b"cc-%b-%b-01-" % (TRACE, SPAN), SAMPLED),
    ],
)
def test_a_valid_parent_is_read(value: bytes, flags: int) -> None:
    """A valid value has the ids and the known flags; a later version may have further parts."""
    assert parsed(value) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        VALID + b"-",
        VALID + b"-more",
        VALID + b" ",
        VALID[:-1],
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"cc-%b-%b-01.what" % (TRACE, SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b"00-%b-%b-01" % (TRACE[1:], SPAN),
        b"00-%b-%b-0x" % (TRACE, SPAN),
        b"0-%b-%b-01" % (TRACE, SPAN),
        b"00_%b_%b_01" % (TRACE, SPAN),
        VALID + b", " + VALID,
    ],
)
def test_an_invalid_parent_is_none(value: bytes) -> None:
    """A value that is not valid counts as none."""
    assert parsed(value) is None
    assert received(((b"traceparent", value),)) == (None, True)


def test_several_parents_are_none() -> None:
    """A request with several values of `traceparent` belongs to no trace, even where they are equal."""
    for number in (2, 3):
        assert received(((b"traceparent", VALID),) * number) == (None, True)


@pytest.mark.parametrize(
    ("state", "valid"),
    [
        (b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        (b"a=1 , b=2\t,", True),
        (b"", True),
        (b",", True),
        (b"fw529a3039@dt=FfAgHrFwAaAAAA/1ADkCgwE_0@;x:%y z", True),
        (b"a=1,a=2", True),
        (b",".join(b"k%d=v" % number for number in range(32)), True),
        (b",".join(b"k%d=v" % number for number in range(33)), False),
        (b"a", False),
        (b"a=", False),
        (b"a=1=2", False),
        (b"A=1", False),
        (b"a =1", False),
        (b"-a=1", False),
        (b"a=\xc3\xa9", False),
        (b"a=1\x00", False),
        (b"%b=1" % (b"k" * 257), False),
        (b"a=" + b"v" * 257, False),
    ],
)
def test_states(state: bytes, valid: bool) -> None:
    """A state has at most 32 members with a name and a value; one of another form is of no use."""
    assert is_state(state) is valid
    assert received(((b"traceparent", VALID), (b"tracestate", state))) == (parsed(VALID), valid)


def test_a_state_in_several_fields_is_one() -> None:
    """A state may be divided into several fields, whose members count together."""
    fields = ((b"tracestate", b"a=1"), (b"traceparent", VALID), (b"tracestate", b"b=2"))
    assert received(fields) == (parsed(VALID), True)
    assert received((*fields, (b"tracestate", b"c"))) == (parsed(VALID), False)
    assert without_state((*fields, (b"x", b"y"))) == ((b"traceparent", VALID), (b"x", b"y"))


def test_a_state_without_a_parent_is_of_no_use() -> None:
    """A state belongs to a valid parent, and is of no use without."""
    assert received(((b"tracestate", b"a=1"),)) == (None, False)
    assert received(((b"tracestate", b"a=1"), (b"traceparent", b"00"))) == (None, False)
    assert received(((b"x", b"y"),)) == (None, True)


@given(
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.sampled_from([0, SAMPLED, RANDOM, SAMPLED | RANDOM]),
)
def test_what_is_written_is_read(trace: int, span: int, flags: int) -> None:
    """A field that is written for a backend has the ids and flags when it is read."""
    trace_id, span_id = b"%032x" % trace, b"%016x" % span
    assert parsed(parent_field(trace_id, span_id, flags)) == TraceContext(trace_id, span_id, flags)


@given(st.binary(max_size=80))
def test_any_bytes_are_read(value: bytes) -> None:
    """Whatever a client sends is either valid and written as it came, or none."""
    context = parsed(value)
    if context is not None:
        assert value[2:52] == parent_field(*context)[2:52]
    assert is_state(value) in (True, False)
