"""`make run` as a newcomer uses it: every command it prints works, from another process, over HTTP and files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import yaml

from tests.deadlines import NEVER, SECONDS
from tests.late_import import LateImport
from tests.processes import poll
from tools.ports import free_port
from tools.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anthropic
    import openai
else:
    anthropic = LateImport("anthropic")
    openai = LateImport("openai")

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}
PERCENTAGE = "      percentage: 50\n"
"""Line of demo.yaml, below which fields of `behavior` are added."""


POLICY = """\
apiVersion: authorization.beamlit.com/v1alpha1
kind: Policy
metadata: {{name: where, namespace: default}}
spec:
  type: location
  locations: [{{type: continent, name: {continent}}}]
"""


@dataclass(frozen=True, slots=True)
class Running:
    """Running `make run`, with a client of its programs."""

    process: subprocess.Popen[bytes]
    output: Path
    state: Path
    ports: dict[str, int]
    http: httpx.Client

    def terminal(self) -> str:
        """Return everything that its terminal shows so far."""
        return self.output.read_text()

    def url(self, name: str) -> str:
        """Return the URL of one of the programs."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def chat(self, path: str = "/default/demo/v1/chat/completions", **headers: str) -> httpx.Response:
        """Send a chat request to demo through the gateway."""
        return self.http.post(self.url("gateway") + path, json=CHAT, headers=headers)

    def who(self, name: str = "demo") -> tuple[str, str]:
        """Return the backend that responds, and the reason why."""
        response = self.chat(f"/default/{name}/v1/chat/completions")
        assert response.status_code == 200, response.text
        return response.headers["x-beamlit-backend"], response.headers["x-beamlit-reason"]

    def demo(self, server: str, path: str) -> None:
        """Send a POST to this path under /_demo of a model server."""
        self.http.post(f"{self.url(server)}/_demo/{path}").raise_for_status()

    def both(self, path: str) -> None:
        """Send a POST to this path under /_demo of both local model servers."""
        for server in ("local", "second"):
            self.demo(server, path)

    def is_back(self) -> bool:
        """Return whether the second local model server accepts requests, which it does not after a crash."""
        try:
            return self.http.get(f"{self.url('second')}/health").is_success
        except httpx.TransportError:
            return False

    def ready_addresses(self) -> int:
        """Return the number of pods that the EndpointSlices of demo-server have as ready."""
        folder = self.state / "objects/default/endpointslices.discovery.k8s.io"
        slices = [yaml.safe_load(path.read_text()) for path in folder.glob("demo-server-local-*.yaml")]
        return sum(pod["conditions"]["ready"] for one in slices for pod in one["endpoints"])

    def arrived(self, server: str) -> dict[str, str]:
        """Return the header fields of the last request to a model server."""
        headers = self.http.get(f"{self.url(server)}/_demo/last-request").json()["headers"]
        return {name.lower(): value for name, value in headers}

    def edit(self, before: str, after: str) -> None:
        """Change demo.yaml as an editor does."""
        path = self.state / "manifests/demo.yaml"
        text = path.read_text()
        assert before in text
        # In one step: a file that is empty for a moment has a message of its own.
        written = self.state / "edited.yaml"
        written.write_text(text.replace(before, after))
        written.replace(path)

    def queue(self, value: int) -> None:
        """Set the demo's metric to this value, as an editor does."""
        path = self.state / "metrics.yaml"
        path.write_text(re.sub(r"(?m)^value: .*", f"value: {value}", path.read_text()))

    def override(self, percentage: int, until: str) -> None:
        """Add an override to demo.yaml."""
        self.edit(PERCENTAGE, f"{PERCENTAGE}      override: {{percentage: {percentage}, until: {until}}}\n")

    def stored(self, name: str = "demo", resource: str = "modeldeployments.deployment.beamlit.com") -> dict[str, Any]:
        """Return an object as the cluster would have it."""
        content: dict[str, Any] = yaml.safe_load((self.state / f"objects/default/{resource}/{name}.yaml").read_text())
        return content

    def at_rest(self) -> bool:
        """Return whether demo's present manifest is in force."""
        observed = self.stored().get("status", {}).get("observedGeneration")
        settled = observed == self.stored()["metadata"]["generation"]
        return settled and all(self.condition(kind).get("status") == "True" for kind in ("Synced", "Ready"))

    def names(self) -> list[str]:
        """Return the names of demo's metrics in its status."""
        return [one["name"] for one in self.stored()["status"].get("offloading", {}).get("metrics", ())]

    def pods(self) -> list[dict[str, Any]]:
        """Return the processes as pods."""
        items: list[dict[str, Any]] = yaml.safe_load((self.state / "pods.yaml").read_text())["items"]
        return items

    def ready_pods(self) -> list[str]:
        """Return the names of the processes that are ready."""
        ready = {"type": "Ready", "status": "True"}
        return [
            one["metadata"]["name"]
            for one in self.pods()
            if any(ready.items() <= condition.items() for condition in one["status"]["conditions"])
        ]

    def standing(self) -> str:
        """Return the state of demo's metric in its status."""
        state: str = self.stored()["status"]["offloading"]["metrics"][0]["state"]
        return state

    def explained(self) -> str:
        """Run the last command on the screen, as it is printed and in another directory, and return what it prints."""
        (command,) = re.findall(r"  (\S+ explain .*?)  +#", self.terminal(), re.DOTALL)
        ended = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True, timeout=SECONDS)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    def condition(self, kind: str) -> dict[str, Any]:
        """Return a condition of demo, or an empty one if it is not there."""
        conditions = self.stored().get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def route_backends(self) -> list[str]:
        """Return the ids of the backends in demo's route document."""
        document = json.loads(self.stored("demo-route", "configmaps")["data"]["route.json"])
        return [backend["id"] for backend in document["backends"]]


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run `make run` on free ports and a state folder of its own, and yield it."""
    ports = {name: free_port() for name in ("gateway", "admin", "hooks", "operations", "local", "remote", "second")}
    command = [sys.executable, "-m", "examples.run", "--state", str(folder / "state")]
    flags = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    output = folder / "terminal"
    with output.open("wb") as terminal:
        process = subprocess.Popen(
            [*command, *flags], cwd=ROOT, stdout=terminal, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        with httpx.Client(trust_env=False, timeout=SECONDS) as client:
            demo = Running(process, output, folder / "state", ports, client)
            poll(
                lambda: "Try in another terminal" in demo.terminal() or process.poll() is not None,
                "a start",
                seconds=2 * SECONDS,
            )
            assert process.poll() is None, demo.terminal()
            # On a busy machine it says after a while that not everything is there yet.
            objects = demo.state / "objects/default/modeldeployments.deployment.beamlit.com"
            poll(lambda: (objects / "demo.yaml").exists() and demo.at_rest(), "demo in force", seconds=2 * SECONDS)
            for server in ("local", "second", "remote"):
                demo.demo(server, "speed?time_to_first_token=0&tokens_per_second=0")
            yield demo
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Yield one run for the tests that undo what they change."""
    with running(tmp_path_factory.mktemp("run")) as demo:
        yield demo


@pytest.fixture
def demo(shared: Running) -> Iterator[Running]:
    """Yield the shared run, with everything as the examples have it."""
    texts = {path: path.read_text() for path in (shared.state / "manifests/demo.yaml", shared.state / "metrics.yaml")}
    shared.both("ready")
    for name in ("demo", "demo-server"):
        poll(lambda name=name: shared.who(name) == ("local", "Local"), f"{name} at rest")  # type: ignore[misc]
    poll(shared.at_rest, "demo in sync")
    yield shared
    for path, text in texts.items():
        path.write_text(text)
    shared.both("ready")


@pytest.mark.xdist_group("make run")
class TestRequests:
    """Tests of the ways in which a request reaches a model."""

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            ("/default/demo/v1/chat/completions", {}),
            ("/v1/chat/completions", {}),
            ("/v1/chat/completions", {"Host": "demo.default.svc.cluster.local"}),
            ("/v1/chat/completions", {"Host": "demo.default.svc"}),
            ("/v1/chat/completions", {"Host": "demo.default"}),
            ("/v1/chat/completions", {"Host": "demo"}),
        ],
    )
    def test_ways(self, demo: Running, path: str, headers: dict[str, str]) -> None:
        """A request by path, by model name or by any form of the Service's name gets the local model's response."""
        response = demo.chat(path, **headers)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == "This is tiny-local. You said: hello"
        assert (response.headers["x-beamlit-backend"], response.headers["x-beamlit-reason"]) == ("local", "Local")

    def test_models(self, demo: Running) -> None:
        """The gateway lists the ModelDeployments."""
        listed = demo.http.get(f"{demo.url('gateway')}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["demo", "demo-server"]

    def test_stream(self, demo: Running) -> None:
        """A stream arrives event by event, while the model is still generating."""
        demo.demo("local", "speed?tokens_per_second=3")
        try:
            url = f"{demo.url('gateway')}/v1/chat/completions"
            with demo.http.stream("POST", url, json=CHAT | {"stream": True}) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines = response.iter_lines()
                first = next(lines)
                assert demo.http.get(f"{demo.url('local')}/_demo/state").json()["running"] == 1
                assert [line for line in (first, *lines) if line][-1] == "data: [DONE]"
        finally:
            demo.demo("local", "speed?tokens_per_second=0")

    def test_openai_client(self, demo: Running) -> None:
        """The openai client lists, chats, streams, completes and embeds."""
        with openai.OpenAI(base_url=f"{demo.url('gateway')}/v1", api_key="none", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["demo", "demo-server"]
            messages: Any = CHAT["messages"]
            completion = client.chat.completions.create(model="demo-server", messages=messages)
            assert completion.choices[0].message.content == "This is tiny-local. You said: hello"
            stream = client.chat.completions.create(model="demo", messages=messages, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            assert text == "This is tiny-local. You said: hello"
            assert client.completions.create(model="demo", prompt="a").choices[0].text.endswith("You said: a")
            assert len(client.embeddings.create(model="demo", input="a").data[0].embedding) == 8
            with pytest.raises(openai.NotFoundError) as caught:
                client.completions.create(model="other", prompt="a")
            assert caught.value.code == "model_not_found"

    def test_other_apis(self, demo: Running) -> None:
        """The anthropic client sends messages, and the openai client asks for responses, each whole and in a stream."""
        text = "This is tiny-local. You said: hello"
        asked: Any = {"model": "demo", "max_tokens": 50, "messages": CHAT["messages"]}
        with anthropic.Anthropic(base_url=demo.url("gateway"), api_key="none", max_retries=0) as messages:
            assert [one.text for one in messages.messages.create(**asked).content if one.type == "text"] == [text]
            with messages.messages.stream(**asked) as stream:
                assert "".join(stream.text_stream) == text
        base = f"{demo.url('gateway')}/default/demo/v1"
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as responses:
            assert responses.responses.create(model="demo", input="hello").output_text == text
            with responses.responses.stream(model="demo", input="hello") as events:
                assert events.get_final_response().output_text == text

    @pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
    def test_the_screen(self, demo: Running) -> None:
        """Each command on the screen works as it is printed, in order."""
        text = demo.terminal()
        commands = [line.strip() for line in text.splitlines() if line.startswith("  curl ")]
        expected = [
            *("tiny-local", "tiny-local", "[DONE]", "demo-server", '"ready":false', '"ready":true'),
            '"crashes_in_seconds":',
        ]
        assert len(commands) == len(expected)
        for command, words in zip(commands, expected, strict=True):
            ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=SECONDS)
            assert (ended.returncode, words in ended.stdout) == (0, True), (command, ended.stdout, ended.stderr)
        assert str(demo.state / "manifests/demo.yaml") in text
        poll(lambda: "second local model was ended by SIGKILL" in demo.terminal(), "the end of a server")
        poll(demo.is_back, "its return")


@pytest.mark.xdist_group("make run")
class TestPods:
    """Tests of a model with two pods."""

    def test_one_of_two_crashes(self, demo: Running) -> None:
        """While one of two pods is gone, the other one gets all requests: none is an error and none goes elsewhere."""

        def pods() -> set[str]:
            found = demo.http.get(f"{demo.url('admin')}/decisions?route=default/demo-server").json()["decisions"]
            return {one["pod"] for one in found if "pod" in one}

        def both() -> bool:
            assert demo.who("demo-server") == ("local", "Local")
            return pods() == {"demo-server-0", "demo-server-1"}

        poll(lambda: demo.ready_addresses() == 2, "two pods")
        poll(both, "requests at both")
        demo.demo("second", "crash")
        deadline = time.monotonic() + SECONDS
        while demo.ready_addresses() == 2:
            assert demo.who("demo-server") == ("local", "Local")
            assert time.monotonic() < deadline
        assert {demo.who("demo-server") for _ in range(20)} == {("local", "Local")}
        poll(demo.is_back, "its return")
        poll(lambda: demo.ready_addresses() == 2, "a ready pod again")
        assert demo.who("demo-server") == ("local", "Local")
        assert demo.process.poll() is None


@pytest.mark.xdist_group("make run")
class TestOffloading:
    """Tests of requests that go to the remote backend and come back."""

    @pytest.mark.parametrize("name", ["demo", "demo-server"])
    def test_unready_and_back(self, demo: Running, name: str) -> None:
        """While the local model is unready every response comes from the remote and says why; then the local one serves
        again."""
        demo.both("unready")
        poll(lambda: demo.who(name) == ("remote", "NoReadyReplica"), "offloading")
        responses = [demo.chat(f"/default/{name}/v1/chat/completions") for _ in range(20)]
        assert {response.headers["x-beamlit-backend"] for response in responses} == {"remote"}
        assert {response.headers["x-beamlit-reason"] for response in responses} == {"NoReadyReplica"}
        assert "This is tiny-remote." in responses[0].text
        path = demo.http.get(f"{demo.url('remote')}/_demo/last-request").json()["path"]
        assert path == "/demo/tiny-remote/v1/chat/completions"
        demo.both("ready")
        poll(lambda: demo.who(name) == ("local", "Local"), "the return")
        assert {demo.who(name) for _ in range(20)} == {("local", "Local")}

    def test_the_callers_key(self, demo: Running) -> None:
        """The caller's Authorization goes to the local model and never to the remote one."""
        demo.chat(Authorization="Bearer of-the-caller")
        assert demo.arrived("local")["authorization"] == "Bearer of-the-caller"
        demo.demo("local", "unready")
        poll(lambda: demo.who()[0] == "remote", "offloading")
        assert demo.chat(Authorization="Bearer of-the-caller").status_code == 200
        assert "of-the-caller" not in str(demo.arrived("remote"))

    def test_revoked_token(self, demo: Running) -> None:
        """A token that the remote no longer accepts is replaced within the request."""
        demo.demo("local", "unready")
        poll(lambda: demo.who()[0] == "remote", "offloading")
        demo.demo("remote", "revoke")
        assert demo.chat().status_code == 200


@pytest.mark.xdist_group("make run")
class TestDrills:
    """Tests of how the gateway tries the remote backend before requests need it."""

    def found(self, demo: Running, admin: str) -> dict[str, Any]:
        """Return the last result at the default remote backend, as a gateway shows it; empty without one."""
        try:
            drills = demo.http.get(f"{admin}/drills?namespace=default&name=demo-server").json()["drills"]
        except httpx.HTTPError:
            return {}
        return drills[0] if drills else {}

    def test_the_remote_backend_is_proved(self, demo: Running) -> None:
        """The gateway has proved name, connection and credentials of the remote backend that no request needs."""
        poll(lambda: self.found(demo, demo.url("admin")).get("reason") == "Proven", "a drill")

    def test_a_wrong_secret(self, demo: Running, tmp_path: Path) -> None:
        """A gateway whose configuration has a wrong secret says so, and where it is, before the backend is needed."""
        config, port = tmp_path / "config.yaml", free_port()
        text = (demo.state / "config.yaml").read_text()
        assert '"demo-secret"' in text
        config.write_text(text.replace('"demo-secret"', '"wrong-secret"'))
        options = ("--config", config, "--routes", demo.state / "objects", "--listen", f"127.0.0.1:{free_port()}")
        command = [sys.executable, "-m", "gateway", *map(str, options), "--admin", f"127.0.0.1:{port}"]
        with (tmp_path / "log").open("wb") as log:
            gateway = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            admin = f"http://127.0.0.1:{port}"
            poll(lambda: self.found(demo, admin).get("reason") == "TokenRefused", "a drill that fails")
            message = self.found(demo, admin)["message"]
            assert message.endswith("in the section defaultRemoteBackend of the configuration.")
            page = demo.http.get(f"{admin}/?route=default/demo-server").text
            assert "Drill at remote: <strong>TokenRefused</strong>" in page
            assert "in the section defaultRemoteBackend of the configuration." in page
            assert "wrong-secret" not in message + (tmp_path / "log").read_text()
        finally:
            gateway.terminate()
            gateway.wait(SECONDS)


@pytest.mark.xdist_group("make run, metrics")
class TestMetrics:
    """Tests in which the number in metrics.yaml is changed and requests are offloaded."""

    def test_away_and_back(self, demo: Running) -> None:
        """With its metric at the target half of the requests are offloaded; they come back at the value that `explain`
        names, not before."""
        try:
            demo.queue(12)
            poll(lambda: demo.who()[1] == "MetricReached", "offloading")
            counted = Counter(demo.who()[0] for _ in range(20))
            assert counted == {"local": 10, "remote": 10}
            demo.queue(8)
            poll(lambda: demo.standing() == "Below", "a look at the lower value")
            text = demo.explained()
            assert "default/demo: 50 % of the requests go to the remote backend (Releasing)" in text
            assert "(8) / (10 × 1) = 4/5 = 80 % of the target" in text
            assert "with all requests here: 160 % of the target, estimated" in text
            assert re.search(
                r"queue-depth below 4500m instead of 8 for [^:]*: every request stays here \(Local\)", text
            )
        finally:
            demo.queue(4)
            poll(lambda: demo.who() == ("local", "Local"), "the return")
        assert {demo.who() for _ in range(20)} == {("local", "Local")}

    def test_a_broken_file(self, demo: Running) -> None:
        """A metrics file that is not YAML is named in the condition with the line of the mistake, and a repaired one is
        read again."""
        text = (demo.state / "metrics.yaml").read_text()
        (demo.state / "metrics.yaml").write_text("value: [")
        poll(lambda: demo.condition("MetricsAvailable")["status"] == "False", "a condition")
        assert f"{demo.state}/metrics.yaml is not YAML in line" in demo.condition("MetricsAvailable")["message"]
        poll(lambda: demo.who() == ("local", "MetricsMissing"), "the reason in responses")
        (demo.state / "metrics.yaml").write_text(text)
        poll(lambda: demo.condition("MetricsAvailable")["status"] == "True", "the end of it")


EXTERNAL = """\
    metrics:                          # metrics.yaml says what it is; see there what to try
      - type: External
        external:
          metric: {name: queue-depth}
          target: {type: Value, value: 10}
"""
"""Metrics of demo.yaml."""
OF_PODS = """\
    metricSource: {type: pods}
    metrics:
      - type: Pods
        pods:
          metric: {name: vllm:num_requests_waiting}
          target: {type: AverageValue, averageValue: 2}
"""


@pytest.mark.xdist_group("make run, pods")
def test_the_queue_of_the_model_server(tmp_path: Path) -> None:
    """With its pods as the source, a model is offloaded while requests wait in its server; `explain` says where that is
    read."""
    with running(tmp_path) as demo, ExitStack() as clients:
        demo.edit(EXTERNAL, OF_PODS)
        poll(lambda: demo.names() == ["vllm:num_requests_waiting"] and demo.standing() == "Below", "an empty queue")
        demo.demo("local", f"speed?concurrency=1&time_to_first_token={NEVER:g}")
        body = json.dumps(CHAT | {"model": "tiny-local"}).encode()
        for _ in range(4):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", demo.ports["local"]), SECONDS))
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            client.sendall(body)
        poll(lambda: demo.stored()["status"]["offloading"]["reason"] == "MetricReached", "offloading")
        (pod,) = [one for one in demo.pods() if one["metadata"]["name"] == "demo-0"]
        assert pod["status"]["podIP"] == "127.0.0.1"
        explained = " ".join(demo.explained().split())
        assert "read at port http, path /metrics of each ready pod" in explained
        demo.both("unready")
        poll(lambda: demo.ready_pods() == [], "no ready pod")


@pytest.mark.xdist_group("make run")
class TestEdits:
    """Tests in which the manifest is edited and the split follows."""

    @pytest.mark.parametrize("until", ["2030-12-31T23:59:59Z", "'2030-12-31T23:59:59Z'", "2030-12-31T23:59:59+02:00"])
    def test_override(self, demo: Running, until: str) -> None:
        """An override splits requests exactly, whether or not its end is written with quotes."""
        demo.override(20, until)
        poll(lambda: demo.who()[1] == "Override", "the override")
        split: list[tuple[str, str]] = []

        def is_whole() -> bool:
            """Send a hundred requests, and return whether all followed the override."""
            split[:] = [demo.who() for _ in range(100)]
            return {reason for _, reason in split} == {"Override"}

        poll(is_whole, "a hundred requests in a row that no failover took away")
        assert 19 <= Counter(split)["remote", "Override"] <= 21

    def test_override_ends(self, demo: Running) -> None:
        """An override ends by itself at its time."""
        text = (demo.state / "manifests/demo.yaml").read_text()
        for seconds in (6, 30, 120):  # more where the machine is so busy that it is over before it was seen
            until = datetime.now(UTC) + timedelta(seconds=seconds)
            demo.override(100, f"{until:%Y-%m-%dT%H:%M:%SZ}")
            seen: set[tuple[str, str]] = set()
            while datetime.now(UTC) < until and ("remote", "Override") not in seen:
                seen.add(demo.who())
            if ("remote", "Override") in seen:
                break
            (demo.state / "manifests/demo.yaml").write_text(text)
        else:
            pytest.fail("no override was ever in force")
        poll(lambda: demo.who() == ("local", "Local"), "its end")
        assert datetime.now(UTC) >= until.replace(microsecond=0)

    def test_disabled(self, demo: Running) -> None:
        """A disabled model is not offloaded, whatever else its manifest says."""
        demo.override(100, "2030-12-31T23:59:59Z")
        poll(lambda: demo.who() == ("remote", "Override"), "the override")
        demo.edit("enabled: true", "enabled: false")
        poll(lambda: demo.who() == ("local", "Disabled"), "the end of offloading")

    def test_headers(self, demo: Running) -> None:
        """Header fields that are changed or added in `headersToAdd` arrive at the remote backend."""
        demo.override(100, "2030-12-31T23:59:59Z")
        poll(lambda: demo.who() == ("remote", "Override"), "the override")
        assert demo.arrived("remote")["x-team"] == "search"
        demo.edit("X-Team: search", "X-Team: ranking\n        X-More: 'yes'")

        def arrives() -> bool:
            demo.chat()
            return demo.arrived("remote")["x-team"] == "ranking"

        poll(arrives, "the other header")
        assert demo.arrived("remote")["x-more"] == "yes"

    def test_policy(self, demo: Running) -> None:
        """An edited Policy takes the remote backend out of the route, with a sentence that says why, or brings it back;
        while it is out, not even a model without a ready replica is offloaded."""
        assert demo.route_backends() == ["local", "remote"]
        demo.edit("  enabled: true\n", "  enabled: true\n  policies: [{refType: localPolicy, name: where}]\n")
        demo.edit("      scheme: http\n", "      scheme: http\n      location: {country: fr}\n")
        poll(lambda: demo.condition("PolicySatisfied").get("reason") == "PolicyMissing", "a missing policy")
        poll(lambda: demo.route_backends() == ["local"], "a route without the remote")
        file = demo.state / "manifests/policy.yaml"
        try:
            file.write_text(POLICY.format(continent="EU"))
            poll(lambda: demo.route_backends() == ["local", "remote"], "the remote's coming")
            poll(lambda: demo.condition("PolicySatisfied")["reason"] == "PoliciesSatisfied", "a verdict")
            file.write_text(POLICY.format(continent="AS"))
            poll(lambda: demo.route_backends() == ["local"], "the remote's going")
            poll(lambda: demo.condition("PolicySatisfied")["reason"] == "LocationNotAllowed", "a refusal")
            assert demo.condition("PolicySatisfied")["status"] == "False"
            assert "Policy where allows only continent AS" in demo.condition("PolicySatisfied")["message"]
            poll(lambda: demo.who() == ("local", "LocationNotAllowed"), "the reason at the gateway")
            arrived = demo.arrived("remote")
            demo.demo("local", "unready")
            poll(lambda: demo.condition("LocalReady")["status"] == "False", "unreadiness")
            assert {demo.who() for _ in range(20)} == {("local", "LocationNotAllowed")}
            assert demo.arrived("remote") == arrived
            file.write_text(POLICY.format(continent="Europe"))
            poll(lambda: demo.who() == ("remote", "NoReadyReplica"), "the remote's return")
        finally:
            demo.demo("local", "ready")
            file.unlink()

    def test_refused_by_the_schema(self, demo: Running) -> None:
        """A value that the schema refuses gives one sentence on the terminal and changes nothing."""

        def author() -> tuple[Any, ...]:
            """Return what its author can change, and the verdict; the rest of the status moves with metrics."""
            stored = demo.stored()
            return stored["metadata"]["generation"], stored["spec"], demo.condition("Accepted")

        before, shown = author(), len(demo.terminal())
        demo.edit(PERCENTAGE, "      percentage: 500\n")
        poll(lambda: "refused" in demo.terminal()[shown:], "a sentence")
        lines = [line for line in demo.terminal()[shown:].splitlines() if line.startswith("manifests/")]
        assert len(lines) == 1
        assert "manifests/demo.yaml" in lines[0]
        assert "refused, nothing changed" in lines[0]
        assert "percentage" in lines[0]
        assert author() == before
        assert demo.who() == ("local", "Local")

    def test_not_accepted(self, demo: Running) -> None:
        """A mistake that the schema does not find sets Accepted to False with what to change, and traffic goes on."""
        shown = len(demo.terminal())
        demo.edit(
            "    name: demo\n    namespace: default\n    targetPort",
            "    name: demo\n    namespace: other\n    targetPort",
        )
        poll(lambda: demo.condition("Accepted").get("status") == "False", "a condition")
        accepted = demo.condition("Accepted")
        assert accepted["reason"] == "CrossNamespaceReference"
        assert "spec.serviceRef refers to namespace other" in accepted["message"]
        poll(lambda: accepted["message"] in demo.terminal()[shown:], "the sentence on the terminal")
        assert demo.who() == ("local", "Local")
        demo.demo("local", "unready")
        poll(lambda: demo.who() == ("remote", "NoReadyReplica"), "offloading")

    def test_children(self, demo: Running) -> None:
        """The workload of `spec.server` and the Services exist as a cluster would have them."""
        poll(lambda: demo.stored("demo-server", "deployments.apps")["status"].get("readyReplicas") == 2, "two replicas")
        service = demo.stored("ask-demo-server", "services")
        assert service["spec"]["externalName"] == "beamlit-gateway.beamlit-system.svc.cluster.local"
        response = demo.chat("/v1/chat/completions", Host="ask-demo-server.default.svc.cluster.local")
        assert "tiny-local" in response.text


@pytest.mark.long
def test_a_wrong_secret(tmp_path: Path) -> None:
    """A client secret that is edited to a wrong one shows in the conditions and at the admin port, and a right one ends
    that; without a ready replica the model is not ready meanwhile."""
    with running(tmp_path) as demo:
        poll(lambda: demo.condition("OffloadReady").get("reason") == "Proven", "a proof")
        demo.edit("clientSecret: demo-secret", "clientSecret: wrong-secret")
        poll(lambda: demo.condition("OffloadReady")["reason"] == "TokenRefused", "a refusal")
        assert "ModelDeployment default/demo" in demo.condition("OffloadReady")["message"]
        assert "wrong-secret" not in str(demo.stored()["status"])
        drills = demo.http.get(demo.url("admin") + "/drills?name=demo").json()["drills"]
        assert [one["reason"] for one in drills] == ["TokenRefused"]
        page = demo.http.get(demo.url("admin") + "/?route=default/demo").text
        assert "Drill at remote: <strong>TokenRefused</strong>" in page
        assert demo.condition("Ready")["status"] == "True"
        demo.demo("local", "unready")
        poll(lambda: demo.condition("Ready")["reason"] == "RemoteFails", "three failed drills")
        demo.edit("clientSecret: wrong-secret", "clientSecret: demo-secret")
        poll(lambda: demo.condition("OffloadReady")["reason"] == "Proven", "another proof")
        poll(lambda: demo.condition("Ready")["status"] == "True", "a model that is served")


def test_cors_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that README names in front of `make run` lets a website use the gateway."""
    (found,) = re.findall(r"^(BEAMLIT_\w+)='(\S+)' make run", (ROOT / "README.md").read_text(), re.MULTILINE)
    monkeypatch.setenv(*found)
    fields = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    with running(tmp_path) as demo:
        response = demo.http.options(f"{demo.url('gateway')}/v1/chat/completions", headers=fields)
        assert response.status_code == 204
        assert demo.chat(**fields).headers["access-control-allow-origin"] == "http://localhost:3000"


class TestEnd:
    """Tests of how `make run` ends."""

    def test_ctrl_c(self, tmp_path: Path) -> None:
        """Ctrl-C ends everything and leaves no process, and a second start keeps the edits."""
        with running(tmp_path) as demo:
            children = psutil.Process(demo.process.pid).children(recursive=True)
            assert len(children) >= 5
            demo.edit("X-Team: search", "X-Team: mine")
            os.killpg(demo.process.pid, signal.SIGINT)
            assert demo.process.wait(SECONDS) == 0, demo.terminal()
            assert [child for child in children if child.is_running()] == []
            assert demo.terminal().endswith("Ended.\n")
        with running(tmp_path) as again:
            assert "X-Team: mine" in (again.state / "manifests/demo.yaml").read_text()
            assert again.who() == ("local", "Local")
            children = psutil.Process(again.process.pid).children(recursive=True)
            again.process.kill()
            again.process.wait()
            _, alive = psutil.wait_procs(children, timeout=SECONDS)
            assert alive == []

    def test_a_child_dies(self, tmp_path: Path) -> None:
        """When one of the programs ends, its name and last lines are printed and everything ends."""
        with running(tmp_path) as demo:
            processes = psutil.Process(demo.process.pid).children(recursive=True)
            gateway = next(one for one in processes if "gateway" in one.cmdline())
            gateway.kill()
            assert demo.process.wait(SECONDS) == 1
            assert "gateway was ended by SIGKILL. The end of " in demo.terminal()
            assert [child for child in processes if child.is_running()] == []

    def test_broken_configuration(self, tmp_path: Path) -> None:
        """A configuration that cannot be used ends the start with the message of the program that refuses it."""
        (tmp_path / "state").mkdir()
        (tmp_path / "state/config.yaml").write_text("gatway: {}\n")
        with pytest.raises(AssertionError, match="gatway"), running(tmp_path):
            pass


def test_json_of_the_chat() -> None:
    """The request body that the screen shows is the one that these tests send."""
    from examples.run import Ports, screen

    assert json.dumps(CHAT) in screen(Path("/state"), Ports())
