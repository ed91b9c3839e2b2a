"""Conditions of a ModelDeployment: for each aspect of its state a reason for programs and a sentence for people."""

from dataclasses import dataclass
from typing import Final

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends import proof
from hooks.backends.policies import MAX_TOLD, Refusal
from hooks.backends.proof import Verdict
from hooks.backends.readiness import Readiness
from hooks.kube.unstructured import mapping, text
from hooks.observation.conditions import Condition
from hooks.observation.observation import Observation, Unresolved
from hooks.offloading.hysteresis import Course, Standing
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.rules import Split
from hooks.offloading.targets import metric_name
from hooks.reconcile.status import MetricStanding
from hooks.reconcile.synced import Comparison

MAX_NAME: Final = 80
"""Most characters of a metric's name that a message repeats."""


@dataclass(frozen=True, slots=True)
class ModelConditions:
    """All conditions of a ModelDeployment but Registered, which is known only when the platform has responded."""

    accepted: Condition
    refs_resolved: Condition
    local_ready: Condition
    metrics_available: Condition
    offloading: Condition
    offload_ready: Condition
    policy_satisfied: Condition
    synced: Condition
    ready: Condition
    warnings: tuple[Condition, ...]

    def in_order(self, registered: Condition) -> tuple[Condition, ...]:
        """Return these conditions and the condition Registered, in the order in which status has them."""
        return (
            self.accepted,
            self.refs_resolved,
            self.local_ready,
            self.metrics_available,
            self.offloading,
            self.offload_ready,
            self.policy_satisfied,
            registered,
            self.synced,
            self.ready,
            *self.warnings,
        )


def references_resolved(unresolved: tuple[Unresolved, ...]) -> Condition:
    """Return the condition RefsResolved: whether everything that the specification refers to was found."""
    if not unresolved:
        return Condition("RefsResolved", "True", reasons.REFERENCES_RESOLVED, "Everything referred to was found.")
    messages = dict.fromkeys(result.message for result in unresolved)
    return Condition("RefsResolved", "False", unresolved[0].reason, " ".join(messages))


def local_ready(readiness: Readiness) -> Condition:
    """Return the condition LocalReady: whether a local replica is ready."""
    return Condition("LocalReady", "True" if readiness.is_ready else "False", readiness.reason, readiness.message)


def metrics_available(metrics: tuple[MetricSpec, ...], measures: tuple[Measured | Missing, ...]) -> Condition:
    """Return the condition MetricsAvailable: whether every metric can be read.

    A metric that is awaited after a change counts as one that can be read.
    """
    if not metrics:
        return Condition("MetricsAvailable", "True", reasons.NO_METRICS, "The specification has no metrics.")
    missing = [(metric, one) for metric, one in zip(metrics, measures, strict=True) if isinstance(one, Missing)]
    if not_asked := next((one for _, one in missing if one.reason == reasons.NOT_EVALUATED), None):
        return Condition("MetricsAvailable", "Unknown", not_asked.reason, not_asked.message)
    failures = [(metric, one) for metric, one in missing if one.is_failure]
    if not failures:
        return Condition("MetricsAvailable", "True", reasons.METRICS_READ, "Every metric can be read.")
    messages = [f"{shortened(metric_name(metric))}: {one.message}" for metric, one in failures[:MAX_TOLD]]
    if len(failures) > MAX_TOLD:
        messages.append(f"{len(failures) - MAX_TOLD} more are like it.")
    return Condition("MetricsAvailable", "False", failures[0][1].reason, " ".join(messages))


def shortened(name: str) -> str:
    """Return a metric's name, cut to MAX_NAME characters: a name may be a whole query."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def standings(
    metrics: tuple[MetricSpec, ...], measures: tuple[Measured | Missing, ...], course: Course
) -> tuple[MetricStanding, ...]:
    """Return the entries of `status.offloading.metrics`, one for each metric."""
    states = course.standings or (Standing.UNKNOWN,) * len(metrics)
    return tuple(
        MetricStanding(metric_name(metric), metric.type, one.reason if isinstance(one, Missing) else state)
        for metric, one, state in zip(metrics, measures, states, strict=True)
    )


def offloading(split: Split) -> Condition:
    """Return the condition Offloading: whether requests go to the remote backend."""
    return Condition("Offloading", "True" if split.percentage > 0 else "False", split.reason, split.message)


def offload_ready(split: Split, verdict: Verdict) -> Condition:
    """Return the condition OffloadReady: whether the remote backend would serve a request if it got one now.

    It is False where no request may ever reach a remote backend, for the reason why that is so.
    """
    return verdict.condition if split.remote else Condition(proof.TYPE, "False", split.reason, split.message)


def policy_satisfied(spec: ModelDeploymentSpec, refused: tuple[Refusal, ...]) -> Condition:
    """Return the condition PolicySatisfied: whether every policy allows the remote backend."""
    if not spec.policies:
        return Condition("PolicySatisfied", "True", reasons.NO_POLICIES, "The specification has no policies.")
    if not refused:
        message = "Every policy allows the remote backend, or there is none."
        return Condition("PolicySatisfied", "True", reasons.POLICIES_SATISFIED, message)
    messages = [refusal.message for refusal in refused[:MAX_TOLD]]
    if len(refused) > MAX_TOLD:
        messages.append(f"{len(refused) - MAX_TOLD} more are like it.")
    return Condition("PolicySatisfied", "False", refused[0].reason, " ".join(messages))


def synced(comparison: Comparison) -> Condition:
    """Return the condition Synced: whether the observed children equal the desired ones."""
    return Condition("Synced", "True" if comparison.in_sync else "False", comparison.reason, comparison.message)


def ready(
    accepted: Condition,
    refs_resolved: Condition,
    synced: Condition,
    *,
    serving: bool,
    deleting: bool,
    remote_alone: Verdict | None = None,
    local_only: bool = False,
) -> Condition:
    """Return the condition Ready, which sums up the others.

    Args:
        accepted: the condition Accepted; False makes the model not ready.
        refs_resolved: the condition RefsResolved; the same.
        synced: the condition Synced; the same.
        serving: whether requests are served, locally or remotely.
        deleting: whether the ModelDeployment is being deleted.
        remote_alone: what drills say of the remote backend, where no request can be served locally; None where one can.
            A backend that is known to fail makes the model not ready.
        local_only: whether nothing but the remote backend is unresolved. The model is then ready if it is served
            locally.
    """
    if deleting:
        return Condition("Ready", "False", reasons.TERMINATING, "The ModelDeployment is being deleted.")
    for condition, reason in (
        (accepted, reasons.NOT_ACCEPTED),
        (refs_resolved, reasons.REFERENCES_UNRESOLVED),
        (synced, reasons.NOT_SYNCED),
    ):
        if condition.status == "False" and not (local_only and condition is refs_resolved):
            return Condition("Ready", "False", reason, condition.message)
    if not serving:
        message = "No local replica is ready and nothing is offloaded: requests fail."
        return Condition("Ready", "False", reasons.NO_BACKEND, message)
    if remote_alone is not None and remote_alone.fails:
        message = f"No request can be served locally, and the remote backend fails. {remote_alone.message}"
        return Condition("Ready", "False", reasons.REMOTE_FAILS, message)
    if remote_alone is not None and remote_alone.status == "False":
        message = f"Requests are served by the remote backend alone, and it may fail. {remote_alone.message}"
        return Condition("Ready", "True", reasons.SERVING, message)
    if local_only:
        message = f"Requests are served by the local replicas alone. {refs_resolved.message}"
        return Condition("Ready", "True", reasons.SERVING, message)
    return Condition("Ready", "True", reasons.SERVING, "Requests are served.")


def warnings(comparison: Comparison, observation: Observation) -> tuple[Condition, ...]:
    """Return the conditions that a status has only when something is wrong: InlineSecret and ChildConflict."""
    conditions = []
    remote = mapping(mapping(observation.parent.spec, "offloadingConfig"), "remoteBackend")
    if text(mapping(mapping(remote, "authConfig"), "oauthConfig"), "clientSecret"):
        message = (
            "spec.offloadingConfig.remoteBackend.authConfig.oauthConfig.clientSecret is readable by everyone who"
            " can read this object: move it to a Secret and name that in clientSecretRef."
        )
        conditions.append(Condition("InlineSecret", "True", reasons.INLINE_SECRET, message))
    if comparison.conflicts:
        message = (
            f"Asked for and never appeared: {', '.join(map(str, comparison.conflicts))}. Where the API server refused"
            " to create it, a SyncError among the events of this object says why. Without such an event another object"
            " has that name: rename or delete it."
        )
        conditions.append(Condition("ChildConflict", "True", reasons.NOT_CREATED, message))
    return tuple(conditions)
