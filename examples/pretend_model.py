"""A model that needs no weights: it says who it is and what it was told, and its vectors depend on the text alone."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

DIMENSIONS: Final = 8
"""Default length of a vector."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The completion of a prompt."""

    tokens: tuple[str, ...]
    """Tokens in order; together they are the text."""
    finish_reason: str
    """`stop`, or `length` where the caller's limit cut the completion."""
    prompt_tokens: int

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.tokens)

    @property
    def usage(self) -> dict[str, int]:
        """Return the token counts as OpenAI's API has them."""
        spoken = len(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": spoken,
            "total_tokens": self.prompt_tokens + spoken,
        }


def generate(model: str, prompt: str, *, whole_prompt: str = "", max_tokens: int | None = None) -> Generation:
    """Return a completion of `prompt`. `whole_prompt` is everything the caller sent, which counts as prompt tokens."""
    tokens = split(f"This is {model}. You said: {prompt}")
    cut = tokens if max_tokens is None else tokens[:max_tokens]
    return Generation(cut, "length" if len(cut) < len(tokens) else "stop", len(split(whole_prompt or prompt)))


def split(text: str) -> tuple[str, ...]:
    """Return the tokens of a text: words with the white space before them."""
    return tuple(re.findall(r"\s*\S+|\s+$", text))


def embed(text: str, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """Return a vector of numbers from -1 to 1, the same for the same text."""
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    return tuple(number / 32768 for (number,) in struct.iter_unpack("<h", digest))


def packed(vector: tuple[float, ...]) -> str:
    """Return a vector as base64 of little-endian 32-bit floats, which OpenAI's clients request."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
