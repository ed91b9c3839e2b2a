"""What the campaign runs on: model servers, a token endpoint, gateways, a load balancer and the clients, as processes.

`main` is the gateway under every fault but one; it is never restarted, so its memory can be compared. `one` and `two`
stand behind HAProxy and are restarted. The route `demo` has two backends with half of the requests each: `local`, and
`remote`, which wants a token. The route `hole` has the one that goes silent, and a spare one. The route `pods` has
three pods, which EndpointSlices name, and a remote backend of its own, `away`, that no request may need.
"""

import http.client
import json
import os
import re
import shutil
import sys
from collections.abc import Collection
from typing import Any, Final

import psutil

from faults.processes import CampaignError, Processes
from gateway.api.v1alpha1 import (
    CREDENTIAL_LABEL,
    KEY,
    LABEL,
    LABEL_VALUE,
    Backend,
    Breaker,
    Credentials,
    KeepAlive,
    OAuth2,
    Retry,
    RouteDocument,
    Split,
    Timeouts,
    Use,
)
from gateway.api.vocabulary import FailureCause
from gateway.backends.endpoints import SELECTOR, SERVICE_LABEL
from tools.ports import free_port

TOKEN_SECONDS: Final = 1.0
BREAKER: Final = Breaker(open=1)
"""Circuit breaker by which a recovered backend is tried within a second: otherwise most kills would hit a backend
without requests."""
NO_BREAKER: Final = Breaker(consecutive_failures=1000, minimum=1000000)
"""Circuit breaker that no number of failures in a campaign opens."""
COMMENTS: Final = KeepAlive(after=0.5)
"""Silence of a stream after which its client gets a comment, in place of 25 seconds."""
PODS: Final = ("pod-one", "pod-two", "pod-three")
"""Model servers that are pods of one model."""
SECRET: Final = "canary-of-a-client-secret"
"""Client secret that is searched for in all output of the gateways."""
KEY_OF_TOKENS: Final = "signs-tokens"
_SAMPLE: Final = re.compile(
    r'^beamlit_gateway_upstream_errors_total\{backend="(\w+)",cause="(\w+)".* (\S+)$', re.MULTILINE
)
_COMMENTS: Final = re.compile(r"^beamlit_gateway_keep_alives_total\{.*\} (\S+)$", re.MULTILINE)

_HAPROXY: Final = """\
global
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout check {check:.0f}ms
  option redispatch
  retries 2
frontend clients
  bind 127.0.0.1:{balancer}
  default_backend gateways
backend gateways
  http-response set-header x-gateway %s
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 200ms fall 1 rise 1
  server one 127.0.0.1:{one} port {one_admin}
  server two 127.0.0.1:{two} port {two_admin}
"""


class Site:
    """The servers, gateways and clients of a campaign."""

    def __init__(
        self, processes: Processes, *, seed: int, failover: bool, lame_duck: float, drain: float, slack: float = 0.0
    ) -> None:
        """Args:
        processes: for what is started, with the folder for state, logs and records.
        seed: of what the load client leaves to chance.
        failover: False makes every failed attempt the last one: backends are for weighted use only, nothing is
            tried again, and no failure takes a backend out.
        lame_duck: seconds for which a gateway that leaves says so before it closes its port.
        drain: seconds for which it then lets finish what it has begun.
        slack: seconds that a busy machine may add to each time that is held.
        """
        self.folder = folder = processes.folder
        self.slack = slack
        self.lame_duck, self.drain = lame_duck, drain
        self.failover = failover
        self.processes = processes
        names = ("local", "remote", "hole", "spare", "away", "tokens", "balancer", *PODS)
        gateways = ("main", "main_admin", "one", "one_admin", "two", "two_admin")
        self.port = {name: free_port() for name in (*names, *gateways)}
        self.routes = folder / "routes"
        self.seed = seed

    def start(self, rate: float, *, pair: bool, pods: bool) -> None:
        """Start everything, with HAProxy and its two gateways, and with pods, where asked for; return when it is ready.

        Raises:
            CampaignError: a program is missing, or does not start.
        """
        for name in ("local", "remote", "hole", "spare"):
            self.start_origin(name)
        for name in (*PODS, "away") if pods else ():
            self.start_origin(name)
        self.start_tokens()
        self.routes.mkdir()
        for name in ("demo", "hole", *(("pods",) if pods else ())):
            (self.routes / f"{name}.yaml").write_text(self.manifest(name))
        if pods:
            self.name_pods(PODS)
        (self.routes / "credential.yaml").write_text(self._credential())
        (self.folder / "config.yaml").write_text(json.dumps(self._config()))
        gateways = ("main", "one", "two") if pair else ("main",)
        for name in gateways:
            self._begin_gateway(name)
        for name in gateways:
            self._await_gateway(name)
        if pair:
            self._start_balancer()
        module = [sys.executable, "-m"]
        records = ("--records", str(self.folder / "records-load"))
        words = [*module, "faults.load", *records, "--rate", str(rate), "--seed", str(self.seed)]
        self.processes.start("load", words, pipe=True)
        records = ("--records", str(self.folder / "records-openai"))
        self.processes.start("openai", [*module, "faults.openai_client", *records], pipe=True)

    def _start_balancer(self) -> None:
        program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise CampaignError("haproxy is missing; on Debian: apt-get install haproxy")
        config = self.folder / "haproxy.conf"
        config.write_text(_HAPROXY.format(**self.port, check=500 + 1000 * self.slack))
        self.processes.start("haproxy", [program, "-db", "-f", str(config)], self.port["balancer"])

    def start_origin(self, name: str) -> None:
        """Start a model server."""
        port = self.port[name]
        model = "pods" if name in PODS else name
        words = ["--port", str(port), "--name", model, "--ledger", str(self.folder / f"ledger-{name}")]
        if name == "remote":
            words += ["--key", KEY_OF_TOKENS]
        if name == "hole":
            words += ["--backlog", "1"]
        self.processes.start(name, [sys.executable, "-m", "faults.origin", *words], port)

    def start_tokens(self) -> None:
        """Start the token endpoint."""
        port = self.port["tokens"]
        words = ["--port", str(port), "--key", KEY_OF_TOKENS, "--seconds", str(TOKEN_SECONDS)]
        words += ["--margin", str(1 + self.slack)]
        self.processes.start("tokens", [sys.executable, "-m", "faults.tokens", *words], port)

    def start_gateway(self, name: str) -> None:
        """Start a gateway, and return when it is ready."""
        self._begin_gateway(name)
        self._await_gateway(name)

    def _begin_gateway(self, name: str) -> None:
        admin = self.port[f"{name}_admin"]
        command = [
            *(sys.executable, "-m", "gateway", "--config", str(self.folder / "config.yaml")),
            *("--routes", str(self.routes)),
            *("--listen", f"127.0.0.1:{self.port[name]}", "--admin", f"127.0.0.1:{admin}"),
        ]
        self.processes.start(name, command)

    def _await_gateway(self, name: str) -> None:
        admin = self.port[f"{name}_admin"]
        self.processes.wait(name, lambda: self._ready(admin), "is not ready")

    def document(self, name: str, weight: int = 50) -> RouteDocument:
        """Return a route document in which the local backend has `weight`."""
        use = (Use.WEIGHTED, Use.FAILOVER) if self.failover else (Use.WEIGHTED,)
        causes = tuple(FailureCause) if name == "hole" else Retry().on  # the first-byte timeout is asked for
        near, far = {"demo": ("local", "remote"), "hole": ("hole", "spare"), "pods": ("pods", "away")}[name]
        weight = 100 if name == "pods" else weight
        oauth = Credentials(oauth2=OAuth2(name="campaign")) if name == "demo" else None
        return RouteDocument(
            name=name,
            backends=(
                Backend(id="local", service=f"{near}-local", port=80, weight=weight, use=use, model=near),
                Backend(
                    id="remote", host=f"{far}.test", port=80, weight=100 - weight, use=use, model=far, credentials=oauth
                ),
            ),
            timeouts=self.timeouts if name == "hole" else Timeouts(),
            keep_alive=COMMENTS if name == "pods" else KeepAlive(),
            retry=Retry(on=causes if self.failover else ()),
            breaker=BREAKER if self.failover else NO_BREAKER,
            split=Split(percentage=100 - weight, reason="Metric"),
        )

    @property
    def timeouts(self) -> Timeouts:
        """Return the timeouts of the route `hole`. They are short, because the campaign waits for them."""
        return Timeouts(connect=0.5 + self.slack, first_byte=1 + self.slack)

    def manifest(self, name: str, weight: int = 50) -> str:
        """Return the ConfigMap of a route."""
        return config_map(self.document(name, weight))

    def name_pods(self, ready: Collection[str], leaving: Collection[str] = ()) -> None:
        """Write the EndpointSlices of the route `pods`: one for each pod, since each has a port of its own.

        Args:
            ready: Pods that are ready.
            leaving: Pods that terminate and still serve. Any other pod is in no slice.
        """
        slices = [self._slice(name, leaving=name in leaving) for name in (*ready, *leaving)]
        file = self.routes / "slices.yaml"
        beside = file.with_name(f".{file.name}.new")
        beside.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": slices}))
        beside.rename(file)

    def _slice(self, name: str, *, leaving: bool) -> dict[str, Any]:
        labels = dict(part.split("=") for part in SELECTOR.split(",")) | {SERVICE_LABEL: "pods-local"}
        conditions = {"ready": not leaving, "serving": True, "terminating": leaving}
        target = {"kind": "Pod", "namespace": "default", "name": name, "uid": name}
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"pods-local-{name}", "namespace": "default", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": self.port[name], "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions, "targetRef": target}],
        }

    def executed(self, name: str) -> int:
        """Return how many requests of clients a model server has executed so far."""
        lines = (self.folder / f"ledger-{name}").read_text().splitlines()
        return sum(line.startswith("E ") and not line.startswith("E probe ") for line in lines)

    def _credential(self) -> str:
        content = {
            "clientId": "campaign",
            "clientSecret": SECRET,
            "tokenUrl": f"http://127.0.0.1:{self.port['tokens']}/token",
            "hosts": "remote.test",
        }
        labels = {CREDENTIAL_LABEL: "true"}
        metadata = {"name": "campaign", "namespace": "default", "labels": labels}
        return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content})

    def _config(self) -> dict[str, Any]:
        names = {
            "local-local.default.svc.cluster.local": "local",
            "hole-local.default.svc.cluster.local": "hole",
            "remote.test": "remote",
            "spare.test": "spare",
            "away.test": "away",
        }
        return {
            "gateway": {
                "lameDuckSeconds": self.lame_duck,
                "drainSeconds": self.drain,
                "allowedAddresses": ["127.0.0.0/8"],
                "timeouts": {"connectSeconds": 5 + self.slack, "localConnectSeconds": 2 + self.slack},
                "resolve": [
                    *(f"{name}:80=127.0.0.1:{self.port[target]}" for name, target in names.items()),
                    # A pod at an address that the administrator has set may be on this machine.
                    *(f"127.0.0.1:{self.port[pod]}=127.0.0.1:{self.port[pod]}" for pod in PODS),
                ],
            }
        }

    # What can be seen and said from outside

    def fault(self, name: str, mode: str) -> None:
        """Make a server misbehave, or stop it."""
        status, _, _ = ask(self.port[name], "POST", "/_fault", json.dumps({"mode": mode}))
        if status != 200:
            raise CampaignError(f"{name} does not do as it is told: {status}")

    def order(self, **what: Any) -> None:
        """Send an order to the clients."""
        for name in ("load", "openai"):
            self.processes.say(name, json.dumps(what))

    def served_by(self, model: str) -> str:
        """Return which backend of a model responds right now; empty where none does."""
        body = json.dumps({"model": model, "user": "probe", "messages": [{"role": "user", "content": "probe"}]})
        status, fields, _ = ask(self.port["main"], "POST", "/v1/chat/completions", body)
        return fields.get("x-beamlit-backend", "") if status == 200 else ""

    def served_via(self) -> str:
        """Return which gateway behind the load balancer responds right now, or "" where none does."""
        status, fields, _ = ask(self.port["balancer"], "GET", "/v1/models")
        return fields.get("x-gateway", "") if status == 200 else ""

    def failed_attempts(self) -> dict[str, int]:
        """Return the failed attempts of `main` so far, by cause."""
        _, _, body = ask(self.port["main_admin"], "GET", "/metrics")
        found: dict[str, int] = {}
        for _, cause, value in _SAMPLE.findall(body.decode()):
            found[cause] = found.get(cause, 0) + int(float(value))
        return found

    def comments(self) -> int:
        """Return the comments that clients of `main` got while a backend was silent."""
        return sum(int(float(value)) for value in _COMMENTS.findall(self.admin("/metrics")))

    def admin(self, path: str) -> str:
        """Return a document of the admin port of `main`."""
        return ask(self.port["main_admin"], "GET", path)[2].decode()

    def resident_mib(self) -> float:
        """Return the resident memory of `main`, in MiB."""
        return float(psutil.Process(self.processes.pid("main")).memory_info().rss) / (1 << 20)

    def _ready(self, admin: int) -> bool:
        try:
            return ask(admin, "GET", "/readyz")[0] == 200
        except OSError:
            return False


def config_map(document: RouteDocument, namespace: str = "default") -> str:
    """Return the ConfigMap of a route, as YAML whose document is one line."""
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {document.name}-route\n  namespace: {namespace}\n"
        f"  labels: {{{LABEL}: {LABEL_VALUE}}}\n  creationTimestamp: '2026-01-01T00:00:00Z'\n"
        f"data:\n  {KEY}: '{document.canonical_json()}'\n"
    )


def ask(port: int, method: str, target: str, body: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own. Return status, fields by lower-case name, and body.

    Raises:
        OSError: there is no response.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=25)
    try:
        connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    except http.client.HTTPException as exc:
        raise ConnectionError(repr(exc)) from exc
    finally:
        connection.close()
