"""Generator of README.md and values.schema.json of the chart, from the comments in its values.yaml.

A line `# -- …` above a key describes it. A described key is a setting, whatever its value holds; a mapping without a
description is a section, and closed: a misspelled key in it is refused.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import BaseModel

from gateway.settings import GatewaySettings
from hooks.settings import Hooks, MetricInformer, PodPages, Prometheus
from program.oauth.credentials import TokenAuth
from program.problems import MUST_BE
from tools.repository import ROOT

CHART: Final = ROOT / "charts/beamlit-controller"
_KEY: Final = re.compile(r"( *)([A-Za-z][\w-]*):")
_OPEN: Final = frozenset({"metacontroller", "metacontroller.rbac", "metacontroller.serviceAccount"})
"""Sections that belong to a dependency. Keys that are not described are allowed in them."""
_DEPENDENCY: Final = "metacontroller"
"""Section whose values are those of a dependency. Its chart gets them from Helm, so nothing can be put in for it."""
_GIVEN: Final = "config.namespaces"
"""Path of the value that must not be left blank: a default would be a guess, and all namespaces a large one."""
_CONDITION: Final = "installMetricServer"
"""Value that decides about a dependency. Helm reads it before a default can be put in, and takes absence for yes."""
NONE_WHEN_BLANK: Final = frozenset(
    {
        "config.defaultRemoteBackend",
        "config.defaultRemoteBackend.host",
        "config.defaultRemoteBackend.authConfig",
        "podSecurityContext",
        "containerSecurityContext",
        "hooks.resources",
        "gateway.resources",
    }
)
"""Paths of values and sections that mean none where they are left blank, and not their default."""
_DEFAULTS: Final = """\
{{- /* Generated from values.yaml by `make generate`: the defaults, the paths of sections, and the paths of what has no
     default where it is left blank. */ -}}
{{- define "beamlit.defaults" -}}
%s
{{- end -}}
"""
_HEAD: Final = """\
<!-- Generated from values.yaml by `make generate`. -->

# beamlit-controller

Installs hooks, the gateway, their RBAC and, unless told otherwise, Metacontroller.
[docs/install.md](../../docs/install.md) says how; [docs/migrating.md](../../docs/migrating.md) is for users of the
original controller. A key that is not in these tables is refused.

A section or value that is left blank, because everything below it is commented out for instance, has its defaults. A
blank `config.defaultRemoteBackend`, a blank `host` or `authConfig` in it, blank security contexts and blank `resources`
are none. `config.namespaces`, `installMetricServer` and what is below `metacontroller` must not be left blank.
"""
_TABLE: Final = """
| value | default | meaning |
| --- | --- | --- |
"""
_NOISE: Final = frozenset({"title", "description", "default", "format", "properties", MUST_BE})
_ELSEWHERE: Final[Mapping[type[BaseModel], frozenset[str]]] = {
    GatewaySettings: frozenset(
        {"listen", "admin", "routes", "kubeconfig", "lameDuckSeconds", "drainSeconds", "install"}
    ),
    Hooks: frozenset({"listen", "operations", "tls", "bearerFile"}),
}
"""Keys of sections of the configuration that the chart sets by flags or by values of its own."""


def _closed(words: str, required: str = "", **known: Any) -> dict[str, Any]:
    """Return the schema of an object that has these keys and no others."""
    properties: dict[str, Any] = {word: {} for word in words.split()} | known
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": required.split()} if required else {})


def _every(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(item)}


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({pattern})?$"}


def _between(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


_STRING: Final = {"type": "string"}
_STRINGS: Final = {"type": "object", "additionalProperties": _STRING}
_SERVER: Final = r"(\[[0-9A-Fa-f:.]+\]|[^][/@?#:\s]+)(:[0-9]+)?(/[^@?#\s]*)?"
"""Regular expression for host, port and path of a URL."""
_NAME: Final = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_NAMES: Final = {"type": "array", "items": {"type": "string", "pattern": f"^{_NAME}$"}, "uniqueItems": True}
_QUANTITIES: Final = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
_SHARE: Final = {"anyOf": [{"type": "integer", "minimum": 0}, _pattern("[0-9]+%")]}
_PORT: Final = _between(1, 65535)
_CONTEXT: Final = "appArmorProfile runAsGroup runAsNonRoot runAsUser seLinuxOptions seccompProfile windowsOptions"
_BY_NAME: Final[Mapping[str, Mapping[str, Any]]] = {
    "affinity": _closed("nodeAffinity podAffinity podAntiAffinity"),
    "allowedNamespaces": _NAMES,
    "commandArgs": _every(_STRING),
    "env": _every(_closed("valueFrom", "name", name=_STRING, value=_STRING)),
    "existingSecret": _pattern(_NAME),
    "beamlitApiTokenExistingSecret": _pattern(_NAME),
    "caConfigMap": _pattern(_NAME),
    "jwtCaConfigMap": _pattern(_NAME),
    "caSecret": _pattern(_NAME),
    "externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
    "extraVolumeMounts": _every(
        _closed(
            "mountPropagation readOnly recursiveReadOnly subPath subPathExpr",
            "name mountPath",
            name=_STRING,
            mountPath=_STRING,
        )
    ),
    "extraVolumes": _every({"type": "object", "required": ["name"], "properties": {"name": _STRING}}),
    "from": _every(_closed("podSelector namespaceSelector ipBlock") | {"minProperties": 1}),
    "for": {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"},
    "fullnameOverride": _pattern(_NAME),
    "imagePullSecrets": _every(_closed("", "name", name=_STRING)),
    "loadBalancerSourceRanges": _every(_STRING),
    "maxUnavailable": _SHARE,
    "minAvailable": _SHARE,
    "nameOverride": _pattern(_NAME),
    "port": _PORT,
    "adminPort": _PORT,
    "nodePort": _between(0, 65535),
    "percentage": {"type": "number", "minimum": 0, "maximum": 100},
    "podSecurityContext": _closed(
        f"{_CONTEXT} fsGroup fsGroupChangePolicy seLinuxChangePolicy supplementalGroups supplementalGroupsPolicy"
        " sysctls"
    ),
    "containerSecurityContext": _closed(
        f"{_CONTEXT} allowPrivilegeEscalation capabilities privileged procMount readOnlyRootFilesystem"
    ),
    "replicas": {"type": "integer", "minimum": 0},
    "severity": _pattern("[A-Za-z0-9_-]+"),
    "resources": _closed("", limits=_QUANTITIES, requests=_QUANTITIES, claims={"type": "array"}),
    "tolerations": _every(
        _closed(
            "key value tolerationSeconds",
            operator={"enum": ["Exists", "Equal", "Lt", "Gt"]},
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        )
    ),
    "topologySpreadConstraints": _every(
        _closed(
            "labelSelector matchLabelKeys minDomains nodeAffinityPolicy nodeTaintsPolicy",
            "maxSkew topologyKey whenUnsatisfiable",
            maxSkew={"type": "integer", "minimum": 1},
            topologyKey=_STRING,
            whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]},
        )
    ),
    **dict.fromkeys(("annotations", "commonAnnotations", "podAnnotations"), _STRINGS),
    **dict.fromkeys(("labels", "commonLabels", "podLabels", "nodeSelector", "headersToAdd", "parameters"), _STRINGS),
    "tokenAuth": {"enum": ["", *(one.value for one in TokenAuth)]},
}
"""Schema of a value by the last part of its path. For any other value the default tells the type."""
_PRICE: Final = {"type": "number", "minimum": 0, "maximum": 1000000}
_BY_PATH: Final[Mapping[str, Mapping[str, Any]]] = {
    "beamlitBaseUrl": _pattern(rf"https?://{_SERVER}"),
    "config.defaultRemoteBackend.authConfig.oauthConfig.tokenUrl": {"type": "string", "pattern": "^https?://"},
    "config.defaultRemoteBackend.authConfig.type": {"enum": ["oauth"]},
    "config.defaultRemoteBackend.flavors": _every(
        _closed("", "type name", type={"type": "string", "minLength": 1}, name={"type": "string", "minLength": 1})
    ),
    "config.defaultRemoteBackend.forwarded": {"enum": ["none", "append"]},
    "config.defaultRemoteBackend.forwardHeaders": _every(_STRING),
    "config.defaultRemoteBackend.headersToRemove": _every(_STRING),
    "config.defaultRemoteBackend.location.country": _pattern("[A-Za-z]{2,3}"),
    "config.defaultRemoteBackend.price": _PRICE,
    "config.defaultRemoteBackend.promptPrice": _PRICE,
    "config.defaultRemoteBackend.scheme": {"enum": ["http", "https"]},
    "config.metricInformer.prometheus.address": _pattern(rf"(https?://)?{_SERVER}"),
    # A file is for one machine.
    "config.metricInformer.type": {"enum": ["kubernetes", "prometheus", "pods"], "type": "string"},
    "config.namespaces": {"anyOf": [_STRING, _NAMES]},
    "gateway.autoscaling.maxReplicas": {"type": "integer", "minimum": 1},
    "gateway.autoscaling.minReplicas": {"type": "integer", "minimum": 1},
    "gateway.autoscaling.targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1},
    "gateway.drainSeconds": _between(0, 86400),
    "gateway.lameDuckSeconds": _between(0, 3600),
    "gateway.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "hooks.tls.generation": {"type": ["string", "integer"]},
    "hooks.url": _pattern(r"https?://[^/\s]+/?"),
    "image.digest": _pattern("sha256:[0-9a-f]{64}"),
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "metacontroller.serviceAccount.name": {"type": "string", "pattern": f"^{_NAME}$"},
    "metacontroller.podSecurityContext": {"type": "object"},
    "monitoring.podMonitor.interval": _pattern("([0-9]+(ms|s|m|h))+"),
    "monitoring.prometheusRule.runbooks": {"type": "string", "pattern": r"^https?://\S+$"},
    "monitoring.serviceMonitor.interval": _pattern("([0-9]+(ms|s|m|h))+"),
}
_SECTIONS: Final[Mapping[str, type[BaseModel]]] = {"config.gateway": GatewaySettings, "config.hooks": Hooks}
"""Sections of the configuration by the path of the value that holds them."""
_KEYS_OF: Final[Mapping[str, type[BaseModel]]] = {
    "config.metricInformer": MetricInformer,
    "config.metricInformer.pods": PodPages,
    "config.metricInformer.prometheus": Prometheus,
}
"""Sections of the configuration by the path of the values that have their keys beside keys of their own."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Value that a comment describes."""

    path: str
    default: Any
    meaning: str


def settings(text: str | None = None) -> Iterator[Setting]:
    """Yield every described value, in the order of the file."""
    source = (CHART / "values.yaml").read_text() if text is None else text
    values = yaml.safe_load(source)
    trail: list[tuple[int, str]] = []
    meaning = ""
    for line in source.splitlines():
        if line.strip().startswith("# -- "):
            meaning = line.strip().removeprefix("# -- ")
        elif (found := _KEY.match(line)) is not None:
            depth = len(found[1])
            trail = [(level, name) for level, name in trail if level < depth]
            trail.append((depth, found[2]))
            if meaning:
                path = [name for _, name in trail]
                default = values
                for name in path:
                    default = default[name]
                yield Setting(".".join(path), default, meaning)
            meaning = ""


def readme() -> str:
    """Return the README of the chart: a table for each section, and one for values that are in none."""
    groups: dict[str, list[str]] = {"General": []}
    for one in settings():
        section, dot, _ = one.path.partition(".")
        row = f"| `{one.path}` | `{json.dumps(one.default)}` | {one.meaning} |\n"
        groups.setdefault(section if dot else "General", []).append(row)
    return _HEAD + "".join(f"\n## {title}\n{_TABLE}{''.join(rows)}" for title, rows in groups.items())


def schema() -> str:
    """Return the values.schema.json of the chart."""
    root: dict[str, Any] = _section("")
    root["$schema"] = "http://json-schema.org/draft-07/schema#"
    for one in settings():
        *sections, name = one.path.split(".")
        place = root
        for index, section in enumerate(sections):
            inner = place["properties"].setdefault(section, _section(".".join(sections[: index + 1])))
            if sections[0] == _DEPENDENCY and index:
                _require(place, section)
            place = inner
        of_value = allowed(one)
        if one.path not in (_GIVEN, _CONDITION) and sections[:1] != [_DEPENDENCY]:
            of_value = _or_blank(of_value)
        place["properties"][name] = {"description": one.meaning, **of_value}
        if sections[:1] == [_DEPENDENCY]:
            _require(place, name)
    root["required"] = [_CONDITION]
    # Helm passes these on to every chart.
    root["properties"] |= {"global": {"type": "object"}, "metrics-server": {"type": "object"}}
    return json.dumps(root, indent=2) + "\n"


def _require(section: dict[str, Any], name: str) -> None:
    """Require a value: Helm drops a blank one that the dependency has, too, and the dependency's own default counts."""
    required = section.setdefault("required", [])
    if name not in required:
        required.append(name)


def defaults() -> str:
    """Return the template that holds the defaults of the chart, for what is left blank."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    sections = {
        ".".join(names[:depth])
        for names in (one.path.split(".") for one in settings())
        for depth in range(1, len(names))
    }
    known = {
        "defaults": {key: value for key, value in values.items() if key != _DEPENDENCY},
        "sections": sorted(sections),
        "blank": sorted({_GIVEN, *NONE_WHEN_BLANK}),
    }
    return _DEFAULTS % json.dumps(known, indent=2)


def is_value(path: str) -> bool:
    """Return whether the schema has a value of that path."""
    places = [_schema()]
    for key in path.split("."):
        alternatives = [*places, *(other for place in places for other in place.get("anyOf", ()))]
        places = [place["properties"][key] for place in alternatives if key in place.get("properties", ())]
    return bool(places)


@functools.cache
def _schema() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(schema())
    return whole


def allowed(one: Setting) -> dict[str, Any]:
    """Return the JSON Schema of a value."""
    if one.path in _SECTIONS:
        return _of_the_configuration(_SECTIONS[one.path])
    section, _, name = one.path.rpartition(".")
    known = _BY_PATH.get(one.path) or _BY_NAME.get(name)
    if known is not None:
        return dict(known)
    if section in _KEYS_OF:
        keys = _of_the_configuration(_KEYS_OF[section])["properties"]
        if name in keys:
            return dict(keys[name])
    kinds = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return {"type": kinds[type(one.default)]}


def _section(path: str) -> dict[str, Any]:
    of_section = {"type": "object", "additionalProperties": path in _OPEN, "properties": {}}
    return of_section if path.partition(".")[0] in ("", _DEPENDENCY) else _or_blank(of_section)


def _or_blank(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts null, too."""
    result = dict(schema)
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        result["type"] = [*kinds, *({"null"} - set(kinds))]
    for key, null in (("enum", None), ("anyOf", {"type": "null"})):
        if key in schema and null not in schema[key]:
            result[key] = [*schema[key], null]
    return result


def _of_the_configuration(section: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a section of config.yaml, without references and keys that the chart sets."""
    whole = section.model_json_schema(by_alias=True)
    definitions = whole.pop("$defs", {})

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return plain(definitions[part["$ref"].rpartition("/")[2]])
        kept = {key: plain(value) for key, value in part.items() if key not in _NOISE}
        if "properties" in part:
            kept["properties"] = {key: plain(value) for key, value in part["properties"].items()}
            if "required" not in part:
                kept = _or_blank(kept)
        return kept

    result: dict[str, Any] = plain(whole)
    for key in _ELSEWHERE.get(section, ()):
        del result["properties"][key]
    return result
