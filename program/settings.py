"""How `config.yaml`, environment variables and flags become frozen settings, and what both programs have of them.

A flag wins over the environment, the environment over the file, the file over the default. What cannot be used is one
sentence that says what to change.
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

from program.files import DuplicateKey, Unreadable, in_yaml, problem
from program.files import load as load_yaml
from program.oauth import credentials
from program.oauth.credentials import TokenAuth
from program.problems import Mistake, field_path, first_problem, joined, must_be

ENVIRONMENT: Final = "BEAMLIT_"
"""Prefix of environment variables: BEAMLIT_GATEWAY__LAME_DUCK_SECONDS is gateway.lameDuckSeconds."""


class SettingsError(ValueError):
    """The configuration cannot be used. The message names the key and the value and says what is allowed."""


class Section(BaseModel):
    """Section of the configuration: keys in camelCase, no unknown keys, and frozen."""

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
    if value is None:
        raise Mistake(
            "is left blank: name the namespaces whose ModelDeployments are served, such as [team-a], or write []"
            " for all"
        )
    return value


Listen = Annotated[str, BeforeValidator(_listen), must_be("host:port, such as 127.0.0.1:8080 or [::]:8080")]
"""Address to listen on, `host:port` or `[address]:port`; port 0 lets the kernel choose."""
Names = Annotated[tuple[str, ...], BeforeValidator(_names), must_be("names, as [a, b] or as a,b in one string")]
"""Names as a list, or as `a,b` in one string."""
LogLevel = Literal["debug", "info", "warning", "error"]


class Tls(Section):
    """Certificate of a server address, in PEM."""

    cert_file: Path
    """File with the certificate and those that lead to its authority."""
    key_file: Path
    """File with the private key, not encrypted."""


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
    """Authentication of the gateway to the default remote backend."""

    type: Literal["oauth"] = "oauth"
    oauth_config: OAuth = OAuth()


class Location(Section):
    """Location of the default remote backend, which hooks compare with policies. An empty field is not known."""

    name: str = ""
    """Name of the location, such as the region of a cloud."""
    country: str = ""
    """ISO 3166-1 code of the country, with two or three letters. The continent is derived from it."""
    continent: str = ""
    """Code or English name of the continent, if the country is not known."""


class Flavor(Section):
    """Hardware that a model runs on."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Type of the hardware, for example gpu."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the hardware, for example t4."""


class DefaultRemote(Section):
    """Remote backend of every ModelDeployment that names none."""

    host: str = "run.beamlit.dev"
    """Host name or address, possibly with a port. If empty, there is no default remote backend."""
    scheme: Literal["http", "https"] = "https"
    """URL scheme of the backend."""
    path_prefix: str = "/$workspace/$model"
    """Prefix of every path. Hooks replace the variables in it; the gateway uses what the route document says."""
    workspace: str = ""
    """Workspace that replaces $workspace in the prefix."""
    headers_to_add: Mapping[str, str] = Field(default_factory=dict)
    """Header fields that the gateway sets in every request, by name."""
    headers_to_remove: tuple[str, ...] = ()
    """Names of header fields of the client that are not sent."""
    forward_headers: tuple[str, ...] = ()
    """Names of header fields and query parameters of the client that are sent although they look like credentials."""
    forwarded: Literal["none", "append"] = "none"
    """Whether the backend gets forwarding fields, which describe the client."""
    auth_config: Auth | None = Auth()
    """Authentication of the gateway to the backend, or None if it needs none."""
    location: Location = Location()
    """Location of the backend."""
    flavors: tuple[Flavor, ...] = ()
    """All hardware that the backend may run models on, which hooks compare with policies."""
    price: Annotated[float, Field(ge=0, le=1000000)] = 0.0
    """Price of a million tokens, from which the gateway estimates costs; 0 for no estimate."""
    prompt_price: Annotated[float, Field(ge=0, le=1000000)] = 0.0
    """Price of a million tokens of prompts, where it is another one; 0 for `price`."""


class Shared(Section):
    """Settings that both programs have."""

    namespaces: Names = ("default",)
    """Namespaces whose ModelDeployments are managed and served. If empty, all are."""
    cluster_domain: str = "cluster.local"
    """DNS domain of the cluster, with which names of Services end."""
    default_remote_backend: DefaultRemote = DefaultRemote()
    tls: Verification = Verification()

    @property
    def served_namespaces(self) -> frozenset[str] | None:
        """Return the namespaces, or None for all."""
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
    """Return the settings in a file, the environment and flags, of which the later win.

    Args:
        model: class of the settings.
        config: YAML file, or None.
        environment: variables, by default those of the process.
        flags: values by the dotted path of their key. None values do not count.
        foreign: top-level keys of the file that only the other program reads.

    Raises:
        SettingsError: a value cannot be used. The message names the key, the value and what is allowed.
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
    _drop_blank_sections(model, values)
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


def _drop_blank_sections(settings: type[BaseModel], values: dict[str, Any]) -> None:
    """Drop sections that are left blank, because everything in them is commented out: they have their defaults.

    Where null is a value of its own, as for `authConfig`, it stays.
    """
    for name, info in settings.model_fields.items():
        annotation, key = info.annotation, info.alias or name
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel) or key not in values:
            continue
        if values[key] is None and not info.is_required():
            del values[key]
        elif isinstance(values[key], dict):
            _drop_blank_sections(annotation, values[key])


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _from_environment(settings: type[BaseModel], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings among the variables. Two underscores lead to a key of a section."""
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
    """Return the keys of the file for names of fields, or None if there are no such fields."""
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
    except DuplicateKey as exc:
        raise SettingsError(f"{variable} {problem(exc)}.") from None
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
