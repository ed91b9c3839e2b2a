"""Expressions of PromQL: selectors in them, how far back they read, and the boundary around a namespace."""

import os
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.api.metrics import LabelSelector
from hooks.metrics import confinement, promql, promql_parser
from hooks.metrics.confinement import FUNCTIONS, confined
from hooks.metrics.promql import ExpressionUnusable, quoted, reach, selected
from tests.builders import Json


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, "m"),
        ({"matchLabels": {"b": "2", "a": "1"}}, 'm{a="1",b="2"}'),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}, 'm{a="x"}'),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x.", "y"]}]}, 'm{a=~"x\\\\.|y"}'),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}, 'm{a!="x"}'),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "y"]}]}, 'm{a!~"x|y"}'),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, 'm{a!=""}'),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, 'm{a=""}'),
        ({"matchLabels": {"a": '1"}'}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}, 'm{a="1\\"}",a!=""}'),
    ],
)
def test_a_selector_is_one_set_of_matchers(selector: Json, expected: str) -> None:
    """A selector becomes matchers behind the name, in one pair of braces."""
    assert selected("m", LabelSelector.model_validate(selector)) == expected


@pytest.mark.parametrize(
    ("name", "selector", "message"),
    [
        ("sum(m)", {"matchLabels": {"a": "1"}}, "is an expression"),
        ('m{a="b"}', {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "is an expression"),
        ("m", {"matchLabels": {"app.kubernetes.io/name": "1"}}, "'app.kubernetes.io/name', which is no label"),
        ("m", {"matchExpressions": [{"key": "a", "operator": "In"}]}, "gives no values for 'a'"),
        ("m", {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}, "operator 'Like'"),
        ("m", {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, "operator 'Exists'"),
    ],
)
def test_selectors_that_cannot_be_matchers(name: str, selector: Json, message: str) -> None:
    """A selector that cannot be written as matchers is refused rather than left out."""
    with pytest.raises(ExpressionUnusable, match=message.replace("(", r"\(")):
        selected(name, LabelSelector.model_validate(selector))


def test_an_expression_without_a_selector_is_sent_as_it_stands() -> None:
    """An expression without a selector is sent unchanged, valid or not."""
    for expression in ("sum(rate(m[5m]))", "no { promql", ""):
        assert selected(expression, None) == expression


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("m", 0),
        ("rate(m[5m])", 300),
        ("rate(a[5m]) / rate(b[1m30s])", 300),
        ("max_over_time(rate(m[5m])[30m:1m])", 2100),
        ("max_over_time(m[1h:])", 3600),
        ("m offset 1h", 3600),
        ("rate(m[5m] OFFSET 1d)", 86700),
        ("m offset -5m", 0),
        ("rate(m[ 90 ])", 90),
        ("rate(m[1.5])", 1),
        ("rate(m[500ms])", 0.5),
        ("m[1w] + m[1y]", 31536000),
        ("m{a='[5m]'}", 0),
        ('m{a="\\"[5m]"}', 0),
        ("m{a=`\\`} # [5m]", 0),
        ("m # [5m]\n[1m]", 60),
        ("rate(m[99999999999y])", 315360000),
        ("rate(m[99999999999999])", 315360000),
        ("rollup_rate(m[5m], 'max') keep_metric_names", 300),
        ("max_over_time(a[1h:]) / max_over_time(b[2h:])", 7200),
        ("max_over_time(a[1h:]) + rate(b[5m] offset 30m)", 3600),
        ("max_over_time((rate(a[5m]) + rate(b[10m]))[1h:1m] offset 1d)", 90600),
        ("sum by (x) (max_over_time(a[1h:])) + avg by (y) (max_over_time(b[1h:]))", 3600),
        ("max_over_time(min_over_time(rate(m[1m])[10m:])[1h:])", 4260),
        ("m[5m] @ end() offset 1h", 3900),
        ("m{a=~'x(y'}[5m] offset 1h + m[1h]", 3900),
        ("sum(m)[1h:] offset 5m or sum(m)[30m:]", 3900),
        (")((m[5m]", 300),
    ],
)
def test_how_far_back_an_expression_reads(expression: str, seconds: float) -> None:
    """The range of an expression is read from its text alone, in any dialect, without quoted text and comments."""
    assert reach(expression) == timedelta(seconds=seconds)


@given(st.text())
def test_no_text_breaks_out_of_a_literal(text: str) -> None:
    """A quoted text holds no quote, backslash or unprintable character that is not escaped."""
    inside = quoted(text)[1:-1]
    assert quoted(text)[0] == quoted(text)[-1] == '"'
    assert inside.isprintable()
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("m", '{__name__="m",ns="a"}'),
        ('m{x="1",y!="2",z=~"3",w!~"4"}', '{__name__="m",x="1",y!="2",z=~"3",w!~"4",ns="a"}'),
        ('{x="1"}', '{x="1",ns="a"}'),
        ('m{ns="b"}', '{__name__="m",ns="b",ns="a"}'),
        ("m offset 5m", '{__name__="m",ns="a"} offset 300000ms'),
        ("m offset -5m", '{__name__="m",ns="a"} offset -300000ms'),
        ("m @ 1.5", '{__name__="m",ns="a"} @ 1.500'),
        ("m @ start()", '{__name__="m",ns="a"} @ start()'),
        ("m @ end() offset 1s", '{__name__="m",ns="a"} @ end() offset 1000ms'),
        ("rate(m[5m] offset 1s)", 'rate({__name__="m",ns="a"}[300000ms] offset 1000ms)'),
        ("max_over_time(m[1h:1m])", 'max_over_time({__name__="m",ns="a"}[3600000ms:60000ms])'),
        ("max_over_time(m[1h:])", 'max_over_time({__name__="m",ns="a"}[3600000ms:])'),
        ("sum(m) by (x, y)", '(sum by (x, y) ({__name__="m",ns="a"}))'),
        ("sum without () (m)", '(sum without () ({__name__="m",ns="a"}))'),
        ("topk(3, m)", '(topk (3.0, {__name__="m",ns="a"}))'),
        ("count_values('v', m)", '(count_values ("v", {__name__="m",ns="a"}))'),
        ("-m", '(-{__name__="m",ns="a"})'),
        ("(m)", '({__name__="m",ns="a"})'),
        ("1 + -Inf", "(1.0 + -Inf)"),
        ("NaN", "NaN"),
        ('"text"', '"text"'),
        ("m > bool 1", '({__name__="m",ns="a"} > bool 1.0)'),
        (
            "m * on(x) group_left(y) n",
            '({__name__="m",ns="a"} * on (x) group_left (y) {__name__="n",ns="a"})',
        ),
        (
            "m * ignoring(x) group_right n",
            '({__name__="m",ns="a"} * ignoring (x) group_right () {__name__="n",ns="a"})',
        ),
        ("time() # {}", "time()"),
    ],
)
def test_an_expression_in_a_namespace(expression: str, expected: str) -> None:
    """In a confined expression every selector has the namespace's matcher, and every part is in parentheses."""
    assert confined(expression, "ns", "a") == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("info(m)", "the function info is not known"),
        ("start()", "the function start is not known"),
        ('m{x="1" or y="2"}', "`or` between matchers is not known"),
        ('m{"a.b"="c"}', "the label 'a.b' is not known"),
        ('sum by ("a.b") (m)', "'a.b' is not known"),
        ("sum(", "it cannot be read"),
        ("m @ 99999999999999", "it cannot be read"),
        ("m offset inf", "something in it is not known"),
        ("(" * 150 + "m" + ")" * 150, "nested more than 100 deep"),
        ("m" * 3000, "longer than the 2048 characters"),
        ("m fill(0) + n", "it cannot be read"),
    ],
)
def test_what_cannot_be_confined(expression: str, message: str) -> None:
    """An expression that cannot be confined is refused with the reason."""
    result = confined(expression, "ns", "a")
    assert isinstance(result, ExpressionUnusable)
    assert message in str(result)


def test_no_known_function_reads_other_series() -> None:
    """The list of functions has none that, like `info`, reads other series than those of its arguments."""
    assert not FUNCTIONS & {"info", "start", "end"}
    assert {"rate", "sum_over_time", "vector", "time", "label_replace"} <= FUNCTIONS


def test_what_a_newer_parser_may_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, operators and aggregations that the parser reads but hooks do not list are refused."""
    monkeypatch.setattr(confinement, "_AGGREGATIONS", frozenset())
    monkeypatch.setattr(confinement, "_OPERATIONS", frozenset())
    monkeypatch.setattr(confinement, "_MATCHES", ())
    for expression, message in (("sum(later)", "'sum'"), ("later + 1", "'+'"), ("later{a='b'}", "an operator of its")):
        assert message in str(confined(expression, "ns", "a"))
    monkeypatch.setattr(confinement, "_WRITERS", {})
    assert "NumberLiteral is not known" in str(confined("2.5", "ns", "a"))
    assert promql.NAME.fullmatch("a:b")


@pytest.mark.parametrize("expression", ["Inf [1e999999999999]", "rate(m[1e99999999])", "m[1e400] + n"])
def test_a_panic_of_the_parser_leaves_no_trace(expression: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An expression that the parser panics at is refused, and standard error has nothing of it, now and later."""
    for label in ("namespace", "other"):
        assert isinstance(confined(expression, label, "a"), ExpressionUnusable)
    assert capfd.readouterr() == ("", "")


def test_what_others_write_meanwhile_is_kept(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another thread writes to standard error while an expression is parsed is written, in the end."""

    def parse(expression: str) -> str:
        os.write(2, b"a line of the log\n")
        return expression

    monkeypatch.setattr("hooks.metrics.promql_parser.parser.parse", parse)
    assert promql_parser.parsed("never parsed before") == "never parsed before"
    promql_parser.parsed.cache_clear()
    assert capfd.readouterr().err == "a line of the log\n"
