"""Quantities as a real API server stores them. With E2E_RECORD=1 the stored texts are written down for `make test`."""

import json
import os
from typing import Any

from tests.contract.quantities import FILE, WRITTEN
from tests.e2e.controlplane import CommandFailed, ControlPlane


def template_as_stored(plane: ControlPlane, spec: dict[str, Any]) -> dict[str, Any] | None:
    """Return a pod template's specification as the API server stores it, or None where it refuses it."""
    container = {"name": "a", "image": "b"} | spec.pop("container", {})
    item = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quantities", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container], **spec}},
        },
    }
    try:
        created = plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(item))
    except CommandFailed:
        return None
    stored: dict[str, Any] = json.loads(created)["spec"]["template"]["spec"]
    return stored


def stored_by(plane: ControlPlane, written: str) -> dict[str, str | None]:
    """Return the text stored for a field that is a quantity, and for a resource; None for what is refused."""
    volume = {"name": "v", "emptyDir": {"sizeLimit": written}}
    field = template_as_stored(plane, {"volumes": [volume]})
    resource = template_as_stored(plane, {"container": {"resources": {"limits": {"memory": written}}}})
    return {
        "field": field["volumes"][0]["emptyDir"]["sizeLimit"] if field else None,
        "resource": resource["containers"][0]["resources"]["limits"]["memory"] if resource else None,
    }


def test_the_api_server_stores_quantities_as_recorded(plane: ControlPlane) -> None:
    """The API server stores, or refuses, each quantity as the record says that `make test` compares with."""
    stored = {written: stored_by(plane, written) for written in WRITTEN}
    if os.environ.get("E2E_RECORD"):
        FILE.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert stored == json.loads(FILE.read_text(encoding="utf-8"))
