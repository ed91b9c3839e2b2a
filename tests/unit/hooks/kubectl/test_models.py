"""What `kubectl beamlit` shows of ModelDeployments and requests, and the patches it makes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.api.model_deployment import ModelDeployment
from hooks.kubectl import models
from hooks.kubectl.models import Model
from tests import builders

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def item(name: str = "demo", *, override: dict[str, Any] | None = None, ready: str = "True") -> dict[str, Any]:
    """Return a ModelDeployment with a status, and with an override where one is given."""
    status = {
        "conditions": [
            {"type": "Accepted", "status": "True"},
            {"type": "Ready", "status": ready, "message": "It is as it should be."},
        ],
        "offloading": {
            "percentage": 25,
            "reason": "MetricReached",
            "message": "A metric is at its target.",
            "since": "2026-03-01T11:00:00Z",
        },
    }
    found = builders.model_deployment(name=name, status=status)
    if override is not None:
        found["spec"] = {**found["spec"], "offloadingConfig": {"behavior": {"override": override}}}
    return found


def test_the_status_of_models() -> None:
    """The table has a line for each model, and below it what is wrong with one."""
    override = {"percentage": 30, "until": "2026-03-01T12:10:00Z"}
    ended = {"percentage": 30, "until": "2026-03-01T12:00:00Z"}
    found = [item(override=override), item("b", ready="False"), item("ended", override=ended)]
    found[0]["status"]["conditions"].append({"type": "OffloadReady", "status": "True", "reason": "Proven"})
    new = {"metadata": {"namespace": "default", "name": "new"}}
    table = models.status_table([Model.of(one, NOW) for one in (*found, new)], NOW, namespaces=False)
    assert table.splitlines() == [
        "NAME    READY   REMOTE   REASON          SINCE   OVERRIDE          OFFLOADREADY",
        "demo    True    25 %     MetricReached   1 h     30 % for 10 min   True",
        "b       False   25 %     MetricReached   1 h     -                 -",
        "ended   True    25 %     MetricReached   1 h     -                 -",
        "new     -       -        -               -       -                 -",
        "",
        "team-a/b: It is as it should be.",
    ]
    table = models.status_table([Model.of(new, NOW)], NOW, namespaces=True)
    assert table.splitlines()[0].split()[:2] == ["NAMESPACE", "NAME"]


def test_the_status_of_a_remote_backend() -> None:
    """What is wrong with a remote backend stands below the table once, and a model without one has nothing wrong."""
    failing = {"type": "OffloadReady", "status": "False", "reason": "TokenRefused", "message": "Correct the secret."}
    found = [item("a"), item("b", ready="False"), item("c")]
    found[0]["status"]["conditions"].append(failing)
    found[1]["status"]["conditions"].append(failing | {"message": "It is as it should be."})
    found[2]["status"]["conditions"].append(failing | {"reason": "MetricReached"})
    lines = models.status_table([Model.of(one, NOW) for one in found], NOW, namespaces=False).splitlines()
    assert lines[-2:] == ["team-a/a: Correct the secret.", "team-a/b: It is as it should be."]
    shown = Model.of(found[0], NOW).as_json()
    assert (shown["offloadReady"], shown["remoteProblem"]) == ("False", "Correct the secret.")


def test_the_status_as_json() -> None:
    """The JSON of a model has everything that the table has, and null for what is not known."""
    override = {"percentage": 30, "until": "2026-03-01T13:10:00+01:00", "mode": "Force"}
    assert Model.of(item(override=override), NOW).as_json() == {
        "namespace": "team-a",
        "name": "demo",
        "ready": "True",
        "percentage": 25,
        "reason": "MetricReached",
        "message": "A metric is at its target.",
        "since": "2026-03-01T11:00:00Z",
        "override": {"percentage": 30, "until": "2026-03-01T12:10:00Z", "mode": "Force"},
        "problem": None,
        "offloadReady": None,
        "remoteProblem": None,
    }
    assert set(Model.of({"metadata": {}, "status": "odd"}, NOW).as_json().values()) == {"", None}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("10m", 600), ("2h30m", 9000), ("3d", 259200), ("1d1h1m1s", 90061), ("366d", 31622400)],
)
def test_a_length_of_time(written: str, seconds: int) -> None:
    """A length of time is a number with a unit, or several from the largest unit to the smallest."""
    assert models.duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "10", "m", "0m", "30m2h", "1.5h", "-5m", "367d", "99999h", " 5m", "5 m", "٣m"])
def test_what_is_no_length_of_time(written: str) -> None:
    """Anything else, nothing and more than a year are refused in words that show the form."""
    with pytest.raises(ValueError, match=r"^is not a time (such as 90s, 10m|between one second and 366 days)"):
        models.duration(written)


@given(st.integers(0, 100), st.integers(1, 31_622_400), st.sampled_from(["Normal", "Force", "Drill"]))
def test_an_override_is_accepted_and_ends(percentage: int, seconds: int, mode: str) -> None:
    """What the patch makes of a model is accepted by the API, and the override lasts as long as it should."""
    until = NOW + timedelta(seconds=seconds)
    patch = models.override_patch(percentage, until, mode)
    patched = builders.model_deployment()
    patched["spec"] = {**patched["spec"], **patch["spec"]}
    configured = ModelDeployment.read(patched).spec.offloading_config
    assert configured is not None
    override = configured.behavior.override
    assert override is not None
    assert (override.percentage, override.until, override.mode) == (percentage, until, mode)
    assert models.override_of(patched, NOW) == models.Override(percentage, until, mode)
    assert models.override_of(patched, until) is None
    assert models.has_override(patched)
    assert not models.has_override(builders.model_deployment())


def test_what_is_said_of_an_override() -> None:
    """The sentence about a new override has its share, its end and how long that is."""
    until = NOW + timedelta(minutes=10)
    words = "30 % of the requests go to the remote backend until 2026-03-01T12:10:00Z (10 min)"
    assert models.announced(30, until, timedelta(minutes=10), force=False) == f"{words}."
    forced = models.announced(30, until, timedelta(minutes=10), force=True)
    assert forced == f"{words}, also while no local replica is ready."


def test_requests_as_a_table() -> None:
    """A request is a line whose columns stand below those of lines that were printed before."""
    one = {
        "time": 1772366400.25,
        "request_id": "abc",
        "status": 200,
        "backend": "local",
        "pod": "demo-1",
        "reason": "Split",
        "seconds": 1.5,
        "first_byte_seconds": None,
        "attempts": [{}, {}],
        "code": None,
    }
    head, line = models.decision_table([one], head=True).splitlines()
    assert line.split("  ")[0] == "12:00:00.250Z"
    assert [line[head.index(name) :].split("   ")[0] for name in ("STATUS", "BACKEND", "POD", "WHOLE", "ATTEMPTS")] == [
        "200",
        "local",
        "demo-1",
        "1.500 s",
        "2",
    ]
    assert models.decision_table([one], head=False) == f"{line}\n"
    assert models.decision_table([{"time": "odd", "attempts": 1}], head=False).split() == ["-"] * 10


def test_a_table_has_no_control_characters() -> None:
    """What a client chose, such as the id of a request, cannot move the cursor of a terminal."""
    line = models.decision_table([{"request_id": "a\x1b[2J\nb"}], head=False)
    assert line.endswith("a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b\n")
