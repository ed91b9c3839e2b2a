"""The page docs/metrics.md: its examples are valid, and its reasons, figures and metrics are those of the code."""

import re
from pathlib import Path

import pytest
import yaml

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.clients import pods
from hooks.gatherer import DEADLINE_SECONDS
from hooks.metrics import cache, confinement, exposition, installed, pod_metrics, promql
from hooks.offloading.targets import declared
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tests.builders import REMOTE, Json, model_deployment, observation
from tests.structural import crd_schema, problems
from tools.repository import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
BLOCKS = [
    document for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for document in yaml.safe_load_all(block)
]


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


@pytest.mark.parametrize(
    "config", [block["offloadingConfig"] for block in BLOCKS if "offloadingConfig" in block], ids=str
)
def test_metrics_of_pods(config: Json) -> None:
    """The configurations on the page with pods as their source are valid, and their metrics can be measured."""
    parent = model_deployment(offloadingConfig={"remoteBackend": REMOTE, **config})
    assert problems(crd_schema("modeldeployments"), parent) == []
    spec = observation(parent).read_spec()
    assert spec.offloading_config is not None
    assert spec.offloading_config.metric_source is not None
    for metric in spec.offloading_config.metrics:
        declared(metric)


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
        reasons.HOST_NETWORK,
        reasons.NO_SAMPLE,
    }


def test_the_figures() -> None:
    """The page has the deadline, the pause and the length of an expression that the code has."""
    assert f"has {DEADLINE_SECONDS:g} s together" in PAGE
    assert f"alone for {cache.FAILURE_SECONDS:g} s" in PAGE
    assert f"more than {confinement.LENGTH} characters" in " ".join(PAGE.split())


def test_the_figures_of_pods() -> None:
    """The page has the limits that the code has for pages of pods."""
    words = " ".join(PAGE.split())
    assert f"respond within {installed.POD_SECONDS:g} s" in words
    assert f"Of more than {pod_metrics.PODS} pods the first {pod_metrics.PODS} by name" in words
    assert f"A page may have {pods.PAGE_BYTES >> 20} MiB, and {exposition.PICKED_BYTES >> 10} KiB of series" in words


def test_the_network_policies() -> None:
    """The NetworkPolicies on the page select the pods of hooks by the labels that the chart gives them, and lead to the
    same pods and port on both sides."""
    into, out = [block for block in BLOCKS if block.get("kind") == "NetworkPolicy"]
    (ingress,), (egress,) = into["spec"]["ingress"], out["spec"]["egress"]
    labels = ingress["from"][0]["podSelector"]
    assert labels == out["spec"]["podSelector"]
    helpers = (ROOT / "charts/beamlit-controller/templates/_helpers.tpl").read_text(encoding="utf-8")
    selector = helpers.split('define "beamlit.selector"')[1].split("end -")[0]
    assert set(labels["matchLabels"]) == set(re.findall(r"^(\S+):", selector, re.MULTILINE))
    assert ingress["ports"] == egress["ports"]
    (target,) = egress["to"]
    assert target["podSelector"] == into["spec"]["podSelector"]
    name = "kubernetes.io/metadata.name"
    assert target["namespaceSelector"]["matchLabels"][name] == into["metadata"]["namespace"]
    assert ingress["from"][0]["namespaceSelector"]["matchLabels"][name] == out["metadata"]["namespace"]


def test_the_telemetry() -> None:
    """Every metric of hooks that the page names exists."""
    known = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"`(beamlit_hooks_\w+)`", PAGE):
        assert name.removesuffix("_total") in known, name
