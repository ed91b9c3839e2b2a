"""Failures of calls to other servers, with the reason and the sentence that a status reports."""

from dataclasses import dataclass
from enum import Enum

from hooks.observation.readings import Unread


@dataclass(frozen=True, slots=True)
class Api:
    """An API that hooks call."""

    name: str
    """Name of the API in metrics."""
    words: str
    """Name of the API in messages, which begin with it."""


class Trouble(Enum):
    """What a failure says about the server as a whole."""

    NONE = "it has responded"
    SILENT = "it gave no whole response, which may be the fault of the request"
    GONE = "it cannot be reached"


class CallFailed(Exception):
    """A server gave no response that can be used."""

    def __init__(self, reason: str, message: str, trouble: Trouble = Trouble.NONE) -> None:
        """Fail a call.

        Args:
            reason: one of `hooks.reasons`.
            message: a sentence that says what to change.
            trouble: what the failure says about the server.
        """
        super().__init__(message)
        self.unread = Unread(reason, message)
        self.trouble = trouble


class TooLarge(CallFailed):
    """A response is larger than its limit."""
