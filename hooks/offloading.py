"""How much is offloaded, and why: rules in order, of which the first that answers wins."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from hooks import reasons
from hooks.api.v1alpha1 import ModelDeploymentSpec, OffloadingBehavior, Override, OverrideMode
from hooks.fields import integer, mapping, text, time
from hooks.observation import Observation, Parent, Unresolved
from hooks.policies import Refusal
from hooks.readiness import Readiness
from hooks.remote import Remote


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a rule may look at, besides what was before and what time it is."""

    spec: ModelDeploymentSpec
    observation: Observation
    readiness: Readiness
    """Of the local replicas."""
    has_local: bool
    """Whether there is a local backend at all, ready or not."""
    remote: Remote | Unresolved
    """The remote backend, or why there is none."""
    refusals: tuple[Refusal, ...]
    """What policies have against it."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The memory: what the previous status says. Without one, nothing was before."""

    percentage: int | None
    reason: str
    since: datetime | None
    """When percentage or reason changed last."""
    unready_since: datetime | None
    """Since when no local replica has been ready; None when one was, or when it is not known."""

    @classmethod
    def of(cls, parent: Parent) -> Self:
        """What the parent's status remembers. What cannot be read is forgotten."""
        state = mapping(parent.status, "offloading")
        local_ready = parent.held.get("LocalReady")
        return cls(
            percentage=integer(state, "percentage"),
            reason=text(state, "reason"),
            since=time(state, "since"),
            unready_since=local_ready.since if local_ready is not None and local_ready.status == "False" else None,
        )


@dataclass(frozen=True, slots=True)
class Split:
    """What a rule answers."""

    percentage: int
    """Share of the requests that go to the remote backend."""
    reason: str
    """One of `hooks.reasons`."""
    message: str
    """The reason as a sentence, without anything that changes by itself."""
    local: bool = True
    """Whether some request may ever reach the local backend."""
    remote: bool = True
    """Whether some request may ever reach the remote backend."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The split, and when it may change without anything happening."""

    split: Split
    next_instant: datetime | None
    """The next moment at which the answer may be another although nothing was observed to change."""


Rule = Callable[[Facts, Previous, datetime], Split | None]


def disabled(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """A model that is not enabled is never offloaded."""
    if facts.spec.enabled:
        return None
    return Split(0, reasons.DISABLED, "The model is disabled: nothing is offloaded.", remote=False)


def nothing_to_offload_to(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """Without a remote backend that can be reached, nothing is offloaded."""
    if isinstance(facts.remote, Remote):
        return None
    return Split(0, facts.remote.reason, facts.remote.message, remote=False)


def policy_forbids(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """Unless every policy is known here and allows the declared location and flavors of the remote backend, nothing is
    offloaded."""
    if not facts.refusals:
        return None
    refusal = facts.refusals[0]
    return Split(0, refusal.reason, refusal.message, remote=False)


def forced_override(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """An override of mode Force sets the percentage whatever the replicas do, until it ends; 0 takes the remote backend
    out entirely, 100 the local one."""
    override = _override(facts, now)
    if override is None or override.mode is not OverrideMode.FORCE:
        return None
    percentage = override.percentage if facts.has_local or override.percentage == 0 else 100
    message = "An override of mode Force sets the split until it ends."
    return Split(
        percentage,
        reasons.OVERRIDE_FORCED,
        message,
        local=override.percentage < 100,
        remote=override.percentage > 0,
    )


def no_ready_replica(facts: Facts, previous: Previous, now: datetime) -> Split | None:
    """When no local replica has been ready for notReadyForSeconds, every request goes to the remote backend."""
    if facts.readiness.is_ready:
        return None
    if facts.has_local and now < _not_ready_deadline(facts, previous, now):
        return None
    return Split(100, facts.readiness.reason, facts.readiness.message)


def override(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """An override sets the percentage until it ends."""
    override = _override(facts, now)
    if override is None:
        return None
    return Split(override.percentage, reasons.OVERRIDE, "An override sets the split until it ends.")


def local(facts: Facts, previous: Previous, now: datetime) -> Split | None:  # noqa: ARG001
    """Otherwise every request stays here."""
    return Split(0, reasons.LOCAL, "Nothing asks for offloading: requests are served locally.")


RULES: Final[tuple[Rule, ...]] = (
    disabled,
    nothing_to_offload_to,
    policy_forbids,
    forced_override,
    no_ready_replica,
    override,
    # Metrics belong here: a metric at its target for the trigger window, a missing metric, a release window or ramp.
    local,
)
"""In order; the first that answers wins, and the last always does."""


def decide(facts: Facts, previous: Previous, *, now: datetime) -> Decision:
    """Apply the rules."""
    split = next(split for rule in RULES if (split := rule(facts, previous, now)) is not None)
    return Decision(split, _next_instant(facts, previous, now))


def whole_seconds(moment: datetime) -> datetime:
    """The moment as it is stored: Kubernetes keeps no fractions."""
    return moment.replace(microsecond=0)


def _behavior(facts: Facts) -> OffloadingBehavior | None:
    configuration = facts.spec.offloading_config
    return None if configuration is None else configuration.behavior


def _override(facts: Facts, now: datetime) -> Override | None:
    """The override, while it lasts."""
    behavior = _behavior(facts)
    override = None if behavior is None else behavior.override
    return override if override is not None and now < override.until else None


def _not_ready_deadline(facts: Facts, previous: Previous, now: datetime) -> datetime:
    """When a model without a ready replica is offloaded."""
    behavior = _behavior(facts)
    seconds = 0 if behavior is None else behavior.not_ready_for_seconds
    return not_ready_deadline(previous, seconds, now)


def not_ready_deadline(previous: Previous, seconds: int, now: datetime) -> datetime:
    """When `seconds` will have passed since the last replica was ready, given that none is now."""
    # Never later than from now on: somebody may have written a time to come into status.
    since = min(previous.unready_since or now, now)
    return whole_seconds(since) + timedelta(seconds=seconds)


def _next_instant(facts: Facts, previous: Previous, now: datetime) -> datetime | None:
    override = _override(facts, now)
    instants = [] if override is None else [override.until]
    deadline = _not_ready_deadline(facts, previous, now)
    if not facts.readiness.is_ready and deadline > now:
        instants.append(deadline)
    return min(instants, default=None)
