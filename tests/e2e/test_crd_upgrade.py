"""An upgrade of the CRDs on a real API server: objects that an earlier version stored stay, and can be edited."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.test_crds import PLURALS
from tests.contract.test_stored_objects import VERSIONS
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tools.repository import ROOT

pytestmark = pytest.mark.own_plane


def definitions(schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the present CRDs with the schemas of another version."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        version = definition["spec"]["versions"][0]
        version["schema"]["openAPIV3Schema"] = schemas[definition["spec"]["names"]["plural"]]
        yield definition


def documented() -> list[str]:
    """Return the command of the page about installing that applies the CRDs of a new release, as words for kubectl."""
    page = Path(ROOT / "docs/install.md").read_text(encoding="utf-8").rpartition("## Upgrading")[2]
    (line,) = [line for line in page.splitlines() if line.startswith("kubectl apply") and line.endswith("/crds")]
    return line.replace("beamlit-controller-chart/crds", str(ROOT / "charts/beamlit-controller/crds")).split()[1:]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own, whose CRDs may change."""
    with controlplane.running(tmp_path_factory.mktemp("upgrade")) as plane:
        yield plane


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_outlive_the_documented_upgrade(version: str, fresh: ControlPlane) -> None:
    """After the documented command every object is what it was, and takes an edit and its own status again."""
    fresh.apply(*definitions(VERSIONS[version]["schemas"]))
    fresh.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "crds"))
    namespace = f"of-{version}"
    fresh.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    items = VERSIONS[version]["objects"]
    placed = [item | {"metadata": item["metadata"] | {"namespace": namespace}} for item in items]
    # As JSON, in which a text such as `y` cannot be taken for anything else.
    fresh.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": placed}))
    status = next(item["status"] for item in items if "status" in item)
    patch = json.dumps({"status": status})
    last = items[-1]["metadata"]["name"]
    fresh.kubectl(*_edit("modeldeployments", last, namespace, patch), "--subresource=status")
    before = _specs(fresh, namespace)
    assert len(before) == len(items)
    fresh.kubectl(*documented())
    assert _specs(fresh, namespace) == before
    for item in items:
        plural, name = PLURALS[item["kind"]], item["metadata"]["name"]
        fresh.kubectl(*_edit(plural, name, namespace, json.dumps({"metadata": {"labels": {"edited": "yes"}}})))
    assert _specs(fresh, namespace) == before


def _edit(plural: str, name: str, namespace: str, patch: str) -> tuple[str, ...]:
    group = {"modeldeployments": "deployment", "policies": "authorization"}[plural]
    return ("patch", f"{plural}.{group}.beamlit.com", name, "-n", namespace, "--type=merge", "-p", patch)


def _specs(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """Return specification and status of every object in a namespace by its name."""
    found = plane.kubectl(
        "get",
        "modeldeployments.deployment.beamlit.com,policies.authorization.beamlit.com",
        "-n",
        namespace,
        "-o",
        "json",
    )
    return {item["metadata"]["name"]: (item["spec"], item.get("status")) for item in json.loads(found)["items"]}
