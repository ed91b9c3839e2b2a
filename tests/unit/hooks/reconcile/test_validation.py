"""Specifications that pass the schema and cannot be in force, and the messages that say so."""

from typing import Any

import pytest

from hooks import reasons
from tests import builders
from tests.builders import NAMESPACE, TEMPLATE, condition, conditions, model_deployment, served, sync

ELSEWHERE = {"name": "x", "namespace": "team-b"}


def pod(**fields: Any) -> builders.Json:
    """Return a ModelDeployment whose server has one container with these fields."""
    container = {"name": "server", "image": "server:1"} | fields
    return served(server={"port": 8000, "template": {"spec": {"containers": [container]}}})


def template(**fields: Any) -> builders.Json:
    """Return a ModelDeployment whose server has this template."""
    return served(server={"port": 8000, "template": TEMPLATE | fields})


@pytest.mark.parametrize(
    ("parent", "reason", "part"),
    [
        (
            model_deployment(modelSourceRef={"kind": "Deployment"} | ELSEWHERE),
            reasons.CROSS_NAMESPACE_REFERENCE,
            "spec.modelSourceRef refers to namespace team-b",
        ),
        (model_deployment(serviceRef=ELSEWHERE), reasons.CROSS_NAMESPACE_REFERENCE, "spec.serviceRef"),
        (model_deployment(metricServiceRef=ELSEWHERE), reasons.CROSS_NAMESPACE_REFERENCE, "spec.metricServiceRef"),
        (model_deployment(policies=[{"name": "a"}, ELSEWHERE]), reasons.CROSS_NAMESPACE_REFERENCE, "spec.policies[1]"),
        (
            model_deployment(modelSourceRef={"apiVersion": "example.com/v1", "kind": "Deployment", "name": "demo"}),
            reasons.UNSUPPORTED_WORKLOAD,
            "must be apps/v1",
        ),
        (
            model_deployment(offloadingConfig=builders.backend(location={"country": "uk"})),
            reasons.INVALID_LOCATION,
            "remoteBackend.location.country is 'uk', and must be a code of ISO 3166-1",
        ),
        (
            model_deployment(offloadingConfig=builders.backend(location={"continent": "fr"})),
            reasons.INVALID_LOCATION,
            "remoteBackend.location.continent is 'fr', and must be one of AF (Africa)",
        ),
        (
            model_deployment(offloadingConfig=builders.backend(location={"continent": "eu", "country": "fr"})),
            reasons.INVALID_LOCATION,
            "remoteBackend.location.continent is 'eu', and must be left out where there is a country",
        ),
        (
            model_deployment(gateway={"queue": {"size": 1}}),
            reasons.INVALID_SPEC,
            "set spec.offloadingConfig.behavior.overflow.inFlight",
        ),
        (
            model_deployment(gateway={"queue": {"size": 1}}, offloadingConfig=None),
            reasons.INVALID_SPEC,
            "spec.gateway.queue is for requests beyond a limit",
        ),
        (
            model_deployment(gateway={"retry": {"failover": False, "causes": ["503"]}}),
            reasons.INVALID_SPEC,
            "set spec.gateway.retry.failover to true",
        ),
        (
            model_deployment(gateway={"statefulPaths": "remote"}, offloadingConfig=None),
            reasons.INVALID_SPEC,
            "spec.gateway.statefulPaths must not be remote for the default remote backend",
        ),
        (
            model_deployment(gateway={"statefulPaths": "remote"}, offloadingConfig={}),
            reasons.INVALID_SPEC,
            "set spec.offloadingConfig.remoteBackend to a backend of your own",
        ),
        (
            model_deployment(gateway={"models": [{"name": "lora"}, {"name": "demo"}]}),
            reasons.INVALID_NAME,
            "spec.gateway.models[1].name must not be demo, the model's own name",
        ),
        (
            model_deployment(gateway={"models": [{"name": f"{builders.NAMESPACE}/lora"}]}),
            reasons.INVALID_NAME,
            f"spec.gateway.models[0].name must not begin with {builders.NAMESPACE}/",
        ),
        (
            model_deployment(gateway={"models": [{"name": "lora"}, {"name": "lora"}]}),
            reasons.INVALID_NAME,
            "spec.gateway.models[1].name must be another name than lora",
        ),
        (
            model_deployment(gateway={"localOnly": {"header": "Transfer-Encoding", "values": ["chunked"]}}),
            reasons.INVALID_HEADER,
            "spec.gateway.localOnly.header names transfer-encoding, which says nothing about what is in a request",
        ),
        (
            model_deployment(gateway={"access": {"secretRefs": [{"name": "a"}, {"name": "Demo_Keys"}]}}),
            reasons.INVALID_NAME,
            "spec.gateway.access.secretRefs[1].name must be the name of a Secret",
        ),
        (
            model_deployment(gateway={"access": {}}),
            reasons.INVALID_SPEC,
            "spec.gateway.access needs secretRefs or jwt: say which API keys or tokens the model asks for.",
        ),
        (
            model_deployment(gateway={"access": {"jwt": {"groups": []}}}),
            reasons.INVALID_SPEC,
            "spec.gateway.access.jwt.groups",
        ),
        (
            model_deployment(gateway={"access": {"secretRefs": []}}),
            reasons.INVALID_SPEC,
            "spec.gateway.access.secretRefs",
        ),
        (
            model_deployment(gateway={"localOnly": {"header": "x-data-class", "values": []}}),
            reasons.INVALID_SPEC,
            "spec.gateway.localOnly.values",
        ),
        (
            model_deployment(gateway={"localOnly": {"header": "x-data-class", "values": ["a, b"]}}),
            reasons.INVALID_SPEC,
            "spec.gateway.localOnly.values[0]",
        ),
        (
            model_deployment(offloadingConfig=builders.backend(tls={"caBundle": "none"})),
            reasons.INVALID_TLS,
            "tls.caBundle must be certificates in PEM",
        ),
        (model_deployment(modelSourceRef={"kind": "Deployment"}), reasons.INVALID_SPEC, "spec.modelSourceRef.name"),
        (model_deployment(serviceRef={}), reasons.INVALID_SPEC, "spec.serviceRef.name is missing"),
        (model_deployment(serviceRef={"name": "Demo"}), reasons.INVALID_NAME, "spec.serviceRef.name"),
        (model_deployment(serviceRef={"name": "demo-local"}), reasons.INVALID_NAME, "demo-local"),
        (model_deployment(metricServiceRef={"name": "demo-local"}), reasons.INVALID_NAME, "spec.metricServiceRef"),
        (model_deployment(gateway={"serviceName": "demo-local"}), reasons.INVALID_NAME, "spec.gateway.serviceName"),
        (
            model_deployment(gateway={"serviceName": "svc"}, serviceRef={"name": "svc"}),
            reasons.INVALID_NAME,
            "the Service of serviceRef",
        ),
        (model_deployment(gateway={"serviceName": "a" * 64}), reasons.INVALID_SPEC, "spec.gateway.serviceName"),
        (
            model_deployment(model=None),
            reasons.INVALID_SPEC,
            "spec.model is required: the name of the model on the remote platform",
        ),
        (model_deployment(modelSourceRef=None), reasons.INVALID_SPEC, "exactly one of modelSourceRef and server"),
        (template(metadata="x"), reasons.INVALID_TEMPLATE, "metadata must be an object"),
        (template(metadata={"labels": []}), reasons.INVALID_TEMPLATE, "labels must be an object"),
        (template(metadata={"labels": {"v": 1}}), reasons.INVALID_TEMPLATE, "the value of v must be a string"),
        (template(metadata={"annotations": {"v": True}}), reasons.INVALID_TEMPLATE, "annotations: the value of v"),
        (template(spec=[]), reasons.INVALID_TEMPLATE, "spec must be an object"),
        (template(spec={}), reasons.INVALID_TEMPLATE, "at least one container"),
        (template(spec={"containers": [{"image": "x"}]}), reasons.INVALID_TEMPLATE, "every container needs a name"),
        (
            template(spec={"containers": [{"name": "a"}, {"name": "a"}]}),
            reasons.INVALID_TEMPLATE,
            "two containers named a",
        ),
        (pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), reasons.INVALID_TEMPLATE, "named A"),
        (
            pod(ports=[{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]),
            reasons.INVALID_TEMPLATE,
            "two ports numbered 53",
        ),
        (pod(args=["x" * 210_000]), reasons.TOO_LARGE, "Deployment demo would be larger than 200 KiB"),
        (
            model_deployment(
                offloadingConfig=builders.backend(headersToAdd={f"x-{index}": "v" * 4000 for index in range(60)})
            ),
            reasons.TOO_LARGE,
            "ConfigMap demo-route",
        ),
        (
            model_deployment(offloadingConfig=builders.backend(pathPrefix="/$model"), model="ü" * 200),
            reasons.INVALID_SPEC,
            "a route that cannot be served: in its document pathPrefix must be a path whose segments begin with /",
        ),
    ],
)
def test_not_accepted(parent: builders.Json, reason: str, part: str) -> None:
    """A mistake gives the condition Accepted a reason and a message that names the field, and creates no child."""
    response = sync(parent, related=[builders.workload()])
    assert conditions(response)["Accepted"] == ("False", reason)
    assert part in condition(response, "Accepted")["message"]
    assert condition(response, "Accepted")["message"].endswith(".")
    assert conditions(response)["Ready"] == ("False", reasons.NOT_ACCEPTED)
    assert response.children == ()


def test_a_reference_may_name_its_own_namespace() -> None:
    """A reference may name the namespace of the parent."""
    source = {"kind": "Deployment", "name": "demo", "namespace": NAMESPACE}
    response = sync(model_deployment(modelSourceRef=source), related=[builders.workload()])
    assert conditions(response)["Accepted"] == ("True", reasons.ACCEPTED)


@pytest.mark.parametrize(
    "parent",
    [
        template(metadata=None),
        template(metadata={"labels": {"a": "b", "c": None}, "annotations": None}),
        pod(env=[{"name": "A"}, {"name": "B"}], ports=[{"containerPort": 1}, {"containerPort": 2}]),
    ],
)
def test_templates_that_are_fine(parent: builders.Json) -> None:
    """Absent and null parts of a template are accepted."""
    assert conditions(sync(parent))["Accepted"] == ("True", reasons.ACCEPTED)
