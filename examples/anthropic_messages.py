"""Responses of Anthropic's API of messages, as its clients parse them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.pretend_model import Generation

_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
"""Types of errors by status. Others below 500 are `invalid_request_error`, and all others `api_error`."""


def message(identity: str, model: str, said: Generation) -> dict[str, Any]:
    """Return the response to a request without a stream."""
    content = [{"type": "text", "text": said.text}]
    return _message(identity, model, content, _stop_reason(said), _usage(said, len(said.tokens)))


def events(identity: str, model: str, said: Generation) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    yield {"type": "message_start", "message": _message(identity, model, [], None, _usage(said, 0))}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for token in said.tokens:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}}
    yield {"type": "content_block_stop", "index": 0}
    delta = {"stop_reason": _stop_reason(said), "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": _usage(said, len(said.tokens))}
    yield {"type": "message_stop"}


def error(status: int, text: str) -> dict[str, Any]:
    """Return the body of an error response."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": None}


def _message(
    identity: str, model: str, content: list[dict[str, Any]], stop_reason: str | None, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop_reason(said: Generation) -> str:
    return "max_tokens" if said.finish_reason == "length" else "end_turn"


def _usage(said: Generation, spoken: int) -> dict[str, int]:
    return {"input_tokens": said.prompt_tokens, "output_tokens": spoken}
