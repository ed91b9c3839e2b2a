"""Confinement: PromQL expressions are rewritten so that they select series of one namespace only.

This is a boundary between tenants, so it does not depend on how an expression is written. The text that is sent is
written anew from the parsed expression, part by part, and `_Writer._series` writes every selector in it with a matcher
for the namespace. An expression is refused if any part of it is not known to read these series alone.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import promql_parser as parser

from hooks.metrics.promql import LABEL, ExpressionUnusable, quoted
from hooks.metrics.promql_parser import Unparsable, parsed

LENGTH: Final = 2048
"""Characters that an expression may have. The time to parse it rises with the square of its depth."""
DEPTH: Final = 100
"""Levels to which an expression may be nested."""

_OPERATIONS: Final = frozenset({*"+-*/%^<>", "==", "!=", ">=", "<=", "and", "or", "unless", "atan2"})
_AGGREGATED: Final = "sum min max avg group stddev stdvar count count_values bottomk topk quantile limitk limit_ratio"
_AGGREGATIONS: Final = frozenset(_AGGREGATED.split())
_COMPUTED: Final = """
abs absent absent_over_time acos acosh asin asinh atan atanh avg_over_time ceil changes clamp clamp_max clamp_min cos
cosh count_over_time day_of_month day_of_week day_of_year days_in_month deg delta deriv double_exponential_smoothing
exp first_over_time floor histogram_avg histogram_count histogram_fraction histogram_quantile histogram_stddev
histogram_stdvar histogram_sum holt_winters hour idelta increase irate label_join label_replace last_over_time ln
log10 log2 mad_over_time max_over_time min_over_time minute month pi predict_linear present_over_time
quantile_over_time rad rate resets round scalar sgn sin sinh sort sort_by_label sort_by_label_desc sort_desc sqrt
stddev_over_time stdvar_over_time sum_over_time tan tanh time timestamp ts_of_first_over_time ts_of_last_over_time
ts_of_max_over_time ts_of_min_over_time vector year
"""
FUNCTIONS: Final = frozenset(_COMPUTED.split())
"""Functions that read their arguments and nothing else. `info` is not among them, for it looks up other series."""


_SIDES: Final = (
    (parser.VectorMatchCardinality.ManyToOne, "group_left"),
    (parser.VectorMatchCardinality.OneToMany, "group_right"),
)
_MATCHES: Final = (
    (parser.MatchOp.Equal, "="),
    (parser.MatchOp.NotEqual, "!="),
    (parser.MatchOp.Re, "=~"),
    (parser.MatchOp.NotRe, "!~"),
)
_ENDS: Final = ((parser.AtModifierType.Start, " @ start()"), (parser.AtModifierType.End, " @ end()"))


@lru_cache(maxsize=4096)
def confined(expression: str, label: str, namespace: str) -> str | ExpressionUnusable:
    """Return the expression, reading only series whose `label` is `namespace`; or the reason why it cannot be had."""
    if len(expression) > LENGTH:
        return ExpressionUnusable(f"is longer than the {LENGTH} characters that can be confined to a namespace")
    tree = parsed(expression)
    if isinstance(tree, Unparsable):
        why = _line(str(tree))
        if not why:
            return _unknown("something in it")
        return ExpressionUnusable(f"cannot be confined to a namespace, because it cannot be read: {why}")
    try:
        return _Writer(f"{label}={quoted(namespace)}").write(tree, 0)
    except ExpressionUnusable as exc:
        return exc
    except (ValueError, OverflowError) as exc:
        return ExpressionUnusable(f"cannot be confined to a namespace, because it cannot be read: {_line(str(exc))}")


class _Writer:
    """Writes a parsed expression with a matcher in each selector, and with parentheses around each part."""

    def __init__(self, matcher: str) -> None:
        self._matcher = matcher

    def write(self, node: Any, depth: int) -> str:
        """Return the text of a part of the expression.

        Raises:
            ExpressionUnusable: something in the part is not known.
        """
        if depth > DEPTH:
            raise ExpressionUnusable(f"is nested more than {DEPTH} deep, so that it cannot be confined to a namespace")
        writer = _WRITERS.get(type(node))
        if writer is None:
            raise _unknown(type(node).__name__)
        return writer(self, node, depth + 1)

    def selector(self, node: Any, _depth: int) -> str:
        return self._series(node) + _moved(node)

    def range(self, node: Any, _depth: int) -> str:
        series = node.vector_selector
        return f"{self._series(series)}[{_duration(node.range)}]{_moved(series)}"

    def subquery(self, node: Any, depth: int) -> str:
        step = "" if node.step is None else _duration(node.step)
        return f"{self.write(node.expr, depth)}[{_duration(node.range)}:{step}]{_moved(node)}"

    def call(self, node: Any, depth: int) -> str:
        if node.func.name not in FUNCTIONS:
            raise _unknown(f"the function {node.func.name}")
        return f"{node.func.name}({', '.join(self.write(one, depth) for one in node.args)})"

    def aggregate(self, node: Any, depth: int) -> str:
        operation = _known(str(node.op), _AGGREGATIONS)
        grouping = ""
        if node.modifier is not None:
            word = "by" if node.modifier.type == parser.AggModifierType.By else "without"
            grouping = f" {word} {_labels(node.modifier.labels)}"
        parts = [one for one in (node.param, node.expr) if one is not None]
        return f"({operation}{grouping} ({', '.join(self.write(one, depth) for one in parts)}))"

    def unary(self, node: Any, depth: int) -> str:
        return f"(-{self.write(node.expr, depth)})"

    def parentheses(self, node: Any, depth: int) -> str:
        return f"({self.write(node.expr, depth)})"

    def binary(self, node: Any, depth: int) -> str:
        operation, modifier = _known(str(node.op), _OPERATIONS), node.modifier
        words = [operation]
        if modifier is not None:
            words += _matching(modifier)
        return f"({self.write(node.lhs, depth)} {' '.join(words)} {self.write(node.rhs, depth)})"

    def number(self, node: Any, _depth: int) -> str:
        return _number(node.val)

    def string(self, node: Any, _depth: int) -> str:
        return quoted(node.val)

    def _series(self, node: Any) -> str:
        if node.matchers.or_matchers:
            raise _unknown("`or` between matchers")
        matchers = [] if node.name is None else [f"__name__={quoted(node.name)}"]
        for one in node.matchers.matchers:
            if not LABEL.fullmatch(one.name):
                raise _unknown(f"the label {one.name!r}")
            operator = _chosen(one.op, _MATCHES)
            if operator is None:
                raise _unknown("an operator of its matchers")
            matchers.append(f"{one.name}{operator}{quoted(one.value)}")
        return f"{{{','.join([*matchers, self._matcher])}}}"


_WRITERS: Final[Mapping[type, Callable[[_Writer, Any, int], str]]] = {
    parser.VectorSelector: _Writer.selector,
    parser.MatrixSelector: _Writer.range,
    parser.SubqueryExpr: _Writer.subquery,
    parser.Call: _Writer.call,
    parser.AggregateExpr: _Writer.aggregate,
    parser.UnaryExpr: _Writer.unary,
    parser.ParenExpr: _Writer.parentheses,
    parser.BinaryExpr: _Writer.binary,
    parser.NumberLiteral: _Writer.number,
    parser.StringLiteral: _Writer.string,
}


def _matching(modifier: Any) -> list[str]:
    """Return the modifiers of an operator: bool, on or ignoring, group_left or group_right."""
    fill = modifier.fill_values
    if fill.lhs is not None or fill.rhs is not None:
        raise _unknown("`fill`")
    words = ["bool"] if modifier.return_bool else []
    if modifier.matching is not None:
        word = "on" if modifier.matching.type == parser.LabelModifierType.Include else "ignoring"
        words += [word, _labels(modifier.matching.labels)]
    side = _chosen(modifier.card, _SIDES)
    if side is not None:
        words += [side, _labels(modifier.group_labels or [])]
    return words


def _chosen(value: object, table: tuple[tuple[object, str], ...]) -> str | None:
    """Return the word for a value of the parser, whose values can be compared but are not hashable; None for others."""
    return next((word for known, word in table if value == known), None)


def _moved(node: Any) -> str:
    """Return the modifiers `@` and `offset` of a part; nothing where it has none."""
    words = ""
    if node.at is not None:
        words = _chosen(node.at.type, _ENDS) or f" @ {node.at.at.timestamp():.3f}"
    return words if node.offset is None else f"{words} offset {_duration(node.offset)}"


def _labels(names: list[str]) -> str:
    for name in names:
        if not LABEL.fullmatch(name):
            raise _unknown(f"the label {name!r}")
    return f"({', '.join(names)})"


def _duration(length: timedelta) -> str:
    milliseconds = length // timedelta(milliseconds=1)
    return f"-{-milliseconds}ms" if milliseconds < 0 else f"{milliseconds}ms"


def _number(value: float) -> str:
    return {"inf": "Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(value)) or repr(value)


def _known(word: str, words: frozenset[str]) -> str:
    if word not in words:
        raise _unknown(repr(word))
    return word


def _unknown(what: str) -> ExpressionUnusable:
    return ExpressionUnusable(f"cannot be confined to a namespace: {what} is not known to stay in it")


def _line(text: str) -> str:
    return " ".join(text.split())[:240].rstrip(".")
