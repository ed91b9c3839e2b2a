"""What can go wrong in a hook, grouped by what the other side can do about it.

    HookError                  an answer other than 200: Metacontroller changes nothing and tries again
    ├── NotMetacontroller      400: the body is not a hook request
    ├── WrongParent            422: the hook is registered for another kind
    ├── ForbiddenChild         500: the last gate; an answer that would reach beyond the parent
    └── DamagedAnnotation      500: what was decided last cannot be read
    NotAccepted                never leaves the core: becomes the condition Accepted=False, with a 200

What is wrong with a user's object is a fact, not a failure: it is said in a condition and never answered with a 4xx.
The text of a HookError reaches an Event on the parent, so it repeats no content of the request but names.
"""

from typing import ClassVar


class HookError(Exception):
    """The hook cannot answer. `status` is the HTTP status; the message is the body."""

    status: ClassVar[int] = 500


class NotMetacontroller(HookError):
    """The body is not a request of Metacontroller."""

    status = 400


class WrongParent(HookError):
    """The parent is of a kind that this hook does not serve."""

    status = 422


class ForbiddenChild(HookError):
    """The answer holds a child that this parent may not have. A bug here, or someone is trying something."""


class DamagedAnnotation(HookError):
    """The last-applied-configuration annotation of a child cannot be read, so what was decided last is unknown."""


class NotAccepted(Exception):
    """The specification passes the schema and is still wrong.

    `reason` is one of `hooks.reasons`; the message is a sentence that says what to change.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
