"""`config.yaml`, environment and flags into a frozen model, or one sentence that says what to change.

A flag wins over the environment, the environment over the file, the file over the default.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

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
)
from pydantic.alias_generators import to_camel

from program.files import Unreadable, in_yaml, problem
from program.files import load as load_yaml
from program.oauth import credentials
from program.oauth.credentials import TokenAuth
from program.problems import field_path, first_problem, joined, must_be

ENVIRONMENT: Final = "BEAMLIT_"
"""Prefix of environment variables: BEAMLIT_GATEWAY__LAME_DUCK_SECONDS is gateway.lameDuckSeconds."""


class SettingsError(ValueError):
    """The configuration cannot be used. The message names key and value and says what is allowed."""


class Section(BaseModel):
    """A level of the configuration: camelCase keys, closed, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )


def _listen(value: object) -> object:
    if not isinstance(value, str):
        return value
    _host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(value)
    return value


def _names(value: object) -> object:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [] if value is None else value


Listen = Annotated[str, BeforeValidator(_listen), must_be("host:port, such as 127.0.0.1:8080 or [::]:8080")]
"""Address to listen on, `host:port` or `[address]:port`; port 0 lets the kernel choose."""
Names = Annotated[tuple[str, ...], BeforeValidator(_names), must_be("names, as [a, b] or as a,b in one string")]
"""Names as a list, or as `a,b` in one string."""
LogLevel = Literal["debug", "info", "warning", "error"]


class Tls(Section):
    """A certificate of our own, PEM."""

    cert_file: Path
    key_file: Path


class Verification(Section):
    """How certificates of servers are verified, wherever the programs connect to over TLS."""

    strict: bool = False
    """Whether certificates must follow RFC 5280 to the letter: authorities need key usage and key identifiers."""


class OAuth(Section):
    """Client credentials of the default remote backend."""

    client_id: str = ""
    client_id_file: Path | None = None
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None
    """Read at each token request, so that a rotated Secret counts at once."""
    token_url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://"),
        must_be("an http or https URL, such as https://auth.example.com/oauth/token"),
    ] = "https://api.beamlit.dev/v0/oauth/token"  # noqa: S105 - an address
    scope: str | None = None
    audience: str | None = None
    """Service that the token is for, as Auth0 and others ask for it."""
    resource: str | None = None
    """URI of the service that the token is for (RFC 8707); several are separated by spaces."""
    parameters: Mapping[str, str] = Field(default_factory=dict)
    """Further fields of the token request."""
    token_auth: TokenAuth | None = None
    """How id and secret are sent; None tries what token endpoints take."""
    ca_file: Path | None = None
    """Certificate authorities in PEM that the token endpoint's certificate is verified with, instead of the system's.
    The file is read at each token request; while it is of no use, what it held last counts."""

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return dict(credentials.parameters(value))


class Auth(Section):
    """How the gateway authenticates to the default remote backend."""

    type: Literal["oauth"] = "oauth"
    oauth_config: OAuth = OAuth()


class Location(Section):
    """Where the default remote backend runs, as hooks compares it with policies. What is empty is not known."""

    name: str = ""
    country: str = ""
    """ISO 3166-1 code, of two or three letters; it tells the continent too."""
    continent: str = ""


class Flavor(Section):
    """A kind of hardware."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]


class DefaultRemote(Section):
    """The remote backend of every ModelDeployment that names none."""

    host: str = "run.beamlit.dev"
    """Name or address, possibly with a port; empty: there is no default remote backend."""
    scheme: Literal["http", "https"] = "https"
    path_prefix: str = "/$workspace/$model"
    """Expanded by hooks; the gateway uses what the route document says."""
    workspace: str = ""
    headers_to_add: Mapping[str, str] = Field(default_factory=dict)
    auth_config: Auth | None = Auth()
    location: Location = Location()
    flavors: tuple[Flavor, ...] = ()
    """All hardware that it may run models on, as hooks compares it with policies."""


class Shared(Section):
    """What both programs go by."""

    namespaces: Names = ("default",)
    """Namespaces whose ModelDeployments are managed and served; none means all."""
    cluster_domain: str = "cluster.local"
    default_remote_backend: DefaultRemote = DefaultRemote()
    tls: Verification = Verification()

    @property
    def served_namespaces(self) -> frozenset[str] | None:
        """The namespaces, None for all."""
        return frozenset(self.namespaces) or None


Settings = TypeVar("Settings", bound=Section)


def load(
    model: type[Settings],
    config: Path | None,
    *,
    environment: Mapping[str, str] | None,
    flags: Mapping[str, object],
    foreign: frozenset[str],
) -> Settings:
    """Read file, environment and flags into `model`; later ones win.

    Args:
        model: what the result is.
        config: a YAML file, or None.
        environment: instead of the process's own.
        flags: values by the dotted path of their key; None values do not count.
        foreign: top-level keys of the same file that concern the other program.

    Raises:
        SettingsError: one sentence that names the key, the value and what is allowed.
    """
    values = _read(config) if config is not None else {}
    for key in foreign & values.keys():
        del values[key]
    _merge(values, _from_environment(model, os.environ if environment is None else environment))
    for path, value in flags.items():
        if value is not None:
            *sections, key = path.split(".")
            nested: dict[str, Any] = {key: value}
            for section in reversed(sections):
                nested = {section: nested}
            _merge(values, nested)
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise SettingsError(_sentence(model, exc, foreign)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except Unreadable as exc:
        raise SettingsError(f"--config {path} {problem(exc)}.") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path} must be a mapping of settings, such as `namespaces: team-a`.")
    return {str(key): value for key, value in content.items()}


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _from_environment(settings: type[BaseModel], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings among the variables, nested by double underscores."""
    result: dict[str, Any] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT):
            continue
        keys = _path(settings, variable.removeprefix(ENVIRONMENT).lower().split("__"))
        if keys is None:
            continue  # the other program has variables of the same prefix
        place = result
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = _parsed(variable, value) if value[:1] in ("[", "{") else value
    return result


def _path(settings: type[BaseModel], names: Sequence[str]) -> list[str] | None:
    """The keys that field names stand for; None when there are no such fields."""
    model: type[BaseModel] | None = settings
    keys = []
    for name in names:
        if model is None or name not in model.model_fields:
            return None
        keys.append(model.model_fields[name].alias or name)
        model = _section(model, name)
    return keys


def _parsed(variable: str, value: str) -> object:
    try:
        return load_yaml(value)
    except yaml.YAMLError as exc:
        raise SettingsError(f"{variable} is not JSON{in_yaml(exc)}.") from None


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = model.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _sentence(settings: type[BaseModel], exc: ValidationError, foreign: frozenset[str]) -> str:
    """Return the first problem as one sentence: key, value unless it may be secret, what is allowed."""
    first = exc.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        *section, name = first["loc"]
        known = _known(settings, [part for part in section if isinstance(part, str)])
        if not section:
            known |= foreign
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(sorted(known))}."
        return f"{field_path(first['loc'])} is not a setting; {hint}"
    problem = first_problem(exc, settings, strings=True)
    if problem.value and problem.text.startswith("must "):
        return f"{problem.path} is {problem.value}, and {problem.text}."
    return f"{joined(problem.path or 'the configuration', problem.text)}."


def _known(settings: type[BaseModel], keys: Sequence[str]) -> set[str]:
    """Return the keys of the section at `keys`, which have no index of a list among them."""
    model: type[BaseModel] | None = settings
    for key in keys:
        name = next((one for one, info in model.model_fields.items() if info.alias == key), None) if model else None
        model = _section(model, name) if model is not None and name is not None else None
    return {info.alias or name for name, info in model.model_fields.items()} if model else set()
