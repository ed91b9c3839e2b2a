"""Programs of a real node: those built from the Go module proxy into the cache of the end-to-end tests, and Debian's.

`python -m tests.node.programs` builds what is missing.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.e2e import binaries
from tests.e2e.binaries import KUBERNETES, KUBERNETES_FLAGS, BuildError, Edit, Tool

_TOOLS: Final = Path(__file__).with_name("tools")
_POLICIES: Final = "sigs.k8s.io/kube-network-policies"
_CONTROLLER: Final = "pkg/networkpolicy/controller.go"
# Not every kernel has nftables' own expression for queues; the target of iptables does the same. Its data is the number
# of the queue in eight bytes.
_QUEUE: Final = """\
	queue := &expr.Queue{Num: uint16(c.config.QueueID)}
	if c.config.FailOpen {
		queue.Flag = expr.QueueFlagBypass
	}
"""
_TARGET: Final = """\
	number := xt.Unknown(append(binaryutil.NativeEndian.PutUint16(uint16(c.config.QueueID)), make([]byte, 6)...))
	queue := &expr.Target{Name: "NFQUEUE", Info: &number}
"""
_IMPORT: Final = '\t"github.com/google/nftables/expr"\n'
PAUSE: Final = Tool("pause", "1", ("beamlit.dev/node/pause",), tools=_TOOLS)
TOOLS: Final = (
    Tool(
        "kubernetes-node",
        KUBERNETES,
        ("k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"),
        KUBERNETES_FLAGS,
        module="kubernetes",
    ),
    Tool("coredns", "1.14.2", ("beamlit.dev/node/coredns",), tools=_TOOLS),
    Tool(
        "kube-network-policies",
        "0.8.0",
        (f"{_POLICIES}/cmd",),
        edits=(
            Edit(_POLICIES, _CONTROLLER, _QUEUE, _TARGET),
            Edit(_POLICIES, _CONTROLLER, _IMPORT, f'{_IMPORT}\t"github.com/google/nftables/xt"\n'),
        ),
        tools=_TOOLS,
    ),
    PAUSE,
)
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "helm")
CNI: Final = Path("/usr/lib/cni")
"""Folder of the CNI plugins that Debian's package has."""
_DEBIAN: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "curl": "curl",
    "busybox": "busybox-static",
    str(CNI / "bridge"): "containernetworking-plugins",
}
"""Debian packages of programs, by name or path of the program."""


def find(program: str) -> Path | None:
    """Return the path of a program; None when there is none."""
    for tool in TOOLS:
        if program in tool.programs and (path := tool.folder / program).is_file():
            return path
    return binaries.find(program)


def missing() -> str:
    """Return what is missing for a node, and how to get it, as a sentence; an empty text when nothing is."""
    packages = {package for name, package in _DEBIAN.items() if shutil.which(name) is None}
    if packages:
        return f"a node needs Debian's packages {', '.join(sorted(packages))}: install them"
    if unbuilt := list(_unbuilt()):
        return f"{', '.join(unbuilt)}: missing, `python -m tests.node.programs` builds them"
    return ""


def build() -> None:
    """Build all programs that are missing.

    Raises:
        BuildError: there is no Go of the right version, or a build fails.
    """
    for tool in TOOLS:
        binaries.build(tool)
    for tool in binaries.ALL:
        if set(tool.programs) & {*CONTROL_PLANE, "metrics-server"}:
            binaries.build(tool)


def _unbuilt() -> Iterator[str]:
    for name in (*CONTROL_PLANE, "metrics-server", *(name for tool in TOOLS for name in tool.programs)):
        if find(name) is None:
            yield name


def main() -> int:
    """Build all programs that are missing."""
    try:
        build()
    except BuildError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
