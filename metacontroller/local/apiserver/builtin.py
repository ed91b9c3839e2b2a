"""Built-in kinds on a write: stored form, defaults, and fields that are immutable.

Only as much as one machine needs: workloads, Services, EndpointSlices, ConfigMaps and Secrets. Pod fields it has never
heard of stay as they are, where a real API server drops them.
"""

import base64
import binascii
import ipaddress
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hooks.kube.stored import PLAIN_MAPS, QUANTITIES, QUANTITY_MAPS, quantity
from metacontroller.local.apiserver.objects import Kind, Object, copy, equal

WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})


_FIELDS = {
    "ConfigMap": ("data", "binaryData", "immutable"),
    "Secret": ("data", "stringData", "immutable", "type"),
    "EndpointSlice": ("addressType", "endpoints", "ports"),
}
"""Top-level fields of a kind beside apiVersion, kind and metadata. Other kinds have spec and status."""

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Annotation in which the API server counts the templates of a DaemonSet."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?!.*--)(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_DATA_KEY = re.compile(r"(?!\.\.?$)(?!\.\.)[-._a-zA-Z0-9]{1,253}")


def stored(kind: Kind, item: Object) -> Object:
    """Return the object in stored form: without nulls and empty lists, with canonical quantities and defaults."""
    known = ("apiVersion", "kind", "metadata", *_FIELDS.get(kind.name, ("spec", "status")))
    result: Object = _tidy({name: value for name, value in item.items() if name in known})
    fill = _DEFAULTS.get(kind.name)
    if fill is not None:
        fill(result)
    return result


def allocate(item: Object, old: Object | None, taken: Callable[[str], bool]) -> None:
    """Set the clusterIP of a Service, or keep the one it has."""
    spec = item.setdefault("spec", {})
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            spec.pop(name, None)
        return
    before = (old or {}).get("spec", {}).get("clusterIP")
    if not spec.get("clusterIP"):
        spec["clusterIP"] = before or _free_address(item["metadata"], taken)
    spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")


def count_templates(item: Object, old: Object | None) -> None:
    """Count the templates of a DaemonSet in its annotation."""
    count = 1
    if old is not None:
        count = int(old["metadata"].get("annotations", {}).get(TEMPLATE_GENERATION, 1))
        count += not equal(item["spec"]["template"], old["spec"]["template"])
    item["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(count)


def problems(kind: Kind, item: Object) -> Iterator[str]:
    """Return the problems of a built-in object, one sentence each."""
    name = item["metadata"]["name"]
    if kind.name == "Service" and not _DNS_LABEL.fullmatch(name):
        yield f"metadata.name must be a DNS label of at most 63 characters, not {name!r}"
    if kind.name in {"ConfigMap", "Secret"}:
        yield from _data(kind, item)
    if kind.name in WORKLOADS:
        yield from _workload(item)
    if kind.name == "Service":
        yield from _service(item)


def immutable(kind: Kind, item: Object, old: Object) -> Iterator[str]:
    """Return the immutable fields that an update tries to change."""
    if kind.name in WORKLOADS and not equal(item["spec"].get("selector"), old["spec"].get("selector")):
        yield "spec.selector cannot be changed: field is immutable"
    if kind.name == "Service":
        before, after = old["spec"].get("clusterIP"), item["spec"].get("clusterIP")
        if before and after and before != after:
            yield f"spec.clusterIP cannot be changed from {before} to {after}: field is immutable"
    if kind.name == "Secret" and item.get("type") != old.get("type"):
        yield "type cannot be changed: field is immutable"
    frozen = kind.name in {"ConfigMap", "Secret"} and old.get("immutable")
    if frozen and not all(equal(item.get(field), old.get(field)) for field in ("data", "binaryData", "immutable")):
        yield "data cannot be changed while immutable is set"


def _tidy(value: Any, parent: str = "") -> Any:
    if isinstance(value, dict):
        if parent in QUANTITY_MAPS:
            return {key: quantity(item, resource=True) for key, item in value.items() if item is not None}
        result = {}
        for key, item in value.items():
            if item is None or item == [] or (item == {} and key in PLAIN_MAPS):
                continue
            result[key] = quantity(item) if key in QUANTITIES else _tidy(item, key)
        return result
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _default(target: Object, **values: Any) -> None:
    for name, value in values.items():
        if name not in target:
            target[name] = copy(value)


def _deployment(item: Object) -> None:
    spec = item.setdefault("spec", {})
    _default(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    strategy = spec["strategy"]
    _default(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _default(strategy, rollingUpdate={})
        _default(strategy["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _template(spec)


def _stateful_set(item: Object) -> None:
    spec = item.setdefault("spec", {})
    retention = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    _default(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady", updateStrategy={})
    _default(spec, persistentVolumeClaimRetentionPolicy=retention)
    _default(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _default(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _template(spec)


def _daemon_set(item: Object) -> None:
    spec = item.setdefault("spec", {})
    _default(spec, revisionHistoryLimit=10, updateStrategy={})
    _default(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _default(spec["updateStrategy"], rollingUpdate={"maxSurge": 0, "maxUnavailable": 1})
    _template(spec)


def _replica_set(item: Object) -> None:
    spec = item.setdefault("spec", {})
    _default(spec, replicas=1)
    _template(spec)


def _template(spec: Object) -> None:
    pod = spec.setdefault("template", {}).setdefault("spec", {})
    _default(pod, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _default(pod, securityContext={}, terminationGracePeriodSeconds=30)
    if "serviceAccountName" in pod:
        _default(pod, serviceAccount=pod["serviceAccountName"])
    for container in [*pod.get("containers", ()), *pod.get("initContainers", ())]:
        _container(container)
    for volume in pod.get("volumes", ()):
        _volume(volume)


def _volume(volume: Object) -> None:
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(source), dict):
            _default(volume[source], defaultMode=420)
    if isinstance(volume.get("hostPath"), dict):
        _default(volume["hostPath"], type="")
    for source in ({"downwardAPI": volume.get("downwardAPI")}, *(volume.get("projected") or {}).get("sources", ())):
        if isinstance(source.get("serviceAccountToken"), dict):
            _default(source["serviceAccountToken"], expirationSeconds=3600)
        for entry in (source.get("downwardAPI") or {}).get("items", ()):
            _field(entry.get("fieldRef"))


def _field(reference: Any) -> None:
    if isinstance(reference, dict):
        _default(reference, apiVersion="v1")


def _http(action: Any) -> None:
    if isinstance(action, dict) and isinstance(action.get("httpGet"), dict):
        _default(action["httpGet"], path="/", scheme="HTTP")


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    latest = tag == "latest" or (not tag and "@" not in image)
    _default(container, imagePullPolicy="Always" if latest else "IfNotPresent", resources={})
    _default(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    for port in container.get("ports", ()):
        _default(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            probe = container[name]
            _default(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            _http(probe)
            if isinstance(probe.get("grpc"), dict):
                _default(probe["grpc"], service="")
    for name in ("postStart", "preStop"):
        _http((container.get("lifecycle") or {}).get(name))
    for variable in container.get("env", ()):
        _field((variable.get("valueFrom") or {}).get("fieldRef"))


def _service_defaults(item: Object) -> None:
    spec = item.setdefault("spec", {})
    _default(spec, type="ClusterIP", sessionAffinity="None")
    if spec["sessionAffinity"] == "ClientIP":
        _default(spec, sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}})
    else:
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports", ()):
        _default(port, protocol="TCP")
        _default(port, targetPort=port.get("port"))
    item.setdefault("status", {"loadBalancer": {}})


def _secret(item: Object) -> None:
    _default(item, type="Opaque")
    plain = item.pop("stringData", None)
    if isinstance(plain, dict):
        data = item.setdefault("data", {})
        data.update({name: base64.b64encode(str(value).encode()).decode() for name, value in plain.items()})


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "ReplicaSet": _replica_set,
    "Service": _service_defaults,
    "Secret": _secret,
}


def _free_address(metadata: Object, taken: Callable[[str], bool]) -> str:
    """Return a cluster IP that follows from the name, so that an object gets the same one in every new directory."""
    network = ipaddress.ip_network("10.96.0.0/16")
    start = zlib.crc32(f"{metadata.get('namespace')}/{metadata['name']}".encode())
    for step in range(network.num_addresses - 2):
        address = str(network[1 + (start + step) % (network.num_addresses - 2)])
        if not taken(address):
            return address
    raise AssertionError("65534 Services on one machine")


def _data(kind: Kind, item: Object) -> Iterator[str]:
    size = 0
    for field in ("data", "binaryData"):
        values = item.get(field, {})
        if not isinstance(values, dict):
            yield f"{field} must be a map of strings"
            continue
        for name, value in values.items():
            if not _DATA_KEY.fullmatch(name):
                yield f"{field}.{name} must be named by letters, digits, '-', '_' and '.'"
            if not isinstance(value, str):
                yield f"{field}.{name} must be a string: put it in quotes"
                continue
            size += len(value.encode())
            if (kind.name == "Secret" or field == "binaryData") and not _is_base64(value):
                yield f"{field}.{name} must be base64; plain text goes under stringData"
    if size > 1024 * 1024:
        yield f"data must have at most 1048576 bytes, not {size}"


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _workload(item: Object) -> Iterator[str]:
    spec = item["spec"]
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        yield f"spec.replicas must be a whole number of at least 0, not {replicas!r}"
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not spec.get("selector"):
        yield "spec.selector is required"
    if any(labels.get(name) != value for name, value in selector.items()):
        yield "spec.template.metadata.labels must match spec.selector"
    containers = spec["template"]["spec"].get("containers")
    if not containers:
        yield "spec.template.spec.containers is required"
    for index, container in enumerate(containers or ()):
        yield from _container_problems(container, f"spec.template.spec.containers[{index}]")


def _container_problems(container: Object, path: str) -> Iterator[str]:
    for field in ("name", "image"):
        if not container.get(field):
            yield f"{path}.{field} is required"
    if container.get("name") and not _DNS_LABEL.fullmatch(container["name"]):
        yield f"{path}.name must be a DNS label of at most 63 characters, not {container['name']!r}"
    for index, port in enumerate(container.get("ports", ())):
        if "name" in port and not _PORT_NAME.fullmatch(port["name"]):
            yield f"{path}.ports[{index}].name must be at most 15 of a-z, 0-9 and '-', not {port['name']!r}"


def _service(item: Object) -> Iterator[str]:
    spec = item["spec"]
    types = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    if spec["type"] not in types:
        yield f"spec.type must be one of {', '.join(types)}, not {spec['type']!r}"
    if spec["type"] == "ExternalName":
        if not spec.get("externalName"):
            yield "spec.externalName is required for the type ExternalName"
    elif not spec.get("ports") and spec.get("clusterIP") != "None":
        yield "spec.ports is required"
    for index, port in enumerate(spec.get("ports", ())):
        number = port.get("port")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            yield f"spec.ports[{index}].port must be between 1 and 65535, not {number!r}"
        if len(spec["ports"]) > 1 and not port.get("name"):
            yield f"spec.ports[{index}].name is required where there are several ports"
        for earlier in spec["ports"][:index]:
            if all(port.get(field) == earlier.get(field) for field in ("port", "protocol")):
                yield f"spec.ports[{index}] is there twice: {port.get('protocol')} {number}"
            if port.get("name") == earlier.get("name") is not None:
                yield f"spec.ports[{index}].name is there twice: {port['name']!r}"
