"""The command `python -m hooks` with a platform: its token, and its deadlines."""

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hooks.platform.beamlit.registrar import CALL_SECONDS
from tests.builders import Json, model_deployment, observed, request_body, workload
from tests.deadlines import NEVER, SECONDS
from tests.integration.apiserver import ApiServer
from tests.integration.hooks.test_process import ask, hooks, serving, text_of
from tests.platform import CLIENT_ID, SECRET, TOKEN, Platform, Trouble
from tests.processes import poll
from tests.registered import kubeconfig, message, registered, running

UNHURRIED = ("tests.integration.hooks.unhurried", str(SECONDS))
"""Module that runs hooks with time for the platform, and its first argument."""
PATH = "/apis/deployment.beamlit.com/v1alpha1/namespaces/team-a/modeldeployments/demo"


@pytest.fixture
def servers() -> Iterator[tuple[Platform, ApiServer]]:
    """Yield a platform and an API server."""
    with running() as both:
        yield both


class Turns:
    """Syncs of one ModelDeployment in sequence, each of which the API server and the cluster apply."""

    def __init__(self, port: int, api: ApiServer) -> None:
        self.item = model_deployment()
        self.ready = 1
        self._children: list[Json] = []
        self._port, self._api = port, api
        api.objects[PATH] = self.item

    def sync(self) -> Json:
        """Send one sync, apply its response, and return it."""
        body = request_body(self.item, children=self._children, related=[workload(ready=self.ready)])
        response = ask(self._port, "sync", body)
        self._children = [observed(child) for child in response["children"]]
        self.item["status"] = response["status"]
        return response


def share(response: Json) -> int:
    """Return the percentage that the route sends to the remote backend."""
    (route,) = [child for child in response["children"] if child["kind"] == "ConfigMap"]
    backends = json.loads(route["data"]["route.json"])["backends"]
    return int(next(one.get("weight", 0) for one in backends if one["id"] == "remote"))


def variables(platform: Platform, api: ApiServer, folder: Path) -> dict[str, str]:
    """Return the environment variables of hooks."""
    return {
        "BEAMLIT_TOKEN": TOKEN,
        "BEAMLIT_BASE_URL": platform.url,
        "KUBECONFIG": str(kubeconfig(folder, api.port)),
    }


def test_a_token_switches_registration_on(servers: tuple[Platform, ApiServer], tmp_path: Path) -> None:
    """With the two variables of the original a model is registered and counted, and no secret is printed."""
    platform, api = servers
    environment = variables(*servers, tmp_path)
    with serving("--namespaces", "", environment=environment, module=UNHURRIED) as (process, port, operations):
        turns = Turns(port, api)
        assert turns.sync()["resyncAfterSeconds"] == 1
        response = turns.sync()
        assert registered(response) == ("True", "UpToDate")
        assert platform.model() is not None
        metrics = text_of(f"http://127.0.0.1:{operations}/metrics")
        assert 'beamlit_hooks_platform_requests_total{operation="create",result="ok"} 1.0' in metrics
        assert 'beamlit_hooks_platform_circuit{state="closed"} 1.0' in metrics
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == ["listening", "platform_has", "signal", "stopped"]
    for canary in (TOKEN, SECRET, *platform.bought):
        assert canary not in errors + metrics + json.dumps(response)


def test_a_token_in_a_file(servers: tuple[Platform, ApiServer], tmp_path: Path) -> None:
    """The token may be in the file of `platform.tokenFile`; the environment variable wins over it."""
    platform, api = servers
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "config.yaml").write_text(
        json.dumps({"namespaces": "", "platform": {"tokenFile": str(tmp_path / "token"), "baseUrl": platform.url}})
    )
    environment = {"KUBECONFIG": str(kubeconfig(tmp_path, api.port))}
    words = ("--config", str(tmp_path / "config.yaml"))
    with serving(*words, environment=environment, module=UNHURRIED) as (_, port, _):
        turns = Turns(port, api)
        turns.sync()
        assert registered(turns.sync()) == ("True", "UpToDate")
    wrong = base64.b64encode(f"{CLIENT_ID}:wrong".encode()).decode()
    with serving(*words, environment=environment | {"BEAMLIT_TOKEN": wrong}, module=UNHURRIED) as (_, port, _):
        turns = Turns(port, api)
        turns.sync()
        assert registered(turns.sync()) == ("False", "Unauthorized")


@pytest.mark.parametrize(
    ("token", "written"),
    [
        ("canary", None),
        (base64.b64encode(b"canary-without-a-colon").decode(), None),
        (base64.b64encode(b":canary").decode(), None),
        (base64.b64encode(b"canary:").decode(), None),
        ("", "canary"),
        ("", ""),
    ],
)
def test_an_invalid_token(token: str, written: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid token gives exit status 2 and one sentence that names its place and not its value."""
    monkeypatch.setenv("BEAMLIT_TOKEN", token)
    where = "BEAMLIT_TOKEN"
    if written is not None:
        (tmp_path / "token").write_text(written)
        monkeypatch.setenv("BEAMLIT_PLATFORM__TOKEN_FILE", str(tmp_path / "token"))
        where = f"platform.tokenFile {tmp_path}/token"
    ended = hooks("--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0")
    assert ended.returncode == 2
    assert ended.stderr == f"hooks: {where} must be base64 of clientId:clientSecret.\n"


def test_a_token_file_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token file that does not exist gives exit status 2 and one sentence."""
    monkeypatch.setenv("BEAMLIT_PLATFORM__TOKEN_FILE", str(tmp_path / "none"))
    ended = hooks("--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0")
    sentence = f"hooks: platform.tokenFile {tmp_path}/none cannot be read: No such file or directory.\n"
    assert (ended.returncode, ended.stderr) == (2, sentence)


@pytest.mark.parametrize("hanging", ["token", "platform", "api server"])
def test_the_route_changes_within_a_second_while_the_platform_hangs(
    servers: tuple[Platform, ApiServer], tmp_path: Path, hanging: str
) -> None:
    """A change of readiness while a sync waits for the platform is in the route document within a second."""
    assert CALL_SECONDS < 1
    platform, api = servers
    environment = variables(*servers, tmp_path)
    with serving("--namespaces", "", environment=environment, module=(*UNHURRIED[:-1], "3")) as (_, port, _):
        turns = Turns(port, api)
        turns.sync()
        asked = threading.Event()

        def hangs(_method: str, path: str) -> Trouble | None:
            asked.set()
            token = path.endswith("/oauth/token")
            return Trouble(delay=NEVER) if token is (hanging == "token") else None

        if hanging == "api server":
            api.delay = NEVER
            asked.set()
        else:
            platform.script = hangs
        responses: list[Json] = []
        waiting = threading.Thread(target=lambda: responses.append(turns.sync()))
        waiting.start()
        poll(asked.is_set, what="the platform is asked")
        turns.ready = 0
        waiting.join(SECONDS)
        response = turns.sync()
        assert registered(responses[0]) == ("False", "Unreachable")
        assert "does not respond in time" in message(responses[0])
        assert (share(responses[0]), share(response)) == (0, 100)


def test_a_platform_that_hangs_does_not_hold_up_syncs(servers: tuple[Platform, ApiServer], tmp_path: Path) -> None:
    """Each of twenty simultaneous syncs gets its response although the platform hangs, which is then called no more."""
    platform, api = servers
    platform.always(Trouble(delay=NEVER))
    with serving("--namespaces", "", environment=variables(*servers, tmp_path)) as (_, port, _):
        bodies = []
        for number in range(20):
            item: Json = model_deployment(model=f"m-{number}")
            item["metadata"] |= {"name": f"m-{number}", "uid": f"uid-{number}"}
            api.objects[PATH.replace("demo", f"m-{number}")] = item
            first = ask(port, "sync", request_body(item, related=[workload()]))
            item["status"] = first["status"]
            children = [observed(child) for child in first["children"]]
            bodies.append(request_body(item, children=children, related=[workload()]))
        with_children: list[bool] = []

        def one(body: Any) -> None:
            url = f"http://127.0.0.1:{port}/modeldeployments/sync"
            with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=SECONDS) as response:
                with_children.append(bool(json.load(response)["children"]))

        for turn in (1, 2):
            asked = platform.at_once
            threads = [threading.Thread(target=one, args=(body,)) for body in bodies]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SECONDS)
            assert with_children == [True] * turn * len(bodies)
            assert (platform.at_once > asked) is (turn == 1)
