"""`python -m hooks release-finalizers` against an API server that tests script."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from hooks import uninstall
from hooks.__main__ import main
from tests.registered import kubeconfig

OURS: Final = f"{uninstall.PREFIX}model"
CONTROLLER: Final = "/apis/metacontroller.k8s.io/v1alpha1/compositecontrollers/model"
MODELS: Final = "/apis/deployment.beamlit.com/v1alpha1/modeldeployments"
POLICIES: Final = "/apis/authorization.beamlit.com/v1alpha1/policies"


class Cluster:
    """Objects of a cluster, the patches that they got, and failures."""

    def __init__(self) -> None:
        self.controller: dict[str, Any] | None = {"spec": {"hooks": {"sync": {}, "finalize": {}}}}
        self.held: dict[str, list[str]] = {}
        """Finalizers by the name of the ModelDeployment."""
        self.deleting: set[str] = set()
        self.works = True
        """Whether Metacontroller takes its finalizers off as soon as the hook is gone."""
        self.refuses: dict[str, int] = {}
        """Statuses of refused requests, by method and path."""
        self.patches: list[tuple[str, Any]] = []
        self.pages = 0

    def respond(self, method: str, target: str, content: Any) -> tuple[int, Any]:
        """Return status and body of a response."""
        where = urlsplit(target)
        refused = self.refuses.get(f"{method} {where.path}")
        if refused:
            return refused, {"kind": "Status", "message": "that is forbidden"}
        if method == "PATCH":
            self.patches.append((where.path, content))
        if where.path == CONTROLLER:
            if self.controller is None:
                return 404, {}
            if method == "PATCH":
                del self.controller["spec"]["hooks"]["finalize"]
                if self.works:
                    self._let_go(self.held)
            return 200, self.controller
        if where.path == POLICIES:
            return 404, {}
        if where.path == MODELS:
            return 200, self._page(int(parse_qs(where.query).get("continue", ["0"])[0]))
        name = where.path.rpartition("/")[2]
        if self.held.get(name) != content[0]["value"]:
            return 422, {"kind": "Status", "message": "the test failed"}
        self.held[name] = content[1]["value"]
        return 200, {}

    def _let_go(self, names: Any) -> None:
        for name in names:
            self.held[name] = [one for one in self.held[name] if one != OURS]

    def _page(self, start: int) -> Any:
        self.pages += 1
        names = sorted(self.held)[start : start + 2]
        more = {"continue": str(start + 2)} if start + 2 < len(self.held) else {}
        items = [
            {"metadata": {"name": name, "namespace": "team-a", "finalizers": self.held[name]}
             | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if name in self.deleting else {})}
            for name in names
        ]  # fmt: skip
        return {"metadata": more, "items": items}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start an API server and set KUBECONFIG for it."""
    cluster = Cluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Send the response of the cluster."""
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content_sent = cluster.respond(self.command, self.path, json.loads(content) if content else None)
            if content:
                assert self.headers["content-type"] == "application/json-patch+json"
            body = json.dumps(content_sent).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PATCH = do_GET  # noqa: N815 - the name that the library looks for

        def log_message(self, *_: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, server.server_port)))
        monkeypatch.setattr(uninstall, "OWN_SECONDS", 2.0)
        yield cluster
        server.shutdown()
        thread.join()


def release(*words: str) -> int:
    """Run the command; return its exit status."""
    return main(["release-finalizers", "model", "--grace=0", "--wait=1", *words])


def test_metacontroller_takes_finalizers_off(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Metacontroller takes finalizers off, the command removes only the finalize hook, and reads all pages."""
    cluster.held = {name: [OURS] for name in "abcde"}
    assert release() == 0
    assert cluster.patches == [(CONTROLLER, [{"op": "remove", "path": "/spec/hooks/finalize"}])]
    assert cluster.pages >= 6
    assert capsys.readouterr().out.splitlines() == [
        "CompositeController model: its finalize hook is taken off.",
        "No ModelDeployment and no Policy has a finalizer of Metacontroller: it may go.",
    ]
    assert release() == 0
    assert "CompositeController model has no finalize hook." in capsys.readouterr().out


def test_finalizers_that_metacontroller_leaves(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Finalizers that Metacontroller leaves are taken off, no others, and objects that were being deleted are named."""
    cluster.works = False
    cluster.held = {"a": ["other", OURS], "b": [OURS], "c": ["other"]}
    cluster.deleting = {"b"}
    assert release() == 0
    assert cluster.held == {"a": ["other"], "b": [], "c": ["other"]}
    output = capsys.readouterr().out
    assert "Metacontroller leaves its finalizer on 2 objects" in output
    assert f"{_resource()}/b in namespace team-a was being deleted" in output
    assert f"{_resource()}/a in namespace team-a was" not in output


def _resource() -> str:
    return "modeldeployments.deployment.beamlit.com"


def test_a_controller_that_is_not_there(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Finalizers of a CompositeController that does not exist are taken off."""
    cluster.controller, cluster.held = None, {"a": [OURS]}
    assert release() == 0
    assert cluster.held == {"a": []}
    assert "CompositeController model is not there." in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    [
        f"GET {CONTROLLER}",
        f"PATCH {CONTROLLER}",
        f"GET {MODELS}",
        f"PATCH {MODELS.replace('/modeldeployments', '/namespaces/team-a/modeldeployments')}/a",
    ],
)
@pytest.mark.parametrize("status", [403, 500])
def test_what_is_refused(cluster: Cluster, capsys: pytest.CaptureFixture[str], path: str, status: int) -> None:
    """A refusal ends the command with status 1, the API server's message, and the commands to run by hand."""
    cluster.works, cluster.held = False, {"a": ["other", OURS]}
    cluster.refuses = {path: status}
    assert release() == 1
    output = capsys.readouterr().err
    assert "that is forbidden" in output
    assert "kubectl patch compositecontroller model --type=json" in output
    assert "helm uninstall --no-hooks" in output
    if path.endswith("/a"):
        patch = """--type=merge -p '{"metadata": {"finalizers": ["other"]}}'"""
        assert f"kubectl patch {_resource()} a -n team-a {patch}" in output


def test_a_finalizer_that_comes_back(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """A finalizer that another client puts on again ends the command with status 1."""
    cluster.works, cluster.held = False, {"a": [OURS]}
    original = cluster.respond

    def respond(method: str, target: str, content: Any) -> tuple[int, Any]:
        result = original(method, target, content)
        cluster.held["a"] = [OURS]
        return result

    cluster.respond = respond  # type: ignore[method-assign]
    assert release() == 1
    assert "The finalizer comes back" in capsys.readouterr().err


def test_no_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a cluster the command ends with status 2 and says what to set."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert release() == 2
    assert capsys.readouterr().err == "hooks: There is no cluster to ask: run this in a pod, or set KUBECONFIG.\n"


@pytest.mark.parametrize("word", ["--wait=-1", "--grace=nan", "--wait=many", "Upper", "a/b"])
def test_arguments_that_cannot_be_used(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that cannot be used ends the command with status 2 and a message."""
    with pytest.raises(SystemExit) as refused:
        main(["release-finalizers", word, "model"])
    assert refused.value.code == 2
    assert "is not" in capsys.readouterr().err
