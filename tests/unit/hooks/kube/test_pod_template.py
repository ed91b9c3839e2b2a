"""Types of the fields of a pod template."""

import math
from typing import Any

import pytest

from hooks.kube import pod_template
from hooks.kube.pod_template import Items, Values, flag, one_of, port, port_or_name, problems, quantity, text, whole
from hooks.kube.stored import QUANTITIES, QUANTITY_MAPS

GOOD: dict[str, Any] = {
    "metadata": {"labels": {"a": "1", "b": None}, "annotations": None},
    "spec": {
        "containers": [
            {
                "name": "server",
                "image": "server:1",
                "args": ["--port", "8000", None],
                "env": [
                    {"name": "A", "value": "5"},
                    {"name": "B", "value": None},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": 1}}},
                ],
                "ports": [{"containerPort": 8000.0, "hostPort": 0}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1.0}},
                "readinessProbe": {"httpGet": {"port": "http", "scheme": ""}, "periodSeconds": 5},
                "livenessProbe": {"httpGet": {"port": 8000}},
                "unknownField": 7,
            }
        ],
        "tolerations": [{"key": "gpu", "effect": "NoExecute", "tolerationSeconds": 300}],
        "volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}],
        "hostNetwork": False,
        "ephemeralContainers": [],
    },
}


def test_a_template_without_mistakes() -> None:
    """A template that the API server takes has no problems; nulls and fields that are not in the table are passed."""
    assert list(problems(GOOD, "template")) == []


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (text, ["", "5", "true"], [5, 0.5, True, [], {}]),
        (flag, [True, False], ["true", "yes", 1, 0, []]),
        (whole, [0, -1, 5.0, 2**63 - 1], [0.5, "5", True, math.nan, math.inf, 2**63, []]),
        (port, [1, 65535], [0, 65536, "80", -1, True]),
        (port_or_name, [80, "http", "80"], [True, 0.5, [], {}]),
        (quantity, [1, 0.5, "500m", "1Gi", "1e3"], ["8 GB", "", True, "1,5", []]),
        (one_of("a", "b"), ["a", "b", ""], ["A", 1, [], True]),
        (one_of("a"), ["a", ""], ["b"]),
    ],
)
def test_each_type_by_itself(check: pod_template.Check, good: list[Any], bad: list[Any]) -> None:
    """Each type has values that it takes and values that it does not."""
    assert [check(value, "field") for value in good] == [""] * len(good)
    assert all(check(value, "field").startswith("must be ") for value in bad)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"metadata": []}, "t.metadata must be an object."),
        ({"metadata": {"labels": {"a": 1}}}, 't.metadata.labels.a must be a string: put it in quotes, as in a: "5".'),
        ({"spec": {"containers": {"name": "a"}}}, "t.spec.containers must be a list: begin each item with a dash."),
        ({"spec": {"containers": ["a"]}}, "t.spec.containers[0] must be an object."),
        ({"spec": {"hostNetwork": "true"}}, "t.spec.hostNetwork must be true or false, without quotes."),
        ({"spec": {"hostNetwork": "on"}}, "t.spec.hostNetwork must be true or false."),
        (
            {"spec": {"terminationGracePeriodSeconds": "30"}},
            "t.spec.terminationGracePeriodSeconds must be a whole number, without quotes.",
        ),
        (
            {"spec": {"containers": [{"envFrom": [{"secretRef": {"name": 1}}]}]}},
            't.spec.containers[0].envFrom[0].secretRef.name must be a string: put it in quotes, as in name: "5".',
        ),
        (
            {"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "g", "operator": "In", "values": [1]}]}]}}}}},
            (
                "t.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
                '.matchExpressions[0].values[0] must be a string: put it in quotes, as in "5".'
            ),
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_with_its_path(value: Any, sentence: str) -> None:
    """A mistake is named by the path of its field, with what to write instead."""
    assert list(problems(value, "t")) == [sentence]


def test_the_table_and_the_stored_form_agree() -> None:
    """Fields that the stored form takes for quantities have that type in the table."""

    def check(shape: Any) -> None:
        if isinstance(shape, Items | Values):
            check(shape.of)
        elif isinstance(shape, dict):
            for key, of in shape.items():
                assert not (key in QUANTITIES and of is not quantity), key
                assert not (key in QUANTITY_MAPS and of != Values(quantity)), key
                check(of)

    check(pod_template.POD_TEMPLATE)
