"""The command `python -m hooks`, as a user runs it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import REMOTE, grouped, model_deployment, request_body, served, service, workload
from tests.deadlines import NEVER, SECONDS
from tests.integration.apiserver import ApiServer, Scripted
from tests.metric_responses import CPU, PODS_PATH, USAGE_PATH
from tests.processes import poll, self_signed, status
from tools.ports import free_port
from tools.repository import ROOT

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

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
    """Run the command until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "hooks", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


@contextmanager
def serving(
    *words: str,
    environment: dict[str, str] | None = None,
    module: Sequence[str] = ("hooks",),
    prefix: Sequence[str] = (),
) -> Iterator[tuple["subprocess.Popen[str]", int, int]]:
    """Yield the process, its port and its port for operations, once it is ready.

    The words of `prefix` stand before its command.
    """
    port, operations = free_port(), free_port()
    command = [*prefix, sys.executable, "-m", *module, *words, "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "--operations", f"127.0.0.1:{operations}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
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
    """The curl command of the README works as it is printed, on another port."""
    line = re.search(r"^curl -s (localhost:8082\S+ -d @\S+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    with serving("--config", "examples/config.yaml") as (_, port, _):
        words = line[1].replace("localhost:8082", f"127.0.0.1:{port}").split()
        output = subprocess.run(
            ["curl", "-s", *words], cwd=ROOT, capture_output=True, check=True, timeout=SECONDS
        ).stdout
    response = json.loads(output)
    assert {child["kind"] for child in response["children"]} == {"ConfigMap", "Service"}
    conditions = {one["type"]: one["status"] for one in response["status"]["conditions"]}
    assert (conditions["Accepted"], conditions["LocalReady"]) == ("True", "True")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(number: signal.Signals) -> None:
    """After a signal the process ends with exit status 0, has printed only its log, and has freed its ports."""
    with serving("serve", "--namespaces", "a,b") as (process, port, _):
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        _, errors = process.communicate()
        assert "Traceback" not in errors
        assert [json.loads(line)["event"] for line in errors.splitlines()] == ["listening", "signal", "stopped"]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


def test_every_line_of_the_log_is_json() -> None:
    """Every line of the log is JSON, also what a library logs about bytes that are no HTTP."""
    with serving() as (process, port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
            sock.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 400")
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    lines = [json.loads(line) for line in errors.splitlines()]
    (line,) = (one for one in lines if one["event"] == "library")
    assert (line["logger"], line["level"]) == ("uvicorn.error", "warning")
    assert "HTTP" in line["message"]


def test_help_lists_commands_and_flags() -> None:
    """`--help` lists the commands, and that of a command its flags."""
    result = hooks("--help")
    assert result.returncode == 0
    assert "serve" in result.stdout
    assert "render" in result.stdout
    for flag in ("--config", "--listen", "--operations", "--namespaces"):
        assert flag in hooks("serve", "--help").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", "/none.yaml"], "hooks: --config /none.yaml cannot be read: No such file or directory.\n"),
        (
            ["--listen", "nowhere"],
            "hooks: hooks.listen is 'nowhere', and must be host:port, such as 127.0.0.1:8080 or [::]:8080.\n",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used(words: list[str], sentence: str) -> None:
    """A configuration that cannot be used gives one sentence and exit status 2."""
    result = hooks(*words)
    assert (result.returncode, result.stderr) == (2, sentence)


def test_an_occupied_port_is_one_clear_line() -> None:
    """An occupied port gives one sentence with the flag, the address and the reason, and exit status 1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        result = hooks("--listen", address, "--operations", "127.0.0.1:0")
    assert result.returncode == 1
    assert (
        result.stderr
        == f"hooks: --listen {address} cannot be used: address already in use; free it or choose another.\n"
    )


def curl(port: int, authority: Path | str, *words: str) -> tuple[int, str]:
    """Return status and body of the README's command, over TLS."""
    output = subprocess.run(
        ["curl", "-sS", "--cacert", str(authority), "-w", "\\n%{http_code}", "-H", "Content-Type: application/json",
         *words, f"https://localhost:{port}/modeldeployments/sync", "-d", "@examples/requests/sync.json"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS,
    ).stdout  # fmt: skip
    content, _, code = output.rpartition("\n")
    return int(code), content


@needs_openssl
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_tls_and_token(tmp_path: Path) -> None:
    """Hooks serve curl over TLS with a private authority, with a bearer token and without one."""
    certificate, key = self_signed(tmp_path)
    (tmp_path / "token").write_text("canary")
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with serving("serve", *files) as (_, port, operations):
        assert json.loads(curl(port, certificate)[1])["children"]
        with urllib.request.urlopen(f"http://127.0.0.1:{operations}/metrics", timeout=SECONDS) as response:
            listener = 'beamlit_hooks_certificate_end_timestamp_seconds{certificate="listener",name="cert.pem"}'
            assert listener in response.read().decode()
    with serving("serve", *files, "--bearer-file", f"{tmp_path}/token") as (_, port, _):
        code, content = curl(port, certificate, "-H", "Authorization: Bearer canary")
        assert (code, len(json.loads(content)["children"])) == (200, 2)
        for wrong in ("Authorization: Bearer wrong", "Authorization:"):
            assert curl(port, certificate, "-H", wrong) == (
                401,
                '{"error":"the request does not carry the token of hooks"}',
            )


@needs_openssl
def test_the_token_is_checked_before_the_body_is_read(tmp_path: Path) -> None:
    """A request without the token is refused although its body never arrives."""
    certificate, key = self_signed(tmp_path)
    (tmp_path / "token").write_text("canary")
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--bearer-file", f"{tmp_path}/token")
    context = ssl.create_default_context(cafile=str(certificate))
    with serving("serve", *files) as (_, port, _):
        for authorization, status_line in ((b"Bearer wrong", b"HTTP/1.1 401"), (b"Bearer canary", b"")):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as sock,
            ):
                sock.sendall(
                    b"POST /modeldeployments/sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                    b"Authorization: " + authorization + b"\r\n\r\n"
                )
                if status_line:
                    assert sock.recv(65536).startswith(status_line)
                else:
                    sock.settimeout(0.3)
                    with pytest.raises(TimeoutError):  # The body of this request is awaited.
                        sock.recv(65536)


@needs_openssl
def test_a_renewed_certificate_needs_no_restart(tmp_path: Path) -> None:
    """New connections get a renewed certificate, open ones continue, and an unusable pair of files changes nothing."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        self_signed(tmp_path / name)
    mounted, data = tmp_path / "mounted", tmp_path / "..data"
    mounted.mkdir()
    for name in ("cert.pem", "key.pem"):
        (mounted / name).symlink_to(data / name)

    def swap(folder: str) -> None:
        link = tmp_path / "..data_tmp"
        link.symlink_to(tmp_path / folder)
        link.rename(data)

    def shown(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=SECONDS).strip()

    one, two = ((tmp_path / name / "cert.pem").read_text().strip() for name in ("one", "two"))
    swap("one")
    request = (ROOT / "examples/requests/sync.json").read_bytes()
    files = ("--tls-cert-file", f"{mounted}/cert.pem", "--tls-key-file", f"{mounted}/key.pem")
    with serving("serve", *files) as (process, port, _):
        context = ssl.create_default_context(cadata=one)
        open_one = http.client.HTTPSConnection("localhost", port, timeout=SECONDS, context=context)
        for _ in range(2):
            open_one.request("POST", "/modeldeployments/sync", request)
            assert open_one.getresponse().read()
            assert shown(port) == one
        swap("two")
        assert shown(port) == two
        open_one.request("POST", "/modeldeployments/sync", request)
        assert open_one.getresponse().read()
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken/cert.pem").write_text(one)
        (tmp_path / "broken/key.pem").write_text((tmp_path / "two/key.pem").read_text())
        swap("broken")
        assert [shown(port), shown(port)] == [two, two]
        swap("one")
        assert shown(port) == one
        open_one.close()
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == [
        *("listening", "certificate_replaced", "certificate_unusable", "certificate_replaced"),
        *("signal", "stopped"),
    ]


def test_a_request_under_way_at_the_signal() -> None:
    """A request that is under way at the signal gets its response, while the process is not ready; then it ends."""
    request = (ROOT / "examples/requests/sync.json").read_bytes()
    with serving() as (process, port, operations):
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
            head = f"POST /modeldeployments/sync HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n"
            sock.sendall(head.encode() + request[:100])
            in_flight = "beamlit_hooks_in_flight_requests 1.0"
            poll(lambda: in_flight in text_of(f"http://127.0.0.1:{operations}/metrics"), "the request has begun")
            process.terminate()
            poll(lambda: status(f"http://127.0.0.1:{operations}/readyz") == 503, "the process is not ready")
            assert process.poll() is None
            sock.sendall(request[100:])
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        process.communicate(timeout=SECONDS)
        assert process.returncode == 0


def text_of(url: str) -> str:
    """Return the body of a response."""
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        return str(response.read().decode())


def ask(port: int, hook: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the decoded response of a webhook, with its keys in the order of its bytes."""
    url = f"http://127.0.0.1:{port}/modeldeployments/{hook}"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=SECONDS) as response:
        content: dict[str, Any] = json.load(response)
        return content


def test_two_replicas_respond_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with different hash seeds give the same bytes.

    Only the times of what has just changed, and the seconds until the next sync, depend on the clock.
    """
    labels = {f"label-{number}": str(number) for number in range(20)}
    template = {"metadata": {"labels": labels, "annotations": labels}, "spec": {"containers": [{"name": "a"}]}}
    remote = {"remoteBackend": REMOTE | {"headersToAdd": {f"x-{number}": "v" for number in range(20)}}}
    requests = [
        json.loads((ROOT / "examples/requests/sync.json").read_bytes()),
        request_body(model_deployment(offloadingConfig=remote), related=[workload(), service()]),
        request_body(served(server={"port": 8000, "replicas": 2, "template": template})),
        request_body(model_deployment(modelSourceRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"})),
        request_body(model_deployment(serviceRef={"name": "front", "namespace": "elsewhere"}), related=[workload()]),
    ]
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    with serving("--namespaces", "") as (_, one, _):
        monkeypatch.setenv("PYTHONHASHSEED", "2")
        with serving("--namespaces", "") as (_, two, _):
            for request in requests:
                for hook in ("sync", "customize", "finalize"):
                    first, second = (ask(port, hook, request) for port in (one, two))
                    assert json.dumps(first.get("children")) == json.dumps(second.get("children"))
                    pauses = [response.pop("resyncAfterSeconds", 0) for response in (first, second)]
                    assert abs(pauses[0] - pauses[1]) < 5
                    assert TIME.sub("now", json.dumps(first)) == TIME.sub("now", json.dumps(second))
                settled = request
                for _ in range(2):  # children that have appeared change a condition once more
                    known = ask(one, "sync", settled)
                    settled = request | {"parent": request["parent"] | {"status": known["status"]}}
                    settled["children"] = grouped(known["children"])
                first, second = (ask(port, "sync", settled) for port in (one, two))
                for response in (first, second):
                    response.pop("resyncAfterSeconds", None)
                assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--bearer-file", "/none"], 2, "hooks: hooks.bearerFile /none cannot be read: No such file or directory.\n"),
        (
            ["--tls-cert-file", "/none", "--tls-key-file", "/none"],
            1,
            "hooks.tls /none and /none cannot be used: no such",
        ),
        (["--tls-cert-file", "/none"], 2, "hooks.tls.keyFile"),
    ],
)
def test_files_that_are_not_there(words: list[str], code: int, sentence: str) -> None:
    """A file that does not exist gives a sentence that names it."""
    result = hooks(*words, "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0")
    assert result.returncode == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_render_prints_the_children(tmp_path: Path) -> None:
    """`render` prints the children as YAML. The other objects in its files count as observed."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "default")
    result = hooks("render", tmp_path / "demo.yaml")
    assert (result.returncode, result.stderr.count("Accepted")) == (0, 0), result.stderr
    children = {item["kind"]: item for item in yaml.safe_load_all(result.stdout)}
    assert set(children) == {"ConfigMap", "Service"}
    route = json.loads(children["ConfigMap"]["data"]["route.json"])
    assert route["split"] == {"percentage": 20, "reason": "Override"}  # an unquoted time is read as Kubernetes does


def test_render_of_a_specification_that_is_not_accepted(tmp_path: Path) -> None:
    """`render` ends with exit status 1 and the condition when a specification is not accepted."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "elsewhere")
    result = hooks("render", tmp_path / "demo.yaml")
    assert result.returncode == 1
    assert "default/demo: Accepted=False/CrossNamespaceReference: " in result.stderr


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        ("a: [", 2, "is not YAML in line"),
        ("just text", 2, "not a Kubernetes object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", 1, "there is no ModelDeployment in"),
        (None, 2, "cannot be read: No such file or directory"),
    ],
)
def test_render_of_a_file_that_is_no_manifest(tmp_path: Path, content: str | None, code: int, sentence: str) -> None:
    """`render` gives one line that names the file and what is wrong with it."""
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_text(content)
    result = hooks("render", path)
    assert result.returncode == code
    assert sentence in result.stderr
    assert str(path) in result.stderr
    assert result.stderr.count("\n") == 1


def test_render_of_the_examples() -> None:
    """`render` accepts the manifests of the examples."""
    manifests = sorted((ROOT / "examples/manifests").glob("*.yaml"))
    result = hooks("render", "--config", ROOT / "examples/config.yaml", *manifests)
    assert result.returncode == 0, result.stderr
    kinds = [item["kind"] for item in yaml.safe_load_all(result.stdout)]
    assert kinds.count("ConfigMap") == 2


def test_a_source_that_does_not_respond(tmp_path: Path) -> None:
    """A source that does not respond delays a sync until its deadline at most, and not the end of the process.

    The process prints only its log, in which the token is not.
    """
    server = ApiServer()
    for path in (USAGE_PATH, PODS_PATH):
        server.scripted[path] = Scripted(delay=NEVER)
    server.start()
    content = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
        "users": [{"name": "x", "user": {"token": "canary"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    parent = model_deployment(offloadingConfig={"remoteBackend": REMOTE, "metrics": [CPU]})
    body = json.dumps(request_body(parent, related=[workload()])).encode()
    try:
        with serving("serve", "--namespaces", "", environment={"KUBECONFIG": str(tmp_path / "kubeconfig")}) as (
            process,
            port,
            operations,
        ):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/modeldeployments/sync", body)
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                assert json.loads(response.read())["children"]
            with urllib.request.urlopen(f"http://127.0.0.1:{operations}/metrics", timeout=SECONDS) as response:
                assert (
                    'beamlit_hooks_source_requests_total{api="pods",code="cancelled"} 1.0' in response.read().decode()
                )
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0
    finally:
        server.stop()
    assert "canary" not in errors
    assert all(json.loads(line)["event"] for line in errors.splitlines())


def test_explain_prints_the_decision_and_its_rule(tmp_path: Path) -> None:
    """`explain` prints the decision first, then the rule that made it, and what would change it."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "default")
    result = hooks("explain", "--now", "2090-01-01T00:00:00Z", tmp_path / "demo.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("default/demo: 20 % of the requests go to the remote backend (Override)\n")
    assert " >>>  6 override               20 %, Override\n" in result.stdout
    assert "if nothing else happens, at 2099-01-01T00:00:00Z" in result.stdout
    (document,) = json.loads(hooks("explain", "-o", "json", tmp_path / "demo.yaml").stdout)
    assert document["answer"]["reason"] == "Override"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--now", "2090-01-01T00:00:00"], 2, "must be a time with its offset from UTC, such as 2030-01-31T18:00:00Z"),
        (["--now", "noon"], 2, "from UTC, such as 2030-01-31T18:00:00Z, not 'noon'"),
        (["--observed", "/none"], 2, "hooks: /none cannot be read: No such file or directory.\n"),
    ],
)
def test_explain_with_unusable_arguments(tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    """`explain` gives one sentence that names an argument that cannot be used."""
    (tmp_path / "demo.yaml").write_text(MANIFEST % "default")
    result = hooks("explain", tmp_path / "demo.yaml", *words)
    assert result.returncode == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
