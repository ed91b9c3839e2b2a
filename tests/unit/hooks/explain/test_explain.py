"""Output of explain: the rule that decided, why others did not, and what would change the split."""

import copy
import dataclasses
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import reasons
from hooks.explain import Explanation, explain
from hooks.explain.document import as_document
from hooks.explain.metrics import span
from hooks.explain.outlook import Turn
from hooks.explain.rule_verdicts import _WHY_NOT, Verdict
from hooks.explain.text import as_text, percent
from hooks.kube.pods import Pod
from hooks.kube.quantities import Quantity, parse
from hooks.observation.drills import Drill
from hooks.observation.readings import Reading, Readings, Unread
from hooks.offloading.rules import RULES
from hooks.protocol import SyncResponse
from tests import builders
from tests.builders import DEFAULTS, NOW, Cluster, Json, external, model_deployment, obeys, readings, workload

GONE = Unread(reasons.UNREACHABLE, "The source does not respond: start it.")


def watched(*values: str | Unread, ready: int = 1, enabled: bool = True, **behavior: Any) -> Cluster:
    """Return a cluster whose ModelDeployment has one metric for each value, each with a target of 100."""
    spec = {
        "remoteBackend": builders.REMOTE,
        "metrics": [external(f"queue-{number}") for number in range(len(values))],
        "behavior": {"triggerWindowSeconds": 30, "releaseWindowSeconds": 60, **behavior},
    }
    cluster = Cluster(model_deployment(offloadingConfig=spec, enabled=enabled), related=[workload(ready=ready)])
    cluster.values = values
    return cluster


def offloaded(*values: str, **behavior: Any) -> Cluster:
    """Return the same cluster offloaded by its first metric, with values of a second later that no sync has read."""
    cluster = watched("100", *values[1:], **behavior)
    cluster.sync()
    cluster.after(30)
    cluster.now += timedelta(seconds=1)
    cluster.values = values
    return cluster


def explained(cluster: Cluster) -> Explanation:
    """Return the explanation of the next sync."""
    observation = builders.observation(
        cluster.parent,
        readings=None if cluster.values is None else readings(*cluster.values, now=cluster.now),
        drills=cluster.drills,
        children=cluster.children,
        related=cluster.related,
        defaults=cluster.defaults,
    )
    return explain(observation, now=cluster.now)


def split(response: SyncResponse) -> tuple[int, str]:
    """Return percentage and reason of a response."""
    return response.status["offloading"]["percentage"], response.status["offloading"]["reason"]


def then(turn: Turn) -> tuple[int, str]:
    """Return percentage and reason after a turn."""
    return turn.then.percentage, turn.then.reason


def verdicts(explanation: Explanation) -> dict[str, str]:
    """Return why each rule that did not decide did not, by the name of the rule."""
    return {rule.name: rule.why for rule in explanation.rules if rule.verdict is Verdict.NO}


def turn(explanation: Explanation, when: str) -> Turn:
    """Return the only turn with this clause."""
    (change,) = [one for one in explanation.turns if one.when == when]
    return change


def test_every_rule_has_a_no() -> None:
    """Every rule but the last has a function that says why it did not decide."""
    assert list(_WHY_NOT) == [rule.__name__ for rule in RULES[:-1]]


def test_the_rules_in_order() -> None:
    """Each rule before the one that decided says why it did not; those after it were not asked."""
    explanation = explained(watched("50"))
    assert [rule.name for rule in explanation.rules] == [rule.__name__.replace("_", " ") for rule in RULES]
    assert [rule.verdict for rule in explanation.rules] == [Verdict.NO] * (len(RULES) - 1) + [Verdict.ANSWERED]
    assert all(rule.why for rule in explanation.rules[:-1])
    early = explained(watched("50", enabled=False))
    assert [rule.verdict for rule in early.rules] == [Verdict.ANSWERED] + [Verdict.NOT_ASKED] * (len(RULES) - 1)


@pytest.mark.parametrize(
    ("cluster", "rule", "why"),
    [
        (watched("50"), "no ready replica", "1 replica is ready"),
        (watched("50", ready=3), "no ready replica", "3 replicas are ready"),
        (
            watched("50", ready=0, notReadyForSeconds=40),
            "no ready replica",
            "none is ready, but not for 40 s before 2026-03-01T12:00:40Z",
        ),
        (watched("50"), "override", "there is no override"),
        (
            watched("50", override={"percentage": 5, "until": "2026-03-01T11:00:00Z"}),
            "override",
            "the override ended at 2026-03-01T11:00:00Z",
        ),
        (
            watched("50", override={"percentage": 5, "until": "2026-03-01T13:00:00Z"}),
            "forced override",
            "the override is of mode Normal",
        ),
        (watched("50"), "metric reached", "no metric is at its target"),
        (watched("100"), "metric reached", "a metric is at its target, but not for triggerWindowSeconds yet"),
        (watched(GONE), "metric reached", "no metric can be read now"),
        (watched(), "metric reached", "there are no metrics"),
        (watched(), "metric missing", "there are no metrics"),
        (watched("50"), "metric missing", "every metric can be read"),
        (
            watched(GONE, onMissingMetrics="release"),
            "metric missing",
            "it counts as below its target: onMissingMetrics is release",
        ),
        (watched("50"), "release", "metrics ask for no share"),
        (watched("50"), "policy forbids", "no policies"),
        (watched("50"), "nothing to offload to", "requests can go to models.example.com"),
    ],
)
def test_why_not(cluster: Cluster, rule: str, why: str) -> None:
    """A rule that did not decide says why in one phrase about this case."""
    assert verdicts(explained(cluster))[rule] == why


def test_why_not_of_settling_metrics() -> None:
    """While newer samples are awaited, the verdict says so: it is no failure of a metric."""
    cluster = watched("100", triggerWindowSeconds=0)
    cluster.sync()
    explanation = explained(cluster)
    assert explanation.metrics[0].state == reasons.SETTLING
    assert (
        explanation.metrics[0].advice == "The split is what it is since 2026-03-01T12:00:00Z; the next samples count."
    )
    assert verdicts(explanation)["metric missing"] == "nothing is wrong with a metric, newer samples are awaited"


@pytest.mark.parametrize(("count", "why"), [(1, "the policy allows it"), (2, "all 2 policies allow it")])
def test_why_not_of_policies(count: int, why: str) -> None:
    """The verdict on policies says how many of them allow the remote backend."""
    names = [f"eu-{number}" for number in range(count)]
    remote = builders.REMOTE | {"location": {"country": "fr"}}
    parent = model_deployment(offloadingConfig={"remoteBackend": remote}, policies=obeys(*names))
    cluster = Cluster(parent, related=[workload(), *map(builders.policy, names)])
    assert verdicts(explained(cluster))["policy forbids"] == why


@pytest.mark.parametrize("host", ["models.example.com:8443", "[2001:db8::1]:8443", "[2001:db8::1]"])
def test_a_remote_backend_is_named_with_its_port(host: str) -> None:
    """Where the remote backend has a port, the verdict names both, and an IPv6 address has brackets."""
    remote = builders.REMOTE | {"host": host}
    cluster = Cluster(model_deployment(offloadingConfig={"remoteBackend": remote}), related=[workload()])
    assert verdicts(explained(cluster))["nothing to offload to"] == f"requests can go to {host}"


def test_the_default_backend_has_no_host_here() -> None:
    """The default remote backend is named without its host, which only the gateway knows."""
    cluster = Cluster(model_deployment(offloadingConfig={}), related=[workload()])
    assert verdicts(explained(cluster))["nothing to offload to"] == "requests can go to the default remote backend"


def test_reached_for_long_enough() -> None:
    """A metric below its target has a turn: at the target for the trigger window, it offloads the percentage."""
    explanation = explained(watched("99", percentage=50))
    (change,) = [one for one in explanation.turns if one.thresholds]
    assert (str(change.thresholds[0].value), change.thresholds[0].below) == ("100", False)
    assert (change.after, then(change)) == (timedelta(seconds=30), (50, reasons.METRIC_REACHED))
    assert "queue-0 at 100 instead of 99 for 30 s: 50 % of the requests" in as_text(explanation)


def test_far_enough_below() -> None:
    """A metric that offloads has a turn: below the value whose estimate is within the tolerance, it ends offloading
    sooner than the next attempt that comes by itself."""
    explanation = explained(offloaded("60", percentage=50))
    attempt, change = explanation.turns[:2]
    assert (attempt.after, then(attempt)) == (timedelta(seconds=240), (25, reasons.RELEASING))
    assert (str(change.thresholds[0].value), change.thresholds[0].below) == ("45", True)
    assert (change.after, then(change)) == (timedelta(seconds=60), (0, reasons.LOCAL))
    assert explanation.metrics[0].estimate == Fraction(6, 5)
    assert "with all requests here: 120 % of the target, estimated" in as_text(explanation)


def test_all_metrics_that_keep_the_share_up() -> None:
    """All metrics that keep the share up are in one turn; one that is low already is not in it."""
    explanation = explained(offloaded("60", "1", "100", percentage=50))
    one_step, back = [one for one in explanation.turns if one.thresholds]
    assert [one.name for one in one_step.thresholds] == ["queue-2"]
    assert (str(one_step.thresholds[0].value), then(one_step)) == ("90", (25, reasons.RELEASING))
    assert [one.name for one in back.thresholds] == ["queue-0", "queue-2"]
    assert "queue-0 below 45 instead of 60 and queue-2 below 45 instead of 100 for 1 min" in as_text(explanation)


def test_a_metric_that_cannot_be_read_keeps_the_share_up() -> None:
    """With onMissingMetrics hold no value of another metric lets the share go down while one cannot be read."""
    cluster = offloaded("60", "0", percentage=50)
    cluster.values = ("60", GONE)
    explanation = explained(cluster)
    assert not [one for one in explanation.turns if one.thresholds]
    change = turn(explanation, "when queue-1 can be read and is at its target")
    assert then(change) == (50, reasons.METRIC_REACHED)


def test_turns_that_come_by_themselves() -> None:
    """Turns that come by themselves are the end of a running window and the end of an override."""
    cluster = watched("100", percentage=50)
    explanation = explained(cluster)
    change = turn(explanation, "")
    assert (change.at, then(change)) == (NOW + timedelta(seconds=30), (50, reasons.METRIC_REACHED))
    assert "if nothing else happens, at 2026-03-01T12:00:30Z, in 30 s: 50 %" in as_text(explanation)
    assert "at a target since 2026-03-01T12:00:00Z (0 s); the window ends at 2026-03-01T12:00:30Z" in as_text(
        explanation
    )
    ends = {"percentage": 20, "until": "2026-03-01T12:10:00Z"}
    explanation = explained(watched("100", percentage=50, override=ends))
    change = turn(explanation, "")
    assert (change.at, then(change)) == (NOW + timedelta(minutes=10), (50, reasons.METRIC_REACHED))
    assert then(turn(explanation, "without the override")) == (0, reasons.LOCAL)


def test_a_turn_by_new_measurements() -> None:
    """In mode proportional the share rises by a step with each new measurement while a metric is at its target."""
    explanation = explained(watched("300", mode="proportional", triggerWindowSeconds=0))
    assert (explanation.split.percentage, explanation.split.reason) == (25, reasons.METRIC_REACHED)
    change = turn(explanation, "when the metrics are measured again and are the same")
    assert (change.after, then(change)) == (timedelta(0), (50, reasons.METRIC_REACHED))


def test_turns_of_readiness() -> None:
    """Readiness has a turn in either direction: to an outage after notReadyForSeconds, and back at once."""
    change = turn(explained(watched("5", notReadyForSeconds=20)), "when no replica is ready")
    assert (change.after, then(change)) == (timedelta(seconds=20), (100, reasons.NO_READY_REPLICA))
    change = turn(explained(watched("5", ready=0)), "when a replica is ready")
    assert (change.after, then(change)) == (timedelta(0), (0, reasons.LOCAL))


def test_turns_of_what_users_set() -> None:
    """A disabled model and policies that forbid have a turn: the split without them."""
    explanation = explained(watched("5", ready=0, enabled=False))
    assert then(turn(explanation, "with spec.enabled: true")) == (100, reasons.NO_READY_REPLICA)
    parent = model_deployment(policies=obeys("none"))
    explanation = explained(Cluster(parent, related=[workload(ready=0)]))
    assert explanation.split.reason == reasons.POLICY_MISSING
    assert then(turn(explanation, "when the policies allow it")) == (100, reasons.NO_READY_REPLICA)


def test_a_forced_override_has_no_other_turns() -> None:
    """Under a forced override no turn is about a metric or a replica, which would change nothing."""
    force = {"percentage": 20, "until": "2026-03-01T12:10:00Z", "mode": "Force"}
    explanation = explained(watched("99", override=force))
    assert {one.when for one in explanation.turns} == {"", "without the override"}


def test_without_a_local_backend_no_turn_is_about_replicas() -> None:
    """Without a local backend no turn is about a replica, which requests could not reach."""
    explanation = explained(Cluster(model_deployment(), related=[]))
    assert explanation.split.reason == reasons.WORKLOAD_MISSING
    assert explanation.turns == ()


def test_not_accepted() -> None:
    """A specification that is not accepted is explained by its condition, without rules."""
    explanation = explained(Cluster(model_deployment(serviceRef={"name": "front", "namespace": "elsewhere"})))
    assert not explanation.accepted
    assert explanation.split.reason == reasons.NOT_ACCEPTED
    assert "! Accepted=False/CrossNamespaceReference: " in as_text(explanation)
    assert as_document(explanation)["rules"] == []


STEPS = st.lists(
    st.tuples(st.tuples(st.integers(0, 300), st.integers(0, 150)), st.integers(0, 90)), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=60)
@given(
    STEPS,
    st.integers(0, 100),
    st.integers(1, 100),
    st.sampled_from(["fixed", "proportional"]),
    st.sampled_from(["load", "gauge"]),
    st.sampled_from([0, 0.1, 0.333]),
)
def test_thresholds_are_exact(
    steps: list[tuple[tuple[int, int], int]], percentage: int, step: int, mode: str, signal: str, tolerance: float
) -> None:
    """After any history, the exact value of a turn changes the response to a sync at the time of the turn, and a value
    that misses it by a billionth does not."""
    cluster = watched(
        "0",
        "0",
        percentage=percentage,
        stepPercentage=step,
        mode=mode,
        signal=signal,
        tolerance=tolerance,
    )
    for values, seconds in steps:
        cluster.measure(*map(str, values), after=seconds)
    cluster.now += timedelta(seconds=1)
    explanation = explained(cluster)
    response = cluster.sync()
    assert split(response) == (explanation.split.percentage, explanation.split.reason)
    for change in explanation.turns:
        if change.thresholds:
            assert fed(cluster, change, 0) == then(change)
            assert fed(cluster, change, 1)[0] != change.then.percentage


def fed(cluster: Cluster, turn: Turn, short: int) -> tuple[int, str]:
    """Return percentage and reason after the metrics had the values of a turn for its time, missed by `short`
    billionths."""
    cluster = copy.deepcopy(cluster)
    # Samples from the second of a change do not count.
    cluster.now += timedelta(seconds=1)
    values = list(cluster.values or ())
    for one in turn.thresholds:
        away = short - 1 if one.below else -short
        values[one.metric] = str(Quantity(one.value.nanos + away))
    cluster.measure(*values)
    return split(cluster.after(turn.after / timedelta(seconds=1)))


def test_text_and_document_say_the_same() -> None:
    """The document for programs has everything that the text for people says."""
    explanation = explained(offloaded("60", percentage=50))
    document, text = as_document(explanation), as_text(explanation)
    assert document["answer"]["percentage"] == 50
    assert document["metrics"][0]["arithmetic"] == "(60) / (100 × 1) = 3/5"
    assert document["metrics"][0]["arithmetic"] in text
    assert document["metrics"][0] | {"ratio": "3/5", "estimate": "6/5", "estimatedShare": 0} == document["metrics"][0]
    assert document["windows"] == {
        "reachedSince": None,
        "belowSince": "2026-03-01T12:00:31Z",
        "step": 0,
        "heldShare": None,
        "claim": None,
        "attempts": {"supported": 0, "blind": 0},
        "ends": "2026-03-01T12:04:31Z",
    }
    assert [one["then"]["percentage"] for one in document["changes"][:2]] == [25, 0]
    change = document["changes"][1]
    assert change["metrics"] == [{"metric": 0, "name": "queue-0", "below": "45", "present": "60"}]
    assert (change["afterSeconds"], change["then"]["percentage"]) == (60.0, 0)
    assert max(map(len, text.splitlines())) <= 110


def at_the_gateway(gateway: Json | None = None, **behavior: Any) -> Explanation:
    """Return the explanation of a model with this section `gateway`."""
    cluster = watched("50", **behavior)
    if gateway is not None:
        cluster.parent["spec"]["gateway"] = gateway
    return explained(cluster)


def test_single_requests_at_the_gateway() -> None:
    """Overflow and endpoints are explained with their numbers, in the text and for programs."""
    assert at_the_gateway().gateway == ()
    (overflow,) = at_the_gateway(overflow={"inFlight": 1}).gateway
    assert overflow == (
        "behavior.overflow.inFlight 1: each gateway lets the local replicas serve 1 request at the same time, a stream"
        " until its end. What is above goes to the remote backend at once (Overflow); while that takes none, it gets"
        " status 503."
    )
    explanation = at_the_gateway(
        {"queue": {"size": 20, "waitSeconds": 1.5}, "endpoints": "pods"},
        overflow={"inFlight": 200, "firstTokenSeconds": 2},
    )
    limit, first_token, endpoints = explanation.gateway
    assert limit.endswith("it waits for up to 1.5 s; 20 requests may wait, and any other gets status 503.")
    assert first_token.startswith(
        "behavior.overflow.firstTokenSeconds 2: each gateway finds by itself how many streams, inFlight 200 at most,"
    )
    assert "first events come within 2 s" in first_token
    assert endpoints.startswith("gateway.endpoints pods: requests for the local replicas go to single pods,")
    text = as_text(explanation)
    assert "\nSingle requests, at the gateway:\n  behavior.overflow.inFlight 200: each gateway" in text
    assert as_document(explanation)["gateway"] == [limit, first_token, endpoints]
    (service,) = at_the_gateway({"endpoints": "service"}).gateway
    assert service.startswith("gateway.endpoints service: requests for the local replicas go to the name of their")


def test_single_requests_where_a_backend_is_left_out() -> None:
    """Without a remote backend nothing above the limit goes there, and without a local one there is no limit."""
    without = watched("50", overflow={"inFlight": 5})
    del without.parent["spec"]["offloadingConfig"]["remoteBackend"]
    without.defaults = dataclasses.replace(DEFAULTS, default_remote=None)
    assert explained(without).gateway[0].endswith("No remote backend may take what is above, so it gets status 503.")
    forced = at_the_gateway(
        overflow={"inFlight": 5}, override={"percentage": 100, "until": "2030-01-01T00:00:00Z", "mode": "Force"}
    )
    assert (forced.split.percentage, forced.gateway) == (100, ())


@pytest.mark.parametrize("written", ["1500Mi", "0.5", 30, "1e3", "2500m"])
def test_a_target_is_shown_as_it_is_written(written: str | int) -> None:
    """The target of a metric stands in the text as in the specification."""
    cluster = watched("50")
    cluster.parent["spec"]["offloadingConfig"]["metrics"] = [external("queue-0", written)]
    assert f"queue-0 (External, target {written}): " in as_text(explained(cluster))


def test_many_pods_fit() -> None:
    """Of many values, and of many pods that are left out, the text names the first ones and counts the rest."""
    target = {"type": "AverageValue", "averageValue": "1"}
    metrics = [{"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": target}}]
    parent = model_deployment(offloadingConfig={"remoteBackend": builders.REMOTE, "metrics": metrics})
    pods = tuple(a_pod(f"pod-{number:02}", ready=number < 20) for number in range(40))
    samples = tuple(dataclasses.replace(readings("1").metrics[0].samples[0], of=pod.name) for pod in pods)
    metric_readings = Readings((Reading(samples),), pods)
    explanation = explain(builders.observation(parent, readings=metric_readings, related=[workload()]), now=NOW)
    text = " ".join(as_text(explanation).split())
    assert "(1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + … 12 more) / (1 × 20) = 1 = 100 % of the target" in text
    assert "pod-27 (it is not ready) and 12 more" in text
    assert len(as_document(explanation)["metrics"][0]["leftOut"]) == 20


def a_pod(name: str, *, ready: bool) -> Pod:
    """Return a running pod with one container."""
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    item: Json = {"metadata": {"name": name}, "spec": {"containers": [{"name": "server"}]}, "status": status}
    return Pod.of(item)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [("1", "100 %"), ("0.99999999", "99.99 %"), ("1.1875", "118.75 %"), ("0.005", "0.5 %"), ("0", "0 %")],
)
def test_percent(ratio: str, text: str) -> None:
    """A ratio below 1 is never rounded to 100 percent."""
    nanos = parse(ratio).nanos
    assert percent(Fraction(nanos, 10**9)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)
def test_span(seconds: float, text: str) -> None:
    """A duration is written in its two largest units."""
    assert span(timedelta(seconds=seconds)) == text


def test_no_secret_is_shown() -> None:
    """A secret in the specification appears in neither the text nor the document."""
    auth = {"type": "oauth", "oauthConfig": {"clientId": "id-1", "clientSecret": "s3cr3t"}}
    remote = builders.REMOTE | {"authConfig": auth, "headersToAdd": {"x-key": "s3cr3t"}}
    explanation = explain(
        builders.observation(
            model_deployment(offloadingConfig={"remoteBackend": remote}), related=[workload()], defaults=DEFAULTS
        ),
        now=NOW,
    )
    assert "InlineSecret" in as_text(explanation)
    assert "s3cr3t" not in as_text(explanation) + str(as_document(explanation))


def test_what_drills_found() -> None:
    """The explanation has the condition OffloadReady and what each gateway found; without gateways it has neither."""
    cluster = Cluster(model_deployment(), related=[workload()])
    assert "Drills" not in as_text(explained(cluster))
    assert as_document(explained(cluster))["offloadReady"] is None
    refused = Drill(reasons.TOKEN_REFUSED, "Correct the client secret.", 4, NOW, gateway="gateway-1")
    cluster.drill(refused)
    cluster.drill(Drill(reasons.CONNECT_FAILED, "", 1), refused, refused)
    cluster.drill(Drill(reasons.CONNECT_FAILED, "", 1), refused, refused)
    lines = as_text(explained(cluster)).splitlines()
    first = lines.index("Drills of the remote backend: OffloadReady=False (TokenRefused)")
    assert lines[first + 1 : first + 4] == [
        "  Correct the client secret.",
        "  a gateway: ConnectFailed by a drill.",
        "  gateway gateway-1: TokenRefused by a drill, 30 s ago, 4 in a row. Correct the client secret.",
    ]
    document = as_document(explained(cluster))
    assert document["offloadReady"]["reason"] == "TokenRefused"
    assert [one["consecutiveFailures"] for one in document["drills"]] == [1, 4, 4]
    assert [one["gateway"] for one in document["drills"]] == [None, "gateway-1", "gateway-1"]
    cluster.drill(Drill(reasons.PROVEN, "", 0, NOW, by_traffic=True))
    assert "  a gateway: Proven by a client's request, 40 s ago." in as_text(explained(cluster))
    assert as_document(explained(cluster))["drills"][0]["by"] == "traffic"
