"""`python -m hooks` as a user runs it."""

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.processes import free_port, poll, self_signed, status

ROOT = Path(__file__).resolve().parents[2]

MANIFEST = """
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: demo, namespace: default}
spec:
  model: tiny
  modelSourceRef: {apiVersion: apps/v1, kind: Deployment, name: demo, namespace: %s}
  offloadingConfig:
    remoteBackend: {host: models.example.com, pathPrefix: /x}
    behavior: {override: {percentage: 20, until: 2099-01-01T00:00:00Z}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: demo, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: demo}}
  template:
    metadata: {labels: {app: demo}}
    spec: {containers: [{name: model, image: model:1, ports: [{containerPort: 8000}]}]}
status: {readyReplicas: 1}
"""


def hooks(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hooks", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


@contextmanager
def serving(*words: str) -> Iterator[tuple["subprocess.Popen[str]", int, int]]:
    """The process, its port and its operations port, once it is ready."""
    port, operations = free_port(), free_port()
    command = [sys.executable, "-m", "hooks", *words, "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "--operations", f"127.0.0.1:{operations}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        poll(lambda: status(f"http://127.0.0.1:{operations}/readyz") == 200)
        yield process, port, operations
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_command() -> None:
    """`curl … -d @examples/requests/sync.json` as the README shows it, but for the port."""
    line = re.search(r"^curl -s (localhost:8082\S+ -d @\S+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    with serving("--config", "examples/config.yaml") as (_, port, _):
        words = line[1].replace("localhost:8082", f"127.0.0.1:{port}").split()
        output = subprocess.run(["curl", "-s", *words], cwd=ROOT, capture_output=True, check=True, timeout=20).stdout
    answer = json.loads(output)
    assert {child["kind"] for child in answer["children"]} == {"ConfigMap", "Service"}
    conditions = {one["type"]: one["status"] for one in answer["status"]["conditions"]}
    assert (conditions["Accepted"], conditions["LocalReady"]) == ("True", "True")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    """Exit status 0, nothing printed but its log, and the ports free again."""
    with serving("serve", "--namespaces", "a,b") as (process, port, _):
        process.send_signal(number)
        assert process.wait(10) == 0
        _, errors = process.communicate()
        assert "Traceback" not in errors
        assert [json.loads(line)["event"] for line in errors.splitlines()] == ["listening", "signal", "stopped"]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


def test_help_says_what_there_is() -> None:
    """The commands with their sentences, and each command's flags."""
    answer = hooks("--help")
    assert answer.returncode == 0
    assert "serve" in answer.stdout
    assert "render" in answer.stdout
    for flag in ("--config", "--listen", "--operations", "--namespaces"):
        assert flag in hooks("serve", "--help").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", "/none.yaml"], "hooks: --config /none.yaml cannot be read: No such file or directory.\n"),
        (["--listen", "nowhere"], "hooks: hooks.listen is 'nowhere', and must be host:port.\n"),
    ],
)
def test_a_configuration_that_cannot_be_used(words: list[str], sentence: str) -> None:
    """One sentence and exit status 2."""
    answer = hooks(*words)
    assert (answer.returncode, answer.stderr) == (2, sentence)


def test_an_occupied_port_is_one_clear_line() -> None:
    """The flag, the address and why; exit status 1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        answer = hooks("--listen", address, "--operations", "127.0.0.1:0")
    assert answer.returncode == 1
    assert (
        answer.stderr
        == f"hooks: --listen {address} cannot be used: address already in use; free it or choose another.\n"
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_and_token(tmp_path: Path) -> None:
    """As in a cluster: TLS with a certificate of one's own, and a token."""
    certificate, key = self_signed(tmp_path)
    (tmp_path / "token").write_text("canary")
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with serving("serve", *files, "--bearer-file", f"{tmp_path}/token") as (_, port, _):
        context = ssl.create_default_context(cafile=str(certificate))
        url = f"https://localhost:{port}/modeldeployments/sync"
        data = (ROOT / "examples/requests/sync.json").read_bytes()
        request = urllib.request.Request(url, data, {"Authorization": "Bearer canary"})
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            assert json.load(answer)["children"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, data, timeout=5, context=context)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--bearer-file", "/none"], 2, "hooks: hooks.bearerFile /none cannot be used: No such file or directory.\n"),
        (["--tls-cert-file", "/none", "--tls-key-file", "/none"], 1, "the certificate /none cannot be used"),
        (["--tls-cert-file", "/none"], 2, "hooks.tls.keyFile"),
    ],
)
def test_files_that_are_not_there(words: list[str], code: int, sentence: str) -> None:
    """One sentence that names the file."""
    answer = hooks(*words, "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0")
    assert answer.returncode == code
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr


def test_render_prints_the_children(tmp_path: Path) -> None:
    """Offline: the children as YAML, with what stands beside the ModelDeployment taken for observed."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "default")
    answer = hooks("render", tmp_path / "demo.yaml")
    assert (answer.returncode, answer.stderr.count("Accepted")) == (0, 0), answer.stderr
    children = {item["kind"]: item for item in yaml.safe_load_all(answer.stdout)}
    assert set(children) == {"ConfigMap", "Service"}
    route = json.loads(children["ConfigMap"]["data"]["route.json"])
    assert route["split"] == {"percentage": 20, "reason": "Override"}  # an unquoted time is read as Kubernetes does


def test_render_says_what_is_not_accepted(tmp_path: Path) -> None:
    """Exit status 1 and the condition as a sentence, where a test of manifests can see it."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "elsewhere")
    answer = hooks("render", tmp_path / "demo.yaml")
    assert answer.returncode == 1
    assert "default/demo: Accepted=False/CrossNamespaceReference: " in answer.stderr


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        ("a: [", 2, "is not YAML in line"),
        ("just text", 2, "not a Kubernetes object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", 1, "there is no ModelDeployment in"),
        (None, 2, "cannot be read: No such file or directory"),
    ],
)
def test_render_of_what_is_no_manifest(tmp_path: Path, content: str | None, code: int, sentence: str) -> None:
    """One line that names the file and what is wrong with it."""
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_text(content)
    answer = hooks("render", path)
    assert answer.returncode == code
    assert sentence in answer.stderr
    assert str(path) in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_render_of_the_examples() -> None:
    """The examples are accepted as they stand."""
    manifests = sorted((ROOT / "examples/manifests").glob("*.yaml"))
    answer = hooks("render", "--config", ROOT / "examples/config.yaml", *manifests)
    assert answer.returncode == 0, answer.stderr
    kinds = [item["kind"] for item in yaml.safe_load_all(answer.stdout)]
    assert kinds.count("ConfigMap") == 2
