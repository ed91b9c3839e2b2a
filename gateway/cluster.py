"""The Kubernetes API, as little of it as the gateway needs: list, watch, get.

Calls block, so they belong into threads. Bodies are parsed with orjson instead of the client's models, which cost a
hundred times as much and would drop what they do not know.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 90.0
"""A watch that says nothing for longer is dead: bookmarks come about once a minute."""
PAGE: Final = 500


class ClusterError(Exception):
    """There is no API server to be asked. The message is one sentence for the administrator."""


class ApiError(OSError):
    """A call failed. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the API server answers {status} {reason}" if status else reason)
        self.status = status


class Cluster:
    """An API server, under the identity that the process was given."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    def load(cls, kubeconfig: Path | None) -> "Cluster":
        """The cluster the process runs in, or the one of a kubeconfig. A rotated token is read again.

        Raises:
            ClusterError: neither can be used.
        """
        settings = client.Configuration()
        try:
            if kubeconfig is not None:
                config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as exc:
            if kubeconfig is not None:
                raise ClusterError(f"--kubeconfig {kubeconfig} cannot be used: {exc}.") from exc
            raise ClusterError(
                "there is no source of routes: set --routes to a directory, or --kubeconfig, or run in a cluster."
            ) from exc
        settings.retries = False  # who calls decides when to try again
        settings.proxy = None  # the environment is not configuration
        return cls(client.ApiClient(settings))

    def get(self, path: str) -> dict[str, Any] | None:
        """An object as stored; None when there is none.

        Raises:
            ApiError: it cannot be had.
        """
        try:
            return self._json(path, [])
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def collection(self, path: str, selector: str) -> tuple[list[dict[str, Any]], str]:
        """All objects of a collection with a label selector, page by page, and the resourceVersion to watch from.

        Raises:
            ApiError: it cannot be had; 410 when the pages took too long.
        """
        items: list[dict[str, Any]] = []
        query = [("labelSelector", selector), ("limit", str(PAGE))]
        token = ""
        while True:
            page = self._json(path, [*query, ("continue", token)] if token else query)
            metadata = page.get("metadata", {})
            items += page.get("items") or ()
            token = metadata.get("continue", "")
            if not token:
                return items, str(metadata.get("resourceVersion", ""))

    def watch(self, path: str, selector: str, version: str, seconds: float) -> Iterator[dict[str, Any]]:
        """Events of a collection since `version`, bookmarks included, for `seconds` at most.

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
            rest = b""
            for data in response.stream(65536, decode_content=True):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line:
                        yield orjson.loads(line)
        except HTTPError as exc:
            raise ApiError(0, f"the watch broke off: {type(exc).__name__}") from exc
        except orjson.JSONDecodeError as exc:
            raise ApiError(0, "the watch sent something that is not JSON") from exc
        finally:
            response.close()
            response.release_conn()

    def _json(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        response = self._call(path, query, READ_SECONDS)
        try:
            content: dict[str, Any] = orjson.loads(response.data)
        except HTTPError as exc:
            raise ApiError(0, f"the answer broke off: {type(exc).__name__}") from exc
        except orjson.JSONDecodeError as exc:
            raise ApiError(0, "the answer is not JSON") from exc
        finally:
            response.release_conn()
        return content

    def _call(self, path: str, query: list[tuple[str, str]], read_seconds: float) -> HTTPResponse:
        """A response with status 200, its body not read yet."""
        accept = {"Accept": "application/json"}
        try:
            method, url, headers, _, _ = self._api.param_serialize(
                "GET", path, query_params=query, header_params=accept, auth_settings=["BearerToken"]
            )
            answer = self._api.call_api(method, url, headers, _request_timeout=(CONNECT_SECONDS, read_seconds))
        except (ApiException, HTTPError, OSError) as exc:
            raise ApiError(0, f"the API server cannot be reached: {type(exc).__name__}") from exc
        response: HTTPResponse = answer.response
        if response.status != 200:
            response.close()
            response.release_conn()
            raise ApiError(response.status, response.reason or "without a reason")
        return response
