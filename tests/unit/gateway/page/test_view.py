"""Rows of the page: what a person reads about a route, a backend, a pod and a request."""

from typing import Any

import pytest

from gateway import journal
from gateway.api.v1alpha1 import Backend, HealthCheck, RouteDocument
from gateway.page import view
from gateway.page.traffic import Traffic
from gateway.page.view import Level, RouteRow, duration, request_row, route_row
from tests.unit.gateway.test_journal import record

LOCAL = Backend(id="local", service="demo-local", port=80, weight=70, in_flight=8, health=HealthCheck(path="/health"))
REMOTE = Backend(id="remote", host="remote.example", weight=30)


def backend(one: str = "local", **values: Any) -> dict[str, Any]:
    """Return the state of a sound backend as `/routes` has it, with some values replaced."""
    sound = {"id": one, "place": one, "breaker": "closed", "coolDownSeconds": 0.0, "healthy": True, "inFlight": 0,
             "queued": 0}  # fmt: skip
    return sound | values


def row(
    local: dict[str, Any] | None = None, *, weights: tuple[int, int] = (70, 30), traffic: Traffic | None = None,
    **values: Any,
) -> RouteRow:  # fmt: skip
    """Return the row of a route with a local and a remote backend, with some values of its state replaced."""
    backends = tuple(
        one.model_copy(update={"weight": weight}) for one, weight in zip((LOCAL, REMOTE), weights, strict=True)
    )
    state = {
        "namespace": "default", "configMap": "demo-route", "origin": "default/demo-route", "error": None,
        "unknownFields": 0, "since": "2026-01-01T00:00:00Z", "inForce": True, "name": "demo", "hash": "abc",
        "reason": "MetricReached", "backends": [local or backend(), backend("remote")],
    }  # fmt: skip
    document = RouteDocument(name="demo", backends=backends)
    return route_row(state | values, document, traffic or Traffic(), age=5.0)


def texts(one: RouteRow) -> str:
    """Return the notes of a route as one text."""
    return "\n".join(f"{note.level} {note.text}" for note in one.notes)


def test_a_sound_route() -> None:
    """A route in whose way nothing is has no notes, and says whether it is offloaded and why."""
    one = row()
    assert (one.level, one.state, one.offloaded, one.notes) == (Level.INFO, "offloads", True, [])
    assert (one.split, one.reason) == ("local 70 %, remote 30 %", "MetricReached")
    assert one.meaning.startswith("A metric has reached its target")
    assert [part.state for part in one.backends] == ["takes requests", "takes requests"]
    assert [part.health for part in one.backends] == ["passes", "not checked"]
    at_home = row(weights=(100, 0), reason="Local")
    assert (at_home.level, at_home.state, at_home.offloaded) == (Level.OK, "serves", False)
    assert at_home.backends[1].state == "stands by"


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ({"breaker": "open"}, Level.BAD, "breaker open"),
        ({"breaker": "halfOpen"}, Level.BAD, "half-open"),
        ({"healthy": False}, Level.BAD, "fails its health checks"),
        ({"coolDownSeconds": 12.3}, Level.WARN, "cools down for another 12 s"),
        ({"inFlight": 8}, Level.WARN, "at its limit"),
        ({"queued": 3}, Level.OK, "takes requests"),
    ],
)
def test_a_backend_that_does_not_take_requests(state: dict[str, Any], level: Level, words: str) -> None:
    """The state of a backend is said in words, and its route, which the other backend serves, needs a look."""
    one = row(backend(**state))
    assert (one.backends[0].level, words in one.backends[0].state) == (level, True)
    assert words in texts(one) or "local: 3 requests in the queue." in texts(one)
    assert (one.level, one.state) == (Level.WARN, "needs a look")


def test_a_backend_without_weight_is_no_alarm() -> None:
    """A backend that only stands by needs a look when it fails, and no more: all requests are served."""
    one = row(backend(breaker="open"), weights=(0, 100), reason="NoReadyReplica")
    assert (one.level, one.backends[0].level) == (Level.WARN, Level.BAD)
    assert "warn No local replica is ready. All requests are offloaded." in texts(one)
    assert row(weights=(0, 100), reason="ScaledToZero").notes == []


def test_a_route_without_any_backend() -> None:
    """A route whose backends all fail, and one whose split gives none any requests, is in trouble."""
    failing = [backend(breaker="open"), backend("remote", healthy=False)]
    alone = row(backends=failing)
    assert texts(alone).startswith("bad No backend takes requests as it should.")
    assert "bad local: breaker open" in texts(alone)
    assert "bad The split gives no backend any requests" in texts(row(weights=(0, 0)))


def test_a_document_that_is_refused() -> None:
    """A refused document is in trouble where there is no good one, and needs a look where the last good one stays."""
    state = {"namespace": "a", "configMap": "x", "origin": "f", "error": "weight is wrong", "unknownFields": 0,
             "since": None, "inForce": False, "name": None, "hash": None, "reason": None, "backends": []}  # fmt: skip
    one = route_row(state, None, Traffic(), age=5.0)
    assert (one.key, one.level, one.is_known, one.since) == ("a/x", Level.BAD, False, "")
    assert "requests get 404: weight is wrong." in texts(one)
    assert row(error="weight is wrong").level is Level.WARN
    assert "not in force: another has its name." in texts(row(inForce=False, error="another has its name"))


def test_failures_and_diversions() -> None:
    """Requests that failed or went elsewhere are counted by status and by reason, in the order of their numbers."""
    traffic = Traffic()
    records = [record(at=10.0)] * 20 + [record(at=10.0, status=502)] * 2 + [record(at=10.0, status=503)]
    list(traffic.count(iter([*records, record(at=10.0, reason="Failover")]), 12.0, whole=True))
    one = row(traffic=traffic)
    assert "bad 3 of 24 requests failed: 502 ×2, 503 ×1, the last one 0 ms ago." in texts(one)
    words = "1 request went elsewhere than the split says: Failover ×1, the last one 0 ms ago."
    assert f"warn {words}" in texts(one)
    assert (one.requests, one.observed) == (24, "local 100 %")


@pytest.mark.parametrize(
    ("local", "remote", "observed"),
    [(0, 0, ""), (1, 0, "local 100 %"), (7, 3, "local 70 %, remote 30 %"), (999, 1, "local 99 %, remote 1 %")],
)
def test_where_responses_came_from(local: int, remote: int, observed: str) -> None:
    """Beside the split stands where responses came from, and a small part of them is never nothing."""
    traffic = Traffic()
    records = [record(at=9.0)] * local + [record(at=9.0, backend="remote")] * remote
    list(traffic.count(iter(records), 12.0, whole=True))
    assert row(traffic=traffic).observed == observed


def test_failures_that_have_stopped() -> None:
    """Failures are no alarm any more when the last one is a while ago, and neither are a few among many requests."""
    for ago, number, level in ((5.0, 9, Level.BAD), (90.0, 9, Level.WARN), (5.0, 10, Level.WARN)):
        traffic = Traffic()
        records = [record(at=98.0 - ago, status=502), *[record(at=1.0)] * number]
        list(traffic.count(iter(records), 100.0, whole=True))
        one = row(traffic=traffic)
        assert one.level is level
        assert f"failed: 502 ×1, the last one {duration(ago)} ago." in texts(one)


def test_pods() -> None:
    """Pods in trouble come first and are counted, those that are too many are left out, and the row says so."""
    pods = [{"name": f"pod-{number}", "inFlight": 0, "breaker": "closed", "coolDownSeconds": 0.0}
            for number in range(view.MOST_PODS + 5)]  # fmt: skip
    pods[-1]["breaker"] = "open"
    one = row(backend(pods=pods))
    local = one.backends[0]
    assert (local.pods[0].name, local.pods[0].level) == (f"pod-{view.MOST_PODS + 4}", Level.BAD)
    assert (len(local.pods), local.more_pods, local.pods_in_trouble) == (view.MOST_PODS, 5, 1)
    assert f"warn local: 1 of {view.MOST_PODS + 5} pods in trouble." in texts(one)


def test_a_limit_of_streams() -> None:
    """The limit of streams is shown with its ceiling, its target and why it moved last."""
    streams = {"firstTokenSeconds": 0.5, "limit": 6, "ceiling": 8, "inFlight": 4, "cuts": 1, "raises": 0,
               "last": {"secondsAgo": 3.0, "from": 8, "to": 6, "reason": "late",
                        "message": "5 of 20 first events were late."}}  # fmt: skip
    text = row(backend(streams=streams)).backends[0].streams
    assert text == (
        "4 of 6 streams (8 at most), for a first token in 500 ms; 3.0 s ago 8 → 6: 5 of 20 first events were late."
    )


@pytest.mark.parametrize(
    ("result", "level", "words"),
    [
        ({}, Level.OK, "Its name resolves. That was at 2026-01-01T00:00:00Z."),
        ({"reason": "NotTried", "observedTime": None}, Level.INFO, "Its name resolves."),
        ({"reason": "TokenRefused", "consecutiveFailures": 3, "lastSuccessTime": None}, Level.WARN,
         "That was at 2026-01-01T00:00:00Z, after 3 failures in a row, without any success before."),
        ({"reason": "Forbidden", "consecutiveFailures": 1}, Level.WARN,
         "after 1 failure in a row; the last success was at 2025-12-31T00:00:00Z."),
    ],
)  # fmt: skip
def test_drills(result: dict[str, Any], level: Level, words: str) -> None:
    """The last result of a drill is shown with its sentence, and its route needs a look where the drill has failed."""
    proven = {
        "reason": "Proven", "message": "Its name resolves.", "observedTime": "2026-01-01T00:00:00Z", "by": "drill",
        "consecutiveFailures": 0, "lastSuccessTime": "2025-12-31T00:00:00Z",
    }  # fmt: skip
    one = row(backends=[backend(), backend("remote", drill=proven | result)])
    drill = one.backends[1].drill
    assert drill is not None
    assert (drill.level, drill.text.endswith(words)) == (level, True)
    assert one.backends[0].drill is None
    assert one.level is (Level.WARN if level is Level.WARN else Level.INFO)
    assert ("remote: the drill found" in texts(one)) is (level is Level.WARN)


def test_requests() -> None:
    """A request is told with its attempts when one failed, and with what else went wrong."""
    plain = request_row(journal.decision(record()), "12:00")
    assert (plain.level, plain.eventful, plain.trouble, plain.seconds) == (Level.OK, False, "", "2.0 s")
    failed = record(
        status=502, code="upstream_reset", broken=None, reason="Failover", backend="remote", queued=0.25,
        not_retryable="budget", failures=[("local", "503", 0.1, "pod-1"), ("remote", "reset", 0.2, None)],
    )  # fmt: skip
    one = request_row(journal.decision(failed), "12:00")
    assert (one.level, one.eventful, one.queued) == (Level.BAD, True, "250 ms")
    assert one.trouble == "upstream_reset, not tried elsewhere: budget"
    assert [(attempt.place, attempt.outcome, attempt.seconds) for attempt in one.attempts] == [
        ("local pod-1", "503", "100 ms"),
        ("remote", "reset", "200 ms"),
    ]
    assert request_row(journal.decision(record(status=499)), "").level is Level.WARN
    assert request_row(journal.decision(record(broken="reset")), "").trouble == "broke off: reset"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (9.94, "9.9 s"), (15, "15 s"), (119, "119 s"), (121, "2 min"),
     (7300, "2 h"), (900000, "10 d")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """A time is written in the unit in which a person says it."""
    assert duration(seconds) == text
