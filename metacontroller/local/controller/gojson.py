"""JSON as Go's encoding/json writes it: compact, keys of maps sorted, `<`, `>` and `&` escaped, 1.0 as 1.

Metacontroller compares the text of its annotation, so a difference here is a write that the real one does not make.
"""

import json
from decimal import Decimal
from typing import Any

_ESCAPED = "<>&\u2028\u2029"


def encode(value: Any) -> str:
    """Return the text of decoded JSON; raise ValueError for a value that JSON does not have."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(key)}:{encode(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _string(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    for sign in _ESCAPED:
        if sign in text:
            text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _number(value: float) -> str:
    """Return a number with digits from 1e-6 up to 1e21, and with an exponent beyond."""
    number = Decimal(json.dumps(value, allow_nan=False))
    if not number or Decimal("1e-6") <= abs(number) < Decimal("1e21"):
        text = format(number, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    digits, _, exponent = format(number.normalize(), "e").partition("e")
    return f"{digits}e{exponent}"
