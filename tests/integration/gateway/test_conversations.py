"""Affinity over real sockets: the requests of a conversation go to the same side."""

import gzip
from typing import Any

import orjson

from gateway.api.v1alpha1 import Affinity
from gateway.api.vocabulary import AffinityType
from tests.integration.gateway.test_pods import OK, World, world
from tests.integration.gateway.wire import Running, document, echo, gateway, local, remote
from tests.integration.servers import serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
TARGET = b"/default/demo/v1/chat/completions"
ROUTE = document(local(50), remote(50), affinity=Affinity(type=AffinityType.CONVERSATION, header="X-Session"))


async def side(running: Running, body: bytes, *fields: bytes, target: bytes = TARGET) -> bytes:
    """Return the backend that a POST went to."""
    response = await running.post(target, body, *fields)
    assert response.status == 200, response
    return response.value(b"x-beamlit-backend") or b""


def turn(number: int, length: int, **more: Any) -> bytes:
    """Return a turn of a conversation."""
    messages = [{"role": "user", "content": f"conversation {number}"}]
    messages += [{"role": "assistant", "content": "word " * 200}] * length
    return orjson.dumps({"model": "demo", "messages": messages} | more)


async def test_the_turns_of_a_conversation_go_to_one_side() -> None:
    """All turns of a conversation go to one side by path and by model, small, large or compressed, in two gateways."""
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(ROUTE, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
        gateway(ROUTE, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as other,
    ):
        sides = []
        for number in range(12):
            one = await side(running, turn(number, 0))
            sides.append(one)
            assert await side(running, turn(number, 2)) == one
            assert await side(running, turn(number, 90)) == one
            assert await side(running, gzip.compress(turn(number, 90)), b"Content-Encoding: gzip") == one
            assert await side(running, turn(number, 3), target=b"/v1/chat/completions") == one
            assert await side(other, turn(number, 4)) == one
        assert set(sides) == {b"local", b"remote"}


async def test_a_client_may_say_to_which_conversation_a_request_belongs() -> None:
    """The header field of the route counts for more than `prompt_cache_key`, and that for more than the messages."""
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(ROUTE, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        for kind in ("header", "key"):
            sides: list[bytes] = []
            for name in map(str, range(12)):
                fields = (b"X-Session: " + name.encode(),) if kind == "header" else ()
                of_one = set()
                for number in range(4):
                    cache_key = str(number) if fields else name
                    of_one.add(await side(running, turn(number, 0, prompt_cache_key=cache_key), *fields))
                assert len(of_one) == 1
                sides += of_one
            assert set(sides) == {b"local", b"remote"}
        sides = [await side(running, b"", b"X-Session: a") for _ in range(3)]
        assert len(set(sides)) == 1


async def test_requests_without_a_conversation_are_divided_exactly() -> None:
    """Requests that show no conversation are divided by the percentage, one by one."""
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(ROUTE, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        body = b'{"model":"demo","prompt":"once"}'
        sides = [await side(running, body, target=b"/default/demo/v1/completions") for _ in range(20)]
        assert sides.count(b"remote") == 10


async def test_a_conversation_fails_over() -> None:
    """A conversation whose backend is away gets its responses from the other one."""
    async with (
        serving(echo) as far,
        gateway(ROUTE, local_port=1, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        assert {await side(running, turn(number, 0)) for number in range(6)} == {b"remote"}


async def pod(there: World, body: bytes) -> str:
    """Return the pod that a POST went to."""
    lines = len(there.running.lines())
    assert (await there.running.post(TARGET, body)).status == 200
    await until(lambda: len(there.running.lines()) > lines)
    return str(there.running.lines()[-1]["pod"])


async def test_a_conversation_has_one_pod() -> None:
    """All turns of a conversation go to one pod, the same in two gateways, and conversations to several."""
    route = document(local(), affinity=Affinity(type=AffinityType.CONVERSATION))
    async with world(route, a=OK, b=OK, c=OK) as one, world(route, a=OK, b=OK, c=OK) as other:
        used = set()
        for number in range(10):
            first = await pod(one, turn(number, 0))
            used.add(first)
            assert [await pod(one, turn(number, 1)), await pod(other, turn(number, 100))] == [first, first]
        assert len(used) > 1


async def test_a_conversation_whose_pod_is_gone_has_another_one() -> None:
    """A conversation whose pod cannot be connected to goes to another one, and stays there."""
    route = document(local(), affinity=Affinity(type=AffinityType.CONVERSATION))
    async with world(route, a=OK, b=None, c=None) as there:
        assert {await pod(there, turn(number, 0)) for number in range(6)} == {"a"}


async def test_prompts_that_begin_alike_share_a_pod() -> None:
    """By prefix, conversations with the same long instructions share a pod; by conversation they do not all."""
    instructions = {"role": "system", "content": "Be helpful. " * 400}
    bodies = [
        orjson.dumps({"messages": [instructions, {"role": "user", "content": f"question {number}"}]})
        for number in range(10)
    ]
    for kind, alike in ((AffinityType.PREFIX, True), (AffinityType.CONVERSATION, False)):
        route = document(local(), affinity=Affinity(type=kind))
        async with world(route, a=OK, b=OK, c=OK) as there:
            pods = {await pod(there, body) for body in bodies}
            assert (len(pods) == 1) is alike
            completions = {await pod(there, orjson.dumps({"prompt": "once " * 600})) for _ in range(4)}
            assert len(completions) == 1 or not alike
            there.running.load(route.model_copy(update={"service_names": ("other",)}))  # the index stays
            if alike:
                assert {await pod(there, body) for body in bodies} == pods


async def test_prompts_that_begin_alike_are_divided_exactly() -> None:
    """By prefix, prompts of no conversation go to the sides one by one, though they share the pod of a side."""
    route = document(local(50), remote(50), affinity=Affinity(type=AffinityType.PREFIX))
    async with world(route, a=OK, b=OK, c=OK) as there:
        body = orjson.dumps({"prompt": "once " * 600})
        sides = [await side(there.running, body) for _ in range(12)]
        assert sides.count(b"remote") == 6
        await until(lambda: len(there.running.lines()) == 12)
        assert len({line["pod"] for line in there.running.lines() if line["backend"] == "local"}) == 1
