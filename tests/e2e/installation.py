"""The chart installed as users install it, with its pods run on this machine from what helm rendered."""

import hashlib
import json
import os
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tests.e2e.binaries import find
from tests.e2e.controlplane import NODE, SERVICES, ControlPlane
from tests.e2e.network import Network, Proxy, Response
from tests.e2e.pods import Image, Pod
from tests.e2e.process import CommandFailed
from tests.e2e.product import Models, sync_responses
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
"""Name of Metacontroller's program. Where it is missing, everything else is installed and runs."""


class ModelServer:
    """The example model server as a process, in the place of a model's pods or of a remote backend."""

    def __init__(self, plane: ControlPlane, name: str, *flags: str) -> None:
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "examples.model_server", "--listen", f"127.0.0.1:{self.port}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = plane.run(name, *command, "--model", name, *flags, environment=environment)
        poll(lambda: status(f"{self.url}/health") == 200, f"{name} responds")


class Installation(Models):
    """A release of the chart. Its pods are processes of this machine; the rest of the cluster is real."""

    def __init__(
        self,
        plane: ControlPlane,
        image: Image,
        chart: Path,
        *local_services: str,
        platform: Platform | None = None,
        servers: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Prepare an installation without installing anything.

        Args:
            plane: the control plane.
            image: what pods run.
            chart: the chart with its dependencies.
            local_services: `name.namespace` of Services behind which the local model server shall be.
            platform: where models and policies are registered; None without a token.
            servers: ports of this machine by the `name.namespace` of other Services.
        """
        super().__init__(plane)
        self._image, self.chart = image, chart
        self.network = Network(plane)
        self.proxy = Proxy(self.network, NAMESPACE)
        self.local = ModelServer(plane, "tiny-local")
        self.remote = ModelServer(
            plane, "tiny-remote", "--oauth-client-id", CLIENT[0], "--oauth-client-secret", CLIENT[1]
        )
        self._servers = dict.fromkeys(local_services, self.local.port) | dict(servers)
        self._platform = platform
        self._pods: dict[str, list[tuple[str, Pod]]] = {}
        """Pods by kind and name of the workload, each with the hash of the template that it was started from."""
        self._count = 0

    @property
    def values(self) -> tuple[str, ...]:
        """Return flags that lead to this machine what would be elsewhere."""
        resolve = [f"{name}.svc.cluster.local:80=127.0.0.1:{port}" for name, port in self._servers.items()]
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
        """Run `helm install` by the command line of the documentation, in a namespace that admits restricted pods
        only."""
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
        """Run `helm upgrade` with the earlier values and these, and the rolling update that follows."""
        self.helm("upgrade", "--reset-then-reuse-values", *words)

    def helm(self, command: str, *words: str) -> None:
        """Run helm install or upgrade, and do with the pods what the cluster's controllers would do."""
        self.plane.helm(
            *(command, RELEASE, str(self.chart), "--namespace", NAMESPACE, "--wait", "--timeout", "240s"),
            *(*self.values, *words),
        )
        self.roll()

    def uninstall(self) -> str:
        """Run `helm uninstall`, end the pods, and return what helm prints."""
        output = self.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
        self.roll()
        return output

    def uninstall_by_job(self, *arguments: str) -> tuple[str, str]:
        """Run `helm uninstall` with the Job before it, which runs on this machine, with these further arguments.

        Return the outputs of helm and of the Job.
        """
        outputs: list[str] = []

        def uninstall() -> None:
            try:
                outputs.append(self.plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s"))
            except CommandFailed as exc:
                outputs.append(str(exc))

        # The faked node would report the Job's pod as done without running anything.
        self.plane.kubectl("cordon", NODE)
        helm = threading.Thread(target=uninstall)
        helm.start()
        try:
            printed = self._run_job(f"{RELEASE}-uninstall", arguments)
        finally:
            helm.join()
            self.plane.kubectl("uncordon", NODE)
        self.roll()
        return outputs[0], printed

    def _run_job(self, name: str, arguments: Sequence[str]) -> str:
        """Run the pods of a Job, and tell the cluster how each ended, until no more pods are made for it."""
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
        listed = json.loads(self.plane.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json"))
        return [one["metadata"]["name"] for one in listed["items"] if one["status"]["phase"] == "Pending"]

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
        """Bring the pods on this machine in line with the workloads in the cluster: new ones first, old ones ended once
        those are ready.

        A StatefulSet's pod ends before its successor starts.
        """
        desired = {f"{item['kind']}/{item['metadata']['name']}": item for item in self._workloads()}
        going: list[Pod] = []
        for place in [*self._pods, *(place for place in desired if place not in self._pods)]:
            running = self._pods.get(place, [])
            item = desired.get(place)
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
        """Return the running pods of a workload, by the end of its name."""
        return [pod for place, pods in self._pods.items() if place.endswith(name) for _, pod in pods]

    def ask(self, url: str, *words: str, namespace: str = "default", model: str = "demo") -> Response:
        """Send a chat request as a client in `namespace` does, by curl, and return the response."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        content = ("-H", "Content-Type: application/json", "-d", json.dumps(body))
        return self.network.curl(f"{url}/v1/chat/completions", *content, *words, namespace=namespace)

    def gateway(self, path: str = "") -> str:
        """Return a URL of the gateway's Service."""
        return f"http://{GATEWAY}.{NAMESPACE}{path}"

    def routes(self, pod: Pod) -> dict[str, Any]:
        """Return the routes that a gateway pod has in force."""
        with urllib.request.urlopen(f"http://127.0.0.1:{pod.port('admin')}/routes", timeout=5) as response:
            content: dict[str, Any] = json.load(response)
            return content

    def outputs(self) -> dict[str, str]:
        """Return the logs of the pods, and the gateways' pages for administrators, by their origin."""
        texts = {pod.process.name: pod.process.log.read_text() for pods in self._pods.values() for _, pod in pods}
        for pod in self.pods("-gateway"):
            for path in ("/metrics", "/routes", "/"):
                with urllib.request.urlopen(f"http://127.0.0.1:{pod.port('admin')}{path}", timeout=5) as response:
                    texts[f"{pod.process.name} {path}"] = response.read().decode()
        return texts

    def syncs(self, code: int = 200) -> float:
        """Return to how many syncs all hooks pods have responded with a status code."""
        return sum(sync_responses(pod.port("operations"), code) for pod in self.pods("-hooks"))

    def stop(self) -> None:
        """End all pods."""
        _end([pod for pods in self._pods.values() for _, pod in pods])

    def _workloads(self) -> list[dict[str, Any]]:
        """Return the workloads whose pods run here, the Deployments first: Metacontroller calls hooks as soon as it
        starts."""
        kinds = "deployments,statefulsets" if find(_METACONTROLLER) else "deployments"
        items: list[dict[str, Any]] = self.plane.get(kinds, namespace=NAMESPACE)["items"]
        return sorted(items, key=lambda item: item["kind"])

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
            # Without the flag Metacontroller's metrics would be at a fixed port.
            arguments=("--metrics-address=0",) if programs else (),
        )


def _end(pods: list[Pod]) -> None:
    """Terminate pods at the same time, as kubelets do."""
    threads = [threading.Thread(target=pod.terminate) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
