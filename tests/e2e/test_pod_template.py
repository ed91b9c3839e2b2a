"""Types of the fields of a pod template, as a real API server has them: it refuses what hooks refuse."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from hooks.kube.pod_template import POD_TEMPLATE, Items, Values, flag, port, port_or_name, problems, quantity, whole
from tests.contract.test_bad_manifests import TABLE
from tests.e2e.controlplane import CommandFailed, ControlPlane
from tests.unit.hooks.kube.test_pod_template import GOOD

KINDS: Final[dict[Any, tuple[str, ...]]] = {
    whole: ("integer",),
    port: ("integer",),
    flag: ("boolean",),
    quantity: ("quantity",),
    port_or_name: ("int-or-string",),
}
"""Types in an OpenAPI document by the check of the table. All others are strings."""
TEMPLATES = [
    row["spec"]["server"]["template"] for row in TABLE["ModelDeployment"] if row["reason"] == "InvalidTemplate"
]
BAD = [one for one in TEMPLATES if list(problems(one, "template")) or one.get("spec", {}).get("ephemeralContainers")]


def create(plane: ControlPlane, template: Any) -> None:
    """Have the API server check a Deployment with this template, without storing it.

    Raises:
        CommandFailed: the API server refuses it.
    """
    template = copy.deepcopy(template)
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {"selected": "yes"} | (metadata.get("labels") or {})
    for container in template["spec"]["containers"]:
        container.setdefault("image", "b")
    item = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "template", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"selected": "yes"}}, "template": template},
    }
    # Unknown fields are dropped, as for a child that Metacontroller creates.
    plane.kubectl("create", "--dry-run=server", "--validate=false", "-f", "-", stdin=json.dumps(item))


@pytest.mark.parametrize("template", BAD, ids=lambda one: yaml.safe_dump(one, default_flow_style=True).strip())
def test_the_api_server_refuses_what_hooks_refuse(plane: ControlPlane, template: Any) -> None:
    """The API server refuses each template in the table of bad manifests that has a value of the wrong type."""
    with pytest.raises(CommandFailed):
        create(plane, template)


def test_the_api_server_takes_what_hooks_take(plane: ControlPlane) -> None:
    """The API server takes the template in which hooks find no mistake."""
    create(plane, GOOD)


def mistaken(shape: Any, schema: Any, definitions: Any, path: str) -> Iterator[str]:
    """Yield the paths at which the table has another type than the API server's OpenAPI document."""
    for reference in (schema, *schema.get("allOf", ())):
        if "$ref" in reference:
            schema = definitions[reference["$ref"].rpartition("/")[2]]
    if isinstance(shape, Items):
        yield from mistaken(shape.of, schema.get("items", {}), definitions, f"{path}[]")
    elif isinstance(shape, Values):
        yield from mistaken(shape.of, schema.get("additionalProperties", {}), definitions, f"{path}.*")
    elif isinstance(shape, dict):
        for key, of in shape.items():
            yield from mistaken(of, schema.get("properties", {}).get(key, {}), definitions, f"{path}.{key}")
    else:
        kind = schema.get("format") if schema.get("format") == "int-or-string" else schema.get("type")
        kind = "quantity" if "oneOf" in schema and kind is None else kind
        if kind not in KINDS.get(shape, ("string",)):
            yield f"{path}: {kind}"


def test_the_table_has_the_types_of_the_api_server(plane: ControlPlane) -> None:
    """Each field of the table exists in the API server's OpenAPI document, and has the type there that it has here."""
    definitions = json.loads(plane.kubectl("get", "--raw", "/openapi/v3/apis/apps/v1"))["components"]["schemas"]
    template = definitions["io.k8s.api.core.v1.PodTemplateSpec"]
    assert list(mistaken(POD_TEMPLATE, template, definitions, "template")) == []
