"""The tutorials: their commands, run as they are written, on a real API server with the real Metacontroller.

Only addresses outside of the cluster are replaced, by servers of this machine, and `kubectl run … -- curl` is a request
from this machine to the pod behind the Service's name.
"""

import os
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.helm import with_dependencies
from tests.deadlines import SECONDS
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import NAMESPACE, Installation, ModelServer
from tests.e2e.keda import install_crd
from tests.e2e.network import Response
from tests.e2e.pods import Image
from tests.e2e.process import program
from tests.e2e.product import missing
from tests.processes import poll
from tools.repository import ROOT

pytestmark = pytest.mark.own_plane

DOCS: Final = ROOT / "docs"
OUTSIDE: Final = ("api.provider.example", "models.west.example.com")
"""Hosts outside of the cluster in the tutorials."""
_BLOCK: Final = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own."""
    if reason := missing():
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("tutorials")) as plane:
        yield plane


@pytest.fixture(scope="module")
def installed(image: Image, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart, installed for the namespace default."""
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    installation = Installation(plane, image, chart, "vllm-local.default", "chat-local.default")
    with installation.proxy.running():
        try:
            installation.install("--set", "config.defaultRemoteBackend.workspace=demo")
            yield installation
        finally:
            installation.stop()


@pytest.fixture(scope="module")
def outside(plane: ControlPlane) -> Iterator[ModelServer]:
    """The server in the place of every host outside of the cluster. It takes any key."""
    server = ModelServer(plane, "tiny-remote")
    yield server
    server.process.stop()


class Reader:
    """A reader of a page, who writes its files and runs its commands one after another."""

    def __init__(self, installed: Installation, outside: ModelServer, folder: Path) -> None:
        self._installed, self._outside, self._folder = installed, outside, folder
        self.responses: list[Response] = []
        """Responses to the requests of the commands."""
        self._steps: list[tuple[str, str]] = []

    def follow(self, page: str, *, until: str = "") -> None:
        """Begin a page: write its files and run its commands, up to the first command that has this text."""
        self._steps = list(self._read(page))
        self.go_on(until=until)

    def go_on(self, *, until: str = "") -> None:
        """Go on with the page where it was left, and run the command there in any case."""
        first = True
        while self._steps:
            name, content = self._steps[0]
            if until and not name and until in content and not first:
                return
            self._steps.pop(0)
            if name:
                (self._folder / name).write_text(content)
            else:
                first = False
                self.run(content)

    def _read(self, page: str) -> Iterator[tuple[str, str]]:
        """Yield the files of a page, by name, and its commands, without a name."""
        for language, block in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
            indent = len(block) - len(block.lstrip(" "))
            content = self._here(re.sub(rf"^ {{{indent}}}", "", block, flags=re.MULTILINE))
            if language == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", content)):
                yield name[1], _with_names_of_this_machine(content)
            if language == "sh":
                for command in content.replace("\\\n", " ").splitlines():
                    yield "", command

    def run(self, command: str) -> None:
        """Run a command in a shell, or send the request that it is."""
        words = shlex.split(command)
        if words[:2] == ["kubectl", "run"]:
            _, url, *flags = [word for word in words[words.index("--") + 1 :] if word != "-si"]
            namespace = words[words.index("--namespace") + 1]
            self.responses.append(self._installed.network.curl(url, *flags, namespace=namespace))
            return
        programs = [str(Path(program(name)).parent) for name in ("kubectl", "helm")]
        environment = os.environ | {
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "KUBECONFIG": str(self._installed.plane.kubeconfig),
        }
        result = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=5 * SECONDS,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        if "statefulset" in command or words[0] == "helm":
            self._installed.roll()

    def _here(self, text: str) -> str:
        for host in OUTSIDE:
            text = text.replace(host, f"127.0.0.1:{self._outside.port}")
        return text


def _with_names_of_this_machine(text: str) -> str:
    """Return a file of a page with the names by which the servers of this machine know their models, without TLS."""
    documents = [one for one in yaml.safe_load_all(text.replace("scheme: https", "scheme: http")) if one]
    for one in documents:
        if one["kind"] == "ModelDeployment":
            one["spec"]["model"] = "tiny-remote"
            one["spec"].setdefault("gateway", {})["localModel"] = "tiny-local"
    return yaml.safe_dump_all(documents)


@pytest.fixture
def reader(installed: Installation, outside: ModelServer, tmp_path: Path) -> Iterator[Reader]:
    """A reader in a namespace without ModelDeployments and workloads, which is left so."""
    yield Reader(installed, outside, tmp_path)
    for kind in ("modeldeployments", "deployments", "services", "secrets"):
        selector = ("--field-selector=metadata.name!=kubernetes",) if kind == "services" else ("--all",)
        installed.plane.kubectl("delete", kind, "-n", "default", *selector, check=False)


def last_request(server: ModelServer) -> dict[str, Any]:
    """Return what a server received last."""
    with urllib.request.urlopen(f"{server.url}/_demo/last-request", timeout=SECONDS) as response:
        received: dict[str, Any] = yaml.safe_load(response.read())
        return received


def eventually(ask: Callable[[], Response], backend: str) -> None:
    """Ask until a backend responds."""
    poll(lambda: (response := ask()).status == 200 and response.backend == backend, f"{backend} responds")


def test_offload_to_a_provider(reader: Reader, installed: Installation, outside: ModelServer) -> None:
    """vLLM responds first; after the override the provider does, with the key of the Secret and its own model name."""
    reader.follow("tutorials/provider.md", until="override")
    (response,) = reader.responses
    assert (response.status, response.backend) == (200, "local"), response
    reader.go_on(until="null")
    eventually(lambda: installed.ask(installed.gateway(), model="vllm"), "remote")
    headers = {name.lower(): value for name, value in last_request(outside)["headers"]}
    assert headers["authorization"] == "Bearer sk-REPLACE_ME"
    assert installed.route("vllm")["backends"][1]["model"] == "tiny-remote"
    reader.go_on()
    eventually(lambda: installed.ask(installed.gateway(), model="vllm"), "local")


def test_adopt_a_deployment(reader: Reader, installed: Installation) -> None:
    """The Deployment and its Service stay as they are while the gateway serves the model by the Service's name, and
    when the ModelDeployment is deleted."""
    reader.follow("tutorials/adopt.md", until="kubectl delete")
    (response,) = reader.responses
    assert (response.status, response.backend) == (200, "local"), response
    assert installed.plane.get("service", "chat")["spec"]["selector"] == {"app": "chat"}
    reader.go_on()
    assert installed.plane.get("service", "chat")
    assert installed.plane.get("deployment", "chat")


def test_offload_to_another_cluster(reader: Reader, installed: Installation, outside: ModelServer) -> None:
    """The remote backend of the route is the model's path at the gateway of the other cluster."""
    reader.follow("tutorials/adopt.md", until="kubectl apply -f adopt.yaml")
    reader.follow("tutorials/another-cluster.md")
    installed.until("chat", Ready="True", RefsResolved="True")
    (remote,) = [one for one in installed.route("chat")["backends"] if one["id"] == "remote"]
    assert (remote["host"], remote["port"]) == ("127.0.0.1", outside.port)
    assert remote["pathPrefix"] == "/default/chat"


def test_the_name_that_clients_have(reader: Reader, installed: Installation) -> None:
    """The name leads to the gateway in the end; in the order of the page about uninstalling it leads to the pods again,
    and outlives the ModelDeployment."""
    plane = installed.plane
    reader.follow("tutorials/adopt.md", until="kubectl apply -f adopt.yaml")
    reader.follow("tutorials/existing-name.md")
    assert [(one.status, one.backend) for one in reader.responses] == [(200, "local")] * 2
    assert plane.get("service", "chat")["spec"]["externalName"].startswith(f"beamlit-controller-gateway.{NAMESPACE}.")
    reader.follow("uninstalling.md", until="helm uninstall")
    service = plane.get("service", "chat")
    assert service["spec"]["externalName"] == "chat-pods.default.svc.cluster.local"
    assert "ownerReferences" not in service["metadata"]
    response = installed.ask(installed.gateway("/default/chat"), model="chat")
    assert (response.status, response.backend) == (200, "local"), "the gateway serves on"
    plane.kubectl(
        "scale", "statefulset", "-n", NAMESPACE, "--replicas=1", "-l", "app.kubernetes.io/name=metacontroller"
    )
    installed.roll()
    plane.kubectl("delete", "modeldeployment", "chat", "-n", "default")
    poll(lambda: not plane.get("configmap", "chat-route"), "children of the ModelDeployment go", seconds=2 * SECONDS)
    assert plane.get("service", "chat"), "it is nobody's child any more"


def test_scale_from_zero(reader: Reader, installed: Installation) -> None:
    """Scaled to zero all requests go to the remote backend, and they come back with the replica."""
    install_crd(installed.plane)
    reader.follow("tutorials/adopt.md", until="kubectl apply -f adopt.yaml")
    reader.follow("tutorials/scale-from-zero.md", until="--replicas=1")
    poll(lambda: installed.remote_weight("chat") == 100, "everything goes to the remote backend")
    reader.go_on()
    assert installed.conditions("chat")["LocalReady"][0] == "True"


def test_every_tutorial_is_tested() -> None:
    """Each page of the folder is followed by a test of this file."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in (DOCS / "tutorials").glob("*.md") if f"tutorials/{path.name}" not in text] == []
