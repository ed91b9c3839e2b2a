"""Traffic of the last minutes, counted from the journal: by route, by backend and by pod."""

from collections.abc import Iterator
from typing import Final

from gateway.journal import RequestRecord
from gateway.page.words import DIVERSIONS

WINDOW_SECONDS: Final = 300.0
"""Seconds that the page looks back at most."""
MOST_RECORDS: Final = 10_000
"""Number of requests that the page looks back at most."""
_LEFT: Final = 499
"""Status of a request whose client left before its response."""


class Times:
    """Times from the moment at which requests were sent to a server to the first bytes of its responses."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Count one response."""
        self._seconds.append(max(0.0, seconds))

    def quantile(self, percent: int) -> float:
        """Return the time within which so many percent of the responses came; there is one at least."""
        ordered = sorted(self._seconds)
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class PlaceTraffic:
    """Traffic of one backend, or of one of its pods."""

    __slots__ = ("failed", "first_bytes", "first_tokens", "responses")

    def __init__(self) -> None:
        self.responses = 0
        """Requests whose response came from here."""
        self.failed = 0
        """Attempts that failed here."""
        self.first_tokens = Times()
        """Times of the first events of event streams."""
        self.first_bytes = Times()
        """Times of the heads of all other responses."""


class RouteTraffic:
    """Traffic of one route."""

    __slots__ = ("diverted", "diverted_ago", "failed", "failed_ago", "requests")

    def __init__(self) -> None:
        self.requests = 0
        """Requests whose client did not leave before the response."""
        self.failed: dict[str, int] = {}
        """Requests that failed, by status, and `broke off` for those whose response was not complete."""
        self.failed_ago = 0.0
        """Seconds since the last of them ended."""
        self.diverted: dict[str, int] = {}
        """Requests that went elsewhere than the split says, by reason."""
        self.diverted_ago = 0.0
        """Seconds since the last of them ended."""


class Traffic:
    """Traffic of all routes."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteTraffic] = {}
        self.places: dict[tuple[str, str, str | None], PlaceTraffic] = {}
        """Traffic by route, backend and pod; None for all pods of the backend."""
        self.requests = 0
        """Requests that were counted, those without a route included."""
        self.failed = 0
        """Requests that failed among them."""
        self.seconds = WINDOW_SECONDS
        """Seconds that the counts are about."""

    def count(self, records: Iterator[RequestRecord], now: float, *, whole: bool) -> Iterator[None]:
        """Count the requests of the window, one per step.

        Args:
            records: Requests, the last one to end first.
            now: Present time, in seconds since 1970.
            whole: Whether `records` are all that there were, so that none of the window is missing.
        """
        oldest = now
        for record in records:
            ended = record.at + record.seconds
            if ended < now - WINDOW_SECONDS:
                whole = True
                break
            if self.requests >= MOST_RECORDS:
                whole = False
                break
            oldest = min(oldest, ended)
            self._count(record, max(0.0, now - ended))
            yield
        if not whole:
            self.seconds = max(1.0, now - oldest)

    def _count(self, record: RequestRecord, ago: float) -> None:
        self.requests += 1
        failed = "broke off" if record.broken else str(record.status) if record.status >= 500 else None
        self.failed += failed is not None
        key = record.route
        if key is None:
            return
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = RouteTraffic()
        route.requests += record.status != _LEFT
        if failed is not None:
            route.failed_ago = ago if not route.failed else min(route.failed_ago, ago)
            route.failed[failed] = route.failed.get(failed, 0) + 1
        reason = record.reason
        if reason is not None and reason in DIVERSIONS:
            route.diverted_ago = ago if not route.diverted else min(route.diverted_ago, ago)
            route.diverted[reason] = route.diverted.get(reason, 0) + 1
        before = record.queued
        backend, pod, failures = record.backend, record.pod, record.failures or ()
        responded = backend is not None and record.code is None
        for name, _, seconds, failed_pod in failures:
            before += seconds
            responded = responded and (name, failed_pod) != (backend, pod)
            for place in self._places(key, name, failed_pod):
                place.failed += 1
        if backend is None or not responded:
            return
        for place in self._places(key, backend, pod):
            place.responses += 1
            if record.first_event is not None:
                place.first_tokens.add(record.first_event - before)
            elif record.first_byte is not None:
                place.first_bytes.add(record.first_byte - before)

    def _places(self, route: str, backend: str, pod: str | None) -> Iterator[PlaceTraffic]:
        """Yield the counts of a backend, and of its pod where there is one."""
        for key in ((route, backend, None), (route, backend, pod)) if pod is not None else ((route, backend, None),):
            place = self.places.get(key)
            if place is None:
                place = self.places[key] = PlaceTraffic()
            yield place
