"""Starting and ending a node."""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from tests.node import namespaces, programs, runtime, state
from tests.node.inside import READY
from tests.node.state import Node
from tests.processes import poll

_START: Final = 300
"""Seconds that the start of a node may take on a busy machine."""


class NodeError(Exception):
    """A node could not be started or found. The message says why."""


def up(name: str, *, ends_with_us: bool = False) -> Node:
    """Start a node, and return it when its API server and all else runs.

    Args:
        name: of the node.
        ends_with_us: whether it ends when this process does, however that ends.

    Raises:
        NodeError: it runs already, a program is missing, or it does not start. Then nothing remains of it.
    """
    if not re.fullmatch("[a-z0-9-]{1,40}", name):
        raise NodeError(f"{name}: a name has lower case letters, digits and hyphens")
    if reason := programs.missing():
        raise NodeError(reason)
    earlier = state.find(name)
    if earlier is not None and not earlier.remains:
        raise NodeError(f"the node {name} runs already, with {earlier.kubeconfig}")
    _sweep()
    node = Node(name, maker=os.getpid(), maker_born=psutil.Process().create_time())
    node.record()
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.set_inheritable(True)
            node = namespaces.start(node, listener, ends_with_us=ends_with_us)
        poll(lambda: _started(node), f"the node is ready; {node.folder}/*.log say more", seconds=_START)
        if node.process is None:
            raise NodeError(f"the node does not start:\n{(node.folder / 'node.log').read_text()[-4000:]}")
    except BaseException as exc:
        log = _tail(node.folder / "node.log")
        node.end()
        if isinstance(exc, AssertionError):
            raise NodeError(f"{exc}\n{log}") from exc
        raise
    return node


def down(name: str) -> None:
    """End a node and remove all traces of it, and of nodes whose processes died."""
    if (node := state.find(name)) is not None:
        node.end()
    _sweep()


def _sweep() -> None:
    """Remove what is left of nodes whose processes died."""
    for node in list(state.recorded()):
        if node.remains:
            node.end()


def running(name: str) -> Node:
    """Return a node that runs.

    Raises:
        NodeError: it does not.
    """
    node = state.find(name)
    if node is None or node.process is None:
        raise NodeError(f"the node {name} does not run: `python -m tests.node up` starts it")
    return node


def load(node: Node, archive: Path) -> None:
    """Give the node the images of an archive.

    Raises:
        NodeError: it refuses them.
    """
    command = namespaces.enter(node, *runtime.ctr("images", "import", str(archive.resolve())))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NodeError(f"{archive} cannot be loaded: {result.stderr.strip()[-1000:]}")


@contextlib.contextmanager
def started(name: str) -> Iterator[Node]:
    """Start a node for as long as the context lasts; it ends with this process at the latest."""
    node = up(name, ends_with_us=True)
    try:
        yield node
    finally:
        node.end()


def _started(node: Node) -> bool:
    return node.process is None or (node.folder / READY).exists()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:] if log.exists() else ""
