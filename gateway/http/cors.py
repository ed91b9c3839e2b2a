"""Rules of CORS: which websites may read responses of the gateway in a browser (Fetch standard, section 3.3).

A rule is compiled once from a route document or from the settings. With it the gateway answers preflights itself, and
its fields replace those of a backend.
"""

import re
from collections.abc import Iterable
from typing import Final

from gateway.http.exchange import Fields, RequestHead, field

ANY: Final = "*"
"""Origin that stands for all origins, and header name that stands for all names."""
OWN_FIELDS: Final = (
    b"request-id",
    b"retry-after",
    b"x-beamlit-backend",
    b"x-beamlit-reason",
    b"x-request-id",
    b"x-should-retry",
)
"""Fields of the gateway's responses that a website may always read."""
OFF: Final = (
    "CORS is off, so no website may use this model in a browser: set gateway.cors.origins in the configuration"
    " (config.gateway.cors.origins in the values of the chart), or spec.gateway.cors of the model for requests by path"
    " or host."
)
"""Sentence for a preflight that leads nowhere while there is no rule: it has no body that could name a model."""

_PREFIX: Final = b"access-control-"
_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class CorsRule:
    """Rule for the requests of websites, in the form in which it is applied to each request."""

    __slots__ = ("_allowed", "_any", "_headers", "_preflight", "_refused")

    def __init__(
        self,
        *,
        origins: Iterable[str],
        methods: Iterable[str],
        headers: Iterable[str],
        exposed_headers: Iterable[str],
        credentials: bool,
        max_age: int,
    ) -> None:
        """Compile a rule.

        Args:
            origins: Origins that are allowed, or `*`.
            methods: Methods that a website may use.
            headers: Header fields that a website may send; with `*` all that it asks for.
            exposed_headers: Header fields of responses that a website may read, beside `OWN_FIELDS`.
            credentials: Whether browsers may send cookies and client certificates, and show the response.
            max_age: Seconds for which a browser may keep the response to a preflight.
        """
        names = {canonical_origin(origin) for origin in origins}
        self._any = ANY in names
        exposed = dict.fromkeys((*OWN_FIELDS, *(name.lower().encode() for name in exposed_headers)))
        common: Fields = ((b"access-control-expose-headers", b", ".join(exposed)),)
        if credentials:
            common = ((b"access-control-allow-credentials", b"true"), *common)
        vary = (b"vary", b"Origin")
        self._refused: Fields = () if self._any else (vary,)
        """Fields of a response to an origin that is not allowed, and to a request without an origin."""
        self._allowed: dict[bytes, Fields] = {
            origin.encode(): ((b"access-control-allow-origin", origin.encode()), *common, *self._refused)
            for origin in names
        }
        self._headers = [name.lower() for name in headers]
        self._preflight: Fields = (
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", b"%d" % max_age),
        )

    def fields(self, head: RequestHead) -> Fields:
        """Return the fields that a response to this request gets."""
        return self._permission(head) or self._refused

    def fields_for(self, origin: bytes | None) -> Fields:
        """Return the fields that a response to a request of this origin gets; None is a request without one."""
        return self._permission_for(origin) or self._refused

    def applied(self, fields: Fields, head: RequestHead) -> Fields:
        """Return the fields of a backend's response with those of this rule in place of the backend's own."""
        return (*(one for one in fields if not one[0].startswith(_PREFIX)), *self.fields(head))

    def preflight(self, head: RequestHead) -> Fields:
        """Return the fields of the response to a preflight; an origin that is not allowed gets no permission."""
        fields = self._permission(head)
        if fields is None:
            return self._refused
        if ANY not in self._headers:
            return (*fields, *self._preflight, (b"access-control-allow-headers", ", ".join(self._headers).encode()))
        # All that is asked for, by name: `*` would neither be Authorization nor count with credentials.
        names = field(head.fields, b"access-control-request-headers")
        vary = (b"vary", b"Access-Control-Request-Headers")
        if names is None or not _NAMES.fullmatch(names):
            return (*fields, *self._preflight, vary)
        return (*fields, *self._preflight, (b"access-control-allow-headers", names), vary)

    def _permission(self, head: RequestHead) -> Fields | None:
        """Return the fields by which the website of a request may read the response; None where it may not."""
        return self._permission_for(None if self._any else field(head.fields, b"origin"))

    def _permission_for(self, origin: bytes | None) -> Fields | None:
        """Return the fields by which a website of this origin may read a response; None where it may not."""
        if self._any:
            return self._allowed[b"*"]
        return None if origin is None else self._allowed.get(origin)


def is_preflight(head: RequestHead) -> bool:
    """Return whether a request is a preflight: a browser asks what a website may send (Fetch standard, 3.3.2)."""
    return (
        head.method == b"OPTIONS"
        and field(head.fields, b"origin") is not None
        and field(head.fields, b"access-control-request-method") is not None
    )


def canonical_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, and without the default port of its scheme."""
    lower = origin.lower()
    return lower.removesuffix(_DEFAULT_PORTS.get(lower.partition("://")[0], ""))
