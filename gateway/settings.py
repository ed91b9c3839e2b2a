"""What the administrator decides: `config.yaml`, environment and flags, read once into a frozen `Settings`.

The file is the one hooks reads too. The gateway uses `namespaces`, `clusterDomain`, `defaultRemoteBackend` and its own
section `gateway`; the controller's other keys are left to hooks. A flag wins over the environment, the environment over
the file.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from gateway import addresses
from gateway.api.v1alpha1 import HeaderName, HeaderValue

ENVIRONMENT: Final = "BEAMLIT_"
"""Prefix of environment variables: BEAMLIT_GATEWAY__LAME_DUCK_SECONDS is gateway.lameDuckSeconds."""

CONTROLLER_KEYS: Final = frozenset(
    {
        "enableHTTP2",
        "secureMetrics",
        "enableLeaderElection",
        "metricsAddr",
        "probeAddr",
        "metricInformer",
        "proxyService",
        "hooks",
    }
)
"""Keys of the same file that concern hooks only."""

Seconds = Annotated[float, Field(gt=0, le=86400)]


class SettingsError(ValueError):
    """The configuration cannot be used. The message names key and value and says what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )


class OAuth(_Section):
    """Client credentials of the default remote backend."""

    client_id: str = ""
    client_id_file: Path | None = None
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None
    """Read at each token request, so that a rotated Secret counts at once."""
    token_url: Annotated[str, StringConstraints(pattern=r"^https?://")] = "https://api.beamlit.dev/v0/oauth/token"  # noqa: S105 - an address
    scope: str | None = None


class Auth(_Section):
    """How the gateway authenticates to the default remote backend."""

    type: Literal["oauth"] = "oauth"
    oauth_config: OAuth = OAuth()


class DefaultRemote(_Section):
    """The remote backend of every ModelDeployment that names none."""

    host: str = "run.beamlit.dev"
    """Name or address, possibly with a port; empty: there is no default remote backend."""
    scheme: Literal["http", "https"] = "https"
    path_prefix: str = "/$workspace/$model"
    """Expanded by hooks; the gateway uses what the route document says."""
    workspace: str = ""
    headers_to_add: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    auth_config: Auth | None = Auth()


class Timeouts(_Section):
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


class Limits(_Section):
    """Sizes and counts."""

    head_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 32768
    fields: Annotated[int, Field(ge=10, le=10000)] = 100
    url_bytes: Annotated[int, Field(ge=256, le=65000)] = 8192
    body_bytes: Annotated[int, Field(ge=0)] = 33554432
    """Where the route says nothing else."""
    replay_bytes: Annotated[int, Field(ge=0, le=1 << 26)] = 1048576
    """A body up to this size is held so that it can be sent a second time with a fresh token."""
    connections: Annotated[int, Field(ge=1, le=1000000)] = 8000


class Tls(_Section):
    """The certificate of the traffic port."""

    cert_file: Path
    key_file: Path


def _listen(value: object) -> object:
    if not isinstance(value, str):
        return value
    _host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port")
    return value


Listen = Annotated[str, BeforeValidator(_listen)]


class Gateway(_Section):
    """The section `gateway`."""

    listen: Listen = "0.0.0.0:8080"
    admin: Listen = "127.0.0.1:8081"
    routes: Path | None = None
    """Directory of ConfigMaps, Secrets and ModelDeployments."""
    lame_duck_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How long requests are still served after SIGTERM while `/readyz` says no."""
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 25.0
    """How long running requests may take after that."""
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
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
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = True

    @field_validator("allowed_addresses", "cluster_ranges", "trusted_proxies")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        addresses.AddressRules.parse(allowed=value)
        return value


def _names(value: object) -> object:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [] if value is None else value


class Settings(_Section):
    """Everything the gateway is told at its start."""

    namespaces: Annotated[tuple[str, ...], BeforeValidator(_names)] = ("default",)
    """Namespaces whose routes are served; none means all."""
    cluster_domain: str = "cluster.local"
    default_remote_backend: DefaultRemote = DefaultRemote()
    gateway: Gateway = Gateway()

    @property
    def served_namespaces(self) -> frozenset[str] | None:
        """The namespaces served, None for all."""
        return frozenset(self.namespaces) or None

    @model_validator(mode="before")
    @classmethod
    def _without_controller_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if key not in CONTROLLER_KEYS}
        return values

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
        values = _read(config) if config is not None else {}
        _merge(values, _from_environment(os.environ if environment is None else environment))
        given = {key: value for key, value in (flags or {}).items() if value is not None}
        if given:
            _merge(values, {"gateway": given})
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise SettingsError(_sentence(exc, values)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise SettingsError(f"--config {path} cannot be read: {reason}.") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise SettingsError(
            f"--config {path} is not YAML{where}: {getattr(exc, 'problem', None) or 'syntax'}."
        ) from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path} must be a mapping of settings, got {type(content).__name__}.")
    return content


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings among the variables, nested by double underscores."""
    result: dict[str, Any] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT):
            continue
        model: type[BaseModel] | None = Settings
        place = result
        parts = variable.removeprefix(ENVIRONMENT).split("__")
        for depth, part in enumerate(parts):
            name = part.lower()
            if model is None or name not in model.model_fields:
                break  # not ours: hooks has variables of the same prefix
            key = to_camel(name)
            if depth == len(parts) - 1:
                place[key] = yaml.safe_load(value) if value[:1] in ("[", "{") else value
            else:
                place = place.setdefault(key, {})
                model = _section(model, name)
    return result


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = model.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _sentence(exc: ValidationError, values: Mapping[str, Any]) -> str:
    """The first problem as one sentence: key, value unless it is secret, what is allowed."""
    problem = exc.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        model: type[BaseModel] | None = Settings
        for part in location[:-1]:
            if model is None:
                break
            name = next((one for one, info in model.model_fields.items() if info.alias == part), None)
            model = _section(model, name) if name else None
        known: Sequence[str] = sorted(info.alias or name for name, info in model.model_fields.items()) if model else []
        if len(location) == 1:
            known = sorted({*known, *CONTROLLER_KEYS})
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(known)}."
        return f"{key} is not a setting; {hint}"
    value: Any = values
    for part in location:
        value = value.get(part) if isinstance(value, Mapping) else None
    shown = "" if value is None or "secret" in key.lower() else f" is {value!r}, and"
    allowed = problem["msg"][:1].lower() + problem["msg"][1:]
    allowed = allowed.removeprefix("value error, ")
    return f"{key}{shown or ':'} {allowed}."
