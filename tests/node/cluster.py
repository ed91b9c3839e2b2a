"""A cluster in which pods are real: the node of this machine, or one that was there before."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deadlines import SECONDS
from tests.e2e.network import Response
from tests.e2e.process import CommandFailed, program
from tests.node import lifecycle
from tests.node.state import Node
from tests.processes import poll


class Cluster:
    """A cluster, spoken to by kubectl and helm as its users do."""

    def __init__(self, kubeconfig: Path, folder: Path, node: Node | None) -> None:
        """Prepare the commands.

        Args:
            kubeconfig: of an administrator.
            folder: where helm keeps its files.
            node: the node of this machine; None for a cluster elsewhere, which has the images already.
        """
        self.kubeconfig, self.folder, self.node = kubeconfig, folder, node

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl; return what it prints.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self._run("kubectl", *words, stdin=stdin)

    def helm(self, *words: str) -> str:
        """Run helm; return what it prints.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self._run("helm", *words)

    def bring(self, kind: str, name: str, namespace: str = "") -> None:
        """Hear of an object that is about to be made by something else than `apply`. A node of this machine ends with
        all that it has, so nothing is done about it.

        Args:
            kind: as kubectl prints it: `namespace`, `deployment.apps`.
            name: of the object.
            namespace: its namespace; empty where its kind has none.
        """

    def create_namespace(self, name: str) -> None:
        """Run `kubectl create namespace`."""
        self.bring("namespace", name)
        self.kubectl("create", "namespace", name)

    def apply(self, *objects: Mapping[str, Any]) -> str:
        """Run `kubectl apply` with these objects."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, resource: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """Return an object, or a list of all when no name is given; an empty one when there is none."""
        words = ("get", resource, *((name,) if name else ()), "-n", namespace, "-o", "json", "--ignore-not-found")
        output = self.kubectl(*words)
        content: dict[str, Any] = json.loads(output) if output else {}
        return content

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods with these labels that are not being deleted."""
        listed = json.loads(self.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))
        return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]

    def wait(self, condition: str, *words: str, seconds: float = SECONDS) -> None:
        """Run `kubectl wait` for a condition."""
        self.kubectl("wait", f"--for={condition}", f"--timeout={seconds:.0f}s", *words)

    def execute(self, namespace: str, pod: str, *command: str) -> str:
        """Run a command in a pod; return what it prints.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self.kubectl("exec", "-n", namespace, pod, "--", *command)

    def load(self, archive: Path) -> None:
        """Give the images of an archive to the node; a cluster elsewhere has them already."""
        if self.node is not None:
            lifecycle.load(self.node, archive)

    def _run(self, name: str, *words: str, stdin: str | None = None) -> str:
        homes = {f"HELM_{kind}_HOME": f"{self.folder}/helm/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")}
        result = subprocess.run(
            [program(name), "--kubeconfig", str(self.kubeconfig), *words],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=3 * SECONDS,
            env=os.environ | homes,
            check=False,
        )
        if result.returncode:
            raise CommandFailed(result.stderr.strip() or result.stdout.strip())
        return result.stdout


class Client:
    """A pod with curl, in a namespace."""

    def __init__(
        self, cluster: Cluster, name: str, namespace: str, image: str, labels: Mapping[str, str] | None = None
    ) -> None:
        """Start the pod, and return when it runs."""
        self._cluster, self._name, self._namespace = cluster, name, namespace
        self.spec = {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "client",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "terminationGracePeriodSeconds": 0,
        }
        metadata = {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec})
        cluster.wait("condition=Ready", f"pod/{name}", "-n", namespace)

    def curl(self, url: str, *words: str, seconds: float = 30) -> Response:
        """Return the response that curl in the pod gets.

        Raises:
            CommandFailed: there is none.
        """
        flags = ("--silent", "--show-error", "--include", "--max-time", f"{seconds:g}")
        return Response.of(self._cluster.execute(self._namespace, self._name, "curl", *flags, *words, url))

    def reaches(self, url: str) -> bool:
        """Return whether a connection to the host and port of a URL is accepted within some seconds."""
        try:
            self.curl(url, "--insecure", seconds=4)
        except CommandFailed as exc:
            # 28 is a timeout, 7 a refused connection.
            if str(exc).endswith(("exit code 28", "exit code 7")):
                return False
            raise
        return True

    def ask(self, url: str, model: str, *words: str) -> Response:
        """Send a chat request and return the response."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
        return self.curl(f"{url}/v1/chat/completions", "--json", body, *words)

    def until_served_by(self, backend: str, url: str, model: str, seconds: float = SECONDS) -> Response:
        """Send requests until the backend serves one, and return that response."""
        responses: list[Response] = []

        def served() -> bool:
            responses.append(self.ask(url, model))
            return responses[-1].backend == backend

        poll(served, f"{url} is served by the {backend} backend", seconds=seconds)
        return responses[-1]
