"""Explanations as JSON. Exact numbers are text: fractions as `19/16`, amounts as quantities of Kubernetes."""

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from hooks.api.common import format_time
from hooks.explain import Explanation
from hooks.explain.metrics import MetricAccount
from hooks.explain.outlook import Turn
from hooks.observation.drills import Drill
from hooks.offloading.measures import Measured
from hooks.offloading.rules import Split


def as_document(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as a JSON object. What is not known is null."""
    return {
        "namespace": explanation.namespace,
        "name": explanation.name,
        "now": format_time(explanation.now),
        "answer": _split(explanation.split) | {"since": _time(explanation.since)},
        "accepted": explanation.accepted,
        "problems": [problem._asdict() for problem in explanation.problems],
        "rules": [
            {"name": rule.name, "sentence": rule.sentence, "verdict": rule.verdict.value, "why": rule.why}
            for rule in explanation.rules
        ],
        "metrics": [_metric(metric) for metric in explanation.metrics],
        "windows": {
            "reachedSince": _time(explanation.memory.reached_since),
            "belowSince": _time(explanation.memory.below_since),
            "step": explanation.memory.step,
            "heldShare": explanation.memory.held,
            "claim": explanation.memory.claim,
            "attempts": {
                "supported": explanation.memory.attempts.supported,
                "blind": explanation.memory.attempts.blind,
            },
            "ends": _time(explanation.window_ends),
        },
        "offloadReady": None if explanation.offload_ready is None else explanation.offload_ready._asdict(),
        "drills": [_drill(drill) for drill in explanation.drills],
        "changes": [_turn(turn) for turn in explanation.turns],
        "gateway": list(explanation.gateway),
    }


def _drill(drill: Drill) -> dict[str, Any]:
    return {
        "gateway": drill.gateway or None,
        "reason": drill.reason,
        "message": drill.message,
        "consecutiveFailures": drill.failures,
        "observedTime": _time(drill.observed),
        "lastSuccessTime": _time(drill.succeeded),
        "by": "traffic" if drill.by_traffic else "drill",
    }


def _split(split: Split) -> dict[str, Any]:
    return {"percentage": split.percentage, "reason": split.reason, "message": split.message}


def _metric(metric: MetricAccount) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": metric.name,
        "type": metric.type.value,
        "target": metric.target,
        "pages": metric.pages,
        "state": metric.state,
        "leftOut": [{"name": pod.name, "why": pod.why.value} for pod in metric.measure.left_out],
    }
    if not isinstance(metric.measure, Measured):
        return fields | {"reason": metric.measure.reason, "message": metric.measure.message, "advice": metric.advice}
    return fields | {
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
