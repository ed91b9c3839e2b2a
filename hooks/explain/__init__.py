"""Why a model is offloaded as it is, and what would change that: the answer of sync, taken apart.

Nothing here decides. Every number comes from the functions that decide, and what would change the answer is found by
asking them again with other facts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hooks.explain.metrics import MetricAccount, accounts
from hooks.explain.outlook import Turn, turns
from hooks.explain.rule_verdicts import RuleAnswer, rule_answers
from hooks.observation.conditions import Condition
from hooks.observation.observation import Observation
from hooks.offloading.hysteresis import NOTHING, Memory
from hooks.offloading.rules import BY_METRICS, Split, behavior
from hooks.reconcile.model_deployment import sync_assessed

_TOLD: Final = frozenset({"Accepted", "RefsResolved", "PolicySatisfied", "InlineSecret"})
"""Conditions that say of the specification what is to be changed; of metrics more is said elsewhere."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer, taken apart."""

    namespace: str
    name: str
    now: datetime
    split: Split
    since: datetime | None
    """Since when the percentage is what it is; None when nothing was decided before."""
    accepted: bool
    problems: tuple[Condition, ...]
    """What is wrong with the specification, or missing."""
    rules: tuple[RuleAnswer, ...] = ()
    """In order; none while the specification is not accepted."""
    metrics: tuple[MetricAccount, ...] = ()
    memory: Memory = NOTHING
    window_ends: datetime | None = None
    """When the window that runs ends."""
    ceiling: int = 100
    """behavior.percentage."""
    by_metrics: bool = False
    """Whether metrics set the percentage now."""
    turns: tuple[Turn, ...] = ()
    """What would change the answer."""


def explain(observation: Observation, *, now: datetime) -> Explanation:
    """The answer of sync, with how it came about.

    Raises:
        hooks.errors.HookError: sync would answer with an error.
    """
    synced = sync_assessed(observation, now=now)
    answer, found = synced.response, synced.assessment
    conditions = tuple(
        Condition(one["type"], one["status"], one["reason"], one["message"]) for one in answer.status["conditions"]
    )
    problems = tuple(
        one
        for one in conditions
        if one.type in _TOLD
        and (one.status == "False") != (one.type == "InlineSecret")
        and one.message != answer.status["offloading"]["message"]
    )
    parent = observation.parent
    if found is None:
        told = answer.status["offloading"]
        split = Split(told["percentage"], told["reason"], told["message"])
        return Explanation(parent.namespace, parent.name, now, split, None, accepted=False, problems=problems)
    decision = found.decision
    same = found.previous.percentage == decision.split.percentage
    return Explanation(
        parent.namespace,
        parent.name,
        now,
        decision.split,
        found.previous.since if same else None,
        accepted=True,
        problems=problems,
        rules=rule_answers(found, now),
        metrics=accounts(found, observation.readings, now),
        memory=decision.course.memory,
        window_ends=decision.course.next_instant,
        ceiling=behavior(found.facts.spec).percentage,
        by_metrics=decision.split.reason in BY_METRICS,
        turns=turns(found, now),
    )
