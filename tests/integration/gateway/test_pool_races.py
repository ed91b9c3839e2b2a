"""Kept connections that end in the moment in which they are used again."""

import asyncio
import random
from itertools import count

from tests.deadlines import NEVER
from tests.integration.gateway.wire import gateway, reply
from tests.integration.servers import ServerSide, serving


async def test_rt_02_cp_09_a_connection_that_closed_as_it_was_handed_out() -> None:
    """CP-09: with a server that ends every connection after its response, without saying so, no POST fails and none
    arrives twice."""
    arrived: list[bytes] = []

    async def script(side: ServerSide) -> None:
        arrived.append((await side.request()).rpartition(b"\r\n")[2])
        await side.send(reply())

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        for number in range(300):
            body = b"%06d" % number
            await client.send(b"POST /default/demo/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 6\r\n\r\n" + body)
            assert (await client.response(b"POST")).status == 200
        assert arrived == [b"%06d" % number for number in range(300)]


async def test_cp_02_a_server_that_closes_just_as_its_connection_is_used_again() -> None:
    """CP-02: no request fails when the server closes an idle connection at any moment around the next request."""
    dice = random.Random(2)
    reused = 0

    async def script(side: ServerSide) -> None:
        nonlocal reused
        while True:
            try:
                async with asyncio.timeout(dice.uniform(0.001, 0.004)):
                    request = await side.request()
            except TimeoutError:
                if side.received:
                    return
                request = await side.request()
            reused += side.received.count(b"HTTP/1.1") > 1
            await side.send(reply(request.split(b" ", 2)[1]))

    async with serving(script) as server, gateway(local_port=server.port) as running:

        def raced() -> bool:
            """Return whether the server closed many times, and not always."""
            return len(server.sides) > 20 and reused > 20

        async def one(name: int) -> None:
            client = await running.client()
            for number in count():
                if number >= 150 and raced():
                    return
                path = b"/%d-%d" % (name, number)
                await client.send(b"GET /default/demo%b HTTP/1.1\r\nHost: gateway\r\n\r\n" % path)
                response = await client.response()
                assert (response.status, response.body) == (200, path)
                await asyncio.sleep(dice.uniform(0.001, 0.004))

        async with asyncio.timeout(NEVER):  # on a busy machine few of the requests come before the server closes
            await asyncio.gather(*(one(name) for name in range(4)))
