"""Short form of `make fairness`: each way once, and proof that the campaign can fail. No time is compared here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.fairness.ways import WAYS
from tests.deadlines import SECONDS
from tools.repository import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on loopback")


def campaign(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the campaign to its end; return the process and the report."""
    output = folder / "fairness.json"
    ended = subprocess.run(
        [sys.executable, "-m", "faults.fairness", "--short", "--seed", "1", "--output", str(output), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=5 * SECONDS,
    )  # fmt: skip
    assert output.exists(), ended.stderr
    return ended, json.loads(output.read_text())


def test_no_tenant_hurts_another(tmp_path: Path) -> None:
    """In whichever way one tenant is hostile, no request of the others fails."""
    ended, report = campaign(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert report["problems"] == []
    assert list(report["ways"]) == [way.name for way in WAYS]
    assert all(one["requests"] > 10 and one["errors"] == {} for one in report["ways"].values())


def test_without_shares_the_campaign_goes_red(tmp_path: Path) -> None:
    """Where tenants share their look-ups of names, one whose name server is silent makes requests of others fail."""
    ended, report = campaign(tmp_path, "--shared", "--only", "names", "--seconds", "5")
    assert ended.returncode == 1, ended.stdout
    assert "broken: names:" in ended.stdout
    assert any("connect_timeout" in one for one in report["ways"]["names"]["errors"])
