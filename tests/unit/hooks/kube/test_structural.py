"""Custom resources as the API server stores them: pruned and with defaults."""

from typing import Any, Final

import pytest

from hooks.api.crds import structural_schema
from hooks.api.model_deployment import ModelDeployment
from hooks.kube.structural import defaulted, pruned, stored, unknown_fields

SCHEMA: Final = structural_schema(ModelDeployment)


def model_deployment(metadata: dict[str, Any] | None = None, more: Any = None, **spec: Any) -> dict[str, Any]:
    """Return a manifest with these fields of spec, and perhaps with one more beside spec."""
    item = {"apiVersion": "a", "kind": "ModelDeployment", "metadata": metadata or {"name": "m"}, "spec": spec}
    return item if more is None else item | {"more": more}


@pytest.mark.parametrize(
    ("item", "paths"),
    [
        (model_deployment(model="m"), []),
        (model_deployment(mode="m"), ["spec.mode"]),
        (model_deployment(offloadingConfig={"behaviour": {}}), ["spec.offloadingConfig.behaviour"]),
        (model_deployment(policies=[{"name": "a"}, {"nam": "b"}]), ["spec.policies[1].nam"]),
        (model_deployment(nothing=None), ["spec.nothing"]),
        (model_deployment(server={"template": {"anything": {"goes": 1}}}), []),
        (model_deployment(offloadingConfig={"remoteBackend": {"headersToAdd": {"x-any": "v"}}}), []),
        (model_deployment(more=1, z=1, a=1), ["more", "spec.a", "spec.z"]),
        (model_deployment({"name": "m", "lables": {}, "annotations": {"any": "v"}}), ["metadata.lables"]),
        (model_deployment(model={"deep": 1}), ["spec.model.deep"]),
        ({"metadata": None, "spec": 1}, []),
    ],
)
def test_fields_that_are_not_known(item: dict[str, Any], paths: list[str]) -> None:
    """A field that no schema knows is named by its path, in order; in a pod template everything is known."""
    assert unknown_fields(SCHEMA, item) == paths


def test_what_is_stored() -> None:
    """Unknown fields are gone, a null counts as absent, defaults are set, and metadata is as it was."""
    item = model_deployment(
        {"name": "m", "anything": 1},
        model="m",
        mode="m",
        enabled=None,
        policies=[{"name": "p", "nam": "q"}],
        gateway={"retry": None, "localModel": None},
        server={"port": 1, "replicas": None, "template": {"spec": {"nodeName": None}}},
    )
    result = stored(SCHEMA, item)
    assert result["metadata"] == {"name": "m", "anything": 1}
    assert result["spec"] == {
        "model": "m",
        "enabled": True,
        "environment": "production",
        "policies": [{"name": "p", "refType": "remotePolicy"}],
        "gateway": {"retry": {"failover": True}},
        "server": {"port": 1, "template": {"spec": {"nodeName": None}}},
    }
    assert item["spec"]["enabled"] is None


def test_nulls_that_stay() -> None:
    """A null stays where the schema says nullable, in a list, and in what the schema does not describe."""
    schema = {"type": "object", "properties": {"a": {"nullable": True}, "b": {"items": {}}, "c": {"default": 1}}}
    assert defaulted(schema, {"a": None, "b": [None], "c": None, "d": None}) == {
        "a": None,
        "b": [None],
        "c": 1,
        "d": None,
    }


def test_values_of_a_map() -> None:
    """Nulls among the values of a map are dropped, and so are unknown fields in its values."""
    schema = {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}}
    assert defaulted(schema, pruned(schema, {"x": {"a": "1", "b": 2}, "y": None})) == {"x": {"a": "1"}}
