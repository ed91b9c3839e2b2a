"""PromQL expressions: how a selector becomes part of one, and how far back in time one reads."""

import re
from datetime import timedelta
from typing import Final

from hooks.api.metrics import LabelSelector

NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
"""Name of a metric."""
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""Name of a label."""
_SPECIAL: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")


class ExpressionUnusable(ValueError):
    """An expression cannot be sent. The message is a phrase that follows the name of its field."""


def selected(name: str, selector: LabelSelector | None) -> str:
    """Return the expression for a metric: its name as it stands, with the selector as matchers where there is one.

    Raises:
        ExpressionUnusable: the name is more than a name, or the selector cannot be written as matchers.
    """
    if selector is None or not (selector.match_labels or selector.match_expressions):
        return name
    if not NAME.fullmatch(name):
        raise ExpressionUnusable("is an expression, so its selector must be left out and written into the expression")
    matchers = [_matcher(key, "In", (value,)) for key, value in sorted(selector.match_labels.items())]
    matchers += [_matcher(one.key, one.operator, one.values) for one in selector.match_expressions]
    return f"{name}{{{','.join(matchers)}}}"


def _matcher(label: str, operator: str, values: tuple[str, ...]) -> str:
    if not LABEL.fullmatch(label):
        raise ExpressionUnusable(f"has a selector with {label!r}, which is no label of Prometheus")
    if operator in ("In", "NotIn") and not values:
        raise ExpressionUnusable(f"has a selector that gives no values for {label!r}")
    match operator, values:
        case "In", (value,):
            return f"{label}={quoted(value)}"
        case "In", _:
            return f"{label}=~{quoted(_any_of(values))}"
        case "NotIn", (value,):
            return f"{label}!={quoted(value)}"
        case "NotIn", _:
            return f"{label}!~{quoted(_any_of(values))}"
        case "Exists", ():
            return f'{label}!=""'
        case "DoesNotExist", ():
            return f'{label}=""'
    raise ExpressionUnusable(f"has a selector with the operator {operator!r} that cannot be used so")


def _any_of(values: tuple[str, ...]) -> str:
    """Return a regular expression (RE2, anchored by Prometheus) that matches these values alone."""
    return "|".join(_SPECIAL.sub(r"\\\1", value) for value in values)


def quoted(text: str) -> str:
    """Return a string literal, escaped as in Go: https://prometheus.io/docs/prometheus/latest/querying/basics/."""
    escaped = "".join(
        f"\\{one}" if one in '\\"' else one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in one.encode())
        for one in text
    )
    return f'"{escaped}"'


_TEXT: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#[^\n]*', re.DOTALL)
_DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+|\d+(?:\.\d+)?"
_TOKEN: Final = re.compile(
    rf"""
    \[\s*(?P<length>{_DURATION})\s*(?::[^\]]*)?\]   # a range, or a subquery with its step
    | \boffset\s+(?P<offset>{_DURATION})
    | \boffset\s+-\s*{_DURATION}             # forward in time
    | @\s*(?:\w+\s*\(\s*\)|[-+]?[\w.]+)      # a time, which moves no range
    | \{{[^}}]*\}}
    | (?P<paren>[()])
    | (?P<word>[\w:.]+)
    | (?P<other>[^\s\]])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNITS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_MOST: Final = 10 * _UNITS["y"]


def reach(expression: str) -> timedelta:
    """Return how far back in time an expression reads at most.

    A range, a subquery and an offset add up along the way to a series; of what stands side by side, the longest counts.
    It is computed from the text, so that it is known for dialects of PromQL too, which only their server can parse.
    """
    # One entry for each open parenthesis: the longest of the operands before the present one, and the present one.
    groups = [(0, 0)]
    for token in _TOKEN.finditer(_TEXT.sub('""', expression)):
        longest, operand = groups[-1]
        length, paren = token["length"] or token["offset"], token["paren"]
        if length is not None:
            groups[-1] = (longest, min(operand + _milliseconds(length), _MOST))
        elif paren == "(":
            groups[-1] = (max(longest, operand), 0)
            groups.append((0, 0))
        elif paren == ")" and len(groups) > 1:
            groups.pop()
            groups[-1] = (groups[-1][0], max(longest, operand))
        elif token["word"] is not None or token["other"] is not None:
            groups[-1] = (max(longest, operand), 0)
    return timedelta(milliseconds=min(max(map(max, groups)), _MOST))


def _milliseconds(length: str) -> int:
    parts = re.findall(r"(\d+)(ms|[smhdwy])", length)
    if parts:
        return min(sum(int(number) * _UNITS[unit] for number, unit in parts), _MOST)
    return min(int(length.partition(".")[0]) * 1000, _MOST)
