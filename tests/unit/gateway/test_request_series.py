"""Metrics of requests beyond status and duration: time, tokens and attempts."""

from prometheus_client import generate_latest

from gateway.request_series import Prices
from gateway.telemetry import Metrics
from tests.unit.gateway.test_journal import record

LABELS = {"namespace": "team", "model": "demo", "backend": "local"}


def test_what_requests_had_is_exposed() -> None:
    """Each metric has the values of the requests that had them, with cumulative buckets."""
    metrics = Metrics()
    series = metrics.series("team", "demo", "local").requests
    series.count(record(prompt_tokens=5, completion_tokens=2, first_event=0.3, between_events=0.02), 0.002)
    series.count(record(prompt_tokens=7, first_event=3.0, queued=1.5), 1.504)
    series.count(record(failures=[("remote", "503", 0.1, None), ("other", "503", 0.1, None)]), 0.0001)

    def value(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(f"beamlit_gateway_{name}", LABELS | more)

    assert (value("tokens_total", direction="input"), value("tokens_total", direction="output")) == (12, 2)
    assert value("first_token_seconds_bucket", le="0.5") == 1
    assert (value("first_token_seconds_count"), value("first_token_seconds_sum")) == (2, 3.3)
    assert (value("between_tokens_seconds_count"), value("between_tokens_seconds_sum")) == (1, 0.02)
    assert (value("queue_seconds_count"), value("queue_seconds_sum")) == (1, 1.5)
    assert (value("overhead_seconds_bucket", le="0.0001"), value("overhead_seconds_count")) == (1, 3)
    assert value("overhead_seconds_bucket", le="0.005") == 3
    assert (value("request_attempts_bucket", le="1.0"), value("request_attempts_sum")) == (2, 5)


def test_costs_are_estimated_where_prices_are_known() -> None:
    """Tokens cost what a million of them cost, those of prompts and of completions apart; unknown ones cost nothing."""
    metrics = Metrics()
    series = metrics.series("team", "demo", "local").requests
    name = "beamlit_gateway_estimated_cost_total"
    series.count(record(prompt_tokens=5), 0.1)
    assert metrics.registry.get_sample_value(name, LABELS) is None
    prices = Prices(prompt=2.0, completion=10.0)
    series.count(record(), 0.1, prices)
    assert metrics.registry.get_sample_value(name, LABELS) == 0
    series.count(record(prompt_tokens=500_000), 0.1, prices)
    series.count(record(prompt_tokens=1_000_000, completion_tokens=100_000), 0.1, prices)
    assert metrics.registry.get_sample_value(name, LABELS) == 4


def test_what_no_request_had_takes_no_room() -> None:
    """A backend whose requests had no stream, no queue and no tokens has none of these series."""
    metrics = Metrics()
    metrics.series("team", "demo", "local").requests.count(record(), None)
    text = generate_latest(metrics.registry).decode()
    for name in ("first_token_seconds", "between_tokens_seconds", "queue_seconds", "overhead_seconds", "tokens_total"):
        assert f"# TYPE beamlit_gateway_{name}" in text
        assert f"beamlit_gateway_{name}{{" not in text
        assert f"beamlit_gateway_{name}_count" not in text


def test_a_route_that_is_gone_is_forgotten() -> None:
    """The metrics of a route that is gone are exposed no more."""
    metrics = Metrics()
    metrics.series("team", "demo", "local").requests.count(record(prompt_tokens=1, first_event=1.0), 0.1)
    assert b"team" in generate_latest(metrics.registry)
    metrics.forget("team", "demo")
    assert b"team" not in generate_latest(metrics.registry)
