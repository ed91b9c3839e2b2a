"""Rules for callers: their models, whether they may burst, and how many of their requests run at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.__main__ import _read
from gateway.access.directory import KeyDirectory
from gateway.access.rules import CallerRules, RuleFile, parse
from program.settings import SettingsError
from tests.integration.gateway.wire import Running, document, echo, gateway, local, remote
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

KEYS: Final = {"team-a": b"canary-of-team-a-01", "batch": b"canary-of-batch-0001"}
RULES: Final = "callers:\n  team-a: {models: [default/demo]}\n  batch: {burst: deny, maxInFlight: 1}\n"


def key(caller: str) -> bytes:
    """Return the field with the key of a caller."""
    return b"x-api-key: " + KEYS[caller]


@asynccontextmanager
async def running(
    folder: Path, *documents: Any, text: str = RULES, server: Any = echo
) -> AsyncIterator[tuple[Running, ScriptedServer, CallerRules, Path]]:
    """Yield a gateway with keys and rules, its remote server, the rules and their file."""
    keys, file = folder / "keys", folder / "callers.yaml"
    keys.mkdir()
    for name, value in KEYS.items():
        (keys / name).write_bytes(value)
    file.write_text(text)
    rules = CallerRules(file, poll_seconds=0.02)
    section = {"access": {"keysDirectory": str(keys), "rulesFile": str(file)}, "allowedAddresses": ["127.0.0.0/8"]}
    async with (
        serving(server) as near,
        serving(echo) as far,
        gateway(
            *documents,
            local_port=near.port,
            remote_port=far.port,
            settings={"gateway": section},
            access=KeyDirectory(keys),
            rules=rules,
        ) as one,
    ):
        yield one, far, rules, file


async def test_a_caller_may_use_the_models_of_its_rule(tmp_path: Path) -> None:
    """Another model is 403 by path and by name, and the list does not have it; a caller without `models` has all."""
    async with running(tmp_path, document(), document(name="other")) as (one, _, _, _):

        async def listed(caller: str) -> list[str]:
            response = await one.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % key(caller))
            return [model["id"] for model in orjson.loads(response.body)["data"]]

        for target in (b"/default/other/x", b"/v1/completions"):
            refused = await one.post(target, b'{"model": "other"}', key("team-a"))
            assert (refused.status, refused.code) == (403, "forbidden")
            assert (await one.post(target, b'{"model": "other"}', key("batch"))).status == 200
        assert (await one.post(b"/v1/completions", b'{"model": "demo"}', key("team-a"))).status == 200
        assert await listed("team-a") == ["demo"]
        assert await listed("batch") == ["demo", "other"]


async def test_a_caller_that_may_not_burst_stays_inside(tmp_path: Path) -> None:
    """A request of such a caller reaches no remote backend, by the split or by failover; others may."""
    async with running(tmp_path, document(local(0), remote(100))) as (one, far, _, _):
        response = await one.post(b"/default/demo/x", b"{}", key("batch"))
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"local", b"LocalOnly")
        assert far.sides == []
        response = await one.post(b"/default/demo/x", b"{}", key("team-a"))
        assert response.value(b"x-beamlit-backend") == b"remote"
        one.load(document(remote(100)))
        response = await one.post(b"/default/demo/x", b"{}", key("batch"))
        assert (response.status, response.code) == (503, "local_only")


async def test_a_caller_has_a_limit_of_requests_in_flight(tmp_path: Path) -> None:
    """A request beyond the limit is 429 with Retry-After; when one ends, the next is served."""
    go = asyncio.Event()

    async def slow(side: ServerSide) -> None:
        while True:
            await side.request()
            await go.wait()
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with running(tmp_path, server=slow) as (one, _, rules, _):
        first = asyncio.create_task(one.post(b"/default/demo/x", b"{}", key("batch")))
        await until(lambda: bool(rules._in_flight))
        refused = await one.post(b"/default/demo/x", b"{}", key("batch"))
        assert (refused.status, refused.code, refused.value(b"retry-after")) == (429, "too_many_requests", b"1")
        go.set()
        assert (await first).status == 200
        await until(lambda: not rules._in_flight)
        assert (await one.post(b"/default/demo/x", b"{}", key("batch"))).status == 200
        await until(lambda: not rules._in_flight)


async def test_rules_change_while_the_gateway_runs(tmp_path: Path) -> None:
    """A changed file is in force without a restart; one with a mistake is said once and changes nothing."""
    async with running(tmp_path) as (_, _, rules, file):
        task = asyncio.create_task(rules.watch())
        file.write_text("callers: {batch: {burst: allow}}")
        await until(lambda: rules.rule("team-a") is None)
        with capture_logs() as logs:
            file.write_text("callers: {batch: {burst: never}}")
            await until(lambda: any(line["event"] == "access_rules_unusable" for line in logs))
            file.write_text("callers: {batch: {maxInFlight: 3}}")
            await until(lambda: rules.rule("batch").max_in_flight == 3)  # type: ignore[union-attr]
        assert [line["event"] for line in logs] == ["access_rules_unusable", "access_rules_read"]
        task.cancel()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("callers: {a: {burst: never}}", "burst"),
        ("callers: {a: {models: [demo]}}", "models"),
        ("callers: {a: {maxInFlight: 0}}", "maxInFlight"),
        ("callers: {a: {priority: urgent}}", "priority"),
        ("groups: {a: {maxInFlight: many}}", "maxInFlight"),
        ("callers: [a]", "callers"),
        ("{", "YAML"),
        ("a: 1\n---\nb: 2", "several documents"),
    ],
)
def test_a_mistake_is_said_at_the_start(text: str, words: str, tmp_path: Path) -> None:
    """A gateway whose rules have a mistake does not start, and names the setting and the field."""
    with pytest.raises(ValueError, match=words):
        parse(text.encode())
    (tmp_path / "callers.yaml").write_text(text)
    with pytest.raises(SettingsError, match=rf"gateway\.access\.rulesFile: .*{words}"):
        _read("gateway.access.rulesFile", tmp_path / "callers.yaml", CallerRules)


def test_no_rules_are_no_mistake(tmp_path: Path) -> None:
    """An empty file has no rules; one that is missing ends the start."""
    assert parse(b"") == RuleFile()
    assert _read("gateway.access.rulesFile", None, CallerRules) is None
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        _read("gateway.access.rulesFile", tmp_path / "none.yaml", CallerRules)
