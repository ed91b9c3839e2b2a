"""Tests of the CustomResourceDefinitions: they are valid and complete, and accept what the Python types accept."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cel
import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from hooks.api.common import MODEL_DEPLOYMENT_API_VERSION, POLICY_API_VERSION
from hooks.api.metrics import MetricType
from hooks.api.model_deployment import ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus
from hooks.api.policy import Policy, PolicySpec, PolicyStatus
from tests.structural import crd_schema, defaulted, nodes, problems, pruned
from tools.repository import ROOT

HERE: Final = ROOT / "tests" / "contract"
CRDS: Final = {
    path.name: yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) for path in (ROOT / "crds").glob("*.yaml")
}
META_SCHEMA: Final = json.loads((HERE / "apiextensions_v1.schema.json").read_text(encoding="utf-8"))
ORIGINAL: Final = list(yaml.safe_load_all((HERE / "original.yaml").read_text(encoding="utf-8")))
PLURALS: Final = {"ModelDeployment": "modeldeployments", "Policy": "policies"}
TYPES: Final[Mapping[str, type[ModelDeployment | Policy]]] = {
    "ModelDeployment": ModelDeployment,
    "Policy": Policy,
}
TIME: Final = "2030-01-31T18:00:00Z"

each_crd = pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS.keys())
each_plural = pytest.mark.parametrize("plural", PLURALS.values())
each_original = pytest.mark.parametrize("manifest", ORIGINAL, ids=[obj["metadata"]["name"] for obj in ORIGINAL])


def model_deployment(**spec: Any) -> dict[str, Any]:
    """Return the smallest ModelDeployment with these fields of spec in place of its own. None removes a field."""
    base = {"model": "m", "modelSourceRef": {"kind": "Deployment", "name": "m"}} | spec
    return {
        "apiVersion": MODEL_DEPLOYMENT_API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {name: value for name, value in base.items() if value is not None},
    }


def policy(**spec: Any) -> dict[str, Any]:
    """Return a Policy with this spec."""
    return {
        "apiVersion": POLICY_API_VERSION,
        "kind": "Policy",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": spec,
    }


def refusals(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Return why the API server refuses to create an object, or to put it in the place of an old one."""
    schema = crd_schema(PLURALS[obj["kind"]])
    before = None if old is None else defaulted(schema, pruned(schema, old))
    return problems(schema, defaulted(schema, pruned(schema, obj)), before)


def remote(**fields: Any) -> dict[str, Any]:
    """Return an offloadingConfig with these fields of the remote backend."""
    return {"remoteBackend": {"host": "h"} | fields}


def oauth(**fields: Any) -> dict[str, Any]:
    """Return an offloadingConfig with these OAuth 2.0 settings."""
    return remote(authConfig={"type": "oauth", "oauthConfig": fields})


def metric(**fields: Any) -> dict[str, Any]:
    """Return an offloadingConfig with one metric of these fields."""
    return {"metrics": [fields]}


def override(**fields: Any) -> dict[str, Any]:
    """Return an offloadingConfig with an override of these fields."""
    return {"behavior": {"override": fields}}


SERVER: Final = {"port": 8000, "template": {"spec": {"containers": [{"name": "server", "image": "server:1"}]}}}
INLINE: Final = {"clientId": "i", "clientSecret": "s", "tokenUrl": "https://t"}


# ---------------------------------------------------------------------------------------------- the definitions


@each_crd
def test_is_a_definition_as_apiextensions_v1_asks_for(crd: dict[str, Any]) -> None:
    """A CRD passes a strict schema of apiextensions.k8s.io/v1, which includes the rules of structural schemas."""
    validator = jsonschema.Draft202012Validator(
        META_SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(crd)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "nullable"), "yes"),
        (("spec", "versions", 0, "schema", "openAPIV3Schema", "$ref"), "#/x"),
        (("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "more"), {"description": "no type"}),
        (("spec", "versions", 0, "subresources", "scale"), {}),
        (("spec", "scope"), "namespaced"),
    ],
)
def test_the_schema_of_apiextensions_refuses_what_the_api_server_refuses(
    path: tuple[str | int, ...], value: Any
) -> None:
    """The schema of apiextensions.k8s.io/v1 that the tests use refuses a damaged definition."""
    crd: Any = copy.deepcopy(next(iter(CRDS.values())))
    *parents, last = path
    node = crd
    for key in parents:
        node = node[key]
    node[last] = value
    assert not jsonschema.Draft202012Validator(META_SCHEMA).is_valid(crd)


@each_crd
def test_names_agree(crd: dict[str, Any]) -> None:
    """The name of a CRD is `plural.group`, and its only version is v1alpha1, which is served and stored."""
    spec = crd["spec"]
    assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert [(v["name"], v["served"], v["storage"]) for v in spec["versions"]] == [("v1alpha1", True, True)]


@each_crd
def test_fits_into_a_client_side_apply(crd: dict[str, Any]) -> None:
    """A CRD is small enough for `kubectl apply`, which keeps it in an annotation (256 KiB for all annotations)."""
    assert len(json.dumps(crd)) < 128 * 1024


def test_printer_columns() -> None:
    """`kubectl get md` shows model, readiness, percentage, reason, whether the remote backend is proven, and age."""
    (version,) = CRDS["deployment.beamlit.com_modeldeployments.yaml"]["spec"]["versions"]
    columns = {column["name"]: column["jsonPath"] for column in version["additionalPrinterColumns"]}
    assert columns == {
        "Model": ".spec.model",
        "Ready": '.status.conditions[?(@.type=="Ready")].status',
        "Offloaded": ".status.offloading.percentage",
        "Reason": ".status.offloading.reason",
        "OffloadReady": '.status.conditions[?(@.type=="OffloadReady")].status',
        "Age": ".metadata.creationTimestamp",
    }


@each_plural
def test_metacontroller_finds_what_it_needs(plural: str) -> None:
    """A kind has what Metacontroller needs of a parent: the status subresource and an integer observedGeneration."""
    (crd,) = (crd for crd in CRDS.values() if crd["spec"]["names"]["plural"] == plural)
    assert crd["spec"]["versions"][0]["subresources"] == {"status": {}}
    assert crd_schema(plural)["properties"]["status"]["properties"]["observedGeneration"]["type"] == "integer"


@each_plural
def test_every_field_is_described(plural: str) -> None:
    """Every field has a description, which `kubectl explain` prints."""
    schema = crd_schema(plural)
    nameless = [
        path
        for path, node in nodes(schema)
        if "description" not in node and not path.endswith(("[]", "{}")) and path != ".metadata"
    ]
    assert nameless == []


@each_plural
def test_everything_is_bounded(plural: str) -> None:
    """Every string, list and map has a maximum size, so that the API server can bound the cost of the CEL rules."""
    unbounded = [
        path
        for path, node in nodes(crd_schema(plural)["properties"]["spec"])
        if (node.get("type") == "string" and not {"maxLength", "enum"} & node.keys())
        or (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


@each_plural
def test_defaults_are_valid_and_complete(plural: str) -> None:
    """A default is valid by its own schema, and no part of it would be pruned."""
    for path, node in nodes(crd_schema(plural)):
        if "default" in node:
            assert problems(node, defaulted(node, node["default"])) == [], path
            assert pruned(node, node["default"]) == node["default"], path


@each_plural
def test_keys_of_map_lists_are_required(plural: str) -> None:
    """The keys of a list of type map are required in its items."""
    for path, node in nodes(crd_schema(plural)):
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], path


@each_plural
def test_patterns_are_in_the_syntax_of_re2(plural: str) -> None:
    """A pattern uses nothing that RE2, the engine of the API server, lacks: look-around and back references."""
    for path, node in nodes(crd_schema(plural)):
        assert not re.search(r"\(\?[=!<]|\\[1-9]", node.get("pattern", "")), path


@each_plural
def test_defaults_stay_out_of_status(plural: str) -> None:
    """No field of status has a default, because the API server would add it to the controller's status."""
    assert [path for path, node in nodes(crd_schema(plural)["properties"]["status"]) if "default" in node] == []


@each_plural
def test_rules_compile(plural: str) -> None:
    """Every CEL rule compiles, and refers only to self and oldSelf."""
    for path, node in nodes(crd_schema(plural)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert set(cel.compile(rule["rule"]).variables()) <= {"self", "oldSelf"}, path


@each_plural
def test_transition_rules_stand_where_old_and_new_can_be_matched(plural: str) -> None:
    """No rule with oldSelf is below a list, where the API server refuses it."""
    for path, node in nodes(crd_schema(plural)):
        if any("oldSelf" in rule["rule"] for rule in node.get("x-kubernetes-validations", ())):
            assert "[]" not in path


# ------------------------------------------------------------------------------------------- what is accepted


@each_original
def test_a_manifest_of_the_original_applies_unchanged(manifest: dict[str, Any]) -> None:
    """A manifest that was written for the original is valid, and nothing of it is pruned."""
    schema = crd_schema(PLURALS[manifest["kind"]])
    assert pruned(schema, manifest)["spec"] == manifest["spec"]
    assert refusals(manifest) == []


@each_original
def test_a_manifest_of_the_original_is_read(manifest: dict[str, Any]) -> None:
    """A manifest of the original is read by the types, with the same result after the API server set the defaults."""
    stored = defaulted(crd_schema(PLURALS[manifest["kind"]]), manifest)
    read = TYPES[manifest["kind"]].read
    assert read(manifest) == read(stored)


def test_the_defaults_are_those_of_the_original() -> None:
    """The API server sets the defaults of the original, and those of the fields that were added."""
    schema = crd_schema("modeldeployments")
    obj = model_deployment(offloadingConfig=remote(), serverlessConfig={}, policies=[{"name": "p"}])
    spec = defaulted(schema, obj)["spec"]
    assert spec == obj["spec"] | {
        "enabled": True,
        "environment": "production",
        "policies": [{"name": "p", "refType": "remotePolicy"}],
        "serverlessConfig": {"minNumReplicas": 0, "maxNumReplicas": 10},
        "offloadingConfig": {
            "remoteBackend": {"host": "h", "scheme": "http"},
            "metrics": [],
            "behavior": {
                "percentage": 100,
                "mode": "fixed",
                "signal": "load",
                "triggerWindowSeconds": 15,
                "releaseWindowSeconds": 300,
                "tolerance": 0.1,
                "stepPercentage": 25,
                "onMissingMetrics": "hold",
                "notReadyForSeconds": 0,
                "returnSeconds": 0,
            },
        },
    }


def test_defaults_of_the_types_are_those_of_the_schema() -> None:
    """An object is read with the same result before and after the API server set the defaults."""
    schema = crd_schema("modeldeployments")
    obj = model_deployment(
        offloadingConfig=remote() | override(percentage=1, until=TIME), serverlessConfig={}, policies=[{}], gateway={}
    )
    assert ModelDeployment.read(obj) == ModelDeployment.read(defaulted(schema, obj))


def test_zero_and_false_survive() -> None:
    """Neither the schema nor the types replace percentage 0 and enabled false by the default."""
    obj = model_deployment(enabled=False, offloadingConfig={"behavior": {"percentage": 0}})
    stored = defaulted(crd_schema("modeldeployments"), obj)
    spec = ModelDeployment.read(stored).spec
    assert (stored["spec"]["enabled"], stored["spec"]["offloadingConfig"]["behavior"]["percentage"]) == (False, 0)
    assert spec.offloading_config is not None
    assert (spec.enabled, spec.offloading_config.behavior.percentage) == (False, 0)


ACCEPTED: Final = {
    "server": model_deployment(modelSourceRef=None, server=SERVER | {"replicas": 0}),
    "server, scaled by an HPA": model_deployment(modelSourceRef=None, server=SERVER),
    "gateway": model_deployment(
        gateway={
            "serviceName": "front",
            "localModel": "llama",
            "timeouts": {"connectSeconds": 0.5, "firstByteSeconds": 600, "firstTokenSeconds": 9, "idleSeconds": 1.5},
            "keepAlive": {"afterSeconds": 0, "beforeHead": False},
            "retry": {"failover": False},
            "bodyLimitBytes": 0,
        },
        serviceRef={"name": "other"},
    ),
    "all websites": model_deployment(gateway={"cors": {"origins": ["*"]}}),
    "named websites": model_deployment(
        gateway={
            "cors": {
                "origins": ["https://chat.example.com", "http://[::1]:3000", "app://obsidian.md"],
                "methods": ["GET"],
                "headers": [],
                "exposedHeaders": ["*"],
                "credentials": True,
                "maxAgeSeconds": 86400,
            },
        },
    ),
    "any token": model_deployment(gateway={"access": {"jwt": {}}}),
    "attempts": model_deployment(
        gateway={
            "retry": {"failover": True, "causes": ["connectFailure", "firstByteTimeout", "500"], "bodyBytes": 0},
            "breaker": {
                "consecutiveFailures": 1,
                "errorPercentage": 100,
                "minimumRequests": 1,
                "windowSeconds": 0.5,
                "openSeconds": 60,
            },
            "queue": {"size": 1, "waitSeconds": 0.5},
            "healthCheck": {
                "path": "/health?deep=1",
                "intervalSeconds": 1,
                "timeoutSeconds": 0.5,
                "unhealthyThreshold": 1,
                "healthyThreshold": 100,
            },
        },
        offloadingConfig={"behavior": {"overflow": {"inFlight": 1}}},
    ),
    "TLS": model_deployment(
        offloadingConfig=remote(
            scheme="https",
            tls={"serverName": "s.example.com", "caBundle": "PEM", "clientCertificateRef": {"name": "s"}},
            healthCheck={
                "path": "/",
                "intervalSeconds": 3600,
                "timeoutSeconds": 0.01,
                "unhealthyThreshold": 100,
                "healthyThreshold": 1,
            },
        )
    ),
    "override": model_deployment(offloadingConfig=override(percentage=0, until=TIME, mode="Force")),
    "override with an offset": model_deployment(
        offloadingConfig=override(percentage=1, until="2030-01-31T18:00:00.5+02:00")
    ),
    "secret by reference": model_deployment(offloadingConfig=oauth(clientSecretRef={"name": "s"})),
    "secret inline": model_deployment(offloadingConfig=oauth(**INLINE)),
    "secret inline, with all that goes with it": model_deployment(
        offloadingConfig=oauth(
            **INLINE, tokenAuth="client_secret_basic_raw", audience="https://a", resource="https://b urn:c"
        )
    ),
    "headers": model_deployment(
        offloadingConfig=remote(
            workspace="w",
            headers=[
                {"name": "X-A", "value": ""},
                {"name": "X_B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
        )
    ),
    "integer quantity": model_deployment(
        offloadingConfig=metric(
            type="Resource", resource={"name": "cpu", "target": {"type": "AverageValue", "averageValue": 2}}
        )
    ),
    "where the remote is": model_deployment(
        offloadingConfig=remote(
            location={"name": "eu-west-3", "country": "FRA"}, flavors=[{"type": "gpu", "name": "t4"}]
        )
    ),
    "which continent the remote is on": model_deployment(offloadingConfig=remote(location={"continent": "Europe"})),
    "policy by place": policy(type="location", locations=[{"type": "country", "name": "fr"}]),
    "policy for all hardware": policy(type="flavor"),
}


@pytest.mark.parametrize("obj", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(obj: dict[str, Any]) -> None:
    """An example of a valid manifest is accepted by schema, CEL rules and types, and nothing of it is pruned."""
    assert refusals(obj) == []
    assert pruned(crd_schema(PLURALS[obj["kind"]]), obj)["spec"] == obj["spec"]
    TYPES[obj["kind"]].read(obj)


@pytest.mark.parametrize("obj", [pytest.param(obj, id=name) for name, obj in ACCEPTED.items()])
def test_an_unchanged_object_is_a_legal_update(obj: dict[str, Any]) -> None:
    """A valid manifest can be applied again unchanged."""
    assert refusals(obj, obj) == []


# -------------------------------------------------------------------------------------------- what is refused

WORKLOADS: Final = "set exactly one of modelSourceRef"
REFUSED: Final = {
    "no workload": (model_deployment(modelSourceRef=None), WORKLOADS),
    "two workloads": (model_deployment(server=SERVER), WORKLOADS),
    "workload without a name": (model_deployment(modelSourceRef={"kind": "Deployment"}), "modelSourceRef.name"),
    "workload of another kind": (model_deployment(modelSourceRef={"kind": "Job", "name": "m"}), "modelSourceRef.kind"),
    "workload without a kind": (model_deployment(modelSourceRef={"name": "m"}), "modelSourceRef.kind"),
    "Service without a name": (model_deployment(serviceRef={"targetPort": 80}), "name the Service"),
    "metrics Service without a name": (model_deployment(metricServiceRef={"targetPort": 80}), "name the Service"),
    "policy without a name": (model_deployment(policies=[{"refType": "localPolicy"}]), "name the policy"),
    "gateway in place of the Service": (
        model_deployment(gateway={"serviceName": "s"}, serviceRef={"name": "s"}),
        "gateway.serviceName must not be",
    ),
    "two secrets": (
        model_deployment(offloadingConfig=oauth(clientSecretRef={"name": "s"}, clientSecret="s")),
        "leave out clientId",
    ),
    "an audience beside a reference": (
        model_deployment(offloadingConfig=oauth(clientSecretRef={"name": "s"}, audience="a")),
        "leave out tokenAuth, audience and resource",
    ),
    "a queue without a limit": (
        model_deployment(gateway={"queue": {"size": 1}}, offloadingConfig=remote()),
        "set offloadingConfig.behavior.overflow.inFlight",
    ),
    "a queue without offloading": (model_deployment(gateway={"queue": {"size": 1}}), "behavior.overflow.inFlight"),
    "a queue without places": (
        model_deployment(gateway={"queue": {"size": 0}}, offloadingConfig={"behavior": {"overflow": {"inFlight": 1}}}),
        "gateway.queue.size",
    ),
    "causes without failover": (
        model_deployment(gateway={"retry": {"failover": False, "causes": ["503"]}}),
        "set failover to true",
    ),
    "a cause that is none": (model_deployment(gateway={"retry": {"causes": ["399"]}}), "retry.causes[0]"),
    "no cause": (model_deployment(gateway={"retry": {"causes": []}}), "retry.causes"),
    "TLS without TLS": (model_deployment(offloadingConfig=remote(tls={"serverName": "s"})), "tls is for scheme https"),
    "a health check of nothing": (
        model_deployment(gateway={"healthCheck": {"path": "health"}}),
        "healthCheck.path",
    ),
    "credentials of all websites": (
        model_deployment(gateway={"cors": {"origins": ["https://a.example", "*"], "credentials": True}}),
        "name the origins",
    ),
    "an origin with a path": (
        model_deployment(gateway={"cors": {"origins": ["https://chat.example.com/"]}}),
        "cors.origins[0]",
    ),
    "an access that asks for nothing": (model_deployment(gateway={"access": {}}), "access needs secretRefs or jwt"),
    "no origin": (model_deployment(gateway={"cors": {"origins": []}}), "cors.origins"),
    "no room at all": (model_deployment(offloadingConfig={"behavior": {"overflow": {"inFlight": 0}}}), "inFlight"),
    "no secret": (
        model_deployment(offloadingConfig=oauth(clientId="i", tokenUrl="https://t")),
        "set clientSecretRef, or all of",
    ),
    "header with two values": (
        model_deployment(
            offloadingConfig=remote(
                headers=[{"name": "a", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
            )
        ),
        "either value or valueFrom",
    ),
    "header without a value": (model_deployment(offloadingConfig=remote(headers=[{"name": "a"}])), "either value or"),
    "override without an end": (model_deployment(offloadingConfig=override(percentage=1)), "'until' is a required"),
    "override that ends some day": (
        model_deployment(offloadingConfig=override(percentage=1, until="2030-01-31")),
        "override.until",
    ),
    "override that ends at a local time": (
        model_deployment(offloadingConfig=override(percentage=1, until="2030-01-31T18:00:00")),
        "override.until",
    ),
    "over 100 percent": (model_deployment(offloadingConfig={"behavior": {"percentage": 101}}), "behavior.percentage"),
    "below 0 percent": (model_deployment(offloadingConfig={"behavior": {"percentage": -1}}), "behavior.percentage"),
    "a host that is a URL": (model_deployment(offloadingConfig=remote(host="https://h")), "remoteBackend.host"),
    "a scheme that is none": (model_deployment(offloadingConfig=remote(scheme="ftp")), "remoteBackend.scheme"),
    "another kind of authentication": (
        model_deployment(offloadingConfig=remote(authConfig={"type": "basic"})),
        "authConfig.type",
    ),
    "a country that is no code": (
        model_deployment(offloadingConfig=remote(location={"country": "f1"})),
        "location.country",
    ),
    "a country and a continent": (
        model_deployment(offloadingConfig=remote(location={"country": "fr", "continent": "eu"})),
        "with country leave continent out",
    ),
    "a flavor without a name": (
        model_deployment(offloadingConfig=remote(flavors=[{"type": "gpu"}])),
        "'name' is a required",
    ),
    "a header of conversations that are not kept together": (
        model_deployment(gateway={"affinity": {"type": "none", "header": "x-session"}}),
        "set type to conversation or prefix",
    ),
    "a port that is none": (model_deployment(serviceRef={"name": "s", "targetPort": 65536}), "serviceRef.targetPort"),
    "scaleUpMinimum 1": (model_deployment(serverlessConfig={"scaleUpMinimum": 1}), "serverlessConfig.scaleUpMinimum"),
    "no model": (model_deployment(model=None), "'model' is a required"),
    "location policy without places": (policy(type="location"), "at least one entry in locations"),
    "location policy with no places": (policy(type="location", locations=[]), "at least one entry in locations"),
    "policy about nothing": (policy(type="mood"), "$.spec.type"),
    **{
        f"metric of type {kind} without {kind}": (
            model_deployment(offloadingConfig=metric(type=kind)),
            "describe the metric in the field named by type",
        )
        for kind in MetricType
    },
}


@pytest.mark.parametrize(("obj", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(obj: dict[str, Any], problem: str) -> None:
    """An example of an invalid manifest is refused by the API server for one reason, which says what to change."""
    (only,) = refusals(obj)
    assert problem in only


def test_every_rule_is_seen_to_refuse() -> None:
    """The invalid examples break every CEL rule but the transition rules, which have tests of their own."""
    refused = {only for obj, _ in REFUSED.values() for only in refusals(obj)}
    rules = [
        rule
        for plural in PLURALS.values()
        for _, node in nodes(crd_schema(plural))
        for rule in node.get("x-kubernetes-validations", ())
    ]
    assert [rule["message"] for rule in rules if "oldSelf" not in rule["rule"] and rule["message"] not in refused] == []


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ({}, {}, True),
        ({"replicas": 1}, {"replicas": 0}, True),
        ({"replicas": 1}, {}, False),
        ({}, {"replicas": 0}, False),
    ],
)
def test_replicas_may_change_but_not_come_or_go(before: dict[str, int], after: dict[str, int], allowed: bool) -> None:
    """spec.server.replicas can be changed, but neither added nor removed."""
    old, new = (model_deployment(modelSourceRef=None, server=SERVER | replicas) for replicas in (before, after))
    reasons = refusals(new, old)
    assert (reasons == []) is allowed
    assert all("server.replicas cannot be added or removed later" in problem for problem in reasons)


def test_a_workload_may_be_exchanged_for_a_server() -> None:
    """modelSourceRef can be replaced by a server with replicas."""
    assert refusals(model_deployment(modelSourceRef=None, server=SERVER | {"replicas": 1}), model_deployment()) == []


# ----------------------------------------------------------------------------------------- types and schema


def field_paths(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the path of every field of a model and of the models below it, as it is written in JSON."""
    for name, field in model.model_fields.items():
        where = f"{path}.{field.alias or name}"
        yield where
        for part in _models_in(field.annotation):
            yield from field_paths(part, where)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


@pytest.mark.parametrize(
    ("model", "plural", "part"),
    [
        (ModelDeploymentSpec, "modeldeployments", "spec"),
        (ModelDeploymentStatus, "modeldeployments", "status"),
        (PolicySpec, "policies", "spec"),
        (PolicyStatus, "policies", "status"),
    ],
)
def test_the_schema_has_the_fields_of_the_types_and_no_others(model: type[BaseModel], plural: str, part: str) -> None:
    """The schema has every field of the types, and no other."""
    schema = crd_schema(plural)["properties"][part]
    in_schema = {path.replace("[]", "") for path, _ in nodes(schema) if path and not path.endswith(("[]", "{}"))}
    assert in_schema == set(field_paths(model))


STATUS: Final = {
    "observedGeneration": 3,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Served",
            "message": "Requests are served.",
            "lastTransitionTime": TIME,
            "observedGeneration": 3,
        }
    ],
    "offloadingStatus": False,
    "offloading": {
        "percentage": 0,
        "reason": "Local",
        "message": "Everything stays here.",
        "since": TIME,
        "reachedSince": TIME,
        "belowSince": TIME,
        "step": 0,
        "heldShare": 25,
        "claim": "Blind",
        "attempts": {"supported": 1, "blind": 3},
        "metrics": [{"name": "cpu", "type": "Resource", "state": "Below"}],
        "drill": {
            "percentage": 20,
            "since": TIME,
            "until": TIME,
            "outcome": "Passed",
            "message": "The remote backend has served.",
        },
    },
    "servingPort": 8000,
    "metricPort": 9090,
    "workspace": "w",
    "createdAtOnBeamlit": TIME,
    "updatedAtOnBeamlit": TIME,
    "platform": {
        "name": "m",
        "environment": "production",
        "hash": "0a",
        "tried": "0b",
        "attempts": 2,
        "since": TIME,
    },
}


def test_a_full_status_is_stored_as_it_is() -> None:
    """A status with every field passes schema and types unchanged."""
    schema = crd_schema("modeldeployments")["properties"]["status"]
    written = ModelDeploymentStatus.model_validate(STATUS).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written == STATUS
    assert pruned(schema, STATUS) == STATUS
    assert problems(schema, STATUS) == []


def test_the_full_status_has_every_field() -> None:
    """The example of a status has every field."""

    def paths(value: Any, path: str = "") -> Iterator[str]:
        for name, member in value.items() if isinstance(value, dict) else ():
            yield f"{path}.{name}"
            yield from paths(member[0] if isinstance(member, list) else member, f"{path}.{name}")

    assert set(paths(STATUS)) == set(field_paths(ModelDeploymentStatus))


def test_checked_in_files_are_the_definitions_alone() -> None:
    """The folder crds/ holds one file for each kind, which `kubectl apply -f crds/` installs."""
    assert {Path(name).stem.rpartition("_")[2] for name in CRDS} == set(PLURALS.values())
