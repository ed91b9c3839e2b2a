"""Memory for what waits: bodies that are held or stream once their model is known, slow readers, slow senders."""

import asyncio
import inspect
import json
import socket

import pytest

from gateway.api.v1alpha1 import RouteDocument
from gateway.model_names.body import BodyReader
from tests.deadlines import NEVER
from tests.integration.gateway.wire import Client, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

MIB = 1 << 20


def head(*fields: bytes, target: bytes = b"/v1/chat/completions") -> bytes:
    """Return the head of a POST with a JSON body."""
    lines = (b"POST %b HTTP/1.1" % target, b"Host: gateway", b"Content-Type: application/json", *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def sized(content: bytes, **kinds: bytes) -> bytes:
    """Return the head of a POST with this body."""
    return head(b"Content-Length: %d" % len(content), **kinds)


def body(size: int, *, model: str = "demo", early: bool = True) -> bytes:
    """Return a JSON body of about `size` bytes, whose model stands at its beginning or end."""
    filling = {"messages": ["x" * size]}
    content = {"model": model} | filling if early else filling | {"model": model}
    return json.dumps(content).encode()


class Recorder:
    """Server that records what it gets of each request as it comes, and responds to whole ones."""

    def __init__(self) -> None:
        self.head = b""
        self.received = 0
        self.body = b""
        self.requests = 0
        self.cut = 0

    async def __call__(self, side: ServerSide) -> None:
        """Serve one connection."""
        while True:
            self.head = await side.reader.readuntil(b"\r\n\r\n")
            self.received, self.body = 0, b""
            length = next(
                int(line[16:]) for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length: ")
            )
            try:
                while self.received < length:
                    data = await side.reader.read(min(1 << 16, length - self.received))
                    if not data:
                        raise ConnectionError
                    self.received += len(data)
                    self.body += data
            except ConnectionError:
                self.cut += 1
                raise
            self.requests += 1
            await side.send(reply())


# Bodies that stream


@pytest.mark.parametrize("name", ["demo", "org/another-name"])
async def test_a_large_body_streams_once_its_model_is_known(name: str) -> None:
    """A backend gets the beginning of a large body while the client still sends, with its length and name for it."""
    server_name = None if name == "demo" else name
    content = body(3 * MIB)
    recorder = Recorder()
    async with (
        serving(recorder) as server,
        gateway(document(local(model=server_name)), local_port=server.port) as running,
    ):
        client = await running.client()
        await client.send(sized(content), content[: MIB // 2])
        await until(lambda: recorder.received > MIB // 4)
        await client.send(content[MIB // 2 :])
        assert (await client.response(b"POST")).status == 200
    expected = content.replace(b'"demo"', json.dumps(name).encode())
    assert recorder.body == expected
    assert b"content-length: %d" % len(expected) in recorder.head


async def test_a_second_name_in_a_body_that_streams_is_never_completed() -> None:
    """The attempt ends before the end of the body is sent, and the client is told, when a second name comes."""
    content = body(3 * MIB)[:-1] + b', "model": "other"}'
    recorder = Recorder()
    async with serving(recorder) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(sized(content), content[:MIB])
        await until(lambda: recorder.received > MIB // 2)
        await client.send(content[MIB:])
        response = await client.response(b"POST")
        assert (response.status, response.code) == (400, "model_missing")
        await until(lambda: recorder.cut == 1)
        assert recorder.requests == 0
        assert running.memory.used == 0


@pytest.mark.skipif(not inspect.isfunction(BodyReader._take), reason="a compiled class cannot be observed")
async def test_a_body_is_looked_through_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large body that streams no more than 64 KiB is looked through in one turn of the loop."""
    turn = 0
    steps: dict[int, int] = {}
    take = BodyReader._take

    def counted(reader: BodyReader, data: bytes) -> None:
        steps[turn] = steps.get(turn, 0) + len(data)
        take(reader, data)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(BodyReader, "_take", counted)
    content = body(8 * MIB)
    counting = asyncio.create_task(count())
    try:
        async with serving(Recorder()) as server, gateway(local_port=server.port) as running:
            assert (await running.ask(sized(content), content, method=b"POST")).status == 200
    finally:
        counting.cancel()
    assert sum(steps.values()) == len(content)
    # A step before the body streams, the first one of what streams, and one of what arrives in the same turn.
    assert max(steps.values()) <= 3 * 65536


async def test_a_body_of_unknown_size_streams_too() -> None:
    """A large chunked body is sent in chunks once its model is known, renamed."""
    content = body(3 * MIB)
    whole = asyncio.Event()
    received = bytearray()

    async def script(side: ServerSide) -> None:
        assert b"transfer-encoding: chunked" in await side.reader.readuntil(b"\r\n\r\n")
        while size := int(await side.reader.readuntil(b"\r\n"), 16):
            received.extend((await side.reader.readexactly(size + 2))[:-2])
        await side.reader.readexactly(2)
        whole.set()
        await side.send(reply())

    async with serving(script) as server, gateway(document(local(model="other")), local_port=server.port) as running:
        client = await running.client()
        await client.send(head(b"Transfer-Encoding: chunked"))
        for start in range(0, len(content), MIB // 2):
            piece = content[start : start + MIB // 2]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await until(lambda: len(received) > MIB)
        assert not whole.is_set()
        await client.send(b"0\r\n\r\n")
        assert (await client.response(b"POST")).status == 200
    assert bytes(received) == content.replace(b'"demo"', b'"other"')


async def test_a_backend_that_reads_slowly_holds_a_body_from_memory_back() -> None:
    """A body that was read whole is given to a slow backend piece by piece, and arrives unchanged."""
    content = body(6 * MIB, early=False)
    go = asyncio.Event()
    recorder = Recorder()

    async def script(side: ServerSide) -> None:
        await go.wait()
        await recorder(side)

    async with serving(script) as server, gateway(document(local(model="other")), local_port=server.port) as running:
        client = await running.client()
        await client.send(sized(content), content)
        await until(lambda: running.memory.used >= len(content))
        go.set()
        assert (await client.response(b"POST")).status == 200
        await until(lambda: running.memory.used == 0)
    assert recorder.body == content.replace(b'"demo"', b'"other"')


# The budget


def budget(mib: int) -> dict[str, object]:
    """Return settings with a memory budget."""
    return {"gateway": {"limits": {"memoryBytes": mib * MIB}}}


async def unfinished(running: Running, size: int) -> Client:
    """Begin a request whose body must be held and does not end."""
    content = body(size, early=False)
    client = await running.client()
    await client.send(sized(content), content[: len(content) // 2])
    return client


async def test_a_body_that_does_not_fit_waits_unread_and_is_served_then() -> None:
    """A body waits while others hold the budget, and is read once they have given their memory back."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=budget(4)) as running:
        first = await unfinished(running, 3 * MIB)
        await until(lambda: running.memory.used > 3 * MIB)
        content = body(2 * MIB, early=False)
        second = await running.client()
        await second.send(sized(content), content[: MIB // 4])
        await until(lambda: running.memory.waiting == 1)
        small = await running.post(b"/v1/chat/completions", body(1000))
        assert small.status == 200  # what needs no memory does not wait
        first.reset()
        await second.send(content[MIB // 4 :])
        assert (await second.response(b"POST")).status == 200
        await until(lambda: running.memory.used == 0)


async def test_a_body_that_does_not_fit_in_time_is_refused() -> None:
    """A body that has waited for as long as it may is refused with 503, and can be sent again."""
    async with (
        serving(echo) as server,
        gateway(local_port=server.port, settings=budget(4), memory_wait=0.05) as running,
    ):
        await unfinished(running, 3 * MIB)
        await until(lambda: running.memory.used > 3 * MIB)
        second = await unfinished(running, 2 * MIB)
        response = await second.response(b"POST")
        assert (response.status, response.code) == (503, "overloaded")
        assert response.value(b"retry-after") == b"1"
        assert running.memory.refused == 1


async def test_a_body_that_can_never_fit_is_refused_at_once() -> None:
    """A body that must be held and is larger than the budget gets 413."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=budget(4)) as running:
        client = await unfinished(running, 5 * MIB)
        assert (await client.response(b"POST")).status == 413


async def test_a_chunked_body_that_outgrows_the_budget_ends_alone() -> None:
    """A body of unknown size that must be held ends with 503 when there is no more room for it."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=budget(4)) as running:
        client = await running.client()
        content = body(6 * MIB, early=False)
        await client.send(head(b"Transfer-Encoding: chunked"))

        async def feed() -> None:
            for start in range(0, len(content), MIB // 4):
                piece = content[start : start + MIB // 4]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))

        feeding = asyncio.create_task(feed())
        response = await client.response(b"POST")
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        assert (response.status, response.code) == (503, "overloaded")
        await until(lambda: running.memory.used == 0)


async def test_a_body_that_could_be_sent_again_streams_where_there_is_no_room() -> None:
    """Without room for a second attempt a request by path is sent all the same, once."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=budget(2)) as running:
        await unfinished(running, 2 * MIB - 100)
        await until(lambda: running.memory.used > MIB)
        content = b"x" * (MIB // 2)
        response = await running.ask(sized(content, target=b"/default/demo/x"), content, method=b"POST")
        assert response.status == 200


def two() -> list[RouteDocument]:
    """Return the documents of two models."""
    return [document(), document(name="other")]


async def test_no_route_has_all_of_the_memory_or_connections() -> None:
    """While there are two models, one of them leaves half of the budget and of the connections to the other."""
    settings = {"gateway": {"limits": {"memoryBytes": 4 * MIB, "connections": 4}}}
    async with serving(echo) as server, gateway(*two(), local_port=server.port, settings=settings) as running:
        held = await unfinished(running, 3 * MIB)
        assert (await held.response(b"POST")).status == 413
    gate = asyncio.Event()

    async def slow(side: ServerSide) -> None:
        await side.request()
        await gate.wait()
        await side.send(reply())

    async with serving(slow) as server, gateway(*two(), local_port=server.port, settings=settings) as running:
        get = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"
        clients = [await running.client() for _ in range(2)]
        for client in clients:
            await client.send(get)
        await until(lambda: len(server.sides) == 2)
        third = await running.ask(get)
        assert (third.status, third.code) == (503, "overloaded")
        gate.set()
        assert [(await client.response()).status for client in clients] == [200, 200]


async def test_no_namespace_has_all_of_the_connections() -> None:
    """While there are two namespaces, the routes of one leave a quarter of the connections to the other."""
    settings = {"gateway": {"limits": {"connections": 4}}}
    gate = asyncio.Event()

    async def slow(side: ServerSide) -> None:
        if b"/held" in await side.request():
            await gate.wait()
        await side.send(reply())

    async with serving(slow) as server, gateway(*two(), local_port=server.port, settings=settings) as running:
        running.load_all({"default": two(), "elsewhere": [document(remote(100), name="there")]})
        await until(lambda: "elsewhere/there" in running.store.table.routes)
        clients = [await running.client() for _ in range(3)]
        for client, model in zip(clients, ("demo", "demo", "other"), strict=True):
            await client.send(b"GET /default/%b/held HTTP/1.1\r\nHost: gateway\r\n\r\n" % model.encode())
        await until(lambda: len(server.sides) == 3)
        fourth = await running.ask(b"GET /default/other/x HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert (fourth.status, fourth.code) == (503, "overloaded")
        assert (await running.ask(b"GET /elsewhere/there/x HTTP/1.1\r\nHost: gateway\r\n\r\n")).status == 502
        gate.set()
        assert [(await client.response()).status for client in clients] == [200, 200, 200]


async def test_a_client_whose_route_is_not_known_leaves_memory_to_others() -> None:
    """Bodies without a known route from one address leave room for such bodies from other addresses."""
    settings = {"gateway": {"limits": {"memoryBytes": 4 * MIB}}}
    async with serving(echo) as server, gateway(*two(), local_port=server.port, settings=settings) as running:
        await unfinished(running, 2 * MIB - 100)
        await until(lambda: running.memory.used > MIB)
        content = body(MIB // 2, early=False)
        _, writer = other = await asyncio.open_connection("127.0.0.1", running.port, local_addr=("127.0.0.2", 0))
        client = Client(*other)
        await client.send(sized(content), content)
        assert (await client.response(b"POST")).status == 200
        writer.close()


async def test_responses_that_wait_are_counted_and_end_where_there_is_no_room() -> None:
    """What waits for slow readers is in the budget; one too many of them is cut, and the memory comes back."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * MIB))
        for _ in range(64 * 16):
            await side.send(b"a" * 65536)

    async with serving(script) as server, gateway(local_port=server.port, settings=budget(1)) as running:
        readers: list[socket.socket] = []
        for _ in range(16):
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
            await asyncio.get_running_loop().sock_sendall(raw, b"GET /default/demo/x HTTP/1.1\r\nHost: g\r\n\r\n")
            readers.append(raw)
        await until(lambda: running.memory.refused > 0)
        assert 0 < running.memory.used <= MIB
        for raw in readers:
            raw.close()
        await until(lambda: running.memory.used == 0)


# Slow senders


async def test_a_body_that_trickles_is_given_up() -> None:
    """A body that comes far more slowly than the least rate gets 408, although each of its pauses is short."""
    settings = {"gateway": {"limits": {"bodyBytesPerSecond": 100000}, "timeouts": {"bodySeconds": 1}}}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:
        client = await running.client()
        await client.send(head(b"Content-Length: 100000", target=b"/default/demo/x"))

        async def trickle() -> None:
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        response = await client.response(b"POST")
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        assert (response.status, response.code) == (408, "body_timeout")


async def test_any_rate_is_fine_where_the_setting_is_0() -> None:
    """Without a least rate only the pauses count."""
    settings = {"gateway": {"limits": {"bodyBytesPerSecond": 0}, "timeouts": {"bodySeconds": NEVER}}}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:
        client = await running.client()
        await client.send(head(b"Content-Length: 20", target=b"/default/demo/x"))
        for _ in range(20):
            await client.send(b"x")
            await asyncio.sleep(0.01)
        assert (await client.response(b"POST")).status == 200
