"""Reports of gateways about their drills: what is read of them, and what is left out."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.observation.drills import MOST_CHARACTERS, MOST_DRILLS, Drill, NoReport, Reading, Report, Round, read_report
from hooks.observation.readings import Unread
from tests.builders import NOW

ENTRY = {
    "namespace": "a",
    "name": "llm",
    "backend": "remote",
    "reason": "TokenRefused",
    "message": "The token endpoint says invalid_client.",
    "observedTime": "2026-03-01T12:00:00Z",
    "consecutiveFailures": 2,
    "lastSuccessTime": None,
    "by": "drill",
    "generation": 4,
}


def report(*entries: Any, gateway: object = "gateway-1") -> bytes:
    """Return the body of a gateway's response."""
    return orjson.dumps({"gateway": gateway, "drills": list(entries)})


def test_an_entry_is_read_whole() -> None:
    """An entry gives its reason, its message, the failures in a row and its times."""
    assert read_report(report(ENTRY)) == Report(
        "gateway-1",
        {
            ("a", "llm"): Drill(
                reasons.TOKEN_REFUSED,
                "The token endpoint says invalid_client.",
                2,
                datetime(2026, 3, 1, 12, tzinfo=UTC),
                gateway="gateway-1",
            )
        },
    )


def test_success_of_traffic() -> None:
    """A success by a client's request is read as one."""
    entry = ENTRY | {"reason": "Proven", "by": "traffic", "lastSuccessTime": "2026-03-01T12:00:01Z"}
    drill = read_report(report(entry)).drills["a", "llm"]
    assert (drill.by_traffic, drill.succeeded) == (True, datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC))
    assert drill.served == drill.succeeded  # of a gateway that does not say it otherwise
    assert not read_report(report(ENTRY | {"by": "traffic"})).drills["a", "llm"].by_traffic


def test_what_a_result_rests_on() -> None:
    """An entry gives the request that its result rests on, when the backend served last, and what a completion took."""
    completion = {"seconds": 0.25, "time": "2026-03-01T12:00:02Z"}
    entry = ENTRY | {"request": "models", "lastServedTime": "2026-03-01T12:00:03Z", "completion": completion}
    drill = read_report(report(entry)).drills["a", "llm"]
    assert (drill.request, drill.token_seconds) == ("models", 0.25)
    assert drill.served == datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)
    assert drill.token_time == datetime(2026, 3, 1, 12, 0, 2, tzinfo=UTC)
    for seconds in (-1, 1e9, "1", None):
        odd = ENTRY | {"completion": {"seconds": seconds}}
        assert read_report(report(odd)).drills["a", "llm"].token_seconds is None


@pytest.mark.parametrize("reason", ["NotTried", "SomethingOfALaterVersion", "", None, 5])
def test_what_is_no_result_is_absent(reason: object) -> None:
    """An entry without a result that is known here counts as no entry."""
    assert read_report(report(ENTRY | {"reason": reason})).drills == {}


def test_wrong_types_count_as_absent() -> None:
    """A value of the wrong type counts as absent, and an entry that is no object is left out."""
    entry: dict[str, Any] = {key: [] for key in ENTRY} | {"namespace": "a", "name": "llm", "reason": "ModelUnknown"}
    entry["consecutiveFailures"] = -3
    assert read_report(report(entry, 1, None, "x", gateway=7)) == Report(
        "", {("a", "llm"): Drill(reasons.MODEL_UNKNOWN, "", 0)}
    )


@pytest.mark.parametrize("place", [0, 1])
def test_of_two_backends_the_one_that_fails_counts(place: int) -> None:
    """A route with two remote backends fails where one of them does."""
    entries = [ENTRY | {"reason": "Proven"}, ENTRY]
    drills = read_report(report(*(entries if place else reversed(entries)))).drills
    assert drills["a", "llm"].reason == reasons.TOKEN_REFUSED


def test_messages_are_bounded_lines() -> None:
    """A message is one line of printable characters, of bounded length."""
    message = read_report(report(ENTRY | {"message": "one\n\ttwo\x1b[2J " + "x" * 9999})).drills["a", "llm"].message
    assert message.startswith("one two\N{REPLACEMENT CHARACTER}[2J x")
    assert len(message) <= MOST_CHARACTERS


def test_entries_are_bounded() -> None:
    """Entries beyond the bound are not read."""
    entries = [{"namespace": "a", "name": str(number), "reason": "Proven"} for number in range(MOST_DRILLS + 5)]
    assert len(read_report(report(*entries)).drills) == MOST_DRILLS


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b'{"drills": {}}', b"\xff\xfe", b"[" * 100_000, b'{"drills":' * 100_000]
)
def test_something_else_is_no_report(content: bytes) -> None:
    """A response that is not such JSON, however deep, is no report."""
    with pytest.raises(NoReport, match=r"^responds with "):
        read_report(content)


def test_a_report_of_too_many_values_is_none() -> None:
    """A small report whose values would take a lot of memory is refused before it is parsed."""
    with pytest.raises(NoReport, match="more values than hooks read"):
        read_report(b'{"drills": [' + b"[]," * (1 << 20) + b"{}]}")


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists and objects of JSON, of which some look like a report."""
    return st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*ENTRY, "drills", "gateway"]), inner, max_size=4
    )


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), nested, max_leaves=12))
def test_any_json_is_a_report_or_none(content: Any) -> None:
    """Any JSON gives a report, or the error that says that it is none."""
    for document in (content, {"drills": content}, {"drills": [content]}):
        try:
            found = read_report(orjson.dumps(document))
        except NoReport:
            continue
        assert all(drill.failures >= 0 for drill in found.drills.values())


def test_the_reading_of_a_route() -> None:
    """A reading of a route has the drills of the gateways that have tried its backend, or why nothing was reported."""
    drill = Drill(reasons.PROVEN, "", 0)
    reports = (Report("1", {("a", "llm"): drill}), Report("2", {}))
    assert Round(NOW, reports).of(("a", "llm")) == Reading(NOW, (drill,))
    assert Round(NOW, reports).of(("b", "llm")) == Reading(NOW)
    unread = Unread(reasons.UNREACHABLE, "It is gone.")
    assert Round(NOW, unread=unread).of(("a", "llm")) == Reading(NOW, (), unread)
