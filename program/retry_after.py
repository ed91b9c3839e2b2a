"""The header field Retry-After (RFC 9110 section 10.2.3)."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def seconds(value: bytes, now: float) -> float | None:
    """Return the seconds that the field asks to wait, 0 for a date in the past; None when it is no number and no date.

    `now` is in seconds since 1970.
    """
    if value.isdigit():
        return float(value[:10])
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)
