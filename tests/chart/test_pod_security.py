"""Pods pass the Pod Security Standard `restricted`, checked by its rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chart.helm import pods, template
from tests.chart.test_chart import preset

VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """Return the violations of the profile by a pod, in a few words each."""
    pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", ()):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    for sysctl in pod.get("sysctls", ()):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        yield from (f"{container['name']}: {word}" for word in _of_container(container, pod))


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    mine = container.get("securityContext", {})
    either = pod | mine
    if mine.get("privileged"):
        yield "privileged"
    if mine.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if either.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if either.get("runAsUser") == 0:
        yield "runAsUser"
    if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if "ALL" not in mine.get("capabilities", {}).get("drop", ()):
        yield "capabilities.drop"
    if not set(mine.get("capabilities", {}).get("add", ())) <= {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if mine.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"


@preset
def test_restricted(chart: Path, words: tuple[str, ...]) -> None:
    """Every pod of the chart passes, that of `helm test` and that of Metacontroller included."""
    specs = dict(pods(template(chart, *words)))
    assert specs
    assert not [(place, word) for place, spec in specs.items() for word in violations(spec)]


def test_the_cluster_chooses_the_ids(chart: Path) -> None:
    """Ids set to null are left out, as OpenShift gives each namespace its own, and the pod still passes."""
    words = [
        f"--set={context}.{key}=null"
        for context in ("podSecurityContext", "metacontroller.podSecurityContext")
        for key in ("runAsUser", "runAsGroup", *(("fsGroup",) if context == "podSecurityContext" else ()))
    ]
    for _, spec in pods(template(chart, *words)):
        # A null in a dependency's values stays null, which counts as absent in the API server.
        left = {key: value for key, value in spec["securityContext"].items() if value is not None}
        assert left == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert not list(violations(spec))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volume root"),
        ({"containers": [{"name": "x"}]}, "x: runAsNonRoot"),
        ({"containers": [{"name": "x", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}, "x: capab"),
    ],
)
def test_a_violation_is_found(change: dict[str, Any], word: str) -> None:
    """A pod that breaks a rule is found, so the check above can fail."""
    assert any(one.startswith(word) for one in violations({"containers": []} | change))
