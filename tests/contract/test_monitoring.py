"""The dashboard and the alerts of the chart: what they name exists, and each alert fires when it should."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
import yaml

from hooks.kubectl.command import parser
from tests.alert_rules import ALERTS, VALUES, groups, rules, section
from tests.deadlines import SECONDS
from tools.chart_reference import CHART, is_value
from tools.dashboard import ROWS
from tools.metrics_reference import gateway_registry, hooks_registry
from tools.repository import ROOT

DASHBOARD: Final = json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))
PANELS: Final = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
RUNBOOKS: Final = sorted((ROOT / "docs/runbooks").glob("*.md"))
PAGE: Final = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
NAMES: Final = [one["alert"] for one in ALERTS]
_METRIC: Final = re.compile(r"beamlit_(?:gateway|hooks)_\w+")
_KINDS: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
_IN_DOCS: Final = [*RUNBOOKS, ROOT / "docs/monitoring.md", ROOT / "docs/tutorials/scale-from-zero.md"]


def exposed() -> set[str]:
    """Return the names of all series that the programs expose."""
    families = [*gateway_registry().collect(), *hooks_registry().collect()]
    return {family.name + ending for family in families for ending in _KINDS.get(family.type, ("",))}


@pytest.mark.parametrize(
    "text",
    [*(one["expr"] for one in ALERTS), json.dumps(DASHBOARD), *(path.read_text() for path in _IN_DOCS)],
    ids=[*NAMES, "dashboard", *(path.stem for path in _IN_DOCS)],
)
def test_metrics_that_are_named_exist(text: str) -> None:
    """Every metric of ours in an alert, the dashboard or a page about them is one that the programs expose."""
    assert set(_METRIC.findall(text)) - exposed() == set()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """The pages in docs/runbooks are those that the annotations of the alerts lead to, each with commands."""
    assert [path.stem for path in RUNBOOKS] == sorted(NAMES)
    for path in RUNBOOKS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.stem}\n")
        assert "\n## What to look at first\n" in text
        assert "```sh\n" in text
        assert "\n## What to do\n" in text
    repository = "https://github.com/beamlit/beamlit-controller/blob/main"
    leads = {one["annotations"]["runbook_url"].removeprefix(f"{repository}/") for one in rules()}
    assert leads == {path.relative_to(ROOT).as_posix() for path in RUNBOOKS}


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_what_a_runbook_names_exists(path: Path) -> None:
    """Codes, reasons and log events of a runbook are in the programs, its values in the chart, and the commands of the
    plugin are taken by it."""
    text = path.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = {one for one in inline if re.fullmatch(r"[a-z]+(_[a-z]+)+|([A-Z][a-z]+){2,}", one)}
    assert {one for one in words if f'"{one}"' not in _sources()} == set()
    values = {
        one for one in inline if one.startswith(("config.", "gateway.", "hooks.", "monitoring.")) and "/" not in one
    }
    assert {one for one in values if not is_value(one)} == set()
    for command in re.findall(r"kubectl beamlit ([^|`#\n]*demo[^|`#\n]*)", text):
        parser().parse_args(shlex.split(command))


@functools.cache
def _sources() -> str:
    """Return the source of the programs."""
    folders = ("gateway", "hooks", "program")
    return "".join(path.read_text(encoding="utf-8") for one in folders for path in (ROOT / one).rglob("*.py"))


def test_the_table_of_alerts() -> None:
    """The page about monitoring has every alert with the severity that it has by default."""
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", PAGE, re.MULTILINE)
    assert rows == [(name, name, VALUES["alerts"][section(name)]["severity"]) for name in NAMES]


def test_every_threshold_is_used() -> None:
    """Every value of an alert but its severity and its time stands in its expression, and no placeholder is left."""
    assert VALUES["alerts"].keys() == {section(name) for name in NAMES}
    for alert in ALERTS:
        for key in VALUES["alerts"][section(alert["alert"])].keys() - {"severity", "for"}:
            assert f"@{key}@" in alert["expr"], alert["alert"]
    assert not re.search(r"@\w+@", yaml.safe_dump(groups()))


def test_the_dashboard() -> None:
    """Panels have ids and places of their own, a description, and queries of the data source that is chosen."""
    assert len({one["id"] for one in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: Counter[tuple[int, int]] = Counter()
    for one in DASHBOARD["panels"]:
        place = one["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"]))
    assert set(taken.values()) == {1}
    assert {one["datasource"]["uid"] for panel in PANELS for one in [panel, *panel["targets"]]} == {"${datasource}"}
    assert all(one["description"].endswith(".") for one in PANELS)
    variables = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "namespace", "model"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == set(variables)


def test_the_rows_of_the_page() -> None:
    """The page about monitoring has the rows of the dashboard, in its order."""
    table = PAGE.split("| row | shows |")[1].split("\n\n")[0]
    assert re.findall(r"^\| ([A-Z][\w ]+) \|", table, re.MULTILINE) == [row.title for row in ROWS]


# What promtool says


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; skip the test where it is not installed, and fail it under CI."""
    if shutil.which("promtool") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("promtool is not installed")
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=SECONDS)


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """`promtool check rules` has no complaint about the alerts."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups()))
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"SUCCESS: {len(NAMES)} rules found" in result.stdout


@dataclass(frozen=True, slots=True)
class Case:
    """State of metrics over time, and what an alert makes of it."""

    alert: str
    what: str
    series: dict[str, str]
    """Values by series, one a minute, in the notation of promtool."""
    at: str
    """Time at which the alert is looked at."""
    fires: dict[str, str] | None
    """Labels of the alert, but for its severity; None where it is silent."""
    description: str = ""
    """Part of the description that it has then."""


MODEL: Final = {"namespace": "default", "model": "demo"}
GATEWAY: Final = {"instance": "10.0.0.1:8081", "job": "beamlit", "namespace": "beamlit-system", "pod": "gateway-0"}


def one_series(metric: str, /, **labels: str) -> str:
    """Return the notation of a series."""
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric}{{{inside}}}"


def ended(code: str, backend: str = "local") -> str:
    """Return the series of requests of the model `default/demo` that ended with a status."""
    return one_series("beamlit_gateway_requests_total", **MODEL, backend=backend, code=code)


def weight(backend: str) -> str:
    """Return the series of the share of a backend of the model `default/demo`."""
    return one_series("beamlit_gateway_backend_weight", **MODEL, backend=backend)


def drill(instance: str) -> str:
    """Return the series of the drills of one gateway at the remote backend of the model `default/demo`."""
    return one_series("beamlit_gateway_drill_success", **MODEL, backend="remote", instance=instance)


def cost(instance: str) -> str:
    """Return the series of the costs of the model `default/demo` at one gateway."""
    return one_series("beamlit_gateway_estimated_cost_total", **MODEL, backend="remote", instance=instance)


def refused(cause: str) -> str:
    """Return the series of failed attempts at the remote backend of the model `default/demo`."""
    return one_series("beamlit_gateway_upstream_errors_total", **MODEL, backend="remote", cause=cause)


DAY: Final = 86400


def ends(program: str, certificate: str, name: str, **labels: str) -> str:
    """Return the series of the end of a certificate. The clock of promtool begins at 0."""
    return one_series(
        f"beamlit_{program}_certificate_end_timestamp_seconds", certificate=certificate, name=name, **labels
    )


CASES: Final = (
    Case(
        "BeamlitNothingServes",
        "nine of ten requests fail",
        {ended("502", "none"): "0+95x20", ended("200"): "0+5x20"},
        "10m",
        MODEL,
        "95 % of the requests",
    ),
    Case("BeamlitNothingServes", "all requests fail", {ended("503", "none"): "0+3x20"}, "10m", MODEL, "100 %"),
    Case(
        "BeamlitNothingServes",
        "half of the requests fail",
        {ended("502", "none"): "0+50x20", ended("200"): "0+50x20"},
        "10m",
        None,
    ),
    Case(
        "BeamlitNothingServes",
        "requests are refused for a fault of the caller's",
        {ended("400"): "0+100x20"},
        "10m",
        None,
    ),
    Case(
        "BeamlitNothingServes",
        "it has only begun",
        {ended("502", "none"): "0x8 100 200 300", ended("200"): "0+5x8 40x4"},
        "10m",
        None,
    ),
    Case("BeamlitNothingServes", "nobody asks", {ended("502", "none"): "70x20", ended("200"): "9x20"}, "10m", None),
    Case(
        "BeamlitNothingServes",
        "nobody asks, all requests would go to the remote backend, and drills fail there",
        {weight("local"): "0x30", weight("remote"): "100x30", drill("a"): "1x5 0x30", drill("b"): "0x30"},
        "20m",
        MODEL,
        "100 % of the requests",
    ),
    Case(
        "BeamlitNothingServes",
        "one drill has failed",
        {weight("local"): "0x30", weight("remote"): "100x30", drill("a"): "1x5 0x2 1x30"},
        "10m",
        None,
    ),
    Case(
        "BeamlitNothingServes",
        "drills fail and replicas are ready",
        {weight("local"): "100x30", weight("remote"): "0x30", drill("a"): "0x30"},
        "20m",
        None,
    ),
    Case(
        "BeamlitRemoteFails",
        "drills of both gateways fail",
        {drill("a"): "1x5 0x30", drill("b"): "0x30"},
        "30m",
        {**MODEL, "backend": "remote"},
        "for 15m or longer",
    ),
    Case("BeamlitRemoteFails", "those of one gateway fail", {drill("a"): "0x40", drill("b"): "1x40"}, "30m", None),
    Case("BeamlitRemoteFails", "there is no result", {weight("remote"): "100x40"}, "30m", None),
    Case(
        "BeamlitRequestsFail",
        "one in ten requests fails",
        {ended("500"): "0+10x30", ended("200"): "0+90x30"},
        "20m",
        MODEL,
        "10.0 % of the requests",
    ),
    Case(
        "BeamlitRequestsFail",
        "one in a hundred requests fails",
        {ended("500"): "0+1x30", ended("200"): "0+99x30"},
        "20m",
        None,
    ),
    Case(
        "BeamlitRequestsFail",
        "clients leave",
        {ended("499"): "0+50x30", ended("200"): "0+50x30"},
        "20m",
        None,
    ),
    Case(
        "BeamlitOffloadedLong",
        "all requests have been remote for five hours",
        {weight("local"): "0x400", weight("remote"): "100x400"},
        "300m",
        MODEL,
        "100 % of the requests",
    ),
    Case(
        "BeamlitOffloadedLong",
        "they came back in between",
        {weight("local"): "0x100 100x10 0x290", weight("remote"): "100x100 0x10 100x290"},
        "300m",
        None,
    ),
    Case("BeamlitOffloadedLong", "the model has no local backend", {weight("remote"): "100x400"}, "300m", None),
    Case(
        "BeamlitOffloadedLong",
        "a third is remote",
        {weight("local"): "67x400", weight("remote"): "33x400"},
        "300m",
        None,
    ),
    Case(
        "BeamlitCredentialsRefused",
        "each attempt is refused",
        {refused("credentials_refused"): "0+2x20"},
        "15m",
        {**MODEL, "backend": "remote"},
        "attempts at the backend remote",
    ),
    Case(
        "BeamlitCredentialsRefused",
        "there is no token",
        {refused("credentials_failed"): "1x5 1+1x20"},
        "15m",
        {**MODEL, "backend": "remote"},
    ),
    Case("BeamlitCredentialsRefused", "it is over", {refused("credentials_refused"): "0+2x5 10x30"}, "30m", None),
    Case("BeamlitCredentialsRefused", "the backend is away", {refused("connect_failed"): "0+9x20"}, "15m", None),
    Case(
        "BeamlitSpendHigh",
        "an hour costs 120 at two gateways together",
        {cost("a"): "0+1x100", cost("b"): "0+1x100"},
        "80m",
        MODEL,
        "have cost 120 in the last hour",
    ),
    Case("BeamlitSpendHigh", "an hour costs 60", {cost("a"): "0+1x100"}, "80m", None),
    Case(
        "BeamlitTableStale",
        "nothing is heard of routes any more",
        {one_series("beamlit_gateway_table_age_seconds", **GATEWAY): "0+60x30"},
        "20m",
        GATEWAY,
        "The gateway 10.0.0.1:8081",
    ),
    Case(
        "BeamlitTableStale",
        "an idle API server speaks once a minute",
        {one_series("beamlit_gateway_table_age_seconds", **GATEWAY): "60x30"},
        "20m",
        None,
    ),
    Case(
        "BeamlitIssuerKeysStale",
        "the issuer is away",
        {one_series("beamlit_gateway_issuer_keys_age_seconds", **GATEWAY, issuer="https://login.test"): "0+60x30"},
        "20m",
        {**GATEWAY, "issuer": "https://login.test"},
        "loaded the keys of https://login.test",
    ),
    Case(
        "BeamlitIssuerKeysStale",
        "keys are loaded every five minutes",
        {one_series("beamlit_gateway_issuer_keys_age_seconds", **GATEWAY): "0+60x4 0+60x4 0+60x4 300x20"},
        "20m",
        None,
    ),
    Case(
        "BeamlitRouteRefused",
        "a document cannot be read",
        {one_series("beamlit_gateway_document_errors", **GATEWAY): "0x5 1x30"},
        "30m",
        {key: value for key, value in GATEWAY.items() if key not in ("instance", "pod")},
        "1 route documents",
    ),
    Case(
        "BeamlitRouteRefused",
        "it was corrected at once",
        {one_series("beamlit_gateway_document_errors", **GATEWAY): "0x5 1x3 0x30"},
        "30m",
        None,
    ),
    Case(
        "BeamlitGatewayMissing",
        "the last gateway ends",
        {one_series("beamlit_gateway_routes", **GATEWAY): "3x5 stale _x30"},
        "20m",
        {},
    ),
    Case(
        "BeamlitGatewayMissing",
        "one of two gateways ends",
        {
            one_series("beamlit_gateway_routes", **GATEWAY): "3x5 stale _x30",
            one_series("beamlit_gateway_routes", **{**GATEWAY, "pod": "gateway-1"}): "3x40",
        },
        "20m",
        None,
    ),
    Case(
        "BeamlitHooksFail",
        "half of the syncs fail",
        {
            one_series("beamlit_hooks_requests_total", job="beamlit", hook="sync", code=code): "0+10x60"
            for code in ("200", "500")
        },
        "40m",
        {"job": "beamlit"},
        "50 % of",
    ),
    Case(
        "BeamlitHooksFail",
        "a specification is refused, which is no error",
        {one_series("beamlit_hooks_requests_total", job="beamlit", hook="sync", code="200"): "0+10x60"},
        "40m",
        None,
    ),
    Case(
        "BeamlitCertificateEndsSoon",
        "two gateways know a certificate with nearly five days left, hooks another with 117",
        {ends("gateway", "server", "api.example:443", instance=one): f"{5 * DAY}x100" for one in ("a", "b")}
        | {ends("hooks", "listener", "tls.crt"): f"{117 * DAY}x100"},
        "90m",
        {"certificate": "server", "name": "api.example:443"},
        "ends in 4.9 days",
    ),
    Case(
        "BeamlitCertificateEndsSoon",
        "that of hooks ends",
        {ends("hooks", "listener", "tls.crt"): f"{10 * DAY}x100"},
        "90m",
        {"certificate": "listener", "name": "tls.crt"},
    ),
    Case(
        "BeamlitCertificateEndsSoon",
        "it is renewed in time",
        {ends("gateway", "client", "default/c"): f"{12 * DAY}x30 {90 * DAY}x100"},
        "90m",
        None,
    ),
)


def test_every_alert_has_cases() -> None:
    """Each alert has a case in which it fires and one in which it is silent."""
    assert {one.alert for one in CASES if one.fires is not None} == set(NAMES)
    assert {one.alert for one in CASES if one.fires is None} == set(NAMES)


def tried(folder: Path, chosen: Sequence[Case], *, annotated: bool = False) -> subprocess.CompletedProcess[str]:
    """Return what `promtool test rules` makes of cases; without annotations, which it would compare word by word.

    Each alert has files of its own, as promtool evaluates all rules of a file at each minute of a case.
    """
    files: list[Path] = []
    for rule in rules():
        mine = [one for one in chosen if one.alert == rule["alert"]]
        if not mine:
            continue
        known = rule if annotated else {key: value for key, value in rule.items() if key != "annotations"}
        (folder / f"{rule['alert']}.rules.yaml").write_text(
            yaml.safe_dump({"groups": [{"name": "beamlit", "rules": [known]}]})
        )
        tests = [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": value} for key, value in one.series.items()],
                "alert_rule_test": [
                    {
                        "alertname": one.alert,
                        "eval_time": one.at,
                        "exp_alerts": [] if one.fires is None else [{"exp_labels": rule["labels"] | one.fires}],
                    }
                ],
            }
            for one in mine
        ]
        files.append(folder / f"{rule['alert']}.yaml")
        files[-1].write_text(
            yaml.safe_dump({"rule_files": [f"{rule['alert']}.rules.yaml"], "evaluation_interval": "1m", "tests": tests})
        )
    return promtool("test", "rules", *files)


def test_alerts_fire_and_stay_silent(tmp_path: Path) -> None:
    """`promtool test rules` finds that each alert fires in its cases, with its labels, and is silent in the others."""
    result = tried(tmp_path, CASES)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("fires", [None, {"model": "other"}])
def test_a_case_that_is_wrong_is_found(tmp_path: Path, fires: dict[str, str] | None) -> None:
    """promtool complains about a case whose alert has other labels, or should be silent, so the test above can fail."""
    (first, *_) = CASES
    assert tried(tmp_path, [replace(first, fires=fires)]).returncode == 1


def test_what_an_alert_says(tmp_path: Path) -> None:
    """The description of an alert that fires has the model and the value, and no template is left in it."""
    described = [one for one in CASES if one.description]
    result = tried(tmp_path, described, annotated=True)
    told = " ".join((result.stdout + result.stderr).split())
    assert [one.description for one in described if one.description not in told] == []
    assert "default/demo" in told
    assert "{{" not in told
    assert "error expanding template" not in told
