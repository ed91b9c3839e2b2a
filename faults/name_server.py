"""A name server on loopback, for the names of a test or a campaign: it responds, says that there is no such name, or is
silent."""

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gateway.upstream.name_server import CONFIGURATION, NameServer

_A: Final = 1
_AAAA: Final = 28
_NAME_ERROR: Final = 3


class FakeNameServer:
    """A name server that can be changed while it runs."""

    def __init__(self, addresses: Mapping[str, tuple[str, ...]], *, silent: tuple[str, ...], ttl: int) -> None:
        self.addresses = dict(addresses)
        """Addresses by name; any other name does not exist."""
        self.silent = set(silent)
        """Ends of the names that get no response."""
        self.ttl = ttl
        self.asked: list[str] = []
        """Names of the questions for addresses of IPv4, in their order."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Address and port of the server."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def open(self, *search: str, configuration: Path = CONFIGURATION) -> NameServer:
        """Return a configuration that names this server alone."""
        return NameServer(servers=(self.address,), search=search, configuration=configuration)

    def close(self) -> None:
        """Stop the server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(4096)
            if not question:
                return
            response = self._response(question)
            if response is not None:
                self._socket.sendto(response, peer)

    def _response(self, question: bytes) -> bytes | None:
        place, labels = 12, []
        while question[place]:
            end = place + 1 + question[place]
            labels.append(question[place + 1 : end].decode())
            place = end
        (kind,) = struct.unpack_from(">H", question, place + 1)
        name = ".".join(labels).lower()
        if kind == _A:
            self.asked.append(name)
        if any(name == one or name.endswith(f".{one}") for one in self.silent):
            return None
        family = {_A: 4, _AAAA: 6}.get(kind)
        found = [
            address.packed for address in map(ip_address, self.addresses.get(name, ())) if address.version == family
        ]
        code = 0 if name in self.addresses else _NAME_ERROR
        head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, self.ttl, len(one)) + one for one in found)
        return head + question[12 : place + 5] + records


@contextmanager
def name_server(
    addresses: Mapping[str, tuple[str, ...]], *, silent: tuple[str, ...] = (), ttl: int = 0
) -> Iterator[FakeNameServer]:
    """Yield a name server for the block."""
    server = FakeNameServer(addresses, silent=silent, ttl=ttl)
    try:
        yield server
    finally:
        server.close()
