"""Objects read over HTTP: tests that wait read often, and would spend their time on starting kubectl."""

import contextlib
import json
import ssl
import threading
import time
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final

_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class _Refused(Exception):
    """The API server responds with an error."""


class _Busy(_Refused):
    """The API server asks for a pause: it prepares a kind that no client has read yet."""


class Reader:
    """A client of an API server with a token."""

    def __init__(self, url: str, certificate: Path, token: str) -> None:
        self._host = url.partition("://")[2]
        self._certificate = certificate
        self._token = token
        self._paths: dict[str, str] = {}
        """Templates of paths, by every name of a resource that kubectl would take."""
        self._own = threading.local()
        """Connection of each thread. A new one for each object would take more time than the object."""
        self._connections: list[HTTPSConnection] = []

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        try:
            return self._ask("/readyz") == b"ok"
        except (OSError, HTTPException, _Refused):
            return False

    def get(self, resource: str, name: str, namespace: str) -> dict[str, Any]:
        """Return what `kubectl get -o json` does: an object, or a list when no name is given; an empty one when there
        is nothing to read."""
        if "," in resource:
            items = [one for part in resource.split(",") for one in self.get(part, "", namespace).get("items", ())]
            return {"apiVersion": "v1", "kind": "List", "items": items}
        try:
            if resource not in self._paths:
                self._discover()
            path = self._paths[resource].format(namespace=namespace)
            content: dict[str, Any] = json.loads(self._ask(f"{path}/{name}" if name else path))
        except _Busy:
            time.sleep(1)  # the time in Retry-After
            return self.get(resource, name, namespace)
        except (OSError, HTTPException, _Refused, KeyError):
            return {}
        for item in content.get("items", ()):  # an API server leaves out the fields that all items share
            item.setdefault("apiVersion", content["apiVersion"])
            item.setdefault("kind", content["kind"].removesuffix("List"))
        for item in content.get("items", (content,)):
            item["metadata"].pop("managedFields", None)
        return content

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._connections:
            self._connections.pop().close()

    def _discover(self) -> None:
        for root in ("/api", "/apis"):
            for group in json.loads(self._ask(root, _DISCOVERY))["items"]:
                self._learn(root, group["metadata"].get("name", ""), group["versions"][0])

    def _learn(self, root: str, group: str, version: dict[str, Any]) -> None:
        """Read the resources of a group in its preferred version. Where two groups share a name, the first one has
        it."""
        base = "/".join(filter(None, (root, group, version["version"])))
        for one in version.get("resources", ()):
            scope = "/namespaces/{namespace}" if one["scope"] == "Namespaced" else ""
            path = f"{base}{scope}/{one['resource']}"
            for name in (one["resource"], one.get("singularResource"), *one.get("shortNames", ())):
                if name:
                    self._paths.setdefault(name, path)
                    self._paths.setdefault(f"{name}.{group}", path)

    def _ask(self, path: str, accept: str = "application/json") -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        kept: HTTPSConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            # The API server may have gone meanwhile, and come back.
            with contextlib.suppress(OSError, HTTPException):
                return self._sent(kept, path, headers)
        context = ssl.create_default_context(cafile=str(self._certificate))
        self._own.connection = connection = HTTPSConnection(self._host, timeout=30, context=context)
        self._connections.append(connection)
        return self._sent(connection, path, headers)

    def _sent(self, connection: HTTPSConnection, path: str, headers: dict[str, str]) -> bytes:
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            connection.close()
            self._own.connection = None
            raise
        if response.status >= 400:
            kind = _Busy if response.status == 429 else _Refused
            raise kind(f"{response.status} for {path}")
        return content
