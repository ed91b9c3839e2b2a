"""Access to single models: their own API keys, beside those of the installation."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from gateway import errors
from gateway.access.directory import KeyDirectory
from gateway.access.model_keys import ModelKeys
from gateway.api.v1alpha1 import Access, RouteDocument
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.wire import Running, document, echo, gateway
from tests.integration.servers import serving, until

OWN: Final = b"canary-of-the-model-1"
OTHER: Final = b"canary-of-another-model"
INSTALLED: Final = b"canary-of-the-gateway"
KEYED: Final = Access(secrets=("demo-keys",))


class Secrets:
    """Reader of Secrets that a test changes."""

    def __init__(self, **data: Any) -> None:
        self.data: dict[str, Mapping[str, str] | Exception] = data
        self.reads = 0

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the data of a Secret, or raise what there is in its place."""
        self.reads += 1
        await asyncio.sleep(0)
        found = self.data.get(f"{namespace}/{name}", LookupError(f"Secret {namespace}/{name} does not exist"))
        if isinstance(found, Exception):
            raise found
        return found

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Raise: there are no inline credentials."""
        raise LookupError(model_deployment)


def secrets(**values: str) -> Secrets:
    """Return a reader of the Secret `demo-keys`, by default with the key of `team-a`."""
    return Secrets(**{"default/demo-keys": values or {"team-a": OWN.decode()}})


def keyed(**values: Any) -> RouteDocument:
    """Return a document whose model has keys of its own."""
    return document(**{"access": KEYED, "requires": ("access",), **values})


async def status(one: Running, target: bytes, *fields: bytes) -> int:
    """Return the status of a request for the model `demo`."""
    return (await one.post(target, b'{"model": "demo"}', *fields)).status


@pytest.mark.parametrize("target", [b"/v1/chat/completions", b"/default/demo/v1/chat/completions"])
async def test_a_model_needs_its_own_key(target: bytes) -> None:
    """A request for the model needs one of its keys, by name and by path, and another model needs none."""
    async with serving(echo) as near:
        async with gateway(keyed(), document(name="open"), local_port=near.port, secrets=secrets()) as one:
            assert await status(one, target) == 401
            assert await status(one, target, b"x-api-key: " + OTHER) == 401
            assert near.sides == []
            assert await status(one, target, b"x-api-key: " + OWN) == 200
            assert await status(one, b"/default/open/x") == 200
            await until(lambda: len(one.lines()) == 4)
            assert [line.get("caller") for line in one.lines()] == [None, None, "default/demo-keys/team-a", None]
        assert b"canary" not in b"".join(side.received for side in near.sides)


async def test_a_model_adds_to_what_the_gateway_asks_for(tmp_path: Path) -> None:
    """Where the installation has keys, the model's alone is 401, the installation's alone 403, and both are served."""
    (tmp_path / "team-b").write_bytes(INSTALLED)
    async with (
        serving(echo) as near,
        gateway(
            keyed(),
            local_port=near.port,
            secrets=secrets(),
            access=KeyDirectory(tmp_path),
            settings={"gateway": {"access": {"keysDirectory": str(tmp_path)}}},
        ) as one,
    ):
        own, installed = b"x-api-key: " + OWN, b"authorization: Bearer " + INSTALLED
        target = b"/default/demo/v1/messages"
        assert await status(one, target, own) == 401
        refused = await one.post(target, b"{}", installed)
        assert refused.status == 403
        error = orjson.loads(refused.body)["error"]
        assert (error["type"], error["details"]["error_code"]) == ("permission_error", "forbidden")
        assert await status(one, target, own, installed) == 200
        await until(lambda: len(one.lines()) == 3)
        assert [line.get("caller") for line in one.lines()] == [None, "team-b", "team-b"]


async def test_the_list_has_what_the_caller_may_use() -> None:
    """`/v1/models` lists models without keys, and those whose key the request has; others do not exist there."""
    async with gateway(keyed(), document(name="open"), secrets=secrets()) as one:

        async def listed(path: bytes, *fields: bytes) -> Any:
            lines = b"\r\n".join((b"GET %b HTTP/1.1" % path, b"Host: x", *fields))
            return orjson.loads((await one.ask(lines + b"\r\n\r\n")).body)

        assert [model["id"] for model in (await listed(b"/v1/models"))["data"]] == ["open"]
        key = b"x-api-key: " + OWN
        assert [model["id"] for model in (await listed(b"/v1/models", key))["data"]] == ["demo", "open"]
        assert (await listed(b"/v1/models/demo"))["error"]["code"] == "model_not_found"
        assert (await listed(b"/v1/models/demo", key))["id"] == "demo"


async def test_a_secret_is_read_once_for_all_and_again_later() -> None:
    """Requests at once share one read; a changed Secret is read again, and its last keys outlive an API server."""
    reader = secrets()
    keys = ModelKeys(reader, fresh_seconds=SECONDS)

    async def caller(key: bytes) -> str:
        return await keys.caller("default", ("demo-keys",), ((b"x-api-key", key),))

    assert await asyncio.gather(*(caller(OWN) for _ in range(5))) == ["default/demo-keys/team-a"] * 5
    assert await caller(OWN) == "default/demo-keys/team-a"
    assert reader.reads == 1
    keys = ModelKeys(reader, fresh_seconds=0)
    await caller(OWN)
    reader.data["default/demo-keys"] = OSError("the API server is away")
    assert await caller(OWN) == "default/demo-keys/team-a"
    reader.data["default/demo-keys"] = {"team-a": OTHER.decode()}
    assert await caller(OTHER) == "default/demo-keys/team-a"
    with pytest.raises(errors.CredentialUnknown):
        await caller(OWN)
    del reader.data["default/demo-keys"]
    with pytest.raises(errors.CredentialUnknown):
        await caller(OTHER)
    await keys.close()


async def test_a_secret_that_is_never_read_ends_in_time() -> None:
    """A read that takes too long is given up, and the next request may try again."""

    class Silent(Secrets):
        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            await asyncio.sleep(NEVER)
            return {}

    keys = ModelKeys(Silent(), timeout_seconds=0.01)
    with pytest.raises(errors.AccessUnavailable):
        await keys.caller("default", ("demo-keys",), ((b"x-api-key", OWN),))
    await keys.close()


async def test_keys_that_cannot_be_read_admit_nobody() -> None:
    """While the Secret was never read, its model is 503; one with credentials for a backend has no keys."""
    reader = secrets()
    reader.data["default/demo-keys"] = OSError("the API server is away")
    async with gateway(keyed(), secrets=reader) as one:
        response = await one.post(b"/default/demo/x", b"{}", b"x-api-key: " + OWN)
        assert (response.status, response.code, response.value(b"retry-after")) == (503, "access_unavailable", b"1")
    reader = secrets(hosts="models.example.com.", clientSecret=OWN.decode())
    async with gateway(keyed(), secrets=reader) as one:
        assert await status(one, b"/default/demo/x", b"x-api-key: " + OWN) == 401
        assert await status(one, b"/default/demo/x", b"x-api-key: models.example.com.") == 401
