"""Listening on addresses of IPv4 and IPv6, and on IPv4 alone where there is no IPv6."""

import errno
import socket
import subprocess
import sys

import pytest

from program.sockets import ListenError, bind, listen
from tests.deadlines import SECONDS
from tools.repository import ROOT


def has_ipv6() -> bool:
    """Return whether this machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
def test_every_address_of_both_families() -> None:
    """A socket on `[::]` accepts clients of both families."""
    with bind("[::]:0", "--listen") as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=SECONDS).close()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
def test_one_address_is_one_family() -> None:
    """A socket on `[::1]` or `127.0.0.1` accepts no clients of the other family."""
    for mine, other in (("[::1]:0", "127.0.0.1"), ("127.0.0.1:0", "::1")):
        with bind(mine, "--listen") as sock, pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, sock.getsockname()[1]), timeout=3)


@pytest.mark.parametrize("where", ["socket", "bind"])
@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_it_is_ipv4(monkeypatch: pytest.MonkeyPatch, where: str, code: int) -> None:
    """Without IPv6, in the kernel or switched off, `[::]` means every address of IPv4, and `[::1]` is an error."""
    real = socket.socket

    class Without(real):  # type: ignore[misc, valid-type]
        """Socket of a machine without IPv6."""

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
    """Listening on `[::]` with a port in use is an error, although another family might be free."""
    with bind("[::]:0", "--listen") as sock, pytest.raises(ListenError, match="in use"):
        bind(f"[::]:{sock.getsockname()[1]}", "--listen")


def test_an_address_that_is_taken_before_it_is_served() -> None:
    """A socket can have an address without accepting clients, and refuses them until it listens."""
    with bind("127.0.0.1:0", "--admin", listening=False) as sock:
        address = sock.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=SECONDS)
        listen(sock, "--admin")
        socket.create_connection(address, timeout=SECONDS).close()
        with pytest.raises(ListenError, match=rf"--admin 127\.0\.0\.1:{address[1]} cannot be used: .*in use"):
            bind(f"127.0.0.1:{address[1]}", "--admin", listening=False)


def test_two_that_take_an_address_at_the_same_time() -> None:
    """Of two sockets that took an address before either listened, the second gets an error when it listens."""
    with bind("127.0.0.1:0", "--admin", listening=False) as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with bind(address, "--admin", listening=False) as second:
            listen(first, "--admin")
            with pytest.raises(ListenError, match=f"--admin {address} cannot be used: .*in use"):
                listen(second, "--admin")


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
    """With net.ipv6.conf.all.disable_ipv6 set in a real kernel, a socket on `[::]` accepts clients of IPv4."""
    inner = ["sh", "-c", 'ip link set lo up && exec "$0" -c "$1"', sys.executable, IPV6_OFF]
    made = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", *inner],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if made.returncode and "Traceback" not in made.stderr:
        pytest.skip(f"no network namespace here: {made.stderr.strip()}")
    assert made.stdout.strip() == "127.0.0.1", made.stderr
