"""Verdict of the fault campaign on what clients saw: it must not excuse too much."""

import json
from typing import Any

import pytest

from faults.judge import Response, judge
from faults.records import Outcome, Record
from faults.scenarios import Stop
from faults.verdict import excuse, executed_twice, tally

STOP = Stop("one", at=10.0, limit=4.0, seconds=4.2, code=0)
REFUSED = {
    "outcome": Outcome.STATUS,
    "status": 502,
    "code": "credentials_refused",
    "phase": "tokens revoked",
    "backend": "remote",
}
"""Fields of a request that the remote backend refused because of a revoked token."""


def record(**values: Any) -> Record:
    """Return the record of a stream of the local backend, from second 9 to 15, that ended with an error event."""
    fields: dict[str, Any] = {"user": "a", "kind": "stream", "phase": "p", "begun": 9.0, "ended": 15.0}
    fields |= {"outcome": Outcome.TOLD, "status": 200, "backend": "local", "code": "upstream_reset", "via": "one"}
    return Record(**(fields | values))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "cut"),
        ({"backend": "remote"}, None),  # which was not killed
        ({"ended": 9.5}, None),  # over before the kill
        ({"begun": 13.0}, None),  # begun long after it
        ({"outcome": Outcome.FALSE_END}, None),
        ({"outcome": Outcome.TRUNCATED}, None),  # a stream has to end with an error event
        ({"kind": "large", "outcome": Outcome.TRUNCATED}, "cut"),
        ({"kind": "large", "outcome": Outcome.STATUS, "status": 502}, None),
        ({"kind": "upload", "outcome": Outcome.STATUS, "status": 502}, "spent"),
        ({"kind": "upload", "outcome": Outcome.STATUS, "status": 502, "code": "connect_failed"}, None),
        ({**REFUSED, "kind": "upload"}, "spent"),
        ({**REFUSED, "kind": "upload", "phase": "tokens down"}, None),  # without a token nothing was sent
        ({**REFUSED, "kind": "upload", "code": "credentials_failed"}, None),
        ({**REFUSED, "kind": "chat"}, None),  # which could be sent again
        ({"code": "gateway_stopping"}, "cut"),
        ({"code": "gateway_stopping", "via": "two"}, None),
        ({"code": "gateway_stopping", "ended": 12.0}, None),  # within the drain time nothing is cut
        ({"code": "idle_timeout"}, None),
        ({"phase": "stalled"}, None),  # no stream had begun to flow there
        ({"phase": "stalled", "kind": "large", "outcome": Outcome.TRUNCATED}, "cut"),
    ],
)
def test_what_excuses_a_cut_response(values: dict[str, Any], why: str | None) -> None:
    """Only a kill of its own backend, or the end of its own gateway's drain time, excuses a cut response."""
    assert excuse(record(**values), [12.0], [STOP]) == why


def test_errors_are_counted_and_missing_events_of_those_alone() -> None:
    """A failure that is not excused counts as an error with its missing events; an excused one does not."""
    result = tally([record(missing=3), record(missing=4, phase="q", backend="remote")], [12.0], [])
    assert (result[""].requests, result[""].cut, result[""].errors.total(), result[""].missing) == (2, 1, 1, 4)
    assert (result["p"].cut, result["q"].cut) == (1, 0)


def test_an_execution_after_a_byte_is_a_duplicate() -> None:
    """A request that was executed twice is a duplicate only if the second execution began after a byte of the first
    response."""
    near = "E a 1.0\nE b 1.0\nA b 1.1\nE c 1.0\nA c 1.1\n"
    far = "E a 1.5\nA a 1.6\nE b 1.5\nA b 1.6\nE probe 1\nA probe 2\nE probe 3\n"
    assert executed_twice([near, far]) == (["b"], 2)


def events(*numbers: int, user: str = "a", end: bytes = b"data: [DONE]\n\n") -> bytes:
    """Return the body of a stream with these events."""
    pieces = [{"choices": [{"delta": {"content": f"{user}:{number} "}}]} for number in numbers]
    return b"".join(b"data: %b\n\n" % json.dumps(piece).encode() for piece in pieces) + end


ERROR = b'data: {"error":{"code":"upstream_reset"}}\n\n'


@pytest.mark.parametrize(
    ("body", "complete", "outcome", "missing", "repeated"),
    [
        (events(0, 1, 2), True, Outcome.OK, 0, 0),
        (b": keep-alive\n\n" + events(0, 1, 2), True, Outcome.OK, 0, 0),
        (events(0, 1, end=b""), True, Outcome.FALSE_END, 1, 0),
        (events(0, 1), True, Outcome.FALSE_END, 1, 0),
        (events(0, 1, 2, end=b""), True, Outcome.FALSE_END, 0, 0),
        (events(0, 1, end=ERROR), True, Outcome.FALSE_END, 1, 0),
        (events(0, 1, end=ERROR), False, Outcome.TOLD, 1, 0),
        (events(0, 1, end=b"data: {"), False, Outcome.TRUNCATED, 1, 0),
        (events(0, 2), True, Outcome.FALSE_END, 1, 0),
        (events(0, 1, 1, 2), True, Outcome.OK, 0, 1),
        (events(0, 1, 2, user="b"), True, Outcome.CROSSED, 0, 0),
        (b"what\n\n", True, Outcome.WRONG_BODY, 0, 0),
    ],
)
def test_a_stream_is_judged_by_its_events(
    body: bytes, complete: bool, outcome: Outcome, missing: int, repeated: int
) -> None:
    """A stream is judged by its events: lost, repeated and foreign ones, and an end that is false."""
    one = Record("a", "stream", "p", 0.0)
    judge(one, Response(200, {}, body, complete), "", 3)
    assert (one.outcome, one.missing, one.repeated) == (outcome, missing, repeated)
