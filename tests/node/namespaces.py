"""The namespaces in which a node lives: its processes, mounts, links, rules and routes are its own.

So nothing of it is seen on this machine beside processes, cgroups and one folder, and all of it ends with one process.
"""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil

from tests.node.state import Node
from tools.repository import ROOT

_KINDS: Final = ("--net", "--ipc", "--uts", "--mount-proc")
_PRIVATE: Final = ("/run", "/var/lib", "/var/log")
"""Folders that are empty at first and seen by the node alone: programs write there whatever their flags say."""
_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""Processes that hold the nodes which this process started. They go on when it ends, and it does not wait for them."""
_HELD: Final[list[int]] = []
"""Ends of pipes that this process never writes to: nodes that end with it see that they are closed."""
KERNEL: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Settings of the kernel that kubelet changes where they are not so. They are the machine's, so a node sees files with
these values in their place."""


def own(*kinds: str, ends_with_us: bool = True) -> list[str]:
    """Return the words before a command that give it namespaces of its own, PIDs among them.

    All processes that the command starts end with it, and its mounts are nobody else's.

    Args:
        kinds: flags of `unshare` for namespaces beside those of mounts and PIDs.
        ends_with_us: whether it ends when the thread that starts it does, however that ends.
    """
    words = ["unshare", "--mount", "--pid", *kinds, "--fork", "--kill-child=KILL", "--propagation", "private"]
    return ["setpriv", "--pdeathsig", "KILL", *words] if ends_with_us else words


def start(node: Node, listener: socket.socket, *, ends_with_us: bool) -> Node:
    """Start the node's first process, and return the recorded node.

    Args:
        node: the node, with a folder that is recorded.
        listener: a socket of this machine whose connections the node shall pass on to its API server.
        ends_with_us: whether the node ends when this process does, however that ends.
    """
    command = [*own(*_KINDS, ends_with_us=False), sys.executable, "-m", "tests.node.inside", node.name]
    passed = [listener.fileno()]
    if ends_with_us:
        # Its end is seen whenever it comes; a signal at our death would be missed before it was asked for.
        reading, writing = os.pipe()
        _HELD.append(writing)
        passed.append(reading)
    with (node.folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *map(str, passed)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=passed,
            start_new_session=True,
        )
    for descriptor in passed[1:]:
        os.close(descriptor)
    _STARTED.append(process)
    running = dataclasses.replace(node, pid=process.pid, born=psutil.Process(process.pid).create_time())
    running.record()
    return running


def enter(node: Node, *command: str) -> list[str]:
    """Return the command that runs a command in the namespaces of the node."""
    return ["nsenter", "--target", str(node.inside), "--mount", "--net", "--pid", "--ipc", "--uts", *command]


def isolate(folder: Path) -> None:
    """Give the namespaces, of which this process is the first, their own folders and settings of the kernel."""
    for path in _PRIVATE:
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    for name, value in KERNEL.items():
        shown = folder / "kernel" / name.replace("/", ".")
        shown.parent.mkdir(exist_ok=True)
        shown.write_text(f"{value}\n")
        _run("mount", "--bind", str(shown), f"/proc/sys/{name}")
    socket.sethostname("node")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
