"""Rules of failover: causes, the retry budget, the first event of a stream, and Retry-After."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.api.v1alpha1 import Retry
from gateway.api.vocabulary import FailureCause
from gateway.backends import failover
from gateway.http.event_stream import FirstEvent


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.ConnectFailed(), FailureCause.CONNECT_FAILURE),
        (errors.ConnectTimeout(), FailureCause.CONNECT_FAILURE),
        (errors.TlsFailed(), FailureCause.CONNECT_FAILURE),
        (errors.AddressRefused(), FailureCause.CONNECT_FAILURE),
        (errors.CredentialsFailed(), FailureCause.CONNECT_FAILURE),
        (errors.FirstByteTimeout(), FailureCause.FIRST_BYTE_TIMEOUT),
        (errors.FirstTokenTimeout(), FailureCause.FIRST_TOKEN_TIMEOUT),
        (errors.UpstreamReset(), FailureCause.RESET),
        (errors.IdleTimeout(), FailureCause.RESET),
        (errors.BadResponse(), None),
    ],
)
def test_rt_01_rt_05_every_error_has_its_cause(error: errors.UpstreamError, cause: FailureCause | None) -> None:
    """Each error has its cause: a connect failure where nothing was sent, none for a response that is not HTTP."""
    assert failover.cause_of(error) is cause


def test_rt_06_statuses_of_the_default_causes() -> None:
    """Six statuses are causes by default."""
    assert sorted(failover.statuses(Retry().on)) == [408, 429, 502, 503, 504, 529]
    assert failover.statuses([FailureCause.RESET]) == {}


@pytest.mark.parametrize(
    ("causes", "more"),
    [(Retry().on, set()), (("reset",), set()), (("500", "404"), {500}), (("599", "409", "501"), {501, 599})],
)
def test_rt_06_statuses_that_count_as_failures(causes: tuple[str, ...], more: set[int]) -> None:
    """A status from 500 on that a route names counts as a failure of the backend, one below does not."""
    assert failover.failure_statuses(causes) == {429, 502, 503, 504, 529} | more


# Retry budget


class _Model:
    """Model of the budget with a list instead of buckets."""

    def __init__(self, percentage: int, per_second: int) -> None:
        self.percentage, self.per_second = percentage, per_second
        self.requests: deque[int] = deque()
        self.retries: deque[int] = deque()

    def count(self, now: float) -> None:
        self.requests.append(int(now))

    def take(self, now: float) -> bool:
        oldest = int(now) - failover.BUDGET_SECONDS
        requests = sum(one > oldest for one in self.requests)
        retries = sum(one > oldest for one in self.retries)
        if retries >= max(requests * self.percentage / 100, self.per_second * failover.BUDGET_SECONDS):
            return False
        self.retries.append(int(now))
        return True


@given(
    st.integers(0, 100),
    st.integers(0, 2),
    st.lists(st.tuples(st.floats(0, 4) | st.floats(0, 25), st.integers(0, 30), st.integers(0, 12)), max_size=30),
    st.floats(0, 1e6),
)
def test_rt_10_the_budget_is_its_share_of_the_window_or_its_floor(
    percentage: int, per_second: int, steps: list[tuple[float, int, int]], start: float
) -> None:
    """The buckets allow the same retries as a list of all requests and retries would."""
    budget, model, now = failover.RetryBudget(percentage, per_second), _Model(percentage, per_second), start
    for pause, requests, retries in steps:
        now += pause
        for _ in range(requests):
            budget.count(now)
            model.count(now)
        for _ in range(retries):
            assert budget.take(now) == model.take(now)


def test_rt_10_a_budget_without_floor_and_share_allows_nothing() -> None:
    """A budget of 0 percent and 0 per second allows no retry."""
    budget = failover.RetryBudget(0, 0)
    for _ in range(1000):
        budget.count(5.0)
    assert not budget.take(5.0)


# First event of a stream


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (['data: {"error": {"message": "no"}}', ""], True),
        (['data:{"error":"no"}', ""], True),
        (["event: error", "data: what went wrong", ""], True),
        (["", "", "event: error", ""], True),
        (["id: 1", 'data: {"error":', 'data: {"code": 1}}', ""], True),
        (['data: {"choices": [{"error": 1}]}', ""], False),
        (['data: {"error": null, "choices": []}', ""], False),
        (["data: [DONE]", ""], False),
        (['data: "error"', ""], False),
        (['data: ["error"]', ""], False),
        (['data: {"error": no}', ""], False),
        (["event: message", "data: x", ""], False),
        (["event:  error", "data: x", ""], False),
        ([": keep-alive", "event: error", ""], True),
        (["data: x", ": comment", ""], False),
        (["nonsense", ""], False),
    ],
)
def test_the_first_event_of_a_stream(lines: list[str], error: bool, end: str) -> None:
    """The first event is an error in the forms of OpenAI and of the standard, whatever comes after it."""
    stream = (end.join(lines) + end).encode()
    search = FirstEvent()
    assert search.add(stream + b"event: error" + end.encode() * 2)
    assert (failover.error_status(search.event) is not None) is error


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ('{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}', 400),  # vLLM
        ('{"error": {"object": "error", "message": "m", "type": "BadRequestError", "param": null}}', 400),  # SGLang
        ('{"error": {"code": 400, "message": "m", "type": "invalid_request_error"}}', 400),  # llama.cpp
        ('{"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}}', 400),
        ('{"error": {"message": "m", "type": "rate_limit_error"}}', 429),
        ('{"error": {"code": 404, "status": "NOT_FOUND", "message": "m"}}', 404),  # Gemini
        ('{"error": "m", "error_type": "validation"}', 422),  # TGI
        ('{"error": "m", "error_type": "overloaded"}', 429),
        ('{"error": "m", "status": 413}', 413),
        ('{"error": {"message": "m", "code": "415"}}', 415),
        ('{"error": {"message": "m"}, "status_code": 409.0}', 409),
        ('{"error": {"message": "m", "code": 500, "type": "invalid_request_error"}}', 500),
        ('{"error": {"message": "m", "type": "InternalServerError", "code": 500}}', 500),
        ('{"error": {"message": "m", "code": 200}}', 0),
        ('{"error": {"message": "m", "code": true, "status": null}}', 0),
        ('{"error": {"message": "m", "code": "+40"}}', 0),
        ('{"error": {"message": "m", "code": [400], "type": {"a": 1}}}', 0),
        ('{"error": [400]}', 0),
        ('{"error": "m"}', 0),
    ],
)
def test_the_status_of_an_error_in_a_stream(data: str, status: int) -> None:
    """The status of an error is found as servers write it: a number, digits or a type, in the error or beside it."""
    assert failover.error_status(b"data: " + data.encode()) == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ('{"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}', 400),  # Anthropic
        ('{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}', 529),
        ('{"type": "error", "code": "rate_limit_exceeded", "message": "m"}', 429),  # OpenAI's responses
        ('{"code": 400}', 400),
        ('{"code": 400', 0),
        ("what went wrong", 0),
    ],
)
def test_the_status_of_an_error_event(data: str, status: int) -> None:
    """The status of an event that is named `error` is found in its data, with or without a member `error`."""
    assert failover.error_status(b"event: error\ndata: " + data.encode()) == status


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        *((status, None) for status in (None, 400, 401, 404, 413, 422, 499)),
        *((status, "streamError") for status in (0, 429, 500, 503, 529)),
        (408, "408"),
    ],
)
def test_a_stream_error_that_is_the_callers_fault_is_no_failure(status: int | None, cause: str | None) -> None:
    """An error from 400 to 499 is the caller's fault, but for 429; one that the route names is a cause as a status."""
    assert failover.stream_cause(status, failover.statuses(Retry().on)) == cause
    assert failover.stream_cause(404, {404: "404"}) == "404"
