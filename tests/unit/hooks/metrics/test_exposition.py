"""Gauges on metrics pages: which lines count, what they say, and what is refused."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics

from hooks import reasons
from hooks.api.metrics import LabelSelector
from hooks.kube.quantities import decimal, parse
from hooks.metrics.exposition import LINE_BYTES, PICKED_BYTES, SelectorUnusable, Series, gauges, is_name, selected
from hooks.observation.readings import Unread
from tools.repository import ROOT

ENGINES = ROOT / "tests/expositions"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def read(page: bytes, name: str, *, seconds: bool = False) -> tuple[Series, ...]:
    """Return the series of a gauge on a page."""
    series = gauges(page, [name], seconds=seconds).get(name, ())
    assert not isinstance(series, Unread), series
    return series


def values(page: str, name: str = "queue") -> list[str | None]:
    """Return the values of a gauge on a page, None for those that are no number."""
    return [None if one.value is None else str(one.value) for one in read(page.encode(), name)]


def refusal(page: str, name: str = "queue") -> str:
    """Return the message of a gauge that cannot be used."""
    unread = gauges(page.encode(), [name])[name]
    assert isinstance(unread, Unread)
    assert unread.reason == reasons.REFUSED
    return unread.message


@pytest.mark.parametrize(
    ("engine", "name", "value"),
    [
        ("vllm", "vllm:num_requests_waiting", "12"),
        ("vllm", "vllm:kv_cache_usage_perc", "972307693n"),
        ("sglang", "sglang:num_queue_reqs", "12"),
        ("llamacpp", "llamacpp:requests_deferred", "12"),
    ],
)
def test_the_page_of_an_engine(engine: str, name: str, value: str) -> None:
    """The gauge of an engine is found among its other metrics, those whose names begin alike included."""
    (series,) = read((ENGINES / f"{engine}.txt").read_bytes(), name)
    assert series.value is not None
    assert str(series.value) == value
    assert series.time is None


def test_several_gauges_of_one_page() -> None:
    """Each wanted gauge has its own series, and one that is not there is absent."""
    found = gauges(b'a 1\nb 2\nab 3\na{x="1"} 4\n', ["a", "ab", "c"])
    assert {name: len(series) for name, series in found.items() if isinstance(series, tuple)} == {"a": 2, "ab": 1}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("queue 3", "3"),
        ("queue\t3", "3"),
        ("  queue   3  ", "3"),
        ("queue 3\r", "3"),
        ("queue{} 3", "3"),
        ('queue {a="b"} 3', "3"),
        ('queue{a="}",b="\\" 9"} 3', "3"),
        ("queue 0.25", "250m"),
        ("queue 1e+03", "1k"),
        ("queue -2", "-2"),
        ("queue NaN", None),
        ("queue +Inf", None),
        ("queue 1e400", None),
    ],
)
def test_a_line(line: str, value: str | None) -> None:
    """A line is read as the exposition format writes it; what is no number has no value."""
    assert values(f"# HELP queue Waiting.\n{line}\nother 9") == [value]


@pytest.mark.parametrize(
    "line",
    [
        "queue",
        "queue ",
        "queue x",
        "queue 0x1",
        'queue{a="1" 3',
        "queue{a=1} 3",
        "queue 1 x",
        "queue 1_0",
        "queue 1 -5",
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    """A line that cannot be read takes its gauge away, for a part of the series is not the whole; or it is no line of
    the gauge at all."""
    found = gauges(f"queue 1\n{line}\n".encode(), ["queue"])["queue"]
    assert isinstance(found, Unread) or len(found) == 1


def test_a_time() -> None:
    """The time of a value is in milliseconds, and in seconds in OpenMetrics."""
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    seconds = int(moment.timestamp())
    for page, is_open in ((f"queue 3 {seconds}000\n", False), (f"queue 3 {seconds}\n# EOF\n", True)):
        (series,) = read(page.encode(), "queue", seconds=is_open)
        assert series.time == moment


@pytest.mark.parametrize("time_", ["-1", "1e300", "999999999999999999999999", "NaN"])
def test_a_time_that_is_none(time_: str) -> None:
    """A gauge whose time does not exist is refused."""
    assert "cannot be read" in refusal(f"queue 3 {time_}\n")


@pytest.mark.parametrize("is_open", [False, True])
def test_only_gauges(is_open: bool) -> None:
    """Of what a Prometheus client writes, a gauge is read, and each other type is refused by its name."""
    registry = CollectorRegistry()
    Gauge("gauge", "Gauge", registry=registry).set(3)
    Counter("counter", "Counter", registry=registry).inc()
    Histogram("histogram", "Histogram", registry=registry).observe(1)
    Summary("summary", "Summary", registry=registry).observe(1)
    page = (generate_open_metrics if is_open else generate_latest)(registry)
    names = ["gauge", "counter_total", "histogram_bucket", "histogram_sum", "summary_count"]
    found = gauges(page, names, seconds=is_open)
    assert isinstance(found["gauge"], tuple)
    for name in names[1:]:
        unread = found[name]
        assert isinstance(unread, Unread), name
        assert f"{name} is a {name.partition('_')[0]}: only a gauge" in unread.message


def test_a_gauge_whose_name_ends_like_a_counter() -> None:
    """A gauge may have any name, and so may a series without a type."""
    assert values("# TYPE queue_total gauge\nqueue_total 3\n", "queue_total") == ["3"]
    assert values("queue_sum 3\n", "queue_sum") == ["3"]
    assert values("# TYPE queue gauge\n# TYPE queue_sum untyped\nqueue_sum 3\n", "queue_sum") == ["3"]


def test_too_much_of_one_name() -> None:
    """More series than are parsed, or a longer line, are refused."""
    line = 'queue{a="%d"} 1\n'
    assert "more than 32 KiB" in refusal("".join(line % number for number in range(PICKED_BYTES // 10)))
    assert "more than 4 KiB" in refusal(f'queue{{a="{"x" * LINE_BYTES}"}} 1\n')


@pytest.mark.parametrize(
    "page",
    [
        b"\n" * (1 << 20),
        b"queue" * 200_000,
        b"queue " + b" \t" * 500_000,
        b"# TYPE queue " + b" " * 1_000_000,
        b"# TYPE queue counter\n" * 50_000,
        b"queue 1\n" * 130_000,
        (b'queue{a="' + b"\\" * 4000 + b'"} 1\n') * 260,
        (b"queue{" + b",".join(b'b%d=""' % number for number in range(500)) + b"} 1\n") * 260,
    ],
)
def test_a_hostile_page_is_cheap(page: bytes) -> None:
    """A page of the largest size takes at most some tenths of a second of one core, whatever is on it."""
    started = time.thread_time()
    gauges(page[: 1 << 20], ["queue", *(f"other_{number}" for number in range(31))])
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("name", ["", "1a", "a b", 'a{b="c"}', "rate(a[1m])", "a\n", "ä"])
def test_a_name_that_is_none(name: str) -> None:
    """Nothing but the name of a metric is one."""
    assert not is_name(name)


SERIES = (
    Series({"engine": "0", "model_name": MODEL}, parse("1"), None),
    Series({"engine": "1", "model_name": MODEL}, parse("2"), None),
    Series({}, parse("4"), None),
)


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (None, "124"),
        ({}, "124"),
        ({"matchLabels": {"engine": "1"}}, "2"),
        ({"matchLabels": {"model_name": MODEL}}, "12"),
        ({"matchLabels": {"engine": ""}}, "4"),
        ({"matchExpressions": [{"key": "engine", "operator": "In", "values": ["0", "1"]}]}, "12"),
        ({"matchExpressions": [{"key": "engine", "operator": "NotIn", "values": ["0"]}]}, "24"),
        ({"matchExpressions": [{"key": "engine", "operator": "Exists"}]}, "12"),
        ({"matchExpressions": [{"key": "engine", "operator": "DoesNotExist"}]}, "4"),
        ({"matchLabels": {"engine": "0"}, "matchExpressions": [{"key": "engine", "operator": "DoesNotExist"}]}, ""),
    ],
)
def test_a_selector(selector: dict[str, object] | None, chosen: str) -> None:
    """A selector matches labels as PromQL does: any value may be asked for, and an absent label is an empty one."""
    spec = None if selector is None else LabelSelector.model_validate(selector)
    assert "".join(str(one.value) for one in selected(SERIES, spec)) == chosen


@pytest.mark.parametrize(
    ("operator", "values", "problem"),
    [
        ("Gt", ["1"], "the operator 'Gt' must be one of In, NotIn, Exists, DoesNotExist"),
        ("In", [], "In of 'engine' has no values"),
        ("Exists", ["1"], "Exists of 'engine' has unexpected values"),
    ],
)
def test_a_selector_that_cannot_be_used(operator: str, values: list[str], problem: str) -> None:
    """A selector that an API server would refuse is refused, with what is wrong."""
    expression = {"key": "engine", "operator": operator, "values": values}
    with pytest.raises(SelectorUnusable, match=problem):
        selected(SERIES, LabelSelector.model_validate({"matchExpressions": [expression]}))


LABELS = st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.text(max_size=12), max_size=3)


@given(st.lists(st.tuples(LABELS, st.floats(allow_nan=False, allow_infinity=False, width=32)), max_size=5))
def test_what_a_client_writes_is_read(written: list[tuple[dict[str, str], float]]) -> None:
    """Whatever labels and values a server writes in the format, the same are read."""
    lines = []
    for labels, value in written:
        escaped = {
            key: text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for key, text in labels.items()
        }
        pairs = ",".join(f'{key}="{text}"' for key, text in escaped.items())
        lines.append(f"queue{{{pairs}}} {value!r}\n")
    found = gauges("".join(lines).encode("utf-8", "replace"), ["queue"]).get("queue", ())
    assert isinstance(found, tuple)
    assert len(found) == len(written)
    for series, (labels, value) in zip(found, written, strict=True):
        assert series.labels == {key: text.encode("utf-8", "replace").decode() for key, text in labels.items()}
        assert series.value == decimal(repr(value))


@given(st.binary(max_size=200), st.lists(st.sampled_from(["a", "b", "a_total", "a_bucket"]), max_size=4))
def test_no_page_is_an_error(noise: bytes, names: list[str]) -> None:
    """Whatever a pod serves, the result is series or a reason."""
    for page in (noise, b"a" + noise, b'a{b="' + noise, b"# TYPE a " + noise + b"\na 1"):
        assert set(gauges(page, names)) <= set(names)
