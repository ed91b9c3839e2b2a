"""The metrics of both programs, as Prometheus reads them."""

import os
import shutil
import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from gateway.telemetry import Metrics as GatewayMetrics
from tools.metrics_reference import SEMANTIC_CONVENTIONS, gateway_registry, hooks_registry, page


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


def test_names_of_the_semantic_conventions_stand_beside_metrics_that_exist() -> None:
    """Each name of OpenTelemetry is that of a metric on the page, and each metric there says what it means."""
    text = page()
    for name, convention in SEMANTIC_CONVENTIONS.items():
        (row,) = [row for row in text.splitlines() if row.startswith(f"| `{name}` ")]
        assert row.endswith(f"| {convention} |")
        assert "`backend`" in row
