"""Names that ModelDeployments, hooks and the gateway have in common; hooks may import this module."""

from enum import StrEnum
from typing import Final


class FailureCause(StrEnum):
    """Cause for which an attempt at a backend failed, before the client got the first byte of a response.

    Those that are no status, and the statuses that are causes where a route says nothing else. Any other status from
    400 to 599 can be a cause, too, and is written like these.
    """

    CONNECT_FAILURE = "connectFailure"
    """There was no connection, so nothing was sent."""
    RESET = "reset"
    """The connection broke before the head of a response was complete, or before the first event of a stream."""
    FIRST_BYTE_TIMEOUT = "firstByteTimeout"
    """The head did not come within `timeouts.firstByte`. The backend may still be working on it."""
    FIRST_TOKEN_TIMEOUT = "firstTokenTimeout"  # noqa: S105 - no password
    """The first event of a stream did not come within `timeouts.firstToken`. The backend may still be working on it."""
    STREAM_ERROR = "streamError"
    """The first event of a stream is an error that is not the caller's fault."""
    CREDENTIALS_REFUSED = "credentialsRefused"
    """A remote backend responded with 401 or 403 to the gateway's own credentials."""
    REQUEST_TIMEOUT = "408"
    TOO_MANY_REQUESTS = "429"
    BAD_GATEWAY = "502"
    SERVICE_UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    OVERLOADED = "529"
    """Status of servers that have no capacity left, such as Anthropic's and Dynamo's; no RFC has it."""


NAMED_CAUSES: Final = tuple(cause.value for cause in FailureCause if not cause.value.isdigit())
"""Causes that are no status."""

DEFAULT_CAUSES: Final = tuple(
    cause.value
    for cause in FailureCause
    if cause not in (FailureCause.FIRST_BYTE_TIMEOUT, FailureCause.FIRST_TOKEN_TIMEOUT)
)
"""Causes for which a request is tried at another backend where the route names none."""

CAUSE_PATTERN: Final = f"^({'|'.join(NAMED_CAUSES)}|[45][0-9]{{2}})$"
"""Regular expression for a cause: a name, or a status from 400 to 599."""

CAUSE_WORDS: Final = f"{', '.join(NAMED_CAUSES)}, or a status from 400 to 599 in quotes, such as '503'"
"""What a cause must be, in words."""


HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
"""Header fields that belong to one connection (RFC 9110 section 7.6.1), and historic ones of the same kind."""

FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
"""Header fields that say where a body ends. The sender of a message writes them itself (RFC 9112 section 6)."""

FORWARDED: Final = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-forwarded-scheme",
        "x-forwarded-ssl",
        "x-original-forwarded-for",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-real-ip",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "client-ip",
        "x-envoy-external-address",
    }
)
"""Header fields in which a proxy describes the client."""


class Forwarded(StrEnum):
    """What a backend learns about the client from the fields in `FORWARDED`."""

    NONE = "none"
    """Nothing: no such field is sent."""
    APPEND = "append"
    """The client's address, scheme and Host. Behind a trusted proxy they are added to what the proxy says."""


class AffinityType(StrEnum):
    """What requests have in common that should go to the same backend."""

    NONE = "none"
    """Nothing: every request is on its own."""
    CONVERSATION = "conversation"
    """The conversation that they belong to."""
    PREFIX = "prefix"
    """The conversation, and for pods how their prompts begin."""


class StatefulPaths(StrEnum):
    """Where requests go that refer to a response which one server keeps."""

    LOCAL = "local"
    """The local replicas get them."""
    REMOTE = "remote"
    """The remote backend gets them."""
    REFUSE = "refuse"
    """They are refused."""


class StreamUsage(StrEnum):
    """Streams of completions of which servers are asked to name the tokens."""

    AS_ASKED = "asAsked"
    """Those whose clients ask for it."""
    ALWAYS = "always"
    """All of them."""


class Endpoints(StrEnum):
    """Where requests for the local replicas go."""

    PODS = "pods"
    """Single pods get them, where the gateway knows these."""
    SERVICE = "service"
    """They are sent to the name of the Service."""


class DrillRequest(StrEnum):
    """Request by which a remote backend is tried."""

    NONE = "none"
    """No request: the name is looked up, a connection is opened, and a token is fetched."""
    MODELS = "models"
    """GET /v1/models, which should list the model."""
    COMPLETION = "completion"
    """A chat completion of one token."""


NOT_SETTABLE: Final = HOP_BY_HOP | FRAMING | FORWARDED | {"host", "expect", "via", "max-forwards", "x-request-id"}
"""Header fields, in lower case, that the gateway writes itself: a route can neither set, add nor remove them. Where it
writes no forwarding fields, a route can set those in `FORWARDED`."""

ORIGIN: Final = r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+)$"
"""Regular expression for an origin of websites that a CORS rule allows."""
ORIGIN_IN_WORDS: Final = (
    "an origin as browsers send it: scheme, host and port without a path, such as"
    " https://chat.example.com, or * for all"
)
"""What `ORIGIN` allows, in words."""
CREDENTIALS_OF_ALL: Final = "must not allow credentials to the origin *, which is every website: name the origins"
"""What is wrong with a CORS rule that allows credentials to all origins, to follow the name of the rule."""

DATA_CLASS: Final = r"^[!#-+.-:<-~-]+( [!#-+.-:<-~-]+)*$"
"""Regular expression for the value of a header field that keeps a request in the cluster."""
DATA_CLASS_IN_WORDS: Final = (
    "printable ASCII characters without commas, semicolons and double quotes, and without spaces around them, such as"
    " restricted"
)
"""What `DATA_CLASS` allows, in words."""
