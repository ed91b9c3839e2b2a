"""The last decisions, as metrics of hooks."""

from datetime import datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hooks import decision_metrics, reasons
from hooks.decision_metrics import LIFETIME, Decisions
from hooks.observation.readings import Unread
from hooks.reconcile import model_deployment as reconcile
from tests import builders
from tests.builders import NOW, Json, external, model_deployment, workload

Series = dict[tuple[str, str], float]
MODEL = "name=demo,namespace=team-a"
QUEUE = "index=0,metric=queue,name=demo,namespace=team-a,type=External"


def decide(
    decisions: Decisions, *values: str | Unread, now: datetime = NOW, name: str = "demo", **behavior: object
) -> None:
    """Record the decision of a sync for a model with one metric for each value."""
    metrics = [external("queue" if place == 0 else f"queue-{place}") for place in range(len(values))]
    config: Json = {"remoteBackend": builders.REMOTE, "metrics": metrics, "behavior": behavior}
    observation = builders.observation(
        model_deployment(name, offloadingConfig=config),
        related=[workload()],
        readings=builders.readings(*values, now=now),
    )
    assessment = reconcile.decide_sync(observation, now=now).assessment
    assert assessment is not None
    decisions.record(assessment, now=now)


def exposed(decisions: Decisions) -> Series:
    """Return what a scrape sees: values by name without prefix, and labels."""
    registry = CollectorRegistry()
    registry.register(decisions)
    text = generate_latest(registry).decode()
    return {
        (
            sample.name.removeprefix("beamlit_hooks_"),
            ",".join(f"{label}={value}" for label, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_values_targets_and_what_comes_next() -> None:
    """A metric at its target is exposed with its value and target, and with what follows at the end of its window."""
    decisions = Decisions()
    decide(decisions, "150", "10", percentage=40, triggerWindowSeconds=30)
    second = QUEUE.replace("index=0,metric=queue", "index=1,metric=queue-1")
    assert exposed(decisions) == {
        ("decision_timestamp_seconds", MODEL): NOW.timestamp(),
        ("offloading_percentage", f"{MODEL},reason=Local"): 0,
        ("offloading_next_timestamp_seconds", MODEL): NOW.timestamp() + 30,
        ("offloading_next_percentage", MODEL): 40,
        ("metric_value", QUEUE): 150,
        ("metric_target", QUEUE): 100,
        ("metric_ratio", QUEUE): 1.5,
        ("metric_state", QUEUE.replace(",type", ",state=Reached,type")): 1,
        ("metric_value", second): 10,
        ("metric_target", second): 100,
        ("metric_ratio", second): 0.1,
        ("metric_state", second.replace(",type", ",state=Below,type")): 1,
    }


def test_a_missing_metric_has_a_state_and_no_value() -> None:
    """A metric that cannot be read has its reason as a label, and no value."""
    decisions = Decisions()
    decide(decisions, Unread(reasons.FORBIDDEN, "Hooks may not: allow it."))
    assert exposed(decisions) == {
        ("decision_timestamp_seconds", MODEL): NOW.timestamp(),
        ("offloading_percentage", f"{MODEL},reason=MetricsMissing"): 0,
        ("metric_state", QUEUE.replace(",type", ",state=Forbidden,type")): 1,
    }


def test_only_models_with_metrics_are_exposed() -> None:
    """The decision about a model is dropped at once when it has no metrics any more, or is deleted."""
    decisions = Decisions()
    decide(decisions, "1")
    decide(decisions)
    assert exposed(decisions) == {}
    decide(decisions, "1")
    decisions.forget("team-a", "demo")
    decisions.forget("team-a", "demo")
    assert exposed(decisions) == {}


def test_decisions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest decision is dropped above the bound, and each one after its lifetime."""
    monkeypatch.setattr(decision_metrics, "MAX_MODELS", 2)
    decisions = Decisions()
    for number in range(4):
        decide(decisions, "1", name=f"m{number}")
    shown = {labels for name, labels in exposed(decisions) if name == "decision_timestamp_seconds"}
    assert shown == {"name=m2,namespace=team-a", "name=m3,namespace=team-a"}
    decide(decisions, "1", name="late", now=NOW + LIFETIME + timedelta(seconds=1))
    shown = {labels for name, labels in exposed(decisions) if name == "decision_timestamp_seconds"}
    assert shown == {"name=late,namespace=team-a"}
