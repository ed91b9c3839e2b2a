"""Errors of the webhooks, grouped by what the other side can do about them.

    HookError                  a response other than 200: Metacontroller changes nothing and tries again
    ├── NotMetacontroller      400: the body is not a webhook request
    ├── WrongParent            422: the webhook is registered for another kind
    ├── ForbiddenChild         500: the last gate refuses a response that would reach beyond the parent
    └── DamagedAnnotation      500: what was applied last cannot be read
    NotAccepted                never leaves the core: it becomes the condition Accepted=False, with a 200

What is wrong with an object of a user is a fact and not an error: a condition reports it, and no 4xx does. The text of
a HookError reaches an Event on the parent, so it repeats nothing of the request but names.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class HookError(Exception):
    """The webhook cannot give a whole response. The message becomes the body of an error response."""

    status: ClassVar[int] = 500
    """HTTP status of the response."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Further header fields of the response."""


class NotMetacontroller(HookError):
    """The body is not a webhook request of Metacontroller."""

    status = 400


class WrongParent(HookError):
    """The parent is of a kind that the webhook does not serve."""

    status = 422


class ForbiddenChild(HookError):
    """The response has a child that its parent may not have: a mistake in hooks, or an attack."""


class DamagedAnnotation(HookError):
    """The last-applied-configuration annotation of a child cannot be read, so what was applied last is not known."""


class NotAccepted(Exception):
    """The specification cannot be in force although it passes its schema.

    The message is a sentence that says what to change.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Give the reason of the condition Accepted, one of `hooks.reasons`, and its message."""
        super().__init__(message)
        self.reason = reason
