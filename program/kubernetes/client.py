"""Gets, lists, watches and patches objects of an API server, as JSON."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import aiohttp
import orjson
from kubernetes.aio.client import Configuration

from program.excerpts import cut
from program.kubernetes.errors import ApiError, ApiInterrupted, ApiMalformed, ApiRefusal, ApiTooLarge
from program.kubernetes.transport import ApiTransport, Query, failure

CONNECT_SECONDS: Final = 5.0
"""Seconds until a connection is ready, unless the caller has less."""
LIST_SECONDS: Final = 30.0
"""Seconds without a byte of a page."""
SILENCE_SECONDS: Final = 90.0
"""Seconds after which a watch without an event is dead: bookmarks come about once a minute."""
PAGE: Final = 500
"""Objects in a page."""
PAGE_BYTES: Final = 16 << 20
"""Bytes of a page at most; above them the page is asked for again with fewer objects."""
EVENT_BYTES: Final = 4 << 20
"""Bytes of an event at most: more than twice what an API server stores of one object."""
_REFUSAL_BYTES: Final = 1 << 16
_JSON_PATCH: Final = "application/json-patch+json"

Json = dict[str, Any]
"""A JSON object."""


class KubernetesClient:
    """An API server, asked under the identity that the process was given."""

    def __init__(self, settings: Configuration, connections: int, *, strict_tls: bool = False) -> None:
        """Prepare a client without asking the API server. An event loop must be running.

        Args:
            settings: address and credentials.
            connections: connections that may be open at the same time; a watch holds one.
            strict_tls: whether certificates are verified as `tls.strict` asks.

        Raises:
            ClusterError: the address or the certificates cannot be used.
        """
        self._transport = ApiTransport(settings, connections, strict_tls=strict_tls)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(
        self,
        path: str,
        query: Query = (),
        *,
        read_seconds: float | None,
        connect_seconds: float = CONNECT_SECONDS,
        limit: int = PAGE_BYTES,
    ) -> Json:
        """Return the JSON object at a path.

        Args:
            path: path from the root of the API server, encoded.
            query: parameters.
            read_seconds: seconds without a byte of the response; None for no limit.
            connect_seconds: seconds until a connection is ready.
            limit: bytes of the response at most.

        Raises:
            ApiError: the object cannot be had; `ApiRefusal` says with which status.
        """
        response = await self._transport.send(
            "GET", path, query, connect_seconds=connect_seconds, read_seconds=read_seconds
        )
        return await _whole(response, limit)

    async def patch(
        self,
        path: str,
        operations: Sequence[Json],
        *,
        read_seconds: float,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> Json:
        """Apply a JSON Patch (RFC 6902) to the object at a path and return what the API server stores.

        Raises:
            ApiError: the patch was not applied, or there is no response; `ApiRefusal` says with which status.
        """
        response = await self._transport.send(
            "PATCH",
            path,
            (),
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            body=list(operations),
            content_type=_JSON_PATCH,
        )
        return await _whole(response, PAGE_BYTES)

    async def pages(self, path: str, selector: str) -> AsyncIterator[tuple[list[Json], str]]:
        """List a collection page by page, each with the resourceVersion to watch the whole collection from.

        Args:
            path: path of the collection.
            selector: label selector.

        Raises:
            ApiError: a page cannot be had; the status is 410 when the pages took too long.
        """
        token, limit = "", PAGE
        while True:
            query = [("labelSelector", selector), ("limit", str(limit)), *([("continue", token)] if token else [])]
            try:
                page = await self.get(path, query, read_seconds=LIST_SECONDS, limit=PAGE_BYTES)
            except ApiTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            metadata = _mapping(page.get("metadata"))
            items = page.get("items") or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ApiMalformed("responds with something that is no list of objects")
            yield items, str(metadata.get("resourceVersion", ""))
            token = str(metadata.get("continue") or "")
            if not token:
                return

    @asynccontextmanager
    async def watch(self, path: str, selector: str, version: str, seconds: float) -> AsyncIterator["WatchEvents"]:
        """Watch a collection since a resourceVersion, bookmarks included.

        The block is entered once the API server has agreed, and what is left of the stream is dropped at its end.

        Args:
            path: path of the collection.
            selector: label selector.
            version: resourceVersion of a list or an event.
            seconds: seconds after which the API server ends the watch.

        Raises:
            ApiError: the watch was refused, or broke off.
        """
        query = [
            ("watch", "true"),
            ("labelSelector", selector),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(1, int(seconds)))),
        ]
        response = await self._transport.send(
            "GET", path, query, connect_seconds=CONNECT_SECONDS, read_seconds=SILENCE_SECONDS
        )
        try:
            await _accept(response)
            yield WatchEvents(response)
        finally:
            response.close()


class WatchEvents:
    """Events of a watch, in the order of the API server, until it ends the watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._buffer = bytearray()
        self._searched = 0
        """Bytes at the beginning of the buffer that hold no line feed."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Json:
        """Return the next event.

        Raises:
            ApiError: the stream broke off, was silent for too long, or has something else than an event.
        """
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._searched = 0
                if line.strip():
                    return _parsed(line)
                continue
            self._searched = len(self._buffer)
            if self._searched > EVENT_BYTES:
                raise ApiTooLarge(f"the watch sent an event larger than {EVENT_BYTES >> 20} MiB")
            try:
                data = await self._response.content.readany()
            except TimeoutError:
                raise ApiInterrupted(f"the watch was silent for {SILENCE_SECONDS:g} s") from None
            except (aiohttp.ClientError, OSError):
                raise ApiInterrupted("the watch broke off") from None
            if not data:
                raise StopAsyncIteration
            self._buffer += data


async def _whole(response: aiohttp.ClientResponse, limit: int) -> Json:
    """Read a response to its end and return its JSON object.

    Raises:
        ApiError: the status is not 200, the body is larger than `limit` bytes, breaks off, or is something else.
    """
    try:
        await _accept(response)
        return _parsed(await _read(response, limit))
    finally:
        response.close()


async def _accept(response: aiohttp.ClientResponse) -> None:
    """Return when the API server did what it was asked.

    Raises:
        ApiRefusal: the status is not 200. The error has the message of the Status object where there is one.
        ApiMalformed: the body is compressed, which was not asked for.
    """
    if response.status != 200:
        try:
            status = _parsed(await _read(response, _REFUSAL_BYTES))
        except ApiError:
            status = {}
        message = cut(str(status.get("message") or ""))
        reason = response.reason or "without a reason"
        raise ApiRefusal(response.status, reason, message, is_status=status.get("kind") == "Status")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ApiMalformed("responds in an encoding that was not asked for")


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body of a response.

    Raises:
        ApiTooLarge: it is larger than `limit` bytes; the rest is not read.
        ApiError: it breaks off.
    """
    pieces, size = [], 0
    try:
        while piece := await response.content.readany():
            size += len(piece)
            if size > limit:
                raise ApiTooLarge(f"the response is larger than {limit >> 20} MiB")
            pieces.append(piece)
    except (aiohttp.ClientError, OSError) as exc:
        raise failure(exc) from None
    return b"".join(pieces)


def _parsed(body: bytes) -> Json:
    """Return the JSON object that a body is.

    Raises:
        ApiMalformed: it is something else.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ApiMalformed("responds with something that is no JSON object")
    return content


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
