"""An explanation for programs. Exact numbers are text: fractions as `19/16`, amounts as quantities of Kubernetes."""

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from hooks.api.common import format_time
from hooks.explain import Explanation
from hooks.explain.metrics import MetricAccount
from hooks.explain.outlook import Turn
from hooks.offloading.measures import Measured
from hooks.offloading.rules import Split


def as_document(told: Explanation) -> dict[str, Any]:
    """The explanation as JSON. What is not known is null."""
    return {
        "namespace": told.namespace,
        "name": told.name,
        "now": format_time(told.now),
        "answer": _split(told.split) | {"since": _time(told.since)},
        "accepted": told.accepted,
        "problems": [problem._asdict() for problem in told.problems],
        "rules": [
            {"name": rule.name, "sentence": rule.sentence, "verdict": rule.verdict.value, "why": rule.why}
            for rule in told.rules
        ],
        "metrics": [_metric(metric) for metric in told.metrics],
        "windows": {
            "reachedSince": _time(told.memory.reached_since),
            "belowSince": _time(told.memory.below_since),
            "step": told.memory.step,
            "ends": _time(told.window_ends),
        },
        "changes": [_turn(turn) for turn in told.turns],
    }


def _split(split: Split) -> dict[str, Any]:
    return {"percentage": split.percentage, "reason": split.reason, "message": split.message}


def _metric(metric: MetricAccount) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": metric.name,
        "type": metric.type.value,
        "target": metric.target,
        "state": metric.state,
        "leftOut": [{"name": pod.name, "why": pod.why.value} for pod in metric.measure.left_out],
    }
    if not isinstance(metric.measure, Measured):
        return told | {"reason": metric.measure.reason, "message": metric.measure.message, "advice": metric.advice}
    return told | {
        "arithmetic": metric.measure.arithmetic,
        "ratio": str(metric.measure.ratio),
        "percent": float(metric.measure.ratio * 100),
        "estimate": _fraction(metric.estimate),
        "estimatedShare": metric.estimated_share,
        "ageSeconds": _seconds(metric.age),
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "when": turn.when,
        "metrics": [
            {
                "metric": one.metric,
                "name": one.name,
                "below" if one.below else "atLeast": str(one.value),
                "present": str(one.present),
            }
            for one in turn.thresholds
        ],
        "afterSeconds": _seconds(turn.after),
        "at": format_time(turn.at),
        "then": _split(turn.then),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _fraction(value: Fraction | None) -> str | None:
    return None if value is None else str(value)


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length / timedelta(seconds=1)
