"""Meter of a response: times between events, and the parts of a body in which its usage may stand."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.token_usage import END_BYTES, TokenUsage
from gateway.upstream.meter import ResponseMeter

USAGE = b'data: {"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\ndata: [DONE]\n\n'


def test_one_read_has_no_time() -> None:
    """Without two reads there is no time between them."""
    meter = ResponseMeter(keeps=False)
    meter.arrived(10.0)
    assert meter.mean is None


def test_times_between_reads() -> None:
    """Mean and longest time are those between reads, without the time for which the client did not read."""
    meter = ResponseMeter(keeps=False)
    meter.resumed(5.0)
    meter.arrived(10.0)
    assert meter.gaps == 0
    meter.arrived(11.0)
    meter.arrived(14.0)
    meter.resumed(100.0)
    meter.arrived(100.5)
    assert (meter.seconds, meter.longest, meter.gaps) == (4.5, 3.0, 3)
    assert meter.mean == 1.5


@given(st.lists(st.integers(1, 3 * END_BYTES), max_size=20), st.integers(1, 200))
def test_the_end_is_found_in_pieces_of_any_size(sizes: list[int], step: int) -> None:
    """The usage at the end is found whatever comes before it and however both are cut, in bounded memory."""
    meter = ResponseMeter(keeps=True)
    for size in sizes:
        meter.keep(b"x" * size)
    for start in range(0, len(USAGE), step):
        meter.keep(USAGE[start : start + step])
        assert len(meter._older) <= END_BYTES
        assert sum(map(len, meter._pieces)) < END_BYTES
    assert meter.usage() == TokenUsage(2, 3)


def test_a_body_that_cannot_be_read_is_not_kept() -> None:
    """A compressed body has no usage, and none of it is kept."""
    meter = ResponseMeter(keeps=False)
    meter.keep(USAGE)
    assert meter.usage() is None
    assert meter._pieces == []
