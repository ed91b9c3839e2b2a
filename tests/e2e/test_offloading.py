"""Usage rises and requests go to the remote backend, usage falls and they come back: by the chart, on real metrics.

hooks run from the pods that helm rendered, two of them, under the chart's RBAC. Metacontroller and the gateways are
real, and so are metrics-server, the test-adapter and Prometheus.
"""

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane, faults
from tests.e2e.faults import Fault
from tests.e2e.installation import RELEASE, Installation
from tests.e2e.offloading import (
    REQUESTS,
    Cycle,
    Cycles,
    container_resource,
    external,
    in_force,
    of_deployment,
    of_pods,
    offloaded,
    resource,
    server,
    shares,
    sync_seconds,
    use,
)
from tests.e2e.pods import Image, Pod
from tests.e2e.product import missing, set_pods_ready, sync_responses
from tests.e2e.scraping import PROMETHEUS, SCRAPE_SECONDS, Prometheus
from tests.e2e.scripted import Scripted
from tests.e2e.traffic import CLIENTS, Traffic
from tests.processes import poll

pytestmark = pytest.mark.own_plane

CYCLES: Final = ("cpu", "container", "memory", "pods", "object")
FAULTY: Final = ("held", "calm", "released", "spilled")
MANY: Final = 12
"""Number of syncs after which every model has been synced."""
MODELS: Final = (*CYCLES, *FAULTY, "external", "whole", "gauge")
RESYNC_SECONDS: Final = 2
SCRAPES: Final = 210.0
"""Seconds in which a model goes out and comes back by metrics-server, which measures every ten; the way back takes a
minute at least."""
ADAPTED: Final = 360.0
"""Seconds in which it does so by metrics that are taken to be about the minute before them."""


@pytest.fixture(scope="module")
def installed(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart on a control plane of this module's own, whose metrics APIs come and go."""
    if reason := missing():
        pytest.skip(reason)
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    with controlplane.running(tmp_path_factory.mktemp("offloading")) as plane:
        plane.start_metrics_server()
        plane.start_test_adapter()
        installed = Installation(plane, image, chart, *(f"{name}-local.default" for name in MODELS))
        pace(installed, 0)
        with installed.proxy.running():
            try:
                installed.install(
                    *("--set=config.defaultRemoteBackend.workspace=demo", "--set=config.hooks.logLevel=debug"),
                    "--set=config.metricInformer.resolutionSeconds=1",
                )
                # Its metric counts for the minute before the sample, so that minute shall begin now.
                serve(installed, external_model("42"))
                yield installed
            finally:
                installed.stop()


def external_model(target: str) -> dict[str, Any]:
    """Return a model that is offloaded by one of the two series of the test-adapter's metric, that of 42, which its
    label selects."""
    return offloaded("external", external("my-external-metric", {"foo": "bar"}, value=target))


def pace(installed: Installation, seconds: float) -> None:
    """Have both model servers take that long for a response."""
    for one in (installed.local, installed.remote):
        query = f"time_to_first_token={seconds}&tokens_per_second=0"
        urllib.request.urlopen(f"{one.url}/_demo/speed?{query}", b"", timeout=5).close()


def serve(installed: Installation, *models: dict[str, Any], replicas: int = 1) -> None:
    """Create models with their Deployments, and wait until their local backends serve them."""
    names = [model["metadata"]["name"] for model in models]
    installed.plane.apply(*(server(name, replicas) for name in names), *models)
    for name in names:
        installed.until(name, LocalReady="True", Synced="True")


def hasten(installed: Installation) -> None:
    """Have Metacontroller sync every model every two seconds, so that tests need not wait until hooks ask for a
    sync."""
    patch = json.dumps({"spec": {"resyncPeriodSeconds": RESYNC_SECONDS}})
    installed.plane.kubectl("patch", "compositecontroller", RELEASE, "--type=merge", "-p", patch)


@pytest.fixture(scope="module")
def hastened(installed: Installation) -> Installation:
    """The installed chart with frequent syncs."""
    hasten(installed)
    return installed


def weights(installed: Installation, *names: str) -> tuple[int | None, ...]:
    """Return the percentage in force of each model."""
    percentages = in_force(installed)
    return tuple(percentages.get(name) for name in names)


def metrics_available(installed: Installation, name: str) -> tuple[str, str]:
    """Return status and reason of the condition MetricsAvailable."""
    return installed.conditions(name).get("MetricsAvailable", ("", ""))


@pytest.fixture(scope="module")
def cycles(installed: Installation) -> Iterator[Cycles]:
    """A model for each kind of metric that takes its time, going out and coming back while other tests run."""
    plane = installed.plane
    adapter = plane.start_test_adapter()
    serve(
        installed,
        offloaded("cpu", resource("cpu", averageUtilization=50), percentage=30),
        # New pods have no samples for a while, which is not a metric that is missing.
        offloaded(
            "container", container_resource("cpu", averageValue="500m"), percentage=65, onMissingMetrics="offload"
        ),
        offloaded("memory", resource("memory", averageValue="512Mi"), percentage=50, signal="gauge", stepPercentage=50),
        offloaded("object", of_deployment("queue", "object", value="100"), percentage=40),
    )
    serve(installed, offloaded("pods", of_pods("waiting", averageValue="10"), percentage=75), replicas=2)
    names = sorted(
        one["metadata"]["name"] for one in plane.get("pods")["items"] if one["metadata"]["labels"]["app"] == "pods"
    )

    def waiting(high: bool) -> None:
        """Set the metric of both pods to 15 on average, or to 1."""
        for name, value in zip(names, ("25", "5") if high else ("1", "1"), strict=True):
            adapter.set("pods", name, "waiting", value)

    with Cycles(
        installed,
        Cycle("cpu", 30, change=lambda high: use(plane, "cpu", cpu="800m" if high else "100m")),
        Cycle("container", 65, change=lambda high: use(plane, "container", cpu="700m" if high else "100m")),
        Cycle("memory", 50, change=lambda high: use(plane, "memory", memory="600Mi" if high else "100Mi")),
        Cycle("pods", 75, keep=waiting),
        Cycle(
            "object",
            40,
            keep=lambda high: adapter.set("deployments.apps", "object", "queue", "150" if high else "500m"),
        ),
    ).running() as cycles:
        yield cycles


@pytest.fixture(scope="module")
def scripted(installed: Installation) -> Iterator[Scripted]:
    """A scripted external.metrics.k8s.io, and four models that use it: two at their target, two below, with every
    setting for metrics that are missing."""
    with Scripted(installed.plane).running() as scripted:
        scripted.values |= {"busy": "100", "quiet": "1"}
        serve(
            installed,
            offloaded("held", external("busy", value="10"), onMissingMetrics="hold"),
            offloaded("calm", external("quiet", value="10")),
            offloaded("released", external("busy", value="10"), onMissingMetrics="release"),
            offloaded("spilled", external("quiet", value="10"), onMissingMetrics="offload"),
        )
        yield scripted
    installed.plane.kubectl("delete", "modeldeployment", *FAULTY)


# Kubernetes metrics APIs


@pytest.mark.usefixtures("cycles")
def test_hooks_ask_again_by_themselves(installed: Installation, scripted: Scripted) -> None:
    """hooks ask for a sync in time to see a changed metric, of which Metacontroller's watches and its period know
    nothing."""
    poll(lambda: weights(installed, "held") == (50,), "it is offloaded")
    scripted.values["busy"] = "1"
    poll(lambda: weights(installed, "held") == (0,), "it is back")
    scripted.values["busy"] = "100"


def goes_out_and_back(cycles: Cycles, name: str, seconds: float) -> None:
    """Check that no request is remote before, as many as the percentage says at the height, and none after."""
    cycle = cycles.finished(name, seconds)
    before, height, after = cycle.responses
    assert (before, after) == (Counter(local=REQUESTS), Counter(local=REQUESTS))
    assert abs(height["remote"] - REQUESTS * cycle.percentage / 100) <= 1, height
    assert height.total() == REQUESTS
    offloading = cycle.status["offloading"]
    assert (offloading["percentage"], offloading["reason"]) == (cycle.percentage, "MetricReached")
    # Samples from before the split changed no longer count.
    assert [metric["state"] for metric in offloading["metrics"]] in (["Reached"], ["Settling"])
    conditions = {one["type"]: (one["status"], one["reason"]) for one in cycle.status["conditions"]}
    assert conditions["Offloading"] == ("True", "MetricReached")
    assert conditions["MetricsAvailable"] == ("True", "MetricsRead")
    assert cycle.seen == [0, cycle.percentage, 0]


@pytest.mark.parametrize(("name", "windows"), [("cpu", 0), ("container", 0), ("memory", 4)])
@pytest.mark.usefixtures("hastened")
def test_usage_of_the_pods(cycles: Cycles, name: str, windows: int) -> None:
    """While the usage of the pods, by metrics-server, is at its target, the configured percentage of requests is
    offloaded. A gauge waits for four windows."""
    goes_out_and_back(cycles, name, SCRAPES + 60 * windows)


# A metrics API that fails


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.gone, "NotServed"),
        (faults.down, "Unreachable"),
        (faults.failing, "Unreachable"),
        (faults.slow, "TimedOut"),
        (faults.forbidden, "Forbidden"),
        (faults.stale, "Stale"),
    ],
    ids=["gone", "down", "failing", "slow", "forbidden", "stale"],
)
def test_metrics_that_cannot_be_read(hastened: Installation, scripted: Scripted, fault: Fault, reason: str) -> None:
    """Without metrics each model behaves as configured and says why, follows readiness all the same, and no sync
    exceeds its deadline."""
    plane = hastened.plane

    def metrics_are(status: str, reason: str) -> bool:
        return all(metrics_available(hastened, name) == (status, reason) for name in FAULTY)

    poll(lambda: weights(hastened, *FAULTY) == (50, 0, 50, 0) and metrics_are("True", "MetricsRead"), "all is well")
    before = len(sync_seconds(hastened))
    with fault(plane, scripted):
        poll(lambda: metrics_are("False", reason), f"they say {reason}")
        poll(lambda: weights(hastened, *FAULTY) == (50, 0, 0, 50), "hold, hold, release, offload")
        assert shares(hastened, "held") == Counter(local=REQUESTS // 2, remote=REQUESTS // 2)
        for ready, expected in ((False, (100, 100)), (True, (50, 0))):
            for name in ("held", "calm"):
                set_pods_ready(plane, f"app={name}", ready)
            poll(lambda expected=expected: weights(hastened, "held", "calm") == expected, f"{expected}")  # type: ignore[misc]
    took = sync_seconds(hastened)[before:]
    assert took
    assert max(took) < DEADLINE, sorted(took)[-5:]


DEADLINE: Final = 3.5
"""Seconds that a sync may take: hooks wait three at most for metrics, and the machine is busy."""


def test_an_outage_ends_at_percentage_100(hastened: Installation, scripted: Scripted) -> None:
    """With the default percentage the model comes back from an outage, is offloaded by its metric, released, and
    offloaded again."""
    scripted.values["tide"] = "1"
    serve(hastened, offloaded("whole", external("tide", value="10"), percentage=100, stepPercentage=50))

    def is_at(percentage: int, reason: str) -> None:
        # The second time, half comes back first when the metric rises, and the way back takes twice as long.
        poll(lambda: weights(hastened, "whole") == (percentage,), f"{percentage} %", seconds=ADAPTED)
        poll(lambda: hastened.conditions("whole")["Offloading"][1] == reason, reason)

    is_at(0, "Local")
    set_pods_ready(hastened.plane, "app=whole", False)
    is_at(100, "NoReadyReplica")
    set_pods_ready(hastened.plane, "app=whole", True)
    is_at(0, "Local")
    for _ in range(2):
        scripted.values["tide"] = "11"
        is_at(100, "MetricReached")
        assert shares(hastened, "whole", 50) == Counter(remote=50)
        scripted.values["tide"] = "1"
        is_at(50, "Releasing")
        is_at(0, "Local")
        assert shares(hastened, "whole", 50) == Counter(local=50)
    hastened.plane.kubectl("delete", "modeldeployment", "whole")


# Metrics of the test-adapter


@pytest.mark.parametrize("name", ["pods", "object"])
def test_custom_metrics(cycles: Cycles, name: str) -> None:
    """A model is offloaded by the average of a metric of its pods, and by one of its Deployment."""
    goes_out_and_back(cycles, name, ADAPTED)


@pytest.fixture(scope="module")
def spilling(hastened: Installation) -> Installation:
    """The chart with frequent syncs and a model that is offloaded by an external metric of the test-adapter."""
    hastened.plane.start_test_adapter()
    poll(lambda: weights(hastened, "external") == (50,), "it is offloaded", seconds=ADAPTED)
    hastened.until("external", Offloading="True", MetricsAvailable="True", Synced="True")
    poll(lambda: _state(hastened) == "Settling", "for a minute nothing will change")
    return hastened


def _state(spilling: Installation) -> str:
    """Return the state of the metric, as the status shows it."""
    return str(spilling.parent("external")["status"]["offloading"]["metrics"][0]["state"])


def test_hooks_restarted_while_they_offload(spilling: Installation) -> None:
    """While both replicas of hooks restart in turn, nothing is written and the split stays, as all memory is in the
    status."""
    versions = spilling.versions("external")
    for pod in spilling.pods("-hooks"):
        pod.process.stop()
        pod.process.start()
        pod.until_ready()
        poll(lambda pod=pod: _responses(pod) > MANY, "it has responded")  # type: ignore[misc]
    assert spilling.versions("external") == versions
    assert weights(spilling, "external") == (50,)


def test_both_replicas_of_hooks_respond(spilling: Installation) -> None:
    """Both replicas of hooks respond, each with its own readings, and the split stays for many syncs."""
    hooks, versions = spilling.pods("-hooks"), spilling.versions("external")
    assert len(hooks) == 2
    before = [_responses(pod) for pod in hooks]
    poll(lambda: all(_responses(pod) > count + MANY for pod, count in zip(hooks, before, strict=True)), "both have")
    assert spilling.versions("external") == versions


def _responses(pod: Pod) -> float:
    return sync_responses(pod.port("operations"))


def test_without_metrics_server(hastened: Installation, cycles: Cycles) -> None:
    """A model on a cluster without metrics.k8s.io says so and is not offloaded by it, and recovers once the API is
    served."""
    assert cycles.finished("cpu", SCRAPES).done
    with faults.not_served(hastened.plane, "v1beta1.metrics.k8s.io"):
        poll(lambda: metrics_available(hastened, "cpu") == ("False", "NotServed"), "it says so")
        assert weights(hastened, "cpu") == (0,)
        for ready, percentage in ((False, 100), (True, 0)):
            set_pods_ready(hastened.plane, "app=cpu", ready)
            poll(lambda percentage=percentage: weights(hastened, "cpu") == (percentage,), f"{percentage} %")  # type: ignore[misc]
    poll(lambda: metrics_available(hastened, "cpu") == ("True", "MetricsRead"), "it is read again", seconds=SCRAPES)


def test_an_external_metric(spilling: Installation) -> None:
    """A metric of 42 offloads at a target of 42, and not at ten times as much."""
    assert shares(spilling, "external") == Counter(local=REQUESTS // 2, remote=REQUESTS // 2)
    spilling.plane.apply(external_model("420"))
    poll(lambda: weights(spilling, "external") == (0,), "it is back", seconds=ADAPTED)
    assert shares(spilling, "external") == Counter(local=REQUESTS)


# Prometheus


def test_load_itself_drives_the_gauge(installed: Installation) -> None:
    """Under steady load that Prometheus measures, half of the requests stay remote without turning back, and after it
    all are local again."""
    controlplane.require((PROMETHEUS,), "Debian has a package of that name")
    prometheus = Prometheus(installed.plane, f"127.0.0.1:{installed.local.port}")
    source = "config.metricInformer"
    installed.upgrade(
        *(f"--set={source}.type=prometheus", f"--set={source}.prometheus.address={prometheus.address}"),
        f"--set={source}.prometheus.scrapeIntervalSeconds={SCRAPE_SECONDS}",
    )
    hasten(installed)
    query = "sum(vllm:num_requests_running)"
    serve(installed, offloaded("gauge", external(query, value="2"), tolerance=0.2))
    poll(lambda: metrics_available(installed, "gauge") == ("True", "MetricsRead"), "it is read")
    assert prometheus.value(query) == 0
    pace(installed, 0.5)
    port = installed.pods("-gateway")[0].port("http")
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
    poll(lambda: weights(installed, "gauge") == (0,), "it is back")
    assert prometheus.value(query) == 0


LASTING: Final = 12.0
"""Seconds of load: several release windows."""
