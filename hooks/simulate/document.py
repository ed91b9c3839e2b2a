"""Results of a simulation as JSON. Names of fields stay as they are from version to version."""

from collections.abc import Sequence
from typing import Any

from hooks.simulate.outcome import FirstToken, Outcome, Slice, Traffic
from hooks.simulate.scenario import Result


def as_document(title: str, results: Sequence[Result], problems: Sequence[str]) -> dict[str, Any]:
    """Return everything that was found.

    Args:
        title: what was simulated, in one line.
        results: results, the first being the manifest as it is written.
        problems: sentences about the limits that were exceeded.
    """
    return {"title": title, "exceeded": list(problems), "results": [_result(one) for one in results]}


def _result(result: Result) -> dict[str, Any]:
    found = result.outcome
    return {
        "name": result.case.name,
        "comparison": result.case.is_comparison,
        "notes": list(result.notes),
        **_figures(found),
        "changes": [{"time": one.time, "share": one.share, "reason": one.reason} for one in found.changes],
        "slices": [_slice(one) for one in found.slices],
    }


def _figures(found: Outcome) -> dict[str, Any]:
    return {
        "seconds": found.seconds,
        "requests": found.requests,
        "unfinished": found.unfinished,
        "local": _traffic(found.local),
        "remote": _traffic(found.remote),
        "remoteShare": round(found.remote_share, 3),
        "remoteTokenShare": round(found.remote_token_share, 3),
        "averageShare": round(found.average_share, 3),
        "timeToFirstToken": _first_token(found.first_token),
        "timeToFirstTokenLocal": _first_token(found.first_token_local),
        "replicaHours": round(found.replica_hours, 4),
        "cost": {
            "remote": round(found.remote_cost, 6),
            "replicas": round(found.replica_cost, 6),
            "all": round(found.cost, 6),
        },
    }


def _traffic(traffic: Traffic) -> dict[str, int]:
    return {
        "requests": traffic.requests,
        "promptTokens": traffic.prompt,
        "generatedTokens": traffic.generated,
        "tokens": traffic.tokens,
    }


def _first_token(times: FirstToken) -> dict[str, float | None]:
    return {
        name: None if seconds is None else round(seconds, 6)
        for name, seconds in (("p50", times.p50), ("p95", times.p95), ("p99", times.p99))
    }


def _slice(one: Slice) -> dict[str, float | None]:
    return {
        "start": round(one.start, 3),
        "seconds": round(one.seconds, 3),
        "requestsPerSecond": round(one.rate, 4),
        "share": round(one.share, 3),
        "remoteShare": round(one.remote, 3),
        "waiting": round(one.waiting, 3),
        "running": round(one.running, 3),
        "readyReplicas": round(one.ready, 3),
        "timeToFirstTokenP95": None if one.first_token is None else round(one.first_token, 6),
    }
