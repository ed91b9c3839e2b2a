"""The header fields Retry-After (RFC 9110 section 10.2.3) and retry-after-ms, by which a response asks for a pause."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def asked(value: bytes | None, milliseconds: bytes | None, now: float) -> float | None:
    """Return the seconds that a response asks to wait; None when it does not ask, or not in a form that is known.

    Args:
        value: Value of its Retry-After field; None when it has none.
        milliseconds: Value of its retry-after-ms field, which is finer and wins; None when it has none.
        now: Time in seconds since 1970.
    """
    if milliseconds is not None and (number := _number(milliseconds)) is not None:
        return number / 1000
    return None if value is None else seconds(value, now)


def seconds(value: bytes, now: float) -> float | None:
    """Return the seconds that a Retry-After field asks to wait, 0 for a date in the past; None for anything else.

    Many servers send a number with a fraction, which is taken as it is meant. `now` is in seconds since 1970.
    """
    number = _number(value)
    if number is not None:
        return number
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)


def _number(value: bytes) -> float | None:
    """Return the value of a number of digits, possibly with a fraction; None for anything else."""
    whole, dot, fraction = value.partition(b".")
    if not (whole + fraction).isdigit():
        return None
    return float((whole[:10] or b"0") + dot + fraction[:9])
