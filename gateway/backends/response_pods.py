"""Pods that have made responses to which later requests refer, as far as this gateway remembers."""

import hashlib
import re
from typing import Final

MOST_RESPONSES: Final = 8192
"""Responses of one route that are remembered, the last ones."""
BEGINNING_BYTES: Final = 16384
"""Bytes of a response within which its id has to be."""

_ID: Final = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"([^"\\]{1,256})"')


class ResponsePods:
    """Pods by the ids of their responses, each for its caller only.

    It is a hint: a request for a response that is forgotten goes to any pod.
    """

    __slots__ = ("_most", "_pods")

    def __init__(self, most: int = MOST_RESPONSES) -> None:
        """Remember nothing yet, and at most as many responses as `most`."""
        self._most = most
        self._pods: dict[bytes, str] = {}
        """Names of pods by digests of a caller and an id, the oldest first."""

    def __len__(self) -> int:
        """Return the number of responses that are remembered."""
        return len(self._pods)

    def remember(self, caller: bytes, response: bytes, pod: str) -> None:
        """Note that a pod has made a response for a caller."""
        if len(self._pods) >= self._most:
            del self._pods[next(iter(self._pods))]
        self._pods[_digest(caller, response)] = pod

    def pod_of(self, caller: bytes, response: bytes) -> str | None:
        """Return the name of the pod that has made a response for this caller; None where it is not known."""
        return self._pods.get(_digest(caller, response))


def id_in(beginning: bytes) -> bytes | None:
    """Return the id of a response by the beginning of its body, JSON or a stream of events; None without one."""
    found = _ID.search(beginning)
    return None if found is None else found.group(1)


def _digest(caller: bytes, response: bytes) -> bytes:
    return hashlib.blake2b(b"%d %b%b" % (len(caller), caller, response), digest_size=16).digest()
