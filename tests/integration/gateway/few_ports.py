"""Program that runs a gateway with eight local ports, to be started as root of a network namespace of its own."""

import asyncio
import fcntl
import socket
import struct
from pathlib import Path

import uvloop

from tests.integration.gateway.wire import Client, Running, gateway, reply
from tests.integration.servers import ServerSide, serving, until

PORTS = 8
GET = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"


def bring_up_loopback() -> None:
    """Bring the loopback interface up as `ip link set lo up` does (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flags = struct.unpack("16sh", fcntl.ioctl(sock, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh", b"lo", flags | 1))


async def connected(running: Running, number: int) -> Client:
    """Return a client on a port outside of the range, whose ports are for the gateway."""
    return Client(*await asyncio.open_connection("127.0.0.1", running.port, local_addr=("127.0.0.1", 50000 + number)))


async def main() -> None:
    """Send requests until the ports are used up, and again when they are free."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await go.wait()
            await side.send(reply())

    async with serving(script) as server, gateway(local_port=server.port) as running:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"40000 {40000 + PORTS - 1}")
        clients = [await connected(running, number) for number in range(PORTS + 3)]
        for client in clients:
            await client.send(GET)
        responses = [asyncio.ensure_future(client.response()) for client in clients]
        await until(lambda: sum(one.done() for one in responses) == 3)
        codes = [one.result().code for one in responses if one.done()]
        assert codes == ["overloaded"] * 3, codes
        go.set()
        served = [client for client, one in zip(clients, responses, strict=True) if (await one).status == 200]
        assert len(served) == PORTS
        for client in served:
            await client.send(GET)
            assert (await client.response()).status == 200  # on a connection that was kept
        for client in clients:
            client.reset()


if __name__ == "__main__":
    bring_up_loopback()
    uvloop.run(main())
