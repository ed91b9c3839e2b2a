"""What the fairness campaign runs on: a gateway, the tenants' backends and clients, and the hostile tenant."""

import json
import sys
from typing import Any, Final

import psutil

from faults.fairness.tenants import DARK, HOSTILE, TENANTS, Hostile, document
from faults.name_server import FakeNameServer
from faults.processes import CampaignError, Processes, accepts
from faults.site import ask, config_map
from tools.ports import free_port

KINDS: Final = {"chat": 0.6, "stream": 0.1, "embeddings": 0.1, "large": 0.15, "upload": 0.05}
"""Share of the requests of each kind."""
REQUESTS: Final = 10
"""Requests on a connection to a backend of the tenants: names are looked up all the time."""
CONNECTIONS: Final = 400
"""Connections that the gateway takes."""
ENDED_SECONDS: Final = 30.0
"""Seconds that the hostile tenant may take to obey."""


class Site:
    """The processes of the campaign."""

    def __init__(self, processes: Processes, *, seed: int, largest: int, shared: bool) -> None:
        """Args:
        processes: for what is started, with the folder for state, logs and records.
        seed: of what the load client leaves to chance.
        largest: bytes of the largest body that the gateway takes, a quarter of its memory for bodies.
        shared: True is the control, in which tenants have no shares of their own.
        """
        self.processes = processes
        self._seed = seed
        self._largest = largest
        self._shared = shared
        self._orders = 0
        self._port = {name: free_port() for name in (*TENANTS, HOSTILE, "gateway", "admin")}
        self._hostile = Hostile(self._port[HOSTILE], self._port["admin"])
        addresses = {f"{name}.test": ("127.0.0.1",) for name in TENANTS} | self._hostile.addresses()
        self._names = FakeNameServer(addresses, silent=(DARK,), ttl=1)

    def start(self, rate: float) -> None:
        """Start everything, and return when it is ready.

        Raises:
            CampaignError: a program does not start.
        """
        folder, module = self.processes.folder, [sys.executable, "-m"]
        routes = folder / "routes"
        routes.mkdir()
        connect = 0.3 if self._shared else None
        for name in TENANTS:
            (routes / f"{name}.yaml").write_text(config_map(document(name, self._port[name], connect=connect), name))
        lasting = (config_map(one, HOSTILE) for one in self._hostile.lasting())
        (routes / f"{HOSTILE}.yaml").write_text("---\n".join(lasting))
        (folder / "config.yaml").write_text(json.dumps(self._config()))
        words = ["--name-server", self._names.address, *(["--shared"] if self._shared else []), "--"]
        words += ["--config", str(folder / "config.yaml"), "--routes", str(routes)]
        words += ["--listen", f"127.0.0.1:{self._port['gateway']}", "--admin", f"127.0.0.1:{self._port['admin']}"]
        self.processes.start("gateway", [*module, "faults.fairness.gateway", *words])
        words = ["--ledger", str(folder / "ledger"), "--requests", str(REQUESTS)]
        for name in TENANTS:
            words += ["--port", str(self._port[name]), "--name", name]
        self.processes.start("backends", [*module, "faults.origin", *words])
        words = ["--gateway", str(self._port["gateway"]), "--admin", str(self._port["admin"])]
        words += ["--backend", str(self._port[HOSTILE]), "--routes", str(routes)]
        words += ["--largest", str(self._largest), "--connections", str(CONNECTIONS)]
        self.processes.start(HOSTILE, [*module, "faults.fairness.hostile", *words], pipe=True)
        words = ["--records", str(folder / "records"), "--rate", str(rate), "--seed", str(self._seed)]
        self.processes.start("load", [*module, "faults.load", *words], pipe=True)
        self.processes.wait("gateway", self._ready, "is not ready")
        for name, port in (("backends", self._port[TENANTS[-1]]), (HOSTILE, self._port[HOSTILE])):
            self.processes.wait(name, lambda port=port: accepts(port), "does not listen")  # type: ignore[misc]

    def turn_to(self, phase: str) -> None:
        """Give the requests that begin from now on another phase."""
        models = {f"{name}/llm": 1 / len(TENANTS) for name in TENANTS}
        order = {"port": self._port["gateway"], "phase": phase, "models": models, "kinds": KINDS}
        self.processes.say("load", json.dumps(order))

    def obey(self, way: str | None) -> dict[str, int]:
        """Have the hostile tenant go a way, or none; return what it has seen since the order before.

        Raises:
            CampaignError: it does not obey.
        """
        self.processes.say(HOSTILE, json.dumps({"way": way}))
        self._orders += 1
        self.processes.wait(HOSTILE, lambda: len(self._obeyed()) == self._orders, "does not obey")
        seen: dict[str, int] = json.loads(self._obeyed()[-1])["seen"]
        return seen

    def _obeyed(self) -> list[str]:
        return [
            line for line in self.processes.log(HOSTILE).splitlines() if line.startswith("{") and line.endswith("}")
        ]

    def end(self) -> None:
        """End the load once all of its requests have ended.

        Raises:
            CampaignError: it does not end.
        """
        self.processes.say("load", json.dumps({"stop": True}))
        if self.processes.ended("load", 60) != 0:
            raise CampaignError(f"load does not end:\n{self.processes.log('load')[-2000:]}")
        self._names.close()

    def checks(self) -> list[float]:
        """Return the times at which backends of the tenants were checked."""
        lines = (self.processes.folder / "ledger").read_text().splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith("H ")]

    def cpu_seconds(self) -> float:
        """Return the CPU time that the gateway has used, in seconds."""
        times = psutil.Process(self.processes.pid("gateway")).cpu_times()
        return float(times.user + times.system)

    def resident_mib(self) -> float:
        """Return the resident memory of the gateway, in MiB."""
        return float(psutil.Process(self.processes.pid("gateway")).memory_info().rss) / (1 << 20)

    def _config(self) -> dict[str, Any]:
        return {
            "namespaces": [],
            "gateway": {
                "lameDuckSeconds": 0,
                "drainSeconds": 0,
                "allowedAddresses": ["127.0.0.0/8"],
                "limits": {
                    "bodyBytes": self._largest,
                    "memoryBytes": 4 * self._largest,
                    "connections": CONNECTIONS,
                },
            },
        }

    def _ready(self) -> bool:
        try:
            return ask(self._port["admin"], "GET", "/readyz")[0] == 200
        except OSError:
            return False
