"""The faults: each makes something fail under load, mends it, and waits until it is noticed."""

import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.processes import CampaignError
from faults.site import PODS, Site

STALLED: Final = "stalled"
"""Name of the fault in which a pod sends heads of streams and no event."""
RECOVERY_SECONDS: Final = 13.0
"""Seconds for a recovery: a hanging token request has ten, and then there is a pause."""
EXIT_SECONDS: Final = 1.0
"""Seconds after lame duck and drain in which a gateway that was sent SIGTERM must have ended."""
NOTICED_SECONDS: Final = 5.0
"""Seconds for which a fault is kept up beyond its time, where no attempt has noticed it yet."""
CALLS_SECONDS: Final = 60.0
"""Seconds that the openai client may take for the calls of the control."""
CONTROL_CALLS: Final = 20
"""Calls of the openai client while the backend is down, in the control: half of them go there, and fail."""
APPLIED_SECONDS: Final = 1.0
"""Seconds in which a valid change of a route must be in force."""


@dataclass
class Fault:
    """A fault: what was done, and what was observed beside the clients' records."""

    name: str
    seconds: float = 0.0
    evidence: dict[str, int] = field(default_factory=dict)
    """Counts that show that the fault had an effect."""
    wanted: tuple[str, ...] = ()
    """Names of the evidence of which there must be some."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the repair to the first sign of recovery."""
    problems: list[str] = field(default_factory=list)
    resident_mib: float = 0.0
    """Resident memory of the gateway after the fault, in MiB."""


@dataclass
class Stop:
    """The end of a gateway that was sent SIGTERM."""

    name: str
    at: float
    limit: float
    """Seconds that running requests may take: lame duck and drain."""
    seconds: float
    """Seconds until the gateway had ended."""
    code: int | None


class Campaign:
    """The campaign: the faults in their order, on one site."""

    def __init__(self, site: Site, *, streams: int, chance: random.Random) -> None:
        self.site = site
        self.streams = streams
        self.chance = chance
        self.faults: dict[str, Fault] = {}
        self.kills: list[float] = []
        """Times at which the local backend was killed."""
        self.pod_kills: list[float] = []
        """Times at which a pod was killed."""
        self.stops: list[Stop] = []
        self._failed_before: dict[str, int] = {}
        """Failed attempts of the gateway when the present fault began, by cause."""

    @contextlib.contextmanager
    def fault(self, name: str, *wanted: str, models: dict[str, float] | None = None) -> Iterator[Fault]:
        """Run a fault: requests in this time belong to it, and failed attempts of the gateway are counted for it."""
        found = self.faults.setdefault(name, Fault(name, wanted=wanted))
        self.turn_to(name, "main", models)
        began = time.monotonic()
        before = self._failed_before = self.site.failed_attempts()
        yield found
        for cause, number in self.site.failed_attempts().items():
            if number > before.get(cause, 0):
                found.evidence[cause] = found.evidence.get(cause, 0) + number - before.get(cause, 0)
        found.seconds += time.monotonic() - began
        found.resident_mib = self.site.resident_mib()

    def turn_to(self, name: str, port: str, models: dict[str, float] | None = None) -> None:
        """Direct the clients to other ports."""
        self.site.order(port=self.site.port[port], phase=name, models=models or {"demo": 1.0})

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`.

        Raises:
            CampaignError: a program has ended by itself meanwhile.
        """
        self.site.processes.pause(seconds, "main", "load", "openai", "haproxy")

    def last(self, fault: Fault, seconds: float) -> None:
        """Keep a fault up for `seconds`, and on until an attempt of the gateway has failed by it.

        Raises:
            CampaignError: a program has ended by itself meanwhile.
        """
        self.pause(seconds)
        deadline = time.monotonic() + NOTICED_SECONDS + self.site.slack
        while time.monotonic() < deadline:
            failed = self.site.failed_attempts()
            if any(failed.get(cause, 0) > self._failed_before.get(cause, 0) for cause in fault.wanted):
                return
            self.pause(0.05)

    def until_asked(self, calls: int) -> None:
        """Wait until the openai client has ended that many more calls.

        Raises:
            CampaignError: it does not, or a program has ended by itself meanwhile.
        """
        file = self.site.folder / "records-openai"

        def ended() -> int:
            return len(file.read_bytes().splitlines()) if file.exists() else 0

        enough = ended() + calls
        deadline = time.monotonic() + CALLS_SECONDS + self.site.slack
        while ended() < enough:
            if time.monotonic() > deadline:
                raise CampaignError(f"the openai client does not end {calls} calls within {CALLS_SECONDS:g} s")
            self.pause(0.05)

    def recovered(self, fault: Fault, model: str, backend: str) -> None:
        """Wait until a backend serves requests again."""
        began = time.monotonic()
        while self.site.served_by(model) != backend:
            if time.monotonic() > began + RECOVERY_SECONDS + self.site.slack:
                fault.problems.append(
                    f"{backend} of {model} has no requests {RECOVERY_SECONDS:g} s after it was mended"
                )
                return
            time.sleep(0.02)
        fault.recoveries.append(time.monotonic() - began)

    # The faults

    def kill(self, count: int, seconds: float) -> None:
        """Kill and start the local backend `count` times, each within about `seconds`."""
        with self.fault("kill", "connect_failed") as fault:
            for _ in range(count):
                self.pause(seconds * self.chance.uniform(0.3, 0.5))
                self.kills.append(time.monotonic())
                self.site.processes.kill("local")
                self.last(fault, seconds * 0.2)
                if not self.site.failover:
                    self.until_asked(CONTROL_CALLS)
                self.site.start_origin("local")
                self.recovered(fault, "demo", "local")
            self.pause(0.3)
            fault.evidence["kills"] = len(self.kills)

    def pods(self, count: int, seconds: float) -> None:
        """Kill and start one pod of three `count` times, each within about `seconds`, while slices come and go."""
        with self.fault("pods", "connect_failed", models={"pods": 1.0}) as fault:
            dead, *others = PODS
            before = self.site.executed("away")
            for _ in range(count):
                self.pause(seconds * self.chance.uniform(0.2, 0.4))
                self.pod_kills.append(time.monotonic())
                self.site.processes.kill(dead)
                self.last(fault, seconds * 0.2)
                for turn in range(3):
                    # The dead pod is in the slices or not, and of the others one may be about to leave.
                    left = self.chance.choice(others)
                    stay = [one for one in others if one != left]
                    self.site.name_pods(
                        (dead, *stay) if turn % 2 else stay, (left,) if self.chance.random() < 0.5 else ()
                    )
                    self.pause(seconds * 0.1)
                self.site.start_origin(dead)
                self.site.name_pods(PODS)
                self.recovered(fault, "pods", "local")
            self.pause(0.3)
            fault.evidence["podKills"] = count
            away = self.site.executed("away") - before
            if away:
                fault.problems.append(f"{away} requests were executed at the remote backend while two pods served")

    def stalled(self, count: int, seconds: float) -> None:
        """Make one pod of three send heads of streams and no event for `seconds`, and kill it, `count` times.

        No stream has begun to flow at the pod when it is killed, so no client may notice that.
        """
        with self.fault(STALLED, "upstream_reset", "keepAlives", models={"pods": 1.0}) as fault:
            stalls = PODS[0]
            before, comments = self.site.executed("away"), self.site.comments()
            for _ in range(count):
                sent = self.site.comments()
                self.site.fault(stalls, "stalled")
                self.pause(seconds)
                deadline = time.monotonic() + NOTICED_SECONDS + self.site.slack
                while self.site.comments() == sent and time.monotonic() < deadline:
                    self.pause(0.05)
                self.pod_kills.append(time.monotonic())
                self.site.processes.kill(stalls)
                self.last(fault, 0.2)
                self.site.start_origin(stalls)
                self.recovered(fault, "pods", "local")
            self.pause(0.3)
            fault.evidence["keepAlives"] = self.site.comments() - comments
            away = self.site.executed("away") - before
            if away:
                fault.problems.append(f"{away} requests were executed at the remote backend while two pods served")

    def tokens(self, how: str, seconds: float) -> None:
        """Make the token endpoint fail: it is down, never responds, refuses, or sends no token; or it is down and its
        tokens are no longer valid (`revoked`)."""
        with self.fault(f"tokens {how}", "credentials_failed") as fault:
            if how in ("down", "revoked"):
                self.site.processes.kill("tokens")
                self.site.fault("remote", "revoke" if how == "revoked" else "ok")
            else:
                self.site.fault("tokens", how)
            self.last(fault, seconds)
            if how in ("down", "revoked"):
                self.site.start_tokens()
                self.site.fault("remote", "ok")
            else:
                self.site.fault("tokens", "ok")
            self.recovered(fault, "demo", "remote")

    def throttle(self, seconds: float) -> None:
        """Make the local backend respond with 429 and Retry-After."""
        with self.fault("throttle", "429") as fault:
            self.site.fault("local", "throttle")
            self.last(fault, seconds)
            self.site.fault("local", "ok")
            self.recovered(fault, "demo", "local")

    def hole(self, seconds: float) -> None:
        """Make a backend's host accept no connections without refusing them: its backlog is full."""
        with self.fault("black hole", "connect_timeout", models={"demo": 0.7, "hole": 0.3}) as fault:
            self.site.processes.signal("hole", signal.SIGSTOP)
            fillers = _fill(self.site.port["hole"])
            self.last(fault, seconds)
            for one in fillers:
                one.close()
            self.site.processes.signal("hole", signal.SIGCONT)
            self.recovered(fault, "hole", "local")

    def silent(self, seconds: float) -> None:
        """Make a backend accept requests and never respond. The route has a first-byte timeout."""
        with self.fault("silent", "first_byte_timeout", models={"demo": 0.7, "hole": 0.3}) as fault:
            self.site.fault("hole", "silent")
            self.last(fault, seconds)
            self.site.fault("hole", "ok")
            self.recovered(fault, "hole", "local")

    def routes(self, seconds: float) -> None:
        """Break, half-write and empty the file of a route, and repair it each time with another split."""
        file = self.site.routes / "demo.yaml"
        with self.fault("routes", "broken", "halfWritten", "emptied") as fault:
            deadline, turn = time.monotonic() + seconds, 0
            slowest = 0.0
            while time.monotonic() < deadline or turn < 3:
                turn += 1
                weight = 40 + turn % 20
                after = self.site.manifest("demo", weight)
                kind = ("broken", "halfWritten", "emptied")[turn % 3]
                fault.evidence[kind] = fault.evidence.get(kind, 0) + 1
                if kind == "halfWritten":
                    # In place, as by an editor or `cp`: whoever looks in between sees the first part.
                    data = after.encode()
                    cut = self.chance.randrange(1, len(data))
                    with file.open("wb") as writing:
                        for piece in (data[:cut], data[cut:]):
                            writing.write(piece)
                            writing.flush()
                            self.pause(0.2)
                else:
                    file.write_bytes(b"" if kind == "emptied" else self.chance.choice(BROKEN)(after))
                    self.pause(0.4)
                    _replace(file, after)
                wanted = self.site.document("demo", weight).canonical_json().rpartition('"hash":"')[2][:16]
                slowest = max(slowest, self._applied(fault, wanted))
            _replace(file, self.site.manifest("demo"))
            fault.evidence["slowestChangeMs"] = round(slowest * 1000)
            fault.recoveries.append(slowest)

    def _applied(self, fault: Fault, wanted: str) -> float:
        """Return the seconds until a document is in force."""
        began = time.monotonic()
        while wanted not in self.site.admin("/routes"):
            if time.monotonic() > began + APPLIED_SECONDS + self.site.slack:
                fault.problems.append(f"a valid route is not in force {APPLIED_SECONDS:g} s after it was written")
                break
            time.sleep(0.01)
        return time.monotonic() - began

    def _balanced(self, fault: Fault, gateway: str) -> None:
        """Wait until the load balancer sends requests to a gateway again."""
        began = time.monotonic()
        while self.site.served_via() != gateway:
            if time.monotonic() > began + RECOVERY_SECONDS + self.site.slack:
                fault.problems.append(f"{gateway} has no requests {RECOVERY_SECONDS:g} s after it was started")
                return
            time.sleep(0.02)

    def restart(self, rounds: int) -> None:
        """Restart the gateways behind HAProxy in turn with open streams, of which half outlast the drain time."""
        fault = self.faults.setdefault("restart", Fault("restart", wanted=("restarts",)))
        began = time.monotonic()
        self.turn_to("restart", "balancer")
        self.pause(0.5)
        limit, exit_seconds = self.site.lame_duck + self.site.drain, EXIT_SECONDS + self.site.slack
        for turn in range(rounds):
            name = ("one", "two")[turn % 2]
            for kind, length in (("short stream", 0.6 * limit), ("long stream", limit + 2)):
                hold = {"kind": kind, "count": self.streams // 2, "seconds": length, "every": 0.4}
                self.site.order(hold=hold)
            self.pause(0.5 + self.streams / 500)
            at = time.monotonic()
            self.site.processes.signal(name, signal.SIGTERM)
            code = self.site.processes.ended(name, limit + exit_seconds + 5)
            stop = Stop(name, at, limit, time.monotonic() - at, code)
            self.stops.append(stop)
            if code != 0 or stop.seconds > limit + exit_seconds:
                fault.problems.append(f"{name} ended with {code} after {stop.seconds:.1f} s")
            fault.evidence["restarts"] = len(self.stops)
            self.site.start_gateway(name)
            self._balanced(fault, name)
        self.pause(1)
        self.turn_to("restart", "main")
        fault.seconds = time.monotonic() - began
        fault.evidence["slowestExitMs"] = round(1000 * max(stop.seconds for stop in self.stops))


BROKEN: Final[tuple[Callable[[str], bytes], ...]] = (
    lambda text: b"a: [1,\n" + text.encode(),
    lambda text: text.encode() + b"\xff\xfe",
    lambda text: text.encode().replace(b'"weight":', b'"weight":1'),
    lambda text: text.encode().replace(b'{"apiVersion"', b'["apiVersion"'),
    lambda text: b"- " + text.encode(),
    lambda _: b"kind: ConfigMap\nmetadata: nothing\n",
    lambda text: text.encode().replace(b"'", b"", 1),
    lambda text: b"\x00" * 100 + text.encode(),
)
"""Functions that turn a route file into one that cannot be served."""


def _replace(file: Path, text: str) -> None:
    """Replace a file as a careful writer does: a new file is renamed over the old one."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    beside.rename(file)


def _fill(port: int) -> list[socket.socket]:
    """Return connections that fill the backlog of a server that accepts none. The last one still waits."""
    fillers: list[socket.socket] = []
    for _ in range(64):
        one = socket.socket()
        fillers.append(one)
        one.settimeout(0.2)
        try:
            one.connect(("127.0.0.1", port))
        except TimeoutError:
            return fillers
    raise CampaignError("the backlog of a stopped server does not fill up")
