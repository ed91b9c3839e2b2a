"""A small program in KEDA's place: it scales the workload of a ScaledObject as its Prometheus queries say.

What it does is what KEDA's documentation says of scaling by a query. Above `activationThreshold` there is a replica for
each `threshold`, one at least, and after `cooldownPeriod` seconds at or below it there are `minReplicaCount`.
https://keda.sh/docs/latest/scalers/prometheus/
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.controlplane import ControlPlane
from tools.repository import ROOT

TUTORIAL: Final = ROOT / "docs/tutorials/scale-from-zero.md"
CRD: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""A CRD that accepts any ScaledObject, in the place of KEDA's."""


def install_crd(plane: ControlPlane) -> None:
    """Install the CRD, and wait until ScaledObjects are served."""
    plane.apply(CRD)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/scaledobjects.keda.sh")


def manifests(path: Path = TUTORIAL) -> dict[str, dict[str, Any]]:
    """Return the manifests of a tutorial by their kinds."""
    text = path.read_text(encoding="utf-8")
    found = [one for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) for one in yaml.safe_load_all(block)]
    return {one["kind"]: one for one in found}


def wanted(spec: Mapping[str, Any], value: float, now: int, idle_seconds: float) -> int:
    """Return how many replicas a ScaledObject with one trigger asks for.

    Args:
        spec: specification of the ScaledObject.
        value: result of the trigger's query.
        now: replicas that the workload has.
        idle_seconds: seconds since the value was last above the activation threshold.
    """
    (trigger,) = spec["triggers"]
    metadata = trigger["metadata"]
    if value > float(metadata["activationThreshold"]):
        most = spec["maxReplicaCount"]
        return int(min(most, max(1, spec["minReplicaCount"], math.ceil(value / float(metadata["threshold"])))))
    return int(spec["minReplicaCount"]) if idle_seconds >= spec["cooldownPeriod"] else now


class Scaler:
    """A thread that reads one ScaledObject from the API server, and scales, for as long as the context lasts."""

    def __init__(self, plane: ControlPlane, name: str, ask: Callable[[str], float | None]) -> None:
        """Prepare the thread.

        Args:
            plane: control plane that has the ScaledObject and the Deployment.
            name: name of the ScaledObject, in the namespace default.
            ask: returns the value of a query of Prometheus; None while it has none, which counts as 0.
        """
        self._plane, self._name, self._ask = plane, name, ask
        self.looks = 0
        """Number of times that it has looked so far."""
        self.replicas: list[int] = []
        """Replicas that it has asked for, one after the other."""
        self.failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Scaler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        active = float("-inf")
        try:
            while not self._stop.wait(0.5):
                spec = self._plane.get("scaledobjects.keda.sh", self._name, "default")["spec"]
                (trigger,) = spec["triggers"]
                value = self._ask(trigger["metadata"]["query"]) or 0.0
                if value > float(trigger["metadata"]["activationThreshold"]):
                    active = time.monotonic()
                target = spec["scaleTargetRef"]["name"]
                now = self._plane.get("deployment", target, "default")["spec"]["replicas"]
                replicas = wanted(spec, value, now, time.monotonic() - active)
                if replicas != now:
                    patch = json.dumps({"spec": {"replicas": replicas}})
                    words = ("patch", "deployment", target, "-n", "default", "--subresource=scale", "--type=merge")
                    self._plane.kubectl(*words, "-p", patch)
                    self.replicas.append(replicas)
                self.looks += 1
        except Exception as exc:  # noqa: BLE001 - raised again at the end of the context
            self.failure = exc
