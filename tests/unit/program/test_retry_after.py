"""Retry-After: how long a server asks to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program import retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b"9" * 400, 9999999999.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        (b"Sun Nov  6 08:49:37 1994", 37.0),
        (b"Sun, 06 Nov 1994 08:48:37 GMT", 0.0),
        (b"", None),
        (b"-1", None),
        (b"1.5", 1.5),
        (b"0.25", 0.25),
        (b".5", 0.5),
        (b"2.", 2.0),
        (b".", None),
        (b"1,5", None),
        (b"1.5.2", None),
        (b"-1.5", None),
        (b"1e3", None),
        (b"inf", None),
        (b"nan", None),
        (b"soon", None),
        (b"Sun, 99 Nov 1994 08:49:37 GMT", None),
        (b"\xff", None),
    ],
)
def test_values(value: bytes, seconds: float | None) -> None:
    """Retry-After is a number of seconds, possibly with a fraction, or a date (RFC 9110 5.6.7); else it is ignored."""
    assert retry_after.seconds(value, 784111740.0) == seconds


@pytest.mark.parametrize(
    ("value", "milliseconds", "seconds"),
    [
        (None, None, None),
        (b"7", None, 7.0),
        (None, b"1500", 1.5),
        (None, b"0.5", 0.0005),
        (b"7", b"1500", 1.5),
        (b"7", b"soon", 7.0),
        (b"soon", b"-1", None),
    ],
)
def test_milliseconds_win(value: bytes | None, milliseconds: bytes | None, seconds: float | None) -> None:
    """A pause in retry-after-ms counts instead of one in Retry-After, unless it is no number."""
    assert retry_after.asked(value, milliseconds, 0.0) == seconds


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_value(value: bytes) -> None:
    """No value of Retry-After raises an error or gives a negative time."""
    seconds = retry_after.seconds(value, 0.0)
    assert seconds is None or seconds >= 0
