"""Metric of a program that says when certificates end: its own, those of servers that it uses, and authorities."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from program.metric_parts import in_parts
from program.validity import end_of, ends_of

MOST: Final = 1024
"""Largest number of certificates that are remembered; the one that was not seen for longest is forgotten first."""
SEEN_SECONDS: Final = 86400.0
"""Seconds for which a certificate is shown after it was last used: its owner may have renewed it since."""
FILE_BYTES: Final = 1 << 20
"""Bytes of the largest file of certificates that is read."""


class CertificateEnds(Collector):
    """Collector of the ends of certificates. Those that are used are noted as they are, and read at a scrape only."""

    def __init__(self, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Know no certificate yet.

        Args:
            program: name of the program in its metrics.
            clock: returns the time of a monotonic clock.
        """
        self._name = f"beamlit_{program}_certificate_end_timestamp_seconds"
        self._clock = clock
        self.listener: Path | None = None
        """File with the certificate that the program shows to its clients; None without TLS."""
        self.authorities: Callable[[], Iterable[tuple[str, str]]] = tuple
        """Function that returns certificate authorities in PEM by the names of what trusts them."""
        self._seen: dict[tuple[str, str], tuple[str | bytes, float]] = {}

    def see(self, certificate: str, name: str, content: str | bytes) -> None:
        """Note that a certificate is used now.

        Args:
            certificate: whose it is: `server`, or `client` for one that the program shows to a server.
            name: host and port of the server, or namespace and name of the Secret.
            content: the certificate in DER, or a chain in PEM.
        """
        key = (certificate, name)
        self._seen.pop(key, None)
        if len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = content, self._clock()

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is now, in parts: there may be thousands of authorities."""
        return map(self._family, in_parts(self._ends()))

    def _family(self, part: Iterable[tuple[str, str, float]]) -> Metric:
        ends = GaugeMetricFamily(
            self._name,
            "Time at which a certificate ends: of the listener, of a server, of a client at a server, of an authority",
            labels=("certificate", "name"),
        )
        for certificate, name, end in part:
            ends.add_metric((certificate, name), end)
        return ends

    def _ends(self) -> Iterator[tuple[str, str, float]]:
        """Yield whose each certificate is, its name, and when it ends: a chain with the first that ends."""
        if self.listener is not None and (found := _of_file(self.listener)):
            yield "listener", self.listener.name, min(found)
        oldest = self._clock() - SEEN_SECONDS
        for (certificate, name), (content, seen) in tuple(self._seen.items()):
            if seen >= oldest and (found := _of(content)):
                yield certificate, name, min(found)
        for name, pem in self.authorities():
            if found := _of(pem):
                yield "authority", name, max(found)  # one that is left is enough


@lru_cache(maxsize=MOST)
def _of(content: str | bytes) -> tuple[float, ...]:
    if isinstance(content, str):
        return tuple(ends_of(content))
    end = end_of(content)
    return () if end is None else (end,)


def _of_file(path: Path) -> tuple[float, ...]:
    """Return when the certificates in a file end; nothing while it cannot be read."""
    try:
        with path.open("rb") as file:
            return _of(file.read(FILE_BYTES).decode("utf-8", "replace"))
    except OSError:
        return ()
