"""Ports for servers under test: which there are, and that no two processes get the same."""

import contextlib
import socket
import subprocess
import sys

import pytest

from tools.ports import BLOCK, LOWEST, free_port, ports_outside
from tools.repository import ROOT


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (32768, 60999, range(LOWEST, 32768)),
        (49152, 65535, range(LOWEST, 49152)),
        (12000, 40000, range(40001, 65536)),
        (9000, 30000, range(30001, 65536)),
        (1024, 65535, range(LOWEST, 32768)),
        (1024, 9000, range(LOWEST, 65536)),
    ],
)
def test_ports_are_outside_of_the_kernels_range(first: int, last: int, expected: range) -> None:
    """Ports are taken from the larger range, below or above that of the kernel."""
    assert ports_outside(first, last) == expected


def test_ports_of_a_process_differ() -> None:
    """Ports of one process differ, and one that is in use is left out."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", free_port()))
        ports = [free_port() for _ in range(BLOCK // 4)]
        assert len({*ports, taken.getsockname()[1]}) == BLOCK // 4 + 1


def test_ports_of_two_processes_differ() -> None:
    """Processes that live at the same time never get the same port."""
    ask = "from tools.ports import free_port; print(*(free_port() for _ in range(50)), flush=True); input()"
    command = [sys.executable, "-c", ask]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ports = [free_port() for _ in range(50)]
    for process in processes:
        assert process.stdout is not None
        ports += map(int, process.stdout.readline().split())
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    assert len(set(ports)) == 150
