"""Pages of metrics in slices."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.telemetry import Metrics
from program import pages
from program.metric_parts import PART

KINDS = ("counter", "gauge", "gaugehistogram", "histogram", "info", "stateset", "summary", "unknown")
ENDINGS = ("", "_bucket", "_count", "_created", "_gcount", "_gsum", "_info", "_sum", "_total")


class Given(Collector):
    """Collector of families that a test makes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def family(name: str, kind: str, endings: Iterable[str], repeated: int) -> Metric:
    """Return a family with a sample for each ending, each so many times with another label."""
    result = Metric(name, 'Text with a \\ and "quotes"', kind)
    for number in range(repeated):
        for ending in endings:
            result.add_sample(name + ending, {"a": f"{number}\n"}, number)
    return result


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.lists(st.sampled_from(ENDINGS), unique=True), st.integers(0, 200)),
        max_size=4,
    )
)
def test_the_pieces_are_the_page(kinds: list[tuple[str, list[str], int]]) -> None:
    """The pieces of any metrics, put together, are what the client library renders in one go."""
    given_families = Given(
        family(f"name_{index}", kind, endings, repeated) for index, (kind, endings, repeated) in enumerate(kinds)
    )
    assert b"".join(pages.metrics(given_families)) == generate_latest(given_families)


@given(st.integers(1, 40))
def test_a_family_in_parts_is_one_family(size: int) -> None:
    """A family that comes in parts has one head, and its samples in their order."""
    whole = family("name", "counter", ("_total", "_created"), 100)
    parts = []
    for start in range(0, len(whole.samples), size):
        part = Metric(whole.name, whole.documentation, whole.type)
        part.samples = whole.samples[start : start + size]
        parts.append(part)
    other = GaugeMetricFamily("other", "Another one", value=1)
    assert b"".join(pages.metrics(Given([*parts, other]))) == generate_latest(Given([whole, other]))


def test_no_metrics_are_an_empty_page() -> None:
    """A registry without collectors has an empty page."""
    assert b"".join(pages.metrics(CollectorRegistry())) == b""


def test_the_gateways_metrics_are_whole() -> None:
    """Many routes give each family of the gateway once, with a small piece of the page for a few samples."""
    metrics = Metrics()
    for number in range(3 * PART + 1):
        metrics.series("default", f"model-{number}", "local").observe(200, 0.1, 0.05)
    found = list(pages.metrics(metrics.registry))
    page = b"".join(found).decode()
    for kind in (CounterMetricFamily, HistogramMetricFamily):
        name = "requests_total" if kind is CounterMetricFamily else "request_seconds"
        assert page.count(f"# TYPE beamlit_gateway_{name} ") == 1
        assert page.count(f"# HELP beamlit_gateway_{name} ") == 1
    assert page.count("beamlit_gateway_requests_total{") == 3 * PART + 1
    assert page.count("beamlit_gateway_first_byte_seconds_count{") == 3 * PART + 1
    assert max(piece.count(b"\n") for piece in found) <= pages.SAMPLES
