"""A real control plane on loopback: etcd, kube-apiserver with RBAC, controller-manager, scheduler, and kwok as node.

Everything runs as processes of this machine on free ports, keeps its files in one folder, and ends with its context.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.binaries import TOOLS, find
from tests.processes import free_port, poll

SERVICES: Final = "10.0.0.0/16"
NODE: Final = "node-0"
_ADMIN: Final = "admin-token"
_USERS: Final = (
    (_ADMIN, "admin", "system:masters"),
    ("controller-manager-token", "system:kube-controller-manager", "system:kube-controller-manager"),
    ("scheduler-token", "system:kube-scheduler", "system:kube-scheduler"),
    ("kwok-token", "kwok", "system:masters"),
)
WRITES: Final = ["create", "update", "patch", "delete", "deletecollection"]
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "helm")


class MissingProgram(Exception):
    """A program of the control plane is not there."""


class CommandFailed(Exception):
    """A command ended with an error; the message is what it said."""


def program(name: str) -> str:
    """The path of a program.

    Raises:
        MissingProgram: it is nowhere.
    """
    path = find(name)
    if path is None:
        raise MissingProgram(f"{name} is missing: `make e2e` builds it")
    return str(path)


class Process:
    """A process of ours with a log of its own; ended by its id."""

    def __init__(
        self, name: str, folder: Path, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.log = folder / f"{name}.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, again if need be."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """End it and return its exit code; killed when it does not go in time."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


class ControlPlane:
    """The API server and what belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "admin.kubeconfig"
        self.audit_log = folder / "audit.log"
        self.certificate = folder / "apiserver.crt"
        self._etcd_port = free_port()
        self._stack = contextlib.ExitStack()
        self.processes: dict[str, Process] = {}

    def start(self) -> None:
        """Start everything and return when a node is ready.

        Raises:
            MissingProgram: a program is missing.
        """
        for name in PROGRAMS:
            program(name)
        self._write_files()
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._run(
            "etcd",
            *("--data-dir", f"{self.folder}/etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{free_port()}", "--unsafe-no-fsync", "--log-level", "warn"),
        )
        self._run(
            "kube-apiserver",
            *("--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(self.port), "--tls-cert-file", str(self.certificate)),
            *("--tls-private-key-file", f"{self.folder}/apiserver.key", "--cert-dir", f"{self.folder}/certs"),
            *("--service-account-key-file", f"{self.folder}/sa.pub"),
            *("--service-account-signing-key-file", f"{self.folder}/sa.key"),
            *("--service-account-issuer", "https://kubernetes.default.svc", "--authorization-mode", "Node,RBAC"),
            *("--token-auth-file", f"{self.folder}/tokens.csv", "--endpoint-reconciler-type", "none"),
            *("--service-cluster-ip-range", SERVICES, "--allow-privileged", "--profiling=false"),
            *("--audit-policy-file", f"{self.folder}/audit.yaml", "--audit-log-path", str(self.audit_log)),
        )
        poll(self.ready, 60, "the API server is ready")
        manager = self.write_kubeconfig("controller-manager", "controller-manager-token")
        self._run(
            "kube-controller-manager",
            *("--kubeconfig", str(manager), "--service-account-private-key-file", f"{self.folder}/sa.key"),
            *("--root-ca-file", str(self.certificate), "--leader-elect=false", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(free_port()), "--cert-dir", f"{self.folder}/certs", "--concurrent-gc-syncs", "10"),
            *("--kube-api-qps", "200", "--kube-api-burst", "400", "--use-service-account-credentials"),
            # A node that misses a heartbeat would take the readiness of all pods with it.
            *("--node-monitor-grace-period", "1h"),
        )
        scheduler = self.write_kubeconfig("scheduler", "scheduler-token")
        self._run(
            "kube-scheduler",
            *("--kubeconfig", str(scheduler), "--leader-elect=false", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(free_port()), "--cert-dir", f"{self.folder}/certs"),
            *("--kube-api-qps", "200", "--kube-api-burst", "400"),
        )
        kwok = self.write_kubeconfig("kwok", "kwok-token")
        stages = ",".join(self._stages())
        self._run("kwok", "--kubeconfig", str(kwok), "--manage-all-nodes=true", "--config", stages)
        self.apply(_node())
        poll(lambda: self.get("nodes", NODE).get("status", {}).get("conditions"), 30, "the node is there")
        poll(lambda: self.kubectl("get", "serviceaccount", "default", check=False), 30, "service accounts are made")

    def stop(self) -> None:
        """End every process, the last one started first."""
        for process in reversed(self.processes.values()):
            process.stop(seconds=5)

    def ready(self) -> bool:
        """Whether the API server says so."""
        try:
            return self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"
        except CommandFailed:
            return False

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
        """`kubectl apply` of objects."""
        scope = ("-n", namespace) if namespace else ()
        return self.kubectl("apply", *scope, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, resource: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """An object, or a list of all when no name is given; empty when there is none."""
        words = ("get", resource, *((name,) if name else ()), "-n", namespace, "-o", "json")
        output = self.kubectl(*words, check=False)
        found: dict[str, Any] = json.loads(output) if output else {}
        return found

    def write_kubeconfig(self, name: str, token: str) -> Path:
        """A kubeconfig for a token."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
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
        """A kubeconfig that acts as a ServiceAccount, RBAC and all."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration", "24h").strip()
        return self.write_kubeconfig(f"{namespace}-{name}", token)

    def run(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a process that ends with the control plane."""
        process = self.processes[name] = Process(name, self.folder, list(command), environment)
        return process

    def audit(self) -> Iterator[dict[str, Any]]:
        """Every request in the audit log: user, verb, resource, namespace, name, code, and `effective`: whether it was
        a write that changed something. A PUT of what is stored already keeps the resourceVersion."""
        versions: dict[tuple[str, str, str], str] = {}
        with self.audit_log.open() as lines:
            for line in lines:
                if not line.endswith("\n"):
                    return  # being written
                event = json.loads(line)
                reference = event.get("objectRef", {})
                answered = event.get("responseObject", {}).get("metadata", {})
                code = event.get("responseStatus", {}).get("code", 0)
                place = reference.get("resource", ""), reference.get("namespace", ""), reference.get("name", "")
                if not place[2]:
                    place = *place[:2], answered.get("name", "")
                effective = event["verb"] in WRITES and code < 300
                if effective and event["verb"] in ("update", "patch"):
                    effective = versions.get(place) != answered.get("resourceVersion")
                if event["verb"] in WRITES and "resourceVersion" in answered:
                    versions[place] = answered["resourceVersion"]
                yield {
                    "user": event["user"]["username"],
                    "verb": event["verb"],
                    "resource": "/".join(filter(None, (place[0], reference.get("subresource")))),
                    "namespace": place[1],
                    "name": place[2],
                    "code": code,
                    "effective": effective,
                }

    def writes(self) -> list[dict[str, Any]]:
        """Every write in the audit log, in the form of `audit`."""
        return [entry for entry in self.audit() if entry["verb"] in WRITES]

    def _run(self, name: str, *flags: str) -> None:
        self.run(name, program(name), *flags)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        subject = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=kube-apiserver"),
            *("-addext", subject, "-keyout", f"{self.folder}/apiserver.key", "-out", str(self.certificate)),
        )
        _openssl("genrsa", "-out", f"{self.folder}/sa.key", "2048")
        _openssl("rsa", "-in", f"{self.folder}/sa.key", "-pubout", "-out", f"{self.folder}/sa.pub")
        (self.folder / "tokens.csv").write_text(
            "".join(f'{token},{user},{user},"{group}"\n' for token, user, group in _USERS)
        )
        rules = [
            {"level": "None", "resources": [{"group": "", "resources": ["events"]},
                                            {"group": "events.k8s.io", "resources": ["events"]},
                                            {"group": "coordination.k8s.io", "resources": ["leases"]}]},
            # Without what is in them: a record must never hold a Secret.
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
            {"level": "RequestResponse", "verbs": WRITES},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["ResponseStarted"]},
        ]  # fmt: skip
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": True,
            "rules": rules,
        }
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(policy))
        self.write_kubeconfig("admin", _ADMIN)

    def _stages(self) -> Iterator[str]:
        """kwok's descriptions of what a node and its pods do, from its own module."""
        go = shutil.which("go")
        assert go is not None, "go is missing"
        command = [go, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
        module = subprocess.run(command, cwd=TOOLS / "kwok", capture_output=True, text=True, check=True).stdout.strip()
        for folder in ("node/fast", "node/heartbeat-with-lease", "pod/fast"):
            for path in sorted(Path(module, "kustomize/stage", folder).glob("*.yaml")):
                if path.name != "kustomization.yaml":
                    yield str(path)


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def _node() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/os": "linux"},
        },
        "status": {
            "allocatable": {"cpu": "4000", "memory": "8000Gi", "pods": "10000"},
            "capacity": {"cpu": "4000", "memory": "8000Gi", "pods": "10000"},
        },
    }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """A control plane for as long as the context lasts."""
    plane = ControlPlane(folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
