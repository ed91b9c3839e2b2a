"""Calls as requests, for clients that know nothing of OpenAI: what they send, and what the response means."""

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.clients.model_server import TEXT
from tools.client_cases import WORKS

MESSAGES: Final[Any] = [{"role": "user", "content": "hello"}]
MODELS: Final[Mapping[str, str]] = {
    "qualified": "default/demo",
    "unknown": "missing",
    "none": "empty",
    "failover": "fallen",
    "silence": "slow",
    "late": "late",
}
"""Model that a call names, where it is not `demo`."""
STREAMS: Final = ("stream", "cancel", "silence", "late")
"""Calls that ask for a stream."""
SPEECH: Final = b"RIFF\x00\xff\r\n--model"
"""Recording of a transcription: bytes that are no text."""


def request_of(call: str) -> tuple[str, str, dict[str, Any] | None]:
    """Return method, path and body of a call that a client without knowledge of OpenAI makes."""
    match call:
        case "list":
            return "GET", "/v1/models", None
        case "retrieve":
            return "GET", "/v1/models/demo", None
        case "namespaced":
            return "GET", "/v1/models/default%2Fdemo", None
        case "transcription":
            return "POST", "/v1/audio/transcriptions", None
        case "embeddings":
            return "POST", "/v1/embeddings", {"model": "demo", "input": ["a", "b"]}
        case _:
            asked = {"model": MODELS.get(call, "demo"), "messages": MESSAGES}
            return "POST", "/v1/chat/completions", asked | ({"stream": True} if call in STREAMS else {})


def outcome_of(call: str, status: int, text: str) -> str:
    """Return the outcome of a call by its whole response."""
    body = json.loads(text)
    if status != 200:
        return f"{status} {body['error']['code']}"
    match call:
        case "list":
            assert "demo" in [one["id"] for one in body["data"]]
        case "retrieve" | "namespaced":
            assert body["id"].removeprefix("default/") == "demo"
        case "embeddings":
            assert len(body["data"]) == 2
        case "transcription":
            assert body["text"] == TEXT
        case _:
            assert body["choices"][0]["message"]["content"] == TEXT
    return WORKS


def text_of(line: str) -> str:
    """Return the text in a line of an event stream."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: ")).get("choices")
    return str(choices[0]["delta"].get("content", "")) if choices else ""


def failure_of(line: str) -> str:
    """Return the outcome that a line of an event stream means by itself: an error; empty for any other line."""
    if not line.startswith("data: {"):
        return ""
    error = json.loads(line.removeprefix("data: ")).get("error")
    return f"event {error['code']}" if error else ""


def outcome_of_stream(call: str, text: str, failure: str) -> str:
    """Return the outcome of a call that asked for a stream, by its text and an error in it."""
    if failure:
        return failure
    assert text == (TEXT[:4] if call == "cancel" else TEXT)
    return WORKS
