"""Examples in the repository, in the documentation and in the help: they work as they are written."""

import re
import subprocess
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import yaml

from hooks.observation.observation import DefaultRemote, InstallDefaults, Observation
from hooks.protocol import SyncRequest
from hooks.reconcile import model_deployment
from tests.contract.test_crds import refusals
from tests.deadlines import SECONDS
from tools.repository import ROOT

EXAMPLES = ROOT / "examples"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DEFAULTS = InstallDefaults(default_remote=DefaultRemote("127.0.0.1:9102", "http", "/$workspace/$model", "demo"))


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell in the checkout does."""
    return subprocess.run(
        ["bash", "-c", command], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def is_part_of(part: Any, whole: Any) -> bool:
    """Return whether a value holds all of another one; the API server adds defaults to what a manifest says."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part_of(value, whole[key]) for key, value in part.items())
    return bool(part == whole)


def test_the_request_is_about_demo() -> None:
    """The parent in the example of a request is the example manifest as the API server stores it."""
    request = orjson.loads((EXAMPLES / "requests/sync.json").read_bytes())
    manifest = yaml.safe_load((EXAMPLES / "manifests/demo.yaml").read_text())
    assert is_part_of(manifest, request["parent"])


def test_the_response_to_the_request() -> None:
    """The response to the example request accepts the specification, and has the route and the local Service."""
    request = SyncRequest.from_body((EXAMPLES / "requests/sync.json").read_bytes())
    response = model_deployment.sync(Observation.of(request, DEFAULTS), now=NOW).as_json()
    children = {(child["kind"], child["metadata"]["name"]) for child in response["children"]}
    assert children == {("ConfigMap", "demo-route"), ("Service", "demo-local")}
    conditions = {one["type"]: one["status"] for one in response["status"]["conditions"]}
    assert (conditions["Accepted"], conditions["RefsResolved"], conditions["LocalReady"]) == ("True", "True", "True")


def test_the_policies_of_the_documentation() -> None:
    """The Policies on the page about offloading are valid, and allow the ModelDeployment beside them."""
    page = (EXAMPLES.parent / "docs/offloading.md").read_text()
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Policy" in block]
    items = list(yaml.safe_load_all(text))
    assert [refusals(item) for item in items] == [[], [], []]
    (parent,) = [item for item in items if item["kind"] == "ModelDeployment"]
    related = {"observed": {str(number): item for number, item in enumerate(items) if item is not parent}}
    request = SyncRequest.from_json({"parent": parent, "related": related})
    status = model_deployment.sync(Observation.of(request, DEFAULTS), now=NOW).status
    conditions = {one["type"]: one["reason"] for one in status["conditions"]}
    assert conditions["PolicySatisfied"] == "PoliciesSatisfied"


def test_the_model_of_the_page_about_the_gateway() -> None:
    """The ModelDeployment on the page about the gateway is valid and accepted, and spells out the real defaults."""
    page = (EXAMPLES.parent / "docs/gateway.md").read_text()
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: ModelDeployment" in block]
    parent = yaml.safe_load(text)
    assert refusals(parent) == []
    response = model_deployment.sync(Observation.of(SyncRequest.from_json({"parent": parent}), DEFAULTS), now=NOW)
    assert {one["type"]: one["status"] for one in response.status["conditions"]}["Accepted"] == "True"
    (route,) = [one["data"]["route.json"] for one in response.children if one["kind"] == "ConfigMap"]
    document = orjson.loads(route)
    assert "breaker" not in document
    assert document["queue"] == {"size": 50}
    assert document["backends"][-1]["health"] == {"path": "/health"}


def test_until_of_the_manifest() -> None:
    """The override in a comment of the example manifest is in the right place when the comment sign is removed."""
    text = (EXAMPLES / "manifests/demo.yaml").read_text().replace("# override:", "override:")
    assert "override" in yaml.safe_load(text)["spec"]["offloadingConfig"]["behavior"]


def test_the_output_of_explain() -> None:
    """The command on the page about offloading prints the output that the page shows."""
    page = (EXAMPLES.parent / "docs/offloading.md").read_text()
    (block,) = re.findall(r"```console\n\$ (.venv/bin/beamlit-hooks explain .*?)```", page, re.DOTALL)
    command, _, expected = block.replace("\\\n", " ").partition("\n")
    ended = run(command)
    assert (ended.stdout, ended.stderr, ended.returncode) == (expected, "", 0)


@pytest.mark.parametrize(
    ("start", "command"), [(".venv/bin/beamlit-hooks", "render"), (".venv/bin/python -m hooks", "explain")]
)
def test_the_examples_of_the_help(start: str, command: str) -> None:
    """The command that --help prints as an example works in the clone as it is printed, however help was asked for."""
    page = run(f"{start} {command} --help").stdout
    example = page.split("in a clone:\n\n")[1].partition("\n\n")[0].strip()
    assert example.startswith(f"{start} {command} ")
    ended = run(example)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.parametrize("script", ["beamlit-hooks", "beamlit-gateway"])
def test_help_names_the_command(script: str) -> None:
    """The help of a console script has the script's own name."""
    assert run(f".venv/bin/{script} --help").stdout.startswith(f"usage: {script} [-h]")


def test_commands_of_troubleshooting() -> None:
    """The page about troubleshooting has the same commands as the page about offloading."""
    docs = EXAMPLES.parent / "docs"
    (commands,) = re.findall(
        r"```sh\n(kubectl get modeldeployments,.*?)```", (docs / "offloading.md").read_text(), re.DOTALL
    )
    assert commands in (docs / "troubleshooting.md").read_text()
