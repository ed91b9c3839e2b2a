"""Command that writes what each metric costs on the Azure trace into docs/offloading.md: `make metric-table`.

The figures are those of `beamlit-hooks simulate`, for two replicas that the trace keeps a little too busy.
"""

import gzip
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hooks.observation.observation import InstallDefaults
from hooks.simulate.durations import written
from hooks.simulate.outcome import Outcome
from hooks.simulate.request_plant import Engine
from hooks.simulate.requests import Request
from hooks.simulate.scenario import Case, Setting, prepare, simulate
from hooks.simulate.traces import read_trace
from tools.repository import ROOT

TRACE: Final = ROOT / "examples/traces/azure-conversation.csv.gz"
PAGE: Final = ROOT / "docs/offloading.md"
BEGIN: Final = "<!-- Written by `make metric-table`. -->\n"
END: Final = "<!-- End of what `make metric-table` writes. -->\n"

ENGINE: Final = Engine(speed=600.0, batch=32, prompt_speed=10_000.0, cache=36_000)
REPLICAS: Final = 2

_QUANTILE: Final = "histogram_quantile(0.9, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[1m])))"
_AVERAGE: Final = "AverageValue"


def _pods(name: str, target: str) -> Mapping[str, Any]:
    return {
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": name}, "target": {"type": _AVERAGE, "averageValue": target}},
            }
        ],
        "metricSource": {"type": "pods"},
    }


def _cpu(target: int) -> Mapping[str, Any]:
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
    return {"metrics": [{"type": "Resource", "resource": resource}]}


def _first_token(target: str) -> Mapping[str, Any]:
    external = {"metric": {"name": _QUANTILE}, "target": {"type": "Value", "value": target}}
    return {"metrics": [{"type": "External", "external": external}]}


METRICS: Final[Mapping[str, Mapping[str, Any]]] = {
    "waiting requests, 5 per pod": _pods("vllm:num_requests_waiting", "5"),
    "waiting requests, 20 per pod": _pods("vllm:num_requests_waiting", "20"),
    "running requests, 30 of 32": _pods("vllm:num_requests_running", "30"),
    "use of the cache, 95 %": _pods("vllm:kv_cache_usage_perc", "950m"),
    "use of the cache, 85 %": _pods("vllm:kv_cache_usage_perc", "850m"),
    "cpu, 90 % of what is requested": _cpu(90),
    "time to first token, p90 of 2 s": _first_token("2"),
}
"""Configurations of offloading by the words that the table has for their metrics."""

BEHAVIORS: Final[tuple[Mapping[str, Any], ...]] = ({}, {"percentage": 50}, {"mode": "proportional"})
"""Behaviors of each metric: the default, half of the requests, and proportional."""


def requests() -> list[Request]:
    """Return the requests of the trace."""
    with gzip.open(TRACE, "rt", encoding="utf-8") as lines:
        return read_trace(lines)


def outcome(trace: list[Request], config: Mapping[str, Any], *, enabled: bool = True) -> Outcome:
    """Return what comes of a configuration of offloading on a trace."""
    parent = {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat", "namespace": "default"},
        "spec": {
            "model": "chat",
            "enabled": enabled,
            "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            "offloadingConfig": {"remoteBackend": {"host": "models.example.com", "scheme": "https"}, **config},
        },
    }
    setting = Setting(
        trace, int(trace[-1].time) + 1, ENGINE, datetime(2026, 1, 1, tzinfo=UTC), InstallDefaults(), replicas=REPLICAS
    )
    return simulate(prepare(Case("", parent), setting, lambda: 0.0), setting).outcome


def _cell(outcome: Outcome) -> str:
    first = outcome.first_token.p95
    seconds = "-" if first is None else written(first)
    return f"{outcome.remote_share:.0f} %, {seconds}, {len(outcome.changes)}"


def rows(trace: list[Request]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, its head first."""
    yield ("remote share, time to first token (p95), changes", "100 % (default)", "50 %", "proportional")
    for name, config in METRICS.items():
        cells = [_cell(outcome(trace, {**config, "behavior": behavior})) for behavior in BEHAVIORS]
        yield (name, *cells)
    never = _cell(outcome(trace, METRICS["waiting requests, 5 per pod"], enabled=False))
    yield ("nothing is offloaded", never, "", "")


def table() -> str:
    """Return the table in Markdown."""
    head, *rest = rows(requests())
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, tuple("---" for _ in head), *rest))


def written_into(page: str, content: str) -> str:
    """Return a page with a table in the place of the one that it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main(path: Path = PAGE) -> None:
    """Write the table into the page, and print it."""
    content = table()
    path.write_text(written_into(path.read_text(encoding="utf-8"), content), encoding="utf-8")
    print(content, end="")


if __name__ == "__main__":
    main()
