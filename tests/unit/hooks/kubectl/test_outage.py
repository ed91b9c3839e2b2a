"""`kubectl beamlit drill`: what it reads from a cluster, what it sends, and what it waits for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hooks.api.common import format_time
from hooks.explain.outage import State
from hooks.kubectl import outage
from hooks.kubectl.cluster import failure
from hooks.kubectl.outage import Drill, callers, denied_callers, first_token, look
from tests import builders
from tests.builders import NAMESPACE
from tests.unit.hooks.kubectl.test_live import DEPLOYMENT, NAMESPACES, SETTINGS, Recorded, forbidden, gateway

SYSTEM = "beamlit-system"
PODS = f"{NAMESPACES}/{SYSTEM}/pods"
ROUTE = f"{NAMESPACE}/demo"
DRILLS = f"{PODS}/g1:8081/proxy/drills"
DECISIONS = f"{PODS}/g1:8081/proxy/decisions"
CHAT = f"{PODS}/g1:8080/proxy/{NAMESPACE}/demo/v1/chat/completions"
MODEL = f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/demo"
RULES = """
callers:
  nightly: {burst: deny}
  other-model: {burst: deny, models: [team-b/other]}
  this-model: {burst: deny, models: [team-a/demo]}
  free: {maxInFlight: 3}
"""


def recorded(**found: Any) -> Recorded:
    """Return a cluster with a gateway that has proven the remote backend of the model."""
    pod = gateway("g1")
    pod["spec"]["volumes"] = [{"name": "tmp"}, {"name": "access-rules", "configMap": {"name": "rules"}}]
    entry = {"namespace": NAMESPACE, "name": "demo", "reason": "Proven", "by": "traffic"}
    return Recorded(
        {
            DEPLOYMENT: builders.workload(),
            PODS: {"items": [pod]},
            DRILLS: {"gateway": "g1", "drills": [entry]},
            DECISIONS: {"decisions": []},
            f"{NAMESPACES}/{SYSTEM}/configmaps/rules": {"data": {"callers.yaml": RULES}},
            **found,
        }
    )


def served(ago: float = 60, **fields: Any) -> dict[str, Any]:
    """Return a request that the remote backend served so many seconds ago."""
    return {"time": datetime.now(UTC).timestamp() - ago, "backend": "remote", "status": 200} | fields


async def test_a_model_without_its_replicas() -> None:
    """What gateways found, who may not burst, and the time to the first token are read from the cluster."""
    last = [served(first_event_seconds=0.41, first_byte_seconds=0.1), served(90, first_event_seconds=9.0)]
    said: list[str] = []
    found = await look(
        recorded(**{DECISIONS: {"decisions": last}}), builders.model_deployment(), SETTINGS, SYSTEM, said.append
    )
    checks = {check.name: check for check in found.checks}
    assert checks["remote backend"].state is State.GOOD
    assert checks["callers"].message.endswith("(burst: deny): nightly, this-model.")
    assert checks["first token"].message.startswith("0.410 s to the first event of its stream, for the last request")
    assert found.state is State.WARNS


async def test_rights_that_are_missing() -> None:
    """A right that is missing is named where it is missed, and the rest is said nevertheless."""
    denied = forbidden("get", "pods/proxy")
    cluster = recorded(**{DRILLS: denied, DECISIONS: denied, f"{NAMESPACES}/{SYSTEM}/configmaps/rules": denied})
    found = await look(cluster, builders.model_deployment(), SETTINGS, SYSTEM, print)
    checks = {check.name: check for check in found.checks}
    assert found.state is State.UNKNOWN
    for name in ("remote backend", "callers", "first token"):
        assert "kubectl auth can-i get pods --subresource=proxy" in checks[name].message


async def test_without_rules_and_requests() -> None:
    """Without rules for callers there is no check of them, and without a request nothing is said of its time."""
    cluster = recorded(**{PODS: {"items": [gateway("g1")]}})
    assert await callers(cluster, SYSTEM, ROUTE) is None
    check = await first_token(cluster, SYSTEM, ROUTE)
    assert (check.state, "--for 2m" in check.message) == (State.NOTE, True)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RULES, ["nightly", "this-model"]),
        ("", []),
        ("callers: {}", []),
        ("[", None),
        ("- a", None),
        ("callers: {odd: 5, more: {burst: deny, models: 7}}", ["more"]),
    ],
)
def test_callers_that_may_not_burst(rules: str, expected: list[str] | None) -> None:
    """Callers with `burst: deny` that may use the model may not burst."""
    assert denied_callers(rules, ROUTE) == expected


def drill(cluster: Recorded, percentage: int = 20, seconds: float = 120) -> Drill:
    """Return a drill that has begun."""
    return Drill(cluster, SYSTEM, NAMESPACE, "demo", percentage, datetime.now(UTC) + timedelta(seconds=seconds))


async def test_a_request_of_the_drill() -> None:
    """Requests of one token are sent until one has gone to the remote backend."""
    cluster = recorded(**{CHAT: b"data: [DONE]", DECISIONS: {"decisions": [served(0, first_event_seconds=0.25)]}})
    check = await drill(cluster).probe()
    assert (check.state, check.message) == (
        State.GOOD,
        "0.250 s to the first event of its stream, for a request of this drill.",
    )
    assert len(cluster.sent) == 1
    assert b'"max_tokens":1' in cluster.sent[0]


@pytest.mark.parametrize(("percentage", "sent"), [(20, 10), (1, outage.PROBES), (100, 2)])
async def test_requests_are_bounded(percentage: int, sent: int) -> None:
    """Where no request goes to the remote backend, the drill sends no more than twice as many as should."""
    old = {"decisions": [served(60, first_byte_seconds=1.0), served(0, status=503), served(0, backend="local")]}
    cluster = recorded(**{CHAT: b"ok", DECISIONS: old})
    check = await drill(cluster, percentage).probe()
    assert (check.state, len(cluster.sent)) == (State.NOTE, sent)


async def test_requests_that_are_refused() -> None:
    """A gateway that refuses the requests gets one, and a missing right is named."""
    refused = failure("Error from server (Unauthorized): the gateway wants an API key")
    cluster = recorded(**{CHAT: refused, DECISIONS: {"decisions": [{"time": 1.0, "status": 401}]}})
    check = await drill(cluster).probe()
    assert (check.state, len(cluster.sent)) == (State.WARNS, 1)
    assert "the gateway wants an API key" in check.message
    cluster = recorded(**{CHAT: forbidden("create", "pods/proxy")})
    assert "kubectl auth can-i create pods --subresource=proxy" in (await drill(cluster).probe()).message


async def test_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is that which hooks wrote for this drill; without one in time there is none."""
    begun = drill(recorded(), seconds=0)
    record = {"until": format_time(begun.until), "outcome": "Passed", "message": "It has."}
    model = builders.model_deployment(status={"offloading": {"drill": record}})
    done = Drill(recorded(**{MODEL: model}), SYSTEM, NAMESPACE, "demo", 20, begun.until)
    assert await done.outcome(pause=0) == record
    monkeypatch.setattr(outage, "GRACE", timedelta(seconds=0.05))
    for other in ({"outcome": "Running"}, {"until": "2026-03-01T12:00:00Z"}):
        model = builders.model_deployment(status={"offloading": {"drill": record | other}})
        late = Drill(recorded(**{MODEL: model}), SYSTEM, NAMESPACE, "demo", 20, begun.until)
        assert await late.outcome(pause=0) is None
