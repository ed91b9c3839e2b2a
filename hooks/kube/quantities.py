"""Kubernetes quantities (apimachinery resource.Quantity), exact: every amount is a whole number of nanos.

Parsing, rounding and the canonical form follow ParseQuantity and CanonicalizeBytes:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

NANO: Final = 10**9
"""Nanos in one unit. Kubernetes rounds what is finer away from zero."""
_MILLI: Final = 10**6
"""Nanos in a thousandth."""
_BEYOND_EXA: Final = 10**21 * NANO
"""Smallest amount, in nanos, of which whole multiples have no decimal suffix: a thousand exa."""
_MAX_BINARY: Final = (2**63 - 1) * NANO
"""Largest binary amount, in nanos: the largest int64."""
_MAX_EXPONENT: Final = 30
"""Largest power of ten that is accepted. No resource is larger, and more digits would only cost time."""
_MAX_LENGTH: Final = 64

_SYNTAX: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([a-zA-Z]*)([+-]?[0-9]+)?")
_NUMBER: Final = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,3}))?")
_MAX_NUMBER: Final = 400
"""Characters of the longest number that is read: some more than the longest double has."""
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIX: Final = ("", *_BINARY)


class InvalidQuantity(ValueError):
    """The value is not a quantity. The message says why."""


class Format(Enum):
    """The notation of a quantity, taken from the text it was read from."""

    DECIMAL = "DecimalSI"
    BINARY = "BinarySI"
    EXPONENT = "DecimalExponent"


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount and its notation."""

    nanos: int
    """Amount in billionths of a unit."""
    format: Format = Format.DECIMAL

    def __str__(self) -> str:
        """Return the canonical form, as the API server prints it."""
        if self.nanos == 0:
            return "0"
        # Small and fractional binary amounts are written as decimals, for they would have to be rounded.
        if self.format is Format.BINARY and abs(self.nanos) >= 1024 * NANO and self.nanos % NANO == 0:
            whole, power = self.nanos // NANO, 0
            while whole % 1024 == 0 and power < len(_BINARY):
                whole, power = whole // 1024, power + 1
            return f"{whole}{_BINARY_SUFFIX[power]}"
        amount, exponent = self.nanos, -9
        while amount % 1000 == 0 and (exponent < 18 or self.format is Format.EXPONENT):
            amount, exponent = amount // 1000, exponent + 3
        if self.format is Format.EXPONENT:
            return f"{amount}e{exponent}" if exponent else f"{amount}"
        return f"{amount}{_DECIMAL_SUFFIX[exponent]}"


@dataclass(frozen=True, slots=True)
class _Written:
    """The parts of a quantity as it is written."""

    text: str
    negative: bool
    whole: str
    fraction: str
    format: Format
    power: int
    """Exponent of ten, or of two in the binary format."""

    @property
    def quantity(self) -> Quantity:
        digits = int(self.whole + self.fraction or "0")  # ParseQuantity takes `k` for zero
        if self.format is Format.BINARY:
            nanos = min(_scaled(digits << self.power, 9 - len(self.fraction)), _MAX_BINARY)
        else:
            nanos = _scaled(digits, self.power + 9 - len(self.fraction))
        return Quantity(-nanos if self.negative else nanos, self.format)

    @property
    def is_kept(self) -> bool:
        """Whether ParseQuantity takes the text for canonical and stores it unchanged. It does so a little too often:
        `+5` and `2.820E3` are stored as they are."""
        digits = self.whole.lstrip("0") or "0"
        if self.format is Format.BINARY:
            short = 14 - len(digits) - self.power * 3 // 10 >= 0
            return short and not self.fraction and int(digits) & 7 != 0
        shifted, scale = digits + self.fraction, self.power - len(self.fraction)
        precise = len(shifted) <= 18 and scale >= -9
        return precise and scale % 3 == 0 and not shifted.endswith("000") and shifted[0] != "0"


def parse(value: str | float) -> Quantity:
    """Parse a quantity as YAML may hold it: a text, a whole number or a decimal.

    Raises:
        InvalidQuantity: The value is not a quantity.
    """
    if not isinstance(value, str | int | float):
        raise InvalidQuantity(f"a {type(value).__name__} is not a quantity")
    return _parse(value)


@lru_cache(maxsize=4096, typed=True)
def _parse(value: str | float) -> Quantity:
    """Parse a quantity, from a cache: specifications repeat the same few amounts."""
    written = _written(value)
    if not written.whole and not written.fraction:
        raise InvalidQuantity(f"{written.text!r} has no digits")
    return written.quantity


def decimal(written: str) -> Quantity:
    """Parse a floating-point number as programs print it: `0.25`, `1e+06`, `-3`. Infinities and NaN are refused.

    Raises:
        InvalidQuantity: The value is not a quantity.
    """
    match = _NUMBER.fullmatch(written) if len(written) <= _MAX_NUMBER else None
    if match is None:
        raise InvalidQuantity(f"{written[:_MAX_LENGTH]!r} is not a number")
    sign, whole, fraction, exponent = match.groups(default="")
    nanos = _scaled(int(whole + fraction), int(exponent or 0) + 9 - len(fraction))
    return Quantity(-nanos if sign == "-" else nanos)


def canonical(value: str | float) -> str:
    """Return the text in which the API server stores a quantity.

    Raises:
        InvalidQuantity: The value is not a quantity.
    """
    written = _written(value)
    return written.text if written.is_kept else _stored_text(written.quantity)


def canonical_resource(value: str | float) -> str:
    """Return the text in which the API server stores a quantity in a map of resources (core/v1 ResourceList).

    There it rounds up to thousandths.

    Raises:
        InvalidQuantity: The value is not a quantity.
    """
    quantity = _written(value).quantity
    if quantity.nanos % _MILLI == 0:
        return canonical(value)
    return _stored_text(Quantity(_scaled(quantity.nanos, -6) * _MILLI, quantity.format))


def _stored_text(quantity: Quantity) -> str:
    # What was binary may print without a suffix (62.5Ki is 64000), and is a decimal from the next reading on (64k).
    quantity = parse(str(quantity))
    if quantity.format is Format.DECIMAL and quantity.nanos and quantity.nanos % _BEYOND_EXA == 0:
        # CanonicalizeBytes has no suffix beyond exa, and writes the digits without one.
        digits = quantity.nanos // _BEYOND_EXA
        while digits % 1000 == 0:
            digits //= 1000
        return str(digits)
    return str(quantity)


def _written(value: str | float) -> _Written:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidQuantity(f"{value!r} is not a quantity")
    text = value.strip() if isinstance(value, str) else repr(value)
    match = _SYNTAX.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise InvalidQuantity(f"{text[:_MAX_LENGTH]!r} is not a quantity")
    sign, whole, fraction, suffix, exponent = match.groups(default="")
    if not text:
        raise InvalidQuantity("an empty text is not a quantity")
    if suffix in ("e", "E") and exponent:
        form, power = Format.EXPONENT, int(exponent)
    elif suffix in _BINARY and not exponent:
        form, power = Format.BINARY, _BINARY[suffix]
    elif suffix in _DECIMAL and not exponent:
        form, power = Format.DECIMAL, _DECIMAL[suffix]
    elif not whole and not fraction:
        raise InvalidQuantity(f"{text!r} has no digits")
    else:
        raise InvalidQuantity(f"{text!r} has the unknown suffix {suffix + exponent!r}")
    if form is Format.EXPONENT and abs(power) > _MAX_EXPONENT:
        raise InvalidQuantity(f"{text!r} is beyond what any resource can be")
    return _Written(text, sign == "-", whole, fraction, form, power)


def _scaled(amount: int, power: int) -> int:
    """Return `amount` times ten to the power of `power`, rounded up."""
    factor: int = 10 ** abs(power)
    return amount * factor if power >= 0 else -(-amount // factor)
