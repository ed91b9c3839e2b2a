"""One call of a hook, as Metacontroller's Go client makes it.

200 is the only success. 429 is patience, not an error; without an integer or a date in Retry-After the next try comes
at once. 301, 302 and 303 are followed as a GET without a body, 307 and 308 repeat the POST.
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx

from metacontroller.local import errors
from metacontroller.local.controller import gojson

if TYPE_CHECKING:
    from metacontroller.local.apiserver.objects import Object

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds; also for a missing, zero or negative timeout."""

_HEADERS = {"Content-Type": "application/json", "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHOWN = 300
"""Characters of an error's body in a message; the real Event has all of it."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a hook is and how its answers are read."""

    url: str
    timeout: float
    """Seconds for connecting, sending and reading the whole answer."""
    version: str
    """v1 or v2: the form of the request's keys."""
    strict: bool

    @classmethod
    def from_spec(cls, hook: Object, base: str | None) -> Webhook:
        """From `spec.hooks.<hook>`; `base` replaces scheme, host and port. Raises errors.SetupError."""
        spec = hook.get("webhook") or {}
        version = hook.get("version") or "v1"
        mode = spec.get("responseUnMarshallMode") or ("strict" if version == "v2" else "loose")
        return cls(_url(spec, base), duration(spec.get("timeout")), version, mode == "strict")


async def call(client: httpx.AsyncClient, webhook: Webhook, request: Object, now: datetime) -> bytes:
    """POST the request and give back the body of the 200. Raises errors.HookError or errors.TooManyRequests."""
    try:
        async with asyncio.timeout(webhook.timeout):
            answer = await client.post(
                webhook.url, content=encode(request), headers=_HEADERS, timeout=None, follow_redirects=True
            )
    except TimeoutError as error:
        raise errors.HookError(f"{webhook.url} gave no answer within {webhook.timeout:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise errors.HookError(f"{webhook.url}: {str(error) or type(error).__name__}") from error
    if answer.status_code == 429:
        raise errors.TooManyRequests(retry_after(answer.headers.get("Retry-After"), now))
    if answer.status_code != 200:
        text = answer.text.strip()[:_SHOWN]
        raise errors.HookError(f"{webhook.url} answered {answer.status_code}, only 200 counts: {text}")
    return answer.content


def encode(request: Object) -> bytes:
    """JSON as Go writes it; the outermost keys stay in the order they are given in."""
    parts = (f'"{name}":{gojson.encode(value)}' for name, value in request.items())
    return ("{" + ",".join(parts) + "}").encode("utf-8", "replace")


def retry_after(value: str | None, now: datetime) -> float:
    """Whole seconds to wait: a date, or a whole number; anything else is 0, and the next try comes at once."""
    if value is None:
        return 0.0
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return float(max(int(value), 0)) if re.fullmatch(r"[+-]?\d{1,9}", value) else 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return float(max(math.ceil((moment - now).total_seconds()), 0))


def duration(text: object) -> float:
    """Seconds of a Go duration such as `10s` or `1m30s`; the default where it is missing or not positive.

    Raises errors.SetupError.
    """
    if text is None:
        return DEFAULT_TIMEOUT
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", str(text).lstrip("+-"))
    if str(text).lstrip("+-") not in {"".join(number + unit for number, unit in parts), "0"}:
        raise errors.SetupError(f"timeout {text!r} is no duration such as 10s or 500ms")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return seconds if seconds > 0 and not str(text).startswith("-") else DEFAULT_TIMEOUT


def _url(spec: Object, base: str | None) -> str:
    url = spec.get("url")
    if not url:
        service = spec.get("service") or {}
        if not service.get("name") or not service.get("namespace"):
            raise errors.SetupError("a webhook needs url, or service with name and namespace")
        host = f"{service['name']}.{service['namespace']}:{service.get('port', 80)}"
        url = f"{service.get('protocol', 'http')}://{host}{spec.get('path', '')}"
    if base is None:
        return str(url)
    parsed = httpx.URL(str(url))
    return base.rstrip("/") + parsed.raw_path.decode("ascii")
