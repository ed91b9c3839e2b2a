"""The metrics of both programs, as Prometheus reads them."""

import os
import shutil
import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from gateway.telemetry import Metrics as GatewayMetrics
from hooks.decision_metrics import Decisions
from hooks.telemetry import Metrics as HooksMetrics


class _Filled(Collector):
    """Collector that exposes the families of a registry, each with a sample: promtool passes over those without."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Yield the families; those with labels that have not been used get a sample without them."""
        for family in self._registry.collect():
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            if not family.samples:
                for ending in endings:
                    family.add_sample(family.name + ending, {"le": "+Inf"} if ending == "_bucket" else {}, 1)
            yield family


def gateway_registry() -> CollectorRegistry:
    """Return the metrics of the gateway."""
    return GatewayMetrics().registry


def hooks_registry() -> CollectorRegistry:
    """Return the metrics of hooks, with those of decisions."""
    registry = HooksMetrics().registry
    registry.register(Decisions())
    return registry


@pytest.mark.parametrize("registry", [gateway_registry(), hooks_registry()], ids=["gateway", "hooks"])
def test_promtool_finds_nothing(registry: CollectorRegistry) -> None:
    """`promtool check metrics` accepts every metric of the program: its type, its name and its help text."""
    if shutil.which("promtool") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("promtool is not installed")
    filled = CollectorRegistry()
    filled.register(_Filled(registry))
    text = generate_latest(filled)
    assert all(f"\n{family.name}".encode() in text for family in registry.collect())
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_opened_connections_are_a_counter() -> None:
    """The number of connections opened to backends only grows, so it is a counter, under the name that it had."""
    metrics = GatewayMetrics()
    metrics.upstream_connects.count = lambda: 7
    text = generate_latest(metrics.registry).decode()
    assert "# TYPE beamlit_gateway_upstream_connects_total counter" in text
    assert "\nbeamlit_gateway_upstream_connects_total 7.0\n" in text
