"""What explain says: the rule that answered and why others did not, and what would change the answer."""

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
from hooks.observation.readings import Reading, Readings, Unread
from hooks.offloading.rules import RULES
from hooks.protocol import SyncResponse
from tests import builders
from tests.builders import DEFAULTS, NOW, Cluster, Json, external, model_deployment, obeys, readings, workload

GONE = Unread(reasons.UNREACHABLE, "The source does not answer: start it.")


def watched(*values: str | Unread, ready: int = 1, enabled: bool = True, **behavior: Any) -> Cluster:
    """A ModelDeployment with one metric for each value, whose targets are 100, synced once."""
    spec = {
        "remoteBackend": builders.REMOTE,
        "metrics": [external(f"queue-{number}") for number in range(len(values))],
        "behavior": {"triggerWindowSeconds": 30, "releaseWindowSeconds": 60, **behavior},
    }
    cluster = Cluster(model_deployment(offloadingConfig=spec, enabled=enabled), related=[workload(ready=ready)])
    cluster.values = values
    return cluster


def offloaded(*values: str, **behavior: Any) -> Cluster:
    """The same, offloaded by its first metric, and the values a second later not looked at yet."""
    cluster = watched("100", *values[1:], **behavior)
    cluster.sync()
    cluster.after(30)
    cluster.now += timedelta(seconds=1)
    cluster.values = values
    return cluster


def explained(cluster: Cluster) -> Explanation:
    """What is said of the sync that comes next."""
    observation = builders.observation(
        cluster.parent,
        readings=None if cluster.values is None else readings(*cluster.values, now=cluster.now),
        children=cluster.children,
        related=cluster.related,
        defaults=cluster.defaults,
    )
    return explain(observation, now=cluster.now)


def split(answer: SyncResponse) -> tuple[int, str]:
    """Percentage and reason."""
    return answer.status["offloading"]["percentage"], answer.status["offloading"]["reason"]


def then(turn: Turn) -> tuple[int, str]:
    """The same of what would be."""
    return turn.then.percentage, turn.then.reason


def verdicts(told: Explanation) -> dict[str, str]:
    """What each rule before the one that answered says, by name."""
    return {rule.name: rule.why for rule in told.rules if rule.verdict is Verdict.NO}


def turn(told: Explanation, when: str) -> Turn:
    """The only turn with that clause."""
    (found,) = [one for one in told.turns if one.when == when]
    return found


def test_every_rule_has_a_no() -> None:
    """Every rule but the last can say why it did not answer."""
    assert list(_WHY_NOT) == [rule.__name__ for rule in RULES[:-1]]


def test_the_rules_in_order() -> None:
    """Before the one that answered each says why it did not; those after it were not asked."""
    told = explained(watched("50"))
    assert [rule.name for rule in told.rules] == [rule.__name__.replace("_", " ") for rule in RULES]
    assert [rule.verdict for rule in told.rules] == [Verdict.NO] * (len(RULES) - 1) + [Verdict.ANSWERED]
    assert all(rule.why for rule in told.rules[:-1])
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
    """One phrase that is about this very case."""
    assert verdicts(explained(cluster))[rule] == why


def test_why_not_of_settling_metrics() -> None:
    """That newer samples are awaited is no failure, and not that all is well either."""
    cluster = watched("100", triggerWindowSeconds=0)
    cluster.sync()
    told = explained(cluster)
    assert told.metrics[0].state == reasons.SETTLING
    assert told.metrics[0].advice == "The split is what it is since 2026-03-01T12:00:00Z; the next samples count."
    assert verdicts(told)["metric missing"] == "nothing is wrong with a metric, newer samples are awaited"


@pytest.mark.parametrize(("count", "why"), [(1, "the policy allows it"), (2, "all 2 policies allow it")])
def test_why_not_of_policies(count: int, why: str) -> None:
    """They are counted."""
    names = [f"eu-{number}" for number in range(count)]
    remote = builders.REMOTE | {"location": {"country": "fr"}}
    parent = model_deployment(offloadingConfig={"remoteBackend": remote}, policies=obeys(*names))
    cluster = Cluster(parent, related=[workload(), *map(builders.policy, names)])
    assert verdicts(explained(cluster))["policy forbids"] == why


def test_the_default_backend_has_no_host_here() -> None:
    """What the gateway knows alone is not told."""
    cluster = Cluster(model_deployment(offloadingConfig={}), related=[workload()])
    assert verdicts(explained(cluster))["nothing to offload to"] == "requests can go to the default remote backend"


def test_reached_for_long_enough() -> None:
    """Below its target: at it for the trigger window, everything that the percentage says is offloaded."""
    told = explained(watched("99", percentage=50))
    (found,) = [one for one in told.turns if one.thresholds]
    assert (str(found.thresholds[0].value), found.thresholds[0].below) == ("100", False)
    assert (found.after, then(found)) == (timedelta(seconds=30), (50, reasons.METRIC_REACHED))
    assert "queue-0 at 100 instead of 99 for 30 s: 50 % of the requests" in as_text(told)


def test_far_enough_below() -> None:
    """At 50 percent, 45 is 90 with all requests here: what is below that ends offloading after the window."""
    told = explained(offloaded("60", percentage=50))
    (found,) = [one for one in told.turns if one.thresholds]
    assert (str(found.thresholds[0].value), found.thresholds[0].below) == ("45", True)
    assert (found.after, then(found)) == (timedelta(seconds=60), (0, reasons.LOCAL))
    assert told.metrics[0].estimate == Fraction(6, 5)
    assert "with all requests here: 120 % of the target, estimated" in as_text(told)


def test_all_metrics_that_keep_the_share_up() -> None:
    """Only together do they let it go down; one that is low already is not spoken of."""
    told = explained(offloaded("60", "1", "100", percentage=50))
    (found,) = [one for one in told.turns if one.thresholds]
    assert [one.name for one in found.thresholds] == ["queue-0", "queue-2"]
    assert "queue-0 below 45 instead of 60 and queue-2 below 45 instead of 100 for 1 min" in as_text(told)


def test_a_metric_that_cannot_be_read_keeps_the_share_up() -> None:
    """With onMissingMetrics hold no value of another lets it go down; being read again would change the reason."""
    cluster = offloaded("60", "0", percentage=50)
    cluster.values = ("60", GONE)
    told = explained(cluster)
    assert not [one for one in told.turns if one.thresholds]
    found = turn(told, "when queue-1 can be read and is at its target")
    assert then(found) == (50, reasons.METRIC_REACHED)


def test_what_comes_by_itself() -> None:
    """A window that runs ends at its time; an override too, after which metrics count."""
    cluster = watched("100", percentage=50)
    told = explained(cluster)
    found = turn(told, "")
    assert (found.at, then(found)) == (NOW + timedelta(seconds=30), (50, reasons.METRIC_REACHED))
    assert "if nothing else happens, at 2026-03-01T12:00:30Z, in 30 s: 50 %" in as_text(told)
    assert "at a target since 2026-03-01T12:00:00Z (0 s); the window ends at 2026-03-01T12:00:30Z" in as_text(told)
    ends = {"percentage": 20, "until": "2026-03-01T12:10:00Z"}
    told = explained(watched("100", percentage=50, override=ends))
    found = turn(told, "")
    assert (found.at, then(found)) == (NOW + timedelta(minutes=10), (50, reasons.METRIC_REACHED))
    assert then(turn(told, "without the override")) == (0, reasons.LOCAL)


def test_measured_again() -> None:
    """In mode proportional the share goes on rising while a metric is at its target, a step with each measurement."""
    told = explained(watched("300", mode="proportional", triggerWindowSeconds=0))
    assert (told.split.percentage, told.split.reason) == (25, reasons.METRIC_REACHED)
    found = turn(told, "when the metrics are measured again and are the same")
    assert (found.after, then(found)) == (timedelta(0), (50, reasons.METRIC_REACHED))


def test_readiness_the_other_way_round() -> None:
    """Without a ready replica everything goes, after notReadyForSeconds; with one again nothing does."""
    found = turn(explained(watched("5", notReadyForSeconds=20)), "when no replica is ready")
    assert (found.after, then(found)) == (timedelta(seconds=20), (100, reasons.NO_READY_REPLICA))
    found = turn(explained(watched("5", ready=0)), "when a replica is ready")
    assert (found.after, then(found)) == (timedelta(0), (0, reasons.LOCAL))


def test_what_people_set() -> None:
    """A model that is disabled, and policies that forbid, are taken away to see what would be."""
    told = explained(watched("5", ready=0, enabled=False))
    assert then(turn(told, "with spec.enabled: true")) == (100, reasons.NO_READY_REPLICA)
    parent = model_deployment(policies=obeys("none"))
    told = explained(Cluster(parent, related=[workload(ready=0)]))
    assert told.split.reason == reasons.POLICY_MISSING
    assert then(turn(told, "when the policies allow it")) == (100, reasons.NO_READY_REPLICA)


def test_nothing_is_asked_beside_a_forced_override() -> None:
    """What another rule decides is not said to change by a metric or by a replica."""
    force = {"percentage": 20, "until": "2026-03-01T12:10:00Z", "mode": "Force"}
    told = explained(watched("99", override=force))
    assert {one.when for one in told.turns} == {"", "without the override"}


def test_without_local_backend_no_replica_is_spoken_of() -> None:
    """A replica alone would not be reached."""
    told = explained(Cluster(model_deployment(), related=[]))
    assert told.split.reason == reasons.WORKLOAD_MISSING
    assert told.turns == ()


def test_not_accepted() -> None:
    """The sentence that says what to change, and what stays in force."""
    told = explained(Cluster(model_deployment(serviceRef={"name": "front", "namespace": "elsewhere"})))
    assert not told.accepted
    assert told.split.reason == reasons.NOT_ACCEPTED
    assert "! Accepted=False/CrossNamespaceReference: " in as_text(told)
    assert as_document(told)["rules"] == []


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
    """Whatever happened before: the very value that is named changes the answer of sync at the time that is named, and
    a billionth less, or more, does not."""
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
    told = explained(cluster)
    answer = cluster.sync()
    assert split(answer) == (told.split.percentage, told.split.reason)
    for found in told.turns:
        if found.thresholds:
            assert fed(cluster, found, 0) == then(found)
            assert fed(cluster, found, 1)[0] != found.then.percentage


def fed(cluster: Cluster, turn: Turn, short: int) -> tuple[int, str]:
    """The answer when the metrics have the values of a turn for its time, or all but so many billionths."""
    cluster = copy.deepcopy(cluster)
    # What was measured in the second of a change is not counted.
    cluster.now += timedelta(seconds=1)
    values = list(cluster.values or ())
    for one in turn.thresholds:
        away = short - 1 if one.below else -short
        values[one.metric] = str(Quantity(one.value.nanos + away))
    cluster.measure(*values)
    return split(cluster.after(turn.after / timedelta(seconds=1)))


def test_text_and_document_say_the_same() -> None:
    """Everything that people are told programs can read, and it is JSON."""
    told = explained(offloaded("60", percentage=50))
    document, text = as_document(told), as_text(told)
    assert document["answer"]["percentage"] == 50
    assert document["metrics"][0]["arithmetic"] == "(60) / (100 × 1) = 3/5"
    assert document["metrics"][0]["arithmetic"] in text
    assert document["metrics"][0] | {"ratio": "3/5", "estimate": "6/5", "estimatedShare": 0} == document["metrics"][0]
    assert document["windows"] == {"reachedSince": None, "belowSince": None, "step": 0, "ends": None}
    change = document["changes"][0]
    assert change["metrics"] == [{"metric": 0, "name": "queue-0", "below": "45", "present": "60"}]
    assert (change["afterSeconds"], change["then"]["percentage"]) == (60.0, 0)
    assert max(map(len, text.splitlines())) <= 110


def test_many_pods_fit() -> None:
    """Of many values and of many pods that are left out the first are told, and how many there are."""
    target = {"type": "AverageValue", "averageValue": "1"}
    metrics = [{"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": target}}]
    parent = model_deployment(offloadingConfig={"remoteBackend": builders.REMOTE, "metrics": metrics})
    pods = tuple(a_pod(f"pod-{number:02}", ready=number < 20) for number in range(40))
    samples = tuple(dataclasses.replace(readings("1").metrics[0].samples[0], of=pod.name) for pod in pods)
    read = Readings((Reading(samples),), pods)
    told = explain(builders.observation(parent, readings=read, related=[workload()]), now=NOW)
    text = " ".join(as_text(told).split())
    assert "(1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + … 12 more) / (1 × 20) = 1 = 100 % of the target" in text
    assert "pod-27 (it is not ready) and 12 more" in text
    assert len(as_document(told)["metrics"][0]["leftOut"]) == 20


def a_pod(name: str, *, ready: bool) -> Pod:
    """A running pod with one container."""
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    item: Json = {"metadata": {"name": name}, "spec": {"containers": [{"name": "server"}]}, "status": status}
    return Pod.of(item)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [("1", "100 %"), ("0.99999999", "99.99 %"), ("1.1875", "118.75 %"), ("0.005", "0.5 %"), ("0", "0 %")],
)
def test_percent(ratio: str, text: str) -> None:
    """What is below the target is never shown as if it had reached it."""
    nanos = parse(ratio).nanos
    assert percent(Fraction(nanos, 10**9)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)
def test_span(seconds: float, text: str) -> None:
    """The two largest units are enough."""
    assert span(timedelta(seconds=seconds)) == text


def test_no_secret_is_told() -> None:
    """A secret in the specification is in neither form."""
    auth = {"type": "oauth", "oauthConfig": {"clientId": "id-1", "clientSecret": "s3cr3t"}}
    remote = builders.REMOTE | {"authConfig": auth, "headersToAdd": {"x-key": "s3cr3t"}}
    told = explain(
        builders.observation(
            model_deployment(offloadingConfig={"remoteBackend": remote}), related=[workload()], defaults=DEFAULTS
        ),
        now=NOW,
    )
    assert "InlineSecret" in as_text(told)
    assert "s3cr3t" not in as_text(told) + str(as_document(told))
