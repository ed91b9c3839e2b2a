"""What may come of a call to the platform instead of what it was for.

    PlatformError               `reason` is one of `hooks.reasons`; the message is a sentence
    ├── Unreachable             there is no response, or none that can be used
    │   ├── Unasked             no request was sent: the platform is left alone until `retry_after`
    │   └── Busy                no request was sent: as many calls as there may be are under way
    ├── Unauthorized            401, 403, or no token for the account
    ├── Taken                   409: the object is there already
    └── Rejected                any other 4xx; the message is the platform's

No message holds the secret, a token, or more than a line of what the platform says.
"""

from typing import ClassVar

from hooks import reasons


class PlatformError(Exception):
    """A call to the platform did not do what it was for."""

    reason: ClassVar[str] = reasons.UNREACHABLE

    def __init__(self, message: str, *, sent: bool = False, retry_after: float | None = None) -> None:
        """Say what happened.

        Args:
            message: a sentence.
            sent: whether the platform may have done it nevertheless.
            retry_after: seconds until another call makes sense; None when they are not known.
        """
        super().__init__(message)
        self.sent = sent
        self.retry_after = retry_after


class Unreachable(PlatformError):
    """The platform does not respond, or with nothing that can be used."""


class Unasked(Unreachable):
    """The platform is left alone for now, so no request was sent."""


class Busy(Unreachable):
    """No request was sent, because the largest number of calls is already under way."""


class Unauthorized(PlatformError):
    """The platform refuses the account."""

    reason = reasons.UNAUTHORIZED


class Taken(PlatformError):
    """The object that was to be created is there already."""

    reason = reasons.CONFLICT


class Rejected(PlatformError):
    """The platform refuses the call, for a reason that it gives."""

    reason = reasons.REJECTED
