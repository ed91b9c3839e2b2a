"""Errors with which the gateway itself responds, and failures of backends.

    GatewayError                 has status, code and a sentence for the client
    +-- RequestError             the client's request is at fault
    |   +-- MalformedRequest     400, connection closed
    |   +-- HeadTooLarge         431
    |   +-- TargetTooLong        414
    |   +-- BodyTooLarge         413
    |   +-- RequestTimeout       408: the head was not complete in time
    |   +-- BodyTimeout          408: no byte of the body arrived for too long
    |   +-- MethodNotAllowed     405
    |   |   +-- ReadOnly         405: the gateway itself has the resource, to be read
    |   +-- NotImplementedMethod 501
    |   +-- UpgradeRefused       400
    |   |   +-- WebSocketVersionRefused
    |   |                        400, names the version that is spoken (RFC 6455 4.4)
    |   +-- VersionNotSupported  505
    |   +-- LoopDetected         508 (RFC 9110 7.6.3)
    |   +-- MisdirectedRequest   421
    |   +-- ExpectationFailed    417
    |   +-- UnsupportedCoding    415 (RFC 9110 15.5.16)
    |   +-- MalformedCoding      400
    |   +-- Unauthorized         401: the request has no credential for the gateway
    |   |   +-- CredentialUnknown
    |   |       |                401: the gateway does not know the credential of the request
    |   |       +-- TokenRefused 401: the credential is a token that is not valid
    |   +-- Forbidden            403: the caller may not use the model
    |   |   +-- ModelForbidden   403: a rule says so
    |   |   +-- TokenForbidden   403: the token of the caller has no group that is served
    |   |   +-- TokenNeeded      403: the caller has no token that the model takes
    |   +-- TooManyRequests      429: the caller has as many requests in flight as it may have
    +-- RoutingError             the request is well formed, but leads nowhere
    |   +-- RouteNotFound        404
    |   +-- AmbiguousHost        404, names the full spellings
    |   +-- ModelNotFound        404
    |   +-- AmbiguousModel       409, names both
    |   +-- ModelMissing         400: no model is named, or not in one way for all readers
    |   +-- StateRefused         400: the request refers to an earlier response, and the model keeps none
    |   +-- NoBackend            503
    |   +-- AtCapacity           503: the backend is at its limit, and so is the queue
    |   |   +-- QueueTimeout     503: the request waited in the queue for too long
    |   +-- AccessUnavailable    503: the keys of the model cannot be read
    |   |   +-- IssuerUnavailable
    |   |                        503: the keys of the issuer of tokens cannot be had
    |   +-- LocalOnly            503: local backends cannot serve the request, and no other may
    |   +-- Overloaded           503: the gateway is at a limit of its own
    |   +-- Stopping             503: the drain time is over
    +-- UpstreamError            a backend failed, or the way to it
        +-- ConnectFailed        502: nothing was sent
        +-- AddressRefused       502: the name resolves to an address that is not allowed
        +-- ConnectTimeout       504
        +-- TlsFailed            502
        +-- FirstByteTimeout     504
        +-- FirstTokenTimeout    504: no event of an event stream
        +-- IdleTimeout          504: the body stalled
        +-- UpstreamReset        502: the connection broke before the response was complete
        +-- BadResponse          502: the response breaks RFC 9112
        +-- CredentialsFailed    502: there is no token or header value
        +-- CredentialsRefused   502: the backend does not accept the gateway's own credentials

Messages are fixed sentences about the request. They contain no names or addresses of backends and nothing that a client
sent.
"""

from typing import TYPE_CHECKING, ClassVar, Final

import orjson

if TYPE_CHECKING:
    from program.oauth.errors import TokenUnavailable


class GatewayError(Exception):
    """Abstract base: no backend responds to the request, the gateway does.

    `status` is the HTTP status of the response, `code` the stable word that clients may rely on, `kind` the `type` of
    an OpenAI error, and `close` tells whether the client's connection is closed after the response.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    close: ClassVar[bool] = False
    sentence: ClassVar[str] = "The gateway failed to handle the request."
    lasting: ClassVar[bool] = False
    """Whether the same request gets the same error, though clients try again after responses of this status."""

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message or self.sentence)
        self.message = message or self.sentence
        self.retry_after = retry_after
        """Seconds for a Retry-After field; None for a response without it."""


class RequestError(GatewayError):
    """Abstract base: the client's request is at fault."""

    status = 400
    code = "bad_request"
    kind = "invalid_request_error"


class MalformedRequest(RequestError):
    """The request breaks RFC 9112, or its framing is ambiguous."""

    code = "malformed_request"
    close = True
    sentence = "The request is not valid HTTP/1.1."


class HeadTooLarge(RequestError):
    """The head has too many fields or bytes."""

    status = 431
    code = "head_too_large"
    close = True
    sentence = "The request's header fields are too large."


class TargetTooLong(RequestError):
    """The request target is too long."""

    status = 414
    code = "target_too_long"
    close = True
    sentence = "The request's URL is too long."


class BodyTooLarge(RequestError):
    """The body exceeds the route's limit."""

    status = 413
    code = "body_too_large"
    close = True
    sentence = "The request's body is larger than this route allows."


class RequestTimeout(RequestError):
    """The head was not complete in time."""

    status = 408
    code = "request_timeout"
    close = True
    sentence = "The request's head did not arrive in time."


class BodyTimeout(RequestError):
    """No byte of the body arrived for too long."""

    status = 408
    code = "body_timeout"
    close = True
    sentence = "The request's body did not arrive in time."


class MethodNotAllowed(RequestError):
    """The method is known, but not allowed for this resource."""

    status = 405
    code = "method_not_allowed"
    close = True
    sentence = "This method is not allowed here: the field Allow has those that are."
    allow: ClassVar[bytes] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    """Value of an Allow field, with all methods that are forwarded (RFC 9110 10.2.1)."""


class ReadOnly(MethodNotAllowed):
    """The gateway itself has the resource, which can be read and not be changed."""

    sentence = "This can only be read, by GET or HEAD."
    allow = b"GET, HEAD"


class NotImplementedMethod(RequestError):
    """The method is not one that this gateway forwards."""

    status = 501
    code = "method_not_implemented"
    lasting = True
    close = True
    sentence = "The gateway does not know this method."


class UpgradeRefused(RequestError):
    """The request asks for a WebSocket and is no opening handshake of one (RFC 6455 4.2.1)."""

    code = "upgrade_refused"
    close = True
    sentence = (
        "The gateway upgrades connections to version 13 of WebSocket, from a GET without a body, and to nothing else."
    )


class WebSocketVersionRefused(UpgradeRefused):
    """The request asks for another version of WebSocket than the one that is forwarded.

    It is a 400 like other bad handshakes: a 426 must offer an upgrade (RFC 9110 15.5.22), on a connection that closes.
    """

    sentence = "The gateway speaks version 13 of WebSocket."
    version: ClassVar[bytes] = b"13"
    """Version of WebSocket that is forwarded, the only one that RFC 6455 has."""


class VersionNotSupported(RequestError):
    """The request's HTTP version is not 1.x."""

    status = 505
    code = "version_not_supported"
    lasting = True
    close = True
    sentence = "The gateway speaks HTTP/1.1."


class LoopDetected(RequestError):
    """The request has passed this gateway before, as its Via field shows (RFC 9110 7.6.3)."""

    status = 508
    code = "loop_detected"
    lasting = True
    close = True
    sentence = "The request came back to the gateway that sent it on."


class MisdirectedRequest(RequestError):
    """The authority in the request target differs from Host (RFC 9112 3.2.2)."""

    status = 421
    code = "misdirected_request"
    close = True
    sentence = "The request's URL and its Host field name different hosts."


class ExpectationFailed(RequestError):
    """The request has an expectation other than 100-continue (RFC 9110 10.1.1)."""

    status = 417
    code = "expectation_failed"
    sentence = "The gateway knows no expectation but 100-continue."


class UnsupportedCoding(RequestError):
    """The body has a content coding that the gateway cannot read, and it has to know the name of the model."""

    status = 415
    code = "unsupported_content_coding"
    sentence = "The gateway reads bodies with the content codings gzip, deflate, br and zstd only, or without one."
    accepted: ClassVar[bytes] = b"gzip, deflate, br, zstd"
    """Value of an Accept-Encoding field (RFC 9110 12.5.3)."""


class MalformedCoding(RequestError):
    """The body does not have the content coding that its header field names."""

    code = "malformed_content_coding"
    sentence = "The request's body does not have the content coding that its Content-Encoding field names."


class Unauthorized(RequestError):
    """The request has no credential, and the gateway serves no request without one."""

    status = 401
    code = "unauthorized"
    sentence = "This gateway needs an API key, as Authorization: Bearer <key>, x-api-key or api-key."
    challenge: ClassVar[bytes] = b'Bearer realm="beamlit"'
    """Value of a WWW-Authenticate field (RFC 6750 3)."""


class CredentialUnknown(Unauthorized):
    """The request has credentials, none of which the gateway knows."""

    sentence = "The API key in the request is not one that this gateway knows."
    challenge = b'Bearer realm="beamlit", error="invalid_token"'


class TokenRefused(CredentialUnknown):
    """The request has a token (JWT) that is not valid. Its message says why, also in the challenge (RFC 6750 3)."""

    sentence = "The token in the request is not valid."


class Forbidden(RequestError):
    """The gateway knows the caller, and the model has keys of its own, none of which the request has."""

    status = 403
    code = "forbidden"
    sentence = "This model needs an API key of its own, beside the one of the gateway: send it as x-api-key or api-key."


class ModelForbidden(Forbidden):
    """The rule for the caller does not name the model."""

    sentence = "This caller may not use this model: GET /v1/models lists those that it may use."


class TokenForbidden(Forbidden):
    """The token of the caller is valid, and has none of the groups that the gateway serves."""

    sentence = "The token in the request is valid, and its groups may not use this gateway."
    challenge: ClassVar[bytes] = b'Bearer realm="beamlit", error="insufficient_scope"'
    """Value of a WWW-Authenticate field (RFC 6750 3.1)."""


class TokenNeeded(TokenForbidden):
    """The caller is known, and not by a token that the model takes."""

    sentence = (
        "This model needs a token of an audience or a group of its own: the credential in the request is none, or has"
        " another audience or other groups."
    )


class TooManyRequests(RequestError):
    """The caller, or a group of it, has as many requests in flight as its rule allows."""

    status = 429
    code = "too_many_requests"
    kind = "rate_limit_error"
    sentence = (
        "This caller, or its group, has as many requests in flight as it may have: send the next when one has ended."
    )


class RoutingError(GatewayError):
    """Abstract base: the request is well formed, but leads nowhere."""

    status = 404
    code = "not_found"
    kind = "invalid_request_error"


class RouteNotFound(RoutingError):
    """Neither the host nor the path belongs to a model."""

    code = "route_not_found"
    sentence = (
        "No model is served under this host or path: requests by the model's name go to /v1/..., and by path to"
        " /{namespace}/{name}/...; GET /v1/models lists the names."
    )


class AmbiguousHost(RoutingError):
    """The host name is a short one that needs its namespace."""

    code = "ambiguous_host"
    sentence = "This host name needs its namespace."


class ModelNotFound(RoutingError):
    """The `model` value of the request names no model."""

    code = "model_not_found"
    sentence = "The model in the request does not exist: GET /v1/models lists those that do."


class AmbiguousModel(RoutingError):
    """The `model` value is a bare name that models in several namespaces have."""

    status = 409
    code = "ambiguous_model"
    lasting = True
    sentence = "Several namespaces have a model of this name."


class ModelMissing(RoutingError):
    """The request names no model where one is needed, or servers may read different names in it."""

    status = 400
    code = "model_missing"
    sentence = "The request names no model, or names one in a way that servers may read differently."


class StateRefused(RoutingError):
    """The request refers to an earlier response, and the route refuses such requests."""

    status = 400
    code = "state_refused"
    sentence = (
        "This model keeps no responses for later requests: send the whole conversation as input, without"
        " previous_response_id."
    )


class NoBackend(RoutingError):
    """The route has no backend that the request may be sent to."""

    status = 503
    code = "no_backend"
    kind = "server_error"
    sentence = "The model has no backend that can take requests now."


class AtCapacity(RoutingError):
    """The backend is at its limit of requests in flight, no other backend takes this one, and the queue is full."""

    status = 503
    code = "at_capacity"
    kind = "server_error"
    sentence = "The model has as many requests as it can take now."


class QueueTimeout(AtCapacity):
    """The request waited in the queue for as long as it may."""

    code = "queue_timeout"
    sentence = "The model could not take the request in time."


class AccessUnavailable(RoutingError):
    """The Secret with the API keys of the model cannot be read, and was not read before."""

    status = 503
    code = "access_unavailable"
    kind = "server_error"
    sentence = "The gateway cannot read the API keys of this model now."


class IssuerUnavailable(AccessUnavailable):
    """The keys of the issuer of tokens could not be loaded, and were not before."""

    sentence = "The gateway cannot verify tokens now: it could not load the keys of their issuer."


class LocalOnly(RoutingError):
    """The request never leaves the cluster, and no local backend serves it now."""

    status = 503
    code = "local_only"
    kind = "server_error"
    sentence = "This request may only be served inside the cluster, where no backend can serve it now."


class Overloaded(RoutingError):
    """The gateway has reached a limit of its own."""

    status = 503
    code = "overloaded"
    kind = "server_error"
    close = True
    sentence = "The gateway has no room for another request now."


class Stopping(RoutingError):
    """The gateway stops before the response is complete."""

    status = 503
    code = "gateway_stopping"
    kind = "server_error"
    close = True
    sentence = "The gateway is stopping and could not wait for the end of this response. Send the request again."


class UpstreamError(GatewayError):
    """Abstract base: a backend failed, or the way to it."""

    status = 502
    code = "upstream_error"
    sent: ClassVar[bool] = True
    """Whether a byte of the request may have reached the backend."""


class ConnectFailed(UpstreamError):
    """The gateway cannot connect: refused, unreachable, or the name does not resolve."""

    code = "connect_failed"
    sentence = "The model's backend cannot be reached."
    sent = False

    def __init__(self, *, is_unresolved: bool = False) -> None:
        """Note whether it is the backend's name that has no address."""
        super().__init__()
        self.is_unresolved = is_unresolved


class AddressRefused(UpstreamError):
    """The backend's name resolves to an address that is not allowed."""

    code = "address_refused"
    sentence = "The model's backend has an address that this gateway may not connect to."
    sent = False


class ConnectTimeout(UpstreamError):
    """The backend did not accept a connection before the deadline."""

    status = 504
    code = "connect_timeout"
    sentence = "The model's backend did not accept a connection in time."
    sent = False

    def __init__(self, *, is_unresolved: bool = False) -> None:
        """Note whether it is a name server that did not respond in time."""
        super().__init__()
        self.is_unresolved = is_unresolved


class TlsFailed(UpstreamError):
    """The TLS handshake failed, or the backend's certificate is not valid for its name."""

    code = "tls_failed"
    sentence = "The model's backend has no valid certificate."
    sent = False


class FirstByteTimeout(UpstreamError):
    """The backend did not send the head of a response before the deadline."""

    status = 504
    code = "first_byte_timeout"
    sentence = "The model's backend did not respond in time."


class FirstTokenTimeout(UpstreamError):
    """The backend did not send the first event of an event stream before the deadline."""

    status = 504
    code = "first_token_timeout"
    sentence = "The model's backend did not begin to respond in time."


class IdleTimeout(UpstreamError):
    """The backend sent no byte of the response body for too long."""

    status = 504
    code = "idle_timeout"
    sentence = "The model's backend stopped sending its response."


class UpstreamReset(UpstreamError):
    """The connection ended before the response was complete."""

    code = "upstream_reset"
    sentence = "The model's backend broke the connection."


class BadResponse(UpstreamError):
    """The response breaks RFC 9112 or exceeds a limit."""

    code = "bad_response"
    sentence = "The model's backend sent an invalid response."


class CredentialsFailed(UpstreamError):
    """The gateway could not get a token or header value for the backend."""

    code = "credentials_failed"
    sentence = "The gateway has no valid credentials for the model's backend."
    sent = False

    def __init__(self, problem: str = "", *, source: str = "", unavailable: "TokenUnavailable | None" = None) -> None:
        """Describe the problem for administrators; clients get none of it.

        Args:
            problem: What is wrong with the credentials, as a clause without its full stop; nothing in it is secret.
            source: Object or settings that have the credentials, such as `Secret default/keys`.
            unavailable: Why there is no token, where the credentials are for one.
        """
        super().__init__()
        self.problem = problem
        self.source = source
        self.unavailable = unavailable


class CredentialsRefused(UpstreamError):
    """The backend responds with 401 to the gateway's own credentials, also after they were renewed."""

    code = "credentials_refused"
    sentence = "The model's backend does not accept the gateway's credentials."


_ANTHROPIC_PATH: Final = b"/v1/messages/"
_ANTHROPIC_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Types of Anthropic's errors by status. Others below 500 are `invalid_request_error`, and all others `api_error`."""


def is_anthropic(target: bytes) -> bool:
    """Return whether a request target is of Anthropic's API: `/v1/messages` or a path below it, behind any prefix."""
    return (target.partition(b"?")[0] + b"/").find(_ANTHROPIC_PATH) >= 0


def body(error: GatewayError, request_id: str, target: bytes = b"") -> bytes:
    """Return the response body for `error`, in the form that clients of OpenAI or, by its target, Anthropic know.

    The code stands where the clients look for a code: `error.code`, or `error.details.error_code`.
    """
    return _body(error.status, error.kind, error.code, error.message, request_id, target)


def _body(status: int, kind: str, code: str, message: str, request_id: str, target: bytes) -> bytes:
    """Return an error in the form of OpenAI or, by its target, Anthropic, whose types follow from the status."""
    if is_anthropic(target):
        other = "invalid_request_error" if status < 500 else "api_error"
        content = {
            "type": _ANTHROPIC_KINDS.get(status, other), "message": message, "details": {"error_code": code},
        }  # fmt: skip
        return orjson.dumps({"type": "error", "error": content, "request_id": request_id})
    error = {"message": message, "type": kind, "code": code, "param": None, "request_id": request_id}
    return orjson.dumps({"error": error})


_MARK: Final = b"\xef\xbb\xbf"
"""Byte order mark, which is all that some servers send before the first event."""
LATE_BYTES: Final = 16384
"""Bytes of a backend's error that are read where it comes too late for its status."""
_LATE_CHARACTERS: Final = 1000
"""Characters of its message that the client gets."""
_CODE_CHARACTERS: Final = 64
"""Characters of its code that the client gets."""


def late_body(status: int, content: bytes, request_id: str, target: bytes) -> bytes:
    """Return the error for a response that is no event stream and comes after the head of one was sent.

    It has the status in its message, and the message and the code of the response's body where that has any.

    Args:
        status: Status of the response.
        content: Beginning of its body.
        request_id: Id of the request.
        target: Target of the request, which tells the form of the error.
    """
    if status < 400:
        message = f"The model's backend responded with status {status}, but with no events that can be read."
        status, code = BadResponse.status, BadResponse.code
    else:
        reason, code = _of_backend(content)
        message = f"The model's backend responded with status {status}{': ' if reason else '.'}{reason}"
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return _body(status, kind, code or str(status), message, request_id, target)


def _of_backend(content: bytes) -> tuple[str, str]:
    """Return message and code of an error as model servers and proxies write it, both empty where there are none."""
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return _plain(content), ""
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(found, str):
        return found[:_LATE_CHARACTERS], ""
    if not isinstance(found, dict):
        return "", ""
    message, code = found.get("message") or found.get("detail"), found.get("code")
    return (
        message[:_LATE_CHARACTERS] if isinstance(message, str) else "",
        code[:_CODE_CHARACTERS] if isinstance(code, str) else "",
    )


def _plain(content: bytes) -> str:
    """Return an error that is a plain text, as proxies write it; an empty text for a page and JSON that was cut."""
    try:
        text = " ".join(content.decode().split())
    except UnicodeDecodeError:
        return ""
    return text[:_LATE_CHARACTERS] if text.isprintable() and not text.startswith(("<", "{", "[", '"')) else ""


def fields(error: GatewayError, request_id: str, target: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return the fields of the response to `error` that say more about it than its body.

    Anthropic's clients look for the id of a request in a field of their own.
    """
    found = [(b"content-type", b"application/json")]
    if isinstance(error, MethodNotAllowed):
        found.append((b"allow", error.allow))
    elif isinstance(error, UnsupportedCoding):
        found.append((b"accept-encoding", error.accepted))
    elif isinstance(error, TokenRefused):
        described = b'%b, error_description="%b"' % (error.challenge, error.message.encode("ascii"))
        found.append((b"www-authenticate", described))
    elif isinstance(error, (Unauthorized, TokenForbidden)):
        found.append((b"www-authenticate", error.challenge))
    elif isinstance(error, WebSocketVersionRefused):
        found.append((b"sec-websocket-version", error.version))
    if error.lasting:
        found.append((b"x-should-retry", b"false"))  # OpenAI's and Anthropic's clients obey it
    if error.retry_after is not None:
        found.append((b"retry-after", str(error.retry_after).encode()))
    if is_anthropic(target):
        found.append((b"request-id", request_id.encode()))
    return found


def is_whole(tail: bytes) -> bool:
    """Return whether an event stream with these last four bytes ends between two events."""
    return not tail or tail == _MARK or tail.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))


def last_event(tail: bytes, body: bytes, *, named: bool = False) -> bytes:
    """Return the event with which a broken event stream ends (HTML Living Standard 9.2).

    An event that was cut in the middle becomes part of the error event: alone it would be a message that the backend
    never sent.

    Args:
        tail: Last four bytes of the stream.
        body: Data of the event, one line.
        named: Whether the event has the name `error` in any case.
    """
    whole = is_whole(tail)
    if whole and not named:
        return b"data: %b\n\n" % body
    line_end = b"" if whole or tail.endswith((b"\n", b"\r")) else b"\n"
    return b"%bevent: error\ndata: %b\n\n" % (line_end, body)
