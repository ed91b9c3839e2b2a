"""Responses of OpenAI's API of the same name (`/v1/responses`), as its clients parse them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.pretend_model import Generation


def response(number: int, created: int, request: Mapping[str, Any], said: Generation) -> dict[str, Any]:
    """Return the response to a request without a stream."""
    cut = said.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    return _response(number, created, request, status) | {
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(number, status, [_part(said.text)])],
        "usage": {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(said.tokens),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.prompt_tokens + len(said.tokens),
        },
    }


def events(number: int, created: int, request: Mapping[str, Any], said: Generation) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, each with its number."""
    for sequence_number, event in enumerate(_events(number, created, request, said)):
        yield {**event, "sequence_number": sequence_number}


def _events(number: int, created: int, request: Mapping[str, Any], said: Generation) -> Iterator[dict[str, Any]]:
    begun = _response(number, created, request, "in_progress")
    whole = response(number, created, request, said)
    item = whole["output"][0]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(number, "in_progress", [])}
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for token in said.tokens:
        yield {"type": "response.output_text.delta", **place, "delta": token, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": said.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _part(said.text)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _response(number: int, created: int, request: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Return a response without output and usage, with what the request has set."""
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "model": request["model"],
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": request.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": request.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "metadata": request.get("metadata") or {},
    }


def _item(number: int, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
