"""The page docs/platform.md: its reasons, figures, metrics, events and labels are those of the code."""

import re

from hooks import names, reasons
from hooks.platform import circuit, registration
from hooks.platform.beamlit import http
from hooks.platform.beamlit.registrar import CALL_SECONDS
from hooks.platform.rechecks import INTERVAL
from hooks.platform.state import FIRST_DELAY, LONGEST_DELAY
from hooks.telemetry import Metrics
from tools.repository import ROOT

PAGE = (ROOT / "docs/platform.md").read_text(encoding="utf-8")


def test_the_reasons() -> None:
    """The table has the reasons of the condition Registered, and no others."""
    section = PAGE.split("## The condition Registered")[1].split("## ")[0]
    assert set(re.findall(r"^\| `\w+`, `(\w+)`", section, re.MULTILINE)) == {
        reasons.UP_TO_DATE,
        reasons.DISABLED,
        reasons.UNAUTHORIZED,
        reasons.UNREACHABLE,
        reasons.REJECTED,
        reasons.CONFLICT,
        reasons.NOT_EVALUATED,
    }


def test_the_figures() -> None:
    """The figures on the page are those of the code."""
    assert PAGE.count(f"{CALL_SECONDS:g} s") == 2
    assert (INTERVAL.total_seconds(), LONGEST_DELAY, FIRST_DELAY) == (600, 600, 5)
    assert (circuit.IN_A_ROW, circuit.FIRST_PAUSE, circuit.LONGEST_PAUSE) == (3, 5, 60)
    assert http.CONNECTIONS == 8
    assert registration.FINAL_TRIES == 5
    assert (registration.FINAL_TIME.total_seconds(), registration.LONGEST_FINAL.total_seconds()) == (300, 600)


def test_the_metrics() -> None:
    """The page has every metric of the platform with its labels, and no other."""
    known = {family.name: family for family in Metrics().registry.collect() if "_platform_" in family.name}
    rows = re.findall(r"^\| `(beamlit_hooks_platform_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name.removesuffix("_total") for name, _ in rows} == known.keys()
    metrics = Metrics()
    for metric in (metrics.platform_requests, metrics.platform_seconds, metrics.platform_circuit):
        (labels,) = [labels for name, labels in rows if name.removesuffix("_total") == metric._name]
        assert re.findall(r"`(\w+)`", labels) == list(metric._labelnames)
    assert {state.value for state in circuit.CircuitState} == set(
        dict(rows)["beamlit_hooks_platform_circuit"].split(": ")[1].split(", ")
    )


def test_the_events() -> None:
    """The code logs the events that the page names."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hooks").rglob("*.py"))
    for event in ("platform_has", "platform_has_not", "platform_left_alone", "platform_let_go"):
        assert f"`{event}`" in PAGE
        assert f'"{event}"' in code


def test_the_labels() -> None:
    """The page names the labels that identify the owner of a model."""
    for label in (names.NAMESPACE_LABEL, names.NAME_LABEL, names.UID_LABEL):
        group, _, name = label.partition("/")
        assert f"{group}/" in PAGE
        assert f"/{name}`" in PAGE
