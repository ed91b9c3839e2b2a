"""Issuer of tokens on a real socket: it describes itself as OpenID Connect asks for, and publishes its keys."""

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from tests.integration.servers import ScriptedServer, ServerSide, serving

AUDIENCE: Final = "beamlit"
"""Audience of the tokens of tests."""
DISCOVERY: Final = "/.well-known/openid-configuration"


@functools.cache
def rsa_key(name: str) -> RSAKey:
    """Return the RSA key of a name, which is its id."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig"})


@functools.cache
def ec_key(name: str, curve: Any = "P-256") -> ECKey:
    """Return the EC key of a name, which is its id."""
    return ECKey.generate_key(curve, {"kid": name, "use": "sig"})


@functools.cache
def okp_key(name: str) -> OKPKey:
    """Return the Ed25519 key of a name, which is its id."""
    return OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig"})


@dataclass
class Issuer:
    """Behavior of an issuer."""

    keys: list[Key] = field(default_factory=lambda: [rsa_key("first")])
    """Keys that it publishes."""
    pages: dict[str, bytes] = field(default_factory=dict)
    """Bytes of a whole response by path, in place of the one that would be there."""
    gate: asyncio.Event | None = None
    """Event that responses wait for."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests."""
    heads: list[bytes] = field(default_factory=list)
    """Requests."""
    path: str = "/realms/main"
    """Path of the issuer."""
    url: str = ""
    """Name of the issuer."""

    async def script(self, side: ServerSide) -> None:
        """Respond to all requests of one connection."""
        while True:
            head = await side.request()
            path = head.split(b" ", 2)[1].decode()
            self.heads.append(head)
            self.asked.append(path)
            if self.gate is not None:
                await self.gate.wait()
            await side.send(self.pages.get(path) or self._page(path))

    def _page(self, path: str) -> bytes:
        if path == self.path + DISCOVERY:
            return page({"issuer": self.url, "jwks_uri": f"{self.url}/certs"})
        if path == self.path + "/certs":
            return page({"keys": [key.as_dict(private=False) for key in self.keys]})
        return page({}, b"404 Not Found")

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return the claims of a token that is valid now; None takes one out."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600} | claims
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, key: Key | None = None, *, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """Return a token that is signed with a key, by default the first one that is published."""
        used = key or self.keys[0]
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519", "oct": "HS256"}[used.key_type]
        whole = {"alg": algorithm, "kid": used.kid} | (header or {})
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, self.claims(**claims), used, algorithms=[whole["alg"]]).encode()


def page(content: object, status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """Return the bytes of a whole response."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    lines = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def issuing(
    issuer: Issuer | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Issuer, ScriptedServer]]:
    """Yield an issuer that can be asked, and its server."""
    one = issuer or Issuer()
    async with serving(one.script, context) as server:
        scheme, host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
        one.url = f"{scheme}://{host}:{server.port}{one.path}"
        yield one, server
