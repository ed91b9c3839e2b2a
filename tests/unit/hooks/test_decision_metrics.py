"""The last decisions as metrics of hooks."""

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


def decide(kept: Decisions, *values: str | Unread, now: datetime = NOW, name: str = "demo", **behavior: object) -> None:
    """Record what a sync comes to for a model with so many metrics."""
    metrics = [external("queue" if place == 0 else f"queue-{place}") for place in range(len(values))]
    config: Json = {"remoteBackend": builders.REMOTE, "metrics": metrics, "behavior": behavior}
    observation = builders.observation(
        model_deployment(name, offloadingConfig=config),
        related=[workload()],
        readings=builders.readings(*values, now=now),
    )
    assessment = reconcile.decide_sync(observation, now=now).assessment
    assert assessment is not None
    kept.record(assessment, now=now)


def exposed(kept: Decisions) -> Series:
    """What a scrape sees, by name without prefix and labels."""
    registry = CollectorRegistry()
    registry.register(kept)
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
    """A metric at its target, within the trigger window: what is measured, and what happens at the window's end."""
    kept = Decisions()
    decide(kept, "150", "10", percentage=40, triggerWindowSeconds=30)
    second = QUEUE.replace("index=0,metric=queue", "index=1,metric=queue-1")
    assert exposed(kept) == {
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
    """Why it cannot be read is a label; no number is made up."""
    kept = Decisions()
    decide(kept, Unread(reasons.FORBIDDEN, "Hooks may not: allow it."))
    assert exposed(kept) == {
        ("decision_timestamp_seconds", MODEL): NOW.timestamp(),
        ("offloading_percentage", f"{MODEL},reason=MetricsMissing"): 0,
        ("metric_state", QUEUE.replace(",type", ",state=Forbidden,type")): 1,
    }


def test_only_models_with_metrics_are_told_of() -> None:
    """A model whose metrics are removed, or which is being deleted, is forgotten at once."""
    kept = Decisions()
    decide(kept, "1")
    decide(kept)
    assert exposed(kept) == {}
    decide(kept, "1")
    kept.forget("team-a", "demo")
    kept.forget("team-a", "demo")
    assert exposed(kept) == {}


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes when there are too many, and each one after five minutes."""
    monkeypatch.setattr(decision_metrics, "KEPT", 2)
    kept = Decisions()
    for number in range(4):
        decide(kept, "1", name=f"m{number}")
    shown = {labels for name, labels in exposed(kept) if name == "decision_timestamp_seconds"}
    assert shown == {"name=m2,namespace=team-a", "name=m3,namespace=team-a"}
    decide(kept, "1", name="late", now=NOW + LIFETIME + timedelta(seconds=1))
    shown = {labels for name, labels in exposed(kept) if name == "decision_timestamp_seconds"}
    assert shown == {"name=late,namespace=team-a"}
