"""Explanations: why the split of a model is as it is, and what would change it.

Nothing here decides. Every number comes from the functions that decide, and what would change the split is found by
applying them again to other facts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hooks.backends import proof
from hooks.explain.gateway import gateway_rules
from hooks.explain.metrics import MetricAccount, accounts
from hooks.explain.outlook import Turn, turns
from hooks.explain.rule_verdicts import RuleVerdict, rule_verdicts
from hooks.observation.conditions import Condition
from hooks.observation.drills import Drill
from hooks.observation.observation import Observation
from hooks.offloading.hysteresis import NOTHING, Memory
from hooks.offloading.rules import BY_METRICS, Split, behavior
from hooks.reconcile.model_deployment import decide_sync

_TOLD: Final = frozenset({"Accepted", "RefsResolved", "PolicySatisfied", "InlineSecret"})
"""Types of conditions that say what to change in the specification. Metrics have a section of their own."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of one response to sync."""

    namespace: str
    name: str
    now: datetime
    split: Split
    since: datetime | None
    """Time since which the percentage has been the same; None where nothing was decided before."""
    accepted: bool
    problems: tuple[Condition, ...]
    """Conditions that tell what is wrong with the specification or missing."""
    rules: tuple[RuleVerdict, ...] = ()
    """Verdicts of all rules, in order; empty while the specification is not accepted."""
    metrics: tuple[MetricAccount, ...] = ()
    memory: Memory = NOTHING
    window_ends: datetime | None = None
    """Time at which the running window ends; None where no window runs."""
    ceiling: int = 100
    """behavior.percentage."""
    by_metrics: bool = False
    """Whether the metrics set the percentage now."""
    turns: tuple[Turn, ...] = ()
    """Events that would change the split."""
    gateway: tuple[str, ...] = ()
    """Sentences about what the gateway does with single requests, beside the split."""
    offload_ready: Condition | None = None
    """Condition OffloadReady; None where no gateway was asked, or no request may go to a remote backend."""
    drills: tuple[Drill, ...] = ()
    """What the gateways found that have tried the remote backend."""


def explain(observation: Observation, *, now: datetime) -> Explanation:
    """Return the explanation of the response to a sync request.

    Raises:
        hooks.errors.HookError: A sync would respond with an error.
    """
    synced = decide_sync(observation, now=now)
    response, assessment = synced.response(synced.registration), synced.assessment
    conditions = tuple(
        Condition(one["type"], one["status"], one["reason"], one["message"]) for one in response.status["conditions"]
    )
    problems = tuple(
        one
        for one in conditions
        if one.type in _TOLD
        and (one.status == "False") != (one.type == "InlineSecret")
        and one.message != response.status["offloading"]["message"]
    )
    parent = observation.parent
    if assessment is None:
        offloading = response.status["offloading"]
        split = Split(offloading["percentage"], offloading["reason"], offloading["message"])
        return Explanation(parent.namespace, parent.name, now, split, None, accepted=False, problems=problems)
    decision = assessment.decision
    asked = bool(observation.drills) and decision.split.remote
    same = assessment.previous.percentage == decision.split.percentage
    return Explanation(
        parent.namespace,
        parent.name,
        now,
        decision.split,
        assessment.previous.since if same else None,
        accepted=True,
        problems=problems,
        rules=rule_verdicts(assessment, now),
        metrics=accounts(assessment, observation.readings, now),
        memory=decision.course.memory,
        window_ends=decision.course.next_instant,
        ceiling=behavior(assessment.facts.spec).percentage,
        by_metrics=decision.split.reason in BY_METRICS,
        turns=turns(assessment, now),
        gateway=gateway_rules(assessment.facts, decision.split),
        offload_ready=next(one for one in conditions if one.type == proof.TYPE) if asked else None,
        drills=observation.drills[0].drills if asked and observation.drills else (),
    )
