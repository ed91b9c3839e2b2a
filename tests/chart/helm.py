"""helm on a copy of the chart, with small stand-ins for the dependencies that cannot be downloaded here."""

import copy
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deadlines import SECONDS
from tests.e2e.binaries import find
from tools.chart_reference import CHART

METACONTROLLER_CHART: Final = "METACONTROLLER_CHART"
METACONTROLLER_CRDS: Final = "METACONTROLLER_CRDS"
_COMPOSITE_CONTROLLER: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "compositecontrollers.metacontroller.k8s.io",
        # Groups of this ending belong to Kubernetes, unless an annotation says that they do not.
        "annotations": {"api-approved.kubernetes.io": "unapproved, stands in for the real one"},
    },
    "spec": {
        "group": "metacontroller.k8s.io",
        "scope": "Cluster",
        "names": {"kind": "CompositeController", "plural": "compositecontrollers", "singular": "compositecontroller"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                },
            }
        ],
    },
}
"""A CRD that accepts any CompositeController, for machines without the real CRDs."""
_METACONTROLLER: Final = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Values.serviceAccount.name }}, namespace: {{ .Release.Namespace }}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {{ .Release.Name }}-metacontroller, namespace: {{ .Release.Namespace }}}
spec:
  selector:
    matchLabels: &labels {app.kubernetes.io/name: metacontroller, app.kubernetes.io/instance: {{ .Release.Name }}}
  template:
    metadata:
      labels: *labels
    spec:
      serviceAccountName: {{ .Values.serviceAccount.name }}
      securityContext: {{ .Values.podSecurityContext | default dict | toJson }}
      containers:
        - name: metacontroller
          image: metacontroller
          command: [/usr/bin/metacontroller]
          args: {{ .Values.commandArgs | toJson }}
          env: {{ .Values.env | default list | toJson }}
          securityContext: {{ .Values.securityContext | default dict | toJson }}
"""


_METRICS_SERVER: Final = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: metrics-server-is-here, namespace: {{ .Release.Namespace }}}
"""


_GENERATED: Final = re.compile(
    r"(?:tls\.crt|tls\.key|ca\.crt|checksum/tls): \S+$|\?v=\S+|-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
    re.DOTALL | re.MULTILINE,
)
"""Regular expression for what differs between two renderings because each generates a certificate."""


class HelmFailed(Exception):
    """helm ended with an error; the message is its output."""


def with_dependencies(folder: Path) -> Path:
    """Return a copy of the chart in `folder` with its dependencies."""
    copy = folder / "beamlit-controller"
    shutil.copytree(CHART, copy)
    real = os.environ.get(METACONTROLLER_CHART)
    if real:
        shutil.copytree(real, copy / "charts/metacontroller-helm")
    else:
        _stand_in(copy / "charts/metacontroller-helm", "4.17.2", _METACONTROLLER)
        crds = os.environ.get(METACONTROLLER_CRDS)
        (copy / "charts/metacontroller-helm/crds").mkdir()
        text = Path(crds).read_text() if crds else yaml.safe_dump(_COMPOSITE_CONTROLLER)
        (copy / "charts/metacontroller-helm/crds/all.yaml").write_text(text)
    _stand_in(copy / "charts/metrics-server", "3.13.0", _METRICS_SERVER)
    return copy


def stand_in_crd() -> dict[str, Any]:
    """Return a CRD that accepts any CompositeController, for clusters without Metacontroller."""
    return copy.deepcopy(_COMPOSITE_CONTROLLER)


def _stand_in(folder: Path, version: str, template: str) -> None:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: {folder.name}\nversion: {version}\n")
    (folder / "templates/all.yaml").write_text(template)


def helm(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run helm, in another environment where one is given; return what it prints.

    Raises:
        HelmFailed: it ended with an error.
    """
    program = find("helm")
    assert program is not None, "helm is missing: `make e2e` builds it"
    result = subprocess.run([str(program), *words], capture_output=True, text=True, timeout=SECONDS, env=environment)
    if result.returncode:
        raise HelmFailed(result.stderr)
    return result.stdout


def template(chart: Path, *words: str) -> list[dict[str, Any]]:
    """Return the objects that the chart renders to."""
    return copy.deepcopy(_rendered(chart, words))


def template_text(chart: Path, *words: str) -> str:
    """Return what the chart renders to as text, which takes no time to parse, without its generated certificate."""
    text = helm("template", "beamlit", str(chart), "--kube-version", "1.36.0", "--namespace", "sys", *words)
    return _GENERATED.sub("", text)


@functools.cache
def _rendered(chart: Path, words: tuple[str, ...]) -> list[dict[str, Any]]:
    output = helm("template", "beamlit", str(chart), "--kube-version", "1.36.0", "--namespace", "sys", *words)
    return [item for item in yaml.safe_load_all(output) if item]


def kind(objects: list[dict[str, Any]], name: str, suffix: str = "", namespace: str | None = None) -> dict[str, Any]:
    """Return the one object of a kind whose name ends with the suffix."""
    (single,) = [
        one
        for one in objects
        if one["kind"] == name
        and one["metadata"]["name"].endswith(suffix)
        and namespace in (None, one["metadata"].get("namespace"))
    ]
    return single


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every pod specification, by kind and name of the object that has it."""
    for one in objects:
        place = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield place, one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield place, one["spec"]


def rules(role: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of every rule of a Role or ClusterRole."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
