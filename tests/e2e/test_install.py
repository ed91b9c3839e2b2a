"""The chart on a real API server, by the commands that users type: installed, used, upgraded, removed, and back again.

hooks, the gateway and Metacontroller run from the pods that helm rendered, under the chart's ServiceAccounts.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.guarded import GuardedPrometheus
from tests.e2e.installation import CLIENT, GATEWAY, NAMESPACE, RELEASE, Installation
from tests.e2e.pods import Image
from tests.e2e.process import CommandFailed
from tests.e2e.product import missing, set_pods_ready
from tests.e2e.traffic import Traffic
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

pytestmark = pytest.mark.own_plane

EXAMPLES = ROOT / "examples/manifests"
NAMES = ("demo", "demo-server")
"""Names of the example models. The second has a Service to the gateway, `ask-demo-server`."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own, as two installations on one would disturb each other."""
    with controlplane.running(tmp_path_factory.mktemp("fresh")) as plane:
        yield plane


@pytest.fixture(scope="module")
def installed(image: Image, fresh: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart, installed."""
    services = [f"{name}-local.{namespace}" for name in NAMES for namespace in ("default", "team-a")]
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    installation = Installation(fresh, image, chart, *services)
    with installation.proxy.running():
        try:
            installation.install("--set", "config.defaultRemoteBackend.workspace=demo")
            yield installation
        finally:
            installation.stop()


@pytest.fixture
def carried(installed: Installation) -> Installation:
    """The installed chart with the real Metacontroller; tests are skipped by name where Metacontroller is missing."""
    if reason := missing():
        pytest.skip(reason)
    return installed


def examples(namespace: str, remote: str) -> Iterator[dict[str, Any]]:
    """Yield the example manifests for a namespace, with the address of this machine's remote backend."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        text = path.read_text().replace("namespace: default", f"namespace: {namespace}")
        yield from yaml.safe_load_all(text.replace("127.0.0.1:9102", remote).replace("demo-secret ", f"{CLIENT[1]} "))


def test_the_commands_of_the_documentation(carried: Installation) -> None:
    """The documented helm install, kubectl apply, kubectl wait and curl serve a manifest of the original's form and one
    with a server."""
    plane = carried.plane
    plane.apply(*examples("default", f"127.0.0.1:{carried.remote.port}"))
    plane.kubectl("wait", "--for=condition=Ready", "--timeout=100s", *(f"modeldeployment/{name}" for name in NAMES))
    for name in NAMES:
        response = carried.ask(carried.gateway(f"/default/{name}"), model=name)
        assert (response.status, response.backend) == (200, "local"), response
        assert "tiny-local" in response.body
    header, *rows = plane.kubectl("get", "modeldeployments").splitlines()
    assert header.split() == ["NAME", "MODEL", "READY", "OFFLOADED", "REASON", "OFFLOADREADY", "AGE"]
    # The metric of demo comes from a file on one machine; no source has it here.
    reasons = {"demo": "MetricsMissing"}
    assert [row.split()[:5] for row in rows] == [
        [name, "tiny-remote", "True", "0", reasons.get(name, "Local")] for name in NAMES
    ]


def test_a_restricted_namespace_takes_all_pods(installed: Installation) -> None:
    """A namespace that admits restricted pods only has all pods of every workload."""
    workloads = installed.plane.get("deployments,statefulsets", namespace=NAMESPACE)["items"]
    assert {item["metadata"]["name"]: item["status"].get("readyReplicas") for item in workloads} == {
        f"{RELEASE}-hooks": 2,
        f"{RELEASE}-gateway": 2,
        f"{RELEASE}-metacontroller": 1,
    }
    assert all(pod.probe("liveness") == 200 for name in ("-hooks", "-gateway") for pod in installed.pods(name))


@pytest.mark.parametrize("name", ["-hooks", "-gateway", "-metacontroller"])
def test_containers_are_as_confined_as_rendered(installed: Installation, name: str) -> None:
    """Containers run without root and capabilities, cannot gain any, and cannot write to the root file system."""
    for pod in installed.pods(name):
        process = Path(f"/proc/{pod.process.pid}")
        fields = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {"65532"}
        assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"] == "1"
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        options = {mount[4]: mount[5].split(",") for mount in mounts}
        writable = {
            place for place, words in options.items() if "rw" in words and not place.startswith(("/proc", "/dev"))
        }
        assert writable == ({"/tmp"} if name != "-metacontroller" else set())


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v1/namespaces/default/pods?limit=1", 200),
        ("/api/v1/namespaces/kube-system/pods?limit=1", 403),
        ("/api/v1/pods?limit=1", 403),
        ("/api/v1/namespaces/default/pods?limit=1&watch=true", 403),
        ("/api/v1/namespaces/default/secrets?limit=1", 403),
        # 404 is past authorization: no server of this API runs here.
        ("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", 404),
        ("/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods", 403),
        ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A/requests", 404),
        ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/demo/requests", 404),
        ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/kube-system/pods/%2A/requests", 403),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_depth", 404),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/kube-system/queue_depth", 403),
        # Discovery is open to every account: versions, and the resource of a kind.
        ("/apis", 200),
        ("/api/v1", 200),
        ("/apis/apps/v1", 200),
        ("/apis/custom.metrics.k8s.io", 404),
    ],
)
def test_what_hooks_read_with_what_their_pods_have(installed: Installation, path: str, code: int) -> None:
    """With the address, token and authority in its container, hooks may read pods and metrics of the namespace and
    nothing else."""
    for pod in installed.pods("-hooks"):
        process = Path(f"/proc/{pod.process.pid}")
        environment = dict(pair.split("=", 1) for pair in (process / "environ").read_text().split("\0") if pair)
        account = process / "root/var/run/secrets/kubernetes.io/serviceaccount"
        url = f"https://{environment['KUBERNETES_SERVICE_HOST']}:{environment['KUBERNETES_SERVICE_PORT']}{path}"
        authorization = f"Authorization: Bearer {(account / 'token').read_text()}"
        flags = ("--silent", "--noproxy", "*", "--cacert", str(account / "ca.crt"), "--output", "/dev/null")
        command = ["curl", *flags, "--write-out", "%{http_code}", "--header", authorization, url]
        assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout == str(code)


def test_every_way_to_name_a_model(carried: Installation) -> None:
    """A model is found by path, by the model of the body, by its Service as `Host`, and by the Service to the
    gateway."""
    body = carried.ask(carried.gateway(), model="demo")
    host = carried.ask(carried.gateway(), "-H", "Host: demo.default.svc.cluster.local")
    named = carried.ask("http://ask-demo-server", model="demo-server")
    longer = carried.ask("http://ask-demo-server.default.svc.cluster.local", namespace="other", model="demo-server")
    for response in (body, host, named, longer):
        assert (response.status, response.backend) == (200, "local"), response
    models = carried.network.curl(carried.gateway("/v1/models")).json
    assert {one["id"] for one in models["data"]} >= set(NAMES)


def test_traffic_follows_readiness(carried: Installation, record_property: Callable[[str, object], None]) -> None:
    """Without a ready pod requests go to the remote backend, with a token that the gateway gets, and they come back
    with the pod.

    The report has the seconds from the change of the Deployment's status to the change of the traffic: less than one on
    a machine that is not busy.
    """
    took: dict[str, list[float]] = {"remote": [], "local": []}
    for _ in range(3):
        for backend, ready in (("remote", False), ("local", True)):
            set_pods_ready(carried.plane, "app=demo", ready)
            poll(lambda ready=ready: _ready_replicas(carried, "demo") == int(ready), "the API server knows")  # type: ignore[misc]
            began = time.monotonic()
            poll(lambda backend=backend: carried.ask(carried.gateway("/default/demo")).backend == backend)  # type: ignore[misc]
            took[backend].append(time.monotonic() - began)
            response = carried.ask(carried.gateway("/default/demo"))
            assert (response.status, f"tiny-{backend}" in response.body) == (200, True), response
    record_property("seconds", {backend: statistics.median(seconds) for backend, seconds in took.items()})
    carried.until("demo", Ready="True", LocalReady="True", Synced="True")


def _ready_replicas(installed: Installation, name: str, namespace: str = "default") -> int:
    return int(installed.plane.get("deployment", name, namespace)["status"].get("readyReplicas", 0))


def test_the_columns_say_what_happens(carried: Installation) -> None:
    """While the remote backend serves, `kubectl get` shows the share and the reason."""
    set_pods_ready(carried.plane, "app=demo", False)
    carried.until("demo", LocalReady="False", Synced="True")
    row = carried.plane.kubectl("get", "modeldeployment", "demo").splitlines()[1].split()
    set_pods_ready(carried.plane, "app=demo", True)
    assert row[:5] == ["demo", "tiny-remote", "True", "100", "NoReadyReplica"]
    carried.until("demo", LocalReady="True", Synced="True")


def test_helm_test(installed: Installation) -> None:
    """`helm test` passes when its pod, which is started on this machine, succeeds."""
    plane, name = installed.plane, f"{RELEASE}-test"
    outputs: list[str] = []

    def helm_test() -> None:
        try:
            outputs.append(plane.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "240s"))
        except CommandFailed as exc:
            outputs.append(str(exc))

    helm = threading.Thread(target=helm_test)
    helm.start()
    try:
        poll(lambda: plane.get("pod", name, NAMESPACE), "helm has made the pod")
        code = installed.run_once(plane.get("pod", name, NAMESPACE))
        phase = json.dumps({"status": {"phase": "Failed" if code else "Succeeded"}})
        plane.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", phase)
    finally:
        helm.join()
    assert "Phase:          Succeeded" in outputs[0]


def test_two_namespaces_and_traffic_over_an_upgrade(carried: Installation) -> None:
    """An upgrade that serves a second namespace fails no request, and keeps certificate and URL of hooks."""
    plane, before = carried.plane, _generated(carried)
    plane.kubectl("create", "namespace", "team-a")
    with Traffic(lambda: carried.network.endpoint(f"{GATEWAY}.{NAMESPACE}", 80), "/default/demo") as traffic:
        carried.upgrade("--set=config.namespaces=default\\,team-a")
        poll(lambda: traffic.count > 50, "requests go on")
    assert traffic.failures == []
    assert set(traffic.responses) == {(200, "local")}
    assert _generated(carried) == before
    plane.apply(*examples("team-a", f"127.0.0.1:{carried.remote.port}"))
    for name in NAMES:
        carried.until(name, "team-a", Ready="True", LocalReady="True", Synced="True")
        response = carried.ask(carried.gateway(f"/team-a/{name}"), model=name)
        assert (response.status, response.backend) == (200, "local"), response


def _generated(installed: Installation) -> tuple[object, ...]:
    """Return the values that the first installation generated."""
    certificate = installed.plane.get("secret", f"{RELEASE}-hooks-tls", NAMESPACE)["data"]
    webhook = installed.plane.get("compositecontroller", RELEASE)["spec"]["hooks"]["sync"]["webhook"]
    return certificate, webhook["url"], webhook["caBundle"]


def test_names_in_an_installation_of_two_namespaces(carried: Installation) -> None:
    """A Service to the gateway is found by its name with its namespace; its bare name is refused as ambiguous."""
    for namespace in ("default", "team-a"):
        response = carried.ask(f"http://ask-demo-server.{namespace}", namespace="other", model="demo-server")
        assert (response.status, response.backend) == (200, "local"), response
    ambiguous = carried.network.curl("http://ask-demo-server/health", namespace="team-a")
    assert (ambiguous.status, ambiguous.json["error"]["code"]) == (404, "ambiguous_host")
    assert "ask-demo-server.team-a" in ambiguous.json["error"]["message"]


def test_a_certificate_is_replaced(carried: Installation) -> None:
    """Deleting the generated certificate and upgrading makes a new one, which hooks and Metacontroller both use."""
    before = _generated(carried)
    carried.plane.kubectl("delete", "secret", f"{RELEASE}-hooks-tls", "-n", NAMESPACE)
    carried.upgrade()
    after = _generated(carried)
    assert all(new != old for new, old in zip(after, before, strict=True))
    _apply_edits(carried)


def test_the_bearer_token(carried: Installation) -> None:
    """With the token switched on, hooks refuse a client without it, Metacontroller sends it, and an upgrade keeps
    it."""
    carried.upgrade("--set=hooks.auth.bearer.enabled=true")
    token = carried.plane.get("secret", f"{RELEASE}-hooks-bearer", NAMESPACE)["data"]
    _apply_edits(carried)
    assert _status_without_token(carried) == "401"
    carried.upgrade("--set=gateway.replicas=1")
    assert carried.plane.get("secret", f"{RELEASE}-hooks-bearer", NAMESPACE)["data"] == token
    assert len(carried.pods("-gateway")) == 1
    carried.upgrade("--set=hooks.auth.bearer.enabled=false", "--set=gateway.replicas=2")


def test_a_rotated_password_of_prometheus(carried: Installation) -> None:
    """hooks send Prometheus the password that the Secret has now, without a restart of their pods."""
    plane, source = carried.plane, "config.metricInformer"
    with GuardedPrometheus(PASSWORDS[0]).running() as prometheus:
        _apply_password(plane, prometheus.username, PASSWORDS[0])
        carried.upgrade(
            *(f"--set={source}.type=prometheus", f"--set={source}.resolutionSeconds=1"),
            f"--set={source}.prometheus.address=127.0.0.1:{prometheus.port}",
            f"--set={source}.prometheus.basicAuth.existingSecret=prometheus-reader",
        )
        metric = {"metric": {"name": "vector(7)"}, "target": {"type": "Value", "value": 10}}
        edit = {"spec": {"offloadingConfig": {"metrics": [{"type": "External", "external": metric}]}}}
        plane.kubectl("patch", "modeldeployment", "demo", "--type=merge", "-p", json.dumps(edit))
        carried.until("demo", MetricsAvailable="True", Ready="True")
        assert (prometheus.admitted > 0, prometheus.turned_away) == (True, 0)
        known = carried.conditions("demo")["MetricsAvailable"]
        processes = [pod.process.pid for pod in carried.pods("-hooks")]
        prometheus.password = PASSWORDS[1]
        _until_metrics_are(carried, ("False", "Forbidden"))
        _apply_password(plane, prometheus.username, PASSWORDS[1])
        for pod in carried.pods("-hooks"):
            pod.refresh()
        _until_metrics_are(carried, known)
        assert [pod.process.pid for pod in carried.pods("-hooks")] == processes
    for place, text in carried.outputs().items():
        assert not [password for password in PASSWORDS if password in text], place
    plane.kubectl(
        "patch", "modeldeployment", "demo", "--type=json", "-p",
        '[{"op": "replace", "path": "/spec/offloadingConfig/metrics", "value": []}]',
    )  # fmt: skip
    carried.upgrade(f"--set={source}.type=kubernetes", f"--set={source}.prometheus=null")
    _apply_edits(carried)


PASSWORDS = ("prometheus-canary-1", "prometheus-canary-2")


def _apply_password(plane: ControlPlane, username: str, password: str) -> None:
    metadata = {"name": "prometheus-reader", "namespace": NAMESPACE}
    data = {"username": username, "password": password}
    plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})


def _until_metrics_are(installed: Installation, state: tuple[str, str]) -> None:
    """Sync the model again and again until its condition MetricsAvailable has this status and reason."""

    def holds() -> bool:
        looked = f"looked={time.monotonic()}"
        installed.plane.kubectl("annotate", "modeldeployment", "demo", looked, "--overwrite")
        return installed.conditions("demo")["MetricsAvailable"] == state

    poll(holds, f"metrics are {state}")


def test_hooks_outside_of_the_cluster(carried: Installation) -> None:
    """With `hooks.url` no hooks are deployed and Metacontroller calls those at the URL; without it, they are deployed
    again."""
    port, operations = free_port(), free_port()
    listen = ("--listen", f"127.0.0.1:{port}", "--operations", f"127.0.0.1:{operations}", "--namespaces", "")
    command = (sys.executable, "-m", "hooks", *listen)
    settings = {"PYTHONPATH": str(ROOT), "BEAMLIT_DEFAULT_REMOTE_BACKEND__WORKSPACE": "demo"}
    laptop = carried.plane.run("laptop", *command, environment=os.environ | settings)
    try:
        poll(lambda: status(f"http://127.0.0.1:{operations}/readyz") == 200, "hooks are ready")
        carried.upgrade(f"--set=hooks.url=http://127.0.0.1:{port}")
        assert carried.pods("-hooks") == []
        _apply_edits(carried)
        carried.upgrade("--set=hooks.url=")
        assert len(carried.pods("-hooks")) == 2
    finally:
        laptop.stop()
    _apply_edits(carried)


def _status_without_token(installed: Installation) -> str:
    """Return the status that hooks give to a client that trusts their certificate and has no token."""
    pod, host = installed.pods("-hooks")[0], f"{RELEASE}-hooks.{NAMESPACE}.svc"
    webhook = installed.plane.get("compositecontroller", RELEASE)["spec"]["hooks"]["sync"]["webhook"]
    authority = pod.folder / "ca.crt"
    authority.write_text(webhook["caBundle"]["inline"])
    flags = ("--silent", "--noproxy", "*", "--cacert", str(authority), "--output", "/dev/null")
    where = ("--connect-to", f"::127.0.0.1:{pod.port('https')}", f"https://{host}:8443/modeldeployments/sync")
    command = ["curl", *flags, "--write-out", "%{http_code}", "-d", "{}", *where]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def _apply_edits(installed: Installation) -> None:
    """Edit the model and wait for the effect, which takes Metacontroller and hooks that trust each other."""
    behavior = {"override": {"percentage": 40, "until": "2099-01-01T00:00:00Z"}}
    for edit, percentage in ((behavior, 40), ({"override": None}, 0)):
        patch = json.dumps({"spec": {"offloadingConfig": {"behavior": edit}}})
        installed.plane.kubectl("patch", "modeldeployment", "demo", "--type=merge", "-p", patch)
        poll(lambda percentage=percentage: installed.remote_weight("demo") == percentage, f"{percentage} %")  # type: ignore[misc]
    installed.until("demo", Ready="True", Synced="True")


def test_no_secret_is_where_it_does_not_belong(installed: Installation) -> None:
    """A secret value is in Secrets only, not in ConfigMaps, children, status, events, logs or metrics."""
    plane, canary = installed.plane, CLIENT[1]
    for resource in ("configmaps", "services", "deployments", "statefulsets", "events", "compositecontrollers", "pods"):
        everything = plane.kubectl("get", resource, "-A", "-o", "yaml")
        assert canary not in everything, resource
    for item in plane.get("modeldeployments.deployment.beamlit.com")["items"]:
        assert canary not in json.dumps(item["status"])
    for place, text in installed.outputs().items():
        assert canary not in text, place


def test_a_second_release_is_refused(installed: Installation) -> None:
    """A second release, whose controller would undo the work of the first, is refused with its reason, and nothing is
    installed."""
    words = ("--namespace", "second", "--create-namespace", "--skip-crds")
    with pytest.raises(CommandFailed, match="manages the ModelDeployments of this cluster already"):
        installed.plane.helm("install", "second", str(installed.chart), *words)
    assert "second" not in installed.plane.kubectl("get", "deployments,compositecontrollers", "-A", "-o", "name")


def test_uninstalling_leaves_what_serves(carried: Installation) -> None:
    """After uninstalling, ModelDeployments and their children stay without a finalizer, and a new installation takes
    them over without a write."""
    plane = carried.plane
    for name in NAMES:
        carried.until(name, Ready="True", LocalReady="True", Synced="True")
    before = {name: carried.versions(name) for name in NAMES}
    output = carried.uninstall()
    assert "uninstalled" in output
    for name in NAMES:
        assert not carried.parent(name)["metadata"].get("finalizers")
        assert plane.get("service", f"{name}-local")["spec"]["selector"]
    assert {name: carried.versions(name) for name in NAMES} == before
    assert status(f"{carried.local.url}/health") == 200
    carried.install(
        *("--set", "config.defaultRemoteBackend.workspace=demo", "--set=config.namespaces=default\\,team-a"),
    )
    poll(lambda: carried.syncs() >= 4, "all are synced again")
    for name in NAMES:
        carried.until(name, Ready="True", Synced="True")
        response = carried.ask(carried.gateway(f"/default/{name}"), model=name)
        assert (response.status, response.backend) == (200, "local"), response
    assert {name: carried.versions(name) for name in NAMES} == before


def test_deleting_first_removes_the_children_too(carried: Installation) -> None:
    """`kubectl delete modeldeployments -A --all` before `helm uninstall` leaves no object that was created for them."""
    plane = carried.plane
    plane.kubectl("delete", "modeldeployments", "-A", "--all")
    # The garbage collector discovers new kinds every half minute.
    for namespace in ("default", "team-a"):
        for resource, name in (("deployment", "demo-server"), ("configmap", "demo-route"), ("service", "demo-local")):
            poll(lambda: not plane.get(resource, name, namespace), f"{resource} {name} goes")  # noqa: B023
        assert plane.get("deployment", "demo", namespace), "what was adopted is the user's"
    poll(lambda: carried.ask(carried.gateway("/default/demo")).status == 404, "the gateway knows")
    carried.uninstall()
    assert GATEWAY not in plane.kubectl("get", "deployments,services", "-A")
    assert "modeldeployments.deployment.beamlit.com" in plane.kubectl("get", "crds")


@pytest.mark.parametrize("kind", ["crds", "charts/beamlit-controller/crds"])
def test_the_documented_upgrade_of_the_crds(fresh: ControlPlane, kind: str) -> None:
    """`kubectl apply --server-side` of the CRDs succeeds over those that helm installed."""
    assert "serverside-applied" in fresh.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / kind))
    assert Path(ROOT, kind).is_dir()
