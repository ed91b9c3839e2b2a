"""Listening on both families, and on one where there is no other."""

import errno
import socket
import subprocess
import sys

import pytest

from program.sockets import ListenError, bind
from tests.deadlines import SECONDS
from tools.repository import ROOT


def has_ipv6() -> bool:
    """Whether this machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
def test_every_address_of_both_families() -> None:
    """`[::]` takes clients of either family, one socket for both."""
    with bind("[::]:0", "--listen") as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=SECONDS).close()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
def test_one_address_is_one_family() -> None:
    """`[::1]` and `127.0.0.1` take no clients of the other family."""
    for mine, other in (("[::1]:0", "127.0.0.1"), ("127.0.0.1:0", "::1")):
        with bind(mine, "--listen") as sock, pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, sock.getsockname()[1]), timeout=3)


@pytest.mark.parametrize("where", ["socket", "bind"])
@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_it_is_ipv4(monkeypatch: pytest.MonkeyPatch, where: str, code: int) -> None:
    """A kernel without IPv6, or with IPv6 switched off: `[::]` is every address of IPv4, `[::1]` an error."""
    real = socket.socket

    class Without(real):  # type: ignore[misc, valid-type]
        """A socket of a machine without IPv6."""

        def __init__(self, family: int = socket.AF_INET, *rest: int, **values: object) -> None:
            if where == "socket" and family == socket.AF_INET6:
                raise OSError(code, "none here")
            super().__init__(family, *rest, **values)

        def bind(self, address: object, /) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(code, "none here")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Without)
    with bind("[::]:0", "--listen", send_buffer_bytes=65536) as sock:
        assert sock.family == socket.AF_INET
        assert sock.getsockname()[0] == "0.0.0.0"
    with pytest.raises(ListenError, match=r"--listen \[::1\]:0 cannot be used: none here"):
        bind("[::1]:0", "--listen")


def test_a_port_in_use_is_no_reason_for_another_family() -> None:
    """`[::]` on a port that is taken is an error, not half of it."""
    with bind("[::]:0", "--listen") as sock, pytest.raises(ListenError, match="in use"):
        bind(f"[::]:{sock.getsockname()[1]}", "--listen")


IPV6_OFF = """
import pathlib, runpy, sys
pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
from program.sockets import bind
sock = bind("[::]:0", "--listen")
import socket
print(socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=3).getpeername()[0])
"""


def test_a_network_namespace_with_ipv6_switched_off() -> None:
    """What a kernel really says where net.ipv6.conf.all.disable_ipv6 is 1: IPv4 clients are served all the same."""
    inner = ["sh", "-c", 'ip link set lo up && exec "$0" -c "$1"', sys.executable, IPV6_OFF]
    made = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", *inner],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if made.returncode and "Traceback" not in made.stderr:
        pytest.skip(f"no network namespace here: {made.stderr.strip()}")
    assert made.stdout.strip() == "127.0.0.1", made.stderr
