"""Errors of the stand-in, its API server and its hooks.

StandInError
├── Refused               the API server says no; its message names the field and what is allowed
│   ├── Invalid           422: schema, CEL rule, immutable field, size
│   ├── NotFound          404
│   ├── AlreadyExists     409 on create
│   └── Conflict          409 on update: another write came first, or the uid differs
├── HookError             anything but a usable 200 from a hook: nothing is applied, tried again with backoff
│   └── WouldCrash        an response on which Metacontroller itself dies
├── TooManyRequests       429: tried again after Retry-After, without backoff
├── SyncError             one sync of one parent failed
└── SetupError            the stand-in cannot start; one sentence for the person who typed the command
"""


class StandInError(Exception):
    """The base of all errors of this package. The text is one sentence for a person."""


class Refused(StandInError):
    """The API server refused a write, and nothing changed."""


class Invalid(Refused):
    """The object breaks its schema, a rule, a bound or an immutable field."""


class NotFound(Refused):
    """There is no such object."""


class AlreadyExists(Refused):
    """An object of that name exists already."""


class Conflict(Refused):
    """The object changed since it was read, or is another one of the same name."""


class HookError(StandInError):
    """A hook did not give a response that Metacontroller accepts."""


class WouldCrash(HookError):
    """A hook gave a response that ends the Metacontroller process, and again after its restart."""


class TooManyRequests(StandInError):
    """A hook responded with 429."""

    def __init__(self, retry_after: float) -> None:
        """Create the error. `retry_after` is the number of seconds until the next try; 0 where the field was missing or
        invalid."""
        super().__init__(f"the hook responded with 429, tried again in {retry_after:g} s")
        self.retry_after = retry_after


class SyncError(StandInError):
    """One sync of one parent failed. The next one is tried with backoff."""


class SetupError(StandInError):
    """The stand-in cannot start with these options or files."""
