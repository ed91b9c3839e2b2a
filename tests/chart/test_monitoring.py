"""What the chart has for Prometheus and Grafana: monitors, alerts and a dashboard, each only where it is asked for."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.alert_rules import ALERTS, groups
from tests.chart.helm import kind, template
from tests.chart.test_docs import blocks
from tools.chart_reference import CHART
from tools.repository import ROOT

MONITORS: Final = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}
RULE: Final = "--set=monitoring.prometheusRule.enabled=true"
DASHBOARD: Final = "--set=monitoring.dashboard.enabled=true"


def set_by(text: str, folder: Path) -> tuple[str, ...]:
    """Return flags that set the values in a text of YAML."""
    (folder / "values.yaml").write_text(text)
    return "--values", str(folder / "values.yaml")


def test_nothing_of_it_is_there_by_default(chart: Path) -> None:
    """Without a value that asks for it there is no object of the Prometheus operator and no dashboard."""
    objects = template(chart)
    assert {one["kind"] for one in objects}.isdisjoint({*MONITORS, "PrometheusRule"})
    assert not [one for one in objects if one["metadata"]["name"].endswith(("-dashboard", "-metrics"))]


@pytest.mark.parametrize("name", MONITORS)
def test_monitors_keep_the_labels_of_metrics(chart: Path, name: str) -> None:
    """A monitor scrapes hooks and gateways, and leaves the label `namespace` of a metric about a model as it is."""
    key = name[0].lower() + name[1:]
    objects = template(chart, f"--set=monitoring.{key}.enabled=true", f"--set=monitoring.{key}.interval=7s",
                       f"--set=monitoring.{key}.labels.release=prometheus")  # fmt: skip
    monitor = kind(objects, name)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    endpoints = monitor["spec"][MONITORS[name]]
    assert endpoints == [{"port": port, "honorLabels": True, "interval": "7s"} for port in ("operations", "admin")]


@pytest.mark.parametrize("type_", ["ClusterIP", "LoadBalancer"])
def test_the_services_of_the_service_monitor(chart: Path, type_: str) -> None:
    """The ServiceMonitor selects two headless Services, which lead to the ports for administrators of pods, ready or
    not, whatever type the gateway's Service has."""
    objects = template(chart, "--set=monitoring.serviceMonitor.enabled=true", f"--set=gateway.service.type={type_}")
    monitor = kind(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"]
    services = [
        one for one in objects if one["kind"] == "Service" and wanted.items() <= one["metadata"]["labels"].items()
    ]
    led: dict[str, str] = {}
    for service in services:
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        (port,) = service["spec"]["ports"]
        for one in (pod for pod in objects if pod["kind"] == "Deployment"):
            pod = one["spec"]["template"]
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items():
                assert port["targetPort"] in {had["name"] for had in pod["spec"]["containers"][0]["ports"]}
                led[port["name"]] = one["metadata"]["name"].rpartition("-")[2]
    assert led == {"admin": "gateway", "operations": "hooks"}
    assert {one["port"] for one in monitor["endpoints"]} == led.keys()


def test_the_alerts_of_the_chart(chart: Path) -> None:
    """The PrometheusRule has the alerts that the tests with promtool have, word by word."""
    assert kind(template(chart, RULE), "PrometheusRule")["spec"] == groups()


def test_a_gateway_of_your_own_is_not_missed(chart: Path) -> None:
    """Where the chart installs no gateway there is no alert that it is missing; all others are there."""
    rule = kind(template(chart, RULE, "--set=installBeamlitGateway=false"), "PrometheusRule")["spec"]
    names = [one["alert"] for one in rule["groups"][0]["rules"]]
    assert names == [one["alert"] for one in ALERTS if one["alert"] != "BeamlitGatewayMissing"]


def test_thresholds_are_values(chart: Path, tmp_path: Path) -> None:
    """Values change thresholds, times and severities, also in the text of alerts; without a severity there is none."""
    alerts = {
        "offloadedLong": {"percentage": 80, "for": "1d", "severity": "page"},
        "tableStale": {"seconds": 1234567},
        "hooksFail": {"severity": ""},
    }
    values = {"monitoring": {"prometheusRule": {"enabled": True, "runbooks": "https://r.example/", "alerts": alerts}}}
    rule = kind(template(chart, *set_by(yaml.safe_dump(values), tmp_path)), "PrometheusRule")["spec"]
    by_name = {one["alert"]: one for one in rule["groups"][0]["rules"]}
    assert by_name.keys() == {one["alert"] for one in ALERTS} - {"BeamlitHooksFail"}
    long = by_name["BeamlitOffloadedLong"]
    assert (long["for"], long["labels"], long["annotations"]["runbook_url"]) == (
        "1d", {"severity": "page"}, "https://r.example/BeamlitOffloadedLong.md",
    )  # fmt: skip
    assert ">= 80" in long["expr"]
    assert "1d or longer" in long["annotations"]["description"]
    assert float(by_name["BeamlitTableStale"]["expr"].rpartition("> ")[2]) == 1234567


def test_the_dashboard_of_the_chart(chart: Path, tmp_path: Path) -> None:
    """The ConfigMap has the dashboard of the chart's files, under the label of the sidecar, or where values say."""
    stored = kind(template(chart, DASHBOARD), "ConfigMap", "-dashboard")
    assert stored["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert stored["metadata"]["namespace"] == "sys"
    assert json.loads(stored["data"]["beamlit.json"]) == json.loads((CHART / "files/dashboard.json").read_text())
    values: dict[str, Any] = {
        "enabled": True,
        "namespace": "grafana",
        "labels": {"grafana_dashboard": None, "dashboards": "yes"},
        "annotations": {"grafana_folder": "Models"},
    }
    words = set_by(yaml.safe_dump({"monitoring": {"dashboard": values}}), tmp_path)
    metadata = kind(template(chart, *words), "ConfigMap", "-dashboard")["metadata"]
    assert metadata["namespace"] == "grafana"
    assert metadata["annotations"]["grafana_folder"] == "Models"
    assert metadata["labels"]["dashboards"] == "yes"
    assert "grafana_dashboard" not in metadata["labels"]


PAGE: Final = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks(PAGE, "yaml"))
def test_the_values_of_the_page(chart: Path, block: str, tmp_path: Path) -> None:
    """The chart renders with each values file of the page about monitoring, to objects that are not there otherwise."""
    objects = template(chart, *set_by(block, tmp_path))
    assert len(objects) > len(template(chart))
