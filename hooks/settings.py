"""Settings of hooks: `config.yaml`, environment variables and flags, read once into a frozen `Settings`.

The gateway reads the same file; its section `gateway` is left to it. Keys that only the manager of the original needed
are accepted and have no effect, because Metacontroller does that part. The token of the platform is not a setting: it
is secret, so it is in the environment or in a file of its own (`hooks.platform.beamlit.credentials`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hooks.api import remote_backend
from hooks.backends import geography
from hooks.clients import urls
from hooks.observation.observation import DefaultRemote, GatewayService, InstallDefaults
from program import settings
from program.addresses import AddressRules
from program.problems import Mistake, must_be, shown
from program.settings import Listen, LogLevel, Section, Tls

GATEWAY_KEYS: Final = frozenset({"gateway"})
"""Top-level keys of the file that only the gateway reads."""

BASE_URL: Final = "BEAMLIT_BASE_URL"
"""Environment variable that sets `platform.baseUrl`, with the name that it has in the original."""

Port = Annotated[int, Field(ge=1, le=65535)]
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


class Prometheus(Section):
    """Section `metricInformer.prometheus`: a Prometheus-compatible server that metrics are read from."""

    address: str = ""
    """Address of the server: `host:port` or a URL, possibly with a path before `/api/v1/query`. The default scheme is
    http."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=2.5)] = 2.0
    """Seconds that one query may take. The limit is shorter than the deadline for all metrics of a sync."""
    scrape_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 60
    """Longest interval, in seconds, at which the server scrapes. The value of a series may be that old when it is
    read."""
    ca_file: Path | None = None
    """File with the certificate authorities that the server's certificate is verified with, instead of those of the
    system."""
    insecure_skip_verify: bool = False
    """Whether the certificate of the server is not verified."""
    username_file: Path | None = None
    """File with the name of the user for HTTP Basic authentication. All these files are read again when they change."""
    password_file: Path | None = None
    """File with the password of that user."""
    bearer_file: Path | None = None
    """File with a bearer token, which is sent instead of a name and a password."""
    namespace_label: Annotated[
        str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$"), must_be("the name of a label, such as namespace")
    ] = ""
    """Name of the label that holds the namespace of a series. If set, a ModelDeployment cannot read series of another
    namespace."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if problem := urls.problem(value):
            raise Mistake(problem)
        return value

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.username_file is None) != (self.password_file is None):
            raise Mistake("set both usernameFile and passwordFile, or neither")
        if self.bearer_file is not None and self.username_file is not None:
            raise Mistake("set either bearerFile, or usernameFile and passwordFile")
        return self


class MetricsFile(Section):
    """Section `metricInformer.file`: a file with what metrics APIs would respond."""

    path: Path | None = None
    """Path of the file, which is read again when it changes."""
    pods_path: Path | None = None
    """Path of a file with the pods, as the API server would return them. If not set, they are in that same file."""


class PodPages(Section):
    """Section `metricInformer.pods`: the metrics pages of pods, with type `pods` and for models whose `metricSource`
    says so."""

    allowed_addresses: tuple[str, ...] = ()
    """CIDR ranges that pods may have although the address rules refuse them: loopback, link-local, multicast, metadata
    services. For one machine, where a process on loopback stands for a pod."""

    @field_validator("allowed_addresses")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                AddressRules.parse(allowed=(one,))
            except ValueError:
                raise Mistake(f"must be ranges of addresses such as 10.0.0.0/8, not {shown(one)}") from None
        return value


class MetricInformer(Section):
    """Section `metricInformer`: the source of metrics."""

    type: Literal["kubernetes", "prometheus", "pods", "file"] = "kubernetes"
    """Type of the source. With `pods`, metrics of type Pods are read from the pods themselves, all others as with
    `kubernetes`. `file` is for one machine, which has no metrics API."""
    resolution_seconds: Annotated[int, Field(ge=1, le=300)] = 15
    """Seconds for which a response is used before the same question is asked again."""
    prometheus: Prometheus = Prometheus()
    pods: PodPages = PodPages()
    file: MetricsFile = MetricsFile()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "prometheus" and not self.prometheus.address:
            raise Mistake("set prometheus.address, which type prometheus needs")
        if self.type == "file" and self.file.path is None:
            raise Mistake("set file.path, which type file needs")
        return self


class Platform(Section):
    """Section `platform`: the Beamlit platform, where models and policies are registered if there is a token."""

    base_url: str = "https://api.beamlit.dev/v0"
    """URL of the platform's API."""
    token_file: Path | None = None
    """File with the token, which is read again when it changes. The variable BEAMLIT_TOKEN wins over it."""

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise Mistake("must be an http or https URL")
        if problem := urls.problem(value):
            raise Mistake(problem.replace("use usernameFile and passwordFile", "they are in the token"))
        return urls.url(value)


class Location(settings.Location):
    """Location of the default remote backend, checked here because only hooks use it."""

    @field_validator("country")
    @classmethod
    def _country(cls, value: str) -> str:
        if problem := geography.country_problem(value):
            raise Mistake(problem)
        return value

    @field_validator("continent")
    @classmethod
    def _continent(cls, value: str, info: ValidationInfo) -> str:
        if problem := geography.continent_problem(value, info.data.get("country", "")):
            raise Mistake(problem)
        return value


class DefaultRemoteBackend(settings.DefaultRemote):
    """Section `defaultRemoteBackend`: the remote backend of every ModelDeployment that names none."""

    location: Location = Location()


class ProxyService(Section):
    """Section `proxyService`: the Service of the gateway, where Services of `spec.gateway.serviceName` lead."""

    namespace: str = ""
    name: str = ""
    port: Port = 80
    admin_port: Port = 8081
    admin_address: str = ""
    """Address of the gateways' ports for administrators, `host:port` or `[address]:port`: each address of the name is a
    gateway, as a headless Service has it. Hooks ask there what the gateways' drills found; if it is not set, they ask
    none."""

    @field_validator("admin_address")
    @classmethod
    def _admin_address(cls, value: str) -> str:
        match = _HOST_PORT.fullmatch(value)
        if value and (match is None or not 1 <= int(match["port"]) <= 65535):
            raise Mistake("must be host:port, such as gateway-admin.beamlit-system.svc:8081, or empty")
        return value


class Hooks(Section):
    """Section `hooks`: the program itself."""

    listen: Listen = "[::]:8082"
    """Address where Metacontroller sends its requests."""
    operations: Listen = "127.0.0.1:8083"
    """Address for administrators, with health, metrics and API documentation."""
    body_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 30)] = 1 << 23
    """Maximum size of a request in bytes, and of all requests in flight together. A request holds a parent with its
    children and the objects it refers to. A byte takes up to 42 bytes of memory."""
    in_flight: Annotated[int, Field(ge=1, le=10000)] = 256
    """Maximum number of requests at the same time. A request beyond it gets status 429, and Metacontroller repeats
    it."""
    tls: Tls | None = None
    """Certificate of the address for Metacontroller, which speaks TLS if it is set."""
    bearer_file: Path | None = None
    """File with the token that Metacontroller must send. If not set, it needs none."""
    log_level: LogLevel = "info"
    """Lowest level of the log lines that are written."""


class Settings(settings.Shared):
    """Configuration of hooks."""

    default_remote_backend: DefaultRemoteBackend = DefaultRemoteBackend()
    metric_informer: MetricInformer = MetricInformer()
    proxy_service: ProxyService = ProxyService()
    platform: Platform = Platform()
    hooks: Hooks = Hooks()
    enable_http2: bool = Field(default=False, alias="enableHTTP2")
    """Key of the original that has no effect, as have those that follow."""
    secure_metrics: bool = False
    enable_leader_election: bool = False
    metrics_addr: str = ":8080"
    probe_addr: str = ":8081"

    @classmethod
    def load(
        cls,
        config: Path | None,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Self:
        """Return the settings in a file, the environment and flags, of which the later win.

        Args:
            config: YAML file, or None.
            environment: variables, by default those of the process.
            flags: values by the dotted path of their key. None values do not count.

        Raises:
            SettingsError: a value cannot be used. The message names the key, the value and what is allowed.
        """
        variables = os.environ if environment is None else environment
        given = {"platform.baseUrl": variables.get(BASE_URL) or None, **(flags or {})}
        return settings.load(cls, config, environment=variables, flags=given, foreign=GATEWAY_KEYS)

    @property
    def install_defaults(self) -> InstallDefaults:
        """Return the part of the settings that decisions depend on. It has no credentials, which the gateway has."""
        remote, service = self.default_remote_backend, self.proxy_service
        return InstallDefaults(
            namespaces=self.served_namespaces,
            default_remote=DefaultRemote(
                remote.host,
                remote.scheme,
                remote.path_prefix,
                remote.workspace,
                _location(remote.location),
                tuple(remote_backend.Flavor(type=flavor.type, name=flavor.name) for flavor in remote.flavors),
            )
            if remote.host
            else None,
            gateway_service=GatewayService(service.namespace, service.name, service.port)
            if service.namespace and service.name
            else None,
            cluster_domain=self.cluster_domain,
        )


def _location(location: Location) -> remote_backend.Location | None:
    """Return the location in the form of the API, or None if no field of it is set."""
    known = {field: value for field, value in location.model_dump().items() if value}
    return remote_backend.Location(**known) if known else None
