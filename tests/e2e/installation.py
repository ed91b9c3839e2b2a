"""The chart installed as users install it, its pods run here from what helm rendered."""

import hashlib
import json
import os
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.binaries import find
from tests.e2e.controlplane import NODE, SERVICES, ControlPlane
from tests.e2e.network import Answer, Network, Proxy
from tests.e2e.pods import Image, Pod
from tests.e2e.process import CommandFailed
from tests.e2e.product import Models, syncs_answered
from tests.platform import TOKEN, Platform
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

RELEASE: Final = "beamlit-controller"
NAMESPACE: Final = "beamlit-system"
GATEWAY: Final = f"{RELEASE}-gateway"
METACONTROLLER: Final = "beamlit-metacontroller"
CLIENT: Final = ("demo", "demo-secret-canary")
"""OAuth 2.0 client of the default remote backend."""
_METACONTROLLER: Final = "metacontroller"
"""Its program. Where there is none, everything else is installed and runs."""


class ModelServer:
    """The example model server as a process: what pods or a remote backend would be."""

    def __init__(self, plane: ControlPlane, name: str, *flags: str) -> None:
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "examples.model_server", "--listen", f"127.0.0.1:{self.port}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = plane.run(name, *command, "--model", name, *flags, environment=environment)
        poll(lambda: status(f"{self.url}/health") == 200, f"{name} answers")


class Installation(Models):
    """A release of the chart. Its pods are processes here; what else is of a cluster is real."""

    def __init__(
        self, plane: ControlPlane, image: Image, chart: Path, *local_services: str, platform: Platform | None = None
    ) -> None:
        """Nothing is installed yet.

        Args:
            plane: the control plane.
            image: what pods run.
            chart: the chart with its dependencies.
            local_services: `name.namespace` of Services behind which the local model server shall be.
            platform: where models and policies are registered; None without a token.
        """
        super().__init__(plane)
        self._image, self.chart = image, chart
        self.network = Network(plane)
        self.proxy = Proxy(self.network, NAMESPACE)
        self.local = ModelServer(plane, "tiny-local")
        self.remote = ModelServer(
            plane, "tiny-remote", "--oauth-client-id", CLIENT[0], "--oauth-client-secret", CLIENT[1]
        )
        self._services = local_services
        self._platform = platform
        self._pods: dict[str, list[tuple[str, Pod]]] = {}
        """By kind and name of the workload, each with the hash of the template that it was started from."""
        self._count = 0

    @property
    def values(self) -> tuple[str, ...]:
        """Flags that lead to this machine what would be elsewhere."""
        resolve = [f"{name}.svc.cluster.local:80=127.0.0.1:{self.local.port}" for name in self._services]
        proxy = {"name": "HTTPS_PROXY", "value": self.proxy.url}
        remote = "config.defaultRemoteBackend"
        gateway = {"resolve": resolve, "allowedAddresses": ["127.0.0.0/8"], "clusterRanges": [SERVICES]}
        return (
            f"--set=config.defaultRemoteBackend.host=127.0.0.1:{self.remote.port}",
            f"--set={remote}.scheme=http",
            f"--set={remote}.authConfig.oauthConfig.tokenUrl={self.remote.url}/v0/oauth/token",
            f"--set-json=config.gateway={json.dumps(gateway)}",
            f"--set-json=metacontroller.env={json.dumps([proxy])}",
        )

    def install(self, *words: str) -> None:
        """`helm install` in a namespace that admits restricted pods only, by the command line of the documentation."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        metadata = {"name": NAMESPACE, "labels": labels}
        self.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
        platform = self._platform
        token = ("--set", f"beamlitApiToken={TOKEN}", "--set", f"beamlitBaseUrl={platform.url}") if platform else ()
        self.helm(
            *("install", *token, "--set", f"{oauth}.clientId={CLIENT[0]}"),
            *("--set", f"{oauth}.clientSecret={CLIENT[1]}", *words),
        )

    def upgrade(self, *words: str) -> None:
        """`helm upgrade` with what was given before and these values, and the rolling update that follows."""
        self.helm("upgrade", "--reset-then-reuse-values", *words)

    def helm(self, command: str, *words: str) -> None:
        """helm install or upgrade, and what the cluster's controllers then do with the pods."""
        self.plane.helm(
            *(command, RELEASE, str(self.chart), "--namespace", NAMESPACE, "--wait", "--timeout", "60s"),
            *(*self.values, *words),
        )
        self.roll()

    def uninstall(self) -> str:
        """`helm uninstall`, and the end of its pods."""
        said = self.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
        self.roll()
        return said

    def uninstall_by_job(self, *arguments: str) -> tuple[str, str]:
        """The same with the Job before it, which runs here, with these further arguments.

        Returns what helm prints, and what the Job does.
        """
        said: list[str] = []

        def uninstall() -> None:
            try:
                said.append(self.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s"))
            except CommandFailed as exc:
                said.append(str(exc))

        # The node would say of the Job's pod that it is done, without running anything.
        self.plane.kubectl("cordon", NODE)
        helm = threading.Thread(target=uninstall)
        helm.start()
        try:
            printed = self._run_job(f"{RELEASE}-uninstall", arguments)
        finally:
            helm.join()
            self.plane.kubectl("uncordon", NODE)
        self.roll()
        return said[0], printed

    def _run_job(self, name: str, arguments: Sequence[str]) -> str:
        """Run what a Job's pod would, and tell the cluster how it ended, until no more pods are made for it."""
        printed = ""
        selector = f"batch.kubernetes.io/job-name={name}"
        poll(lambda: self._waiting(selector), f"there is a pod of the Job {name}")
        while pods := self._waiting(selector):
            job = self.plane.get("jobs.batch", name, NAMESPACE)
            pod = Pod(self.plane, self._image, job, pods[0], arguments=tuple(arguments))
            poll(lambda pod=pod: not pod.process.alive(), f"{name} ends", seconds=120)  # type: ignore[misc]
            code = pod.process.stop()
            printed += pod.process.log.read_text()
            phase = json.dumps({"status": {"phase": "Failed" if code else "Succeeded"}})
            words = ("patch", "pod", pods[0], "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", phase)
            self.plane.kubectl(*words, check=False)
            if not code:
                break
            poll(lambda: not self._goes_on(name) or self._waiting(selector), "the Job tries again, or has failed")
        return printed

    def _waiting(self, selector: str) -> list[str]:
        found = json.loads(self.plane.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json"))
        return [one["metadata"]["name"] for one in found["items"] if one["status"]["phase"] == "Pending"]

    def _goes_on(self, job: str) -> bool:
        conditions = self.plane.get("jobs.batch", job, NAMESPACE).get("status", {}).get("conditions", ())
        return not any(one["type"] == "Failed" and one["status"] == "True" for one in conditions)

    def run_once(self, pod: Mapping[str, Any]) -> int:
        """Run a Pod that ends by itself, and return its exit code."""
        name = pod["metadata"]["name"]
        environment = {"http_proxy": self.proxy.url, "https_proxy": self.proxy.url}
        process = Pod(self.plane, self._image, pod, name, environment=environment).process
        poll(lambda: not process.alive(), f"{name} ends")
        return process.stop()

    def roll(self) -> None:
        """Bring the pods here in line with the workloads there: new ones first, old ones ended once those are ready.

        A StatefulSet's pod ends before its successor starts.
        """
        wanted = {f"{item['kind']}/{item['metadata']['name']}": item for item in self._workloads()}
        going: list[Pod] = []
        for place in [*self._pods, *(place for place in wanted if place not in self._pods)]:
            running = self._pods.get(place, [])
            item = wanted.get(place)
            template = hashlib.sha256(json.dumps(item and item["spec"]["template"]).encode()).hexdigest()
            count = 0 if item is None else int(item["spec"].get("replicas", 1))
            kept = [one for one in running if one[0] == template][:count]
            old = [pod for digest, pod in running if (digest, pod) not in kept]
            if place.startswith("StatefulSet"):
                _end(old)
                old = []
            new = [(template, self._start(item)) for _ in range(count - len(kept)) if item is not None]
            for _, pod in new:
                pod.until_ready()
            self._pods[place] = kept + new
            self.network.pods = [pod for pods in self._pods.values() for _, pod in pods] + old
            going += old
        self.network.pods = [pod for pods in self._pods.values() for _, pod in pods]
        _end(going)

    def pods(self, name: str) -> list[Pod]:
        """The running pods of a workload, by the end of its name."""
        return [pod for place, pods in self._pods.items() if place.endswith(name) for _, pod in pods]

    def ask(self, url: str, *words: str, namespace: str = "default", model: str = "demo") -> Answer:
        """A chat request as a client in `namespace` makes it, by curl."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        content = ("-H", "Content-Type: application/json", "-d", json.dumps(body))
        return self.network.curl(f"{url}/v1/chat/completions", *content, *words, namespace=namespace)

    def gateway(self, path: str = "") -> str:
        """A URL of the gateway's Service."""
        return f"http://{GATEWAY}.{NAMESPACE}{path}"

    def routes(self, pod: Pod) -> dict[str, Any]:
        """What a gateway pod has in force."""
        with urllib.request.urlopen(f"http://127.0.0.1:{pod.port('admin')}/routes", timeout=5) as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    def told(self) -> dict[str, str]:
        """What the pods say of themselves, by where: their logs, and the pages for administrators of the gateways."""
        found = {pod.process.name: pod.process.log.read_text() for pods in self._pods.values() for _, pod in pods}
        for pod in self.pods("-gateway"):
            for path in ("/metrics", "/routes", "/"):
                with urllib.request.urlopen(f"http://127.0.0.1:{pod.port('admin')}{path}", timeout=5) as answer:
                    found[f"{pod.process.name} {path}"] = answer.read().decode()
        return found

    def syncs(self, code: int = 200) -> float:
        """How many syncs all hooks pods have answered with a status."""
        return sum(syncs_answered(pod.port("operations"), code) for pod in self.pods("-hooks"))

    def stop(self) -> None:
        """End all pods."""
        _end([pod for pods in self._pods.values() for _, pod in pods])

    def _workloads(self) -> list[dict[str, Any]]:
        """What has pods to run here, the Deployments first: Metacontroller asks hooks as soon as it starts."""
        kinds = "deployments,statefulsets" if find(_METACONTROLLER) else "deployments"
        found: list[dict[str, Any]] = self.plane.get(kinds, namespace=NAMESPACE)["items"]
        return sorted(found, key=lambda item: item["kind"])

    def _start(self, item: Mapping[str, Any]) -> Pod:
        self._count += 1
        programs = {}
        if item["kind"] == "StatefulSet" and (program := find(_METACONTROLLER)) is not None:
            programs = {"/usr/bin/metacontroller": program}
        return Pod(
            self.plane,
            self._image,
            item,
            f"{item['metadata']['name']}-{self._count}",
            programs=programs,
            # Metacontroller's metrics would be at a fixed port.
            arguments=("--metrics-address=0",) if programs else (),
        )


def _end(pods: list[Pod]) -> None:
    """Terminate pods at the same time, as kubelets do."""
    threads = [threading.Thread(target=pod.terminate) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
