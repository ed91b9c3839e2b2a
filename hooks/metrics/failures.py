"""Why a source gave no answer, on its way from where it happened to the reading that tells it."""

from hooks.readings import Unread


class Failed(Exception):
    """A source gave no answer.

    Attributes:
        unread: the reason, for the reading.
        dead: nothing came back at all, so that others would fare the same.
    """

    def __init__(self, reason: str, message: str, *, dead: bool = False) -> None:
        super().__init__(message)
        self.unread = Unread(reason, message)
        self.dead = dead
