"""The page docs/metrics.md: its examples are valid, and its reasons, figures and metrics are those of the code."""

import re
from pathlib import Path

import yaml

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.gatherer import DEADLINE_SECONDS
from hooks.metrics import cache, confinement, promql
from hooks.offloading.targets import declared
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tools.repository import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_configuration(tmp_path: Path) -> None:
    """The configuration on the page is one that hooks accept."""
    (block,) = [block for block in BLOCKS if "metricInformer" in block]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(block))
    informer = Settings.load(tmp_path / "config.yaml", environment={}).metric_informer
    assert (informer.type, informer.prometheus.namespace_label) == ("prometheus", "namespace")


def test_the_metrics() -> None:
    """The metrics on the page can be measured, and confined to a namespace."""
    (block,) = [block for block in BLOCKS if "metrics" in block]
    metrics = [MetricSpec.model_validate(metric) for metric in block["metrics"]]
    assert len(metrics) == 3
    for metric in metrics:
        declared(metric)
        source = metric.external or metric.pods
        assert source is not None
        expression = promql.selected(source.metric.name, source.metric.selector)
        assert isinstance(confinement.confined(expression, "namespace", "default"), str)


def test_the_reasons() -> None:
    """The last table has the reasons that a source gives, and no others."""
    section = PAGE.split("## When a metric cannot be read")[1]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == {
        reasons.NOT_SERVED,
        reasons.FORBIDDEN,
        reasons.UNREACHABLE,
        reasons.TIMED_OUT,
        reasons.REFUSED,
        reasons.NOT_A_NUMBER,
        reasons.NO_SAMPLE,
    }


def test_the_figures() -> None:
    """The page has the deadline, the pause and the length of an expression that the code has."""
    assert f"has {DEADLINE_SECONDS:g} s together" in PAGE
    assert f"alone for {cache.FAILURE_SECONDS:g} s" in PAGE
    assert f"more than {confinement.LENGTH} characters" in " ".join(PAGE.split())


def test_the_telemetry() -> None:
    """Every metric of hooks that the page names exists."""
    known = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"`(beamlit_hooks_\w+)`", PAGE):
        assert name.removesuffix("_total") in known, name
