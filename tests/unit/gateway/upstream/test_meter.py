"""Meter of a response: times between events, and the usage that its body has."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.token_usage import TokenUsage
from gateway.upstream.meter import KEPT_BYTES, ResponseMeter

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


@given(
    before=st.lists(st.integers(1, 3 * KEPT_BYTES), max_size=20),
    after=st.lists(st.integers(1, 3 * KEPT_BYTES), max_size=20),
    step=st.integers(1, 200),
)
def test_a_usage_is_found_in_pieces_of_any_size(before: list[int], after: list[int], step: int) -> None:
    """The usage is found whatever comes before and behind it, and however it is cut, in bounded memory."""
    meter = ResponseMeter(keeps=True)
    pieces = [b"x" * size for size in before]
    pieces += [USAGE[start : start + step] for start in range(0, len(USAGE), step)]
    pieces += [b"x" * size for size in after]
    for piece in pieces:
        meter.keep(piece)
        assert len(meter._older) <= KEPT_BYTES
        assert sum(map(len, meter._pieces)) < KEPT_BYTES
    assert meter.usage() == TokenUsage(2, 3)


@given(st.integers(0, 3 * KEPT_BYTES))
def test_what_a_later_usage_leaves_out_is_that_of_an_earlier_one(size: int) -> None:
    """The prompt's tokens at the beginning and the completion's at the end are put together, over any distance."""
    meter = ResponseMeter(keeps=True)
    meter.keep(b'data: {"usage":{"input_tokens":25,"output_tokens":1}}\n\n')
    meter.keep(b"x" * size)
    meter.keep(b'data: {"usage":{"output_tokens":15}}\n\n')
    assert meter.usage() == TokenUsage(25, 15)


def test_a_body_that_cannot_be_read_is_not_kept() -> None:
    """A compressed body has no usage, and none of it is kept."""
    meter = ResponseMeter(keeps=False)
    meter.keep(USAGE)
    assert meter.usage() is None
    assert meter._pieces == []
