"""Generator of the page of metrics, from what both programs expose, with the names that OpenTelemetry has for them."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry

from gateway.drill.metrics import DrillMetrics
from gateway.telemetry import Metrics as GatewayMetrics
from hooks.decision_metrics import Decisions
from hooks.telemetry import Metrics as HooksMetrics

_INTRODUCTION: Final = """\
What `/metrics` of the gateway's admin port and of hooks has. A route is `namespace` and `model`, and `backend` is the
id of one of its backends, `none` where the gateway itself responded; no label has a value that a client can choose.
Names and labels stay as they are in later versions. The series of a route go with it.

Beside a metric stands what [OpenTelemetry's conventions](https://opentelemetry.io/docs/specs/semconv/gen-ai/) for
generative AI call the same thing. Their metrics are about one server; these are measured in front of all servers, so
that a request that was tried at two of them counts once."""

SEMANTIC_CONVENTIONS: Final[Mapping[str, str]] = {
    "beamlit_gateway_request_seconds": "`gen_ai.server.request.duration`",
    "beamlit_gateway_first_token_seconds": "`gen_ai.server.time_to_first_token`",
    "beamlit_gateway_between_tokens_seconds": "`gen_ai.server.time_per_output_token`",
    "beamlit_gateway_tokens_total": "`gen_ai.client.token.usage`; `direction` is `gen_ai.token.type`",
}
"""Names in the semantic conventions of OpenTelemetry for generative AI, of the metrics that have one."""


def gateway_registry() -> CollectorRegistry:
    """Return the metrics of a gateway that has served nothing."""
    registry = GatewayMetrics().registry
    registry.register(DrillMetrics(lambda: iter(())))
    return registry


def hooks_registry() -> CollectorRegistry:
    """Return the metrics of hooks that have decided nothing, with those of decisions."""
    registry = HooksMetrics().registry
    registry.register(Decisions())
    return registry


def page() -> str:
    """Return the content of docs/reference/metrics.md."""
    lines = [
        "<!-- Generated from the metrics of both programs and tools/metrics_reference.py by `make generate`. -->\n",
        "# Metrics of the programs\n",
        _INTRODUCTION,
        "\n## Gateway\n",
        "| metric | type | labels | meaning | OpenTelemetry |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, kind, labels, meaning in _metrics(gateway_registry()):
        lines.append(f"| `{name}` | {kind} | {labels} | {meaning} | {SEMANTIC_CONVENTIONS.get(name, '')} |")
    lines += ["\n## Hooks\n", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, kind, labels, meaning in _metrics(hooks_registry()):
        lines.append(f"| `{name}` | {kind} | {labels} | {meaning} |")
    return "\n".join(lines) + "\n"


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, labels and meaning of each metric, by their names."""
    found: dict[str, tuple[str, str, str, str]] = {}
    for collector in registry._collector_to_names:
        for family in collector.collect():
            names: tuple[str, ...] = getattr(family, "_labelnames", ()) or getattr(collector, "_labelnames", ())
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{one}`" for one in names)
            found[name] = (name, family.type, labels, family.documentation.replace("|", "\\|") + ".")
    return iter(sorted(found.values()))
