"""Lengths of time as people write them: `30`, `30s`, `5m`, `1.5h`."""

import re
from typing import Final

DURATION: Final = "a length of time such as 30s, 10m or 1.5h"
"""What a length of time must be, in words."""

_FORM: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float | None:
    """Return the seconds of a length of time, or None where the text is none. Without a unit it is in seconds."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match.groups(default="s")
    return float(number) * _SECONDS[unit]


def written(seconds: float) -> str:
    """Return a length of time as people read it: `250 ms`, `1.5 s`, `12 min`, `1 h 20 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
