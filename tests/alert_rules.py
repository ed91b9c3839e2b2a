"""The alerts of the chart as Prometheus reads them, without helm: `tests/chart` holds helm to the same."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from tools.chart_reference import CHART

ALERTS: Final[list[dict[str, str]]] = yaml.safe_load((CHART / "files/alerts.yaml").read_text(encoding="utf-8"))
"""Alerts with the names of their thresholds in place of these."""
VALUES: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["monitoring"][
    "prometheusRule"
]
"""Values of the PrometheusRule, by default."""


def section(alert: str) -> str:
    """Return the key of the values of an alert."""
    name = alert.removeprefix("Beamlit")
    return name[:1].lower() + name[1:]


def rules(settings: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rules with the thresholds that are given, and those of values.yaml in place of others."""
    for alert in ALERTS:
        values = VALUES["alerts"][section(alert["alert"])] | dict((settings or {}).get(section(alert["alert"]), {}))
        text = {key: _filled(value, values) for key, value in alert.items()}
        if values["severity"]:
            yield {
                "alert": text["alert"],
                "expr": text["expr"],
                "for": values["for"],
                "labels": {"severity": values["severity"]},
                "annotations": {
                    "summary": text["summary"],
                    "description": text["description"],
                    "runbook_url": f"{VALUES['runbooks']}/{text['alert']}.md",
                },
            }


def groups(settings: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Return a file of rules for Prometheus."""
    return {"groups": [{"name": "beamlit", "rules": list(rules(settings))}]}


def _filled(text: str, values: Mapping[str, Any]) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text
