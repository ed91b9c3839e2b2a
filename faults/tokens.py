"""A token endpoint (RFC 6749 4.4) whose tokens live briefly, and which can be told to misbehave.

    python -m faults.tokens --port 20002 --key KEY --seconds 2

A token carries its end on the machine's monotonic clock and a signature, so that a backend can check it alone.
`POST /_fault {"mode": …}`: `ok`, `slow` (never responds), `refuse` (401) or `garbage`. It is killed to be down.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import time

from faults.wire import read_request

GARBAGE = (
    b"<html>",
    b"[1, 2",
    b'{"access_token": "a\\nb", "expires_in": 60}',
    b'{"access_token": "x", "expires_in": -1}',
)


def sign(ends: str, key: str) -> str:
    """Return the signature of a token with this end."""
    return hmac.new(key.encode(), ends.encode(), hashlib.sha256).hexdigest()


def issue(key: str, seconds: float) -> str:
    """Return a token that is valid for `seconds`."""
    ends = f"{time.monotonic() + seconds:.3f}"
    return f"{ends}.{sign(ends, key)}"


def valid(authorization: bytes, key: str) -> bool:
    """Return whether a value of Authorization carries a token that is valid now."""
    ends, _, signature = authorization.decode("latin-1").removeprefix("Bearer ").rpartition(".")
    return hmac.compare_digest(signature, sign(ends, key)) and float(ends) > time.monotonic()


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m faults.tokens", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a token is said to be valid")
    parser.add_argument("--margin", type=float, default=1.0, help="seconds for which it is valid beyond that")
    options = parser.parse_args()
    mode, asked = "ok", 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal mode, asked
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            target, _, body = await read_request(reader)
            status, response = b"200 OK", b"{}"
            if target == b"/_fault":
                mode = json.loads(body)["mode"]
            elif mode == "slow":
                await reader.read()
            elif mode == "refuse":
                status, response = b"401 Unauthorized", b'{"error": "invalid_client"}'
            elif mode == "garbage":
                asked += 1
                response = GARBAGE[asked % len(GARBAGE)]
            else:
                # A buyer is told less than a token's life: one that is under way must not end there.
                token = issue(options.key, options.seconds + options.margin)
                given = {"access_token": token, "token_type": "Bearer", "expires_in": options.seconds}
                response = json.dumps(given).encode()
            lines = (b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(response))
            writer.write(b"\r\n".join((*lines, b"connection: close")) + b"\r\n\r\n" + response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
