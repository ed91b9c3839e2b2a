"""Load on a gateway while something happens to the cluster."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.e2e.network import NoEndpoint

CLIENTS: Final = 4
_BODY: Final = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]})


def ask(host: str, port: int, path: str) -> tuple[int, str]:
    """Status and backend of the whole answer to a chat request below `path`, on a connection of its own.

    Raises:
        OSError: there is none, or
        http.client.HTTPException: it is not whole.
    """
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("POST", f"{path}/v1/chat/completions", _BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("x-beamlit-backend", "")
    finally:
        connection.close()


class Traffic:
    """Clients that ask one after the other for as long as the context lasts, each time on a connection of its own."""

    def __init__(self, where: Callable[[], tuple[str, int]], path: str) -> None:
        """Ask for `path` at the address that `where` gives at each request."""
        self.answers: Counter[tuple[int, str]] = Counter()
        """By status and backend."""
        self.failures: list[str] = []
        """Requests without a whole answer."""
        self._where, self._path = where, path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    @property
    def count(self) -> int:
        """Requests so far."""
        return self.answers.total() + len(self.failures)

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
                answer = ask(*self._where(), self._path)
            except (OSError, http.client.HTTPException, NoEndpoint) as exc:
                self.failures.append(repr(exc))
            else:
                self.answers[answer] += 1
