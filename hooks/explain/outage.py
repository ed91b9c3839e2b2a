"""Outage: what would happen to the requests of a model if all its local replicas were gone now.

Nothing here decides. The split is the one that the rules give for no ready replica, and whether the remote backend
would serve is what the gateways' drills say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from hooks import reasons
from hooks.api.common import format_time
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends import proof
from hooks.backends.policies import Refusal
from hooks.backends.readiness import MESSAGES, Readiness
from hooks.backends.remote import Remote
from hooks.observation.drills import Drill
from hooks.observation.observation import Observation
from hooks.offloading.rules import Split, behavior, decide
from hooks.reconcile.assessment import assess
from hooks.reconcile.model_deployment import decide_sync

_REACHED: Final = frozenset({reasons.PROVEN, reasons.MODEL_UNKNOWN, reasons.FORBIDDEN})
"""Reasons of drills whose credentials were accepted, where there was a request."""
_CREDENTIALS: Final = frozenset({reasons.TOKEN_REFUSED, reasons.CREDENTIAL_MISSING})
"""Reasons of drills whose credentials were not."""


class State(StrEnum):
    """The result of one check."""

    GOOD = "good"
    BAD = "bad"
    WARNS = "warns"
    UNKNOWN = "unknown"
    NOTE = "note"
    """It changes nothing about whether requests would be served."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that requests depend on while no local replica is there."""

    name: str
    state: State
    message: str


@dataclass(frozen=True, slots=True)
class Outage:
    """What would happen if all local replicas were gone."""

    namespace: str
    name: str
    now: datetime
    split: Split
    """Split that would follow."""
    after: timedelta
    """Time after which it would be in force."""
    checks: tuple[Check, ...]

    @property
    def state(self) -> State:
        """Whether requests would be served: the worst of all checks."""
        states = {check.state for check in self.checks}
        return next((state for state in (State.BAD, State.UNKNOWN, State.WARNS) if state in states), State.GOOD)

    def with_checks(self, *checks: Check) -> "Outage":
        """Return the same with further checks."""
        return replace(self, checks=(*self.checks, *checks))


def outage(observation: Observation, *, now: datetime) -> Outage:
    """Return what would happen if all local replicas were gone now.

    Raises:
        hooks.api.common.InvalidObject: A value of the specification cannot be used.
        hooks.errors.NotAccepted: The specification cannot be in force.
        hooks.errors.HookError: A sync would respond with an error.
    """
    assessment = assess(observation, now=now)
    facts = assessment.facts
    gone = Readiness(0, reasons.NO_READY_REPLICA, MESSAGES[reasons.NO_READY_REPLICA])
    wait = behavior(facts.spec).not_ready_for_seconds
    split = decide(replace(facts, readiness=gone, spec=_at_once(facts.spec)), assessment.previous, now=now).split
    checks = [_split(split, wait), _policies(facts.refusals, facts.spec)]
    if isinstance(facts.remote, Remote) and split.remote:
        condition = decide_sync(observation, now=now).conditions.offload_ready
        drills = observation.drills[0].drills if observation.drills else ()
        checks.append(_remote(condition.status, condition.reason, condition.message))
        checks.append(_credentials(facts.remote, drills))
        checks.append(_model(facts.remote, drills))
    checks += _callers(facts.spec)
    parent = observation.parent
    after = timedelta(seconds=wait if split.reason in reasons.READINESS else 0)
    return Outage(parent.namespace, parent.name, now, split, after, tuple(checks))


def _at_once(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """Return a specification that waits for nothing before it offloads."""
    configuration = spec.offloading_config
    if configuration is None:
        return spec
    hasty = behavior(spec).model_copy(update={"not_ready_for_seconds": 0})
    return spec.model_copy(update={"offloading_config": configuration.model_copy(update={"behavior": hasty})})


def _split(split: Split, wait: int) -> Check:
    if split.percentage == 100:
        if wait and split.reason in reasons.READINESS:
            when = f"after {wait} s (behavior.notReadyForSeconds), and fail until then"
            return Check("split", State.WARNS, f"All requests go to the remote backend {when}.")
        return Check("split", State.GOOD, "All requests go to the remote backend.")
    if split.percentage == 0:
        return Check("split", State.BAD, f"No request goes to the remote backend, so all fail. {split.message}")
    return Check(
        "split",
        State.WARNS,
        f"{split.percentage} % of the requests go to the remote backend at once, the others only by failover. "
        f"{split.message}",
    )


def _policies(refused: tuple[Refusal, ...], spec: ModelDeploymentSpec) -> Check:
    if refused:
        return Check("policy", State.BAD, " ".join(refusal.message for refusal in refused))
    return Check("policy", State.GOOD, "Every policy allows it." if spec.policies else "There are no policies.")


def _remote(status: str, reason: str, message: str) -> Check:
    state = {"True": State.GOOD, "False": State.BAD}.get(status, State.UNKNOWN)
    if reason in (reasons.MODEL_UNKNOWN, reasons.FORBIDDEN) and status == "False":
        state = State.WARNS
    return Check("remote backend", state, f"{reason}: {message}")


def _credentials(remote: Remote, drills: tuple[Drill, ...]) -> Check:
    name = "credentials"
    refused = next((drill for drill in drills if drill.reason in _CREDENTIALS), None)
    if refused is not None:
        state = State.WARNS if any(drill.reason in _REACHED for drill in drills) else State.BAD
        return Check(name, state, refused.message or proof.MESSAGES[refused.reason])
    if remote.host and remote.credentials is None and not remote.secret_headers:
        return Check(name, State.GOOD, "The remote backend is configured without any.")
    if any(_was_asked(drill) for drill in drills):
        return Check(name, State.GOOD, "They were accepted when the remote backend was tried last.")
    if any(drill.reason in _REACHED for drill in drills):
        words = (
            "No request was sent since they changed last, and only one shows whether the remote backend accepts them:"
            " `kubectl beamlit drill --probe` sends one."
        )
        return Check(name, State.UNKNOWN, words)
    return Check(name, State.UNKNOWN, "No gateway has come as far as to need them.")


def _was_asked(drill: Drill) -> bool:
    """Return whether the remote backend has responded to a request of a drill or of a client with credentials."""
    return drill.served is not None or (drill.reason in _REACHED and drill.request != "none")


def _model(remote: Remote, drills: tuple[Drill, ...]) -> Check:
    name, called = "model name", f"{remote.model} at the remote backend"
    unknown = next((drill for drill in drills if drill.reason == reasons.MODEL_UNKNOWN), None)
    if unknown is not None:
        return Check(name, State.WARNS, unknown.message or proof.MESSAGES[unknown.reason])
    if any(drill.served is not None or (drill.reason == reasons.PROVEN and drill.by_traffic) for drill in drills):
        return Check(name, State.GOOD, f"The model is {called}, which has served a request for it.")
    return Check(name, State.GOOD, f"The model is {called}, which has not said otherwise.")


def _callers(spec: ModelDeploymentSpec) -> Iterator[Check]:
    """Yield what keeps single requests inside the cluster by the specification."""
    rule = None if spec.gateway is None else spec.gateway.local_only
    if rule is not None:
        values = ", ".join(rule.values)
        without = " or without it" if rule.missing == "local" else ""
        message = f"Requests with {rule.header}: {values}{without} never leave the cluster, and get status 503."
        yield Check("local only", State.WARNS, message)


def as_document(outage: Outage) -> dict[str, Any]:
    """Return the outage as a JSON object."""
    return {
        "namespace": outage.namespace,
        "name": outage.name,
        "now": format_time(outage.now),
        "state": outage.state.value,
        "split": {
            "percentage": outage.split.percentage,
            "reason": outage.split.reason,
            "message": outage.split.message,
            "afterSeconds": int(outage.after / timedelta(seconds=1)),
        },
        "checks": [
            {"name": check.name, "state": check.state.value, "message": check.message} for check in outage.checks
        ],
    }


_SENTENCES: Final = {
    State.GOOD: "requests would be served by the remote backend.",
    State.WARNS: "requests would be served by the remote backend, but for what is marked.",
    State.UNKNOWN: "it is not known whether requests would be served.",
    State.BAD: "requests would fail.",
}
_MARKS: Final = {State.GOOD: "ok", State.WARNS: "!", State.UNKNOWN: "?", State.BAD: "FAILS", State.NOTE: "-"}


def as_lines(outage: Outage) -> Iterator[str]:
    """Yield the outage as lines, the sum first."""
    yield f"{outage.namespace}/{outage.name}: if no local replica were left now, {_SENTENCES[outage.state]}"
    for check in outage.checks:
        yield f"{_MARKS[check.state]:>6}  {check.name}: {check.message}"
