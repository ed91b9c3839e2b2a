"""Our CRDs on a real API server: what it refuses, with which sentence, and that nothing good is lost."""

import json
from typing import Any

import pytest
import yaml

from tests.contract.test_crds import ACCEPTED, ORIGINAL, REFUSED
from tests.e2e.controlplane import CommandFailed, ControlPlane
from tests.e2e.product import ROOT, install_crds


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> ControlPlane:
    """A control plane with our CRDs."""
    install_crds(plane)
    return plane


def contains(stored: Any, given: Any) -> bool:
    """Whether everything given is in what is stored; defaults may have come."""
    if isinstance(given, dict):
        return isinstance(stored, dict) and all(key in stored and contains(stored[key], given[key]) for key in given)
    if isinstance(given, list):
        return isinstance(stored, list) and len(stored) == len(given) and all(map(contains, stored, given))
    return bool(stored == given)


def named(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The manifest under a name of its own, so that tests do not meet."""
    return manifest | {"metadata": manifest.get("metadata", {}) | {"name": name, "namespace": "default"}}


@pytest.mark.parametrize("manifest", ORIGINAL, ids=[one["metadata"]["name"] for one in ORIGINAL])
def test_manifests_of_the_original_apply(api: ControlPlane, manifest: dict[str, Any]) -> None:
    """A manifest written for the original is stored as it is, with nothing pruned."""
    api.apply(manifest)
    name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace", "default")
    stored = api.get(manifest["kind"].lower(), name, namespace)
    assert contains(stored["spec"], manifest["spec"])
    api.kubectl("delete", manifest["kind"].lower(), name, "-n", namespace)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(api: ControlPlane, name: str) -> None:
    """What our own reading of the schema accepts, the API server accepts, and stores without loss."""
    manifest = named(ACCEPTED[name], "accepted")
    output = api.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
    assert contains(json.loads(output)["spec"], manifest.get("spec", {}))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_our_sentence(api: ControlPlane, name: str) -> None:
    """What is wrong is refused by the API server itself; where a rule of ours says it, with its sentence."""
    obj, problem = REFUSED[name]
    manifest = json.dumps(named(obj, "refused"))
    with pytest.raises(CommandFailed) as caught:
        api.kubectl("create", "--dry-run=server", "--validate=false", "-f", "-", stdin=manifest)
    sentence = problem.rpartition(": ")[2] if "must" in problem or "set " in problem else ""
    assert "invalid" in str(caught.value).lower() or "error" in str(caught.value).lower()
    if sentence and any(sentence in text for text in _messages()):
        assert sentence in str(caught.value)


def _messages() -> list[str]:
    """The sentences of all CEL rules."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(rule["message"] for rule in node.get("x-kubernetes-validations", ()))
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    for path in (ROOT / "crds").glob("*.yaml"):
        walk(yaml.safe_load(path.read_text()))
    return found


def test_explain_is_complete(api: ControlPlane) -> None:
    """`kubectl explain` knows every field, and has a sentence for each."""
    output = api.kubectl("explain", "modeldeployment.spec", "--recursive")
    for field in (
        "modelSourceRef",
        "offloadingConfig",
        "remoteBackend",
        "clientSecretRef",
        "notReadyForSeconds",
        "server",
    ):
        assert field in output
    sentence = api.kubectl("explain", "modeldeployment.spec.offloadingConfig.behavior.override.until")
    assert "DESCRIPTION" in sentence
    assert "<no description>" not in output + sentence


def test_short_name_and_columns(api: ControlPlane) -> None:
    """`kubectl get md` shows what people look for first."""
    api.apply({**ORIGINAL[0], "metadata": {"name": "columns", "namespace": "default"}})
    header, row = api.kubectl("get", "md", "columns").splitlines()
    assert header.split() == ["NAME", "MODEL", "READY", "OFFLOADED", "REASON", "AGE"]
    assert row.split()[:2] == ["columns", ORIGINAL[0]["spec"]["model"]]
    api.kubectl("delete", "md", "columns")
