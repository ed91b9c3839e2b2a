"""helm on a copy of the chart, with small stand-ins for the dependencies that cannot be downloaded here."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chart.reference import CHART
from tests.e2e.binaries import find

METACONTROLLER_CHART: Final = "METACONTROLLER_CHART"
_ACCOUNT: Final = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Values.serviceAccount.name }}, namespace: {{ .Release.Namespace }}}
"""


class HelmFailed(Exception):
    """helm refused; the message is what it said."""


def with_dependencies(folder: Path) -> Path:
    """A copy of the chart in `folder`, its dependencies beside it."""
    copy = folder / "beamlit-controller"
    shutil.copytree(CHART, copy)
    real = os.environ.get(METACONTROLLER_CHART)
    if real:
        shutil.copytree(real, copy / "charts/metacontroller-helm")
    else:
        _stand_in(copy / "charts/metacontroller-helm", "4.17.2", _ACCOUNT)
    _stand_in(copy / "charts/metrics-server", "3.13.0", "")
    return copy


def _stand_in(folder: Path, version: str, template: str) -> None:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: {folder.name}\nversion: {version}\n")
    (folder / "templates/all.yaml").write_text(template)


def helm(*words: str) -> str:
    """Run helm; return what it prints.

    Raises:
        HelmFailed: it ended with an error.
    """
    program = find("helm")
    assert program is not None, "helm is missing: `make e2e` builds it"
    result = subprocess.run([str(program), *words], capture_output=True, text=True, timeout=120)
    if result.returncode:
        raise HelmFailed(result.stderr)
    return result.stdout


def template(chart: Path, *words: str) -> list[dict[str, Any]]:
    """What the chart renders to, as objects."""
    output = helm("template", "beamlit", str(chart), "--kube-version", "1.36.0", "--namespace", "sys", *words)
    return [item for item in yaml.safe_load_all(output) if item]
