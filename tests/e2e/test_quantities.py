"""Quantities as a real API server stores them. With E2E_RECORD=1 the stored texts are written down for `make test`."""

import json
import os
import subprocess
from typing import Any

from tests.contract.quantities import FILE, WRITTEN
from tests.deadlines import SECONDS
from tests.e2e.controlplane import ControlPlane
from tests.e2e.process import program


def deployment(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment with a pod template's specification."""
    container = {"name": "a", "image": "b"} | spec.pop("container", {})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container], **spec}},
        },
    }


def as_stored(plane: ControlPlane, items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod template's specification of each Deployment as the API server stores it, by name, without those
    that it refuses.

    One kubectl for all of them takes seconds, where one for each takes minutes.
    """
    command = [program("kubectl"), "--kubeconfig", str(plane.kubeconfig), "create", "--dry-run=server", "-o", "json"]
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    # Its exit code says that some are refused.
    output = subprocess.run(
        [*command, "-f", "-"], capture_output=True, text=True, input=content, timeout=SECONDS
    ).stdout
    decoder, stored = json.JSONDecoder(), {}
    while output := output.lstrip():
        created, end = decoder.raw_decode(output)
        output = output[end:]
        for item in created["items"] if created["kind"] == "List" else [created]:
            stored[item["metadata"]["name"]] = item["spec"]["template"]["spec"]
    return stored


def test_the_api_server_stores_quantities_as_recorded(plane: ControlPlane) -> None:
    """The API server stores, or refuses, each quantity as the record says that `make test` compares with: of a field
    that is a quantity, and of a resource."""
    items = []
    for number, written in enumerate(WRITTEN):
        items.append(deployment(f"field-{number}", {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": written}}]}))
        items.append(deployment(f"resource-{number}", {"container": {"resources": {"limits": {"memory": written}}}}))
    specs = as_stored(plane, items)
    stored: dict[str, dict[str, str | None]] = {}
    for number, written in enumerate(WRITTEN):
        field, resource = specs.get(f"field-{number}"), specs.get(f"resource-{number}")
        stored[written] = {
            "field": field["volumes"][0]["emptyDir"]["sizeLimit"] if field else None,
            "resource": resource["containers"][0]["resources"]["limits"]["memory"] if resource else None,
        }
    if os.environ.get("E2E_RECORD"):
        FILE.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert stored == json.loads(FILE.read_text(encoding="utf-8"))
