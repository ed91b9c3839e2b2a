"""Conversation that a request belongs to: a key, made of a header field, of `prompt_cache_key`, or of how it begins.

Every request of a conversation has the messages of all earlier ones in it, so the messages up to the first of the user
are the same in all of them. They are compared by their meaning, not by how they are written, as far as they are small.
"""

import hashlib
import json
import re
from typing import Any, Final

import orjson

from gateway.backends.affinity import BLOCK_BYTES, KEY_BYTES
from gateway.body_text import scanned, text_of
from gateway.http.exchange import Exchange, field
from gateway.model_names.json_scanner import PIECE_BYTES

BLOCK_TEXT_BYTES: Final = 1024
"""Bytes of the text of one block, some 256 tokens."""
MOST_BLOCKS: Final = 256
"""Blocks of the longest beginning of a prompt that counts."""

_LISTS: Final = ("messages", "input")
"""Keys of the messages: of chat completions and of Anthropic's API, and of the Responses API."""
_PROMPTS: Final = ("instructions", "system")
"""Keys of what comes before the messages in the Responses API and in Anthropic's."""
_CACHE_KEY: Final = "prompt_cache_key"
_PROMPT: Final = "prompt"
"""Key of the prompt of completions."""
_KEYS: Final = frozenset(name.encode() for name in (*_LISTS, *_PROMPTS, _CACHE_KEY, _PROMPT))
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[{}\[\]]', re.DOTALL)
_COLON: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_OPENING: Final = b"{["
_QUOTE: Final = 34


async def key_of(exchange: Exchange, header: bytes | None, decoded: bytes | None, limit: int) -> bytes | None:
    """Return the key of the conversation that a request belongs to; None where it shows none.

    Args:
        exchange: Exchange with the request.
        header: Name of the header field that says it, in lower case; None where there is none.
        decoded: The body without its content coding, where it was decoded already.
        limit: Bytes that the body may have.

    Raises:
        errors.GatewayError: The body cannot be read.
    """
    key = _named(exchange, header)
    if key is not None:
        return key
    text = await _text(exchange, decoded, limit)
    if not text:
        return None
    parsed = _parsed(text)
    return key_in_text(text, await _places(text)) if parsed is None else key_of_object(parsed)


async def keys_of(
    exchange: Exchange, header: bytes | None, decoded: bytes | None, limit: int
) -> tuple[bytes | None, bytes | None]:
    """Return the key of the conversation, and the same with the digests of the blocks with which the prompt begins.

    Without a conversation the first block takes the place of its key in the second one, which is None where a request
    has no block either. It is no key of a conversation: all prompts may begin alike.

    Args:
        exchange: Exchange with the request.
        header: Name of the header field that says the conversation, in lower case; None where there is none.
        decoded: The body without its content coding, where it was decoded already.
        limit: Bytes that the body may have.

    Raises:
        errors.GatewayError: The body cannot be read.
    """
    key = _named(exchange, header)
    text = await _text(exchange, decoded, limit)
    if not text:
        return key, key
    places = await _places(text)
    if key is None:
        parsed = _parsed(text)
        key = key_in_text(text, places) if parsed is None else key_of_object(parsed)
    blocks = blocks_in_text(text, places)
    if key is not None:
        return key, key + blocks
    return None, _digest(b"block", blocks[:BLOCK_BYTES]) + blocks if blocks else None


def _named(exchange: Exchange, header: bytes | None) -> bytes | None:
    """Return the key by the header field that says the conversation; None without one."""
    value = None if header is None else field(exchange.head.fields, header)
    return _digest(b"header", value) if value else None


async def _text(exchange: Exchange, decoded: bytes | None, limit: int) -> bytes | None:
    """Return the text of a body that may have a conversation in it; nothing where there is none, or it is too large.

    Raises:
        errors.GatewayError: The body cannot be read.
    """
    head = exchange.head
    if head.method != b"POST" or not head.has_body:
        return None
    return await text_of(exchange, decoded, limit)


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return a small body, an empty object in place of what is none; None where it is larger or cannot be parsed."""
    if len(text) > PIECE_BYTES:
        return None
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None  # servers read more than that
    return parsed if isinstance(parsed, dict) else {}


async def _places(text: bytes) -> dict[bytes, int]:
    """Return the positions behind the keys that matter here."""
    return dict((await scanned(text, _KEYS)).places)


def blocks_in_text(text: bytes, places: dict[bytes, int]) -> bytes:
    """Return the digests of the whole blocks with which a prompt begins, each of which stands for all before it, too.

    The prompt counts as it is written: a client writes what it repeats as it did before.

    Args:
        text: Body, a JSON object.
        places: Positions behind the keys.
    """
    parts: list[bytes] = []
    for name in (*_PROMPTS, *_LISTS, _PROMPT):
        position = places.get(name.encode())
        colon = None if position is None else _COLON.match(text, position)
        if colon is not None:
            end = _end_of_value(text, colon.end(), colon.end() + MOST_BLOCKS * BLOCK_TEXT_BYTES)
            parts.append(text[colon.end() : end])
    prompt = b"\0".join(parts)
    digests: list[bytes] = []
    digest = b""
    whole = min(len(prompt) // BLOCK_TEXT_BYTES, MOST_BLOCKS)
    for start in range(0, whole * BLOCK_TEXT_BYTES, BLOCK_TEXT_BYTES):
        block = digest + prompt[start : start + BLOCK_TEXT_BYTES]
        digest = hashlib.blake2b(block, digest_size=BLOCK_BYTES).digest()
        digests.append(digest)
    return b"".join(digests)


def _end_of_value(text: bytes, start: int, most: int) -> int:
    """Return the position behind a string, list or object that begins at `start`; `most` where it ends later."""
    if text[start : start + 1] not in (b'"', b"[", b"{"):
        return start
    depth = 0
    for token in _TOKEN.finditer(text, start, most):
        first = token.group()[0]
        if first in _OPENING:
            depth += 1
        elif first != _QUOTE:
            depth -= 1
        if depth == 0:
            return token.end()
    return min(most, len(text))


def key_of_object(body: dict[str, Any]) -> bytes | None:
    """Return the key of the conversation by a body that was read; None where it shows none."""
    named = body.get(_CACHE_KEY)
    if isinstance(named, str) and named:
        return _digest(b"name", named.encode("utf-8", "surrogatepass"))
    for name in _LISTS:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            beginning: list[Any] | None = [["user", value]]
        else:
            beginning = _beginning(value) if isinstance(value, list) else None
        if beginning is None:
            return None
        prompts = [_meaning(body.get(prompt)) for prompt in _PROMPTS]
        return _digest(b"text", _written([prompts, beginning]))
    return None


def key_in_text(text: bytes, places: dict[bytes, int]) -> bytes | None:
    """Return the key of the conversation by a body of which only the places of some keys are known.

    It is the same as that of `key_of_object`, where no value that counts has more than `PIECE_BYTES` bytes. Of a longer
    one so many bytes count as they are written.

    Args:
        text: Body, a JSON object.
        places: Positions behind the keys.
    """
    found: dict[str, Any] = {}
    for key, position in places.items():
        colon = _COLON.match(text, position)
        if colon is None:
            continue
        name = key.decode()
        window = text[colon.end() : colon.end() + PIECE_BYTES]
        if window.startswith((b'"', b"[", b"{")):
            try:
                found[name] = _read(_start_of_value(window, is_list=name in _LISTS))
            except (ValueError, RecursionError, EOFError):
                found[name] = window.decode("latin-1")
    return key_of_object(found)


def _start_of_value(window: bytes, *, is_list: bool) -> bytes:
    """Return the value with which a text begins; of a list only the items up to the first message of the user.

    Args:
        window: Text that begins with a string, a list or an object.
        is_list: Whether a list is one of messages.

    Raises:
        EOFError: The text ends before.
    """
    depth = start = 0
    for token in _TOKEN.finditer(window):
        first = token.group()[0]
        if first == _QUOTE:
            if token.end() - token.start() < 2 or window[token.end() - 1] != _QUOTE:
                break
            if depth == 0:
                return token.group()
        elif first in _OPENING:
            depth += 1
            if depth == 2:
                start = token.start()
        else:
            depth -= 1
            if depth == 1 and is_list and _is_of_user(window[start : token.end()]):
                return window[: token.end()] + b"]"
            if depth == 0:
                return window[: token.end()]
    raise EOFError


def _read(text: bytes) -> Any:
    """Return what a text says, read as leniently as model servers do: half of a surrogate pair is fine.

    Raises:
        ValueError: The text is no JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _written(value: Any) -> bytes:
    """Return a value as JSON; what orjson does not write, as half of a surrogate pair, is written with escapes."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        pass
    try:
        return json.dumps(value, sort_keys=True).encode()
    except RecursionError:
        return b""  # nothing that a model could read is nested so deeply


def _is_of_user(item: bytes) -> bool:
    try:
        message = _read(item)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("role") == "user"


def _beginning(messages: list[Any]) -> list[Any] | None:
    """Return what counts of the messages up to the first one of the user; None where the user says nothing."""
    found: list[Any] = []
    for message in messages:
        if not isinstance(message, dict):
            return None
        found.append([message.get("role"), _meaning(message.get("content"))])
        if message.get("role") == "user":
            return found
    return None


def _meaning(content: Any) -> Any:
    """Return content without the marks of Anthropic's cache, which move on from turn to turn."""
    if not isinstance(content, list):
        return content
    return [
        {name: value for name, value in part.items() if name != "cache_control"} if isinstance(part, dict) else part
        for part in content
    ]


def _digest(kind: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=KEY_BYTES, person=kind).digest()
