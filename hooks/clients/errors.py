"""What is asked, and why it gave no answer, on the way from where that happened to whoever tells it."""

from dataclasses import dataclass
from enum import Enum

from hooks.observation.readings import Unread


@dataclass(frozen=True, slots=True)
class Api:
    """Something that is asked."""

    name: str
    """For telemetry."""
    words: str
    """For sentences, which begin with it."""


class Trouble(Enum):
    """What a failure says of the source as a whole."""

    NONE = "it has answered"
    SILENT = "it gave no whole answer, which may be the fault of the question"
    GONE = "it cannot be reached"


class CallFailed(Exception):
    """A source gave no answer that could be used."""

    def __init__(self, reason: str, message: str, trouble: Trouble = Trouble.NONE) -> None:
        super().__init__(message)
        self.unread = Unread(reason, message)
        self.trouble = trouble


class TooLarge(CallFailed):
    """An answer is larger than what is held in memory at once."""
