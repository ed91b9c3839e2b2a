"""Types of the fields of a pod template (core/v1 PodTemplateSpec), and what people write there that has another type.

The API server refuses a pod template for one number where it takes a string, and Metacontroller says so in an event
only. So the fields that people write are checked here before. What is not in the table is left to the API server.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-template-v1/
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hooks.kube import quantities

Check = Callable[[Any, str], str]
"""Function that returns what is wrong with a value of a field of this name, as the end of a sentence; empty if nothing
is."""


@dataclass(frozen=True, slots=True)
class Items:
    """List of which each item has one shape."""

    of: "Shape"


@dataclass(frozen=True, slots=True)
class Values:
    """Map with keys of the user, of which each value has one shape."""

    of: "Shape"


Shape = Check | Items | Values | Mapping[str, Any]
"""A field's type. A mapping is an object: the shapes of those of its fields that are checked."""


def text(value: Any, field: str) -> str:
    """Check a string."""
    if isinstance(value, str):
        return ""
    if not isinstance(value, bool | int | float):
        return "must be a string"
    example = '"true"' if isinstance(value, bool) else '"5"'
    return f"must be a string: put it in quotes, as in {f'{field}: {example}' if field else example}"


def flag(value: Any, _field: str) -> str:
    """Check a boolean."""
    if isinstance(value, bool):
        return ""
    unquoted = isinstance(value, str) and value in ("true", "false")
    return f"must be true or false{', without quotes' if unquoted else ''}"


def quantity(value: Any, _field: str) -> str:
    """Check an amount of a resource."""
    try:
        if not isinstance(value, bool):
            quantities.parse(value)
            return ""
    except quantities.InvalidQuantity:
        pass
    return "must be a quantity, such as 2, 500m or 1Gi"


def port_or_name(value: Any, _field: str) -> str:
    """Check a number or a name of a port (IntOrString)."""
    is_one = isinstance(value, str) or not whole(value, "")
    return "" if is_one else "must be the number or the name of a port"


def whole(value: Any, _field: str) -> str:
    """Check a whole number."""
    return _whole(value, "a whole number", -(2**63), 2**63 - 1)


def port(value: Any, _field: str) -> str:
    """Check the number of a port."""
    return _whole(value, "a whole number from 1 to 65535", 1, 65535)


def _whole(value: Any, name: str, least: int, most: int) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value == value // 1 and least <= value <= most:
        return ""
    unquoted = isinstance(value, str) and value.isascii() and value.isdecimal()
    return f"must be {name}{', without quotes' if unquoted else ''}"


def one_of(*words: str) -> Check:
    """Return a check for one of these words. An empty string counts as absent, as in the API server."""
    allowed = " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]

    def check(value: Any, _field: str) -> str:
        return "" if value in words or value == "" else f"must be {allowed}"

    return check


_OBJECT: Final = {"name": text, "optional": flag}
_KEY_OF: Final = {**_OBJECT, "key": text}
_LABELS: Final = {
    "matchLabels": Values(text),
    "matchExpressions": Items({"key": text, "operator": text, "values": Items(text)}),
}
_RESOURCES: Final = {"limits": Values(quantity), "requests": Values(quantity)}
_HTTP: Final = {
    "path": text, "port": port_or_name, "host": text, "scheme": one_of("HTTP", "HTTPS"),
    "httpHeaders": Items({"name": text, "value": text}),
}  # fmt: skip
_ACTION: Final = {"exec": {"command": Items(text)}, "httpGet": _HTTP, "tcpSocket": {"host": text, "port": port_or_name}}
_HANDLER: Final = {**_ACTION, "sleep": {"seconds": whole}}
_PROBE: Final = {
    **_ACTION, "grpc": {"port": port, "service": text},
    **dict.fromkeys(
        (
            "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
            "terminationGracePeriodSeconds",
        ),
        whole,
    ),
}  # fmt: skip
_SECURITY: Final = {
    "runAsUser": whole,
    "runAsGroup": whole,
    "runAsNonRoot": flag,
    "seccompProfile": {"type": text, "localhostProfile": text},
}
_CONTAINER_SECURITY: Final = {
    **_SECURITY,
    **dict.fromkeys(("privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem"), flag),
    "capabilities": {"add": Items(text), "drop": Items(text)},
}
_POD_SECURITY: Final = {
    **_SECURITY,
    "fsGroup": whole,
    "supplementalGroups": Items(whole),
    "sysctls": Items({"name": text, "value": text}),
}
_CONTAINER: Final = {
    "name": text,
    "image": text,
    "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
    "workingDir": text,
    "command": Items(text),
    "args": Items(text),
    "env": Items(
        {
            "name": text,
            "value": text,
            "valueFrom": {
                "fieldRef": {"fieldPath": text},
                "resourceFieldRef": {"containerName": text, "resource": text, "divisor": quantity},
                "configMapKeyRef": _KEY_OF,
                "secretKeyRef": _KEY_OF,
            },
        }
    ),
    "envFrom": Items({"prefix": text, "configMapRef": _OBJECT, "secretRef": _OBJECT}),
    "ports": Items({"name": text, "containerPort": port, "hostPort": whole, "hostIP": text, "protocol": text}),
    "resources": _RESOURCES,
    "volumeMounts": Items({"name": text, "mountPath": text, "subPath": text, "subPathExpr": text, "readOnly": flag}),
    **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe"), _PROBE),
    "lifecycle": {"postStart": _HANDLER, "preStop": _HANDLER},
    "restartPolicy": text,
    "securityContext": _CONTAINER_SECURITY,
    **dict.fromkeys(("stdin", "stdinOnce", "tty"), flag),
}
_FILES: Final = {"items": Items({"key": text, "path": text, "mode": whole}), "defaultMode": whole, "optional": flag}
_VOLUME: Final = {
    "name": text,
    "emptyDir": {"medium": text, "sizeLimit": quantity},
    "hostPath": {"path": text, "type": text},
    "configMap": {"name": text, **_FILES},
    "secret": {"secretName": text, **_FILES},
    "persistentVolumeClaim": {"claimName": text, "readOnly": flag},
    "nfs": {"server": text, "path": text, "readOnly": flag},
    "csi": {"driver": text, "readOnly": flag, "volumeAttributes": Values(text)},
    "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": text, "resources": _RESOURCES}}},
}
_NODES: Final = {"matchExpressions": Items({"key": text, "operator": text, "values": Items(text)})}
_PODS: Final = {"labelSelector": _LABELS, "topologyKey": text, "namespaces": Items(text)}
_NEAR: Final = {
    "requiredDuringSchedulingIgnoredDuringExecution": Items(_PODS),
    "preferredDuringSchedulingIgnoredDuringExecution": Items({"weight": whole, "podAffinityTerm": _PODS}),
}
POD_TEMPLATE: Final[Mapping[str, Any]] = {
    "metadata": {"labels": Values(text), "annotations": Values(text)},
    "spec": {
        "containers": Items(_CONTAINER),
        "initContainers": Items(_CONTAINER),
        "volumes": Items(_VOLUME),
        "nodeSelector": Values(text),
        "tolerations": Items(
            {
                "key": text, "operator": text, "value": text, "tolerationSeconds": whole,
                "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            }
        ),
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": Items(_NODES)},
                "preferredDuringSchedulingIgnoredDuringExecution": Items({"weight": whole, "preference": _NODES}),
            },
            "podAffinity": _NEAR,
            "podAntiAffinity": _NEAR,
        },
        "topologySpreadConstraints": Items(
            {"maxSkew": whole, "minDomains": whole, "topologyKey": text, "labelSelector": _LABELS}
        ),
        "imagePullSecrets": Items({"name": text}),
        "hostAliases": Items({"ip": text, "hostnames": Items(text)}),
        "securityContext": _POD_SECURITY,
        "restartPolicy": one_of("Always"),
        **dict.fromkeys(("terminationGracePeriodSeconds", "activeDeadlineSeconds", "priority"), whole),
        **dict.fromkeys(
            (
                "serviceAccountName", "nodeName", "hostname", "subdomain", "schedulerName", "priorityClassName",
                "runtimeClassName", "dnsPolicy",
            ),
            text,
        ),
        **dict.fromkeys(
            (
                "automountServiceAccountToken", "hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace",
                "enableServiceLinks",
            ),
            flag,
        ),
    },
}  # fmt: skip
"""Fields of a pod template that are checked, with their shapes. Containers for debugging are none of a template."""


def problems(value: Any, path: str, shape: Shape = POD_TEMPLATE) -> Iterator[str]:
    """Yield what is wrong in a pod template, as sentences that name the field by its path. A null counts as absent."""
    if value is None:
        return
    if isinstance(shape, Items):
        if not isinstance(value, list):
            yield f"{path} must be a list: begin each item with a dash."
            return
        for index, item in enumerate(value):
            yield from problems(item, f"{path}[{index}]", shape.of)
    elif isinstance(shape, Values | Mapping):
        if not isinstance(value, dict):
            yield f"{path} must be an object."
            return
        for key, item in value.items():
            of = shape.of if isinstance(shape, Values) else shape.get(key)
            if of is not None:
                yield from problems(item, f"{path}.{key}", of)
    else:
        field = path.rpartition(".")[2]
        problem = shape(value, "" if field.endswith("]") else field)
        if problem:
            yield f"{path} {problem}."
