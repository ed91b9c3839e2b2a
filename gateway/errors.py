"""Everything the gateway itself can answer with, and everything that can go wrong with a backend.

    GatewayError                 has status, code and a sentence for the client
    +-- RequestError             the client's message is at fault
    |   +-- MalformedRequest     400, connection closed
    |   +-- HeadTooLarge         431
    |   +-- TargetTooLong        414
    |   +-- BodyTooLarge         413
    |   +-- RequestTimeout       408: the head was not complete in time
    |   +-- BodyTimeout          408: no byte of the body for too long
    |   +-- MethodNotAllowed     405
    |   +-- NotImplementedMethod 501
    |   +-- UpgradeRefused       400
    |   +-- VersionNotSupported  505
    |   +-- LoopDetected         508 (RFC 9110 7.6.3)
    |   +-- MisdirectedRequest   421
    |   +-- ExpectationFailed    417
    +-- RoutingError             the request is well formed, but leads nowhere
    |   +-- RouteNotFound        404
    |   +-- AmbiguousHost        404, names the full spellings
    |   +-- ModelNotFound        404
    |   +-- AmbiguousModel       409, names both
    |   +-- ModelMissing         400
    |   +-- NoBackend            503
    |   +-- AtCapacity           503: the backend is at its limit, and so is the queue
    |   |   +-- QueueTimeout     503: waited for it in vain
    |   +-- Overloaded           503
    |   +-- Stopping             503: the drain time is over
    +-- UpstreamError            a backend's fault, or on the way to it
        +-- ConnectFailed        502: nothing was sent
        +-- AddressRefused       502: it resolves to an address that is not allowed
        +-- ConnectTimeout       504
        +-- TlsFailed            502
        +-- FirstByteTimeout     504
        +-- IdleTimeout          504: the body stalled
        +-- UpstreamReset        502: broke off before a complete answer
        +-- BadResponse          502: the answer breaks RFC 9112
        +-- CredentialsFailed    502: no token could be had

Messages are fixed sentences about the request: no upstream names, no addresses, nothing a client sent.
"""

from typing import ClassVar

import orjson


class GatewayError(Exception):
    """Abstract: the request cannot be answered by a backend.

    `status` is the HTTP status to answer with, `code` the stable word clients may rely on, `kind` the OpenAI error
    `type`, and `close` whether the client's connection can be used again.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    close: ClassVar[bool] = False
    sentence: ClassVar[str] = "The gateway failed to handle the request."

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message or self.sentence)
        self.message = message or self.sentence
        self.retry_after = retry_after
        """Seconds for a Retry-After field, or None."""


class RequestError(GatewayError):
    """Abstract: the client's message is at fault."""

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
    """The method is known and not for this resource."""

    status = 405
    code = "method_not_allowed"
    close = True
    sentence = "This method is not allowed here."


class NotImplementedMethod(RequestError):
    """The method is not one this gateway passes on."""

    status = 501
    code = "method_not_implemented"
    close = True
    sentence = "The gateway does not know this method."


class UpgradeRefused(RequestError):
    """An upgrade other than the opening handshake of a WebSocket (RFC 9110 7.8, RFC 6455 4.2.1)."""

    code = "upgrade_refused"
    close = True
    sentence = (
        "The gateway upgrades connections to version 13 of WebSocket, from a GET without a body, and to nothing else."
    )


class VersionNotSupported(RequestError):
    """Not HTTP/1.x."""

    status = 505
    code = "version_not_supported"
    close = True
    sentence = "The gateway speaks HTTP/1.1."


class LoopDetected(RequestError):
    """The request has been here before (RFC 9110 7.6.3)."""

    status = 508
    code = "loop_detected"
    close = True
    sentence = "The request came back to the gateway that sent it on."


class MisdirectedRequest(RequestError):
    """The target's authority is not the one in Host (RFC 9112 3.2.2)."""

    status = 421
    code = "misdirected_request"
    close = True
    sentence = "The request's URL and its Host field name different hosts."


class ExpectationFailed(RequestError):
    """An expectation other than 100-continue (RFC 9110 10.1.1)."""

    status = 417
    code = "expectation_failed"
    sentence = "The gateway knows no expectation but 100-continue."


class RoutingError(GatewayError):
    """Abstract: the request is well formed and leads nowhere."""

    status = 404
    code = "not_found"
    kind = "invalid_request_error"


class RouteNotFound(RoutingError):
    """Neither host nor path belongs to a model."""

    code = "route_not_found"
    sentence = "No model is served under this host or path."


class AmbiguousHost(RoutingError):
    """A short host name that needs its namespace."""

    code = "ambiguous_host"
    sentence = "This host name needs its namespace."


class ModelNotFound(RoutingError):
    """The `model` value names no model."""

    code = "model_not_found"
    sentence = "The model in the request does not exist."


class AmbiguousModel(RoutingError):
    """A bare model name that two namespaces claim."""

    status = 409
    code = "ambiguous_model"
    sentence = "Several namespaces have a model of this name."


class ModelMissing(RoutingError):
    """A body without the `model` value that the route needs."""

    status = 400
    code = "model_missing"
    sentence = 'The body must be a JSON object with a string value for "model".'


class NoBackend(RoutingError):
    """The route has nowhere to send a request."""

    status = 503
    code = "no_backend"
    kind = "server_error"
    sentence = "The model has no backend that can take requests now."


class AtCapacity(RoutingError):
    """The backend has as many requests as it may have, and nobody else takes this one."""

    status = 503
    code = "at_capacity"
    kind = "server_error"
    sentence = "The model has as many requests as it can take now."


class QueueTimeout(AtCapacity):
    """The request waited for its turn for as long as it may."""

    code = "queue_timeout"
    sentence = "The model could not take the request in time."


class Overloaded(RoutingError):
    """The gateway has reached a limit of its own."""

    status = 503
    code = "overloaded"
    kind = "server_error"
    close = True
    sentence = "The gateway has no room for another request now."


class Stopping(RoutingError):
    """The gateway ends before the answer did."""

    status = 503
    code = "gateway_stopping"
    kind = "server_error"
    close = True
    sentence = "The gateway is stopping and could not wait for the end of this answer. Send the request again."


class UpstreamError(GatewayError):
    """Abstract: a backend failed, or the way to it."""

    status = 502
    code = "upstream_error"
    sent: ClassVar[bool] = True
    """Whether a byte of the request may have reached the backend."""


class ConnectFailed(UpstreamError):
    """No connection: refused, unreachable, or the name does not resolve."""

    code = "connect_failed"
    sentence = "The model's backend cannot be reached."
    sent = False


class AddressRefused(UpstreamError):
    """The backend's name leads to an address that is not allowed."""

    code = "address_refused"
    sentence = "The model's backend has an address that this gateway may not connect to."
    sent = False


class ConnectTimeout(UpstreamError):
    """No connection in time."""

    status = 504
    code = "connect_timeout"
    sentence = "The model's backend did not accept a connection in time."
    sent = False


class TlsFailed(UpstreamError):
    """The handshake failed, or the certificate is not valid for the name."""

    code = "tls_failed"
    sentence = "The model's backend has no valid certificate."
    sent = False


class FirstByteTimeout(UpstreamError):
    """No answer's head in time."""

    status = 504
    code = "first_byte_timeout"
    sentence = "The model's backend did not answer in time."


class IdleTimeout(UpstreamError):
    """No byte of the answer's body for too long."""

    status = 504
    code = "idle_timeout"
    sentence = "The model's backend stopped answering."


class UpstreamReset(UpstreamError):
    """The connection ended before the answer did."""

    code = "upstream_reset"
    sentence = "The model's backend broke the connection."


class BadResponse(UpstreamError):
    """The answer breaks RFC 9112 or a limit."""

    code = "bad_response"
    sentence = "The model's backend sent an invalid answer."


class CredentialsFailed(UpstreamError):
    """No token or header value could be had."""

    code = "credentials_failed"
    sentence = "The gateway has no valid credentials for the model's backend."
    sent = False


def body(error: GatewayError, request_id: str) -> bytes:
    """The answer's body for `error`, in the form that OpenAI clients understand."""
    return orjson.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.kind,
                "code": error.code,
                "param": None,
                "request_id": request_id,
            }
        }
    )


def last_event(tail: bytes, body: bytes) -> bytes:
    """What ends an event stream that broke off (HTML Living Standard 9.2): an event whose data is `body`, one line.

    `tail` is the last four bytes of the stream. An event that was cut in the middle becomes part of this one and so an
    error: as one of its own it would be a message that nobody sent.
    """
    if not tail or tail.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
        return b"data: %b\n\n" % body
    line_end = b"" if tail.endswith((b"\n", b"\r")) else b"\n"
    return b"%bevent: error\ndata: %b\n\n" % (line_end, body)
