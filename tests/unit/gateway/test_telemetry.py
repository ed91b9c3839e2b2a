"""Metrics of routes, and an access log that never blocks its caller."""

import io
import threading
from uuid import UUID

import orjson
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from gateway.telemetry import ACCESS_LOG_LINES, AccessLog, Metrics, RequestIds
from tests.deadlines import SECONDS


class Stuck(io.StringIO):
    """Stream that blocks until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        """Write after `go` is set."""
        self.go.wait()
        return super().write(text)


def test_rd_15_a_stream_that_blocks_costs_lines_and_no_time() -> None:
    """RD-15: while the stream blocks, records gather up to the bound; further ones are dropped and counted."""
    metrics, stream = Metrics(), Stuck()
    log = AccessLog(stream, metrics.access_log_dropped)
    for number in range(3 * ACCESS_LOG_LINES):
        log.write({"number": number})
    dropped = metrics.registry.get_sample_value("beamlit_gateway_access_log_dropped_lines_total") or 0
    assert ACCESS_LOG_LINES <= dropped <= 2 * ACCESS_LOG_LINES
    stream.go.set()
    log.close()
    numbers = [orjson.loads(line)["number"] for line in stream.getvalue().splitlines()]
    assert len(numbers) + dropped == 3 * ACCESS_LOG_LINES
    assert numbers == sorted(numbers)


def test_closing_waits_a_second_at_most() -> None:
    """A stream that blocks forever does not keep the process from ending."""
    stream = Stuck()
    log = AccessLog(stream, Metrics().access_log_dropped)
    log.write({"a": 1})
    closing = threading.Thread(target=log.close, daemon=True)
    closing.start()
    closing.join(SECONDS)
    assert not closing.is_alive()
    stream.go.set()


def test_a_stream_that_is_gone() -> None:
    """A record that cannot be written to a closed stream is counted as dropped."""
    metrics, stream = Metrics(), io.StringIO()
    stream.close()
    log = AccessLog(stream, metrics.access_log_dropped)
    log.write({"a": 1})
    log.close()
    assert metrics.registry.get_sample_value("beamlit_gateway_access_log_dropped_lines_total") == 1


def test_a_log_that_is_off() -> None:
    """A log without a stream is not enabled and closes at once."""
    log = AccessLog(None, Metrics().access_log_dropped)
    assert not log.enabled
    log.close()


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63) | st.none(), max_size=4))
def test_se_07_a_record_is_one_line(record: dict[str, object]) -> None:
    """SE-07: any record is written as one line of JSON."""
    stream = io.StringIO()
    log = AccessLog(stream, Metrics().access_log_dropped)
    log.write(record)
    log.close()
    line, _, rest = stream.getvalue().partition("\n")
    assert rest == ""
    assert orjson.loads(line) == record


def test_a_route_is_exposed_until_it_is_forgotten() -> None:
    """Metrics of a route are exposed with cumulative buckets until the route is forgotten."""
    metrics = Metrics()
    series = metrics.series("team", "demo", "local")
    assert metrics.series("team", "demo", "local") is series
    for seconds in (0.004, 0.005, 0.3, 1000):
        series.observe(200, seconds, seconds / 2)
    series.observe(499, 0.1, None)
    labels = {"namespace": "team", "model": "demo", "backend": "local"}

    def value(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels | more)

    assert value("beamlit_gateway_requests_total", code="200") == 4
    assert value("beamlit_gateway_requests_total", code="499") == 1
    assert value("beamlit_gateway_request_seconds_bucket", le="0.005") == 2
    assert value("beamlit_gateway_request_seconds_bucket", le="0.5") == 4
    assert value("beamlit_gateway_request_seconds_bucket", le="+Inf") == 5
    assert value("beamlit_gateway_request_seconds_count") == 5
    assert value("beamlit_gateway_request_seconds_sum") == 1000.409
    assert value("beamlit_gateway_first_byte_seconds_count") == 4
    assert b'le="600.0"' in generate_latest(metrics.registry)
    metrics.forget("team", "demo")
    assert b"demo" not in generate_latest(metrics.registry)


def test_ids_of_requests_are_uuids() -> None:
    """Each id that the gateway makes is another UUID, as servers ask for that check it."""
    new_id, other = RequestIds(), RequestIds()
    ids = [new_id().decode() for _ in range(300)] + [other().decode()]
    assert len(set(ids)) == 301
    assert all(str(UUID(one)) == one and UUID(one).version == 4 for one in ids)
