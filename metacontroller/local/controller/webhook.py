"""A call of a hook, as Metacontroller's Go client makes it.

200 is the only success. 429 is a pause and no error; without an integer or a date in Retry-After the next try comes at
once. 301, 302 and 303 are followed as a GET without a body, 307 and 308 repeat the POST.
"""

import asyncio
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self

import httpx

from metacontroller.local import errors
from metacontroller.local.apiserver.objects import Object
from metacontroller.local.controller import gojson

DEFAULT_TIMEOUT: Final = 10.0
"""Default timeout in seconds, also for a zero or negative timeout."""

_HEADERS = {"Content-Type": "application/json", "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHOWN = 300
"""Number of characters of an error's body in a message. The Event of the real Metacontroller has all of it."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A hook: its URL and how its responses are read."""

    url: str
    timeout: float
    """Seconds for connecting, sending and reading the whole response."""
    version: str
    """Version of the request's keys: v1 or v2."""
    strict: bool

    @classmethod
    def from_spec(cls, hook: Object, base: str | None) -> Self:
        """Read `spec.hooks.<hook>`. `base` replaces scheme, host and port. Raise errors.SetupError where it is
        invalid."""
        spec = hook.get("webhook") or {}
        version = hook.get("version") or "v1"
        mode = spec.get("responseUnMarshallMode") or ("strict" if version == "v2" else "loose")
        return cls(_url(spec, base), duration(spec.get("timeout")), version, mode == "strict")


async def call(client: httpx.AsyncClient, webhook: Webhook, request: Object, now: datetime) -> bytes:
    """POST the request and return the body of the 200 response; raise errors.HookError or errors.TooManyRequests
    otherwise."""
    try:
        async with asyncio.timeout(webhook.timeout):
            response = await client.post(
                webhook.url, content=encode(request), headers=_HEADERS, timeout=None, follow_redirects=True
            )
    except TimeoutError as exc:
        raise errors.HookError(f"{webhook.url} gave no response within {webhook.timeout:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise errors.HookError(f"{webhook.url} {_problem(exc)}") from exc
    if response.status_code == 429:
        raise errors.TooManyRequests(retry_after(response.headers.get("Retry-After"), now))
    if response.status_code != 200:
        text = response.text.strip()[:_SHOWN]
        raise errors.HookError(f"{webhook.url} responded {response.status_code}, only 200 counts: {text}")
    return response.content


def _problem(exc: Exception) -> str:
    """Return why there is no response, to follow the URL."""
    match exc:
        case httpx.ConnectError():
            return "cannot be connected to: is hooks running there?"
        case httpx.TooManyRedirects():
            return "redirects without end"
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return "is no http or https URL"
        case _:
            return "closed the connection before its response was complete"


def encode(request: Object) -> bytes:
    """Return JSON as Go writes it, with the outermost keys in the given order."""
    parts = (f'"{name}":{gojson.encode(value)}' for name, value in request.items())
    return ("{" + ",".join(parts) + "}").encode("utf-8", "replace")


def retry_after(value: str | None, now: datetime) -> float:
    """Return the whole seconds of a Retry-After field: a date or a whole number. Anything else is 0, and the next try
    comes at once."""
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
    """Return the seconds of a Go duration such as `10s` or `1m30s`, or the default where it is missing or not positive.

    Raises:
        errors.SetupError: The text is no duration.
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
