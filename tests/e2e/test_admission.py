"""The chart's admission policy on a real API server: spec.server needs the right to create Deployments.

Two accounts may write ModelDeployments in the namespaces team-a and team-b, their status too. The builder may also
create Deployments in team-a.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane
from tests.e2e.controlplane import CommandFailed, ControlPlane
from tests.e2e.installation import METACONTROLLER, NAMESPACE, RELEASE
from tests.e2e.product import model_deployment
from tests.processes import poll

pytestmark = pytest.mark.own_plane

HERE, THERE = "team-a", "team-b"
TEMPLATE = {"spec": {"containers": [{"name": "server", "image": "example.com/model:1"}]}}
SERVER = {"replicas": 1, "port": 8000, "template": TEMPLATE}
REFUSED = "needs the right to create Deployments there"


class Accounts:
    """A control plane with the chart, and the accounts of users."""

    def __init__(self, plane: ControlPlane, chart: Path) -> None:
        self.plane, self.chart = plane, chart
        self.writer, self.builder = (self._account(name) for name in ("writer", "builder"))
        self._grant(HERE, "builder", ("create",), "apps", ("deployments",))

    def _account(self, name: str) -> Path:
        kubectl = self.plane.kubectl
        kubectl("create", "serviceaccount", name, "-n", HERE)
        for namespace in (HERE, THERE):
            verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
            resources = ("modeldeployments", "modeldeployments/status")
            self._grant(namespace, name, verbs, "deployment.beamlit.com", resources)
        return self.plane.service_account(HERE, name)

    def _grant(self, namespace: str, name: str, verbs: Sequence[str], group: str, resources: Sequence[str]) -> None:
        # As objects: `kubectl create role` asks for the kind, which the chart has not installed yet.
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": f"{name}-{resources[0]}", "namespace": namespace},
            "rules": [{"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}],
        }
        self.plane.kubectl("create", "-f", "-", stdin=json.dumps(role))
        words = (f"--role={name}-{resources[0]}", f"--serviceaccount={HERE}:{name}")
        self.plane.kubectl("create", "rolebinding", f"{name}-{resources[0]}", "-n", namespace, *words)

    def create(self, account: Path, name: str, namespace: str = HERE, **spec: Any) -> str:
        """Create a ModelDeployment as an account; return what kubectl prints, also where it is refused."""
        text = json.dumps(model_deployment(name, **spec))
        return self.do(account, "create", "-f", "-", namespace=namespace, stdin=text)

    def do(self, account: Path, *words: str, namespace: str = HERE, stdin: str | None = None) -> str:
        """Run kubectl as an account; return what it prints, also where it is refused."""
        try:
            return self.plane.kubectl(*words, "-n", namespace, stdin=stdin, kubeconfig=account)
        except CommandFailed as exc:
            return str(exc)

    def patch(self, account: Path, name: str, patch: dict[str, Any], *words: str) -> str:
        """Change a ModelDeployment as an account, and return what kubectl prints."""
        return self.do(account, "patch", "modeldeployment", name, "--type=merge", "-p", json.dumps(patch), *words)

    def refuses(self) -> bool:
        """Return whether the policy is in force, which takes the API server a moment; nothing is stored."""
        text = json.dumps(model_deployment("probe", server=SERVER))
        words = ("create", "--dry-run=server", "-f", "-")
        return REFUSED in self.do(self.writer, *words, stdin=text)

    def left(self) -> str:
        """Return the names of the release's objects that no namespace has."""
        kinds = "clusterroles,clusterrolebindings,compositecontrollers"
        kinds += ",validatingadmissionpolicies,validatingadmissionpolicybindings"
        names = self.plane.kubectl("get", kinds, "-o", "name")
        return "\n".join(name for name in names.splitlines() if RELEASE in name)


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    """Accounts on a control plane of this module's own, with the chart installed and its policy in force."""
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    with controlplane.running(tmp_path_factory.mktemp("plane")) as plane:
        for namespace in (NAMESPACE, HERE, THERE):
            plane.kubectl("create", "namespace", namespace)
        accounts = Accounts(plane, chart)
        plane.helm("install", RELEASE, str(chart), "--namespace", NAMESPACE)
        poll(accounts.refuses, "the policy is in force")
        yield accounts


@pytest.fixture(scope="module")
def built(accounts: Accounts) -> Accounts:
    """The accounts, with a ModelDeployment `built` that has a server."""
    assert accounts.create(accounts.builder, "built", server=SERVER).endswith("created\n")
    return accounts


def test_a_server_needs_the_right_to_create_deployments(built: Accounts) -> None:
    """A user who may write ModelDeployments only creates none with a server, and is told what to do."""
    said = built.create(built.writer, "other", server=SERVER)
    assert "forbidden" in said.lower()
    assert REFUSED in said
    assert "Ask for that right (create deployments.apps), or leave spec.server as it is" in said
    assert built.create(built.writer, "adopting").endswith("created\n")


def test_the_right_is_that_of_the_namespace(built: Accounts) -> None:
    """A user who may create Deployments in one namespace creates no ModelDeployment with a server in another one."""
    assert REFUSED in built.create(built.builder, "built", THERE, server=SERVER)


@pytest.mark.parametrize(
    "server",
    [
        {"replicas": 5},
        {"template": {"spec": {"serviceAccountName": "admin"}}},
        {"template": {"metadata": {"labels": {"a": "b"}}}},
    ],
    ids=["replicas", "account", "labels"],
)
def test_a_change_of_the_server_needs_it_too(built: Accounts, server: dict[str, Any]) -> None:
    """A user without the right changes nothing in a server, also in what the schema does not name."""
    assert REFUSED in built.patch(built.writer, "built", {"spec": {"server": server}})
    assert built.patch(built.builder, "built", {"spec": {"server": server}}).endswith("patched\n")


def test_a_server_that_is_added_needs_it_too(built: Accounts) -> None:
    """A user without the right adds no server to a ModelDeployment that had none, and none again that was removed."""
    assert built.create(built.writer, "grown").endswith("created\n")
    added = {"spec": {"server": SERVER, "modelSourceRef": None}}
    removed = {
        "spec": {"server": None, "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo"}}
    }
    assert REFUSED in built.patch(built.writer, "grown", added)
    assert built.patch(built.builder, "grown", added).endswith("patched\n")
    assert built.patch(built.writer, "grown", removed).endswith("patched\n")
    assert REFUSED in built.patch(built.writer, "grown", added)


def test_other_changes_pass(built: Accounts) -> None:
    """Changes that leave the server as it is pass: of the rest, labels, finalizers, the status; and so do deletions."""
    account = built.writer
    assert built.create(built.builder, "passing", server=SERVER).endswith("created\n")
    assert built.patch(account, "passing", {"spec": {"model": "another"}}).endswith("patched\n")
    assert built.patch(account, "passing", {"metadata": {"labels": {"a": "b"}}}).endswith("patched\n")
    assert built.patch(account, "passing", {"metadata": {"finalizers": ["example.com/x"]}}).endswith("patched\n")
    assert built.patch(account, "passing", {"metadata": {"finalizers": None}}).endswith("patched\n")
    status = {"status": {"observedGeneration": 1}}
    assert built.patch(account, "passing", status, "--subresource=status").endswith("patched\n")
    assert "deleted" in built.do(account, "delete", "modeldeployment", "passing", "--timeout=100s")


def test_metacontroller_writes_as_before(built: Accounts) -> None:
    """Metacontroller's account writes status and finalizers of a ModelDeployment with a server."""
    account = built.plane.service_account(NAMESPACE, METACONTROLLER)
    one = json.loads(built.plane.kubectl("get", "modeldeployment", "built", "-n", HERE, "-o", "json"))
    one["metadata"]["finalizers"] = ["metacontroller.io/compositecontroller-x"]
    assert "replaced" in built.do(account, "replace", "-f", "-", stdin=json.dumps(one))
    one = json.loads(built.plane.kubectl("get", "modeldeployment", "built", "-n", HERE, "-o", "json"))
    one["status"] = {"observedGeneration": 1}
    assert "replaced" in built.do(account, "replace", "--subresource=status", "-f", "-", stdin=json.dumps(one))
    assert built.patch(built.builder, "built", {"metadata": {"finalizers": None}}).endswith("patched\n")


def test_turned_off_and_uninstalled(built: Accounts) -> None:
    """Without its value the policy goes and comes back with it, and an uninstallation leaves nothing of it."""
    words = (RELEASE, str(built.chart), "--namespace", NAMESPACE, "--reuse-values")
    built.plane.helm("upgrade", *words, "--set=admissionPolicy.enabled=false")
    assert "validatingadmission" not in built.left()
    poll(lambda: not built.refuses(), "the policy is gone")
    assert built.create(built.writer, "free", server=SERVER).endswith("created\n")
    built.plane.helm("upgrade", *words, "--set=admissionPolicy.enabled=true")
    assert "validatingadmission" in built.left()
    poll(built.refuses, "the policy is back")
    built.plane.kubectl("delete", "modeldeployments", "-A", "--all", "--timeout=100s")
    built.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    assert built.left() == ""
    poll(lambda: not built.refuses(), "nothing refuses any more")
