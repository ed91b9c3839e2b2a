"""`kubectl beamlit drill`: what it reads from a cluster, what it sends, and what it waits for."""

import http.server
import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from hooks.api.common import format_time
from hooks.explain.outage import Check, State
from hooks.kube.objects import Object
from hooks.kubectl import outage
from hooks.kubectl.cluster import Kubectl, Query
from hooks.kubectl.command import main
from hooks.kubectl.outage import Drill, callers, denied_callers, first_token, look
from tests import builders
from tests.builders import NAMESPACE
from tests.deadlines import NEVER
from tests.unit.hooks.kubectl.test_live import DEPLOYMENT, NAMESPACES, SETTINGS, Recorded, forbidden, gateway
from tools.ports import free_port

SYSTEM = "beamlit-system"
PODS = f"{NAMESPACES}/{SYSTEM}/pods"
ROUTE = f"{NAMESPACE}/demo"
DRILLS = f"{PODS}/g1:8081/proxy/drills"
DECISIONS = f"{PODS}/g1:8081/proxy/decisions"
MODEL = f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/demo"
RULES = """
callers:
  nightly: {burst: deny}
  other-model: {burst: deny, models: [team-b/other]}
  this-model: {burst: deny, models: [team-a/demo]}
  free: {maxInFlight: 3}
groups:
  inside: {burst: deny}
  others: {burst: deny, models: [team-b/other]}
  first: {priority: high}
"""


def recorded(**found: Any) -> Recorded:
    """Return a cluster with a gateway that has proven the remote backend of the model."""
    pod = gateway("g1")
    pod["spec"]["volumes"] = [{"name": "tmp"}, {"name": "access-rules", "configMap": {"name": "rules"}}]
    entry = {"namespace": NAMESPACE, "name": "demo", "reason": "Proven", "by": "traffic"}
    return Recorded(
        {
            DEPLOYMENT: builders.workload(),
            PODS: {"items": [pod]},
            DRILLS: {"gateway": "g1", "drills": [entry]},
            DECISIONS: {"decisions": []},
            f"{NAMESPACES}/{SYSTEM}/configmaps/rules": {"data": {"callers.yaml": RULES}},
            **found,
        }
    )


def served(ago: float = 60, **fields: Any) -> dict[str, Any]:
    """Return a request that the remote backend served so many seconds ago."""
    return {"time": datetime.now(UTC).timestamp() - ago, "backend": "remote", "status": 200} | fields


async def test_a_model_without_its_replicas() -> None:
    """What gateways found, who may not burst, and the time to the first token are read from the cluster."""
    last = [served(first_event_seconds=0.41, first_byte_seconds=0.1), served(90, first_event_seconds=9.0)]
    said: list[str] = []
    found = await look(
        recorded(**{DECISIONS: {"decisions": last}}), builders.model_deployment(), SETTINGS, SYSTEM, said.append
    )
    checks = {check.name: check for check in found.checks}
    assert checks["remote backend"].state is State.GOOD
    assert checks["callers"].message.endswith("(burst: deny): nightly, this-model, the group inside.")
    assert checks["first token"].message.startswith("0.410 s to the first event of its stream, for the last request")
    assert found.state is State.WARNS


def tried(seconds_ago: float, seconds: float = 0.3) -> dict[str, Any]:
    """Return what a gateway found whose last drill with a completion was so long ago."""
    then = format_time(datetime.now(UTC) - timedelta(seconds=seconds_ago))
    entry = {"namespace": NAMESPACE, "name": "demo", "reason": "Proven", "by": "drill", "request": "completion"}
    return {"gateway": "g1", "drills": [entry | {"completion": {"seconds": seconds, "time": then}}]}


@pytest.mark.parametrize(
    ("seconds_ago", "words"),
    [(30, "0.300 s with its connection, for the completion of the last drill"), (90, "0.410 s to the first event")],
)
async def test_the_newest_time_to_the_first_token_counts(seconds_ago: float, words: str) -> None:
    """Of the last request and the last completion of a drill the later one says how long it takes."""
    cluster = recorded(**{DECISIONS: {"decisions": [served(first_event_seconds=0.41)]}, DRILLS: tried(seconds_ago)})
    found = await look(cluster, builders.model_deployment(), SETTINGS, SYSTEM, print)
    assert {check.name: check for check in found.checks}["first token"].message.startswith(words)


async def test_a_completion_without_the_right_to_see_requests() -> None:
    """A completion of a drill says how long it takes where the last requests cannot be seen."""
    cluster = recorded(**{DECISIONS: forbidden("get", "pods/proxy"), DRILLS: tried(30)})
    found = await look(cluster, builders.model_deployment(), SETTINGS, SYSTEM, print)
    assert {check.name: check for check in found.checks}["first token"].state is State.GOOD


async def test_rights_that_are_missing() -> None:
    """A right that is missing is named where it is missed, and the rest is said nevertheless."""
    denied = forbidden("get", "pods/proxy")
    cluster = recorded(**{DRILLS: denied, DECISIONS: denied, f"{NAMESPACES}/{SYSTEM}/configmaps/rules": denied})
    found = await look(cluster, builders.model_deployment(), SETTINGS, SYSTEM, print)
    checks = {check.name: check for check in found.checks}
    assert found.state is State.UNKNOWN
    for name in ("remote backend", "callers", "first token"):
        assert "kubectl auth can-i get pods --subresource=proxy" in checks[name].message


async def test_without_rules_and_requests() -> None:
    """Without rules for callers there is no check of them, and without a request nothing is said of its time."""
    cluster = recorded(**{PODS: {"items": [gateway("g1")]}})
    assert await callers(cluster, SYSTEM, ROUTE) is None
    check = await first_token(cluster, SYSTEM, ROUTE)
    assert (check.state, "--probe" in check.message) == (State.NOTE, True)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RULES, ["nightly", "this-model", "the group inside"]),
        ("groups: {a: {burst: deny}}", ["the group a"]),
        ("groups: [a]", []),
        ("", []),
        ("callers: {}", []),
        ("[", None),
        ("- a", None),
        ("callers: {odd: 5, more: {burst: deny, models: 7}}", ["more"]),
    ],
)
def test_callers_that_may_not_burst(rules: str, expected: list[str] | None) -> None:
    """Callers, and groups of them, with `burst: deny` that may use the model may not burst."""
    assert denied_callers(rules, ROUTE) == expected


def drill(cluster: Recorded, percentage: int = 20, seconds: float = 120) -> Drill:
    """Return a drill that has begun."""
    return Drill(cluster, SYSTEM, NAMESPACE, "demo", percentage, datetime.now(UTC) + timedelta(seconds=seconds))


class _Gateway(http.server.BaseHTTPRequestHandler):
    """Handler of a gateway that gives one response after the other, the last of them again and again."""

    script: ClassVar[list[tuple[int, str, str, bytes]]] = []
    asked: ClassVar[list[tuple[str, Any, dict[str, Any]]]] = []
    pause: ClassVar[float] = 0.0
    """Seconds after each line of a body."""

    def do_POST(self) -> None:
        """Respond."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, self.headers["content-type"], body))
        status, backend, kind, content = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        self.send_header("content-type", kind)
        if backend:
            self.send_header("x-beamlit-backend", backend)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        try:
            for line in content.splitlines(keepends=True):
                self.wfile.write(line)
                time.sleep(self.pause)
        except ConnectionError:
            pass

    def log_message(self, *_: object) -> None:
        """Log nothing."""


ROLE = b': comment\nevent: message\ndata: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
TOKEN = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
STREAM = ROLE + TOKEN + b"data: [DONE]\n\n"
LOCAL = (200, "local", "text/event-stream", STREAM)


async def probed(*responses: tuple[int, str, str, bytes], percentage: int = 20) -> Check:
    """Return what a drill says whose requests get these responses."""
    _Gateway.script, _Gateway.asked = list(responses), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            cluster = recorded(**{f"{SYSTEM}/g1:8080": running.server_address[1]})
            return await drill(cluster, percentage).probe()
        finally:
            running.shutdown()
            thread.join()


async def test_a_request_of_the_drill() -> None:
    """Requests of one token are sent until one has gone to the remote backend, and its token is waited for."""
    check = await probed(LOCAL, LOCAL, (200, "remote", "text/event-stream", STREAM), LOCAL)
    assert check.state is State.GOOD
    assert re.fullmatch(r"[0-9.]+ s to the first token of its stream, for a request of this drill.", check.message)
    assert len(_Gateway.asked) == 3
    where, kind, body = _Gateway.asked[0]
    assert (where, kind) == (f"/{NAMESPACE}/demo/v1/chat/completions", "application/json")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("demo", 1, True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'data: {"choices": [{"delta": {"content": "a"}}]}', True),
        (b'data:{"choices":[{"delta":{"reasoning_content":"a"}}]}', True),
        (b'data: {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}', True),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}', True),
        (b'data: {"choices": [{"text": "a"}]}', True),
        (b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}', False),
        (b'data: {"choices": [], "usage": {"total_tokens": 1}}', False),
        (b'data: {"choices": [1]}', False),
        (b'data: {"error": {"message": "no"}}', False),
        (b"data: [1]", False),
        (b"data: [DONE]", False),
        (b'{"choices": [{"delta": {"content": "a"}}]}', False),
        (b"", False),
    ],
)
def test_what_counts_as_a_token(line: bytes, expected: bool) -> None:
    """An event with a part of the completion is the first token, and one with the role alone is not."""
    assert outage.has_content(line) is expected


async def test_the_time_is_that_of_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event with the role alone, which a server sends before it has begun, does not end the time."""
    monkeypatch.setattr(_Gateway, "pause", 0.1)
    check = await probed((200, "remote", "text/event-stream", ROLE + TOKEN))
    assert float(check.message.partition(" ")[0]) >= 0.4  # four lines come before the token


async def test_a_stream_without_a_token() -> None:
    """A stream that ends without a token is no success, and what it had is said."""
    content = ROLE + b'data: {"error": {"message": "overloaded"}}\n\ndata: [DONE]\n\n'
    check = await probed((200, "remote", "text/event-stream", content))
    assert (check.state, len(_Gateway.asked)) == (State.WARNS, 1)
    assert "remote backend ended its stream without a token" in check.message
    assert "overloaded" in check.message


async def completed(status: int, content: object) -> Check:
    """Return what is said of a completion that a gateway is asked for, which responds like this."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    _Gateway.script, _Gateway.asked = [(status, "", "application/json", body)], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            cluster = recorded(**{f"{SYSTEM}/g1:8081": running.server_address[1]})
            return await outage.completion(cluster, SYSTEM, NAMESPACE, "demo")
        finally:
            running.shutdown()
            thread.join()


def outcome(reason: str, seconds: float | None = None) -> dict[str, Any]:
    """Return what a gateway says of a completion."""
    entry = {"namespace": NAMESPACE, "name": "demo", "backend": "remote", "reason": reason, "message": "It says why."}
    return {"gateway": "g1", "drills": [entry | {"seconds": seconds}]}


@pytest.mark.parametrize(
    ("status", "content", "state", "words"),
    [
        (200, outcome("Proven", 0.25), State.GOOD, "0.250 s with its connection, for a completion of one token"),
        (200, outcome("Proven"), State.WARNS, "It says why."),
        (200, outcome("TokenRefused"), State.BAD, "It says why."),
        (200, outcome("ModelUnknown"), State.WARNS, "It says why."),
        (200, outcome("NotTried"), State.NOTE, "It says why."),
        (404, {"error": "no such model"}, State.NOTE, "No completion was sent: no such model."),
        (405, {"detail": "Method Not Allowed"}, State.NOTE, "the gateway is of an older version"),
        (200, b"<html>", State.NOTE, "not JSON"),
        (200, [], State.NOTE, "something else than its drills"),
    ],
)
async def test_a_completion_of_a_gateway(status: int, content: object, state: State, words: str) -> None:
    """What a completion took, or why there is none, is what the gateway says of it."""
    check = await completed(status, content)
    assert check.state is state
    assert words in check.message
    where, kind, _ = _Gateway.asked[0]
    assert (where, kind) == (f"/drills?namespace={NAMESPACE}&name=demo", "application/json")


async def test_a_completion_that_cannot_be_asked_for() -> None:
    """A right that is missing is named."""
    cluster = recorded(**{f"{SYSTEM}/g1:8081": forbidden("create", "pods/portforward")})
    check = await outage.completion(cluster, SYSTEM, NAMESPACE, "demo")
    assert (check.state, "kubectl auth can-i create pods --subresource=portforward" in check.message) == (
        State.NOTE,
        True,
    )


async def test_a_response_that_is_no_stream() -> None:
    """A remote backend that sends no stream is timed by the first byte of its body."""
    check = await probed((200, "remote", "application/json", b'{"choices": []}'))
    assert "s to the first byte, for" in check.message


async def test_comments_do_not_prolong_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without an event within the time of a request ends the requests, whatever comments it has."""
    monkeypatch.setattr(outage, "_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(_Gateway, "pause", 0.05)
    check = await probed((200, "remote", "text/event-stream", b": keep-alive\n" * 40 + STREAM))
    assert (check.state, len(_Gateway.asked)) == (State.NOTE, 1)
    assert "no token in its stream within 0.3 seconds" in check.message


async def test_no_request_before_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait until hooks have written that the drill has begun, for before that none goes to the remote
    backend."""
    monkeypatch.setattr(outage, "FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr(outage, "_BEGIN_PAUSE_SECONDS", 0.01)
    until = datetime.now(UTC) + timedelta(seconds=NEVER)
    asked: list[str] = []

    class Begins(Recorded):
        async def raw(self, path: str, query: Query = ()) -> bytes:
            asked.append(path)
            if path != MODEL:
                raise forbidden("list", "pods")
            record = {"until": format_time(until), "outcome": "Running"} if len(asked) > 3 else {}
            return json.dumps(builders.model_deployment(status={"offloading": {"drill": record}})).encode()

    check = await Drill(Begins({}), SYSTEM, NAMESPACE, "demo", 20, until).probe()
    assert check.state is State.NOTE
    assert (asked[:4], asked[4:]) == ([MODEL] * 4, [PODS])


@pytest.mark.parametrize(("percentage", "sent"), [(20, 10), (1, outage.PROBES), (100, 2)])
async def test_requests_are_bounded(percentage: int, sent: int) -> None:
    """Where no request goes to the remote backend, the drill sends no more than twice as many as should."""
    check = await probed(LOCAL, percentage=percentage)
    assert (check.state, len(_Gateway.asked)) == (State.NOTE, sent)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ((401, "", "application/json", b"{}"), "The gateway wants an API key"),
        ((404, "remote", "application/json", b"no such model\x1b[2J"), "The remote backend responds with status 404"),
        ((502, "", "application/json", b'{"error": "no_backend"}'), "The gateway responds with status 502"),
    ],
)
async def test_a_request_that_is_not_served(response: tuple[int, str, str, bytes], words: str) -> None:
    """A response that is an error ends the requests, and is what the drill says."""
    check = await probed(response)
    assert (check.state, len(_Gateway.asked)) == (State.WARNS, 1)
    assert check.message.startswith(words)
    assert "\x1b" not in check.message


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (forbidden("create", "pods/portforward"), "kubectl auth can-i create pods --subresource=portforward"),
        (free_port(), "No request of this drill could be sent: "),
    ],
    ids=["no right", "no server"],
)
async def test_a_request_that_cannot_be_sent(found: Any, words: str) -> None:
    """A right that is missing is named, and a port that leads nowhere is no crash."""
    check = await drill(recorded(**{f"{SYSTEM}/g1:8080": found})).probe()
    assert check.state is State.NOTE
    assert words in check.message


async def test_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is that which hooks wrote for this drill; without one in time there is none."""
    begun = drill(recorded(), seconds=0)
    record = {"until": format_time(begun.until), "outcome": "Passed", "message": "It has."}
    model = builders.model_deployment(status={"offloading": {"drill": record}})
    done = Drill(recorded(**{MODEL: model}), SYSTEM, NAMESPACE, "demo", 20, begun.until)
    assert await done.outcome(pause=0) == record
    monkeypatch.setattr(outage, "GRACE", timedelta(seconds=0.05))
    for other in ({"outcome": "Running"}, {"until": "2026-03-01T12:00:00Z"}):
        model = builders.model_deployment(status={"offloading": {"drill": record | other}})
        late = Drill(recorded(**{MODEL: model}), SYSTEM, NAMESPACE, "demo", 20, begun.until)
        assert await late.outcome(pause=0) is None


class Commanded(Recorded):
    """A cluster for commands: an override of the model is recorded as a drill that has passed at once."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found_at = {MODEL: builders.model_deployment(), **found}
        """What is recorded, by path."""
        super().__init__(self.found_at)
        self.changes: list[Object] = []
        self.outcome = "Passed"

    async def namespace(self) -> str:
        """Return the namespace of the model."""
        return NAMESPACE

    async def patch(self, resource: str, name: str, namespace: str, change: Object) -> None:
        """Keep a change, and let hooks write what came of it."""
        assert (resource, name, namespace) == ("modeldeployments.deployment.beamlit.com", "demo", NAMESPACE)
        self.changes.append(change)
        until = change["spec"]["offloadingConfig"]["behavior"]["override"]["until"]
        record = {"until": until, "outcome": self.outcome, "message": "It says why."}
        model = builders.model_deployment(status={"offloading": {"drill": record}})
        self.found_at[MODEL] = model


@pytest.fixture
def commanded(monkeypatch: pytest.MonkeyPatch) -> Commanded:
    """The cluster that commands find."""
    monkeypatch.setattr(outage, "FOLLOW_SECONDS", 0.0)
    cluster = Commanded(found_by_commands())
    monkeypatch.setattr(Kubectl, "found", lambda _flags=(): cluster)
    return cluster


def found_by_commands() -> dict[str, Any]:
    """Return what is recorded of a gateway that cannot be reached by a forwarded port."""
    entry = {"namespace": NAMESPACE, "name": "demo", "reason": "Proven", "by": "drill"}
    return {
        DEPLOYMENT: builders.workload(),
        PODS: {"items": [gateway("g1")]},
        DRILLS: {"gateway": "g1", "drills": [entry]},
        DECISIONS: {"decisions": []},
        f"{SYSTEM}/g1:8080": free_port(),
    }


def test_the_command(commanded: Commanded, capsys: pytest.CaptureFixture[str]) -> None:
    """`drill` prints what would happen as text or JSON, and its status says whether requests would fail."""
    assert main(["drill", "demo"]) == 0
    assert "if no local replica were left now, requests would be served" in capsys.readouterr().out
    assert main(["drill", "demo", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "good"
    refused = {"namespace": NAMESPACE, "name": "demo", "reason": "TokenRefused", "message": "Correct the secret."}
    commanded.found_at[DRILLS] = {"gateway": "g1", "drills": [refused]}
    assert main(["drill", "demo"]) == 1
    assert " FAILS  remote backend: TokenRefused: Correct the secret." in capsys.readouterr().out
    assert commanded.changes == []


@pytest.mark.parametrize(("outcome", "code"), [("Passed", 0), ("Failed", 1), ("Unproven", 1)])
def test_the_command_with_requests(
    commanded: Commanded, capsys: pytest.CaptureFixture[str], outcome: str, code: int
) -> None:
    """With `--for` it sets an override of mode Drill, and prints what came of it."""
    commanded.outcome = outcome
    assert main(["drill", "demo", "--for", "2m", "--percentage", "30"]) == code
    override = commanded.changes[0]["spec"]["offloadingConfig"]["behavior"]["override"]
    assert (override["percentage"], override["mode"]) == (30, "Drill")
    printed = capsys.readouterr().out
    assert "30 % of the requests go to the remote backend until " in printed
    assert printed.endswith(f"team-a/demo: {outcome}. It says why.\n")


def test_the_command_with_a_completion(commanded: Commanded, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--probe` a gateway is asked for a completion before the rest is read, and nothing is changed."""
    commanded.found_at[f"{SYSTEM}/g1:8081"] = forbidden("create", "pods/portforward")
    assert main(["drill", "demo", "--probe"]) == 0
    assert "     -  first token: No completion could be sent: " in capsys.readouterr().out
    assert commanded.changes == []


def test_the_command_with_requests_as_json(commanded: Commanded, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON has the record, and 20 % are tried where no percentage is given."""
    assert main(["drill", "demo", "--for", "2m", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["drill"]["outcome"] == "Passed"
    assert commanded.changes[0]["spec"]["offloadingConfig"]["behavior"]["override"]["percentage"] == 20


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"offloadingConfig": None}, "cannot be tried: The specification has no offloadingConfig."),
        ({"offloadingConfig": builders.override(30, until="2099-01-01T00:00:00Z")}, "split demo --clear"),
        ({"serviceRef": {"name": "x", "namespace": "team-b"}}, "team-a/demo is not accepted: "),
    ],
)
def test_what_cannot_be_tried(
    commanded: Commanded, capsys: pytest.CaptureFixture[str], spec: dict[str, Any], words: str
) -> None:
    """A model without a remote backend, with an override or with a specification that is not accepted is not tried."""
    commanded.found_at[MODEL] = builders.model_deployment(**spec)
    assert main(["drill", "demo", "--for", "2m"]) == 1
    assert words in capsys.readouterr().err
    assert commanded.changes == []
