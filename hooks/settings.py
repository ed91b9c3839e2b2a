"""What the administrator decides: `config.yaml`, environment and flags, read once into a frozen `Settings`.

The file is the one the gateway reads too; its section `gateway` is left to it. Keys that only the original's manager
needed are accepted and have no effect: Metacontroller does that part. The token of the platform is no setting: it is
secret, so it stands in the environment or in a file of its own (`hooks.account`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hooks.api import remote_backend
from hooks.backends import geography
from hooks.clients import urls
from hooks.observation.observation import DefaultRemote, GatewayService, InstallDefaults
from program import settings
from program.problems import Mistake, must_be
from program.settings import Listen, LogLevel, Section, Tls

GATEWAY_KEYS: Final = frozenset({"gateway"})
"""Keys of the same file that concern the gateway only."""

BASE_URL: Final = "BEAMLIT_BASE_URL"
"""Environment variable of `platform.baseUrl`, as the original has it."""

Port = Annotated[int, Field(ge=1, le=65535)]


class Prometheus(Section):
    """A Prometheus-compatible server."""

    address: str = ""
    """`host:port` or URL, possibly with a path before `/api/v1/query`. Without a scheme: http."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=2.5)] = 2.0
    """For one query; shorter than the deadline of all that a sync asks for."""
    scrape_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 60
    """How old the value of a series may be when it is read: the longest interval at which the server scrapes."""
    ca_file: Path | None = None
    """Certificate authorities that its certificate is checked with, instead of the system's."""
    insecure_skip_verify: bool = False
    """Its certificate is not checked."""
    username_file: Path | None = None
    """Name for basic authentication. All files are read again when they change."""
    password_file: Path | None = None
    """Its password."""
    bearer_file: Path | None = None
    """Token to show instead."""
    namespace_label: Annotated[
        str, Field(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$"), must_be("the name of a label, such as namespace")
    ] = ""
    """Label that holds the namespace of a series. With it, no ModelDeployment reads a series of another namespace."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if problem := urls.problem(value):
            raise Mistake(problem)
        return value

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.username_file is None) != (self.password_file is None):
            raise Mistake("usernameFile and passwordFile belong together")
        if self.bearer_file is not None and self.username_file is not None:
            raise Mistake("bearerFile and usernameFile exclude each other")
        return self


class MetricsFile(Section):
    """A file with what metrics APIs would answer."""

    path: Path | None = None
    """Of the file, which is read again when it changes."""


class MetricInformer(Section):
    """Where metrics come from."""

    type: Literal["kubernetes", "prometheus", "file"] = "kubernetes"
    """file: for one machine, where no metrics API is."""
    resolution_seconds: Annotated[int, Field(ge=1, le=300)] = 15
    """For how long an answer is used before the same is asked again."""
    prometheus: Prometheus = Prometheus()
    file: MetricsFile = MetricsFile()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "prometheus" and not self.prometheus.address:
            raise Mistake("type prometheus needs prometheus.address")
        if self.type == "file" and self.file.path is None:
            raise Mistake("type file needs file.path")
        return self


class Platform(Section):
    """The Beamlit platform, where models and policies are registered when there is a token."""

    base_url: str = "https://api.beamlit.dev/v0"
    """Of its API."""
    token_file: Path | None = None
    """File with the token, read again when it changes; the variable BEAMLIT_TOKEN wins over it."""

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise Mistake("must be an http or https URL")
        if problem := urls.problem(value):
            raise Mistake(problem.replace("use usernameFile and passwordFile", "they are in the token"))
        return urls.url(value)


class Location(settings.Location):
    """Where the default remote backend runs, checked: the gateway has no use for it."""

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
    """The remote backend of every ModelDeployment that names none."""

    location: Location = Location()


class ProxyService(Section):
    """The gateway's Service."""

    namespace: str = ""
    name: str = ""
    port: Port = 80
    admin_port: Port = 8081


class Hooks(Section):
    """The section `hooks`."""

    listen: Listen = "[::]:8082"
    """For Metacontroller."""
    operations: Listen = "127.0.0.1:8083"
    """For administrators: health, metrics, docs."""
    body_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 30)] = 1 << 25
    """Largest request: a parent with all its children and what they refer to."""
    in_flight: Annotated[int, Field(ge=1, le=10000)] = 256
    """Requests at the same time; above it the answer is 429, and Metacontroller comes back."""
    tls: Tls | None = None
    """With it the port for Metacontroller speaks TLS."""
    bearer_file: Path | None = None
    """The token that Metacontroller has to show; none when absent."""
    log_level: LogLevel = "info"


class Settings(settings.Shared):
    """Everything hooks are told at their start."""

    default_remote_backend: DefaultRemoteBackend = DefaultRemoteBackend()
    metric_informer: MetricInformer = MetricInformer()
    proxy_service: ProxyService = ProxyService()
    platform: Platform = Platform()
    hooks: Hooks = Hooks()
    enable_http2: bool = Field(default=False, alias="enableHTTP2")
    """Without effect, as are the following."""
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
        """Read file, environment and flags; later ones win.

        Args:
            config: a YAML file, or None.
            environment: instead of the process's own.
            flags: values by the dotted path of their key; None values do not count.

        Raises:
            SettingsError: one sentence that names the key, the value and what is allowed.
        """
        variables = os.environ if environment is None else environment
        given = {"platform.baseUrl": variables.get(BASE_URL) or None, **(flags or {})}
        return settings.load(cls, config, environment=variables, flags=given, foreign=GATEWAY_KEYS)

    @property
    def install_defaults(self) -> InstallDefaults:
        """What of it the decisions go by. Credentials are the gateway's and not in it."""
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
    """As in a ModelDeployment; None when nothing of it is known."""
    known = {field: value for field, value in location.model_dump().items() if value}
    return remote_backend.Location(**known) if known else None
