"""Requests of a simulation: when they arrive, and how many tokens they have."""

from typing import Final, NamedTuple

MOST_REQUESTS: Final = 2_000_000
"""Requests in one simulation, at most."""
MOST_SECONDS: Final = 31 * 86400.0
"""Seconds of one simulation, at most."""


class Request(NamedTuple):
    """A request for a completion."""

    time: float
    """Seconds since time zero."""
    prompt: int
    """Tokens of the prompt."""
    generated: int
    """Tokens of the completion."""


class TooMany(ValueError):
    """There are more requests, or they take longer, than a simulation has room for. The message is a sentence."""
