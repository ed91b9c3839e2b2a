"""The local backend: which pods serve the model, on which port."""

from typing import Any

import pytest

from hooks import reasons
from tests import builders
from tests.builders import conditions, model_deployment, served, service, sync, workload

Json = builders.Json


def local(*related: Json, **spec: Any) -> tuple[Any, Any]:
    """Return selector and ports of the desired local Service."""
    spec_of = builders.child(sync(model_deployment(**spec), related=related), "Service")["spec"]
    return spec_of["selector"], spec_of["ports"]


def unresolved(*related: Json, **spec: Any) -> str:
    """Return the reason why references are not resolved, and check that there is no local Service."""
    response = sync(model_deployment(**spec), related=related)
    assert [child["kind"] for child in response.children] == ["ConfigMap"]
    assert conditions(response)["RefsResolved"][0] == "False"
    return conditions(response)["RefsResolved"][1]


def test_without_a_service_the_workloads_labels_and_port() -> None:
    """Without serviceRef the local Service selects by the workload's matchLabels and leads to its container port."""
    assert local(workload()) == ({"app": "demo"}, [{"name": "http", "port": 80, "targetPort": 8000}])


def selecting(labels: Json, *expressions: tuple[str, str, list[str]]) -> Json:
    """Return a workload with matchLabels and matchExpressions."""
    item = workload(match_labels=labels)
    item["spec"]["selector"]["matchExpressions"] = [
        {"key": key, "operator": operator, "values": values} for key, operator, values in expressions
    ]
    return item


def test_an_expression_with_one_value_is_a_label() -> None:
    """A matchExpression with a single value becomes a label of the local Service's selector."""
    item = selecting({"app": "demo"}, ("tier", "In", ["web", "web"]), ("app", "In", ["demo"]))
    assert local(item)[0] == {"app": "demo", "tier": "web"}


@pytest.mark.parametrize(
    "expression",
    [
        ("tier", "In", ["web", "api"]),
        ("tier", "NotIn", ["canary"]),
        ("tier", "Exists", []),
        ("tier", "DoesNotExist", []),
        ("app", "In", ["other"]),
    ],
)
def test_a_selector_that_a_service_cannot_express(expression: tuple[str, str, list[str]]) -> None:
    """A selector that a Service cannot express is not resolved, unless spec.serviceRef names a Service."""
    item = selecting({"app": "demo"}, expression)
    assert unresolved(item) == reasons.WORKLOAD_SELECTOR_UNSUPPORTED
    message = next(
        one["message"]
        for one in sync(model_deployment(), related=[item]).status["conditions"]
        if one["type"] == "RefsResolved"
    )
    assert "name it in spec.serviceRef" in message
    assert local(item, service(selector={"app": "demo"}), serviceRef={"name": "demo-svc"})[0] == {"app": "demo"}


def test_several_container_ports() -> None:
    """Of several container ports the one named http serves requests."""
    ports = [{"containerPort": 9090, "name": "metrics"}, {"containerPort": 8000, "name": "http"}]
    assert local(workload(ports=ports))[1][0]["targetPort"] == 8000


@pytest.mark.parametrize(
    ("related", "spec", "reason"),
    [
        ([], {}, reasons.WORKLOAD_MISSING),
        ([workload("StatefulSet")], {}, reasons.WORKLOAD_MISSING),
        ([workload(match_labels={})], {}, reasons.WORKLOAD_SELECTOR_UNSUPPORTED),
        ([workload(ports=[])], {}, reasons.PORT_UNKNOWN),
        ([workload(ports=[{"containerPort": 1}, {"containerPort": 2}])], {}, reasons.PORT_UNKNOWN),
        ([workload()], {"serviceRef": {"name": "demo-svc"}}, reasons.SERVICE_MISSING),
        ([workload(), service(selector={})], {"serviceRef": {"name": "demo-svc"}}, reasons.SERVICE_WITHOUT_SELECTOR),
        ([workload(), service()], {"serviceRef": {"name": "demo-svc", "targetPort": 81}}, reasons.PORT_UNKNOWN),
        ([workload(), service(ports=[])], {"serviceRef": {"name": "demo-svc", "targetPort": 81}}, reasons.PORT_UNKNOWN),
        ([workload(), service(ports=[])], {"serviceRef": {"name": "demo-svc"}}, reasons.PORT_UNKNOWN),
        (
            [workload(), service(ports=[{"port": 80}, {"port": 81}])],
            {"serviceRef": {"name": "demo-svc"}},
            reasons.PORT_UNKNOWN,
        ),
    ],
)
def test_what_cannot_be_resolved(related: list[Json], spec: Json, reason: str) -> None:
    """Without pods or a port there is no local Service, and the condition says what is missing."""
    assert unresolved(*related, **spec) == reason


@pytest.mark.parametrize("selector", [None, {}])
@pytest.mark.parametrize("name", ["localhost", "demo.other.svc.cluster.local", "169.254.169.254"])
def test_a_service_that_leads_elsewhere_is_no_local_backend(name: str, selector: Json | None) -> None:
    """A Service of type ExternalName, with a selector or without, is no local backend, and the condition says what to
    do instead."""
    external = service(selector=selector)
    external["spec"] |= {"type": "ExternalName", "externalName": name}
    reference: Json = {"serviceRef": {"name": "demo-svc"}}
    assert unresolved(workload(), external, **reference) == reasons.EXTERNAL_SERVICE
    conditions_of = sync(model_deployment(**reference), related=[workload(), external]).status["conditions"]
    message = next(one["message"] for one in conditions_of if one["type"] == "RefsResolved")
    assert message.startswith("Service demo-svc is of type ExternalName")
    assert "spec.serviceRef" in message


@pytest.mark.parametrize(
    ("port", "target"),
    [
        ({"port": 8080, "targetPort": 8000}, 8000),
        ({"port": 8080, "targetPort": "http"}, "http"),
        ({"port": 8080}, 8080),
    ],
)
def test_with_a_service_its_selector_and_the_port_behind_it(port: Json, target: int | str) -> None:
    """With serviceRef the local Service takes that Service's selector and the target of its port `targetPort`, by
    number or name."""
    ports = [{"port": 80, "targetPort": 1}, port]
    selector, desired = local(
        workload(),
        service(ports=ports, selector={"tier": "model"}),
        serviceRef={"name": "demo-svc", "targetPort": 8080},
    )
    assert (selector, desired[0]["targetPort"]) == ({"tier": "model"}, target)


def test_the_only_port_needs_no_name() -> None:
    """A serviceRef to a Service with one port needs no targetPort."""
    assert local(workload(), service(), serviceRef={"name": "demo-svc"})[1][0]["targetPort"] == 8000


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_every_kind_can_be_adopted(kind: str) -> None:
    """A workload of any supported kind serves the model."""
    response = sync(model_deployment(modelSourceRef={"kind": kind, "name": "demo"}), related=[workload(kind)])
    assert conditions(response)["LocalReady"] == ("True", reasons.REPLICAS_READY)


def test_the_service_of_spec_server_does_not_wait_for_the_deployment() -> None:
    """The local Service of spec.server selects the pods of the Deployment before the Deployment exists."""
    response = sync(served())
    spec = builders.child(response, "Service")["spec"]
    assert spec["selector"] == builders.child(response, "Deployment")["spec"]["selector"]["matchLabels"]
    assert spec["ports"] == [{"name": "http", "port": 80, "targetPort": 8000}]
    assert conditions(response)["RefsResolved"] == ("True", reasons.REFERENCES_RESOLVED)


@pytest.mark.parametrize("field", ["serviceRef", "metricServiceRef"])
def test_a_missing_service_beside_a_server_is_reported(field: str) -> None:
    """A reference to a missing Service makes RefsResolved False, even where spec.server needs no Service."""
    response = sync(served(**{field: {"name": "demo-svc"}}))
    assert conditions(response)["RefsResolved"] == ("False", reasons.SERVICE_MISSING)
    assert field in builders.condition(response, "RefsResolved")["message"]


def ports(*related: Json, **spec: Any) -> tuple[Any, Any]:
    """Return servingPort and metricPort of status."""
    status = sync(model_deployment(**spec), related=related).status
    return status.get("servingPort"), status.get("metricPort")


def test_ports_in_status() -> None:
    """The ports inside the pod are found by number and by name."""
    named = workload(ports=[{"containerPort": 8000, "name": "api"}, {"containerPort": 9090, "name": "metrics"}])
    both = service(ports=[{"port": 80, "targetPort": "api"}, {"port": 81, "targetPort": "metrics"}])
    spec = {
        "serviceRef": {"name": "demo-svc", "targetPort": 80},
        "metricServiceRef": {"name": "demo-svc", "targetPort": 81},
    }
    assert ports(named, both, **spec) == (8000, 9090)
    assert ports(both, **spec) == (None, None)
    assert ports(workload(), metricServiceRef={"name": "none"}) == (8000, None)
    assert ports(workload(), service(), metricServiceRef={"name": "demo-svc", "targetPort": 9}) == (8000, None)
