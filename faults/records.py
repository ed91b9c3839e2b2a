"""What became of one request of a client, as a line of JSON between the client's process and the campaign."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """The outcome of a request for its client."""

    OK = "ok"
    REFUSED = "refused"
    """The client got no connection."""
    RESET = "reset"
    """The connection ended before the head of a response."""
    TIMEOUT = "timeout"
    STATUS = "status"
    """The response had another status than the expected one."""
    TOLD = "told"
    """A stream broke off with an error event and without an end."""
    TRUNCATED = "truncated"
    """A response broke off, as its framing shows, without an error event."""
    FALSE_END = "falseEnd"
    """A response looks complete and is not."""
    WRONG_BODY = "wrongBody"
    CROSSED = "crossed"
    """A response has bytes of another client's response."""


@dataclass(slots=True)
class Record:
    """The record of one request."""

    user: str
    """Unique name of the request, in its field `user`."""
    kind: str
    phase: str
    """Phase of the campaign in which the request began."""
    begun: float
    """Time at which it began, in monotonic seconds as all times."""
    ended: float = 0.0
    outcome: Outcome = Outcome.OK
    status: int = 0
    code: str = ""
    """Code of the error."""
    backend: str = ""
    """Value of x-beamlit-backend."""
    via: str = ""
    """Name of the gateway at the load balancer."""
    missing: int = 0
    """Number of events of a stream that did not arrive."""
    repeated: int = 0
    """Number of events of a stream that arrived more than once or out of order."""
    detail: str = ""

    def line(self) -> str:
        """Return the record as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> "Record":
        """Read a record from a line of JSON."""
        given = json.loads(line)
        return cls(**{**given, "outcome": Outcome(given["outcome"])})


def read(path: Path) -> list[Record]:
    """Return all records of a client; none where it has not begun."""
    return [Record.of(line) for line in path.read_text().splitlines()] if path.exists() else []


class Orders:
    """The orders that the campaign writes to a client's standard input: JSON objects, one a line."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Create a reader that calls `change` with each order."""
        self._change = change
        self._rest = b""

    def readable(self) -> None:
        """Read the available orders. The end of the input means that the campaign has ended."""
        data = os.read(0, 65536)
        if not data:
            os._exit(1)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._change(json.loads(line))
