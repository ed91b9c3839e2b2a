"""Pods that have made responses, as far as they are remembered."""

import pytest

from gateway.backends.response_pods import ResponsePods, id_in


def test_a_response_is_known_to_its_caller() -> None:
    """A pod is remembered for the caller who got the response, and for no other."""
    pods = ResponsePods()
    pods.remember(b"team-a", b"resp_1", "demo-0")
    assert pods.pod_of(b"team-a", b"resp_1") == "demo-0"
    assert pods.pod_of(b"team-b", b"resp_1") is None
    assert pods.pod_of(b"team-ar", b"esp_1") is None


def test_the_last_responses_are_remembered() -> None:
    """The oldest response is forgotten for a new one."""
    pods = ResponsePods(most=3)
    for number in range(5):
        pods.remember(b"", b"%d" % number, f"demo-{number}")
    assert len(pods) == 3
    assert [pods.pod_of(b"", b"%d" % number) for number in range(5)] == [None, None, "demo-2", "demo-3", "demo-4"]


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b'{"id":"resp_1","object":"response","output":[{"id":"msg_1"}]}', b"resp_1"),
        (b'event: response.created\ndata: {"type":"response.created","response":{"id" : "resp_2"}}\n\n', b"resp_2"),
        (b'{"error":{"message":"no"}}', None),
        (b'{"id":"resp_', None),
        (b'{"id":5}', None),
        (b'{"id":""}', None),
        (b"\x1f\x8b", None),
    ],
)
def test_the_id_of_a_response(beginning: bytes, expected: bytes | None) -> None:
    """The id is the first one in the body, as JSON or in the first event."""
    assert id_in(beginning) == expected
