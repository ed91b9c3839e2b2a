"""The project's CRDs on a real API server: which objects it refuses, with which sentence, and that no good field is
lost."""

import copy
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.contract.test_crds import (
    ACCEPTED,
    ORIGINAL,
    PLURALS,
    REFUSED,
    SERVER,
    STATUS,
    TIME,
    model_deployment,
    policy,
    refusals,
    remote,
)
from tests.e2e.controlplane import ControlPlane
from tests.e2e.product import install_crds
from tests.structural import crd_schema, defaulted, nodes

NAMESPACE = "api"
GROUPS: Final = {"ModelDeployment": "deployment.beamlit.com", "Policy": "authorization.beamlit.com"}
TARGET: Final = {"type": "AverageValue", "value": "1", "averageValue": "500m", "averageUtilization": 80}
METRIC: Final = {
    "name": "requests",
    "selector": {
        "matchLabels": {"team": "x"},
        "matchExpressions": [{"key": "team", "operator": "In", "values": ["x", "y"]}],
    },
}
REFERENCE: Final = {
    "apiVersion": "v1",
    "kind": "Deployment",
    "name": "workload",
    "namespace": "default",
    "uid": "1",
    "resourceVersion": "1",
    "fieldPath": "spec",
}
FULL: Final = {
    "full": model_deployment(
        enabled=False,
        modelSourceRef=REFERENCE,
        serviceRef=REFERENCE | {"kind": "Service", "targetPort": 80},
        metricServiceRef=REFERENCE | {"kind": "Service", "targetPort": 80},
        environment="development",
        policies=[REFERENCE | {"kind": "Policy", "refType": "localPolicy"}],
        serverlessConfig={
            "minNumReplicas": 0,
            "maxNumReplicas": 1,
            "metric": "m",
            "target": "1",
            "scaleUpMinimum": 2,
            "scaleDownDelay": "5m",
            "stableWindow": "1m",
            "lastPodRetentionPeriod": "10m",
        },
        offloadingConfig={
            "remoteBackend": {
                "host": "models.example.com:8443",
                "scheme": "https",
                "pathPrefix": "/$workspace/$model",
                "workspace": "acme",
                "headersToAdd": {"X-A": ""},
                "headersToRemove": ["X-D"],
                "forwardHeaders": ["X-Auth-Request-User"],
                "forwarded": "append",
                "headers": [
                    {"name": "X-B", "value": "b"},
                    {"name": "X-C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": "s"}}},
                "location": {"name": "eu-west-3", "country": "fr"},
                "flavors": [{"type": "gpu", "name": "t4"}],
                "price": 1.5,
                "promptPrice": 0.25,
            },
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": TARGET | {"value": 2}}},
                {
                    "type": "ContainerResource",
                    "containerResource": {"name": "cpu", "container": "server", "target": TARGET},
                },
                {"type": "Pods", "pods": {"metric": METRIC, "target": TARGET}},
                {
                    "type": "Object",
                    "object": {
                        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
                        "metric": METRIC,
                        "target": TARGET,
                    },
                },
                {"type": "External", "external": {"metric": METRIC, "target": TARGET}},
            ],
            "metricSource": {"type": "pods", "port": "metrics", "path": "/metrics?format=text"},
            "behavior": {
                "percentage": 0,
                "mode": "proportional",
                "signal": "gauge",
                "triggerWindowSeconds": 0,
                "releaseWindowSeconds": 3600,
                "tolerance": 0,
                "stepPercentage": 1,
                "onMissingMetrics": "release",
                "notReadyForSeconds": 0,
                "returnSeconds": 1,
                "overflow": {"inFlight": 8, "firstTokenSeconds": 0.5},
                "override": {"percentage": 0, "until": TIME, "mode": "Force"},
            },
        },
        gateway={
            "serviceName": "ask",
            "localModel": "m",
            "timeouts": {
                "connectSeconds": 0.01,
                "firstByteSeconds": 86400,
                "firstTokenSeconds": 0.5,
                "idleSeconds": 1,
            },
            "keepAlive": {"afterSeconds": 0.5, "beforeHead": True},
            "retry": {"failover": False},
            "bodyLimitBytes": 0,
            "statefulPaths": "remote",
            "affinity": {"type": "conversation", "header": "X-Session"},
            "endpoints": "service",
            "drill": {"intervalSeconds": 0, "request": "completion"},
            "models": [{"name": "lora-a", "localModel": "adapter-a", "remoteModel": "acme/lora-a"}],
            "forwardHeaders": ["X-Auth-Request-User"],
            "forwarded": "none",
            "usage": "always",
            "cors": {
                "origins": ["https://chat.example.com"],
                "methods": ["POST"],
                "headers": ["X-Team"],
                "exposedHeaders": ["X-Team"],
                "credentials": True,
                "maxAgeSeconds": 0,
            },
            "access": {
                "secretRefs": [{"name": "demo-keys"}, {"name": "more-keys"}],
                "jwt": {"audiences": ["models"], "groups": ["team a", "/b"]},
            },
            "localOnly": {"header": "X-Data-Class", "values": ["restricted", "Top Secret"], "missing": "local"},
        },
    ),
    "full attempts": model_deployment(
        **ACCEPTED["attempts"]["spec"]
        | {
            "offloadingConfig": ACCEPTED["attempts"]["spec"]["offloadingConfig"]
            | ACCEPTED["TLS"]["spec"]["offloadingConfig"]
        },
    ),
    "full server": model_deployment(
        modelSourceRef=None,
        server=SERVER | {"replicas": 0},
        offloadingConfig=remote(
            authConfig={
                "type": "oauth",
                "oauthConfig": {
                    "clientId": "i",
                    "clientSecret": "s",
                    "tokenUrl": "https://idp.example.com/token",
                    "tokenAuth": "client_secret_post",
                    "audience": "models",
                    "resource": "https://models.example.com",
                },
            },
            location={"continent": "eu"},
        ),
    ),
    "full policy": policy(
        displayName="p",
        type="location",
        locations=[{"type": "country", "name": "fr"}],
        flavors=[{"type": "gpu", "name": "t4"}],
    ),
}
"""Examples that have every field of spec between them."""
GOOD: Final = ACCEPTED | FULL


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for which the API server refuses an object."""

    field: str
    message: str


class Refused(Exception):
    """The API server does not accept the object."""

    def __init__(self, causes: list[Cause]) -> None:
        super().__init__("; ".join(f"{cause.field}: {cause.message}" for cause in causes))
        self.causes = causes


class Api:
    """Custom resources of the project in a namespace of their own; unknown fields are an error instead of being
    pruned."""

    def __init__(self, plane: ControlPlane) -> None:
        loaded = config.new_client_from_config(str(plane.kubeconfig))
        self._objects = client.CustomObjectsApi(loaded)

    def create(self, manifest: Mapping[str, Any], name: str = "", *, dry_run: bool = False) -> dict[str, Any]:
        """The object as stored.

        Raises:
            Refused: with all causes.
        """
        body = copy.deepcopy(dict(manifest))
        body["metadata"] = {"name": name or "tried", "namespace": NAMESPACE}
        more = {"dry_run": "All"} if dry_run else {}
        return self._call("create_namespaced_custom_object", manifest, body=body, field_validation="Strict", **more)

    def get(self, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return the object that is stored under that name."""
        return self._call("get_namespaced_custom_object", manifest, name=name)

    def update(self, manifest: Mapping[str, Any], name: str, **changed: Any) -> dict[str, Any]:
        """Replace top-level fields, as `kubectl replace` would; `status` goes to its subresource.

        Raises:
            Refused: with all causes.
        """
        body = self.get(manifest, name) | changed
        status = "_status" if "status" in changed else ""
        return self._call(
            f"replace_namespaced_custom_object{status}", manifest, name=name, body=body, field_validation="Strict"
        )

    def _call(self, method: str, manifest: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
        kind = manifest["kind"]
        try:
            response: dict[str, Any] = getattr(self._objects, method)(
                group=GROUPS[kind], version="v1alpha1", namespace=NAMESPACE, plural=PLURALS[kind], **arguments
            )
        except ApiException as exc:
            status = json.loads(exc.body or "{}")
            causes = status.get("details", {}).get("causes") or [{"message": status["message"]}]
            raise Refused([Cause(one.get("field", ""), one["message"]) for one in causes]) from None
        return response

    def causes(self, manifest: Mapping[str, Any]) -> list[Cause]:
        """Return why the object would be refused; an empty list when it would not."""
        try:
            self.create(manifest, dry_run=True)
        except Refused as exc:
            return exc.causes
        return []


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with the project's CRDs and a namespace for these tests."""
    install_crds(plane)
    plane.kubectl("create", "namespace", NAMESPACE)
    yield plane
    plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def api(installed: ControlPlane) -> Api:
    """The API of the control plane for custom resources."""
    return Api(installed)


def rules() -> Iterator[tuple[str, str, str, bool]]:
    """Yield kind, path, message and whether it is a transition rule, of every CEL rule."""
    for kind, plural in PLURALS.items():
        for path, node in nodes(crd_schema(plural)):
            for rule in node.get("x-kubernetes-validations", ()):
                yield kind, path.removeprefix("."), rule["message"], "oldSelf" in rule["rule"]


def general(field: str) -> str:
    """Return a field of an object as a path of the schema."""
    return re.sub(r"\[\d+\]", "[]", field)


# ------------------------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize("manifest", ORIGINAL, ids=[one["metadata"]["name"] for one in ORIGINAL])
def test_manifests_of_the_original_apply(installed: ControlPlane, api: Api, manifest: dict[str, Any]) -> None:
    """`kubectl apply` accepts a manifest written for the original; no field of it is pruned, and defaults are added."""
    installed.apply(manifest | {"metadata": manifest["metadata"] | {"namespace": NAMESPACE}})
    stored = api.get(manifest, manifest["metadata"]["name"])
    assert stored["spec"] == defaulted(crd_schema(PLURALS[manifest["kind"]]), manifest)["spec"]


@pytest.mark.parametrize("name", GOOD)
def test_accepted(api: Api, name: str) -> None:
    """A good example is created and read back with all its fields and the defaults of the schema."""
    manifest = GOOD[name]
    stored = re.sub(r"[^a-z0-9]+", "-", name.lower())
    api.create(manifest, stored)
    expected = defaulted(crd_schema(PLURALS[manifest["kind"]]), manifest)["spec"]
    assert api.get(manifest, stored)["spec"] == expected


def test_the_good_ones_have_every_field() -> None:
    """The good examples leave no field of spec out."""
    for kind, plural in PLURALS.items():
        seen = {spot.path for one in GOOD.values() if one["kind"] == kind for spot in known(one)}
        assert {path for path, _ in nodes(crd_schema(plural)["properties"]["spec"])} == seen


def test_a_full_status_is_stored(api: Api) -> None:
    """Every field of status is stored through the status subresource, and a change of spec leaves it alone."""
    manifest = model_deployment()
    api.create(manifest, "with-status")
    api.update(manifest, "with-status", status=STATUS)
    assert api.get(manifest, "with-status")["status"] == STATUS
    api.update(manifest, "with-status", spec=model_deployment(enabled=False)["spec"])
    stored = api.get(manifest, "with-status")
    assert (stored["spec"]["enabled"], stored["status"]) == (False, STATUS)


# -------------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def refusal_causes(api: Api) -> dict[str, list[Cause]]:
    """The causes for which the API server refuses each of the bad examples."""
    return {name: api.causes(obj) for name, (obj, _) in REFUSED.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refusal_causes: dict[str, list[Cause]], name: str) -> None:
    """The API server refuses a bad example at the wrong field, or with exactly the sentence of the CEL rule."""
    obj, _ = REFUSED[name]
    (expected,) = refusals(obj)
    if expected in {message for _, _, message, _ in rules()}:
        assert expected in {sentence(cause) for cause in refusal_causes[name]}
    else:
        path, _, problem = expected.partition(": ")
        missing = re.match(r"'(\w+)' is a required property", problem)
        field = path.removeprefix("$.") + (f".{missing[1]}" if missing else "")
        assert field in {cause.field for cause in refusal_causes[name]}


def sentence(cause: Cause) -> str:
    """Return the message without the API server's own beginning."""
    return cause.message.removeprefix("Invalid value: ")


def test_every_rule_has_a_refused_example(refusal_causes: dict[str, list[Cause]]) -> None:
    """The bad examples break each CEL rule at each place where it stands, except transition rules."""
    broken = {
        (REFUSED[name][0]["kind"], general(cause.field), sentence(cause))
        for name, causes in refusal_causes.items()
        for cause in causes
    }
    assert [rule[:3] for rule in rules() if not rule[3] and rule[:3] not in broken] == []


TRANSITIONS: Final = {
    "replicas stay out": ({}, {}, True),
    "replicas change": ({"replicas": 1}, {"replicas": 0}, True),
    "replicas go": ({"replicas": 1}, {}, False),
    "replicas come": ({}, {"replicas": 0}, False),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_replicas_may_change_but_not_come_or_go(api: Api, name: str) -> None:
    """The owner of the number of replicas keeps it over an update, and the CRD's sentence about that stands at
    spec.server."""
    before, after, allowed = TRANSITIONS[name]
    old, new = (model_deployment(modelSourceRef=None, server=SERVER | replicas) for replicas in (before, after))
    stored = name.replace(" ", "-")
    api.create(old, stored)
    if allowed:
        assert api.update(old, stored, spec=new["spec"])["spec"]["server"].get("replicas") == after.get("replicas")
        return
    with pytest.raises(Refused) as caught:
        api.update(old, stored, spec=new["spec"])
    transitions = [(path, message) for kind, path, message, transition in rules() if transition]
    assert [(cause.field, sentence(cause)) for cause in caught.value.causes] == transitions


def test_a_workload_may_be_exchanged_for_a_server(api: Api) -> None:
    """modelSourceRef may be replaced by a server with replicas, and the other way round."""
    adopted = model_deployment()
    served = model_deployment(modelSourceRef=None, server=SERVER | {"replicas": 1})
    api.create(adopted, "exchanged")
    for one in (served, adopted):
        assert (
            api.update(adopted, "exchanged", spec=one["spec"])["spec"]
            == defaulted(crd_schema("modeldeployments"), one)["spec"]
        )


# For each constraint of the schema: a value that breaks it, and the API server's message.
Bad = Callable[[Any, Any], Any]
CONSTRAINTS: Final[Mapping[str, tuple[Bad, str]]] = {
    "enum": (lambda limit, value: "none-of-these", "Unsupported value"),
    "pattern": (lambda limit, value: " ", "should match"),
    "minLength": (lambda limit, value: "a" * (limit - 1), "should be at least"),
    "maxLength": (lambda limit, value: "a" * (limit + 1), "Too long"),
    "minimum": (lambda limit, value: limit - 1, "should be greater than or equal to"),
    "maximum": (lambda limit, value: limit + 1, "should be less than or equal to"),
    "minItems": (lambda limit, value: value[: limit - 1], "should have at least"),
    "maxItems": (lambda limit, value: [_renamed(value[0], number) for number in range(limit + 1)], "Too many"),
    "maxProperties": (lambda limit, value: {f"x{number}": "" for number in range(limit + 1)}, "Too many"),
    # A list is no bad value here: the API server accepts one for a string that has a format.
    "type": (lambda kind, value: kind != "boolean" or 1, "must be of type"),
}


def _renamed(item: Any, number: int) -> Any:
    """Return an item with a name of its own, where items of its list have names."""
    return item | {"name": f"x{number}"} if isinstance(item, dict) and "name" in item else item


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of an example: its path in the schema, and its place in the object."""

    path: str
    keys: tuple[str | int, ...]
    node: Mapping[str, Any]

    @property
    def field(self) -> str:
        """Return the field as the API server names it."""
        return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)


def _without(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: member for key, member in value.items() if key != name}


def spots(value: Any, schema: Mapping[str, Any], path: str = "", keys: tuple[str | int, ...] = ()) -> Iterator[Spot]:
    """Yield every part of an object that the schema knows, itself included."""
    yield Spot(path, keys, schema)
    if isinstance(value, dict):
        for name, member in value.items():
            if name in schema.get("properties", {}):
                yield from spots(member, schema["properties"][name], f"{path}.{name}", (*keys, name))
            elif "additionalProperties" in schema:
                yield from spots(member, schema["additionalProperties"], f"{path}{{}}", (*keys, name))
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from spots(item, schema["items"], f"{path}[]", (*keys, number))


def known(manifest: Mapping[str, Any]) -> Iterator[Spot]:
    """Yield every part of an example's spec."""
    return spots(manifest["spec"], crd_schema(PLURALS[manifest["kind"]])["properties"]["spec"])


def replaced(value: Any, keys: tuple[str | int, ...], change: Callable[[Any], Any]) -> Any:
    """Return a copy with one part changed."""
    if not keys:
        return change(value)
    result = copy.copy(value)
    result[keys[0]] = replaced(value[keys[0]], keys[1:], change)
    return result


def spoiled(manifest: Mapping[str, Any], spot: Spot) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield for each constraint on that part the field and message to expect, and the example with only that constraint
    broken."""

    def example(change: Callable[[Any], Any]) -> dict[str, Any]:
        return {**manifest, "spec": replaced(manifest["spec"], spot.keys, change)}

    for name, (bad, message) in CONSTRAINTS.items():
        limit = spot.node.get(name)
        if limit:  # no length and no count is below 0
            yield spot.field, message, example(functools.partial(bad, limit))
        elif name == "minimum" and limit == 0:
            yield spot.field, message, example(lambda value: -1)
    for name in spot.node.get("required", ()):
        yield f"{spot.field}.{name}", "Required value", example(functools.partial(_without, name))
    if spot.node.get("format") == "date-time":
        yield spot.field, "must be of type date-time", example(lambda value: "2030-13-31T18:00:00Z")


@pytest.mark.parametrize("kind", PLURALS)
def test_every_constraint_refuses(api: Api, kind: str) -> None:
    """For every enum, pattern, bound, type and required field of the schema, the API server refuses a good example that
    breaks only that one, at its field."""
    tried: set[str] = set()
    wrong: list[str] = []
    for manifest in (one for one in FULL.values() if one["kind"] == kind):
        for spot in known(manifest):
            if spot.path in tried:
                continue
            tried.add(spot.path)
            for field, message, example in spoiled(manifest, spot):
                causes = api.causes(example)
                if not any(cause.field == field and message in cause.message for cause in causes):
                    wrong.append(f"{field}, {message}: {causes}")
    assert wrong == []
    assert tried == {path for path, _ in nodes(crd_schema(PLURALS[kind])["properties"]["spec"])}


# ------------------------------------------------------------------------------------------------- kubectl


@pytest.mark.parametrize("kind", PLURALS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_explain_is_complete(installed: ControlPlane, kind: str, part: str) -> None:
    """`kubectl explain --recursive` shows exactly the fields of the schema, each at its depth."""
    group = f"--api-version={GROUPS[kind]}/v1alpha1"
    output = installed.kubectl("explain", f"{PLURALS[kind]}.{part}", "--recursive", group)
    schema = crd_schema(PLURALS[kind])["properties"][part]
    expected = {re.sub(r"\[\]|\{\}", "", path) for path, _ in nodes(schema)} - {""}
    assert set(explained(output)) == expected


def explained(output: str) -> Iterator[str]:
    """Yield the paths that `kubectl explain --recursive` shows by indentation."""
    parents: list[str] = []
    _, _, listing = output.partition("FIELDS:\n")
    for line in listing.splitlines():
        match = re.fullmatch(r"((?:  )+)(\S+)\t<.*>.*", line)
        if match:
            depth = len(match[1]) // 2 - 1
            parents = [*parents[:depth], match[2]]
            yield "".join(f".{name}" for name in parents)


def test_explain_has_a_sentence_for_everything(installed: ControlPlane) -> None:
    """The schema that `kubectl explain` reads describes every field, and the description is shown."""
    for kind, plural in PLURALS.items():
        raw = installed.kubectl("get", "--raw", f"/openapi/v3/apis/{GROUPS[kind]}/v1alpha1")
        (served,) = (
            schema
            for schema in json.loads(raw)["components"]["schemas"].values()
            if {"group": GROUPS[kind], "kind": kind, "version": "v1alpha1"}
            in schema.get("x-kubernetes-group-version-kind", ())
        )
        nameless = [
            path
            for part in ("spec", "status")
            for path, node in nodes(served["properties"][part], f".{part}")
            if not node.get("description") and not path.endswith(("[]", "{}"))
        ]
        assert nameless == []
        ours = dict(nodes(crd_schema(plural)))
        theirs = {
            path: node for part in ("spec", "status") for path, node in nodes(served["properties"][part], f".{part}")
        }
        assert {path: node["description"] for path, node in theirs.items() if "description" in node} == {
            path: node["description"]
            for path, node in ours.items()
            if "description" in node and path.startswith((".spec", ".status"))
        }
    shown = installed.kubectl("explain", "modeldeployment.spec.offloadingConfig.behavior.override")
    behavior = crd_schema("modeldeployments")["properties"]["spec"]["properties"]["offloadingConfig"]["properties"][
        "behavior"
    ]
    for field in behavior["properties"]["override"]["properties"].values():
        assert "".join(field["description"].split()) in "".join(shown.split())


def test_short_name_and_columns(installed: ControlPlane) -> None:
    """`kubectl get md` shows the columns that users look for first."""
    installed.apply(ORIGINAL[0] | {"metadata": {"name": "columns", "namespace": NAMESPACE}})
    header, row = installed.kubectl("get", "md", "columns", "-n", NAMESPACE).splitlines()
    assert header.split() == ["NAME", "MODEL", "READY", "OFFLOADED", "REASON", "OFFLOADREADY", "AGE"]
    assert row.split()[:2] == ["columns", ORIGINAL[0]["spec"]["model"]]
