"""The policy by which spec.server needs the right to create Deployments."""

from pathlib import Path

import pytest

from tests.chart.helm import kind, template

SERVED = "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def test_the_policy_is_there_by_default(chart: Path) -> None:
    """Where the API server has policies, the chart has one about ModelDeployments alone, and a binding that denies."""
    objects = template(chart, SERVED)
    policy, binding = (kind(objects, name, "-server") for name in KINDS)
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    assert policy["spec"]["failurePolicy"] == "Fail"
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert rule == {
        "apiGroups": ["deployment.beamlit.com"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["modeldeployments"],
    }
    (validation,) = policy["spec"]["validations"]
    assert "deployments" in validation["expression"]
    assert "Ask for that right" in validation["message"]
    assert "namespace" not in policy["metadata"]


@pytest.mark.parametrize(
    "words",
    [(), (SERVED, "--set=admissionPolicy.enabled=false"), ("--api-versions=admissionregistration.k8s.io/v1",)],
    ids=["not served", "turned off", "another version of the group"],
)
def test_no_policy(chart: Path, words: tuple[str, ...]) -> None:
    """There is no policy where the API server has none, nor where it is turned off."""
    assert not [one for one in template(chart, *words) if one["kind"] in KINDS]


def test_a_blank_section_has_its_default(chart: Path) -> None:
    """A section that is left blank in a file of values has the policy."""
    assert kind(template(chart, SERVED, "--set=admissionPolicy=null"), KINDS[0])
