"""The command line of the original's documentation, word for word, with the registry that it names."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.helm import kind
from tests.deadlines import SECONDS
from tests.judge.conftest import needed
from tests.judge.registry import Registry
from tools.repository import ROOT

SEED: Final = Path(__file__).with_name("seed_install.sh").read_text(encoding="utf-8")
"""The block as the documentation of the original has it."""
COMMENT: Final = r"\\ # If you want .*"
"""Regular expression for the comment behind a backslash. In a shell it ends the command with words that helm refuses,
whatever chart there is, so nobody can have run it: all else of the block is run as it stands."""


def rendered(script: str, registry: Registry, folder: Path) -> list[dict[str, Any]]:
    """Run a script in bash with a helm that renders what it is to install, and return the objects.

    All that differs from an installation is that there is no cluster: `install` becomes `template`.
    """
    programs = folder / "bin"
    programs.mkdir()
    (programs / "helm").write_text(
        f'#!/bin/sh\n[ "$1" = install ] && shift && exec {needed("helm")} template --kube-version 1.36.0 "$@"\nexit 9\n'
    )
    (programs / "helm").chmod(0o755)
    environment = dict(registry.environment(folder))
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    result = subprocess.run(
        ["bash", "-e", "-c", script], env=environment, capture_output=True, text=True, timeout=SECONDS, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return [one for one in yaml.safe_load_all(result.stdout) if one]


@pytest.mark.parametrize("credentials", ["REPLACE_ME", "canary"])
def test_the_seeds_command_line(registry: Registry, credentials: str, tmp_path: Path) -> None:
    """The seed's block renders the whole product from the seed's own address."""
    assert len(re.findall(COMMENT, SEED)) == 1
    script = re.sub(COMMENT, r"\\", SEED).replace("REPLACE_ME", credentials)
    objects = rendered(script, registry, tmp_path)
    assert {"beamlit-controller-hooks", "beamlit-controller-gateway"} <= {
        one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"
    }
    secrets = {one["metadata"]["name"] for one in objects if one["kind"] == "Secret"}
    assert "beamlit-controller-platform" in secrets
    assert ("beamlit-controller-remote" in secrets) is (credentials != "REPLACE_ME")
    assert kind(objects, "ConfigMap", "metrics-server-is-here"), "installMetricServer brings metrics-server"


def test_the_block_of_the_seed_is_the_seeds() -> None:
    """The address in the seed's block is the one in README and in the pages about installing, beside the image's."""
    (address,) = re.findall(r"oci://\S+", SEED)
    values = yaml.safe_load((ROOT / "charts/beamlit-controller/values.yaml").read_text(encoding="utf-8"))
    image = f"oci://{values['image']['repository']}:$VERSION"
    for page in ("README.md", "docs/install.md"):
        found = set(re.findall(r"oci://[^\s`]+", (ROOT / page).read_text(encoding="utf-8")))
        assert found - {image} == {address}


def test_a_chart_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    """The registry of the test has no other chart, so the address in the block is what is tested."""
    script = re.sub(COMMENT, r"\\", SEED).replace("beamlit-controller-chart", "beamlit-controller")
    with pytest.raises(AssertionError, match="Unable to locate any tags"):
        rendered(script, registry, tmp_path)
