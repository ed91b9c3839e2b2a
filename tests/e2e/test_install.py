"""The chart on a real API server: installed, used under its own RBAC, upgraded and removed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane
from tests.e2e.binaries import find
from tests.e2e.controlplane import ControlPlane
from tests.e2e.product import METACONTROLLER_CRDS, ROOT, Product, missing, model_deployment, workload
from tests.processes import poll

RELEASE = "beamlit-controller"
NAMESPACE = "beamlit-system"
METACONTROLLER = "beamlit-metacontroller"


class Installed(Product):
    """The product as the chart installs it; its programs run here, under the chart's ServiceAccounts."""

    def __init__(self, plane: ControlPlane, chart: Path) -> None:
        super().__init__(plane)
        self.chart = chart

    def start(self) -> None:
        """helm install, then hooks and Metacontroller as processes."""
        plane = self.plane
        plane.kubectl("apply", "--server-side", "-f", os.environ[METACONTROLLER_CRDS])
        plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", os.environ[METACONTROLLER_CRDS])
        config = plane.folder / "config.yaml"
        config.write_text("namespaces: ''\ndefaultRemoteBackend: {workspace: acme}\n")
        self.hooks = plane.run(
            "hooks",
            *(sys.executable, "-m", "hooks", "--config", str(config), "--listen", f"127.0.0.1:{self.port}"),
            *("--operations", f"127.0.0.1:{self.operations}"),
            environment=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        poll(self._hooks_ready, 20, "hooks are ready")
        self.helm("install", "--create-namespace", "--wait", "--timeout", "60s")
        program = find("metacontroller")
        assert program is not None
        self.metacontroller = plane.run(
            "metacontroller",
            *(str(program), "--kubeconfig", str(plane.service_account(NAMESPACE, METACONTROLLER))),
            *("--discovery-interval=1s", "--metrics-address=0", "--health-probe-bind-address=0"),
            *("--target-label-selector=app.kubernetes.io/part-of=beamlit-controller",),
        )

    def helm(self, command: str, *words: str) -> str:
        """helm install or upgrade, with hooks on this machine."""
        url = f"--set=hooks.url=http://127.0.0.1:{self.port}"
        return self.plane.helm(command, RELEASE, str(self.chart), "--namespace", NAMESPACE, url, *words)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own: two installations in one would fight."""
    if reason := missing():
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("fresh")) as plane:
        yield plane


@pytest.fixture(scope="module")
def installed(fresh: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The chart, installed."""
    product = Installed(fresh, with_dependencies(tmp_path_factory.mktemp("chart")))
    product.start()
    yield product
    product.metacontroller.stop()
    product.hooks.stop()


def test_a_model_is_served_under_the_charts_rules(installed: Installed) -> None:
    """Adopted and created: Ready, with the rights that the chart gives and no others."""
    template = workload("x")["spec"]["template"]["spec"]
    server = {"replicas": 1, "port": 8000, "template": {"spec": template}}
    installed.plane.apply(workload("adopted"), model_deployment("adopted"), model_deployment("served", server=server))
    for name in ("adopted", "served"):
        installed.until(name, Ready="True", LocalReady="True", Synced="True")
    assert "forbidden" not in installed.metacontroller.log.read_text().lower()


@pytest.mark.parametrize(
    ("account", "question", "answer"),
    [
        (METACONTROLLER, ("create", "deployments.apps"), "yes"),
        (METACONTROLLER, ("delete", "configmaps"), "yes"),
        (METACONTROLLER, ("update", "modeldeployments.deployment.beamlit.com", "--subresource=status"), "yes"),
        (METACONTROLLER, ("delete", "modeldeployments.deployment.beamlit.com"), "no"),
        (METACONTROLLER, ("get", "secrets"), "no"),
        (METACONTROLLER, ("list", "secrets"), "no"),
        (METACONTROLLER, ("create", "pods"), "no"),
        (METACONTROLLER, ("create", "clusterroles.rbac.authorization.k8s.io"), "no"),
        ("beamlit-controller-gateway", ("watch", "configmaps"), "yes"),
        ("beamlit-controller-gateway", ("get", "secrets"), "yes"),
        ("beamlit-controller-gateway", ("list", "secrets"), "no"),
        ("beamlit-controller-gateway", ("update", "configmaps"), "no"),
        ("beamlit-controller-gateway", ("get", "secrets", "--namespace=kube-system"), "no"),
    ],
)
def test_what_each_account_may_do(installed: Installed, account: str, question: tuple[str, ...], answer: str) -> None:
    """What must be no is no."""
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    namespace = () if any("namespace" in word for word in question) else ("--namespace=default",)
    said = installed.plane.kubectl("auth", "can-i", *question, *namespace, user, check=False).strip()
    assert (said or "no") == answer


def test_an_upgrade_keeps_certificate_and_token(fresh: ControlPlane, installed: Installed) -> None:
    """What was generated at the first installation is found again by an upgrade, and the webhook's URL stays."""
    chart = str(installed.chart)
    name, namespace = "second", "second"
    words = ("--namespace", namespace, "--set=hooks.auth.bearer.enabled=true", "--skip-crds")
    fresh.helm("install", name, chart, "--create-namespace", *words)

    def generated() -> tuple[object, ...]:
        tls = fresh.get("secret", "second-beamlit-controller-hooks-tls", namespace)["data"]
        token = fresh.get("secret", "second-beamlit-controller-hooks-bearer", namespace)["data"]
        controller = fresh.get("compositecontroller", "second-beamlit-controller")
        return tls, token, controller["spec"]["hooks"]["sync"]["webhook"]["url"]

    before = generated()
    fresh.helm("upgrade", name, chart, *words, "--set=gateway.replicas=3")
    assert generated() == before
    assert fresh.get("deployment", "second-beamlit-controller-gateway", namespace)["spec"]["replicas"] == 3
    fresh.helm("uninstall", name, "--namespace", namespace)
    for model in ("adopted", "served"):
        installed.until(model, Ready="True", Synced="True")


def test_uninstalling_leaves_what_serves(installed: Installed) -> None:
    """No finalizer; ModelDeployments and their children stay; a new installation takes them over without a write."""
    plane = installed.plane
    before = {name: installed.versions(name) for name in ("adopted", "served")}
    plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    installed.metacontroller.stop()
    assert {name: installed.versions(name) for name in ("adopted", "served")} == before
    for name in ("adopted", "served"):
        assert not installed.parent(name)["metadata"].get("finalizers")
    installed.helm("install", "--skip-crds")
    plane.write_kubeconfig(f"{NAMESPACE}-{METACONTROLLER}", plane.kubectl(
        "create", "token", METACONTROLLER, "-n", NAMESPACE, "--duration", "24h").strip())  # fmt: skip
    syncs = installed.syncs()
    installed.metacontroller.start()
    poll(lambda: installed.syncs() >= syncs + 2, 60, "both are synced again")
    for name in ("adopted", "served"):
        installed.until(name, Ready="True", Synced="True")
    assert {name: installed.versions(name) for name in ("adopted", "served")} == before
    plane.kubectl("delete", "modeldeployments", "--all")
    # The garbage collector looks for new kinds every half minute.
    poll(lambda: not plane.get("deployment", "served"), 90, "children go with their parents")
    assert plane.get("deployment", "adopted")
