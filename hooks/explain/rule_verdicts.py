"""Verdicts of the rules: why those before the one that decided did not decide, one phrase for each."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from hooks.api.common import format_time
from hooks.api.offloading import OnMissingMetrics, OverrideMode
from hooks.backends.remote import Remote
from hooks.offloading import rules
from hooks.offloading.measures import Missing
from hooks.offloading.rules import RULES, Case, not_ready_deadline
from hooks.reconcile.assessment import Assessment


class Verdict(StrEnum):
    """The verdict of a rule."""

    NO = "no"
    ANSWERED = "answered"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """A rule with its verdict."""

    name: str
    """Name of the rule as documentation spells it: `no ready replica`."""
    sentence: str
    """Sentence that documents the rule."""
    verdict: Verdict
    why: str = ""
    """Phrase that says why the rule did not decide."""


def rule_verdicts(assessment: Assessment, now: datetime) -> tuple[RuleVerdict, ...]:
    """Return the verdicts of all rules, in order."""
    case = Case(assessment.facts, assessment.previous, assessment.decision.course, now)
    verdicts, verdict = [], Verdict.NO
    for rule in RULES:
        decided = rule.__name__ == assessment.decision.rule
        this = Verdict.ANSWERED if decided else verdict
        why = _WHY_NOT[rule.__name__](case) if this is Verdict.NO else ""
        sentence = " ".join((inspect.getdoc(rule) or "").split())
        verdicts.append(RuleVerdict(rule.__name__.replace("_", " "), sentence, this, why))
        verdict = Verdict.NOT_ASKED if decided else verdict
    return tuple(verdicts)


def _enabled(_case: Case) -> str:
    return "spec.enabled is true"


def _has_remote(case: Case) -> str:
    remote = case.facts.remote
    place = remote.authority if isinstance(remote, Remote) else ""
    return f"requests can go to {place}" if place else "requests can go to the default remote backend"


def _allowed(case: Case) -> str:
    count = len(case.facts.spec.policies)
    return f"{'the policy allows' if count == 1 else f'all {count} policies allow'} it" if count else "no policies"


def _no_force(case: Case) -> str:
    override = case.override
    if override is not None and override.mode is not OverrideMode.FORCE:
        return "the override is of mode Normal"
    return _no_override(case)


def _ready(case: Case) -> str:
    ready = case.facts.readiness.ready
    if ready > 0:
        return f"{ready} {'replica is' if ready == 1 else 'replicas are'} ready"
    seconds = case.behavior.not_ready_for_seconds
    deadline = not_ready_deadline(case.previous, seconds, case.now)
    return f"none is ready, but not for {seconds} s before {format_time(deadline)}"


def _no_override(case: Case) -> str:
    override = case.behavior.override
    return "there is no override" if override is None else f"the override ended at {format_time(override.until)}"


def _not_returning(case: Case) -> str:
    if case.behavior.return_seconds == 0:
        return "requests come back at once"
    return "no replica has become ready lately"


def _not_reached(case: Case) -> str:
    measures, course = case.facts.measures, case.course
    if not measures:
        return "there are no metrics"
    if all(isinstance(one, Missing) for one in measures):
        return "no metric can be read now"
    if not course.reached:
        return "no metric is at its target"
    return "a metric is at its target, but not for triggerWindowSeconds yet"


def _not_missing(case: Case) -> str:
    if not case.facts.measures:
        return "there are no metrics"
    if not case.is_missing:
        settling = any(isinstance(one, Missing) for one in case.facts.measures)
        return "nothing is wrong with a metric, newer samples are awaited" if settling else "every metric can be read"
    return f"it counts as below its target: onMissingMetrics is {OnMissingMetrics.RELEASE}"


def _not_offloaded(_case: Case) -> str:
    return "metrics ask for no share"


_WHY_NOT: Final[Mapping[str, Callable[[Case], str]]] = {
    rules.disabled.__name__: _enabled,
    rules.nothing_to_offload_to.__name__: _has_remote,
    rules.policy_forbids.__name__: _allowed,
    rules.forced_override.__name__: _no_force,
    rules.no_ready_replica.__name__: _ready,
    rules.override.__name__: _no_override,
    rules.returning.__name__: _not_returning,
    rules.metric_reached.__name__: _not_reached,
    rules.metric_missing.__name__: _not_missing,
    rules.release.__name__: _not_offloaded,
}
"""Functions that say why a rule did not decide, by its name; the last rule always decides."""
