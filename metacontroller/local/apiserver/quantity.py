"""Kubernetes quantities in canonical form: `1000m` is stored as `1`, `1024Mi` as `1Gi`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?\d{1,2}))")


def canonical(value: Any) -> Any:
    """The canonical text of a quantity; anything that is none comes back unchanged."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    match = _FORM.fullmatch(str(value))
    if match is None:
        return value
    sign, digits, binary, decimal, exponent = match.groups()
    amount = Fraction(digits)
    minus = "-" if sign == "-" and amount else ""
    if binary:
        amount *= 1024 ** _BINARY.index(binary)
        if amount >= 1024:
            return minus + _binary(amount)
    elif exponent is not None:
        power = int(exponent)
        return minus + _scientific(amount * Fraction(10) ** power)
    else:
        amount *= Fraction(10) ** _DECIMAL[decimal]
    return minus + _decimal(amount)


def _binary(amount: Fraction) -> str:
    whole = -(-amount.numerator // amount.denominator)
    power = 0
    while power < len(_BINARY) - 1 and whole % 1024 == 0 and whole:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"


def _decimal(amount: Fraction) -> str:
    mantissa, power = _mantissa(amount)
    suffix = next(name for name, exponent in _DECIMAL.items() if exponent == power)
    return f"{mantissa}{suffix}"


def _scientific(amount: Fraction) -> str:
    mantissa, power = _mantissa(amount)
    return f"{mantissa}e{power}" if power else f"{mantissa}"


def _mantissa(amount: Fraction) -> tuple[int, int]:
    """The smallest whole number of thousand-steps; below a nano is rounded up."""
    if not amount:
        return 0, 0
    nano = amount * 10**9
    whole, power = -(-nano.numerator // nano.denominator), -9
    while power < 18 and whole % 1000 == 0:
        whole, power = whole // 1000, power + 3
    return whole, power
