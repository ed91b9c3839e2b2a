"""Credentials that a request presents to the gateway, at the places where clients of the usual APIs put them."""

from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Final

from gateway.http.exchange import Fields

_OPENAI_SUBPROTOCOL: Final = b"openai-insecure-api-key."
_KUBERNETES_SUBPROTOCOL: Final = b"base64url.bearer.authorization.k8s.io."


def presented(fields: Fields) -> list[bytes]:
    """Return the credentials in the fields of a request, in their order.

    They are the token of `Authorization: Bearer`, the values of `x-api-key` and `api-key`, and the subprotocols of a
    WebSocket in which browsers send a key.
    """
    found: list[bytes] = []
    for name, value in fields:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(rest.strip(b" \t"))
        elif name == b"x-api-key" or name == b"api-key":
            found.append(value.strip(b" \t"))
        elif name == b"sec-websocket-protocol":
            found.extend(_in_subprotocols(value))
    return found


def _in_subprotocols(value: bytes) -> Iterator[bytes]:
    for part in value.split(b","):
        item = part.strip(b" \t")
        if item.startswith(_OPENAI_SUBPROTOCOL):
            yield item[len(_OPENAI_SUBPROTOCOL) :]
        elif item.startswith(_KUBERNETES_SUBPROTOCOL):
            encoded = item[len(_KUBERNETES_SUBPROTOCOL) :]
            yield urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)) if _is_base64url(encoded) else b""


def _is_base64url(encoded: bytes) -> bool:
    """Return whether this can be decoded: the letters of base64url, without padding, in a possible number."""
    return encoded.replace(b"-", b"").replace(b"_", b"").isalnum() and len(encoded) % 4 != 1
