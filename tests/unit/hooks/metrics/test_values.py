"""Responses of the metrics APIs of Kubernetes as samples."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hooks.kube.quantities import parse
from hooks.metrics import kinds, values
from hooks.observation.readings import Sample
from tests.builders import Json
from tests.metric_responses import custom_value, group, usage

TIME = datetime(2026, 3, 1, 11, 59, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("15.5s", timedelta(seconds=15.5)),
        ("1h2m3s", timedelta(hours=1, minutes=2, seconds=3)),
        ("10.085s", timedelta(milliseconds=10085)),
        ("500ms", timedelta(milliseconds=500)),
        (".5s", timedelta(milliseconds=500)),
        ("20µs", timedelta(microseconds=20)),
        ("20us", timedelta(microseconds=20)),
        ("1999ns", timedelta(microseconds=1)),
        ("0s", timedelta(0)),
        ("", timedelta(0)),
        ("soon", timedelta(0)),
        ("5", timedelta(0)),
        ("-5s", timedelta(0)),
    ],
)
def test_durations_as_go_writes_them(written: str, expected: timedelta) -> None:
    """A duration is read as Go writes it; any other text counts as zero."""
    assert values.duration(written) == expected


def test_usage_of_containers() -> None:
    """Usage of cpu and of memory are separate samples; one without a time or an amount is left out."""
    nameless: Json = {"timestamp": "2026-03-01T11:59:50Z", "window": "30s", "containers": [{"usage": {"cpu": 1}}]}
    odd = usage("odd", cpu="much", memory="1Mi")
    cpu, memory = values.pod_usage([usage("a"), usage("late", time="now"), nameless, odd, {}])
    window = timedelta(seconds=15.5)
    assert cpu == (
        Sample("a", parse("250m"), TIME, window, "server"),
        Sample("", parse("1"), TIME, timedelta(seconds=30), ""),
    )
    assert memory == tuple(
        Sample(of, parse(amount), TIME, window, "server") for of, amount in (("a", "64Mi"), ("odd", "1Mi"))
    )


@pytest.mark.parametrize("window", [None, True, "30", 30.5])
def test_a_window_that_is_no_number_is_a_minute(window: Any) -> None:
    """A window that is absent or no number counts as a minute, as for the autoscaler of Kubernetes."""
    (sample,) = values.of_objects({"items": [custom_value("a", "1") | {"windowSeconds": window}]})
    assert sample.window == timedelta(seconds=60)


@pytest.mark.parametrize("response", [{}, {"items": None}, {"items": [None, 1, {"value": True}]}, {"items": {}}])
def test_responses_without_samples(response: Json) -> None:
    """A response without well-formed items gives no samples and no error."""
    assert values.of_objects(response) == values.of_series(response) == ()


def test_kinds() -> None:
    """The kinds of an API version are read without subresources; of several resources of a kind the first counts."""
    listed = [
        {"name": "x/status", "kind": "X"},
        {"name": "xs", "kind": "X", "namespaced": True},
        {"name": "xs2", "kind": "X"},
        {"kind": "Y"},
    ]
    assert kinds.kinds("g.example.com/v1", {"resources": listed}) == {"X": kinds.Kind("xs.g.example.com", True)}
    assert kinds.kinds("v1", {"resources": [{"name": "nodes", "kind": "Node"}]}) == {"Node": kinds.Kind("nodes", False)}
    assert kinds.discovery_path("v1") == "/api/v1"
    assert kinds.discovery_path("apps/v1") == "/apis/apps/v1"


@pytest.mark.parametrize(("value", "expected"), [("v1", True), ("apps/v1", True), ("a.b-c/v1beta1", True), ("", False)])
def test_api_versions(value: str, expected: bool) -> None:
    """An API version that can be part of a path is accepted."""
    assert kinds.is_api_version(value) is expected


@pytest.mark.parametrize("value", ["../v1", "a//v1", "/v1", "v1/", "a/b/v1", "v1?x", "v1%2f", "V1", "a /v1", "v1\n"])
def test_what_is_no_api_version(value: str) -> None:
    """An API version that would lead to another path is refused."""
    assert not kinds.is_api_version(value)


def test_versions_that_are_served() -> None:
    """The version to use is one that the group serves, and None where the group lists none."""
    assert kinds.served_version({}, ("v1",)) is None
    assert kinds.served_version(group("v2", "v1"), ("v1",)) == "v1"
