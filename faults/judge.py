"""Whether a response is the right one and whole: its own id, the digest of what was sent, each event once, in order."""

import json
from dataclasses import dataclass
from typing import Final

from faults.origin import digest
from faults.records import Outcome, Record

SIZES: Final = {"chat": 200, "large": 150_000, "upload": 2 << 20}
"""Number of characters of a message, by kind of request."""


@dataclass(slots=True)
class Response:
    """A response, as far as it arrived."""

    status: int = 0
    fields: dict[bytes, bytes] | None = None
    body: bytes = b""
    complete: bool = False


def judge(record: Record, response: Response, text: str, events: int) -> None:
    """Return whether a response is the right one and complete."""
    if response.status != 200:
        record.outcome, record.code = Outcome.STATUS, _code(response.body)
        record.detail = response.body[:200].decode("latin-1")
    elif "stream" in record.kind:
        _judge_stream(record, response, events)
    elif not response.complete:
        record.outcome = Outcome.TRUNCATED
    else:
        _judge_whole(record, response.body, text)


def _judge_whole(record: Record, body: bytes, text: str) -> None:
    try:
        given = json.loads(body)
        if record.kind == "models":
            right = "demo" in [one["id"] for one in given["data"]]
            user = record.user
        elif record.kind == "embeddings":
            user, right = given["user"], len(given["data"]) == 1
        else:
            said = json.loads(given["choices"][0]["message"]["content"])
            user, right = said["user"], said["sha256"] == digest(text)
            right = right and len(said["pad"]) == (SIZES["large"] if record.kind == "large" else 0)
    except (ValueError, LookupError, TypeError):
        user, right = record.user, False
    if user != record.user:
        record.outcome, record.detail = Outcome.CROSSED, user
    elif not right:
        record.outcome, record.detail = Outcome.WRONG_BODY, body[:200].decode("latin-1")


def _judge_stream(record: Record, response: Response, events: int) -> None:
    """Return the outcome of a stream: every event once, in order, then [DONE] and the end; or as far as it came, then
    an error event and no end."""
    expected, done = 0, False
    whole, _, rest = response.body.rpartition(b"\n\n")
    for event in whole.split(b"\n\n") if whole else []:
        if event.startswith(b":"):
            continue
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            done = True
            continue
        try:
            given = json.loads(data)
            if "error" in given:
                record.outcome, record.code = Outcome.TOLD, str(given["error"]["code"])
                continue
            user, _, number = given["choices"][0]["delta"]["content"].strip().partition(":")
        except (ValueError, LookupError, TypeError):
            record.outcome, record.detail = Outcome.WRONG_BODY, event[:200].decode("latin-1")
            return
        if user != record.user:
            record.outcome, record.detail = Outcome.CROSSED, user
            return
        if int(number) == expected:
            expected += 1
        elif int(number) < expected:
            record.repeated += 1
        else:
            record.missing += int(number) - expected
            expected = int(number) + 1
    record.missing += events - expected
    broken = record.outcome is not Outcome.OK
    if response.complete and (broken or record.missing or not done or rest):
        record.outcome = Outcome.FALSE_END
    elif not response.complete and record.outcome is Outcome.OK:
        record.outcome = Outcome.TRUNCATED


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""
