"""Tests of the types of the custom resources: how an object is read, and how one is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pydantic
import pytest

from hooks.api.common import ConditionStatus, InvalidObject, format_time
from hooks.api.model_deployment import ModelDeployment, ModelDeploymentStatus, PolicyRefType
from hooks.api.offloading import Override, OverrideMode
from hooks.api.policy import Policy
from tests.structural import crd_schema, nodes

SOURCE = {"kind": "Deployment", "name": "m"}
OAUTH = {"clientId": "i", "clientSecret": "very-secret", "tokenUrl": "https://t"}


def model_deployment(**spec: Any) -> dict[str, Any]:
    """Return the smallest ModelDeployment with these fields of spec."""
    return {"metadata": {"name": "m"}, "spec": {"model": "m", "modelSourceRef": SOURCE} | spec}


def test_defaults() -> None:
    """A ModelDeployment without optional fields has the defaults of the original."""
    spec = ModelDeployment.read(model_deployment()).spec
    assert (spec.enabled, spec.environment, spec.policies, spec.offloading_config) == (True, "production", (), None)


def test_a_policy_is_remote_unless_it_says_otherwise() -> None:
    """The type of a policy reference defaults to remotePolicy."""
    (policy,) = ModelDeployment.read(model_deployment(policies=[{"name": "p"}])).spec.policies
    assert policy.ref_type is PolicyRefType.REMOTE


def test_unknown_fields_are_ignored() -> None:
    """A field that this version does not know is ignored, because a newer API server may send it."""
    newer = model_deployment(newer={"a": 1})
    newer["metadata"]["managedFields"] = [{}]
    assert ModelDeployment.read(newer | {"more": 1}) == ModelDeployment.read(model_deployment())


def test_objects_do_not_change() -> None:
    """A field of an object cannot be assigned."""
    spec = ModelDeployment.read(model_deployment()).spec
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        spec.enabled = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raw", "field", "problem"),
    [
        (None, "the manifest", "must be an object with fields such as metadata and spec"),
        ({}, "metadata", "is required: an object with fields such as name and namespace"),
        (model_deployment(modelSourceRef=None), "spec", "set exactly one of modelSourceRef and server"),
        (
            model_deployment(server={"port": 1, "template": {}}),
            "spec",
            "set exactly one of modelSourceRef and server",
        ),
        (
            model_deployment(offloadingConfig={"behavior": {"percentage": 101}}),
            "spec.offloadingConfig.behavior.percentage",
            "must be a whole number from 0 to 100, not 101",
        ),
        (
            model_deployment(policies=[{}, {"refType": "x"}]),
            "spec.policies[1].refType",
            "must be remotePolicy or localPolicy, not 'x'",
        ),
        (
            model_deployment(offloadingConfig={"remoteBackend": {"host": "h", "headersToAdd": {"a b": "c"}}}),
            "spec.offloadingConfig.remoteBackend.headersToAdd",
            "has the key 'a b', which must be the name of a header field, such as x-team",
        ),
        (
            model_deployment(
                offloadingConfig={"behavior": {"override": {"percentage": 1, "until": "2030-01-31T18:00"}}}
            ),
            "spec.offloadingConfig.behavior.override.until",
            "must be a time with its offset from UTC, such as 2030-01-31T18:00:00Z",
        ),
    ],
)
def test_what_cannot_be_used_is_named(raw: object, field: str, problem: str) -> None:
    """An object that cannot be used is refused with the path of the field, as in YAML, and with what to write there."""
    with pytest.raises(InvalidObject) as caught:
        ModelDeployment.read(raw)
    assert (caught.value.field, caught.value.problem) == (field, problem)
    assert str(caught.value) in (f"{field} {problem}", f"{field}: {problem}")


def test_a_secret_is_in_no_text() -> None:
    """A client secret appears neither in the representation, nor in JSON, nor in a refusal."""
    config = {"remoteBackend": {"host": "h", "authConfig": {"type": "oauth", "oauthConfig": OAUTH}}}
    obj = ModelDeployment.read(model_deployment(offloadingConfig=config))
    broken = {
        "remoteBackend": {"authConfig": {"type": "oauth", "oauthConfig": OAUTH | {"clientSecret": ["very-secret"]}}}
    }
    with pytest.raises(InvalidObject) as caught:
        ModelDeployment.read(model_deployment(offloadingConfig=broken))
    for text in (repr(obj), obj.model_dump_json(), str(caught.value), repr(caught.value.__cause__)):
        assert "very-secret" not in text
    assert caught.value.__suppress_context__


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    """A time is written in UTC and whole seconds, because metav1.Time has no fractions of a second."""
    time = datetime(2030, 1, 31, 18, 0, 0, 999999, timezone(timedelta(hours=2)))
    override = Override(percentage=0, until=time)
    assert format_time(time) == "2030-01-31T16:00:00Z"
    assert override.model_dump(mode="json", by_alias=True) == {
        "percentage": 0,
        "until": "2030-01-31T16:00:00Z",
        "mode": "Normal",
    }


def test_an_override_is_normal_unless_forced() -> None:
    """The mode of an override defaults to Normal, which keeps the model reachable."""
    assert Override(percentage=0, until=datetime(2030, 1, 1, tzinfo=UTC)).mode is OverrideMode.NORMAL


def test_conditions_are_found_by_type() -> None:
    """A condition of a status is found by its type, and None is returned for a type that it does not have."""
    condition = {"type": "Ready", "status": "False", "reason": "R", "lastTransitionTime": "2030-01-31T16:00:00Z"}
    status = ModelDeploymentStatus.model_validate({"conditions": [condition]})
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.status is ConditionStatus.FALSE
    assert status.condition("Synced") is None


def test_a_policy_is_read() -> None:
    """A list of a policy that is not set is empty."""
    policy = Policy.read({"metadata": {"name": "p"}, "spec": {"type": "flavor"}})
    assert (policy.spec.locations, policy.spec.flavors) == ((), ())


def test_integers_have_their_width() -> None:
    """An integer that may exceed 2^31 - 1 has the format int64, any other int32."""
    wide = {
        path.rpartition(".")[2] for path, node in nodes(crd_schema("modeldeployments")) if node.get("format") == "int64"
    }
    assert wide == {"bodyLimitBytes", "observedGeneration"}
