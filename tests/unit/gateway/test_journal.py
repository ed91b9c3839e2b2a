"""Records of requests, as the access log and `/decisions` show them."""

from typing import Any

from gateway import journal
from gateway.journal import Journal, RequestRecord


def record(**values: Any) -> RequestRecord:
    """Return the record of a plain request, with some values replaced."""
    fields: dict[str, Any] = {
        "at": 1.5,
        "request_id": b"id",
        "peer": "192.0.2.1",
        "method": b"POST",
        "target": b"/a/b?key=canary",
        "host": "gateway",
        "route": "default/demo",
        "backend": "local",
        "weight": 70,
        "reason": "Local",
        "status": 200,
        "code": None,
        "broken": None,
        "seconds": 2.0,
        "first_byte": 0.5,
        "failures": None,
        "not_retryable": None,
        "queued": 0.0,
    }
    return RequestRecord(**fields | values)


def test_a_request_that_went_well() -> None:
    """A record without failures lists its attempt in `/decisions` only, the client in the log only, and no query."""
    line, decision = journal.line(record()), journal.decision(record())
    assert "attempts" not in line
    assert decision["attempts"] == [{"backend": "local", "cause": None, "seconds": 0.5}]
    assert {key: value for key, value in line.items() if key in decision} == {
        key: value for key, value in decision.items() if key != "attempts"
    }
    assert set(line) - set(decision) == {"event", "peer", "host"}
    assert (line["path"], line["weight"]) == ("/a/b", 70)
    assert "canary" not in str(line) + str(decision)


def test_the_first_event_of_a_stream() -> None:
    """The time of the first event is shown for event streams alone."""
    assert "first_event_seconds" not in journal.line(record())
    assert journal.decision(record(first_event=0.75))["first_event_seconds"] == 0.75


def test_attempts_in_their_order() -> None:
    """Attempts are listed in their order with their seconds, which do not include the time in the queue."""
    one = record(failures=[("local", "503", 0.1, None)], backend="remote", queued=0.2, reason="Failover")
    assert journal.line(one)["attempts"] == [
        {"backend": "local", "cause": "503", "seconds": 0.1},
        {"backend": "remote", "cause": None, "seconds": 0.2},
    ]
    assert journal.line(one)["queued_seconds"] == 0.2


def test_the_last_attempt_may_have_failed() -> None:
    """A failed last attempt is listed once; a request that the gateway refused has no attempt."""
    passed_on = record(failures=[("local", "503", 0.1, None)], not_retryable="budget")
    assert journal.line(passed_on)["attempts"] == [{"backend": "local", "cause": "503", "seconds": 0.1}]
    assert (journal.line(passed_on)["retryable"], journal.line(passed_on)["not_retryable"]) == (False, "budget")
    refused = record(code="at_capacity", first_byte=0.1)
    assert journal.decision(refused)["attempts"] == []
    nowhere = record(route=None, backend=None, weight=None, first_byte=None)
    assert journal.decision(nowhere)["attempts"] == []
    gone = record(status=499, first_byte=None, seconds=0.3)
    assert journal.decision(gone)["attempts"] == [{"backend": "local", "cause": None, "seconds": 0.3}]


def test_the_newest_first_and_no_more_than_there_is_room_for() -> None:
    """The journal drops the oldest records and can list those of one route."""
    last = Journal(3)
    for number, route in enumerate(["a/x", "a/y", "a/x", "a/y", None]):
        last.append(record(status=number, route=route))
    assert [one["status"] for one in last.decisions()] == [4, 3, 2]
    assert [one["status"] for one in last.decisions(route="a/x")] == [2]
    assert [one["status"] for one in last.decisions(limit=2)] == [4, 3]
    assert not list(Journal(0).decisions())


def test_values_of_a_client_are_cut() -> None:
    """Long methods, paths and hosts are cut to their beginning."""
    line = journal.line(record(method=b"M" * 100, target=b"/" + b"p" * 1000, host="h" * 1000))
    assert [len(line[key]) for key in ("method", "path", "host")] == [32, 256, 256]


def test_attempts_at_pods_are_named() -> None:
    """Attempts at pods of one backend are told apart by their pods, the one whose response the client got included."""
    one = record(
        failures=[("local", "connect_failed", 0.1, "a")], backend="local", pod="b", seconds=0.5, first_byte=0.3
    )

    attempts = journal.decision(one)["attempts"]

    assert [(attempt["pod"], attempt["cause"]) for attempt in attempts] == [("a", "connect_failed"), ("b", None)]
    assert journal.line(one)["pod"] == "b"
    assert "pod" not in journal.line(record())


def test_times_and_tokens_are_shown_where_they_are_known() -> None:
    """Times between events and numbers of tokens are in log and `/decisions` where the response has them, zero too."""
    names = {"between_events_seconds", "longest_between_events_seconds", "prompt_tokens", "completion_tokens"}
    assert names.isdisjoint(journal.line(record()))
    known = record(between_events=0.01, longest_between_events=0.5, prompt_tokens=7, completion_tokens=0)
    values = {name: journal.line(known)[name] for name in names}
    assert values == {name: journal.decision(known)[name] for name in names}
    assert values == {
        "between_events_seconds": 0.01,
        "longest_between_events_seconds": 0.5,
        "prompt_tokens": 7,
        "completion_tokens": 0,
    }


def test_the_number_of_attempts() -> None:
    """Failed attempts count, and the one whose response the client got unless it is among them."""
    failures = [("local", "reset", 0.1, None)]
    assert journal.number_of_attempts(record()) == 1
    assert journal.number_of_attempts(record(failures=failures, backend="remote")) == 2
    assert journal.number_of_attempts(record(failures=failures)) == 1
    assert journal.number_of_attempts(record(failures=failures, code="upstream_reset")) == 1
    assert journal.number_of_attempts(record(backend=None)) == 0
