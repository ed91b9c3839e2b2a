"""The rules that decide how much is offloaded and why. They are in order; the first that decides wins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from hooks import reasons
from hooks.api.model_deployment import MOST_METRIC_STATES, ModelDeploymentSpec
from hooks.api.offloading import OffloadingBehavior, OnMissingMetrics, Override, OverrideMode
from hooks.backends.policies import Refusal
from hooks.backends.readiness import Readiness
from hooks.backends.remote import Remote
from hooks.kube.times import whole_seconds
from hooks.kube.unstructured import integer, mapping, objects, text, time
from hooks.observation.observation import Observation, Parent, Unresolved
from hooks.offloading.hysteresis import MOST_FAILURES, NOTHING, Attempts, Claim, Course, InForce, Memory, advance
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.targets import metric_name


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a decision, but for the previous status and the time."""

    spec: ModelDeploymentSpec
    observation: Observation
    readiness: Readiness
    """Readiness of the local replicas."""
    has_local: bool
    """Whether there is a local backend at all, ready or not."""
    remote: Remote | Unresolved
    """Remote backend, or the reason why there is none."""
    refusals: tuple[Refusal, ...]
    """Refusals of policies that do not allow the remote backend."""
    measures: tuple[Measured | Missing, ...] = ()
    """Measures, one for each metric of the specification."""


@dataclass(frozen=True, slots=True)
class Previous:
    """What the previous status remembers of the decision; empty without a previous status."""

    percentage: int | None = None
    reason: str = ""
    since: datetime | None = None
    """Time since which the percentage has been the same."""
    unready_since: datetime | None = None
    """Time since which no local replica has been ready; None where one was, or where it is not known."""
    memory: Memory = NOTHING
    """State of the windows and trials of the metrics."""
    standings: tuple[tuple[str, str, str], ...] = ()
    """Name, type and state of each metric."""

    @classmethod
    def of(cls, parent: Parent) -> Self:
        """Read the parent's status. What cannot be read is forgotten."""
        state = mapping(parent.status, "offloading")
        local_ready = parent.held.get("LocalReady")
        return cls(
            percentage=_share(state, "percentage"),
            reason=text(state, "reason"),
            since=time(state, "since"),
            unready_since=local_ready.since if local_ready is not None and local_ready.status == "False" else None,
            memory=_memory(state),
            standings=tuple(
                (text(one, "name"), text(one, "type"), text(one, "state"))
                for one in objects(state, "metrics", MOST_METRIC_STATES)
            ),
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The result of a rule: which backends get requests, and why."""

    percentage: int
    """Share of the requests that go to the remote backend."""
    reason: str
    """One of `hooks.reasons`."""
    message: str
    """Reason as a sentence, with nothing in it that changes by itself."""
    local: bool = True
    """Whether some request may ever reach the local backend."""
    remote: bool = True
    """Whether some request may ever reach the remote backend."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The split, and the time at which it may change by itself."""

    split: Split
    rule: str
    """Name of the rule that decided."""
    course: Course
    """Course of the metrics, whether or not another rule decided."""
    next_instant: datetime | None
    """Next time at which the decision may differ although no observed fact changes; None where there is none."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a rule may use."""

    facts: Facts
    previous: Previous
    course: Course
    now: datetime

    @property
    def behavior(self) -> OffloadingBehavior:
        """Return spec.offloadingConfig.behavior, or its default."""
        return behavior(self.facts.spec)

    @property
    def override(self) -> Override | None:
        """Return the override while it lasts, or None."""
        return _override(self.facts, self.now)

    @property
    def is_missing(self) -> bool:
        """Return whether a metric cannot be read. One that is only too early to read does not count."""
        return any(isinstance(one, Missing) and one.is_failure for one in self.facts.measures)

    @property
    def goes_down(self) -> bool:
        """Return whether the metrics allow requests to come back."""
        return self.course.memory.below_since is not None


Rule = Callable[[Case], Split | None]


def disabled(case: Case) -> Split | None:
    """A model that is not enabled is never offloaded."""
    if case.facts.spec.enabled:
        return None
    return Split(0, reasons.DISABLED, "The model is disabled: nothing is offloaded.", remote=False)


def nothing_to_offload_to(case: Case) -> Split | None:
    """Without a remote backend that can be reached, nothing is offloaded."""
    remote = case.facts.remote
    return None if isinstance(remote, Remote) else Split(0, remote.reason, remote.message, remote=False)


def policy_forbids(case: Case) -> Split | None:
    """Unless every policy is known here and allows the declared location and flavors of the remote backend, nothing is
    offloaded."""
    if not case.facts.refusals:
        return None
    refusal = case.facts.refusals[0]
    return Split(0, refusal.reason, refusal.message, remote=False)


def forced_override(case: Case) -> Split | None:
    """An override of mode Force sets the percentage whatever the replicas do, until it ends; 0 takes the remote backend
    out entirely, 100 the local one."""
    override = case.override
    if override is None or override.mode is not OverrideMode.FORCE:
        return None
    percentage = override.percentage if case.facts.has_local or override.percentage == 0 else 100
    message = "An override of mode Force sets the split until it ends."
    return Split(
        percentage,
        reasons.OVERRIDE_FORCED,
        message,
        local=override.percentage < 100,
        remote=override.percentage > 0,
    )


def no_ready_replica(case: Case) -> Split | None:
    """When no local replica has been ready for notReadyForSeconds, every request goes to the remote backend."""
    facts = case.facts
    if facts.readiness.is_ready:
        return None
    if facts.has_local and case.now < _not_ready_deadline(facts, case.previous, case.now):
        return None
    return Split(100, facts.readiness.reason, facts.readiness.message)


def override(case: Case) -> Split | None:
    """An override sets the percentage until it ends."""
    override = case.override
    if override is None:
        return None
    return Split(override.percentage, reasons.OVERRIDE, "An override sets the split until it ends.")


def returning(case: Case) -> Split | None:
    """When a replica is ready again, requests come back over returnSeconds, stepPercentage at a time."""
    share = _returning_share(case)
    if share <= (case.course.share or 0):
        return None
    return Split(share, reasons.RETURNING, "A replica is ready again: requests come back step by step.")


def metric_reached(case: Case) -> Split | None:
    """When a metric has been at its target for triggerWindowSeconds, the percentage goes to the remote backend; in mode
    proportional as much of it as brings the metric back to its target."""
    share = case.course.share
    return _reached(share) if share is not None and case.course.reached else None


def metric_missing(case: Case) -> Split | None:
    """When a metric cannot be read, onMissingMetrics says what it counts for: hold keeps the share, release takes it as
    below its target, offload as at its target."""
    if not case.is_missing:
        return None
    share, on_missing = case.course.share, case.behavior.on_missing_metrics
    if on_missing is OnMissingMetrics.RELEASE:
        return None
    if share is None:
        return Split(0, reasons.METRICS_MISSING, "A metric cannot be read, so nothing is offloaded.")
    effect = "it counts as at its target" if on_missing is OnMissingMetrics.OFFLOAD else "the share stays"
    return Split(share, reasons.METRICS_MISSING, f"A metric cannot be read, so {effect}: behavior.onMissingMetrics.")


def release(case: Case) -> Split | None:
    """While all metrics are below their targets, less the tolerance, requests come back after a window, soon where an
    estimate with more requests here allows it and later where none does; a metric that reaches its target again takes
    the last step back, and the next attempt waits longer."""
    share = case.course.share
    if share is None:
        return None
    if not case.goes_down:
        return _reached(share)
    return Split(
        share,
        reasons.RELEASING,
        "The metrics are below their targets: as long as they stay there, requests come back step by step.",
    )


def local(case: Case) -> Split | None:
    """Otherwise every request stays here."""
    if case.course.memory.reached_since is not None:
        return Split(0, reasons.LOCAL, "A metric is at its target: offloading begins after the trigger window.")
    return Split(0, reasons.LOCAL, "Nothing asks for offloading: requests are served locally.")


RULES: Final[tuple[Rule, ...]] = (
    disabled,
    nothing_to_offload_to,
    policy_forbids,
    forced_override,
    no_ready_replica,
    override,
    returning,
    metric_reached,
    metric_missing,
    release,
    local,
)
"""Rules in order. The first that decides wins, and the last always decides."""

BY_METRICS: Final = frozenset({reasons.METRIC_REACHED, reasons.METRICS_MISSING, reasons.RELEASING})
"""Reasons of a share that the metrics asked for."""


def decide(facts: Facts, previous: Previous, *, now: datetime) -> Decision:
    """Return the decision of the first rule that decides."""
    case = Case(facts, previous, _course(facts, previous, now), now)
    rule, split = next((rule, split) for rule in RULES if (split := rule(case)) is not None)
    course = case.course
    if split.reason not in BY_METRICS:
        course = replace(course, memory=course.memory.parked(course.share))
    return Decision(split, rule.__name__, course, _next_instant(case, split))


def _course(facts: Facts, previous: Previous, now: datetime) -> Course:
    """Return the course of the metrics. They are not followed where nothing may be offloaded."""
    if not facts.spec.enabled or not isinstance(facts.remote, Remote) or facts.refusals:
        return Course(NOTHING, None)
    in_force = InForce(
        percentage=previous.percentage or 0,
        since=previous.since,
        by_metrics=previous.reason in BY_METRICS,
        overridden=_override(facts, now) is not None,
        ready=facts.readiness.is_ready,
        scaling=facts.readiness.is_scaling,
        standings=_standings(facts, previous),
    )
    return advance(previous.memory, facts.measures, behavior(facts.spec), in_force, now=now)


def _standings(facts: Facts, previous: Previous) -> tuple[str, ...]:
    """Return the states of the metrics in the previous status, where they are of the same metrics."""
    configuration = facts.spec.offloading_config
    metrics = () if configuration is None else configuration.metrics
    if [(metric_name(metric), metric.type.value) for metric in metrics] != [one[:2] for one in previous.standings]:
        return ()
    return tuple(state for _, _, state in previous.standings)


def _reached(share: int) -> Split:
    message = "A metric has reached its target, and not all are far enough below theirs for requests to come back."
    return Split(share, reasons.METRIC_REACHED, message)


def _memory(state: Mapping[str, Any]) -> Memory:
    """Return the memory in a status; one of an earlier version has no trials."""
    attempts, claim = mapping(state, "attempts"), text(state, "claim")
    return Memory(
        time(state, "reachedSince"),
        time(state, "belowSince"),
        _share(state, "step"),
        _share(state, "heldShare"),
        next((one for one in Claim if one == claim), None),
        Attempts(_failures(attempts, "supported"), _failures(attempts, "blind")),
    )


def _failures(attempts: Mapping[str, Any], key: str) -> int:
    return min(MOST_FAILURES, max(0, integer(attempts, key) or 0))


def _share(state: Mapping[str, Any], key: str) -> int | None:
    """Return the share in percent under a key, or None where there is none."""
    value = integer(state, key)
    return value if value is not None and 0 <= value <= 100 else None


def behavior(spec: ModelDeploymentSpec) -> OffloadingBehavior:
    """Return spec.offloadingConfig.behavior, or its default."""
    configuration = spec.offloading_config
    return OffloadingBehavior() if configuration is None else configuration.behavior


def _override(facts: Facts, now: datetime) -> Override | None:
    """Return the override while it lasts, or None."""
    override = behavior(facts.spec).override
    return override if override is not None and now < override.until else None


def _not_ready_deadline(facts: Facts, previous: Previous, now: datetime) -> datetime:
    """Return the time at which a model without a ready replica is offloaded."""
    return not_ready_deadline(previous, behavior(facts.spec).not_ready_for_seconds, now)


def not_ready_deadline(previous: Previous, seconds: int, now: datetime) -> datetime:
    """Return the time at which `seconds` will have passed since the last replica was ready, given that none is ready
    now."""
    # Never later than from now on: status may contain a time in the future, which a user has written.
    since = min(previous.unready_since or now, now)
    return whole_seconds(since) + timedelta(seconds=seconds)


def _returning_share(case: Case) -> int:
    """Return the share that is still offloaded on the way back from no ready replica; 0 where there is no such way."""
    before, reason = case.previous.percentage or 0, case.previous.reason
    if not case.facts.readiness.is_ready or case.behavior.return_seconds == 0:
        return 0
    if reason == reasons.RETURNING and case.now < _next_step(case):
        return before
    return before - case.behavior.step_percentage if reason in reasons.READINESS or reason == reasons.RETURNING else 0


def _next_step(case: Case) -> datetime:
    """Return the time of the next step of the way back, after a step in the previous sync or in this one."""
    behavior, since = case.behavior, case.previous.since
    pause = timedelta(seconds=behavior.return_seconds) * behavior.step_percentage / 100
    return pause + (since if since is not None else whole_seconds(case.now))


def _next_instant(case: Case, split: Split) -> datetime | None:
    instants = [] if case.override is None else [case.override.until]
    deadline = _not_ready_deadline(case.facts, case.previous, case.now)
    if not case.facts.readiness.is_ready and deadline > case.now:
        instants.append(deadline)
    if case.course.next_instant is not None and case.course.next_instant > case.now:
        instants.append(case.course.next_instant)
    if split.reason == reasons.RETURNING:
        stays = split.percentage == case.previous.percentage
        previous = case.previous if stays else replace(case.previous, since=None)
        instants.append(_next_step(replace(case, previous=previous)))
    return min(instants, default=None)
