"""Uninstalling with a platform: registered objects are removed there, and no object is left that cannot be deleted.

The chart runs on a real API server with the real Metacontroller. Hooks, Metacontroller and the Job before `helm
uninstall` run from what helm rendered, under their ServiceAccounts; the platform is a server of the tests.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from hooks.uninstall import PREFIX
from tests.chart.helm import with_dependencies
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import NAMESPACE, RELEASE, Installation
from tests.e2e.pods import Image
from tests.e2e.product import missing, model_deployment, workload
from tests.platform import SECRET, TOKEN, Platform
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

pytestmark = pytest.mark.own_plane

MODELS: Final = "modeldeployments.deployment.beamlit.com"
POLICIES: Final = "policies.authorization.beamlit.com"
FINALIZERS: Final = {MODELS: f"{PREFIX}{RELEASE}", POLICIES: f"{PREFIX}{RELEASE}-policies"}
AT_ONCE: Final = ("--grace=1", "--wait=3")
"""Arguments of the Job for tests where there is nothing to wait for."""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """The running platform."""
    platform = Platform()
    platform.start()
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own."""
    if reason := missing():
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("uninstall")) as plane:
        yield plane


@pytest.fixture(scope="module")
def release(
    image: Image, plane: ControlPlane, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart with a token of the platform, not installed yet."""
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    installation = Installation(plane, image, chart, platform=platform)
    with installation.proxy.running():
        try:
            installation.install()
            plane.apply(workload("demo"))
            yield installation
        finally:
            installation.stop()


@pytest.fixture
def installed(release: Installation, platform: Platform) -> Installation:
    """The installed chart and the responding platform, whatever an earlier test did to either."""
    platform.stop()
    platform.start()
    platform.script = lambda _method, _path: None
    if not release.plane.get("deployments.apps", f"{RELEASE}-hooks", NAMESPACE):
        release.install()
    return release


def model(name: str) -> dict[str, Any]:
    """Return a ModelDeployment of the Deployment `demo`."""
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo", "namespace": "default"}
    return model_deployment(name, modelSourceRef=source)


def policy(name: str) -> dict[str, Any]:
    """Return a Policy."""
    return {
        "apiVersion": "authorization.beamlit.com/v1alpha1",
        "kind": "Policy",
        "metadata": {"name": name},
        "spec": {"type": "location", "locations": [{"type": "country", "name": "fr"}]},
    }


def registered(installed: Installation, resource: str, name: str) -> tuple[str, str]:
    """Return status and reason of the condition Registered."""
    conditions = installed.plane.get(resource, name).get("status", {}).get("conditions", ())
    return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "Registered"), ("", ""))


def register(installed: Installation, *names: str) -> None:
    """Create a model and a policy of each name, and wait until both are registered and have their finalizers."""
    for name in names:
        installed.plane.apply(model(name), policy(name))
    for name in names:
        for resource, finalizer in FINALIZERS.items():
            poll(
                lambda resource=resource, name=name: registered(installed, resource, name) == ("True", "UpToDate"),  # type: ignore[misc]
                f"{resource} {name} is registered",
            )
            assert finalizers(installed, resource, name) == [finalizer]


def finalizers(installed: Installation, resource: str, name: str) -> list[str]:
    """Return the finalizers of an object."""
    names: list[str] = installed.plane.get(resource, name)["metadata"].get("finalizers", [])
    return names


def remove(installed: Installation, resource: str, name: str) -> None:
    """Mark an object as deleted, without waiting for its end."""
    installed.plane.kubectl("delete", resource, name, "--wait=false")


def is_leaving(installed: Installation, resource: str, name: str) -> bool:
    """Return whether the object is being deleted and still exists."""
    return "deletionTimestamp" in installed.plane.get(resource, name).get("metadata", {})


def until_gone(installed: Installation, resource: str, name: str) -> None:
    """Wait until an object no longer exists."""
    poll(lambda: not installed.plane.get(resource, name), f"{resource} {name} is gone")


def test_what_is_deleted_is_removed_from_the_platform(installed: Installation, platform: Platform) -> None:
    """A deleted object is removed from the platform and is then gone, and no secret is outside of its Secret."""
    register(installed, "one")
    assert platform.model("one") is not None
    assert platform.policy("one") is not None
    for resource in ("configmaps", MODELS, POLICIES, "events", "deployments", "compositecontrollers"):
        everything = installed.plane.kubectl("get", resource, "-A", "-o", "yaml")
        assert not [canary for canary in (TOKEN, SECRET) if canary in everything], resource
    for place, text in installed.outputs().items():
        assert not [canary for canary in (TOKEN, SECRET, *platform.bought) if canary in text], place
    installed.plane.kubectl("delete", MODELS, "one", "--timeout=100s")
    installed.plane.kubectl("delete", POLICIES, "one", "--timeout=100s")
    assert {("DELETE", "/v0/models/one"), ("DELETE", "/v0/policies/one")} <= set(platform.writes())
    assert (platform.model("one"), platform.policy("one")) == (None, None)


def test_a_platform_that_is_away_holds_an_object_for_minutes_only(
    installed: Installation, platform: Platform, tmp_path: Path
) -> None:
    """While the platform is away a deleted object stays and says why, and after ten minutes of the hooks' clock it is
    gone."""
    register(installed, "held")
    port, operations, ahead = free_port(), free_port(), tmp_path / "ahead"
    ahead.write_text("0")
    settings = {
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(installed.plane.kubeconfig),
        "BEAMLIT_TOKEN": TOKEN,
        "BEAMLIT_BASE_URL": platform.url,
    }
    listen = ("--listen", f"127.0.0.1:{port}", "--operations", f"127.0.0.1:{operations}")
    command = (sys.executable, "-m", "tests.e2e.hooks_ahead", str(ahead), *listen)
    hooks = installed.plane.run("hooks-ahead", *command, environment=os.environ | settings)
    try:
        poll(lambda: status(f"http://127.0.0.1:{operations}/readyz") == 200, "hooks are ready")
        installed.upgrade(f"--set=hooks.url=http://127.0.0.1:{port}")
        platform.stop()
        for resource in FINALIZERS:
            remove(installed, resource, "held")
            poll(lambda r=resource: registered(installed, r, "held") == ("False", "Unreachable"), "it says why")  # type: ignore[misc]
            assert is_leaving(installed, resource, "held")
        ahead.write_text("660")
        for resource in FINALIZERS:
            installed.plane.kubectl("annotate", resource, "held", "look=again", check=False)
            until_gone(installed, resource, "held")
    finally:
        hooks.stop()
        installed.upgrade("--set=hooks.url=")
    assert platform.model("held") is not None


def test_turning_the_token_off_lets_everything_go(installed: Installation, platform: Platform) -> None:
    """After a helm upgrade without the token no object keeps a finalizer, and those that were being deleted are
    gone."""
    register(installed, "kept", "leaving")
    platform.stop()
    for resource in FINALIZERS:
        remove(installed, resource, "leaving")
        poll(lambda r=resource: registered(installed, r, "leaving") == ("False", "Unreachable"), "it was tried")  # type: ignore[misc]
    installed.upgrade("--set=beamlitApiToken=")
    for resource in FINALIZERS:
        until_gone(installed, resource, "leaving")
        poll(lambda r=resource: finalizers(installed, r, "kept") == [], f"{resource} is free")  # type: ignore[misc]
        installed.plane.kubectl("annotate", resource, "kept", "look=again")
        poll(lambda r=resource: registered(installed, r, "kept")[1] == "Disabled", "it says that nothing is registered")  # type: ignore[misc]
        installed.plane.kubectl("delete", resource, "kept", "--timeout=100s")
    assert platform.model("kept") is not None, "what is there stays there"
    platform.start()
    installed.upgrade(f"--set=beamlitApiToken={TOKEN}")
    register(installed, "again")
    for resource in FINALIZERS:
        installed.plane.kubectl("delete", resource, "again", "--timeout=100s")


def test_uninstalling(installed: Installation, platform: Platform) -> None:
    """Metacontroller removes its finalizers at the Job's request, and objects and their registrations stay."""
    register(installed, "stays")
    helm, job = installed.uninstall_by_job()
    assert "uninstalled" in helm
    assert job.splitlines() == [
        f"CompositeController {RELEASE}: its finalize hook is taken off.",
        f"CompositeController {RELEASE}-policies: its finalize hook is taken off.",
        "No ModelDeployment and no Policy has a finalizer of Metacontroller: it may go.",
    ]
    for resource in FINALIZERS:
        assert finalizers(installed, resource, "stays") == []
        installed.plane.kubectl("delete", resource, "stays", "--timeout=100s")
    assert (platform.model("stays") is not None, platform.policy("stays") is not None) == (True, True)
    left = installed.plane.kubectl("get", "all,serviceaccounts,secrets,configmaps", "-n", NAMESPACE, "-o", "name")
    assert RELEASE not in left
    kinds = "clusterroles,clusterrolebindings,compositecontrollers,validatingadmissionpolicies"
    cluster = installed.plane.kubectl("get", f"{kinds},validatingadmissionpolicybindings", "-o", "name")
    assert RELEASE not in cluster


def test_uninstalling_when_nothing_works_any_more(installed: Installation, platform: Platform) -> None:
    """Without Metacontroller and platform the Job itself removes the finalizers, also of objects that are being
    deleted."""
    register(installed, "stays", "leaving")
    for pod in installed.pods("-metacontroller"):
        pod.terminate()
    platform.stop()
    for resource in FINALIZERS:
        remove(installed, resource, "leaving")
        assert is_leaving(installed, resource, "leaving")
    helm, job = installed.uninstall_by_job(*AT_ONCE)
    assert "uninstalled" in helm
    assert "2 objects being deleted: up to 1 s for that." in job
    assert "Metacontroller leaves its finalizer on 4 objects" in job
    for resource in FINALIZERS:
        assert f"{resource}/leaving in namespace default was being deleted, and is let go" in job
        assert not installed.plane.get(resource, "leaving")
        assert finalizers(installed, resource, "stays") == []
        installed.plane.kubectl("delete", resource, "stays", "--timeout=100s")


def test_a_job_that_fails_says_what_to_do(installed: Installation) -> None:
    """Without the right to patch, helm gives up in time and deletes nothing, and the commands that the Job prints
    finish the work."""
    register(installed, "stays")
    for pod in installed.pods("-metacontroller"):
        pod.terminate()
    guard = _deny_patches()
    installed.plane.apply(*guard)
    try:
        helm, job = installed.uninstall_by_job(*AT_ONCE)
    finally:
        for one in guard:
            installed.plane.kubectl("delete", one["kind"], one["metadata"]["name"])
    assert "uninstalled" not in helm
    assert installed.plane.get("compositecontrollers", RELEASE)
    assert "cannot be taken off. The API server says: " in job
    assert "no-patches-by-the-job" in job
    commands = [line.strip() for line in job.splitlines() if line.startswith("  kubectl ")]
    assert len(set(commands)) == 4, job
    for command in dict.fromkeys(commands):
        installed.plane.kubectl(*_words(command), check=not command.startswith("kubectl patch compositecontroller"))
    for resource in FINALIZERS:
        assert finalizers(installed, resource, "stays") == []
    output = installed.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks")
    assert "uninstalled" in output
    installed.roll()
    for resource in FINALIZERS:
        installed.plane.kubectl("delete", resource, "stays", "--timeout=100s")


def _words(command: str) -> list[str]:

    return shlex.split(command)[1:]


def _deny_patches() -> tuple[dict[str, Any], ...]:
    """Return an admission policy against changes of parents by the Job's ServiceAccount."""
    name = "no-patches-by-the-job"
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-uninstall"
    rule = {
        "apiGroups": ["deployment.beamlit.com", "authorization.beamlit.com"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["modeldeployments", "policies"],
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1"}
    return (
        {
            **head,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": f"request.userInfo.username != {json.dumps(account)}"}],
            },
        },
        {
            **head,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    )
