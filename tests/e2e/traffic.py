"""Load on a gateway while something happens to the cluster, or to make it happen."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final

from tests.e2e.network import NoEndpoint

CLIENTS: Final = 4
_MOST_AT_ONCE: Final = 200
_BODY: Final = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]})


def ask(host: str, port: int, path: str) -> tuple[int, str]:
    """Send a chat request below `path`, on a new connection, and return status and backend of the complete response.

    Raises:
        OSError: there is no response, or
        http.client.HTTPException: it is not complete.
    """
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("POST", f"{path}/v1/chat/completions", _BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("x-beamlit-backend", "")
    finally:
        connection.close()


class Arrivals:
    """Requests that arrive at a steady rate for as long as the context lasts, whatever becomes of those before them."""

    def __init__(self, port: int, path: str, per_second: float) -> None:
        """Prepare requests for `path` at a port of a gateway."""
        self.responses: Counter[tuple[int, str]] = Counter()
        """Number of responses by status and backend."""
        self.failures: list[str] = []
        """Errors of requests without a complete response."""
        self._port, self._path, self._pause = port, path, 1 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        # Each has a thread of its own, as many as wait at the same time.
        with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
            for number in count(1):
                pool.submit(self._request)
                # A late one does not delay those after it.
                if self._stop.wait(max(0.0, began + number * self._pause - time.monotonic())):
                    break

    def _request(self) -> None:
        if self._stop.is_set():
            return
        try:
            response = ask("127.0.0.1", self._port, self._path)
        except (OSError, http.client.HTTPException) as exc:
            self.failures.append(repr(exc))
        else:
            self.responses[response] += 1


class Traffic:
    """Clients that send one request after the other for as long as the context lasts, each on a new connection."""

    def __init__(self, where: Callable[[], tuple[str, int]], path: str) -> None:
        """Prepare requests for `path` at the address that `where` returns for each of them."""
        self.responses: Counter[tuple[int, str]] = Counter()
        """Number of responses by status and backend."""
        self.failures: list[str] = []
        """Errors of requests without a complete response."""
        self._where, self._path = where, path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    @property
    def count(self) -> int:
        """Return the number of requests so far."""
        return self.responses.total() + len(self.failures)

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                response = ask(*self._where(), self._path)
            except (OSError, http.client.HTTPException, NoEndpoint) as exc:
                self.failures.append(repr(exc))
            else:
                self.responses[response] += 1
