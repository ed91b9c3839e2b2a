"""Rules for groups that tokens name, and the order in which requests of callers get a place at a backend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.__main__ import token_rules
from gateway.access.directory import KeyDirectory
from gateway.access.issuer import Issuer as Watched
from gateway.access.rules import CallerRules
from gateway.access.tokens import Tokens
from gateway.api.v1alpha1 import Access, AccessJwt, Queue, RouteDocument
from gateway.settings import JwtSettings
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.test_model_access import Secrets
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, remote
from tests.integration.issuer import AUDIENCE, Issuer
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

ISSUER: Final = Issuer(url="https://issuer.test")
RULES: Final = """
callers: {"oidc:boss": {priority: high}}
groups:
  research: {models: [default/demo], maxInFlight: 1}
  inside: {burst: deny}
  first: {priority: high}
"""


async def published() -> bytes:
    """Return the keys of the issuer."""
    return orjson.dumps({"keys": [key.as_dict(private=False) for key in ISSUER.keys]})


@asynccontextmanager
async def running(
    folder: Path, *documents: Any, server: Any = echo, keys: Path | None = None, secrets: Any = None
) -> AsyncIterator[tuple[Running, ScriptedServer, CallerRules]]:
    """Yield a gateway that takes tokens and has rules, its remote server, and the rules."""
    file = folder / "callers.yaml"
    file.write_text(RULES)
    rules = CallerRules(file)
    section = {"issuer": ISSUER.url, "audiences": [AUDIENCE]}
    issuer = Watched(ISSUER.url, published, refresh_seconds=NEVER, wait_seconds=SECONDS)
    tokens = Tokens(token_rules(JwtSettings.model_validate(section)), issuer)
    access = {"jwt": section, "rulesFile": str(file), "keysDirectory": None if keys is None else str(keys)}
    async with serving(server) as near, serving(echo) as far:
        task = asyncio.create_task(issuer.watch())
        try:
            async with gateway(
                *documents,
                local_port=near.port,
                remote_port=far.port,
                settings={"gateway": {"access": access, "allowedAddresses": ["127.0.0.0/8"]}},
                access=None if keys is None else KeyDirectory(keys),
                rules=rules,
                secrets=secrets,
                tokens=tokens,
            ) as one:
                yield one, far, rules
        finally:
            task.cancel()


async def post(one: Running, name: str, *groups: str, model: str = "demo") -> Response:
    """Return the response to a request of a caller that belongs to groups."""
    field = b"Authorization: Bearer " + ISSUER.token(sub=name, groups=list(groups))
    return await one.post(b"/v1/completions", orjson.dumps({"model": model, "user": name}), field)


async def test_a_group_has_models_and_stays_inside(tmp_path: Path) -> None:
    """Callers of a group may use its models alone, the list has no others, and one that denies bursts stays here."""
    split = document(local(0), remote(100))
    async with running(tmp_path, split, document(name="other")) as (one, far, _):
        refused = await post(one, "alice", "research", model="other")
        assert (refused.status, refused.code) == (403, "forbidden")
        assert (await post(one, "alice", model="other")).status == 200
        token = ISSUER.token(groups=["research", "none"])
        listed = await one.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nauthorization: bearer %b\r\n\r\n" % token)
        assert [model["id"] for model in orjson.loads(listed.body)["data"]] == ["demo"]
        response = await post(one, "bob", "inside", "research")
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"local", b"LocalOnly")
        assert far.sides == []
        assert (await post(one, "carol", "first")).value(b"x-beamlit-backend") == b"remote"


def asks(name: str, *, secrets: tuple[str, ...] = (), **jwt: tuple[str, ...]) -> RouteDocument:
    """Return a document whose model asks for tokens, and for its own API keys where there are some."""
    access = Access(secrets=secrets, jwt=AccessJwt(**jwt))
    return document(name=name, access=access, requires=("access", "accessJwt"))


async def test_a_model_asks_for_more(tmp_path: Path) -> None:
    """A model with an audience or a group of its own is 403 without, also in lists, beside what all have to have."""
    models = (
        asks("any"),
        asks("theirs", groups=("a", "b")),
        asks("others", audiences=("other",)),
        asks("both", audiences=("other",), groups=("a",)),
        document(name="open"),
    )
    async with running(tmp_path, *models) as (one, _, _):

        async def usable(**claims: Any) -> list[str]:
            field = b"authorization: Bearer " + ISSUER.token(**claims)
            found = []
            for name in ("any", "theirs", "others", "both", "open"):
                statuses = set()
                for target in (b"/v1/completions", b"/default/%b/x" % name.encode()):
                    response = await one.post(target, orjson.dumps({"model": name}), field)
                    statuses.add(response.status)
                    if response.status == 403:
                        challenge = b'Bearer realm="beamlit", error="insufficient_scope"'
                        assert (response.code, response.value(b"www-authenticate")) == ("forbidden", challenge)
                line = b"GET /v1/models/%b HTTP/1.1" % name.encode()
                listed = await one.ask(b"%b\r\nHost: x\r\n%b\r\n\r\n" % (line, field))
                assert {200: {200}, 404: {403}}[listed.status] == statuses
                found += [name] * (statuses == {200})
            listed = await one.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field)
            assert sorted(found) == sorted(model["id"] for model in orjson.loads(listed.body)["data"])
            return found

        assert await usable() == ["any", "open"]
        assert await usable(groups=["b"]) == ["any", "theirs", "open"]
        assert await usable(aud=[AUDIENCE, "other"]) == ["any", "others", "open"]
        assert await usable(aud=[AUDIENCE, "other"], groups="a") == ["any", "theirs", "others", "both", "open"]
        field = b"authorization: Bearer " + ISSUER.token(aud="other")
        assert (await one.post(b"/default/others/x", b"{}", field)).status == 401


async def test_a_model_with_keys_and_tokens(tmp_path: Path) -> None:
    """A model that asks for its own keys or for tokens takes both, and neither where the gateway has no issuer."""
    secrets = Secrets(**{"default/demo-keys": {"team-a": "canary-of-the-model-1"}})
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team-b").write_bytes(b"canary-of-the-gateway")
    either, tokens = asks("either", secrets=("demo-keys",), groups=("a",)), asks("tokens")
    own, installed = b"x-api-key: canary-of-the-model-1", b"api-key: canary-of-the-gateway"
    with_group, without = (b"authorization: Bearer " + ISSUER.token(groups=groups) for groups in (["a"], []))

    async def statuses(one: Running, *fields: bytes) -> list[int]:
        targets = (b"/default/either/x", b"/default/tokens/x")
        return [(await one.post(target, b"{}", *fields)).status for target in targets]

    async with running(tmp_path, either, tokens, keys=keys, secrets=secrets) as (one, _, _):
        assert await statuses(one, with_group) == [200, 200]
        assert await statuses(one, without) == [403, 200]
        assert await statuses(one, without, own) == [200, 200]
        assert await statuses(one, installed) == [403, 403]
        assert await statuses(one, installed, own) == [200, 403]
        assert await statuses(one, installed, with_group) == [200, 200]
        await until(lambda: len(one.lines()) == 12)
        assert {line["caller"] for line in one.lines()} == {"oidc:alice", "team-b"}
    async with serving(echo) as near, gateway(either, tokens, local_port=near.port, secrets=secrets) as one:
        assert await statuses(one, with_group) == [401, 403]
        assert await statuses(one, own) == [200, 403]


async def test_callers_of_a_group_have_one_limit(tmp_path: Path) -> None:
    """Requests of all callers of a group count together, and another group's are served meanwhile."""
    go = asyncio.Event()

    async def slow(side: ServerSide) -> None:
        while True:
            await side.request()
            await go.wait()
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with running(tmp_path, server=slow) as (one, _, rules):
        first = asyncio.create_task(post(one, "alice", "research"))
        await until(lambda: bool(rules._in_flight))
        refused = await post(one, "bob", "research", "first")
        assert (refused.status, refused.code, refused.value(b"retry-after")) == (429, "too_many_requests", b"1")
        other = asyncio.create_task(post(one, "carol", "first"))
        go.set()
        assert [(await first).status, (await other).status] == [200, 200]
        await until(lambda: not rules._in_flight)


async def test_high_priority_is_served_first(tmp_path: Path) -> None:
    """Waiting requests of callers with high priority, by their own rule or by a group, are sent before all others."""
    order: list[str] = []
    go = asyncio.Semaphore(0)

    async def slow(side: ServerSide) -> None:
        while True:
            body = (await side.request()).partition(b"\r\n\r\n")[2]
            order.append(orjson.loads(body)["user"])
            await go.acquire()
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    full = document(local(in_flight=1), queue=Queue(size=4, wait=SECONDS))
    async with running(tmp_path, full, server=slow) as (one, _, _):

        def is_queued(number: int) -> bool:
            labels = {"namespace": "default", "model": "demo", "backend": "local"}
            return one.count("beamlit_gateway_queued_requests", **labels) == number

        waits = [asyncio.create_task(post(one, "zero"))]
        await until(lambda: order == ["zero"])
        callers = (("one",), ("two",), ("boss",), ("three",), ("vip", "first"))
        for number, (name, *groups) in enumerate(callers, 1):
            waits.append(asyncio.create_task(post(one, name, *groups)))
            if number <= 4:
                await until(partial(is_queued, number))
        pushed_out = await waits[4]  # the last one without priority, when the queue was full
        assert (pushed_out.status, pushed_out.code) == (503, "at_capacity")
        for _ in waits:
            go.release()
        assert [(await wait).status for wait in waits if wait is not waits[4]] == [200] * 5
        assert order == ["zero", "boss", "vip", "one", "two"]
