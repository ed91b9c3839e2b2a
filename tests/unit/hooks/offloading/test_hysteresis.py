"""Windows, estimates and steps: when metrics begin, change and end offloading."""

import dataclasses
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.offloading import OffloadingBehavior
from hooks.backends.policies import MAX_TOLD
from hooks.kube.quantities import NANO, Quantity
from hooks.metrics import vectors
from hooks.observation.readings import Readings, Unread
from hooks.offloading.hysteresis import NOTHING, Course, InForce, Memory, Standing, advance
from hooks.offloading.measures import Counted, Measured, Missing
from hooks.protocol import SyncResponse
from hooks.reconcile.conditions import MAX_NAME
from tests import builders
from tests.builders import NOW, Cluster, Json, external, model_deployment, workload

GONE = Unread(reasons.UNREACHABLE, "The source does not respond: start it.")
LONG_AGO = NOW - timedelta(hours=1)
A_WINDOW_AGO = NOW - timedelta(seconds=60)


def watched(*, metrics: int = 1, ready: int = 1, **behavior: Any) -> Cluster:
    """Return a cluster whose ModelDeployment has metrics with a target of 100, and windows of 30 s up and 60 s down."""
    spec = {
        "remoteBackend": builders.REMOTE,
        "metrics": [external(f"queue-{number}") for number in range(metrics)],
        "behavior": {"triggerWindowSeconds": 30, "releaseWindowSeconds": 60, **behavior},
    }
    cluster = Cluster(model_deployment(offloadingConfig=spec), related=[workload(ready=ready)])
    cluster.values = ("0",) * metrics
    cluster.settle()
    cluster.now += timedelta(minutes=5)
    return cluster


def offloaded(**behavior: Any) -> Cluster:
    """Return the same cluster, with a metric that has been at its target for the trigger window."""
    cluster = watched(**behavior)
    cluster.measure("100")
    response = cluster.measure("100", after=30)
    assert split(response)[1] == reasons.METRIC_REACHED
    cluster.now += timedelta(seconds=1)
    return cluster


def split(response: SyncResponse) -> tuple[int, str]:
    """Return percentage and reason of status; the route has the same percentage."""
    state = response.status["offloading"]
    assert builders.weights(response).get("remote", 0) == state["percentage"]
    return state["percentage"], state["reason"]


def states(response: SyncResponse) -> list[str]:
    """Return the state of each metric in status."""
    return [metric["state"] for metric in response.status["offloading"]["metrics"]]


def test_a_metric_triggers_after_its_window() -> None:
    """A metric at its target for thirty seconds offloads the percentage; hooks ask for a sync at that moment."""
    cluster = watched(percentage=40)
    assert split(cluster.measure("99.999999999")) == (0, reasons.LOCAL)
    first = cluster.measure("100", after=1)
    assert split(first) == (0, reasons.LOCAL)
    assert states(first) == ["Reached"]
    assert first.status["offloading"]["reachedSince"] == "2026-03-01T12:05:01Z"
    assert first.resync_after_seconds is not None
    assert first.resync_after_seconds <= 30
    assert "begins after the trigger window" in first.status["offloading"]["message"]
    assert split(cluster.measure("100", after=29)) == (0, reasons.LOCAL)
    assert split(cluster.measure("100", after=1)) == (40, reasons.METRIC_REACHED)


def test_windows_begin_at_the_moment() -> None:
    """A window that begins within a second ends no earlier than its length after that moment."""
    cluster = watched(percentage=40)
    first = cluster.measure("100", after=0.7)
    assert first.status["offloading"]["reachedSince"] == "2026-03-01T12:05:01Z"
    assert split(cluster.measure("100", after=29.8)) == (0, reasons.LOCAL)
    assert split(cluster.measure("100", after=0.5)) == (40, reasons.METRIC_REACHED)
    below = cluster.measure("0", after=1.2)
    assert below.status["offloading"]["belowSince"] == "2026-03-01T12:05:33Z"
    assert split(cluster.measure("0", after=60)) == (40, reasons.RELEASING)
    assert split(cluster.measure("0", after=0.8)) == (0, reasons.LOCAL)


def test_a_metric_that_falls_starts_its_window_again() -> None:
    """A target that is reached now and then, and never for thirty seconds, offloads nothing."""
    cluster = watched()
    for value in ("100", "99", "250", "0", "100"):
        assert split(cluster.measure(value, after=20)) == (0, reasons.LOCAL)
    assert cluster.measure("50", after=1).status["offloading"].get("reachedSince") is None


def test_without_a_window_the_first_sample_offloads() -> None:
    """With triggerWindowSeconds 0 the first sample at the target offloads."""
    assert split(watched(triggerWindowSeconds=0, percentage=7).measure("100")) == (7, reasons.METRIC_REACHED)


def test_any_metric_triggers() -> None:
    """One of several metrics at its target is enough to offload; its state says which it is."""
    cluster = watched(metrics=2, triggerWindowSeconds=0, percentage=10)
    response = cluster.measure("5", "100")
    assert split(response) == (10, reasons.METRIC_REACHED)
    assert states(response) == ["Below", "Reached"]


def test_an_estimate_decides_how_soon_and_how_far() -> None:
    """At 50 percent, 44 would be 88 with all requests here, so all come back after a window; 58 would be 87 after the
    next step, so that step comes after a window; 80 supports no step, so one is tried after four."""
    for value, windows, share in (("44", 1, 0), ("58", 1, 25), ("80", 4, 25)):
        cluster = offloaded(percentage=50)
        below = cluster.measure(value, after=1)
        assert (split(below), states(below)) == ((50, reasons.RELEASING), ["Below"])
        assert split(cluster.measure(value, after=60 * windows - 1)) == (50, reasons.RELEASING)
        assert split(cluster.measure(value, after=1))[0] == share


def test_at_the_target_less_the_tolerance_nothing_comes_back() -> None:
    """At 90, which is the target less the tolerance, the share stays for ever, and the sentence is true."""
    cluster = offloaded(percentage=50)
    for _ in range(5):
        response = cluster.measure("90", after=3600)
        assert (split(response), states(response)) == ((50, reasons.METRIC_REACHED), ["Between"])
        assert response.status["offloading"]["message"] == (
            "A metric has reached its target, and not all are far enough below theirs for requests to come back."
        )


def test_exactly_the_tolerance_is_not_below() -> None:
    """A metric that is exactly the tolerance below its target is not Below, to the last digit."""
    assert states(offloaded(percentage=50).measure("90", after=1)) == ["Between"]
    assert states(offloaded(percentage=50).measure("89.999999999", after=1)) == ["Below"]
    assert states(offloaded(percentage=50, tolerance=0).measure("99.999999999", after=1)) == ["Below"]


def test_below_ends_half_the_tolerance_under_the_target() -> None:
    """A metric that was below 90 stays Below up to 95, and its window goes on; no step is taken above 90."""
    cluster = offloaded(percentage=50)
    cluster.measure("44", after=1)
    assert states(cluster.measure("95", after=60)) == ["Below"]
    assert split(cluster.measure("44", after=0)) == (0, reasons.LOCAL)
    cluster = offloaded(percentage=50)
    cluster.measure("44", after=1)
    assert states(cluster.measure("95.000000001", after=1)) == ["Between"]
    assert states(cluster.measure("95", after=1)) == ["Between"]


def test_reached_ends_half_the_tolerance_under_the_target() -> None:
    """While requests are offloaded, a metric that was at its target is Reached down to 95, so that noise around the
    target writes nothing."""
    cluster = offloaded(percentage=50)
    before = cluster.measure("101", after=1)
    for value in ("99", "102", "95", "100"):
        assert cluster.measure(value, after=15).status == before.status
    assert states(cluster.measure("94.999999999", after=1)) == ["Between"]


def test_release_needs_all_metrics() -> None:
    """One metric that is too near its target keeps the split as it is."""
    cluster = watched(metrics=2, triggerWindowSeconds=0, releaseWindowSeconds=0, percentage=50)
    cluster.measure("0", "100")
    assert split(cluster.measure("0", "91", after=1)) == (50, reasons.METRIC_REACHED)
    assert split(cluster.measure("0", "91", after=3600)) == (50, reasons.METRIC_REACHED)
    assert split(cluster.measure("0", "44", after=1)) == (50, reasons.RELEASING)
    assert split(cluster.measure("0", "44", after=60)) == (0, reasons.LOCAL)


def test_the_cycle_repeats() -> None:
    """Each cycle of trigger and release goes like the first one, once every request has stayed here for eight
    windows."""
    cluster = watched(percentage=50)
    for _ in range(5):
        assert split(cluster.measure("120", after=1)) == (0, reasons.LOCAL)
        assert split(cluster.measure("120", after=30)) == (50, reasons.METRIC_REACHED)
        assert split(cluster.measure("10", after=1)) == (50, reasons.RELEASING)
        assert split(cluster.measure("10", after=60)) == (0, reasons.LOCAL)
        trial = {"heldShare", "claim"}
        known = {"percentage", "reason", "message", "since", "metrics"}
        assert set(cluster.parent["status"]["offloading"]) == known | trial
        cluster.measure("10", after=479)
        assert set(cluster.parent["status"]["offloading"]) == known | trial
        assert split(cluster.measure("10", after=1)) == (0, reasons.LOCAL)
        assert set(cluster.parent["status"]["offloading"]) == known


def test_samples_from_before_the_switch_do_not_count() -> None:
    """A sample of the second in which the split changed is of the split before: it counts as settling and moves
    nothing."""
    cluster = watched(percentage=50, triggerWindowSeconds=0, releaseWindowSeconds=0)
    cluster.measure("100")
    again = cluster.measure("0")
    assert (split(again), states(again)) == ((50, reasons.METRIC_REACHED), [reasons.SETTLING])
    assert builders.conditions(again)["MetricsAvailable"] == ("True", reasons.METRICS_READ)
    assert split(cluster.measure("0", after=1)) == (50, reasons.RELEASING)
    assert split(cluster.measure("0", after=60)) == (0, reasons.LOCAL)


def test_the_default_goes_back_by_a_step_and_then_at_once() -> None:
    """From 100 percent, where no request is served here to estimate from, the share goes down one step, and then to
    nothing as soon as the quarter that is here supports it."""
    cluster = offloaded()
    cluster.measure("2")
    assert split(cluster.measure("2", after=59)) == (100, reasons.RELEASING)
    assert split(cluster.measure("2", after=1)) == (75, reasons.RELEASING)
    assert split(cluster.measure("2", after=59)) == (75, reasons.RELEASING)
    assert split(cluster.measure("2", after=1)) == (0, reasons.LOCAL)


@pytest.mark.parametrize("idle", ["22.5", "45", "85"])
@pytest.mark.parametrize("percentage", [50, 75, 100])
def test_what_idle_replicas_use_keeps_nothing_offloaded(percentage: int, idle: str) -> None:
    """Without any request, requests come back within seven windows although idle replicas use up to 85 percent of the
    target."""
    cluster = offloaded(percentage=percentage)
    cluster.measure(idle, after=1)
    shares = [split(cluster.measure(idle, after=60))[0] for _ in range(7)]
    assert shares[-1] == 0
    assert shares == sorted(shares, reverse=True)


def test_a_step_back_that_was_too_much_is_taken_back_at_once() -> None:
    """A metric that comes to its target soon after a step down takes that step back at once, and the next attempt waits
    twice as long, up to eight windows."""
    cluster = offloaded()
    cluster.measure("0", after=1)
    for failures, windows in ((1, 1), (2, 2), (3, 4), (3, 8)):
        assert split(cluster.measure("0", after=60 * windows - 1)) == (100, reasons.RELEASING)
        assert split(cluster.measure("0", after=1)) == (75, reasons.RELEASING)
        assert cluster.parent["status"]["offloading"]["heldShare"] == 100
        assert cluster.parent["status"]["offloading"]["claim"] == "Supported"
        assert split(cluster.measure("100", after=1)) == (100, reasons.METRIC_REACHED)
        offloading = cluster.parent["status"]["offloading"]
        assert offloading["attempts"] == {"supported": failures, "blind": 0}
        assert {"heldShare", "claim"}.isdisjoint(offloading)
        cluster.measure("0", after=1)


def test_a_step_that_stood_is_taken_back_after_the_trigger_window() -> None:
    """A metric that comes to its target later than two windows after a step brings back what the step gave back, after
    the trigger window; if it is still there a minute later, the whole percentage."""
    cluster = offloaded()
    cluster.measure("0", after=1)
    cluster.measure("0", after=60)
    cluster.measure("30", after=1)
    assert split(cluster.measure("30", after=59)) == (50, reasons.RELEASING)
    assert split(cluster.measure("95.1", after=200)) == (50, reasons.METRIC_REACHED)
    assert split(cluster.measure("100", after=1)) == (50, reasons.METRIC_REACHED)
    assert split(cluster.measure("100", after=30)) == (75, reasons.METRIC_REACHED)
    assert split(cluster.measure("100", after=59)) == (75, reasons.METRIC_REACHED)
    assert split(cluster.measure("100", after=1)) == (100, reasons.METRIC_REACHED)


def test_an_attempt_during_scaling_counts_for_nothing() -> None:
    """A step that is taken back while the workload has fewer ready replicas than it asks for makes nothing wait
    longer."""
    cluster = offloaded()
    cluster.related = [workload(ready=1, replicas=2)]
    cluster.measure("0", after=1)
    assert split(cluster.measure("0", after=60)) == (75, reasons.RELEASING)
    assert split(cluster.measure("100", after=1)) == (100, reasons.METRIC_REACHED)
    assert "attempts" not in cluster.parent["status"]["offloading"]


def test_claims_are_counted_apart() -> None:
    """Failed attempts without an estimate do not delay one that an estimate supports."""
    cluster = offloaded(percentage=50)
    for windows in (4, 4, 4, 8):
        cluster.measure("75", after=1)
        assert split(cluster.measure("75", after=60 * windows - 1)) == (50, reasons.RELEASING)
        assert split(cluster.measure("75", after=1)) == (25, reasons.RELEASING)
        assert split(cluster.measure("112", after=1)) == (50, reasons.METRIC_REACHED)
    assert cluster.parent["status"]["offloading"]["attempts"] == {"supported": 0, "blind": 3}
    cluster.measure("5", after=1)
    assert split(cluster.measure("5", after=60)) == (0, reasons.LOCAL)


def test_a_metric_at_its_target_brings_the_last_share_back() -> None:
    """Until every request has stayed here for eight windows, a metric at its target refutes the last step."""
    cluster = offloaded(percentage=50)
    cluster.measure("5", after=1)
    assert split(cluster.measure("5", after=60)) == (0, reasons.LOCAL)
    assert split(cluster.measure("150", after=30)) == (50, reasons.METRIC_REACHED)
    assert cluster.parent["status"]["offloading"]["attempts"] == {"supported": 1, "blind": 0}
    cluster.measure("5", after=1)
    assert split(cluster.measure("5", after=120)) == (25, reasons.RELEASING)


def test_the_status_of_an_earlier_version_is_read() -> None:
    """A status without trials, as an earlier version wrote it at 75 of 100 percent, goes on from there."""
    cluster = offloaded()
    cluster.measure("0", after=1)
    cluster.measure("0", after=60)
    state = {
        name: value
        for name, value in cluster.parent["status"]["offloading"].items()
        if name not in ("heldShare", "claim", "attempts")
    }
    cluster.parent["status"]["offloading"] = state
    assert state["step"] == 25
    cluster.measure("30", after=1)
    assert split(cluster.measure("30", after=60)) == (50, reasons.RELEASING)


def test_a_step_back_that_is_enough_goes_no_further() -> None:
    """The share stays at 50 while a metric is within the tolerance there, and goes on once it is below it."""
    cluster = offloaded(releaseWindowSeconds=60)
    cluster.measure("0", after=1)
    cluster.measure("0", after=60)
    assert split(cluster.measure("46", after=60))[0] == 50
    for _ in range(5):
        assert split(cluster.measure("96", after=60)) == (50, reasons.METRIC_REACHED)
    assert states(cluster.measure("44", after=1)) == ["Below"]
    assert split(cluster.measure("44", after=60))[0] == 0


def test_the_next_step_may_be_supported_where_all_requests_are_not() -> None:
    """At 95 percent, 5 would be 100 with all requests here and 30 after the next step, so only that step is taken."""
    cluster = offloaded(percentage=95)
    assert states(cluster.measure("5", after=1)) == ["Below"]
    assert split(cluster.measure("5", after=60))[0] == 70
    assert cluster.parent["status"]["offloading"]["claim"] == "Supported"


def test_a_gauge_goes_back_in_steps() -> None:
    """With a metric that does not follow the load nothing is estimated, and the share goes down step by step, the first
    one after four windows."""
    cluster = offloaded(percentage=60, signal="gauge", stepPercentage=40)
    assert states(cluster.measure("94", after=1)) == ["Between"]
    assert states(cluster.measure("89", after=1)) == ["Below"]
    assert split(cluster.measure("89", after=239)) == (60, reasons.RELEASING)
    assert split(cluster.measure("89", after=1)) == (20, reasons.RELEASING)
    assert cluster.parent["status"]["offloading"]["claim"] == "Blind"
    assert split(cluster.measure("96", after=30)) == (20, reasons.METRIC_REACHED)
    cluster.measure("89", after=1)
    assert split(cluster.measure("89", after=60)) == (0, reasons.LOCAL)


@pytest.mark.parametrize(
    ("on_missing", "share", "reason"),
    [
        ("hold", 50, reasons.METRICS_MISSING),
        ("release", 50, reasons.RELEASING),
        ("offload", 50, reasons.METRICS_MISSING),
    ],
)
def test_a_missing_metric_while_offloading(on_missing: str, share: int, reason: str) -> None:
    """While a metric is missing, hold and offload keep the share, release gives it back after the window, and the
    condition says why."""
    cluster = offloaded(percentage=50, onMissingMetrics=on_missing)
    gone = cluster.measure(GONE, after=1)
    assert split(gone) == (share, reason)
    assert states(gone) == [reasons.UNREACHABLE]
    assert builders.condition(gone, "MetricsAvailable") == {
        "type": "MetricsAvailable",
        "status": "False",
        "reason": reasons.UNREACHABLE,
        "message": f"queue-0: {GONE.message}",
        "lastTransitionTime": "2026-03-01T12:05:32Z",
        "observedGeneration": 1,
    }
    assert split(cluster.measure(GONE, after=60)) == (
        (0, reasons.LOCAL) if on_missing == "release" else (share, reason)
    )


@pytest.mark.parametrize(
    ("on_missing", "expected"),
    [
        ("hold", (0, reasons.METRICS_MISSING)),
        ("release", (0, reasons.LOCAL)),
        ("offload", (50, reasons.METRICS_MISSING)),
    ],
)
def test_a_missing_metric_without_history(on_missing: str, expected: tuple[int, str]) -> None:
    """When nothing was offloaded before, hold and release stay local, and offload takes the metric for reached."""
    cluster = watched(percentage=50, onMissingMetrics=on_missing)
    cluster.measure(GONE)
    assert split(cluster.measure(GONE, after=30)) == expected


def test_a_readable_metric_wins_over_a_missing_one() -> None:
    """One metric at its target offloads while another cannot be read, and the missing one prevents the release."""
    cluster = watched(metrics=2, percentage=50, triggerWindowSeconds=0, releaseWindowSeconds=0)
    assert split(cluster.measure(GONE, "100")) == (50, reasons.METRIC_REACHED)
    assert split(cluster.measure(GONE, "0", after=1)) == (50, reasons.METRICS_MISSING)
    assert split(cluster.measure("0", "0", after=1)) == (50, reasons.RELEASING)
    assert split(cluster.measure("0", "0", after=60)) == (0, reasons.LOCAL)


def test_windows_begin_anew_after_a_failure() -> None:
    """A failure to read a metric ends both windows, which begin anew when it can be read again."""
    cluster = watched(percentage=50)
    cluster.measure("100")
    assert "reachedSince" not in cluster.measure(GONE, after=10).status["offloading"]
    assert split(cluster.measure("100", after=300)) == (0, reasons.LOCAL)
    assert split(cluster.measure("100", after=30)) == (50, reasons.METRIC_REACHED)
    cluster.measure("0", after=1)
    assert "belowSince" not in cluster.measure(GONE, after=10).status["offloading"]
    assert split(cluster.measure("0", after=300)) == (50, reasons.RELEASING)
    assert split(cluster.measure("0", after=60)) == (0, reasons.LOCAL)


def test_readiness_wins_over_metrics_and_metrics_go_on_after_it() -> None:
    """Without a ready replica all requests go remote; afterwards the share that metrics asked for is in force again."""
    cluster = offloaded(percentage=50)
    assert split(cluster.set_ready(0)) == (100, reasons.NO_READY_REPLICA)
    assert split(cluster.measure("0", after=600)) == (100, reasons.NO_READY_REPLICA)
    assert split(cluster.set_ready(1)) == (50, reasons.METRIC_REACHED)
    cluster.measure("0", after=1)
    assert split(cluster.measure("0", after=60)) == (0, reasons.LOCAL)


@pytest.mark.parametrize("percentage", [1, 50, 100])
def test_recovery_without_a_metric_is_local(percentage: int) -> None:
    """After an outage in which no metric asked for a share, all requests are local again."""
    cluster = watched(percentage=percentage)
    assert split(cluster.set_ready(0)) == (100, reasons.NO_READY_REPLICA)
    assert split(cluster.set_ready(1)) == (0, reasons.LOCAL)


def test_another_percentage_counts_at_once() -> None:
    """While a metric is at its target, an edited percentage is in force with the next sync, up or down, 0 included."""
    cluster = offloaded(percentage=50)
    for percentage in (80, 20, 0, 60):
        config = cluster.parent["spec"]["offloadingConfig"]
        behavior = config["behavior"] | {"percentage": percentage}
        assert split(cluster.edit(offloadingConfig=config | {"behavior": behavior}))[0] == percentage
        cluster.now += timedelta(seconds=1)


def edited(cluster: Cluster, **fields: Any) -> SyncResponse:
    """Return the response to the sync after an edit of the behavior."""
    config = cluster.parent["spec"]["offloadingConfig"]
    return cluster.edit(offloadingConfig=config | {"behavior": config["behavior"] | fields})


@pytest.mark.parametrize("mode", ["fixed", "proportional"])
@pytest.mark.parametrize(
    ("before", "rests", "edit", "after"),
    [(100, 75, 20, 20), (80, 55, 100, 55), (100, 75, 80, 75), (100, 75, 0, 0), (80, 55, 90, 55)],
)
def test_a_percentage_that_is_edited_on_the_way_back_takes_the_smaller(
    mode: str, before: int, rests: int, edit: int, after: int
) -> None:
    """While the share is below the percentage, an edit of it takes the smaller of the share and the new percentage."""
    cluster = offloaded(percentage=before, mode=mode)
    cluster.now += timedelta(seconds=1)
    while cluster.parent["status"]["offloading"]["percentage"] < before:
        cluster.measure("300", after=31)
    cluster.measure("30", after=1)
    while cluster.parent["status"]["offloading"]["percentage"] == before:
        cluster.measure("30", after=10)
    assert split(cluster.measure("96", after=1))[0] == rests
    assert split(edited(cluster, percentage=edit))[0] == after
    assert split(cluster.measure("96", after=1))[0] == after


@pytest.mark.parametrize(("edit", "after"), [(20, 20), (100, 55)])
def test_a_percentage_that_is_edited_under_an_override_takes_the_smaller(edit: int, after: int) -> None:
    """The share that comes back after an override is the smaller one, too, when the percentage was edited meanwhile."""
    cluster = offloaded(percentage=80)
    cluster.measure("30", after=1)
    cluster.measure("30", after=60)
    assert split(cluster.measure("96", after=1))[0] == 55
    until = "2026-03-01T18:00:00Z"
    overridden(cluster, percentage=30, until=until)
    cluster.measure("95", after=1)
    assert cluster.parent["status"]["offloading"]["heldShare"] == 55
    edited(cluster, percentage=edit)
    cluster.measure("95", after=1)
    assert split(overridden(cluster))[0] == after


def test_metrics_that_are_removed_end_offloading() -> None:
    """Offloading ends when the metrics are removed; one that is added while offloading counts like the others."""
    cluster = offloaded(percentage=50)
    config = cluster.parent["spec"]["offloadingConfig"]
    cluster.values = ("0", "91")
    added = cluster.edit(offloadingConfig=config | {"metrics": [*config["metrics"], external("more")]})
    assert (split(added), states(added)) == ((50, reasons.METRIC_REACHED), ["Below", "Between"])
    cluster.values = ()
    response = cluster.edit(offloadingConfig=config | {"metrics": []})
    assert split(response) == (0, reasons.LOCAL)
    assert "metrics" not in response.status["offloading"]


def test_a_disabled_model_remembers_nothing() -> None:
    """A model that is disabled and enabled again starts without a memory of its metrics."""
    cluster = offloaded(percentage=50)
    assert split(cluster.edit(enabled=False)) == (0, reasons.DISABLED)
    assert "step" not in cluster.parent["status"]["offloading"]
    assert split(cluster.edit(enabled=True)) == (0, reasons.LOCAL)


def test_metrics_that_are_not_read_leave_the_split() -> None:
    """Where no metrics are read, for instance offline, the condition says so and the split stays."""
    cluster = offloaded(percentage=50)
    cluster.values = None
    response = cluster.sync()
    assert split(response) == (50, reasons.METRIC_REACHED)
    assert builders.conditions(response)["MetricsAvailable"] == ("Unknown", reasons.NOT_EVALUATED)


PODS: Json = {
    "type": "Pods",
    "pods": {"metric": {"name": "busy"}, "target": {"type": "AverageValue", "averageValue": 1}},
}


def test_pods_that_cannot_be_listed() -> None:
    """A metric of type Pods cannot be read without the list of pods, while others can; a wrong declaration comes
    first."""
    targets: list[Json] = [{"type": "AverageValue", "averageValue": 1}, {"type": "Value", "value": 1}]
    right, wrong = ({"type": "Pods", "pods": {"metric": {"name": "busy"}, "target": target}} for target in targets)
    config = {"remoteBackend": builders.REMOTE, "metrics": [right, external(), wrong]}
    forbidden = Unread(reasons.FORBIDDEN, "Hooks may not list pods: allow it.")
    unread_pods = dataclasses.replace(builders.readings("1", "1", "1"), pods_unread=forbidden)
    response = builders.sync(model_deployment(offloadingConfig=config), related=[workload()], readings=unread_pods)
    assert states(response) == [reasons.FORBIDDEN, "Below", reasons.MISDECLARED]
    assert builders.condition(response, "MetricsAvailable")["message"].startswith(f"busy: {forbidden.message} busy: ")


def test_many_missing_metrics_make_a_short_message() -> None:
    """A condition names only the first of many missing metrics, and cuts a name that is a whole query."""
    metrics = [external("sum(rate(" + "x" * 200 + "[1m]))") for _ in range(MAX_TOLD + 2)]
    config = {"remoteBackend": builders.REMOTE, "metrics": metrics}
    response = builders.sync(
        model_deployment(offloadingConfig=config),
        related=[workload()],
        readings=builders.readings(*[GONE] * len(metrics)),
    )
    message = builders.condition(response, "MetricsAvailable")["message"]
    assert message.endswith(f"x…: {GONE.message} 2 more are like it.")
    assert message.count(GONE.message) == MAX_TOLD
    assert len(message) < MAX_TOLD * (MAX_NAME + len(GONE.message) + 5) + 30


def overridden(cluster: Cluster, **override: Any) -> SyncResponse:
    """Return the response to the sync after an override was written into the specification, or taken out."""
    config = cluster.parent["spec"]["offloadingConfig"]
    behavior = {key: value for key, value in config["behavior"].items() if key != "override"}
    return cluster.edit(offloadingConfig=config | {"behavior": behavior | ({"override": override} if override else {})})


def test_metrics_are_followed_under_an_override() -> None:
    """When an override ends, the share is what metrics ask for then, not what they asked for before it."""
    until = "2026-03-01T18:00:00Z"
    cluster = offloaded(percentage=50)
    assert split(overridden(cluster, percentage=20, until=until)) == (20, reasons.OVERRIDE)
    cluster.measure("60", after=1)
    assert split(cluster.measure("60", after=60)) == (20, reasons.OVERRIDE)
    assert split(overridden(cluster)) == (0, reasons.LOCAL)
    overridden(cluster, percentage=20, until=until)
    cluster.measure("100", after=1)
    cluster.measure("100", after=30)
    assert split(overridden(cluster)) == (50, reasons.METRIC_REACHED)


def test_under_an_override_of_everything_a_low_metric_ends_nothing() -> None:
    """With an override of 100 percent no request is served here, so a low metric does not end offloading."""
    cluster = offloaded(percentage=100)
    overridden(cluster, percentage=100, until="2026-03-01T18:00:00Z")
    cluster.measure("0", after=1)
    assert states(cluster.measure("0", after=600)) == ["Between"]
    assert split(overridden(cluster)) == (100, reasons.RELEASING)


def measured(ratio: Fraction | float | str) -> Measured:
    """Return a measure with this ratio to its target."""
    nanos = int(Fraction(ratio) * NANO)
    return Measured((Counted("series", Quantity(nanos), NOW),), (), Fraction(1), Fraction(1))


def ahead(
    memory: Memory,
    *measures: Measured | Missing,
    in_force: int = 0,
    now: datetime = NOW,
    by_metrics: bool = True,
    since: datetime | None = LONG_AGO,
    overridden: bool = False,
    **behavior: Any,
) -> Course:
    """Return the course after one more sync, by default in mode proportional without windows."""
    fields = {"mode": "proportional", "trigger_window_seconds": 0, "release_window_seconds": 0, **behavior}
    force = InForce(in_force, since, by_metrics, overridden)
    return advance(memory, measures, OffloadingBehavior(**fields), force, now=now)


@pytest.mark.parametrize(
    ("in_force", "ratio", "share", "why"),
    [
        (0, "1", 6, "at its target 94 percent of it are just below the middle of 0.95"),
        (0, "1.1", 14, "0.86 of 1.1 is 0.946"),
        (0, "2", 25, "half would have to go, but a step is 25"),
        (25, "1.2", 41, "1.6 with all traffic: 0.59 of it is 0.944"),
        (50, "5", 75, "far too much, a step at a time"),
        (75, "3", 80, "the percentage is the ceiling"),
        (40, "0.95", 40, "between tolerance and target nothing moves"),
        (40, "0.895", 37, "1.4916 with all traffic: 0.63 of it is 0.9397, 0.64 is 0.9546"),
        (40, "0.8", 29, "1.333 with all traffic: 0.71 of it is 0.9466, 0.72 is 0.96"),
        (40, "0.5", 15, "0.833 with all traffic would allow none, but a step is 25"),
        (20, "0.1", None, "none is left"),
        (20, "0", None, "none is left"),
    ],
)
def test_the_proportional_share(in_force: int, ratio: str, share: int | None, why: str) -> None:
    """In mode proportional the share is the one with which the metric would be in the middle between the target and the
    tolerance, a step away at most and never above the percentage."""
    memory = Memory(step=80 - in_force, below_since=A_WINDOW_AGO) if in_force else NOTHING
    course = ahead(memory, measured(Fraction(ratio)), in_force=in_force, percentage=80)
    assert course.share == share, why
    assert course.memory.step == (None if share is None else 80 - share)


def test_the_proportional_share_moves_by_steps_without_an_estimate() -> None:
    """The proportional share moves by whole steps at 100 percent and for a gauge, where nothing can be estimated."""
    below = Memory(step=0, below_since=A_WINDOW_AGO)
    assert ahead(below, measured(0), in_force=100).share == 75
    assert ahead(Memory(step=50), measured(2), in_force=50, signal="gauge").share == 75
    below = Memory(step=50, below_since=NOW - timedelta(seconds=240))
    assert ahead(below, measured(0), in_force=50, signal="gauge").share == 25
    below = Memory(step=80, below_since=NOW - timedelta(seconds=240))
    assert ahead(below, measured(0), in_force=20, signal="gauge").share is None


def test_the_largest_step_holds_when_the_ceiling_moves() -> None:
    """A percentage that is raised moves no share by itself; one that is lowered is in force at once."""
    assert ahead(Memory(step=0), measured("0.95"), in_force=40, percentage=90).share == 40
    assert ahead(Memory(step=0), measured("0.95"), in_force=40, percentage=30).share == 30
    # After an outage the split in force says nothing of the share before it.
    assert ahead(Memory(step=10), measured("0.95"), in_force=100, by_metrics=False, percentage=40).share == 30


def test_missing_metrics_go_up_one_step_an_interval() -> None:
    """With onMissingMetrics offload the share goes up one step per interval, however many syncs come in it."""
    missing = Missing(reasons.UNREACHABLE, "gone")
    offload: Json = {"on_missing_metrics": "offload"}
    assert ahead(NOTHING, missing, **offload).share == 25
    recently = NOW - timedelta(seconds=15)
    assert ahead(Memory(step=75), missing, in_force=25, since=recently, **offload).share == 25
    assert ahead(Memory(step=75), missing, in_force=25, **offload).share == 50
    assert ahead(Memory(step=75), missing, in_force=25, since=None, **offload).share == 50


@pytest.mark.parametrize("mode", ["fixed", "proportional"])
def test_missing_metrics_that_are_released_go_down(mode: str) -> None:
    """With onMissingMetrics release a missing metric counts as 0: in mode fixed all requests come back after a window,
    in mode proportional step by step."""
    missing = Missing(reasons.UNREACHABLE, "gone")
    release: Json = {"mode": mode, "on_missing_metrics": "release"}
    recently = NOW - timedelta(seconds=59)
    assert ahead(Memory(step=25, below_since=recently), missing, in_force=75, **release).share == 75
    course = ahead(Memory(step=25, below_since=A_WINDOW_AGO), missing, in_force=75, **release)
    assert course.share == (None if mode == "fixed" else 50)


def test_a_missing_metric_that_counts_as_reached_asks_for_a_whole_step() -> None:
    """A missing metric that counts as reached asks for a whole step, also beside one that would need less."""
    missing = Missing(reasons.UNREACHABLE, "gone")
    course = ahead(Memory(step=50), missing, measured("1.01"), in_force=50, on_missing_metrics="offload")
    assert course.share == 75


def test_under_an_override_the_proportional_share_waits() -> None:
    """Under an override hooks follow whether metrics ask for a share, and leave how much as it was."""
    assert ahead(Memory(step=60), measured(2), in_force=10, by_metrics=False, overridden=True).share == 40
    assert ahead(NOTHING, measured(2), in_force=10, overridden=True).share == 25
    below = Memory(step=60, below_since=A_WINDOW_AGO)
    gone = ahead(below, measured("0.5"), in_force=10, by_metrics=False, overridden=True)
    assert gone.share is None


def test_without_metrics_nothing_is_remembered() -> None:
    """Without metrics the memory is cleared and no share is asked for."""
    assert ahead(Memory(NOW, NOW, 5)) == Course(NOTHING, None)


MOMENTS = st.none() | st.integers(-100_000, 100_000).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from(["fixed", "proportional"]),
    st.sampled_from(["load", "gauge"]),
    st.fractions(0, 2, max_denominator=1000),
    st.booleans(),
)
def test_where_a_metric_falls_below(
    percentage: int, step: int, in_force: int, mode: str, signal: str, ratio: Fraction, overridden: bool
) -> None:
    """The ratio `falls_below` is exactly the one under which a metric below its target lets the share go down."""
    behavior: Json = {"percentage": percentage, "mode": mode, "signal": signal}
    course = ahead(Memory(step=step), measured(ratio), in_force=in_force, overridden=overridden, **behavior)
    bound = course.falls_below
    for tried in {ratio} if bound is None else {ratio, bound, bound - Fraction(1, NANO)}:
        standing = ahead(
            Memory(step=step), exactly(tried), in_force=in_force, overridden=overridden, **behavior
        ).standings[0]
        if tried < 1 and (bound is not None or standing is Standing.BETWEEN):
            assert (standing is Standing.BELOW) == (bound is not None and tried < bound)


def exactly(ratio: Fraction) -> Measured:
    """Return a measure with exactly this ratio, though no quantity has it."""
    return Measured((Counted("series", Quantity(NANO), NOW),), (), Fraction(1), 1 / ratio) if ratio > 0 else measured(0)


def quotient(cluster: Cluster, *values: str, after: float) -> SyncResponse:
    """Return the response to a sync after this many seconds, in which Prometheus gives these values for a metric."""
    cluster.now += timedelta(seconds=after)
    series = [{"metric": {"le": str(one)}, "value": [cluster.now.timestamp(), one]} for one in values]
    content = {"data": {"resultType": "vector", "result": series}}
    response = builders.sync(
        cluster.parent,
        now=cluster.now,
        readings=Readings((vectors.of_series(vectors.points(content), timedelta(0)),)),
        children=cluster.children,
        related=cluster.related,
    )
    cluster.parent = cluster.parent | {"status": response.status}
    return response


def test_a_quotient_without_traffic_is_released() -> None:
    """At 100 percent a quotient is NaN, which counts as 0, so requests come back; while all are here it cannot be
    read, and an infinity or an empty result holds the share at any time."""
    cluster = offloaded()
    for held in (("+Inf",), ("NaN", "-Inf"), ()):
        response = quotient(cluster, *held, after=3600)
        assert split(response) == (100, reasons.METRICS_MISSING)
    assert split(quotient(cluster, "NaN", after=1)) == (100, reasons.RELEASING)
    assert split(quotient(cluster, "NaN", after=60)) == (75, reasons.RELEASING)
    assert split(quotient(cluster, "NaN", "NaN", after=1)) == (75, reasons.RELEASING)
    back = quotient(cluster, "NaN", "3", after=60)
    assert split(back) == (0, reasons.LOCAL)
    assert states(quotient(cluster, "NaN", after=1)) == [reasons.NOT_A_NUMBER]
