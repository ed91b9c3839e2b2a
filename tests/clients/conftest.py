"""Gateway as a process in front of a server that records bytes, for the tests of real clients."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from websockets.sync.client import ClientConnection

from benchmarks.processes import running
from gateway.api.v1alpha1 import KEY, LABEL, LABEL_VALUE, Backend, Cors, KeepAlive, RouteDocument
from tests.clients.chromium import running_browser
from tests.clients.model_server import ModelServer
from tools.ports import free_port

LOCAL: Final = Backend(id="local", service="local", port=80, weight=100)
EARLY: Final = KeepAlive(after=0.2, before_head=True)
REMOTE: Final = Backend(id="remote", host="remote.example", port=80)


@dataclass(frozen=True)
class Place:
    """Gateway with the models `demo`, `fallen`, whose local server is gone, `empty` without a backend, `open`,
    `away`, which is remote, and `slow` and `late`, whose server waits until the client has got comments.

    Websites of the server's own origin may use all of them, and those of every origin may use `open` by path.
    """

    url: str
    """URL of the gateway's port for clients, without a path."""
    admin: str
    """URL of its port for administrators."""
    server: ModelServer
    folder: Path
    """Folder for files of tests."""

    @property
    def site(self) -> str:
        """Origin of websites that may use the gateway."""
        return f"http://127.0.0.1:{self.server.ports['local']}"

    @property
    def other_site(self) -> str:
        """Origin of websites that may not."""
        return f"http://localhost:{self.server.ports['local']}"


def config_map(document: RouteDocument) -> str:
    """Return the manifest of the ConfigMap of a route in the namespace `default`."""
    name = f"{document.name}-route"
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\n"
        f"  labels: {{{LABEL}: {LABEL_VALUE}}}\ndata:\n  {KEY}: '{document.canonical_json()}'\n"
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The gateway in front of the server."""
    folder = tmp_path_factory.mktemp("clients")
    routes = folder / "routes"
    routes.mkdir()
    gone = LOCAL.model_copy(update={"service": "gone"})
    for document in (
        RouteDocument(name="demo", backends=(LOCAL, REMOTE)),
        RouteDocument(name="fallen", backends=(gone, REMOTE)),
        RouteDocument(name="empty", backends=(LOCAL.model_copy(update={"weight": 0}),)),
        RouteDocument(name="away", backends=(REMOTE.model_copy(update={"weight": 100}),)),
        RouteDocument(name="slow", backends=(LOCAL,), keep_alive=EARLY),
        RouteDocument(name="late", backends=(LOCAL,), keep_alive=EARLY),
        RouteDocument(name="open", backends=(LOCAL,), cors=Cors(origins=("*",))),
    ):
        (routes / f"{document.name}.yaml").write_text(config_map(document))
    with ExitStack() as stack:
        server = stack.enter_context(ModelServer().running())
        port, admin = free_port(), free_port()
        server.admin = admin
        config = folder / "config.yaml"
        config.write_text(
            "namespaces: default\ngateway:\n  timeouts: {localConnectSeconds: 30, connectSeconds: 30}\n"
            f"  cors: {{origins: ['http://127.0.0.1:{server.ports['local']}'], credentials: true}}\n"
        )
        resolve = {
            "local.default.svc.cluster.local": server.ports["local"],
            "gone.default.svc.cluster.local": free_port(),
            "remote.example": server.ports["remote"],
        }
        command = [
            *(sys.executable, "-m", "gateway", "--config", str(config), "--routes", str(routes)),
            *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
            *(f"--resolve={name}:80=127.0.0.1:{to}" for name, to in resolve.items()),
        ]
        stack.enter_context(running("gateway", command, port, Path(folder)))
        yield Place(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", server, folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientConnection]:
    """Connection to a browser with a folder of its own."""
    with running_browser(tmp_path_factory.mktemp("browser")) as connection:
        yield connection
