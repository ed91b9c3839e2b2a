"""The first process in the namespaces of a node: it starts everything and passes connections on to the API server.

`python -m tests.node.inside NAME FD [PIPE]` is what `namespaces.start` runs; FD is a socket listening on the machine.
The node ends when the other end of PIPE is closed.
"""

import asyncio
import os
import socket
import sys
import threading
from typing import Final

from tests.node import namespaces, network, state
from tests.node.plane import NodePlane
from tests.node.state import Node
from tests.processes import poll

READY: Final = "ready"
"""Name of the file, in the folder of a node, that says that everything runs."""
_RECORDED: Final = 30.0
"""Seconds within which the process that starts a node records it."""


def main(name: str, descriptor: int, watched: int | None = None) -> None:
    """Run the node until its namespaces end, or until the other end of a pipe is closed."""
    # A node that nobody recorded would not be found to be ended: its maker died at this very moment.
    poll(lambda: _is_recorded(name), "the node is recorded", seconds=_RECORDED)
    child = os.fork()
    if child == 0:
        _run(Node(name), socket.socket(fileno=descriptor))
    if watched is not None:
        threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
    # Processes whose parents ended are children of this one.
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status) and 1)


def _end_with(pipe: int) -> None:
    """Wait until the other end of a pipe is closed, and end this process and with it all others of the node."""
    os.read(pipe, 1)
    os._exit(1)


def _is_recorded(name: str) -> bool:
    node = state.find(name)
    return node is not None and node.pid != 0


def _run(node: Node, listener: socket.socket) -> None:
    namespaces.isolate(node.folder)
    network.start()
    plane = NodePlane(node, listener.getsockname()[1])
    plane.start()
    plane.start_metrics_server()
    (node.folder / READY).touch()
    asyncio.run(_pass_on(listener, plane.port))


async def _pass_on(listener: socket.socket, port: int) -> None:
    """Connect each client on the machine with the same port in the node."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    server = await asyncio.start_server(serve, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
