"""A control plane with a real node, as processes in namespaces of their own."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.e2e.controlplane import ControlPlane, MissingProgram
from tests.node import archives, kubelet, network, programs, runtime
from tests.node.state import CGROUPS, Node
from tests.processes import poll, status

_KUBELET: Final = "kubelet-token"
_PROXY: Final = "kube-proxy-token"
_READER: Final = "reader-token"
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_API: Final = "10.0.0.1"
"""Address of the Service `kubernetes`."""


class NodePlane(ControlPlane):
    """A control plane whose node runs what it is given. It is started inside the namespaces of a node."""

    programs: ClassVar[Sequence[str]] = programs.CONTROL_PLANE
    addresses: ClassVar[Sequence[str]] = ("127.0.0.1", network.GATEWAY, _API)
    users: ClassVar[Sequence[tuple[str, str, str]]] = (
        (_KUBELET, f"system:node:{kubelet.NAME}", "system:nodes"),
        (_PROXY, "system:kube-proxy", "system:nodes"),
        (_READER, "reader", "system:masters"),
    )
    listening: ClassVar[Sequence[str]] = (
        *("--bind-address", "0.0.0.0", "--advertise-address", network.GATEWAY),
        *("--kubelet-preferred-address-types", "InternalIP"),
    )

    def __init__(self, node: Node, port: int) -> None:
        super().__init__(node.folder, port)
        self._node = node

    def start_nodes(self) -> None:
        """Start the node, and return when it is ready."""
        folder, proxied = self.folder, self.write_kubeconfig("kube-proxy", _PROXY)
        reader = self.write_kubeconfig("reader", _READER)
        network.write_cni(folder / "cni")
        self._configure("containerd.toml", runtime.configuration(folder))
        self.run("containerd", "containerd", "--config", str(folder / "containerd.toml"))
        poll(runtime.responds, "containerd responds")
        self._load_pause()
        self._make_cgroups()
        configuration = kubelet.configuration(folder, self._node.cgroup, self.kubelet_port)
        self._configure("kubelet.yaml", configuration)
        self._start(
            "kubelet",
            *("--config", f"{folder}/kubelet.yaml", "--root-dir", f"{folder}/kubelet"),
            *("--kubeconfig", str(self.write_kubeconfig("kubelet", _KUBELET)), "--cert-dir", f"{folder}/kubelet-certs"),
            *("--hostname-override", kubelet.NAME, "--node-ip", network.GATEWAY),
        )
        self._configure("kube-proxy.yaml", network.proxy(proxied))
        self._start("kube-proxy", "--config", f"{folder}/kube-proxy.yaml", "--hostname-override", kubelet.NAME)
        self._configure("Corefile", network.corefile(reader))
        self._start("coredns", "-conf", f"{folder}/Corefile")
        self._start_policies()
        poll(lambda: self.is_ready("nodes", kubelet.NAME, "Ready"), f"{kubelet.NAME} is ready")
        poll(lambda: status(network.PROXY_HEALTH) == 200, "kube-proxy has written its rules")
        for process in self.processes.values():
            assert process.alive(), f"{process.name} ended:\n{process.tail()}"

    def _start_policies(self) -> None:
        """Start the enforcer of NetworkPolicies, which reads its credentials where a pod has them."""
        _SERVICE_ACCOUNT.mkdir(parents=True)
        (_SERVICE_ACCOUNT / "token").write_text(_READER)
        (_SERVICE_ACCOUNT / "ca.crt").write_text(self.certificate.read_text())
        address = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        self.run(
            "kube-network-policies",
            *(str(_found("kube-network-policies")), f"--hostname-override={kubelet.NAME}", "--disable-nri"),
            *("--metrics-bind-address=127.0.0.1:0", "--netfilter-bug-1766-fix=false"),
            environment=os.environ | address,
        )

    def _load_pause(self) -> None:
        archive = archives.write(
            self.folder / "pause.tar", runtime.PAUSE_IMAGE, {"/pause": _found("pause")}, ["/pause"]
        )
        subprocess.run(runtime.ctr("images", "import", str(archive)), check=True, capture_output=True)

    def _make_cgroups(self) -> None:
        """Make the cgroup below which pods have theirs, in every hierarchy of the machine."""
        hierarchies = [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]
        if (CGROUPS / "cgroup.controllers").is_file():
            hierarchies = [CGROUPS]
        for hierarchy in hierarchies:
            path = hierarchy / self._node.cgroup
            path.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / name).is_file():
                    (path / name).write_text((hierarchy / name).read_text())

    def _configure(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def _start(self, name: str, *flags: str) -> None:
        self.run(name, str(_found(name)), *flags)


def _found(name: str) -> Path:
    path = programs.find(name)
    if path is None:
        raise MissingProgram(f"{name} is missing: `python -m tests.node.programs` builds it")
    return path
