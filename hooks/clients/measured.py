"""Metrics of calls to the servers that hooks read from."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hooks.clients.errors import Api, CallFailed
from hooks.telemetry import Metrics


class Call:
    """Call to a server, of which the caller notes the status."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        self.code = ""
        """Status of the response; empty while there is none that counts."""


@contextmanager
def measured(metrics: Metrics, api: Api) -> Iterator[Call]:
    """Measure the time and the code of a call: where there is no status, `error`, or `cancelled` without any end."""
    call, started = Call(), time.perf_counter()
    try:
        yield call
    except CallFailed:
        call.code = call.code or "error"
        raise
    except Exception:
        call.code = "error"
        raise
    finally:
        metrics.source_requests.labels(api.name, call.code or "cancelled").inc()
        metrics.source_seconds.labels(api.name).observe(time.perf_counter() - started)
