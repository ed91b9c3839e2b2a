"""Text of a request's body: what it says without its content coding, as far as it may be held."""

import asyncio
from typing import Final

from gateway import errors
from gateway.http.exchange import Exchange
from gateway.model_names import body, content_coding

CHARGED_BYTES: Final = 1 << 20
"""Bytes of a decoded body that are reserved together."""


async def text_of(exchange: Exchange, decoded: bytes | None, limit: int, most: int) -> bytes | None:
    """Return the text of a body; None where it is larger than `most` bytes, or cannot be decoded.

    Args:
        exchange: Exchange with the request.
        decoded: The body without its content coding, where it was decoded already.
        limit: Bytes that the body may have, also when it is decoded.
        most: Bytes of the largest text that is held.

    Raises:
        errors.GatewayError: As `Exchange.read_next` does, or there is no memory for what is decoded.
    """
    if decoded is not None:
        return decoded if len(decoded) <= most else None
    head = exchange.head
    if not head.has_body:
        return b""
    if head.content_length is not None and head.content_length > most:
        return None
    if exchange.whole_body() is None:
        index = 0
        while await exchange.read_next(index, limit) is not None:
            if exchange.size > most:
                return None
            index += 1
    coding = body.describe(head.fields).coding
    if exchange.size > most:
        return None
    content = await exchange.read_body(limit)
    return await _decoded(exchange, content, coding, min(limit, most)) if coding else content


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
