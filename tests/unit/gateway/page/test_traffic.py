"""Traffic of the last minutes, as the page counts it from the journal."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal import RequestRecord
from gateway.page import traffic
from gateway.page.traffic import Times, Traffic
from tests.unit.gateway.test_journal import record

NOW = 1000.0


def counted(records: Sequence[RequestRecord], *, whole: bool = True) -> Traffic:
    """Return the traffic of records, the newest first."""
    result = Traffic()
    assert len(list(result.count(iter(records), NOW, whole=whole))) == result.requests
    return result


def test_what_is_counted_where() -> None:
    """A response counts for its backend and its pod, a failed attempt for where it failed, a failure for the route."""
    result = counted(
        [
            record(at=NOW - 3, pod="one"),
            record(at=NOW - 4, backend="remote", reason="Failover", failures=[("local", "503", 0.1, "one")]),
            record(at=NOW - 5, status=503, code="no_backend", backend=None, first_byte=None),
            record(at=NOW - 6, broken="idle_timeout"),
            record(at=NOW - 7, status=499, first_byte=None),
            record(at=NOW - 8, route=None, backend=None, status=404, code="route_not_found"),
        ]
    )
    route = result.routes["default/demo"]
    assert (route.requests, route.failed, route.diverted) == (4, {"503": 1, "broke off": 1}, {"Failover": 1})
    assert (result.requests, result.failed, result.seconds) == (6, 2, traffic.WINDOW_SECONDS)
    places = {key[1:]: (one.responses, one.failed) for key, one in result.places.items()}
    assert places == {("local", None): (3, 1), ("local", "one"): (1, 1), ("remote", None): (1, 0)}


def test_a_failed_last_attempt_is_no_response() -> None:
    """Where the client gets the status of a failed attempt, the backend has failed and not responded."""
    result = counted([record(at=NOW - 3, status=503, failures=[("local", "503", 0.1, None)])])
    one = result.places["default/demo", "local", None]
    assert (one.responses, one.failed, len(one.first_bytes)) == (0, 1, 0)


def test_first_tokens_are_those_of_the_backend() -> None:
    """The time to the first token is without the queue and without the attempts at others; a head is no token."""
    result = counted(
        [
            record(at=NOW - 3, queued=0.5, first_event=1.0, backend="remote", failures=[("local", "x", 0.2, None)]),
            record(at=NOW - 3, first_byte=0.25),
        ]
    )
    remote = result.places["default/demo", "remote", None]
    assert remote.first_tokens.quantile(50) == pytest.approx(0.3)
    local = result.places["default/demo", "local", None]
    assert (len(local.first_tokens), local.first_bytes.quantile(95)) == (0, 0.25)


def test_the_window() -> None:
    """Requests that ended before the window do not count; a journal that is full may reach less far back."""
    old = [record(at=NOW - 10), record(at=NOW - 302.5), record(at=NOW - 400)]
    assert (counted(old).requests, counted(old).seconds) == (1, traffic.WINDOW_SECONDS)
    assert counted(old, whole=False).seconds == traffic.WINDOW_SECONDS
    assert counted(old[:1], whole=False).seconds == 8.0


def test_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many requests are counted, and then the counts are about a shorter time."""
    monkeypatch.setattr(traffic, "MOST_RECORDS", 3)
    result = counted([record(at=NOW - 10 - number) for number in range(5)])
    assert (result.requests, result.seconds) == (3, 10.0)


@pytest.mark.parametrize(("percent", "seconds"), [(50, 5.0), (95, 10.0), (100, 10.0), (1, 1.0)])
def test_quantiles(percent: int, seconds: float) -> None:
    """A quantile is the time within which that part of the responses came."""
    times = Times()
    for one in range(10, 0, -1):
        times.add(one)
    assert times.quantile(percent) == seconds


FAILURES = st.tuples(st.sampled_from(["local", "remote"]), st.just("503"), st.just(0.1), st.sampled_from([None, "one"]))
RECORDS = st.lists(
    st.builds(
        record,
        at=st.floats(NOW - 400, NOW),
        status=st.sampled_from([200, 404, 499, 502, 503]),
        backend=st.sampled_from(["local", "remote", None]),
        code=st.sampled_from([None, "no_backend"]),
        reason=st.sampled_from(["Local", "Failover"]),
        first_event=st.sampled_from([None, 0.5]),
        pod=st.sampled_from([None, "one"]),
        failures=st.lists(FAILURES, max_size=2),
    ),
    max_size=8,
)


@settings(max_examples=50)
@given(RECORDS, st.booleans())
def test_no_request_counts_twice(records: list[RequestRecord], whole: bool) -> None:
    """A request counts at most once as a response and each failed attempt once; times are of responses alone."""
    records.sort(key=lambda one: -one.at)
    result = counted(records, whole=whole)
    backends = [one for key, one in result.places.items() if key[2] is None]
    assert sum(one.responses for one in backends) <= result.requests <= len(records)
    assert sum(one.failed for one in backends) <= sum(len(one.failures or ()) for one in records)
    for one in result.places.values():
        assert len(one.first_tokens) + len(one.first_bytes) <= one.responses
    for route in result.routes.values():
        assert sum(route.failed.values()) == result.failed <= result.requests
        assert 0 <= route.failed_ago <= traffic.WINDOW_SECONDS
    assert 0 < result.seconds <= traffic.WINDOW_SECONDS
