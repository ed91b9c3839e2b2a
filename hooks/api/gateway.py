"""`spec.gateway`: how the gateway treats the requests of one model."""

from typing import Annotated

from pydantic import (
    Field,
    StringConstraints,
)

from gateway.api.vocabulary import FailureCause
from hooks.api.common import LIST_ATOMIC, ApiModel, Seconds, Text, cel_rule, schema_config
from hooks.api.remote_backend import HealthCheck
from program.problems import must_be


class GatewayTimeouts(ApiModel):
    """Seconds; the gateway's own settings where left out."""

    connect_seconds: Seconds | None = None
    """For the connection to a backend, with its TLS handshake."""
    first_byte_seconds: Seconds | None = None
    """From then to the head of the answer."""
    idle_seconds: Seconds | None = None
    """Between two parts of an answer's body. There is no limit on the whole answer."""


class GatewayRetry(ApiModel):
    """When the gateway tries another backend."""

    model_config = schema_config(
        cel_rule(
            "self.failover || !has(self.causes)",
            "causes say when there is failover: set failover to true, or leave causes out",
        ),
    )

    failover: bool = True
    """Whether a request whose backend failed before the first byte of the answer may go to the other one."""
    causes: (
        Annotated[
            tuple[FailureCause, ...],
            Field(min_length=1, max_length=9, json_schema_extra=LIST_ATOMIC),
        ]
        | None
    ) = None
    """Which failures count. connectFailure: nothing was sent. reset: the connection broke before the answer's head.
    firstByteTimeout: no head in time; the backend may still be working. streamError: the first event of a stream is an
    error. A status, in quotes, is what the backend answered. All but firstByteTimeout when left out."""
    body_bytes: Annotated[int, Field(ge=0, le=67108864)] | None = None
    """Largest body that is held to be sent again, in bytes; the gateway's own setting when left out."""


class GatewayBreaker(ApiModel):
    """When a backend that fails gets no requests for a while, as long as another one can take them. Every gateway
    counts for itself."""

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row."""
    error_percentage: Annotated[int, Field(ge=1, le=100)] = 50
    """Share of failures within windowSeconds, once there were minimumRequests in it."""
    minimum_requests: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Requests from which on the share counts."""
    window_seconds: Seconds = 10
    """The time that the share is about."""
    open_seconds: Seconds = 10
    """How long, until a single request tries the backend again."""


class GatewayQueue(ApiModel):
    """Where requests wait for room at the local replicas while nothing takes what overflows."""

    size: Annotated[int, Field(ge=1, le=100000)]
    """Requests that may wait, in each gateway; beyond them the answer is 503 at once."""
    wait_seconds: Seconds = 5
    """How long one may wait, until the answer is 503."""


class Gateway(ApiModel):
    """How the gateway serves this model."""

    service_name: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63),
            must_be(
                "the name of a Service: lower-case letters, digits and dashes, beginning with a letter, such as"
                " demo-gateway"
            ),
        ]
        | None
    ) = None
    """Name of a Service to create in this namespace that leads to the gateway, for clients to use."""
    local_model: Text | None = None
    """Name by which the local server knows the model, put into the `model` value of requests to it; unchanged when
    left out."""
    timeouts: GatewayTimeouts | None = None
    """How long the gateway waits for backends."""
    retry: GatewayRetry = Field(default=GatewayRetry(), json_schema_extra={"default": {}, "x-default": True})
    """When the gateway tries another backend."""
    breaker: GatewayBreaker | None = None
    """When a backend that fails gets no requests; the gateway's own defaults, which are the same, when left out."""
    queue: GatewayQueue | None = None
    """Where requests wait beyond behavior.overflow.inFlight while nothing takes them; nowhere when left out."""
    health_check: HealthCheck | None = None
    """How the health of the local replicas is checked through their Service, besides their own probes; not at all when
    left out."""
    body_limit_bytes: Annotated[int, Field(ge=0, le=1099511627776)] | None = None
    """Largest body of a request, in bytes; the gateway's own setting when left out."""
