"""Token endpoint on a real socket that takes its client's id and secret in some forms and not in others."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote_plus

from tests.integration.servers import ServerSide

GRANTED: Final[dict[str, Any]] = {"access_token": "granted", "token_type": "Bearer", "expires_in": 3600}


@dataclass
class TokenServer:
    """Behavior of a token endpoint for one client."""

    client_id: str = "id"
    secret: str = "secret"
    decodes: bool | None = None
    """Whether id and secret of HTTP Basic are form-decoded, as Keycloak does; None when HTTP Basic is not taken."""
    post: bool = False
    """Whether id and secret may be in the body."""
    refusal: tuple[int, Any] = (401, {"error": "invalid_client"})
    """Status and content of the response to a client that is not recognized."""
    granted: Any = field(default_factory=lambda: dict(GRANTED))
    """Content of the response with the token."""
    attempts: list[str] = field(default_factory=list)
    """Forms in which id and secret came, in the order of the requests: basic or post."""
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    """Fields of the bodies."""

    async def script(self, side: ServerSide) -> None:
        """Respond to all requests of one connection."""
        while True:
            head, _, body = (await side.request()).partition(b"\r\n\r\n")
            status, content = self.response(head.decode("latin-1"), body.decode())
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            await side.send(b"HTTP/1.1 %d Status\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))

    def response(self, head: str, body: str) -> tuple[int, Any]:
        """Return status and content of the response to a request."""
        form = parse_qs(body, strict_parsing=True, keep_blank_values=True)
        self.forms.append(form)
        lines = (line.split(": ", 1) for line in head.split("\r\n")[1:])
        fields = {name.lower(): value for name, value in lines}
        if "authorization" in fields:
            self.attempts.append("basic")
            client = base64.b64decode(fields["authorization"].removeprefix("Basic ")).decode().split(":", 1)
            known = self.decodes is not None and self._is_client(*client, decode=self.decodes)
        else:
            self.attempts.append("post")
            client = [form.get(key, [""])[0] for key in ("client_id", "client_secret")]
            known = self.post and self._is_client(*client, decode=False)
        return (200, self.granted) if known else self.refusal

    def _is_client(self, client_id: str, secret: str, *, decode: bool) -> bool:
        pair = (unquote_plus(client_id), unquote_plus(secret)) if decode else (client_id, secret)
        return pair == (self.client_id, self.secret)
