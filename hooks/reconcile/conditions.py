"""What is true of a ModelDeployment, condition by condition: a reason for programs, a sentence for people."""

from typing import Final

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends.policies import MAX_TOLD, Refusal
from hooks.backends.readiness import Readiness
from hooks.kube.unstructured import mapping, text
from hooks.observation.conditions import Condition
from hooks.observation.observation import Observation, Unresolved
from hooks.offloading.hysteresis import Course, Standing
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.rules import Split
from hooks.offloading.targets import metric_name
from hooks.reconcile.status import MetricStanding
from hooks.reconcile.synced import Applied

MAX_NAME: Final = 80
"""Characters of a metric's name that a message repeats."""


def references_resolved(unresolved: tuple[Unresolved, ...]) -> Condition:
    """RefsResolved: whether everything was found that the specification refers to."""
    if not unresolved:
        return Condition("RefsResolved", "True", reasons.REFERENCES_RESOLVED, "Everything referred to was found.")
    messages = dict.fromkeys(result.message for result in unresolved)
    return Condition("RefsResolved", "False", unresolved[0].reason, " ".join(messages))


def local_ready(ready: Readiness) -> Condition:
    """LocalReady: whether a local replica is ready."""
    return Condition("LocalReady", "True" if ready.is_ready else "False", ready.reason, ready.message)


def metrics_available(metrics: tuple[MetricSpec, ...], measures: tuple[Measured | Missing, ...]) -> Condition:
    """MetricsAvailable: whether every metric can be read. That it takes time after a change is no failure."""
    if not metrics:
        return Condition("MetricsAvailable", "True", reasons.NO_METRICS, "The specification has no metrics.")
    missing = [(metric, one) for metric, one in zip(metrics, measures, strict=True) if isinstance(one, Missing)]
    if not_asked := next((one for _, one in missing if one.reason == reasons.NOT_EVALUATED), None):
        return Condition("MetricsAvailable", "Unknown", not_asked.reason, not_asked.message)
    failures = [(metric, one) for metric, one in missing if one.is_failure]
    if not failures:
        return Condition("MetricsAvailable", "True", reasons.METRICS_READ, "Every metric can be read.")
    messages = [f"{shown(metric_name(metric))}: {one.message}" for metric, one in failures[:MAX_TOLD]]
    if len(failures) > MAX_TOLD:
        messages.append(f"{len(failures) - MAX_TOLD} more are like it.")
    return Condition("MetricsAvailable", "False", failures[0][1].reason, " ".join(messages))


def shown(name: str) -> str:
    """A name, or the beginning of one that is a whole query."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def standings(
    metrics: tuple[MetricSpec, ...], measures: tuple[Measured | Missing, ...], course: Course
) -> tuple[MetricStanding, ...]:
    """What status says of each metric: how it stands, or why it cannot be read."""
    states = course.standings or (Standing.UNKNOWN,) * len(metrics)
    return tuple(
        MetricStanding(metric_name(metric), metric.type, one.reason if isinstance(one, Missing) else state)
        for metric, one, state in zip(metrics, measures, states, strict=True)
    )


def offloading(split: Split) -> Condition:
    """Offloading: whether requests go elsewhere, and why."""
    return Condition("Offloading", "True" if split.percentage > 0 else "False", split.reason, split.message)


def policy_satisfied(spec: ModelDeploymentSpec, refused: tuple[Refusal, ...]) -> Condition:
    """PolicySatisfied: whether every policy allows the remote backend."""
    if not spec.policies:
        return Condition("PolicySatisfied", "True", reasons.NO_POLICIES, "The specification has no policies.")
    if not refused:
        message = "Every policy allows the remote backend, or there is none."
        return Condition("PolicySatisfied", "True", reasons.POLICIES_SATISFIED, message)
    messages = [refusal.message for refusal in refused[:MAX_TOLD]]
    if len(refused) > MAX_TOLD:
        messages.append(f"{len(refused) - MAX_TOLD} more are like it.")
    return Condition("PolicySatisfied", "False", refused[0].reason, " ".join(messages))


def synced(applied: Applied) -> Condition:
    """Synced: whether the children are as desired."""
    return Condition("Synced", "True" if applied.in_sync else "False", applied.reason, applied.message)


def warnings(applied: Applied, observation: Observation) -> list[Condition]:
    """Conditions that are there only when something is wrong."""
    found = []
    remote = mapping(mapping(observation.parent.spec, "offloadingConfig"), "remoteBackend")
    if text(mapping(mapping(remote, "authConfig"), "oauthConfig"), "clientSecret"):
        message = (
            "spec.offloadingConfig.remoteBackend.authConfig.oauthConfig.clientSecret is readable by whoever can read"
            " this object: move it to a Secret and name that in clientSecretRef."
        )
        found.append(Condition("InlineSecret", "True", reasons.INLINE_SECRET, message))
    if applied.conflicts:
        message = (
            f"Asked for and never appeared: {', '.join(map(str, applied.conflicts))}. Another object has that name, or"
            " the controller may not create it: rename or delete that object, or look at the controller's events."
        )
        found.append(Condition("ChildConflict", "True", reasons.NAME_TAKEN, message))
    return found
