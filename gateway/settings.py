"""What the administrator decides: `config.yaml`, environment and flags, read once into a frozen `Settings`.

The file is the one hooks reads too. The gateway uses `namespaces`, `clusterDomain`, `defaultRemoteBackend` and its own
section `gateway`; the controller's other keys are left to hooks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator

from gateway.api.v1alpha1 import HeaderName, HeaderValue
from gateway.upstream import addresses
from program import settings
from program.problems import Mistake, shown
from program.settings import Listen, LogLevel, Section, Tls

CONTROLLER_KEYS: Final = frozenset(
    {
        "enableHTTP2",
        "secureMetrics",
        "enableLeaderElection",
        "metricsAddr",
        "probeAddr",
        "metricInformer",
        "platform",
        "proxyService",
        "hooks",
    }
)
"""Keys of the same file that concern hooks only."""

Seconds = Annotated[float, Field(gt=0, le=86400)]


class DefaultRemoteBackend(settings.DefaultRemote):
    """The remote backend of every ModelDeployment that names none."""

    headers_to_add: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)


class TimeoutSettings(Section):
    """Seconds."""

    connect_seconds: Seconds = 5.0
    """To a remote backend: name, TCP and TLS."""
    local_connect_seconds: Seconds = 2.0
    """To a Service of the cluster."""
    first_byte_seconds: Seconds = 600.0
    """For the answer's head: generations may be long, so this is too."""
    idle_seconds: Seconds = 120.0
    """Between two reads of an answer."""
    head_seconds: Seconds = 10.0
    """For a whole request head."""
    body_seconds: Seconds = 30.0
    """Between two reads of a request body."""
    keep_alive_seconds: Seconds = 75.0
    """An unused client connection; longer than the load balancer's in front."""
    write_stall_seconds: Seconds = 30.0
    """A client that does not read."""
    tunnel_idle_seconds: Seconds = 3600.0
    """A WebSocket on which neither side sends anything."""


class LimitSettings(Section):
    """Sizes and counts."""

    head_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 32768
    fields: Annotated[int, Field(ge=10, le=10000)] = 100
    url_bytes: Annotated[int, Field(ge=256, le=65000)] = 8192
    body_bytes: Annotated[int, Field(ge=0)] = 33554432
    """Where the route says nothing else."""
    replay_bytes: Annotated[int, Field(ge=0, le=1 << 26)] = 1048576
    """A body up to this size is held so that it can be sent a second time: elsewhere, or with a fresh token."""
    connections: Annotated[int, Field(ge=1, le=1000000)] = 8000
    decisions: Annotated[int, Field(ge=0, le=100000)] = 1000
    """Requests that `/decisions` on the admin port knows of."""


class RetrySettings(Section):
    """How much may be tried again, per route and gateway. When and where is the route's business."""

    budget_percentage: Annotated[int, Field(ge=0, le=100)] = 20
    """Retries in ten seconds, as a share of the requests in them. Those by which nothing was sent do not count."""
    budget_per_second: Annotated[int, Field(ge=0, le=100000)] = 10
    """Retries per second, on average over ten, that there may be in any case."""
    cool_down_seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """The longest pause that a backend gets which asks for one (Retry-After)."""


class GatewaySettings(Section):
    """The section `gateway`."""

    listen: Listen = "[::]:8080"
    admin: Listen = "127.0.0.1:8081"
    routes: Path | None = None
    """Directory of ConfigMaps, Secrets and ModelDeployments."""
    kubeconfig: Path | None = None
    """Which cluster to ask, outside of one."""
    lame_duck_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How long requests are still served after SIGTERM while `/readyz` says no."""
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 25.0
    """How long running requests may take after that."""
    timeouts: TimeoutSettings = TimeoutSettings()
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    resolve: tuple[str, ...] = ()
    """`host:port=address:port`: where a name leads, instead of asking the name server."""
    allowed_addresses: tuple[str, ...] = ()
    """Ranges (CIDR) that remote backends may have although the rules refuse them."""
    cluster_ranges: tuple[str, ...] = ()
    """Ranges (CIDR) of pods, Services and nodes: refused for remote backends."""
    bare_hostnames: Literal["namespace", "unique"] = "namespace"
    tls: Tls | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Ranges (CIDR) of proxies in front whose forwarding fields are believed."""
    log_level: LogLevel = "info"
    access_log: bool = True

    @field_validator("allowed_addresses", "cluster_ranges", "trusted_proxies")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                addresses.AddressRules.parse(allowed=(one,))
            except ValueError:
                raise Mistake(f"must be ranges of addresses such as 10.0.0.0/8, not {shown(one)}") from None
        return value


class Settings(settings.Shared):
    """Everything the gateway is told at its start."""

    default_remote_backend: DefaultRemoteBackend = DefaultRemoteBackend()
    gateway: GatewaySettings = GatewaySettings()

    @classmethod
    def load(
        cls,
        config: Path | None,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Self:
        """Read file, environment and flags; later ones win.

        Args:
            config: a YAML file, or None.
            environment: instead of the process's own.
            flags: values of the section `gateway`, by their camelCase name; None values do not count.

        Raises:
            SettingsError: one sentence that names the key, the value and what is allowed.
        """
        given = {f"gateway.{key}": value for key, value in (flags or {}).items()}
        return settings.load(cls, config, environment=environment, flags=given, foreign=CONTROLLER_KEYS)
