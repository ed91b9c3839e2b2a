"""What the platform may answer instead of doing what it was asked.

    PlatformError               `reason` is one of `hooks.reasons`; the message is a sentence
    ├── Unreachable             no answer, or none that can be used
    │   ├── Unasked             not even asked: it is left alone until `retry_after`
    │   └── Busy                not even asked: as many calls as there may be are under way
    ├── Unauthorized            401, 403, or no token for the account
    ├── Taken                   409: it is there already
    └── Rejected                any other 4xx; the message is the platform's

No message holds the secret, a token, or more than a line of what the platform says.
"""

from typing import ClassVar

from hooks import reasons


class PlatformError(Exception):
    """The platform did not do what was asked."""

    reason: ClassVar[str] = reasons.UNREACHABLE

    def __init__(self, message: str, *, sent: bool = False, retry_after: float | None = None) -> None:
        """
        Args:
            message: a sentence.
            sent: whether it may have been done nevertheless.
            retry_after: seconds until it is worth asking again.
        """
        super().__init__(message)
        self.sent = sent
        self.retry_after = retry_after


class Unreachable(PlatformError):
    """There is no answer, or none that can be used."""


class Unasked(Unreachable):
    """Nobody asks for now."""


class Busy(Unreachable):
    """As many calls as there may be are under way."""


class Unauthorized(PlatformError):
    """The account is refused."""

    reason = reasons.UNAUTHORIZED


class Taken(PlatformError):
    """What was to be created is there already."""

    reason = reasons.CONFLICT


class Rejected(PlatformError):
    """The platform refuses, for a reason that it gives."""

    reason = reasons.REJECTED
