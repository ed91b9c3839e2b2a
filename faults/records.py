"""What became of one request of a client, as a line of JSON between the client's process and the campaign."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """How a request ended for its client."""

    OK = "ok"
    REFUSED = "refused"
    """No connection."""
    RESET = "reset"
    """The connection ended before an answer's head."""
    TIMEOUT = "timeout"
    STATUS = "status"
    """Another status than the one asked for."""
    TOLD = "told"
    """A stream that broke off with an error event, and no end."""
    TRUNCATED = "truncated"
    """An answer that broke off, as the framing shows, without an error event."""
    FALSE_END = "falseEnd"
    """An answer that looks complete and is not."""
    WRONG_BODY = "wrongBody"
    CROSSED = "crossed"
    """It has bytes of the answer to somebody else."""


@dataclass(slots=True)
class Record:
    """One request."""

    user: str
    """Unlike any other's."""
    kind: str
    phase: str
    """What was going on when it began."""
    begun: float
    """Monotonic seconds, as are all times."""
    ended: float = 0.0
    outcome: Outcome = Outcome.OK
    status: int = 0
    code: str = ""
    """Of the error."""
    backend: str = ""
    """x-beamlit-backend."""
    via: str = ""
    """The gateway, as the load balancer names it."""
    missing: int = 0
    """Events of a stream that did not come."""
    repeated: int = 0
    """Events of a stream that came more than once, or out of order."""
    detail: str = ""

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> "Record":
        """From JSON."""
        given = json.loads(line)
        return cls(**{**given, "outcome": Outcome(given["outcome"])})


def read(path: Path) -> list[Record]:
    """All of a client's records; none where it has not begun."""
    return [Record.of(line) for line in path.read_text().splitlines()] if path.exists() else []


class Orders:
    """What the campaign tells a client's process by its standard input: JSON objects, one a line."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Of each object `change` is told."""
        self._change = change
        self._rest = b""

    def readable(self) -> None:
        """Read what is there. Its end says that the campaign is gone, and is ours as well."""
        data = os.read(0, 65536)
        if not data:
            os._exit(1)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._change(json.loads(line))
