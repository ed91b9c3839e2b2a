"""The container runtime of a node: containerd with a root of its own, and the images that it is given."""

import subprocess
from pathlib import Path
from typing import Final

from tests.node.programs import CNI

SOCKET: Final = "/run/containerd/containerd.sock"
"""Socket of containerd, in the folder /run of the node."""
PAUSE_IMAGE: Final = "beamlit.test/pause:1"


def configuration(folder: Path) -> str:
    """Return the configuration of a containerd that keeps images and containers below a folder."""
    return f"""\
version = 2
root = "{folder / "containerd"}"
state = "/run/containerd/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  # The machine may lack the right to make a container less likely to be killed than itself.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{folder / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def ctr(*words: str) -> list[str]:
    """Return a command of containerd's client, to be run in the node."""
    return ["ctr", "--address", SOCKET, "--namespace", "k8s.io", *words]


def responds() -> bool:
    """Return whether containerd responds, asked in the node."""
    return subprocess.run(ctr("version"), capture_output=True, check=False).returncode == 0
