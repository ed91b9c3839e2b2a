"""Builders of objects and requests as Metacontroller sends them: a test gives the fields that matter to it.

`Cluster` syncs a single ModelDeployment as often as a test calls it. It stores the status, and the children with the
fields that a cluster adds, and does no more than that: `metacontroller.local` is the whole stand-in.
"""

import copy
import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from hooks import names
from hooks.kube.objects import key_of
from hooks.kube.quantities import parse
from hooks.observation import drills
from hooks.observation.observation import DefaultRemote, GatewayService, InstallDefaults, Observation
from hooks.observation.readings import Reading, Readings, Sample, Unread
from hooks.protocol import CustomizeRequest, CustomizeResponse, SyncRequest, SyncResponse
from hooks.reconcile import model_deployment as reconcile
from hooks.reconcile.related import customize as customize_response

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "team-a"
UID = "6f0c1e0e-9a5b-4f0e-8a4e-2f6d8f0d2b11"
GATEWAY = GatewayService("beamlit", "beamlit-gateway", 80)
DEFAULTS = InstallDefaults(
    namespaces=None,
    default_remote=DefaultRemote("run.example.com", "https", "/$workspace/$model", "acme"),
    gateway_service=GATEWAY,
)
REMOTE: Json = {"host": "models.example.com", "scheme": "https"}
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUZdDJfmrPboLJdacZqjLmcHLZFbMwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI1MDUwODAxWhgPMjEy
NjExMDEwNTA4MDFaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEFeArUKXEOnXuyykmXpWSHovIEqD4VT3+3I8+eP81
Tu0QZ2jmkSM5kFLoWFfatMjjTt15xlOAKD8OoDMb3j984qNTMFEwHQYDVR0OBBYE
FIxOr/B/+pcl9ZfN/vYN7gLUbG4fMB8GA1UdIwQYMBaAFIxOr/B/+pcl9ZfN/vYN
7gLUbG4fMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgC18yuqaF
/+9BwqLW6kfW+kOUmEGZYAGEikQQ0fF3+CoCIBZz+tKoYNgEnRLcGJTzkf9Yeu3/
nfhKevI6xgTWExvi
-----END CERTIFICATE-----
"""
"""Certificate of an authority, for bundles."""
TEMPLATE: Json = {"spec": {"containers": [{"name": "server", "image": "server:1"}]}}


def model_deployment(name: str = "demo", *, status: Json | None = None, generation: int = 1, **spec: Any) -> Json:
    """Return a ModelDeployment that adopts the Deployment `demo`; a field that is None is left out."""
    fields = {
        "model": "llama",
        "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo"},
        "offloadingConfig": {"remoteBackend": REMOTE},
    } | spec
    parent: Json = {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": generation,
            "resourceVersion": "100",
            "creationTimestamp": "2026-03-01T11:00:00Z",
        },
        "spec": {field: value for field, value in fields.items() if value is not None},
    }
    return parent if status is None else parent | {"status": status}


def served(**spec: Any) -> Json:
    """Return a ModelDeployment with spec.server."""
    server = {"port": 8000, "replicas": 1, "template": TEMPLATE}
    return model_deployment(modelSourceRef=None, **{"server": server} | spec)


def behavior(**fields: Any) -> Json:
    """Return an offloadingConfig with this behavior."""
    return {"remoteBackend": REMOTE, "behavior": fields}


def override(percentage: int, mode: str = "Normal", until: str = "2026-03-01T13:00:00Z") -> Json:
    """Return an offloadingConfig with an override, by default until an hour after NOW."""
    return behavior(override={"percentage": percentage, "mode": mode, "until": until})


def backend(**fields: Any) -> Json:
    """Return an offloadingConfig with these fields of the remote backend."""
    return {"remoteBackend": REMOTE | fields}


def workload(
    kind: str = "Deployment",
    name: str = "demo",
    *,
    ready: int = 1,
    replicas: int | None = 1,
    generation: int = 1,
    observed: int | None = None,
    ports: Iterable[Json] = ({"containerPort": 8000},),
    match_labels: Mapping[str, str] | None = None,
    deleting: bool = False,
) -> Json:
    """Return a workload with this many ready replicas, and with `observed` as observedGeneration."""
    metadata: Json = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{kind}-{name}", "generation": generation}
    if deleting:
        metadata["deletionTimestamp"] = "2026-03-01T11:59:00Z"
    labels = {"app": name} if match_labels is None else dict(match_labels)
    status: Json = {"observedGeneration": generation if observed is None else observed}
    if ready:
        status["numberReady" if kind == "DaemonSet" else "readyReplicas"] = ready
    spec: Json = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "server", "image": "server:1", "ports": list(ports)}]},
        },
    }
    if replicas is not None and kind != "DaemonSet":
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def service(
    name: str = "demo-svc",
    *,
    ports: Iterable[Json] = ({"port": 80, "targetPort": 8000},),
    selector: Mapping[str, str] | None = None,
    cluster_ip: str = "10.96.0.7",
) -> Json:
    """Return a Service that selects app=demo."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-service-{name}"},
        "spec": {
            "selector": {"app": "demo"} if selector is None else dict(selector),
            "ports": list(ports),
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "type": "ClusterIP",
        },
    }


def policy(name: str = "eu", *, namespace: str = NAMESPACE, deleting: bool = False, **spec: Any) -> Json:
    """Return a Policy, by default one that allows Europe; its type is that of the given list."""
    if not spec:
        spec = {"locations": [{"type": "continent", "name": "eu"}]}
    metadata: Json = {"name": name, "namespace": namespace, "uid": f"uid-policy-{name}", "generation": 1}
    if deleting:
        metadata["deletionTimestamp"] = "2026-03-01T11:59:00Z"
    kind = {"type": "location" if "locations" in spec else "flavor"}
    return {
        "apiVersion": "authorization.beamlit.com/v1alpha1",
        "kind": "Policy",
        "metadata": metadata,
        "spec": kind | spec,
    }


def obeys(*names: str) -> list[Json]:
    """Return references to Policy objects."""
    return [{"refType": "localPolicy", "name": name} for name in names]


def group_of(item: Json) -> str:
    """Return the outer key under which Metacontroller sends an object: `Deployment.apps/v1`, `Service.v1`."""
    return f"{item['kind']}.{item['apiVersion']}"


def grouped(items: Iterable[Json], *, groups: Iterable[str] = (), version: str = "v1") -> Json:
    """Return objects grouped as Metacontroller sends them for a hook version."""
    result: Json = {group: {} for group in groups}
    for item in items:
        metadata = item["metadata"]
        inner = metadata["name"] if version == "v1" else f"{metadata['namespace']}/{metadata['name']}"
        result.setdefault(group_of(item), {})[inner] = item
    return result


def request_body(
    parent: Json,
    *,
    children: Iterable[Json] = (),
    related: Iterable[Json] = (),
    finalizing: bool = False,
    version: str = "v1",
) -> Json:
    """Return the decoded body of a sync or finalize request."""
    groups = ("Deployment.apps/v1", "Service.v1", "ConfigMap.v1")
    return {
        "controller": {"apiVersion": "metacontroller.k8s.io/v1alpha1", "kind": "CompositeController", "status": {}},
        "parent": parent,
        "children": grouped(children, groups=groups, version=version),
        "related": grouped(related, version=version),
        "finalizing": finalizing,
    }


def sync_request(parent: Json, **rest: Any) -> SyncRequest:
    """Return a parsed sync request; the rest is as for `request_body`."""
    return SyncRequest.from_body(orjson.dumps(request_body(parent, **rest)))


def observation(
    parent: Json,
    *,
    defaults: InstallDefaults = DEFAULTS,
    readings: Readings | None = None,
    drills: tuple[drills.Reading, ...] | None = None,
    **rest: Any,
) -> Observation:
    """Return the observation of a sync request, with readings; the rest is as for `request_body`."""
    return dataclasses.replace(Observation.of(sync_request(parent, **rest), defaults), readings=readings, drills=drills)


def sync(parent: Json, *, now: datetime = NOW, **rest: Any) -> SyncResponse:
    """Return the response to a sync request; the rest is as for `observation`."""
    return reconcile.sync(observation(parent, **rest), now=now)


def external(name: str = "queue", value: str | int = 100) -> Json:
    """Return an External metric with its target."""
    return {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": value}}}


def readings(*values: str | Unread, now: datetime = NOW) -> Readings:
    """Return a reading for each metric: its value at the time `now`, or why there is none."""
    return Readings(
        tuple(
            Reading(unread=value) if isinstance(value, Unread) else Reading((Sample("series", parse(value), now),))
            for value in values
        )
    )


def customize(parent: Json) -> CustomizeResponse:
    """Return the response to customize."""
    return customize_response(CustomizeRequest.from_body(orjson.dumps({"controller": {}, "parent": parent})))


def child(response: SyncResponse, kind: str, name: str | None = None) -> Json:
    """Return the only desired child of a kind, or the one of this name."""
    (match,) = [
        child for child in response.children if child["kind"] == kind and name in (None, child["metadata"]["name"])
    ]
    return match


def route(response: SyncResponse) -> Json:
    """Return the desired route document."""
    document: Json = json.loads(child(response, "ConfigMap")["data"]["route.json"])
    return document


def backends(response: SyncResponse) -> dict[str, Json]:
    """Return the backends of the desired route document, by id."""
    return {backend["id"]: backend for backend in route(response).get("backends", [])}


def weights(response: SyncResponse) -> dict[str, int]:
    """Return the weights of the backends in the desired route document, by id."""
    return {name: backend.get("weight", 0) for name, backend in backends(response).items()}


def conditions(response: SyncResponse) -> dict[str, tuple[str, str]]:
    """Return status and reason of every condition, by type."""
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in response.status["conditions"]}


def condition(response: SyncResponse, type_: str) -> Json:
    """Return the condition of a type."""
    match: Json
    (match,) = [entry for entry in response.status["conditions"] if entry["type"] == type_]
    return match


def observed(desired: Json, before: Json | None = None, *, server_side: bool = False) -> Json:
    """Return a desired child as it is observed after Metacontroller applied it."""
    applied = copy.deepcopy(desired)
    metadata = applied["metadata"]
    metadata["labels"] = {**metadata.get("labels", {}), names.CONTROLLER_UID_LABEL: UID}
    text = orjson.dumps(applied, option=orjson.OPT_SORT_KEYS).decode()
    metadata["uid"] = f"uid-{applied['kind']}-{metadata['name']}"
    metadata["resourceVersion"] = "1"
    metadata["ownerReferences"] = [
        {
            "apiVersion": "deployment.beamlit.com/v1alpha1",
            "kind": "ModelDeployment",
            "name": "demo",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    if server_side:
        fields = _fields_v1(desired) | {
            "f:metadata": _fields_v1(orjson.loads(text)["metadata"], skip=("name", "namespace"))
        }
        metadata["managedFields"] = [
            {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {}}},
            {"manager": "metacontroller", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields},
        ]
    else:
        metadata["annotations"] = {**metadata.get("annotations", {}), names.LAST_APPLIED: text}
    if applied["kind"] == "Deployment":
        metadata["generation"] = 1
        applied["spec"] = {"replicas": 1, "revisionHistoryLimit": 10, **applied["spec"]}
        applied["status"] = {"observedGeneration": 1}
    if applied["kind"] == "Service" and "type" not in applied["spec"]:
        applied["spec"] |= {"type": "ClusterIP", "clusterIP": "10.96.0.99", "clusterIPs": ["10.96.0.99"]}
        for port in applied["spec"]["ports"]:
            port["protocol"] = "TCP"
    if before is not None and "status" in before:
        applied["status"] = before["status"]
    return applied


def _fields_v1(value: Json, skip: tuple[str, ...] = ("apiVersion", "kind", "metadata")) -> Json:
    """Return the FieldsV1 set of everything in an object; items of lists are keyed by port or name."""
    fields: Json = {}
    for name, item in value.items():
        if name in skip:
            continue
        fields[f"f:{name}"] = _fields_of(item)
    return fields


def _fields_of(item: Any) -> Json:
    if isinstance(item, dict):
        return _fields_v1(item, skip=())
    if isinstance(item, list) and item and all(isinstance(entry, dict) and "port" in entry for entry in item):
        return {_key_of(entry): {".": {}, **_fields_v1(entry, skip=())} for entry in item}
    if isinstance(item, list) and item and all(isinstance(entry, dict) and "name" in entry for entry in item):
        return {f'k:{{"name":"{entry["name"]}"}}': {".": {}, **_fields_v1(entry, skip=())} for entry in item}
    return {}


def _key_of(port: Json) -> str:
    return f'k:{{"port":{port["port"]},"protocol":"TCP"}}'


class Cluster:
    """A ModelDeployment and the objects around it in a cluster."""

    def __init__(
        self,
        parent: Json,
        *,
        related: Iterable[Json] = (),
        defaults: InstallDefaults = DEFAULTS,
        now: datetime = NOW,
        taken: Iterable[tuple[str, str]] = (),
        server_side: bool = False,
    ) -> None:
        """Create no child whose kind and name is in `taken`, for foreign objects have these names."""
        self.parent = parent
        self.related = list(related)
        self.children: list[Json] = []
        self.defaults = defaults
        self.now = now
        self.values: tuple[str | Unread, ...] | None = None
        """Values of the metrics at each sync; None when no metric is read."""
        self.drills: tuple[drills.Reading, ...] | None = None
        """What gateways reported of their drills, the newest reading first; None when none is asked."""
        self._taken = set(taken)
        self._server_side = server_side

    def sync(self) -> SyncResponse:
        """Sync once, apply the response, and return it."""
        response = sync(
            self.parent,
            now=self.now,
            defaults=self.defaults,
            readings=None if self.values is None else readings(*self.values, now=self.now),
            drills=self.drills,
            children=self.children,
            related=self.related,
        )
        before = {key_of(child): child for child in self.children}
        self.children = [
            observed(child, before.get(key_of(child)), server_side=self._server_side)
            for child in response.children
            if (child["kind"], child["metadata"]["name"]) not in self._taken
        ]
        self.parent = self.parent | {"status": response.status}
        return response

    def settle(self) -> SyncResponse:
        """Sync twice, after which nothing changes any more, and return the last response."""
        self.sync()
        return self.sync()

    def after(self, seconds: float) -> SyncResponse:
        """Sync after this many seconds, and return the response."""
        self.now += timedelta(seconds=seconds)
        return self.sync()

    def measure(self, *values: str | Unread, after: float = 0) -> SyncResponse:
        """Sync after this many seconds with these values of the metrics, and return the response."""
        self.values = values
        return self.after(after)

    def drill(self, *found: drills.Drill, after: float = 10) -> SyncResponse:
        """Read after this many seconds what gateways found, one drill of each, sync, and return the response."""
        self.now += timedelta(seconds=after)
        self.drills = (drills.Reading(self.now, found), *(self.drills or ())[:1])
        return self.sync()

    def edit(self, **spec: Any) -> SyncResponse:
        """Change fields of the specification, sync, and return the response; None removes a field."""
        merged = {name: value for name, value in (self.parent["spec"] | spec).items() if value is not None}
        metadata = self.parent["metadata"] | {"generation": self.parent["metadata"]["generation"] + 1}
        self.parent = self.parent | {"spec": merged, "metadata": metadata}
        return self.sync()

    def set_ready(self, ready: int) -> SyncResponse:
        """Set the number of ready replicas of the workload, sync, and return the response."""
        for item in (*self.related, *self.children):
            if item["kind"] == "Deployment":
                item["status"] = {"observedGeneration": item["metadata"].get("generation", 1), "readyReplicas": ready}
        return self.sync()


def body_of(response: SyncResponse) -> bytes:
    """Return the body of a response with sorted keys, to compare it whole."""
    return orjson.dumps(response.as_json(), option=orjson.OPT_SORT_KEYS)
