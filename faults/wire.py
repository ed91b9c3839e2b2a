"""The little HTTP/1.1 that the campaign's servers speak."""

import asyncio


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Read a request. Return its target, fields by lower-case name, and body.

    Raises:
        asyncio.IncompleteReadError: the connection ended.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:-2])}
    if fields.get(b"transfer-encoding") != b"chunked":
        return lines[0].split()[1], fields, await reader.readexactly(int(fields.get(b"content-length", b"0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return lines[0].split()[1], fields, body


def chunk(data: bytes) -> bytes:
    """Return data in the chunked coding (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
