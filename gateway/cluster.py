"""The Kubernetes API, as little of it as the gateway needs: list, watch, get.

Calls block, so they belong into threads. Bodies are parsed with orjson instead of the client's models, which cost a
hundred times as much and would drop what they do not know.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.utils.keepalive import tcp_keepalive_socket_options
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from program.cluster import ClusterError, configuration, cut, line

CONNECT_SECONDS: Final = 5.0
GET_SECONDS: Final = 10.0
LIST_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 1.0
"""What API servers say in Retry-After."""
SILENCE_SECONDS: Final = 90.0
"""A watch that says nothing for longer is dead: bookmarks come about once a minute."""
KEEPALIVE: Final = (10, 5, 3)
"""Seconds of idleness, seconds between probes, probes: a machine that is gone is noticed within 25 seconds."""
PAGE: Final = 500
PAGE_BYTES: Final = 16 << 20
"""Above it a page is asked for again with fewer objects."""
EVENT_BYTES: Final = 4 << 20
"""More than twice what an API server stores of one object."""
CONNECTIONS: Final = 512
"""Kept for reuse: a watch per namespace, and single reads."""
_REFUSAL_BYTES: Final = 16384


class ApiError(OSError):
    """A call failed. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the API server answers {status} {reason}" if status else reason)
        self.status = status


class _TooLarge(ApiError):
    """A body is larger than what is held in memory at once."""


class Cluster:
    """An API server, under the identity that the process was given."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    def load(cls, kubeconfig: Path | None) -> "Cluster":
        """The cluster that `program.cluster` finds.

        Raises:
            ClusterError: there is none that can be used.
        """
        settings = configuration(kubeconfig)
        if settings is None:
            raise ClusterError(
                "there is no source of routes: set --routes to a directory, or --kubeconfig, or run in a cluster."
            )
        settings.retries = False  # who calls decides when to try again
        settings.socket_options = tcp_keepalive_socket_options(*KEEPALIVE)
        settings.connection_pool_maxsize = CONNECTIONS
        return cls(client.ApiClient(settings))

    def get(self, path: str) -> dict[str, Any] | None:
        """An object as stored; None when there is none.

        An API server that is busy, or has just started and prepares a kind, says 429: then it is asked once more.

        Raises:
            ApiError: it cannot be had.
        """
        try:
            try:
                return self._json(path, [], GET_SECONDS)
            except ApiError as exc:
                if exc.status != 429:
                    raise
                time.sleep(BUSY_SECONDS)
                return self._json(path, [], GET_SECONDS)
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def pages(self, path: str, selector: str) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """A collection with a label selector, page by page, each with the resourceVersion to watch the whole from.

        Raises:
            ApiError: it cannot be had; 410 when the pages took too long.
        """
        token, limit = "", PAGE
        while True:
            query = [("labelSelector", selector), ("limit", str(limit)), *([("continue", token)] if token else [])]
            try:
                page = self._json(path, query, LIST_SECONDS)
            except _TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            metadata = _mapping(page.get("metadata"))
            items = page.get("items") or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ApiError(0, "the answer is not a list of objects")
            yield items, str(metadata.get("resourceVersion", ""))
            token = str(metadata.get("continue") or "")
            if not token:
                return

    @contextmanager
    def watch(self, path: str, selector: str, version: str, seconds: float) -> Iterator[Iterator[dict[str, Any]]]:
        """Events of a collection since `version`, bookmarks included, for `seconds` at most.

        Entered once the API server has agreed to it.

        Raises:
            ApiError: the stream could not be had, or broke off.
        """
        query = [
            ("watch", "true"),
            ("labelSelector", selector),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(1, int(seconds)))),
        ]
        response = self._call(path, query, SILENCE_SECONDS)
        try:
            yield _events(response)
        finally:
            response.close()
            response.release_conn()

    def _json(self, path: str, query: list[tuple[str, str]], read_seconds: float) -> dict[str, Any]:
        response = self._call(path, query, read_seconds)
        try:
            body = response.read(PAGE_BYTES + 1, decode_content=True)
            if len(body) > PAGE_BYTES:
                response.close()
                raise _TooLarge(0, f"the answer is larger than {PAGE_BYTES >> 20} MiB")
            return _object(body)
        except (HTTPError, OSError) as exc:
            if isinstance(exc, ApiError):
                raise
            raise ApiError(0, f"the answer broke off: {type(exc).__name__}") from exc
        finally:
            response.release_conn()

    def _call(self, path: str, query: list[tuple[str, str]], read_seconds: float) -> HTTPResponse:
        """A response with status 200, its body not read yet."""
        accept = {"Accept": "application/json"}
        try:
            # Reads the token again when it is time, which may fail as the rest may.
            method, url, headers, _, _ = self._api.param_serialize(
                "GET", path, query_params=query, header_params=accept, auth_settings=["BearerToken"]
            )
            headers = {name: value.strip() for name, value in headers.items()}  # a token file may end with a line feed
            answer = self._api.call_api(method, url, headers, _request_timeout=(CONNECT_SECONDS, read_seconds))
        except (ApiException, ConfigException, HTTPError, OSError) as exc:
            raise ApiError(0, f"the API server cannot be asked: {line(exc)}") from exc
        except ValueError:
            # What it says repeats the token.
            raise ApiError(0, "the API server cannot be asked: the token cannot be sent in a header field") from None
        response: HTTPResponse = answer.response
        if response.status != 200:
            raise _refusal(response)
        return response


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    buffer = bytearray()
    try:
        for data in response.stream(65536, decode_content=True):
            start = len(buffer)
            buffer += data
            while (end := buffer.find(b"\n", start)) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                start = 0
                if line.strip():
                    yield _object(line)
            if len(buffer) > EVENT_BYTES:
                raise ApiError(0, f"the watch sent an event larger than {EVENT_BYTES >> 20} MiB")
    except (HTTPError, OSError) as exc:
        if isinstance(exc, ApiError):
            raise
        raise ApiError(0, f"the watch broke off: {type(exc).__name__}") from exc


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ApiError: it is something else.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ApiError(0, "the API server sent something that is not JSON") from exc
    if not isinstance(content, dict):
        raise ApiError(0, "the API server sent something that is not an object")
    return content


def _refusal(response: HTTPResponse) -> ApiError:
    """What an answer other than 200 says, with the message of its Status object where it has one."""
    try:
        message = str(_object(response.read(_REFUSAL_BYTES, decode_content=True)).get("message") or "")
    except (HTTPError, OSError):
        message = ""
    finally:
        response.close()
        response.release_conn()
    reason = response.reason or "without a reason"
    return ApiError(response.status, f"{reason}: {cut(message)}" if message else reason)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
