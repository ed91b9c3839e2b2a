"""Text of other programs, shortened to one line for logs and messages."""

from typing import Final

_LENGTH: Final = 240


def cut(text: str) -> str:
    """Return the first 240 characters of a text, on one line and without a period at the end."""
    return " ".join(text.split())[:_LENGTH].rstrip(".")
