"""A gateway with ten thousand routes: what it costs to find one, and how long a change of them keeps the loop."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from benchmarks import processes, unary
from benchmarks.routes_api import RoutesApi
from gateway.api.v1alpha1 import Backend, RouteDocument, Split, Use
from gateway.routes.table import Entry, RoutingTable
from tools.ports import free_port

FEW: Final = 10
NAMESPACES: Final = 100
LOAD_PER_SECOND: Final = 300
"""Requests per second that are sent to the gateway while its routes change."""
CONNECTIONS: Final = 16
READY_SECONDS: Final = 60.0
REQUEST: Final = (
    b"POST /team-0/model-0/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(unary.BODY), unary.BODY.encode())
)
SETTLED_SECONDS: Final = 1.0
"""Seconds to wait after a change is in force: freeing the old table takes time, too."""


def document(number: int, reason: str = "Local") -> RouteDocument:
    """Return the route document of one model, with a local and a remote backend."""
    local = Backend(id="local", weight=100, service=f"model-{number}-local", port=80, in_flight=100)
    use = (Use.WEIGHTED, Use.FAILOVER, Use.OVERFLOW)
    remote = Backend(id="remote", host="remote.example", scheme="https", path_prefix=f"/m/{number}", use=use)
    return RouteDocument(name=f"model-{number}", backends=(local, remote), split=Split(reason=reason))


def place(number: int) -> str:
    """Return the namespace of a model."""
    return f"team-{number % NAMESPACES}"


def measure(folder: Path, *, rounds: int, seconds: float, count: int) -> dict[str, float]:
    """Measure the cost of a look-up relative to a table with few routes, and changes of `count` routes under load."""
    folder.mkdir(parents=True)
    return _matching(rounds, count) | _requests(folder, rounds, seconds, count) | _swaps(folder, count)


def _matching(rounds: int, count: int) -> dict[str, float]:
    """Return the time of a look-up in a large table divided by that in a small one, for the same ten routes and for all
    in turn."""
    large, small = (_table(size) for size in (count, FEW))
    step = count // FEW
    ratios: dict[str, float] = {}
    for name in ("host", "path", "model"):
        few = [_asked(name, number) for number in range(FEW)]
        same = [_asked(name, number * step) for number in range(FEW)]
        spread = [_asked(name, number) for number in range(0, count, 7)]
        find, reference = getattr(large, f"match_{name}"), getattr(small, f"match_{name}")
        for figure, ours in (("ratio", same), ("spread", spread)):
            ratios[f"match_{name}_{figure}"] = statistics.median(
                _nanoseconds(find, ours) / _nanoseconds(reference, few) for _ in range(rounds)
            )
    ratios["match_ratio"] = max(ratios[f"match_{name}_ratio"] for name in ("host", "path", "model"))
    return ratios


def _asked(way: str, number: int) -> str | bytes:
    """Return the properties of a request for a model, by each of the ways to find its route."""
    if way == "path":
        return f"/{place(number)}/model-{number}/v1/chat/completions".encode()
    return f"model-{number}.{place(number)}.svc.cluster.local" if way == "host" else f"model-{number}"


def _table(count: int) -> RoutingTable:
    entries = (Entry(place(number), f"model-{number}", "", document(number)) for number in range(count))
    return RoutingTable.build(entries, namespaces=None, cluster_domain="cluster.local")


def _nanoseconds(find: Callable[[Any], object], asked: Sequence[object], total: int = 200_000) -> float:
    """Return the CPU time of one look-up, in nanoseconds."""
    turns = max(1, total // len(asked))
    before = time.process_time_ns()
    for _ in range(turns):
        for one in asked:
            find(one)
    return (time.process_time_ns() - before) / turns / len(asked)


@contextmanager
def _gateway(
    folder: Path, api: RoutesApi, upstream: int, *, probed: bool = False
) -> Iterator[tuple[psutil.Process, int, int]]:
    """Run a gateway that watches `api`. Once it has all routes, yield it, its port and its admin port."""
    folder.mkdir()
    port, admin = free_port(), free_port()
    with ExitStack() as stack:
        (folder / "kubeconfig").write_text(stack.enter_context(api.serving()))
        (folder / "config.yaml").write_text("namespaces: ''\n")
        command = [
            sys.executable,
            *(("-m", "benchmarks.stalls", str(folder / "stalls")) if probed else ("-m", "gateway")),
            *("--config", str(folder / "config.yaml"), "--kubeconfig", str(folder / "kubeconfig")),
            *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
            *("--resolve", f"model-0-local.team-0.svc.cluster.local:80=127.0.0.1:{upstream}"),
        ]
        yield stack.enter_context(processes.running("gateway", command, port, folder)), port, admin


def _wait_until_ready(admin: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{admin}/readyz", trust_env=False, timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise processes.BenchmarkError(f"the gateway has no routes after {READY_SECONDS:g} s")


def _requests(folder: Path, rounds: int, seconds: float, count: int) -> dict[str, float]:
    """Return the CPU time of a request with many routes divided by that with few."""
    upstream = free_port()
    path = "/team-0/model-0/v1/chat/completions"
    with ExitStack() as stack:
        (folder / "origin").mkdir()
        stack.enter_context(processes.nginx("origin", unary.origin(upstream), upstream, folder / "origin"))
        subjects = []
        for name, size in (("few", FEW), ("many", count)):
            api = RoutesApi(_texts(range(size)))
            subject, port, admin = stack.enter_context(_gateway(folder / name, api, upstream))
            _wait_until_ready(admin)
            unary.wrk(port, 1, folder, path)
            subjects.append((subject, port))
        costs: list[list[float]] = [[], []]
        for _ in range(rounds):
            for cost, (subject, port) in zip(costs, subjects, strict=True):
                before = processes.cpu_seconds(subject)
                responses = unary.wrk(port, seconds, folder, path)
                cost.append((processes.cpu_seconds(subject) - before) / responses * 1e6)
    return {"routes_unary_ratio": statistics.median(many / few for few, many in zip(*costs, strict=True))}


class Load:
    """A client that sends requests at a constant rate on kept connections. Each must get a response."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.responses = 0
        self.slowest = 0.0
        """Longest time in seconds from when a request was due to its response."""
        self.reason = b""
        """Reason phrase of the last response."""

    async def run(self, over: asyncio.Event) -> None:
        """Send requests until `over`.

        Raises:
            BenchmarkError: a response was an error, or a connection ended.
        """
        async with asyncio.TaskGroup() as tasks:
            for number in range(CONNECTIONS):
                tasks.create_task(self._connection(over, number / LOAD_PER_SECOND))

    async def _connection(self, over: asyncio.Event, delay: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        due = time.monotonic() + delay
        try:
            while not over.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise processes.BenchmarkError(f"a request failed: {head.decode()}")
                await reader.readexactly(len(unary.RESPONSE))
                self.slowest = max(self.slowest, time.monotonic() - due)
                self.responses += 1
                self.reason = head.partition(b"x-beamlit-reason: ")[2].partition(b"\r\n")[0]
                due += CONNECTIONS / LOAD_PER_SECOND
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise processes.BenchmarkError(f"a request was dropped: {exc}") from exc
        finally:
            writer.close()


def _swaps(folder: Path, count: int) -> dict[str, float]:
    """Return the longest time for which the event loop stands still while requests arrive.

    Raises:
        BenchmarkError: a request was not answered.
    """
    folder = folder / "swaps"
    folder.mkdir()
    (folder / "origin").mkdir()
    upstream = free_port()
    api = RoutesApi(_texts(range(count)))
    changes = {
        "swap_one_ms": (b"One", _texts(range(1), "One")),
        "swap_all_ms": (b"All", _texts(range(count - 1, -1, -1), "All")),
    }
    with processes.nginx("origin", unary.origin(upstream), upstream, folder / "origin"):
        began = time.monotonic()
        with _gateway(folder / "gateway", api, upstream, probed=True) as (_, port, admin):
            _wait_until_ready(admin)
            spans = {"swap_load_ms": (began, time.monotonic())}
            load = Load(port)
            asyncio.run(_change(api, load, changes, spans))
        lines = (folder / "gateway/stalls").read_text().splitlines()
    stalls = [tuple(map(float, line.split())) for line in lines]
    figures: dict[str, float] = {}
    for name, (begin, end) in spans.items():
        within = [(computed, late) for at, late, computed in stalls if begin <= at <= end]
        figures[name] = max((computed for computed, _ in within), default=0.0)
        figures[f"{name}_wall"] = max((late for _, late in within), default=0.0)
    for kind in ("", "_wall"):
        figures[f"swap_ms{kind}"] = max(figures[f"swap_{what}_ms{kind}"] for what in ("load", "one", "all"))
    figures["swap_requests"] = float(load.responses)
    figures["swap_latency_ms"] = load.slowest * 1e3
    return figures


async def _change(
    api: RoutesApi,
    load: Load,
    changes: Mapping[str, tuple[bytes, Mapping[str, str]]],
    spans: dict[str, tuple[float, float]],
) -> None:
    """Make changes under load, and record from when to when each of them kept the gateway busy."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(over))
        await asyncio.sleep(SETTLED_SECONDS)
        began = time.monotonic()
        await asyncio.sleep(2 * SETTLED_SECONDS)
        spans["swap_idle_ms"] = began, time.monotonic()
        for name, (reason, texts) in changes.items():
            began = time.monotonic()
            await asyncio.to_thread(api.change, texts)
            async with asyncio.timeout(READY_SECONDS):
                while load.reason != reason:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(SETTLED_SECONDS)
            spans[name] = began, time.monotonic()
        over.set()


def _texts(numbers: Iterable[int], reason: str = "Local") -> dict[str, str]:
    return {f"{place(number)}/model-{number}": document(number, reason).canonical_json() for number in numbers}
