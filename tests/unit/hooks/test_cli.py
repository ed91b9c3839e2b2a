"""render on files: a manifest is read as the API server would read it."""

import io
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from hooks.cli import explain_files, render
from hooks.kube import files
from hooks.settings import Settings
from tests.builders import DEFAULTS, NOW, Json, model_deployment, policy, workload

PERCENTAGE = "spec.offloadingConfig.behavior.percentage must be a whole number from 0 to 100"
CONNECT = "spec.gateway.timeouts.connectSeconds must be a number from 0.01 to 86400"


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


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"offloadingConfig": {"behavior": {"percentage": "50"}}},
            f"{PERCENTAGE}, not '50': write 50 without quotes.",
        ),
        (
            {"offloadingConfig": {"behavior": {"percentage": "true"}}},
            f"{PERCENTAGE}, not 'true'.",
        ),
        (
            {"offloadingConfig": {"behavior": {"percentage": True}}},
            f"{PERCENTAGE}, not true.",
        ),
        (
            {"gateway": {"timeouts": {"connectSeconds": "1.5"}}},
            f"{CONNECT}, not '1.5': write 1.5 without quotes.",
        ),
        ({"enabled": "true"}, "spec.enabled must be true or false, not 'true': write true without quotes."),
        ({"enabled": 1}, "spec.enabled must be true or false, not 1."),
    ],
)
def test_a_value_of_another_type(tmp_path: Path, fields: dict[str, Any], line: str) -> None:
    """A number or a boolean that is given as something else is refused, as the API server would refuse it."""
    parent = model_deployment(**fields)
    assert rendered(tmp_path, parent, workload()) == (1, [], [f"team-a/demo: {line}"])
    output, problems = io.StringIO(), io.StringIO()
    file = tmp_path / "manifests.yaml"
    assert explain_files([file], [], Settings(), now=NOW, output=output, problems=problems) == 1
    assert (output.getvalue(), problems.getvalue()) == ("", f"team-a/demo: {line}\n")


def test_one_of_two_is_refused(tmp_path: Path) -> None:
    """A manifest that the API server would refuse does not keep another one from being rendered."""
    bad = model_deployment(enabled="true")
    bad["metadata"]["name"] = "bad"
    status, children, lines = rendered(tmp_path, bad, model_deployment(), workload())
    assert (status, {child["kind"] for child in children}) == (1, {"ConfigMap", "Service"})
    assert lines[0].startswith("team-a/bad: spec.enabled must be ")


def test_quantities_are_numbers_or_text(tmp_path: Path) -> None:
    """A field that takes a number or a string is not refused for its type."""
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": 1}}}
    for value in (1, "500m"):
        metric["resource"]["target"]["averageValue"] = value  # type: ignore[index]
        assert rendered(tmp_path, model_deployment(offloadingConfig={"metrics": [metric]}), workload())[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Pod\nspec:\n  model: a\n  port: 1\n  model: b\n", "'model' in line 3 and again in line 5"),
        ("kind: Pod\n---\nspec: {1: a, '1': b}\n", "'1' in line 3 and again in line 3"),
        ('{"spec": {"a": 1,\n"a": 2}}', "'a' in line 1 and again in line 2"),
        ("kind: Pod\nkind: Pod\n", "'kind' in line 1 and again in line 2"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, text: str, words: str) -> None:
    """A mapping with a key twice is refused with the key and both lines, as strict decoding refuses it."""
    file, problems = tmp_path / "manifests.yaml", io.StringIO()
    file.write_text(text)
    assert render([file], DEFAULTS, now=NOW, output=io.StringIO(), problems=problems) == 2
    assert problems.getvalue() == f"hooks: {file} has the key {words}: leave one of them out.\n"


def test_a_mapping_that_is_merged_in(tmp_path: Path) -> None:
    """A key beside a mapping that is merged in and has it too is no duplicate, nor are two that are merged in."""
    file = tmp_path / "manifests.yaml"
    file.write_text("one: &one {a: 1, b: 1}\ntwo: &two {<<: *one, b: 2}\nboth: {<<: *one, <<: *two, a: 3}\n")
    assert files.read(file)[0]["both"]["a"] == 3


def test_what_only_a_cluster_could_tell(tmp_path: Path) -> None:
    """Nothing is said of conditions that depend on whether the children exist, but that no cluster was asked."""
    status, _, lines = rendered(tmp_path, model_deployment())
    assert status == 0
    assert {line.partition(": ")[2].partition("=")[0] for line in lines[:-1]} == {"RefsResolved", "LocalReady"}
    assert lines[-1] == "hooks: no cluster was asked, so nothing is said of OffloadReady, Synced, Ready and Registered."


def test_another_version(tmp_path: Path) -> None:
    """A ModelDeployment of another API version is refused, and its fields are not judged by this one."""
    status, _, lines = rendered(tmp_path, model_deployment(mode="m") | {"apiVersion": "deployment.beamlit.com/v2"})
    assert status == 1
    assert lines == ["team-a/demo: the parent must be a ModelDeployment of deployment.beamlit.com/v1alpha1"]
