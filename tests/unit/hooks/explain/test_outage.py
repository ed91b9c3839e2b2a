"""What would happen to a model without its local replicas."""

from typing import Any

import pytest

from hooks import reasons
from hooks.errors import NotAccepted
from hooks.explain.outage import Check, Outage, State, as_document, as_lines, outage
from hooks.observation.drills import Drill, Reading
from tests.builders import NOW, Json, model_deployment, obeys, observation, override, workload

PROVEN = Drill(reasons.PROVEN, "", 0)
CONNECTED = Drill(reasons.PROVEN, "", 0, request="none")
SERVED = Drill(reasons.PROVEN, "", 0, NOW, served=NOW, request="none")
TRAFFIC = Drill(reasons.PROVEN, "", 0, by_traffic=True)
REFUSED = Drill(reasons.TOKEN_REFUSED, "Correct the client secret.", 3)
UNLISTED = Drill(reasons.MODEL_UNKNOWN, "It lists no model llama.", 1)
SECRET = {"authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": "key"}}}}


def without(*drills: Drill, remote: Json | None = None, behavior: Json | None = None, **spec: Any) -> Outage:
    """Return the outage of a model of which gateways found this."""
    config = {"remoteBackend": {"host": "models.example.com", "scheme": "https"} | (remote or {})}
    fields: Json = {"offloadingConfig": config | {"behavior": behavior or {}}} | spec
    readings = (Reading(NOW, drills),) * 2
    return outage(observation(model_deployment(**fields), related=[workload()], drills=readings), now=NOW)


def check(found: Outage, name: str) -> Check:
    """Return a check by its name."""
    (one,) = [one for one in found.checks if one.name == name]
    return one


def test_a_remote_backend_that_serves() -> None:
    """With a proven remote backend all requests would go there and be served."""
    found = without(TRAFFIC, remote=SECRET)
    assert (found.state, found.split.percentage) == (State.GOOD, 100)
    assert [one.name for one in found.checks] == ["split", "policy", "remote backend", "credentials", "model name"]
    assert check(found, "model name").message.endswith("which has served a request for it.")
    lines = list(as_lines(found))
    assert lines[0] == "team-a/demo: if no local replica were left now, requests would be served by the remote backend."
    assert lines[1] == "    ok  split: All requests go to the remote backend."
    assert as_document(found)["checks"][3]["state"] == "good"


@pytest.mark.parametrize(
    ("drills", "state", "credentials"),
    [
        ((REFUSED,), State.BAD, State.BAD),
        ((REFUSED, PROVEN), State.WARNS, State.WARNS),
        ((UNLISTED,), State.WARNS, State.GOOD),
        ((CONNECTED,), State.UNKNOWN, State.UNKNOWN),
        ((CONNECTED, SERVED), State.GOOD, State.GOOD),
        ((), State.UNKNOWN, State.UNKNOWN),
        ((Drill(reasons.CONNECT_FAILED, "", 1),), State.BAD, State.UNKNOWN),
    ],
)
def test_what_drills_found(drills: tuple[Drill, ...], state: State, credentials: State) -> None:
    """What gateways found decides whether requests would be served, and what is known of the credentials."""
    found = without(*drills, remote=SECRET)
    assert (found.state, check(found, "credentials").state) == (state, credentials)


def test_without_credentials() -> None:
    """A remote backend without credentials needs none."""
    assert check(without(), "credentials").message == "The remote backend is configured without any."


@pytest.mark.parametrize(
    ("spec", "state"),
    [
        ({"policies": obeys("eu")}, State.BAD),
        ({"enabled": False}, State.BAD),
        ({"offloadingConfig": None}, State.BAD),
        ({"offloadingConfig": override(0, "Force")}, State.BAD),
        ({"offloadingConfig": override(30, "Force")}, State.WARNS),
        ({"offloadingConfig": override(30)}, State.GOOD),
    ],
)
def test_the_split_that_would_follow(spec: Json, state: State) -> None:
    """Where the rules send requests nowhere all fail, and an override of mode Force may leave some to failover."""
    found = without(PROVEN, **spec)
    assert check(found, "split").state is state
    assert (found.state is State.BAD) == (state is State.BAD)


def test_a_wait() -> None:
    """Until notReadyForSeconds have passed requests fail."""
    found = without(PROVEN, behavior={"notReadyForSeconds": 40})
    assert (found.state, found.after.seconds, found.split.percentage) == (State.WARNS, 40, 100)
    assert as_document(found)["split"]["afterSeconds"] == 40


def test_requests_that_never_leave() -> None:
    """Requests that never leave the cluster are named."""
    rule = {"header": "X-Data-Class", "values": ["restricted", "secret"], "missing": "local"}
    message = check(without(PROVEN, gateway={"localOnly": rule}), "local only").message
    assert message.startswith("Requests with X-Data-Class: restricted, secret or without it never leave the cluster")


def test_a_specification_that_is_not_accepted() -> None:
    """What is not accepted has no outage."""
    with pytest.raises(NotAccepted):
        without(serviceRef={"name": "x", "namespace": "team-b"})
