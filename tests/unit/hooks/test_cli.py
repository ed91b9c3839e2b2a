"""render on files: a manifest is read as the API server would read it."""

import io
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from hooks.cli import render
from tests.builders import DEFAULTS, NOW, Json, model_deployment, policy, workload


def rendered(tmp_path: Path, *items: Json) -> tuple[int, list[Json], list[str]]:
    """Return the exit status, the children, and the lines about what is wrong."""
    file = tmp_path / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(items))
    output, problems = io.StringIO(), io.StringIO()
    status = render([file], DEFAULTS, now=NOW, output=output, problems=problems)
    return status, list(yaml.safe_load_all(output.getvalue())), problems.getvalue().splitlines()


def test_unknown_fields_are_named(tmp_path: Path) -> None:
    """A field that the API server does not know is named as kubectl names it, in order, and has no effect."""
    parent = model_deployment(offloadingConfg={}, offloadingConfig={"behaviour": {"percentage": 1}})
    parent["metadata"]["lables"] = {}
    status, children, lines = rendered(tmp_path, parent, policy(flavours=[], type="flavor"), workload())
    assert [line for line in lines if "unknown" in line] == [
        'team-a/demo: unknown field "metadata.lables"',
        'team-a/demo: unknown field "spec.offloadingConfg"',
        'team-a/demo: unknown field "spec.offloadingConfig.behaviour"',
        'team-a/eu: unknown field "spec.flavours"',
    ]
    assert status == 0
    assert {child["kind"] for child in children} == {"ConfigMap", "Service"}


@pytest.mark.parametrize(
    "fields",
    [
        {"offloadingConfig": {"remoteBackend": None, "behavior": None}},
        {"gateway": {"retry": None, "queue": None, "localModel": None}},
        {"enabled": None, "environment": None, "policies": None},
    ],
)
def test_a_null_counts_as_absent(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A manifest with nulls is accepted, as the API server accepts it, and becomes what it becomes without them."""
    parent = model_deployment()
    parent["spec"] |= fields
    less: dict[str, Any] = {name: {} if isinstance(value, dict) else None for name, value in fields.items()}
    bare = model_deployment(**less)
    status, children, lines = rendered(tmp_path, parent, workload())
    assert status == 0
    assert not any("Accepted" in line for line in lines)
    assert children == rendered(tmp_path, bare, workload())[1]
    (route,) = [child["data"]["route.json"] for child in children if child["kind"] == "ConfigMap"]
    assert orjson.loads(route)["name"] == "demo"


def test_a_required_field_that_is_null(tmp_path: Path) -> None:
    """A null in a field that is required is a field that is missing."""
    parent = model_deployment()
    parent["spec"]["model"] = None
    status, children, lines = rendered(tmp_path, parent, workload())
    assert (status, children) == (1, [])
    assert lines[0].startswith("team-a/demo: Accepted=False/InvalidSpec: spec.model is required: ")


def test_another_version(tmp_path: Path) -> None:
    """A ModelDeployment of another API version is refused, and its fields are not judged by this one."""
    status, _, lines = rendered(tmp_path, model_deployment(mode="m") | {"apiVersion": "deployment.beamlit.com/v2"})
    assert status == 1
    assert lines == ["team-a/demo: the parent must be a ModelDeployment of deployment.beamlit.com/v1alpha1"]
