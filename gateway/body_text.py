"""Text of a request's body: what it says without its content coding, as far as it may be held."""

import asyncio
from typing import Final

from gateway import errors
from gateway.http.exchange import Exchange
from gateway.model_names import body, content_coding
from gateway.model_names.json_scanner import PIECE_BYTES, JsonScanner

CHARGED_BYTES: Final = 1 << 20
"""Bytes of a decoded body that are reserved together."""
TEXT_BYTES: Final = 8 << 20
"""Bytes of the largest text that is held and looked through."""


async def scanned(text: bytes, keys: frozenset[bytes]) -> JsonScanner:
    """Return a scanner that has looked for keys in all of a text, in small steps."""
    scanner = JsonScanner(keys)
    for start in range(0, len(text), PIECE_BYTES):
        scanner.feed(text[start : start + PIECE_BYTES])
        if len(text) > PIECE_BYTES:
            await asyncio.sleep(0)
    return scanner


async def text_of(exchange: Exchange, decoded: bytes | None, limit: int) -> bytes | None:
    """Return the text of a body; None where it has more than `TEXT_BYTES`, or cannot be decoded.

    Args:
        exchange: Exchange with the request.
        decoded: The body without its content coding, where it was decoded already.
        limit: Bytes that the body may have, also when it is decoded.

    Raises:
        errors.GatewayError: As `Exchange.read_next` does, or there is no memory for what is decoded.
    """
    if decoded is not None:
        return decoded if len(decoded) <= TEXT_BYTES else None
    head = exchange.head
    if not head.has_body:
        return b""
    if head.content_length is not None and head.content_length > TEXT_BYTES:
        return None
    if exchange.whole_body() is None:
        index = 0
        while await exchange.read_next(index, limit) is not None:
            if exchange.size > TEXT_BYTES:
                return None
            index += 1
    coding = body.describe(head.fields).coding
    if exchange.size > TEXT_BYTES:
        return None
    content = await exchange.read_body(limit)
    return await _decoded(exchange, content, coding, min(limit, TEXT_BYTES)) if coding else content


async def _decoded(exchange: Exchange, content: bytes, coding: bytes, most: int) -> bytes | None:
    """Return what a compressed body says; None where it is larger than `most` bytes, or cannot be decoded."""
    try:
        name = content_coding.coding_of(coding)
        if not name:
            return content
        decoder = content_coding.Decoder(name, most)
        pieces: list[bytes] = []
        size = charged = 0
        for piece in decoder.steps(content):
            size += len(piece)
            pieces.append(piece)
            if size > charged:
                exchange.charge(CHARGED_BYTES)
                charged += CHARGED_BYTES
            await asyncio.sleep(0)
        decoder.finish()
    except (errors.UnsupportedCoding, errors.MalformedCoding, errors.BodyTooLarge):
        return None
    return b"".join(pieces)
