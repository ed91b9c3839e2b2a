"""Measures: the formulas of the autoscaler in exact numbers, and a reason where there is no ratio."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import permutations
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.metrics import MetricSpec, MetricType
from hooks.kube import pods
from hooks.kube.pods import Container, Pod
from hooks.kube.quantities import NANO, Format, Quantity, parse
from hooks.observation.readings import Sample
from hooks.offloading import measures, targets
from hooks.offloading.measures import MAX_AGE, Counted, Exclusion, LeftOut, Measured, Missing, measure
from hooks.offloading.targets import TABLE, TargetType
from tests.builders import NOW, Json
from tools.repository import ROOT

READY_SINCE = NOW - timedelta(hours=1)
ONE = Fraction(1)
RECENT = NOW - timedelta(seconds=10)
WINDOW = timedelta(seconds=15)
PAGE = (ROOT / "docs/reference/offloading.md").read_text(encoding="utf-8")


def pod(name: str, *requests: str | None, **fields: Any) -> Pod:
    """Return a ready pod with a container `c0`, `c1`, … for each request for cpu; None requests nothing."""
    containers = tuple(
        Container(f"c{number}", {} if amount is None else {"cpu": parse(amount)})
        for number, amount in enumerate(requests or ("1",))
    )
    serving = Pod(name, "Running", True, READY_SINCE, False, containers, {})
    return dataclasses.replace(serving, **fields)


def sample(
    of: str, value: str | int, container: str = "", *, time: datetime = RECENT, window: timedelta = WINDOW
) -> Sample:
    """Return a recent sample."""
    return Sample(of, parse(value), time, window, container)


def usage(of: str, *values: str | int) -> list[Sample]:
    """Return a sample for each of the containers `c0`, `c1`, …"""
    return [sample(of, value, f"c{number}") for number, value in enumerate(values)]


def metric(type_: MetricType | str, target: TargetType | str, amount: str | int, **source: Any) -> MetricSpec:
    """Return a metric of this type with this target; for Resource and ContainerResource it is cpu."""
    kind = MetricType(type_)
    field = f"{kind[0].lower()}{kind[1:]}"
    name = {"Utilization": "averageUtilization", "Value": "value", "AverageValue": "averageValue"}[target]
    bases: dict[MetricType, Json] = {
        MetricType.RESOURCE: {"name": "cpu"},
        MetricType.CONTAINER_RESOURCE: {"name": "cpu", "container": "c1"},
        MetricType.PODS: {"metric": {"name": "queue"}},
        MetricType.OBJECT: {"metric": {"name": "queue"}, "describedObject": {"kind": "Service", "name": "demo"}},
        MetricType.EXTERNAL: {"metric": {"name": "queue"}},
    }
    return MetricSpec.model_validate(
        {"type": kind, field: bases[kind] | {"target": {"type": target, name: amount}} | source}
    )


CPU = metric("Resource", "Utilization", 80)
QUEUE = metric("Pods", "AverageValue", 10)


def of(
    spec: MetricSpec, samples: Sequence[Sample] = (), serving: Sequence[Pod] = (), ready: int = 1, **clock: Any
) -> Measured | Missing:
    """Return the measure at NOW, by default a day after the split last changed."""
    clock = {"now": NOW, "since": NOW - timedelta(days=1)} | clock
    return measure(spec, samples, serving, ready_replicas=ready, **clock)


def ratio(*args: Any, **kwargs: Any) -> Fraction:
    """Return the ratio of a measure that has one."""
    result = of(*args, **kwargs)
    assert isinstance(result, Measured), result
    return result.ratio


def missing(*args: Any, **kwargs: Any) -> Missing:
    """Return the reason of a measure that has no ratio."""
    result = of(*args, **kwargs)
    assert isinstance(result, Missing), result
    return result


# The autoscaler's own examples.


@pytest.mark.parametrize(("current", "expected"), [("200m", Fraction(2)), ("50m", Fraction(1, 2)), ("100m", 1)])
@pytest.mark.parametrize(
    ("type_", "target"),
    [key for key in TABLE if key[1] is not TargetType.UTILIZATION],
)
def test_the_example_of_the_documentation(
    type_: MetricType, target: TargetType, current: str, expected: Fraction
) -> None:
    """The ratio of 200m to a target of 100m is 2, and that of 50m is 1/2, for every type of metric."""
    samples = [*usage("demo", current, current), sample("demo", current)]
    if type_ in (MetricType.OBJECT, MetricType.EXTERNAL):
        samples = samples[-1:]
    if type_ is MetricType.RESOURCE:
        samples = samples[:1]
    containers = ("1",) if type_ is MetricType.RESOURCE else ("1", "1")
    assert ratio(metric(type_, target, "100m"), samples, [pod("demo", *containers)]) == expected


MANY = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("levels", "target", "expected"),
    [
        ((300, 500, 700), 30, Fraction(50, 30)),
        ((100, 300, 500, 250, 250), 50, Fraction(28, 50)),
        ((1010, 1030, 1020), 100, Fraction(102, 100)),
    ],
)
def test_utilization_of_the_autoscalers_tests(levels: tuple[int, ...], target: int, expected: Fraction) -> None:
    """The utilizations of the autoscaler's own tests, 50, 28 and 102 percent of the requests, have the same ratio."""
    serving = [pod(name, "1", "1") for name, _ in zip(MANY, levels, strict=False)]
    resource = [
        item for name, level in zip(MANY, levels, strict=False) for item in usage(name, f"{level}m", f"{level}m")
    ]
    container = [item for name, level in zip(MANY, levels, strict=False) for item in usage(name, "1", f"{level}m")]
    assert ratio(metric("Resource", "Utilization", target), resource, serving) == expected
    assert ratio(metric("ContainerResource", "Utilization", target), container, serving) == expected


@pytest.mark.parametrize(
    ("type_", "target", "amount", "levels", "ready", "expected"),
    [
        ("Pods", "AverageValue", "15", ("20", "10", "30"), 3, Fraction(20, 15)),
        ("Pods", "AverageValue", "20", ("12",) * 5, 5, Fraction(12, 20)),
        ("Object", "Value", "15", ("20",), 3, Fraction(20, 15)),
        ("Object", "AverageValue", "5", ("20",), 3, Fraction(20, 15)),
        ("Object", "AverageValue", "2", ("6",), 5, Fraction(6, 10)),
        ("External", "Value", "4400m", ("8600m",), 1, Fraction(86, 44)),
        ("External", "AverageValue", "2150m", ("8600m",), 3, Fraction(8600, 6450)),
        ("External", "AverageValue", "2867m", ("8600m",), 5, Fraction(8600, 14335)),
    ],
)
def test_values_of_the_autoscalers_tests(
    type_: str, target: str, amount: str, levels: tuple[str, ...], ready: int, expected: Fraction
) -> None:
    """The metrics of the autoscaler's own tests have the same ratio, without its rounding."""
    names = MANY if type_ == "Pods" else ("demo",)
    samples = [sample(name, level) for name, level in zip(names, levels, strict=False)]
    assert ratio(metric(type_, target, amount), samples, [pod(name) for name in MANY[:ready]], ready) == expected


def test_the_walkthrough_of_the_autoscaler() -> None:
    """A pod that requests 200m and uses 610m is at 305 percent, which needs seven pods for a target of 50 percent."""
    result = ratio(metric("Resource", "Utilization", 50), usage("demo", "610m"), [pod("demo", "200m")])
    assert (result, ceil(1 * result)) == (Fraction(61, 10), 7)


def test_failed_and_deleted_pods_of_the_autoscalers_tests() -> None:
    """Pods that failed, or that are being deleted and still run, do not change the ratio."""
    levels = (100, 300, 500, 250, 250)
    serving = [pod(name) for name in MANY]
    samples = [item for name, level in zip(MANY, levels, strict=True) for item in usage(name, f"{level}m")]
    gone = [pod("f", phase="Failed", ready=False), pod("g", terminating=True)]
    spec = metric("Resource", "Utilization", 50)
    assert ratio(spec, [*samples, *usage("f", "5"), *usage("g", "5")], [*serving, *gone]) == Fraction(28, 50)


# Bugs of the original.


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_c2_utilization_is_not_divided_by_the_replicas_again(replicas: int) -> None:
    """C2: any number of replicas at 90 percent each is at a target of 90."""
    serving = [pod(name, "500m") for name in MANY[:replicas]]
    samples = [item for name in MANY[:replicas] for item in usage(name, "450m")]
    assert ratio(metric("Resource", "Utilization", 90), samples, serving) == 1


@pytest.mark.parametrize(
    ("type_", "target"), [key for key in TABLE if key[1] is not TargetType.UTILIZATION], ids=lambda value: str(value)
)
def test_c3_high_load_is_a_high_ratio(type_: MetricType, target: TargetType) -> None:
    """C3: for each type of target, a value below the target has a ratio below 1, and one above it a ratio above 1."""
    spec = metric(type_, target, "10")

    def at(value: str) -> Fraction:
        per_container = type_ in (MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE)
        samples = [sample("demo", value, "c1" if per_container else "")]
        serving = dataclasses.replace(pod("demo"), containers=(Container("c1", {}),))
        return ratio(spec, samples, [serving])

    assert (at("9"), at("10"), at("11")) == (Fraction(9, 10), ONE, Fraction(11, 10))


def test_c3_thousandths_are_not_compared_with_whole_units() -> None:
    """C3: 10 and 10000m are equal, as a value and as a target."""
    serving = [pod("demo")]
    assert ratio(metric("Pods", "AverageValue", "10"), [sample("demo", "10000m")], serving) == 1
    assert ratio(metric("Pods", "AverageValue", "10000m"), [sample("demo", "10")], serving) == 1


def test_c4_a_container_is_not_a_resource() -> None:
    """C4: ContainerResource counts the named resource of the named container and of no other."""
    spec = metric("ContainerResource", "Utilization", 50, container="c0")
    assert ratio(spec, usage("demo", "250m", "4"), [pod("demo", "500m", None)]) == 1


def test_c4_an_object_is_the_one_that_is_described() -> None:
    """C4: a sample of another object does not count for the described object."""
    spec = metric("Object", "Value", 10)
    assert ratio(spec, [sample("other", 50), sample("demo", 10)]) == 1
    assert missing(spec, [sample("other", 50)]).reason == reasons.NO_SAMPLE


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ((None,), "The container 'c0' has no request for cpu: set one, or use AverageValue."),
        (("1", None), "The container 'c1' has no request for cpu: set one, or use AverageValue."),
        (("0", "0"), "The requests for cpu are zero."),
    ],
)
def test_c4_without_requests_there_is_no_utilization(requests: tuple[str | None, ...], message: str) -> None:
    """C4: a container without a request makes the utilization missing, because usage cannot be divided by zero."""
    result = missing(CPU, usage("demo", *["1" for _ in requests]), [pod("demo", *requests)])
    assert (result.reason, result.message) == (reasons.NO_REQUESTS, message)


def test_c4_a_metric_without_its_description_is_no_crash() -> None:
    """C4: a metric of any type without its description has a reason and no ratio."""
    for type_ in MetricType:
        assert missing(MetricSpec(type=type_)).reason == reasons.MISDECLARED


# Exact amounts.


SUFFIXES = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "e3", "E3", "e-3", "E+6"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, "Ei"])
def test_every_suffix_is_exact(suffix: str) -> None:
    """With every suffix the ratio of 3 to 2 of the same unit is exactly 3/2."""
    assert ratio(
        metric("Pods", "AverageValue", f"2{suffix}"), [sample("demo", f"3{suffix}")], [pod("demo")]
    ) == Fraction(3, 2)


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        ("1Ki", "1k", Fraction(1024, 1000)),
        ("1Gi", "1G", Fraction(2**30, 10**9)),
        ("1n", "1E", Fraction(1, 10**27)),
        ("7Ei", "1n", Fraction(7 * 2**60 * 10**9)),
        ("1e3", "1k", Fraction(1)),
        ("1", "3", Fraction(1, 3)),
        ("-1", "2", Fraction(-1, 2)),
    ],
)
def test_different_units_are_compared_exactly(value: str, target: str, expected: Fraction) -> None:
    """From billionths to 2^63 no value is rounded, and a metric may be below zero."""
    assert ratio(metric("Pods", "AverageValue", target), [sample("demo", value)], [pod("demo")]) == expected


def test_utilization_is_not_cut_to_whole_percents() -> None:
    """A utilization of 79.9 percent is below a target of 80 by exactly a tenth of a percent."""
    assert ratio(CPU, usage("demo", "799m"), [pod("demo")]) == Fraction(799, 800)


def test_large_sums_do_not_overflow() -> None:
    """A sum of three times the largest amount that Kubernetes stores is exact."""
    series = [sample(name, "9223372036854775807") for name in MANY[:3]]
    assert ratio(metric("External", "Value", "9223372036854775807"), series) == 3


def test_the_modules_have_no_floats() -> None:
    """The modules of measures have no float, no division that could make one and no rounding."""
    for module in (measures, pods, targets):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float | complex)), module
            assert not isinstance(node, ast.Div | ast.Pow), module
            assert not (isinstance(node, ast.Name) and node.id in ("float", "round", "Decimal", "math")), module
            assert not (isinstance(node, ast.Attribute) and node.attr == "total_seconds"), module


# Which pods and samples count.


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"terminating": True}, Exclusion.TERMINATING),
        ({"phase": "Pending"}, Exclusion.NOT_RUNNING),
        ({"phase": "Succeeded"}, Exclusion.NOT_RUNNING),
        ({"phase": "Failed"}, Exclusion.NOT_RUNNING),
        ({"ready": False}, Exclusion.NOT_READY),
    ],
)
def test_a_pod_that_does_not_serve_does_not_count(fields: Json, why: Exclusion) -> None:
    """A pod that does not serve is left out with the reason, and where it is the only one there is no ratio."""
    idle = dataclasses.replace(pod("b", None), **fields)
    samples = [*usage("a", "800m"), *usage("b", "8")]
    result = of(CPU, samples, [idle, pod("a")])
    assert isinstance(result, Measured)
    assert (result.ratio, result.left_out) == (ONE, (LeftOut("b", why),))
    alone = missing(CPU, samples, [idle])
    assert (alone.reason, alone.left_out) == (reasons.NO_READY_PODS, (LeftOut("b", why),))


def test_a_pod_without_a_sample_is_left_out() -> None:
    """A pod without a sample is left out, below and above the target, and counts neither as idle nor as full."""
    serving = [pod("a"), pod("b")]
    for used, expected in (("400m", Fraction(1, 2)), ("1600m", Fraction(2))):
        result = of(CPU, usage("a", used), serving)
        assert isinstance(result, Measured)
        assert (result.ratio, result.left_out) == (expected, (LeftOut("b", Exclusion.NO_SAMPLE),))


def test_a_pod_counts_with_all_its_containers() -> None:
    """A pod with a container that has no sample is left out; samples of containers that it does not have are
    ignored."""
    serving = [pod("a", "500m", "500m"), pod("b", "500m", "500m")]
    result = of(CPU, [*usage("a", "600m", "200m", "7"), *usage("b", "5")], serving)
    assert isinstance(result, Measured)
    assert (result.ratio, result.left_out) == (ONE, (LeftOut("b", Exclusion.INCOMPLETE),))
    assert missing(CPU, usage("b", "5"), serving[1:]).reason == reasons.NO_SAMPLE


def test_samples_of_other_pods_are_ignored() -> None:
    """Samples of pods that are not among the workload's are ignored."""
    assert ratio(CPU, [*usage("a", "800m"), *usage("stranger", "9")], [pod("a")]) == 1


def test_without_pods_or_samples_there_is_a_reason() -> None:
    """Without pods the reason is that no pod is ready; with pods but without samples it is that there is no sample."""
    assert missing(QUEUE, [sample("a", 1)]).reason == reasons.NO_READY_PODS
    assert missing(QUEUE, [], [pod("a")]).reason == reasons.NO_SAMPLE
    assert missing(QUEUE, usage("a", 1), [pod("a")]).reason == reasons.NO_SAMPLE
    assert missing(metric("External", "Value", 1)).reason == reasons.NO_SAMPLE


def test_a_container_that_no_pod_has_is_misdeclared() -> None:
    """A pod without the named container is left out, as in a rollout; the metric is misdeclared when no pod has it."""
    spec = metric("ContainerResource", "Utilization", 100)
    old, new = pod("a", "1"), pod("b", "1", "1")
    result = of(spec, [*usage("a", "5"), *usage("b", "5", "1")], [old, new])
    assert isinstance(result, Measured)
    assert (result.ratio, result.left_out) == (ONE, (LeftOut("a", Exclusion.NO_CONTAINER),))
    alone = missing(spec, usage("a", "5"), [old, pod("c", ready=False)])
    assert alone.reason == reasons.MISDECLARED
    assert alone.message == "No ready pod has a container 'c1': containerResource.container must name one."
    assert [item.why for item in alone.left_out] == [Exclusion.NO_CONTAINER, Exclusion.NOT_READY]


def test_several_series_of_one_object_are_ambiguous() -> None:
    """Several series of one pod or object are ambiguous; for External they are added up."""
    twice = [sample("demo", 1), sample("demo", 9)]
    assert missing(QUEUE, twice, [pod("demo")]).reason == reasons.AMBIGUOUS
    assert missing(metric("Object", "Value", 10), twice).reason == reasons.AMBIGUOUS
    assert ratio(metric("External", "Value", 10), twice) == 1
    # Two samples of a pod that does not serve are not ambiguous.
    assert ratio(QUEUE, [*twice, sample("a", 10)], [pod("demo", ready=False), pod("a")]) == 1


@pytest.mark.parametrize("type_", ["Object", "External"])
def test_an_average_over_replicas_needs_a_ready_one(type_: str) -> None:
    """AverageValue of an object or of series needs a ready replica, and Value does not."""
    for ready in (0, -1):
        assert (
            missing(metric(type_, "AverageValue", 1), [sample("demo", 1)], ready=ready).reason == reasons.NO_READY_PODS
        )
        assert ratio(metric(type_, "Value", 1), [sample("demo", 1)], ready=ready) == 1


# Fresh samples.


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "spec", [QUEUE, metric("Object", "Value", 10), metric("External", "Value", 10)], ids=lambda s: s.type
)
@pytest.mark.parametrize(
    ("age", "window", "since", "reason"),
    [
        (MAX_AGE, 0 * SECOND, None, None),
        (MAX_AGE + SECOND, 0 * SECOND, None, reasons.STALE),
        (-MAX_AGE, 0 * SECOND, None, None),
        (-MAX_AGE - SECOND, 0 * SECOND, None, reasons.STALE),
        (10 * SECOND, 0 * SECOND, 11 * SECOND, None),
        (10 * SECOND, 0 * SECOND, 10 * SECOND, reasons.SETTLING),
        (10 * SECOND, 0 * SECOND, 9 * SECOND, reasons.SETTLING),
        (10 * SECOND, 15 * SECOND, 26 * SECOND, None),
        (10 * SECOND, 15 * SECOND, 25 * SECOND, reasons.SETTLING),
        (10 * SECOND, -15 * SECOND, 9 * SECOND, reasons.SETTLING),
        (MAX_AGE + SECOND, 0 * SECOND, 9 * SECOND, reasons.STALE),
    ],
)
def test_a_sample_is_about_the_present_split(
    spec: MetricSpec, age: timedelta, window: timedelta, since: timedelta | None, reason: str | None
) -> None:
    """A sample counts when its window began after the split last changed, and its time is within five minutes of
    now."""
    changed = None if since is None else NOW - since
    samples = [sample("demo", 10, time=NOW - age, window=window)]
    result = of(spec, samples, [pod("demo")], since=changed)
    assert (result.reason if isinstance(result, Missing) else None) == reason


def test_a_sample_is_not_from_before_its_pod_was_ready() -> None:
    """A sample from before its pod was ready does not count; it does where the time is not known."""
    young = pod("demo", ready_since=NOW - timedelta(seconds=20))
    result = missing(CPU, usage("demo", "8"), [young])
    assert (result.reason, result.left_out) == (reasons.SETTLING, (LeftOut("demo", Exclusion.SETTLING),))
    assert ratio(CPU, usage("demo", "8"), [pod("demo", ready_since=NOW - timedelta(seconds=26))]) == 10
    assert ratio(CPU, usage("demo", "8"), [pod("demo", ready_since=None)]) == 10


@pytest.mark.parametrize(
    ("spec", "containers", "samples"),
    [(CPU, ("1",), []), (CPU, ("1", "1"), usage("demo", "8")), (QUEUE, ("1",), [])],
    ids=["no sample", "one of two containers", "Pods"],
)
def test_the_first_sample_of_a_pod_is_awaited(
    spec: MetricSpec, containers: tuple[str, ...], samples: list[Sample]
) -> None:
    """A missing sample of a pod that is ready for at most two minutes is no failure of metrics, as in a rollout."""
    young, old = (pod("demo", *containers, ready_since=NOW - timedelta(seconds=seconds)) for seconds in (120, 121))
    result = missing(spec, samples, [young])
    assert (result.reason, result.is_failure) == (reasons.SETTLING, False)
    assert result.left_out == (LeftOut("demo", Exclusion.YOUNG),)
    assert missing(spec, samples, [old]).reason == reasons.NO_SAMPLE
    assert missing(spec, samples, [young, pod("older", *containers)]).reason == reasons.NO_SAMPLE


def test_the_freshness_of_each_pod_is_its_own() -> None:
    """A pod with an old sample of one container is left out, and the others count."""
    old = NOW - timedelta(hours=1)
    samples = [*usage("a", "800m"), sample("b", 9, "c0"), sample("b", 9, "c1", time=old)]
    result = of(CPU, samples, [pod("a"), pod("b", "1", "1")])
    assert isinstance(result, Measured)
    assert (result.ratio, result.left_out) == (ONE, (LeftOut("b", Exclusion.STALE),))


def test_settling_is_the_reason_where_waiting_helps() -> None:
    """The reason is Settling where one pod's sample is only too early, and Stale where all are old or missing."""
    old, young = NOW - timedelta(hours=1), pod("b", ready_since=NOW)
    samples = [sample("a", 1, time=old), sample("b", 1)]
    assert missing(QUEUE, samples, [pod("a"), young]).reason == reasons.SETTLING
    assert missing(QUEUE, samples, [pod("a"), pod("c")]).reason == reasons.STALE


def test_a_part_of_the_series_is_not_their_sum() -> None:
    """An External metric with one series that does not count has no ratio, rather than one that is too low."""
    spec, old = metric("External", "Value", 10), NOW - timedelta(hours=1)
    assert missing(spec, [sample("a", 9), sample("b", 9, time=old)]).reason == reasons.STALE
    early = [sample("a", 9), sample("b", 9, time=NOW - timedelta(seconds=20))]
    assert missing(spec, early, since=NOW - timedelta(seconds=30)).reason == reasons.SETTLING


# What a measure holds, and its messages.


def test_the_arithmetic_is_kept() -> None:
    """A measure holds every number of its calculation, and the time of the oldest sample."""
    samples = [*usage("b", "600m"), sample("a", "350m", "c0", time=RECENT - SECOND)]
    result = of(CPU, samples, [pod("b", "500m"), pod("a", "500m"), pod("c", ready=False)])
    assert result == Measured(
        counted=(
            Counted("a", parse("350m"), RECENT - SECOND, parse("500m")),
            Counted("b", parse("600m"), RECENT, parse("500m")),
        ),
        left_out=(LeftOut("c", Exclusion.NOT_READY),),
        target=Fraction(4, 5),
        times=Fraction(1),
    )
    assert (result.numerator, result.denominator, result.ratio) == (Fraction(19, 20), Fraction(4, 5), Fraction(19, 16))
    assert result.oldest == RECENT - SECOND
    assert result.arithmetic == "(350m + 600m) / (4/5 × 1) = 19/16"


def test_the_oldest_of_a_pods_samples_is_its_time() -> None:
    """The time of a pod's sum is that of its oldest sample."""
    samples = [sample("a", "1", "c0", time=RECENT - SECOND), sample("a", "1", "c1")]
    result = of(CPU, samples, [pod("a", "1", "1")])
    assert isinstance(result, Measured)
    assert result.oldest == RECENT - SECOND


def test_measures_are_the_same_in_any_order_of_samples() -> None:
    """Series are sorted by name, and a pod's sum has the format of its first container by name."""
    series = [sample("b", 1), sample("a", "2"), sample("a", "1Ki")]
    results = {of(metric("External", "Value", 10), order) for order in permutations(series)}
    assert [item.name for result in results if isinstance(result, Measured) for item in result.counted] == [
        "a",
        "a",
        "b",
    ]
    containers = [sample("a", "2Ki", "c0"), sample("a", "2048", "c1")]
    for order in permutations(containers):
        result = of(metric("Resource", "AverageValue", 1), order, [pod("a", "1", "1")])
        assert isinstance(result, Measured)
        assert str(result.counted[0].value) == "4Ki"


def test_memory_keeps_its_binary_format() -> None:
    """The sum of the memory of a pod's containers is written with a binary suffix."""
    spec = metric("Resource", "AverageValue", "1Gi", name="memory")
    result = of(spec, usage("a", "1Gi", "512Mi"), [pod("a", None, None)])
    assert isinstance(result, Measured)
    assert result.arithmetic == "(1536Mi) / (1073741824 × 1) = 3/2"


def test_messages_are_sentences_that_stay_the_same() -> None:
    """The message of each reason is a sentence without a pod's name or a number that changes, as status needs it."""
    young = pod("demo-7f9c", ready_since=NOW)
    result = [
        missing(CPU, usage("demo-7f9c", "1"), [young]),
        missing(CPU, [], [pod("demo-7f9c")]),
        missing(CPU, [], [pod("demo-7f9c", None)]),
        missing(CPU),
        missing(QUEUE, [sample("demo-7f9c", 1)] * 2, [young]),
        missing(metric("External", "Value", 1), [sample("x", 5, time=NOW - timedelta(days=1))]),
    ]
    for item in result:
        assert re.fullmatch(r"[A-Z].*[^.]\.", item.message), item
        assert "demo-7f9c" not in item.message
    assert len({item.message for item in result}) == len(result)


def test_the_page_repeats_the_table() -> None:
    """The reference page has every combination with its sentences, and every difference from the autoscaler."""
    for (type_, target), formula in TABLE.items():
        sentence = " ".join((formula.__doc__ or "").split())
        assert f"| {type_} | {target} | {targets.MEASURED[type_]} | {sentence} |" in PAGE
    for item in measures.DIFFERENCES:
        assert f"| {item.autoscaler} | {item.here} | {item.why} |" in PAGE
    assert PAGE.count("| Resource | ") == 2


def test_the_page_names_the_age_that_is_used() -> None:
    """The reference page names the largest age of a sample, five minutes."""
    assert timedelta(minutes=5) == MAX_AGE
    assert "five minutes" in PAGE


# Properties.


amounts = st.builds(Quantity, st.integers(-(2**70), 2**70), st.sampled_from(Format))
positive = st.integers(1, 2**63).map(Quantity)


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of a measure."""

    type: MetricType
    target: TargetType
    amount: int
    """Amount of the target, in percent for Utilization and else in billionths."""
    pods: tuple[Pod, ...]
    samples: tuple[Sample, ...]
    ready: int

    def measure(self) -> Measured | Missing:
        """Return the measure."""
        return of(self.spec(self.amount), self.samples, self.pods, self.ready)

    def spec(self, amount: int) -> MetricSpec:
        """Return the metric with this amount as its target."""
        is_share = self.target is TargetType.UTILIZATION
        return metric(self.type, self.target, amount if is_share else f"{amount}n")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a well declared metric over up to four pods, most of which serve and have samples."""
    type_, target = draw(st.sampled_from(list(TABLE)))
    serving, samples = [], []
    for name in draw(st.lists(st.sampled_from(MANY), unique=True, max_size=4)):
        requests = draw(st.lists(positive, min_size=1, max_size=3))
        containers = tuple(Container(f"c{number}", {"cpu": amount}) for number, amount in enumerate(requests))
        ready = draw(st.sampled_from([True, True, True, False]))
        since = draw(st.sampled_from([None, READY_SINCE, NOW - timedelta(seconds=30)]))
        serving.append(Pod(name, "Running", ready, since, False, containers, {}))
        for owner in ["", *(item.name for item in containers)]:
            if draw(st.integers(0, 9)):
                time = draw(st.sampled_from([RECENT, RECENT, NOW, NOW - timedelta(hours=1)]))
                samples.append(Sample(name, draw(amounts), time, WINDOW, owner))
    if type_ is MetricType.OBJECT:
        samples.append(Sample("demo", draw(amounts), RECENT))
    if type_ is MetricType.EXTERNAL:
        samples = [Sample(name, draw(amounts), RECENT) for name in draw(st.lists(st.sampled_from(MANY), max_size=4))]
    amount = draw(st.integers(1, 1000) if target is TargetType.UTILIZATION else st.integers(1, 2**62))
    return Case(type_, target, amount, tuple(serving), tuple(samples), draw(st.integers(0, 5)))


@given(cases(), st.data())
def test_more_of_any_sample_is_never_a_lower_ratio(case: Case, data: st.DataObject) -> None:
    """A higher sample never gives a lower ratio, and whether there is a ratio does not depend on values."""
    before = case.measure()
    raised = list(case.samples)
    if raised:
        number = data.draw(st.integers(0, len(raised) - 1))
        more = data.draw(st.integers(1, 2**70))
        value = raised[number].value
        raised[number] = dataclasses.replace(raised[number], value=Quantity(value.nanos + more, value.format))
    after = dataclasses.replace(case, samples=tuple(raised)).measure()
    if isinstance(before, Missing):
        assert after == before
    else:
        assert isinstance(after, Measured)
        assert after.ratio >= before.ratio
        # The ratio grows only with the sum of what counts.
        assert (after.ratio == before.ratio) == (after.numerator == before.numerator)


@given(cases(), st.data())
def test_the_order_of_pods_and_samples_does_not_matter(case: Case, data: st.DataObject) -> None:
    """The whole measure, not only its ratio, is the same in any order of pods and samples."""
    shuffled = dataclasses.replace(
        case,
        pods=tuple(data.draw(st.permutations(case.pods))),
        samples=tuple(data.draw(st.permutations(case.samples))),
    )
    assert shuffled.measure() == case.measure()


@given(cases(), st.integers(1, 1000))
def test_scaling_values_and_target_alike_changes_nothing(case: Case, factor: int) -> None:
    """The ratio stays the same when all values and the target are multiplied by one factor."""
    before = case.measure()
    samples = tuple(
        dataclasses.replace(item, value=Quantity(item.value.nanos * factor, item.value.format)) for item in case.samples
    )
    after = dataclasses.replace(case, samples=samples, amount=case.amount * factor).measure()
    if isinstance(before, Missing):
        assert after == before
    else:
        assert isinstance(after, Measured)
        assert after.ratio == before.ratio


idle = st.sampled_from(
    [{"ready": False}, {"terminating": True}, {"phase": "Pending"}, {"phase": "Failed"}, {"phase": "Unknown"}]
)


@given(cases(), idle, st.lists(st.one_of(st.none(), st.just("1")), min_size=1, max_size=2), amounts, st.booleans())
def test_a_pod_that_does_not_serve_changes_nothing(
    case: Case, fields: Json, requests: list[str | None], value: Quantity, measured: bool
) -> None:
    """A pod that does not serve changes nothing but the list of what is left out, whatever its requests and samples."""
    if case.type is MetricType.EXTERNAL:
        measured = False  # a series more is no pod more
    added = pod("zz", *requests, **fields)
    samples = [Sample("zz", value, RECENT, WINDOW, owner) for owner in ("", "c0", "c1")] if measured else []
    before = case.measure()
    after = dataclasses.replace(case, pods=(added, *case.pods), samples=(*samples, *case.samples)).measure()
    assert type(after) is type(before)
    if isinstance(before, Measured) and isinstance(after, Measured):
        assert (after.counted, after.target, after.times) == (before.counted, before.target, before.times)
    if isinstance(before, Missing) and isinstance(after, Missing):
        assert (after.reason, after.message) == (before.reason, before.message)
    assert [item for item in after.left_out if item.name != "zz"] == list(before.left_out)


@given(cases())
def test_numbers_are_whole_or_fractions_of_two(case: Case) -> None:
    """The numbers of a measure are fractions and integers, and the ratio is the sum of what counts over the
    denominator."""
    result = case.measure()
    if isinstance(result, Measured):
        numbers = [result.numerator, result.denominator, result.ratio, result.target, result.times]
        assert {type(number) for number in numbers} == {Fraction}
        assert {type(item.value.nanos) for item in result.counted} | {
            type(item.requested.nanos) for item in result.counted
        } == {int}
        assert result.ratio * result.denominator * NANO == sum(item.value.nanos for item in result.counted)


texts = st.text(max_size=6) | st.sampled_from(
    ["cpu", "memory", "c0", "demo", "1", "-1", "0", "1Gi", "Utilization", "Value"]
)
moments = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [RECENT, NOW, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
any_target = st.fixed_dictionaries(
    {"type": texts | st.sampled_from(TargetType)},
    optional={
        "value": texts | st.integers(),
        "averageValue": texts | st.integers(),
        "averageUtilization": st.integers(0, 2**31 - 1),
    },
)
any_metric = st.fixed_dictionaries(
    {"type": st.sampled_from(MetricType)},
    optional={
        "resource": st.fixed_dictionaries({"name": texts, "target": any_target}),
        "containerResource": st.fixed_dictionaries({"name": texts, "container": texts, "target": any_target}),
        "pods": st.fixed_dictionaries({"metric": st.fixed_dictionaries({"name": texts}), "target": any_target}),
        "object": st.fixed_dictionaries(
            {
                "describedObject": st.fixed_dictionaries({"kind": texts, "name": texts}),
                "metric": st.fixed_dictionaries({"name": texts}),
                "target": any_target,
            }
        ),
        "external": st.fixed_dictionaries({"metric": st.fixed_dictionaries({"name": texts}), "target": any_target}),
    },
)
any_requests = st.dictionaries(texts, amounts, max_size=2)
any_pod = st.builds(
    Pod,
    texts,
    texts | st.just("Running"),
    st.booleans(),
    st.none() | moments,
    st.booleans(),
    st.lists(st.builds(Container, texts, any_requests), max_size=2).map(tuple),
    any_requests,
)
any_sample = st.builds(Sample, texts, amounts, moments, st.timedeltas(), texts)


@given(
    any_metric.map(MetricSpec.model_validate),
    st.lists(any_sample, max_size=4),
    st.lists(any_pod, max_size=4),
    st.integers(),
    moments,
    st.none() | moments,
)
def test_there_is_always_a_ratio_or_a_reason(
    spec: MetricSpec, samples: list[Sample], serving: list[Pod], ready: int, now: datetime, since: datetime | None
) -> None:
    """For any declaration and observation a measure is a ratio or a known reason with a message, never an exception."""
    result = measure(spec, samples, serving, ready_replicas=ready, now=now, since=since)
    if isinstance(result, Measured):
        assert result.denominator > 0
        assert isinstance(result.ratio, Fraction)
    else:
        assert result.reason in KNOWN
        assert result.message.endswith(".")


KNOWN = {
    reasons.NO_SAMPLE,
    reasons.SETTLING,
    reasons.STALE,
    reasons.NO_REQUESTS,
    reasons.NO_READY_PODS,
    reasons.AMBIGUOUS,
    reasons.MISDECLARED,
}
