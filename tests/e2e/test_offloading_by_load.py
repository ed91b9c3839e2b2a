"""Load itself is offloaded, ends, and comes back: with the metrics of the servers that it falls on.

The chart runs with the real Metacontroller. Prometheus is real and scrapes model servers that have gateways in front;
metrics of pods are read by hooks, at the addresses that the status of the pods has. Windows pass as in
`test_offloading`.
"""

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import Installation, ModelServer
from tests.e2e.measured import MeasuredServer
from tests.e2e.offloading import (
    WINDOW,
    by_default,
    external,
    hasten,
    metrics_available,
    of_pods,
    offloaded,
    pace,
    put_back,
    serve,
    server,
    settles,
    weights,
)
from tests.e2e.pods import Image
from tests.e2e.product import missing
from tests.e2e.scraping import PROMETHEUS, SCRAPE_SECONDS, Prometheus
from tests.e2e.traffic import CLIENTS, Arrivals, Traffic
from tests.processes import poll

pytestmark = pytest.mark.own_plane

SLOTS: Final = 4
SECONDS: Final = 0.4
"""Seconds that a server with SLOTS takes for a request: its capacity is ten requests a second."""
TOO_MANY: Final = 15.0
"""Requests a second that are 1.5 times of that."""
WAITING: Final = "vllm:num_requests_waiting"
QUANTILE: Final = "histogram_quantile(0.9, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[10s])))"
QUANTILES: Final = {"quantile": QUANTILE, "quantile-or-zero": f"{QUANTILE} or vector(0)"}
"""Expressions as users write them, by model: the second one hopes that it makes a zero of NaN."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own."""
    if reason := missing():
        pytest.skip(reason)
    controlplane.require((PROMETHEUS,), "Debian has a package of that name")
    with controlplane.running(tmp_path_factory.mktemp("load")) as plane:
        yield plane


@pytest.fixture(scope="module")
def servers(plane: ControlPlane) -> dict[str, ModelServer]:
    """Model servers by the names of their models: one that takes all requests at once, and two with a few slots."""
    servers = {name: ModelServer(plane, name) for name in ("gauge", "queue", "paged")}
    pace(servers["gauge"], 0.5)
    for name in ("queue", "paged"):
        pace(servers[name], SECONDS, SLOTS)
    return servers


@pytest.fixture(scope="module")
def measured() -> Iterator[MeasuredServer]:
    """A slow model server with a histogram."""
    with MeasuredServer(0.6).running() as measured:
        yield measured


@pytest.fixture(scope="module")
def prometheus(plane: ControlPlane, servers: dict[str, ModelServer], measured: MeasuredServer) -> Prometheus:
    """Prometheus, which scrapes all servers but the one whose page hooks read."""
    return Prometheus(plane, servers["gauge"].port, servers["queue"].port, measured.port)


@pytest.fixture(scope="module")
def installed(
    image: Image,
    plane: ControlPlane,
    servers: dict[str, ModelServer],
    measured: MeasuredServer,
    prometheus: Prometheus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The chart with Prometheus as the source of metrics, and hooks that may read pods of this machine."""
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    ports = {name: one.port for name, one in servers.items()} | dict.fromkeys(QUANTILES, measured.port)
    local = {f"{name}-local.default": port for name, port in ports.items()}
    installed = Installation(plane, image, chart, servers=local)
    pace(installed.remote, 0.5)
    source = {
        "type": "prometheus",
        "resolutionSeconds": 1,
        "prometheus": {"address": prometheus.address, "scrapeIntervalSeconds": SCRAPE_SECONDS},
        "pods": {"allowedAddresses": ["127.0.0.0/8"]},
    }
    with installed.proxy.running():
        try:
            installed.install(
                "--set=config.defaultRemoteBackend.workspace=demo",
                f"--set-json=config.metricInformer={json.dumps(source)}",
            )
            hasten(installed)
            yield installed
        finally:
            installed.stop()


@pytest.fixture(scope="module")
def port(installed: Installation) -> int:
    """The port of a gateway."""
    return installed.pods("-gateway")[0].port("http")


def test_load_itself_drives_the_gauge(installed: Installation, prometheus: Prometheus, port: int) -> None:
    """Under steady load that Prometheus measures, half of the requests stay remote without turning back, and after it
    all are local again."""
    query = 'sum(vllm:num_requests_running{model_name="gauge"})'
    serve(installed, offloaded("gauge", external(query, value="2"), local="gauge", tolerance=0.2))
    poll(lambda: metrics_available(installed, "gauge") == ("True", "MetricsRead"), "it is read")
    assert prometheus.value(query) == 0
    with Traffic(lambda: ("127.0.0.1", port), "/default/gauge") as traffic:
        poll(lambda: weights(installed, "gauge") == (50,), "it is offloaded")
        before, began = traffic.responses.copy(), time.monotonic()
        seen = set()

        def lasts() -> bool:
            seen.add(weights(installed, "gauge"))
            return time.monotonic() - began > LASTING

        poll(lasts, "the load has lasted", seconds=2 * LASTING)
        assert seen == {(50,)}
        during = traffic.responses - before
    assert traffic.failures == []
    assert set(during) == {(200, "local"), (200, "remote")}
    # Responses are counted, and choices are even: each client may have one on its way at both ends.
    assert abs(during[200, "local"] - during[200, "remote"]) <= 2 * CLIENTS
    settles(installed, ("gauge",), (0,))
    assert prometheus.value(query) == 0


LASTING: Final = 12.0
"""Seconds of load."""


def test_a_queue_that_is_empty_until_the_capacity_is_used_up(installed: Installation, port: int) -> None:
    """Under a load of 1.5 times the capacity, which lasts, each attempt to take the requests back waits twice as long
    as the one before, up to eight windows."""
    query = f'sum({WAITING}{{model_name="queue"}})'
    serve(installed, offloaded("queue", external(query, value="5"), local="queue", stepPercentage=50))
    with Arrivals(port, "/default/queue", TOO_MANY) as arrivals:
        for failed in range(4):
            poll(lambda: weights(installed, "queue") == (50,), "the queue is too long")
            poll(lambda failed=failed: attempts(installed) == failed, f"{failed} attempts have failed")  # type: ignore[misc]
            wait = WINDOW * 2**failed
            syncs = installed.syncs()
            seen: set[object] = set()

            def goes_on(wait: timedelta = wait, syncs: float = syncs, seen: set[object] = seen) -> bool:
                """Return whether some syncs have found that the time is not over."""
                shorten(installed, wait, LEFT)
                time.sleep(0.1)
                seen.add(weights(installed, "queue"))
                return installed.syncs() > syncs + MANY

            poll(goes_on, "some more syncs")
            assert seen == {(50,)}

            def is_over(wait: timedelta = wait) -> bool:
                shorten(installed, wait, timedelta(0))
                time.sleep(0.1)
                return weights(installed, "queue") == (0,)

            poll(is_over, f"after {wait} the requests come back")
    assert arrivals.failures == []
    assert set(arrivals.responses) == {(200, "local"), (200, "remote")}
    settles(installed, ("queue",), (0,))
    assert attempts(installed) > 0

    def is_forgotten() -> bool:
        let_be(installed)
        return attempts(installed) == 0

    poll(is_forgotten, "a load that has ended says nothing of the next one")
    assert weights(installed, "queue") == (0,)


LEFT: Final = timedelta(seconds=30)
"""Time that is left of a wait while a test looks whether it is waited for."""
MANY: Final = 6
"""Number of syncs of two models after which each has been synced more than once."""


def attempts(installed: Installation) -> int:
    """Return how often the model `queue` has taken requests back in vain."""
    offloading = installed.parent("queue")["status"]["offloading"]
    return int(offloading.get("attempts", {}).get("supported", 0))


def shorten(installed: Installation, wait: timedelta, left: timedelta) -> None:
    """Have so much of a wait of the model `queue` pass that no more than `left` is left of it."""
    parent = installed.parent("queue")
    offloading = parent["status"]["offloading"]
    if "belowSince" in offloading and offloading["percentage"] > 0:
        remains = datetime.fromisoformat(offloading["belowSince"]) + wait - datetime.now(UTC)
        if remains > left:
            put_back(installed, parent, remains - left + timedelta(seconds=1))


def let_be(installed: Installation) -> None:
    """Have the time pass for which requests must have been local before attempts that failed count no more."""
    parent = installed.parent("queue")
    since = datetime.fromisoformat(parent["status"]["offloading"]["since"])
    if datetime.now(UTC) - since < 8 * WINDOW:
        put_back(installed, parent, 8 * WINDOW)


def test_a_quantile_is_nan_while_all_is_remote(
    installed: Installation, measured: MeasuredServer, prometheus: Prometheus, port: int
) -> None:
    """At defaults, a quantile that is NaN once all requests are remote brings them back in steps, until it can be
    measured again."""
    names = tuple(QUANTILES)
    models = (by_default(name, external(query, value="500m"), local=name) for name, query in QUANTILES.items())
    serve(installed, *models)
    with Traffic(lambda: ("127.0.0.1", port), "/default/quantile") as traffic:
        settles(installed, names, (100, 100))
        poll(lambda: all(math.isnan(prometheus.value(query) or 0) for query in QUANTILES.values()), "it is NaN")
        assert more(traffic) == {(200, "remote")}
        measured.seconds = 0
        seen = settles(installed, names, (0, 0))
        poll(lambda: more(traffic) == {(200, "local")}, "all are served here")
    assert traffic.failures == []
    for path in zip(*seen, strict=True):
        assert list(path) == sorted(path, reverse=True), seen
        assert 75 in path, seen
    assert 0 < (prometheus.value(QUANTILE) or 0) < 0.5


def more(traffic: Traffic) -> set[tuple[int, str]]:
    """Return status and backend of the next responses."""
    before = traffic.responses.copy()
    poll(lambda: traffic.responses.total() >= before.total() + 5 * CLIENTS, "more responses")
    return set(traffic.responses - before)


def test_a_queue_that_hooks_read_from_the_pods(
    installed: Installation, servers: dict[str, ModelServer], port: int
) -> None:
    """With metrics from the pods themselves, a queue in them offloads and its end brings requests back, and a pod that
    does not respond is never taken for one with an empty queue."""
    plane, address = installed.plane, servers["paged"].port
    deployment = server("paged")
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = address
    plane.apply(deployment)
    moved(plane, "127.0.0.2")  # no server is there
    metric = of_pods(WAITING, averageValue="5")
    behavior = {"percentage": 50, "stepPercentage": 50, "triggerWindowSeconds": 1}
    plane.apply(by_default("paged", metric, local="paged", metricSource={"type": "pods"}, behavior=behavior))
    installed.until("paged", LocalReady="True", MetricsAvailable="False", Synced="True")
    assert metrics_available(installed, "paged")[1] == "Unreachable"
    moved(plane, "127.0.0.1")
    installed.until("paged", MetricsAvailable="True")
    assert weights(installed, "paged") == (0,)
    with Arrivals(port, "/default/paged", TOO_MANY) as arrivals:
        poll(lambda: weights(installed, "paged") == (50,), "the queue is too long")
        moved(plane, "127.0.0.2")
        installed.until("paged", MetricsAvailable="False")
        moved(plane, "127.0.0.1")
        installed.until("paged", MetricsAvailable="True")
        assert weights(installed, "paged") == (50,)
    assert arrivals.failures == []
    settles(installed, ("paged",), (0,))


def moved(plane: ControlPlane, address: str) -> None:
    """Give the pod of the model `paged` an address, as its node does."""

    def pods() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = plane.get("pods")["items"]
        return [one for one in items if one["metadata"]["labels"].get("app") == "paged" and "podIP" in one["status"]]

    poll(pods, "the pod is there")
    (pod,) = pods()
    patch = json.dumps({"status": {"podIP": address, "podIPs": [{"ip": address}]}})
    plane.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)
