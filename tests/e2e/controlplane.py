"""A real control plane on loopback: etcd, kube-apiserver with RBAC, controller-manager, scheduler, and kwok as node.

Everything runs as processes of this machine on free ports, keeps its files in one folder, and ends with its context.
`python -m tests.e2e.controlplane` runs one by itself.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import yaml

from tests.e2e import aggregation, audit, credentials
from tests.e2e.aggregation import ADAPTER, Adapter
from tests.e2e.audit import WRITES
from tests.e2e.binaries import TEST_ADAPTER_LISTEN, BuildError, find, kwok_files
from tests.e2e.process import CommandFailed, MissingProgram, Process, program
from tests.e2e.reader import Reader
from tests.processes import poll
from tools.ports import free_port

__all__ = [
    "EXISTING", "NEEDS_ITS_OWN", "NODE", "NODE_LABEL", "PROGRAMS", "SERVICES", "WRITES", "CommandFailed",
    "ControlPlane", "MissingProgram", "Process", "existing", "program", "require", "running",
]  # fmt: skip

SERVICES: Final = "10.0.0.0/16"
NODE: Final = "node-0"
NODE_LABEL: Final = "e2e.beamlit.com/node"
"""Label, and on an existing cluster also taint, of the node that fakes its pods."""
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "helm")
EXISTING: Final = "E2E_KUBECONFIG"
NEEDS_ITS_OWN: Final = f"needs a control plane of its own: {EXISTING} points at an existing cluster"
_STAGES: Final = (
    "stage/node/fast/node-initialize",
    "stage/node/heartbeat-with-lease/node-heartbeat-with-lease",
    "stage/pod/fast/pod-complete",
    "stage/pod/fast/pod-delete",
    "stage/pod/fast/pod-ready",
    "metrics/resource/metrics-resource",
    "metrics/usage/usage-from-annotation",
)
"""Description of what a node and its pods do, and how much of it they use: the annotations `kwok.x-k8s.io/usage-cpu`
and `usage-memory` of a pod, which can change at any moment."""


def existing() -> Path | None:
    """Return the kubeconfig of the cluster to test on; None when the tests start a control plane themselves."""
    named = os.environ.get(EXISTING)
    return Path(named) if named else None


def require(names: Sequence[str], remedy: str = "`make e2e` builds what is not on PATH") -> None:
    """Skip the test by name where a program is missing; in CI that is a failure."""
    gone = [name for name in names if find(name) is None]
    if not gone:
        return
    reason = f"{', '.join(gone)}: missing, {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class ControlPlane:
    """An API server and the processes that belong to it."""

    programs: ClassVar[Sequence[str]] = PROGRAMS
    """Programs without which it does not start."""
    addresses: ClassVar[Sequence[str]] = ("127.0.0.1",)
    """Addresses for which the API server has a certificate."""
    users: ClassVar[Sequence[tuple[str, str, str]]] = ()
    """Token, name and group of users beside those of the control plane itself."""
    listening: ClassVar[Sequence[str]] = (
        *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
        *("--endpoint-reconciler-type", "none"),
    )
    """Flags of the API server that say where it listens, and which address pods are told."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "admin.kubeconfig"
        self.audit_log = folder / "audit.log"
        self.certificate = folder / "apiserver.crt"
        self.processes: dict[str, Process] = {}
        self.adapter: Adapter | None = None
        """The test-adapter with its values, where it runs."""
        self.kubelet_port = free_port()
        """Port of its node, from which metrics-server reads the usage of pods."""
        self._reader = Reader(self.url, self.certificate, credentials.ADMIN)

    def start(self) -> None:
        """Start everything and return when a node is ready.

        Raises:
            MissingProgram: a program is missing.
        """
        for name in self.programs:
            program(name)
        self._write_files()
        etcd = f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            *("--data-dir", f"{self.folder}/etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{free_port()}", "--unsafe-no-fsync", "--log-level", "warn"),
        )
        self._run(
            "kube-apiserver",
            *("--etcd-servers", etcd, *self.listening),
            *("--secure-port", str(self.port), *self._serving(), "--cert-dir", f"{self.folder}/certs"),
            *("--service-account-key-file", f"{self.folder}/sa.pub"),
            *("--service-account-signing-key-file", f"{self.folder}/sa.key"),
            *("--service-account-issuer", "https://kubernetes.default.svc", "--authorization-mode", "Node,RBAC"),
            *("--token-auth-file", f"{self.folder}/tokens.csv"),
            *("--service-cluster-ip-range", SERVICES, "--allow-privileged", "--profiling=false"),
            *("--audit-policy-file", f"{self.folder}/audit.yaml", "--audit-log-path", str(self.audit_log)),
            # For API servers that are registered behind this one.
            *("--requestheader-client-ca-file", f"{self.folder}/front-proxy.crt"),
            *("--requestheader-allowed-names", credentials.FRONT_PROXY),
            *("--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group"),
            *("--requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            *("--proxy-client-cert-file", f"{self.folder}/front-proxy.crt"),
            *("--proxy-client-key-file", f"{self.folder}/front-proxy.key"),
        )
        poll(self.ready, "the API server is ready")
        manager = self.write_kubeconfig("controller-manager", credentials.CONTROLLER_MANAGER)
        self._run(
            "kube-controller-manager",
            *("--kubeconfig", str(manager), "--service-account-private-key-file", f"{self.folder}/sa.key"),
            *("--root-ca-file", str(self.certificate), "--leader-elect=false", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(free_port()), *self._serving(), "--concurrent-gc-syncs", "10"),
            *("--kube-api-qps", "200", "--kube-api-burst", "400", "--use-service-account-credentials"),
            # A node that misses a heartbeat would make all its pods unready.
            *("--node-monitor-grace-period", "1h"),
        )
        scheduler = self.write_kubeconfig("scheduler", credentials.SCHEDULER)
        self._run(
            "kube-scheduler",
            *("--kubeconfig", str(scheduler), "--leader-elect=false", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(free_port()), *self._serving()),
            *("--kube-api-qps", "200", "--kube-api-burst", "400"),
        )
        self.start_nodes()
        poll(lambda: self.get("serviceaccount", "default"), "service accounts are made")

    def start_nodes(self) -> None:
        """Start the node that fakes its pods."""
        self.start_node(self.write_kubeconfig("kwok", credentials.KWOK), NODE)

    def start_node(self, kubeconfig: Path, name: str, taints: Sequence[Mapping[str, str]] = ()) -> None:
        """Create a node of that name whose pods are Running and Ready as soon as they exist, and start kwok to play
        it."""
        stages = ",".join(str(kwok_files() / f"{stage}.yaml") for stage in _STAGES)
        self._run(
            "kwok",
            *("--kubeconfig", str(kubeconfig), "--config", stages),
            *("--manage-nodes-with-annotation-selector", f"{NODE_LABEL}={name}", "--node-ip", "127.0.0.1"),
            *("--node-port", str(self.kubelet_port), "--server-address", f"127.0.0.1:{self.kubelet_port}"),
            *self._serving(),
        )
        self.apply(_node(name, taints))
        poll(lambda: self.is_ready("nodes", name, "Ready"), f"{name} is ready")

    def start_metrics_server(self) -> None:
        """Start metrics-server, which serves metrics.k8s.io and so `kubectl top`: with the usage that the pods'
        annotations had 10 to 20 seconds ago.

        Return when the API server passes requests on to it. The first samples of a pod are there after two scrapes.
        """
        if "metrics-server" in self.processes:
            return
        require(("metrics-server",))
        kubeconfig = str(self.write_kubeconfig("metrics-server", credentials.METRICS_SERVER))
        port = free_port()
        self._run(
            "metrics-server",
            *("--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig),
            *("--authorization-kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", str(port)),
            *(*self._serving(), "--kubelet-insecure-tls", "--kubelet-preferred-address-types", "InternalIP"),
            *("--kubelet-port", str(self.kubelet_port), "--metric-resolution", "10s"),
            *("--kubelet-request-timeout", "3s"),
        )
        self.serve("metrics.k8s.io", ("v1beta1",), "metrics-server", port)

    def start_test_adapter(self) -> Adapter:
        """Start the test-adapter, which serves custom.metrics.k8s.io and external.metrics.k8s.io, under RBAC, with the
        values that tests set.

        Return when the API server passes requests on to it, also where another server has served the group meanwhile.
        """
        if self.adapter is None:
            require((ADAPTER,))
            self.apply(*aggregation.adapter_rules())
            kubeconfig = str(self.service_account(aggregation.NAMESPACE, ADAPTER))
            self.adapter = Adapter(free_port(), f"127.0.0.1:{free_port()}")
            self.run(
                ADAPTER,
                *(program(ADAPTER), "--lister-kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig),
                *("--authorization-kubeconfig", kubeconfig, "--bind-address", "127.0.0.1"),
                *("--secure-port", str(self.adapter.port), *self._serving(), "--cert-dir", f"{self.folder}/certs"),
                environment=os.environ | {TEST_ADAPTER_LISTEN: self.adapter.address},
            )
        self.serve("custom.metrics.k8s.io", aggregation.CUSTOM, ADAPTER, self.adapter.port)
        self.serve("external.metrics.k8s.io", aggregation.EXTERNAL, ADAPTER, self.adapter.port)
        return self.adapter

    def serve(self, group: str, versions: Sequence[str], name: str, port: int) -> None:
        """Have the API server at a port of this machine serve an API group, by a Service of that name.

        Return when the control plane's API server passes requests on to it.
        """
        for version in versions:
            self.apply(*aggregation.registration(group, version, name, port))
        for version in versions:
            self.until_served(f"{version}.{group}")

    def until_served(self, name: str) -> None:
        """Wait until the API server passes on requests for an APIService, `version.group`."""
        poll(lambda: self.is_ready("apiservice", name, "Available"), f"{name} is served")

    def stop(self) -> None:
        """End every process, the last one started first. A control plane that is thrown away needs no cleanup."""
        self._reader.close()
        for name, process in reversed(self.processes.items()):
            process.stop(signal.SIGKILL if name in _DISPOSABLE else signal.SIGTERM, seconds=5)

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        return self._reader.ready()

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl; return what it prints.

        Raises:
            CommandFailed: it ended with an error, unless `check` is false: then the output is empty.
        """
        command = [program("kubectl"), "--kubeconfig", str(kubeconfig or self.kubeconfig), *words]
        result = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120)
        if result.returncode:
            if check:
                raise CommandFailed(result.stderr.strip() or result.stdout.strip())
            return ""
        return result.stdout

    def helm(self, *words: str) -> str:
        """Run helm; return what it prints.

        Raises:
            CommandFailed: it ended with an error.
        """
        homes = {f"HELM_{name}_HOME": f"{self.folder}/helm/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
        result = subprocess.run(
            [program("helm"), "--kubeconfig", str(self.kubeconfig), *words],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | homes,
        )
        if result.returncode:
            raise CommandFailed(result.stderr.strip())
        return result.stdout

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None) -> str:
        """Run `kubectl apply` with these objects."""
        scope = ("-n", namespace) if namespace else ()
        return self.kubectl("apply", *scope, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, resource: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """Return an object, or a list of all when no name is given; an empty one when there is none."""
        return self._reader.get(resource, name, namespace)

    def write_kubeconfig(self, name: str, token: str) -> Path:
        """Write a kubeconfig for a token, and return its path."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = self._cluster()
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "e2e",
                    "clusters": [{"name": "e2e", "cluster": cluster}],
                    "users": [{"name": name, "user": {"token": token}}],
                    "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": name, "namespace": "default"}}],
                }
            )
        )
        return path

    def service_account(self, namespace: str, name: str) -> Path:
        """Return the path of a kubeconfig that acts as a ServiceAccount, with its rights."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration", "24h").strip()
        return self.write_kubeconfig(f"{namespace}-{name}", token)

    def run(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a process that ends with the control plane."""
        process = self.processes[name] = Process(name, self.folder, list(command), environment)
        return process

    def audit(self) -> Iterator[dict[str, Any]]:
        """Yield every request in the audit log, in the form of `audit.read`."""
        return audit.read(self.audit_log)

    def writes(self) -> list[dict[str, Any]]:
        """Return every write in the audit log, in the form of `audit`."""
        return [entry for entry in self.audit() if entry["verb"] in WRITES]

    def _run(self, name: str, *flags: str) -> None:
        self.run(name, program(name), *flags)

    def _cluster(self) -> dict[str, Any]:
        """Return the cluster entry of kubeconfigs: the API server's address and authority."""
        return {"server": self.url, "certificate-authority": str(self.certificate)}

    def _serving(self) -> tuple[str, ...]:
        """Return flags for one certificate that all servers share, as making one takes each of them a while."""
        return (
            "--tls-cert-file",
            f"{self.folder}/apiserver.crt",
            "--tls-private-key-file",
            f"{self.folder}/apiserver.key",
        )

    def is_ready(self, resource: str, name: str, condition: str) -> bool:
        """Return whether a condition of an object holds."""
        conditions = self.get(resource, name).get("status", {}).get("conditions", ())
        return any(one["type"] == condition and one["status"] == "True" for one in conditions)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        credentials.write(self.folder, self.addresses, self.users)
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(audit.POLICY))
        self.write_kubeconfig("admin", credentials.ADMIN)


_DISPOSABLE: Final = frozenset((*PROGRAMS, "metrics-server", ADAPTER))


def _node(name: str, taints: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    capacity = {"cpu": "4000", "memory": "8000Gi", "pods": "10000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {
                NODE_LABEL: name,
                "metrics.k8s.io/resource-metrics-path": f"/metrics/nodes/{name}/metrics/resource",
            },
            "labels": {"kubernetes.io/os": "linux", NODE_LABEL: "fake"},
        },
        "spec": {"taints": list(taints)},
        "status": {"allocatable": capacity, "capacity": capacity},
    }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane for as long as the context lasts, for tests that need one of their own.

    Tests are skipped by name where the suite runs on an existing cluster, or where a program is missing; the latter is
    a failure in CI.
    """
    if existing():
        pytest.skip(NEEDS_ITS_OWN)
    require(PROGRAMS)
    plane = ControlPlane(folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def main() -> int:
    """Run a control plane until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.controlplane", description=main.__doc__)
    parser.add_argument("--metrics-server", action="store_true", help="serve metrics.k8s.io too")
    parser.add_argument("--folder", type=Path, help="where its files go; a temporary folder when left out")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="controlplane-")))
        plane = ControlPlane(folder.resolve())
        stack.callback(plane.stop)
        try:
            if arguments.metrics_server:
                program("metrics-server")
            plane.start()
            if arguments.metrics_server:
                plane.start_metrics_server()
            print(plane.kubeconfig, flush=True)
            while True:
                signal.pause()
        except (MissingProgram, BuildError, AssertionError) as exc:
            print(exc, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
