"""Usage rises and requests go to the remote backend, usage falls and they come back: by the chart, on real metrics.

hooks run from the pods that helm rendered, two of them, under the chart's RBAC. Metacontroller and the gateways are
real, and so are metrics-server and the test-adapter. Windows take their time for the models `cpu` and `container`; for
the others the times in their status are put back, as they are when Metacontroller was away meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane, faults
from tests.e2e.faults import Fault
from tests.e2e.installation import Installation
from tests.e2e.offloading import (
    REQUESTS,
    Cycle,
    Cycles,
    by_default,
    container_resource,
    external,
    hasten,
    metrics_available,
    of_deployment,
    of_pods,
    offloaded,
    pace,
    resource,
    serve,
    settles,
    shares,
    sync_seconds,
    use,
    weights,
)
from tests.e2e.pods import Image, Pod
from tests.e2e.product import missing, set_pods_ready, sync_responses
from tests.e2e.scripted import Scripted
from tests.processes import poll

pytestmark = pytest.mark.own_plane

CYCLES: Final = ("cpu", "container", "memory", "pods", "object")
IDLE: Final = {"idle-14": (14, 100), "idle-51": (51, 100), "idle-15": (15, 75), "idle-30": (30, 50)}
"""Usage of a core by idle replicas in percent, where the target is 60, and behavior.percentage, by model."""
FAULTY: Final = ("held", "calm", "released", "spilled")
MANY: Final = 12
"""Number of syncs after which every model has been synced."""
MODELS: Final = (*CYCLES, *IDLE, *FAULTY, "external", "whole")
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
        for one in (installed.local, installed.remote):
            pace(one, 0)
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


@pytest.fixture(scope="module")
def hastened(installed: Installation) -> Installation:
    """The installed chart with frequent syncs."""
    hasten(installed)
    return installed


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
    target = resource("cpu", averageUtilization=60)
    serve(installed, *(by_default(name, target, behavior={"percentage": IDLE[name][1]}) for name in IDLE))
    names = sorted(
        one["metadata"]["name"] for one in plane.get("pods")["items"] if one["metadata"]["labels"]["app"] == "pods"
    )

    def idle(name: str) -> Callable[[bool], None]:
        """Return the function that has replicas use nine tenths of a core, or what idle ones use."""
        usage = f"{10 * IDLE[name][0]:g}m"
        return lambda high: use(plane, name, cpu="900m" if high else usage)

    def waiting(high: bool) -> None:
        """Set the metric of both pods to 15 on average, or to 1."""
        for name, value in zip(names, ("25", "5") if high else ("1", "1"), strict=True):
            adapter.set("pods", name, "waiting", value)

    with Cycles(
        installed,
        Cycle("cpu", 30, change=lambda high: use(plane, "cpu", cpu="800m" if high else "100m"), hurried=False),
        Cycle(
            "container", 65, change=lambda high: use(plane, "container", cpu="700m" if high else "100m"), hurried=False
        ),
        Cycle("memory", 50, change=lambda high: use(plane, "memory", memory="600Mi" if high else "100Mi")),
        Cycle("pods", 75, keep=waiting),
        Cycle(
            "object",
            40,
            keep=lambda high: adapter.set("deployments.apps", "object", "queue", "150" if high else "500m"),
        ),
        *(Cycle(name, percentage, change=idle(name), requests=20) for name, (_, percentage) in IDLE.items()),
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
    cycle = came_back(cycles, name, seconds)
    assert cycle.seen == [0, cycle.percentage, 0]


def came_back(cycles: Cycles, name: str, seconds: float) -> Cycle:
    """Return a cycle that has ended, and check its responses and its status at the height."""
    cycle = cycles.finished(name, seconds)
    before, height, after = cycle.responses
    assert (before, after) == (Counter(local=cycle.requests), Counter(local=cycle.requests))
    assert abs(height["remote"] - cycle.requests * cycle.percentage / 100) <= 1, height
    assert height.total() == cycle.requests
    offloading = cycle.status["offloading"]
    assert (offloading["percentage"], offloading["reason"]) == (cycle.percentage, "MetricReached")
    # Samples from before the split changed no longer count.
    assert [metric["state"] for metric in offloading["metrics"]] in (["Reached"], ["Settling"])
    conditions = {one["type"]: (one["status"], one["reason"]) for one in cycle.status["conditions"]}
    assert conditions["Offloading"] == ("True", "MetricReached")
    assert conditions["MetricsAvailable"] == ("True", "MetricsRead")
    return cycle


# A metrics API that fails


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.gone, "NotServed"),
        (faults.down, "Unreachable"),
        (faults.failing, "Unreachable"),
        (faults.slow, "TimedOut"),
        (faults.stale, "Stale"),
    ],
    ids=["gone", "down", "failing", "slow", "stale"],
)
def test_metrics_that_cannot_be_read(hastened: Installation, scripted: Scripted, fault: Fault, reason: str) -> None:
    """Without metrics each model behaves as configured and says why, follows readiness all the same, and no sync
    exceeds its deadline."""
    behaves_as_configured(hastened, scripted, fault, reason)


def behaves_as_configured(hastened: Installation, scripted: Scripted, fault: Fault, reason: str) -> None:
    """Check what each of the four models does while their metrics API fails."""
    plane = hastened.plane

    def metrics_are(status: str, reason: str) -> bool:
        return all(metrics_available(hastened, name) == (status, reason) for name in FAULTY)

    settles(hastened, FAULTY, (50, 0, 50, 0))
    poll(lambda: metrics_are("True", "MetricsRead"), "all is well")
    before = len(sync_seconds(hastened))
    with fault(plane, scripted):
        poll(lambda: metrics_are("False", reason), f"they say {reason}")
        settles(hastened, FAULTY, (50, 0, 0, 50))  # hold, hold, release, offload
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


# Metrics by metrics-server and the test-adapter, which took their time meanwhile


@pytest.mark.parametrize("name", ["cpu", "container", "memory"])
@pytest.mark.usefixtures("hastened")
def test_usage_of_the_pods(cycles: Cycles, name: str) -> None:
    """While the usage of the pods, by metrics-server, is at its target, the configured percentage of requests is
    offloaded."""
    goes_out_and_back(cycles, name, SCRAPES)


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.usefixtures("hastened")
def test_idle_replicas_that_use_cpu(cycles: Cycles, name: str) -> None:
    """Whatever idle replicas use below the target, the share goes down to 0 once the load is gone, in steps where the
    usage leaves it open how many requests the replicas can take."""
    cycle = came_back(cycles, name, SCRAPES)
    down = cycle.seen[1:]
    assert cycle.seen[0] == 0
    assert down == sorted(set(down), reverse=True), cycle.seen
    assert (down[0], down[-1]) == (cycle.percentage, 0)
    assert len(down) > 2, "it came back at once, as a model does whose idle replicas use nothing"


@pytest.mark.parametrize("name", ["pods", "object"])
def test_custom_metrics(cycles: Cycles, name: str) -> None:
    """A model is offloaded by the average of a metric of its pods, and by one of its Deployment."""
    goes_out_and_back(cycles, name, ADAPTED)


def test_metrics_that_may_not_be_read(hastened: Installation, scripted: Scripted, cycles: Cycles) -> None:
    """Without the right to read metrics each model behaves as it does without metrics, and says why."""
    for name in (*CYCLES, *IDLE):
        cycles.finished(name, ADAPTED)
    behaves_as_configured(hastened, scripted, faults.forbidden, "Forbidden")


def test_an_outage_ends_at_percentage_100(hastened: Installation, scripted: Scripted) -> None:
    """With the default percentage the model comes back from an outage, is offloaded by its metric, released, and
    offloaded again."""
    scripted.values["tide"] = "1"
    serve(hastened, offloaded("whole", external("tide", value="10"), percentage=100, stepPercentage=50))

    def is_at(percentage: int, reason: str) -> None:
        # The second time, half comes back first when the metric rises.
        settles(hastened, ("whole",), (percentage,))
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


# An external metric of the test-adapter


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
    settles(spilling, ("external",), (0,))
    assert shares(spilling, "external") == Counter(local=REQUESTS)
