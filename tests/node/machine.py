"""What of this machine a node could change: a node that has ended leaves it as it was."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.node.state import CGROUPS, RECORDS

_MOUNTS: Final = (str(RECORDS), "/run/containerd", "/run/netns", "/var/lib/kubelet", "/var/lib/cni")
"""Parts of paths at which a node's programs mount."""


@dataclass(frozen=True)
class Machine:
    """The state of a machine at one moment."""

    mounts: tuple[str, ...]
    """Mounts of containers, pods and their networks. Other programs mount other things meanwhile."""
    links: tuple[str, ...]
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    rules: tuple[str, ...]
    """Rules of iptables and nftables."""
    settings: tuple[str, ...]
    """Settings of the kernel that programs of a node like to change."""
    cgroups: tuple[str, ...]
    processes: tuple[str, ...]
    """Command lines of processes that belong to a node."""
    records: tuple[str, ...]


def look() -> Machine:
    """Return the state of this machine now."""
    return Machine(
        mounts=tuple(
            line for line in _lines(Path("/proc/self/mounts").read_text()) if any(map(line.__contains__, _MOUNTS))
        ),
        links=tuple(sorted(path.name for path in Path("/sys/class/net").iterdir())),
        addresses=_output("ip", "-oneline", "address", "show", "up", "scope", "global"),
        routes=_output("ip", "route"),
        rules=(*_output("iptables-save"), *_output("iptables-legacy-save"), *_output("nft", "list", "ruleset")),
        settings=_output("sysctl", "vm.overcommit_memory", "kernel.panic", "net.ipv4.ip_forward"),
        cgroups=tuple(sorted(map(str, CGROUPS.glob("**/beamlit-node-*")))),
        processes=tuple(sorted(_processes())),
        records=tuple(sorted(path.name for path in RECORDS.glob("*"))),
    )


def _processes() -> list[str]:
    lines = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        line = " ".join(process.info["cmdline"] or ())
        if "tests.node.inside" in line or str(RECORDS) in line or "containerd-shim" in line:
            lines.append(f"{process.info['pid']} {line}")
    return lines


def _output(*command: str) -> tuple[str, ...]:
    """Return what a command prints without comments, which have the time of day; nothing where it is missing."""
    if shutil.which(command[0]) is None:
        return ()
    return _lines(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
