"""Policies on the platform, over sockets, and what their status says with and without it."""

import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hooks import reasons
from hooks.platform.beamlit import registrar
from tests.builders import Json, policy
from tests.deadlines import NEVER
from tests.integration.apiserver import ApiServer
from tests.platform import WORKSPACE, Platform, Trouble
from tests.registered import World, message, registered, running, world

SENT: Json = {
    "metadata": {"name": "eu", "displayName": "Europe"},
    "spec": {
        "type": "location",
        "locations": [{"type": "continent", "name": "eu"}, {"type": "country", "name": "fr"}],
        "flavors": [{"type": "gpu", "name": "t4"}],
    },
}
SPEC: Json = {"displayName": "Europe", **SENT["spec"]}


@pytest.fixture
def servers() -> Iterator[tuple[Platform, ApiServer]]:
    """A platform and an API server."""
    with running() as both:
        yield both


@pytest.fixture
async def cluster(servers: tuple[Platform, ApiServer], tmp_path: Path) -> AsyncIterator[World]:
    """Hooks that know both."""
    async with world(*servers, tmp_path) as cluster:
        yield cluster


def conditions(answer: Json) -> dict[str, tuple[str, str]]:
    """Status and reason of each, in order."""
    return {one["type"]: (one["status"], one["reason"]) for one in answer["status"]["conditions"]}


async def test_c21_a_policy_is_created_updated_and_deleted(cluster: World) -> None:
    """The original never wrote a policy's status: here it says what the platform has, and at rest nobody is asked."""
    platform, item = cluster.platform, cluster.apply(policy(**SPEC))
    answer = await cluster.sync(item)
    assert answer["children"] == []
    assert conditions(answer) == {
        "Accepted": ("True", reasons.ACCEPTED),
        "Registered": ("True", reasons.UP_TO_DATE),
        "Ready": ("True", reasons.ENFORCED),
    }
    assert [call.content for call in platform.calls if call.content] == [SENT]
    assert item["status"]["workspace"] == WORKSPACE
    assert item["status"]["createdAtOnBeamlit"] == "2026-02-01T00:00:01Z"
    assert item["status"]["observedGeneration"] == 1
    calls = len(platform.calls)
    cluster.pass_time(120)
    assert (await cluster.sync(item))["status"] == answer["status"]
    assert len(platform.calls) == calls
    cluster.edit(item, flavors=[])
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
    found = platform.policy()
    assert found is not None
    assert found["spec"]["flavors"] == []
    answer = await cluster.sync(cluster.delete(item))
    assert answer["finalized"]
    assert conditions(answer)["Ready"] == ("False", reasons.TERMINATING)
    assert platform.store == {}


async def test_c21_a_failure_is_tried_again(cluster: World) -> None:
    """The original recorded a failure as done."""
    cluster.platform.troubles(Trouble(500), on="POST")
    item = cluster.apply(policy(**SPEC))
    answer = await cluster.sync(item)
    assert registered(answer) == ("False", reasons.UNREACHABLE)
    assert answer["status"]["platform"]["attempts"] == 1
    cluster.pass_time(answer["resyncAfterSeconds"])
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)


async def test_one_that_is_there_and_says_the_same(cluster: World) -> None:
    """It counts as registered, and is neither written nor deleted."""
    cluster.platform.put("policies", SENT)
    item = cluster.apply(policy(**SPEC))
    answer = await cluster.sync(item)
    assert registered(answer) == ("True", reasons.UP_TO_DATE)
    assert "it is left there" in message(answer)
    assert (await cluster.sync(item))["status"] == answer["status"]
    assert (await cluster.sync(cluster.delete(item)))["finalized"]
    assert cluster.platform.policy() is not None
    assert cluster.platform.writes() == []


async def test_c22_of_two_of_one_name_the_first_keeps_it(cluster: World) -> None:
    """Another namespace's policy of the same name that says something else is a Conflict, and deletes nothing."""
    first, second = cluster.apply(policy(**SPEC)), cluster.apply(policy(namespace="team-b", flavors=[]))
    second["metadata"]["uid"] = "another"
    await cluster.sync(first)
    answer = await cluster.sync(second)
    assert registered(answer) == ("False", reasons.CONFLICT)
    assert conditions(answer)["Ready"] == ("True", reasons.ENFORCED)
    assert (await cluster.sync(cluster.delete(second)))["finalized"]
    found = cluster.platform.policy()
    assert found is not None
    assert found["metadata"]["displayName"] == "Europe"


@pytest.mark.parametrize("end", ["sync", "finalize"])
@pytest.mark.parametrize("trouble", [Trouble(lost=True), Trouble(late=NEVER)])
async def test_a_creation_whose_answer_was_lost(
    cluster: World, end: str, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says just what was sent then is ours, to write and to delete."""
    cluster.platform.troubles(trouble, on="POST")
    item = cluster.apply(policy(**SPEC))
    with monkeypatch.context() as patch:
        if trouble.late:
            patch.setattr(registrar, "CALL_SECONDS", 2.0)
        assert registered(await cluster.sync(item)) == ("False", reasons.UNREACHABLE)
    cluster.pass_time(10)
    if end == "sync":
        assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
        assert item["status"]["createdAtOnBeamlit"]
    assert (await cluster.sync(cluster.delete(item)))["finalized"]
    assert cluster.platform.store == {}


async def test_a_deletion_is_bounded(cluster: World) -> None:
    """As that of a model."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    cluster.platform.always(Trouble(503))
    cluster.delete(item)
    begun = cluster.now
    answer = await cluster.sync(item)
    while not answer["finalized"]:
        cluster.pass_time(answer["resyncAfterSeconds"])
        answer = await cluster.sync(item)
    assert 300 <= (cluster.now - begun).total_seconds() <= 660
    assert "remove it by hand" in message(answer)


async def test_a_deletion_that_cannot_be_read(cluster: World) -> None:
    """A specification that is none by now changes nothing of whose the policy is."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    item["spec"] = {"type": 1}
    answer = await cluster.sync(cluster.delete(item))
    assert answer["finalized"]
    assert cluster.platform.store == {}


@pytest.mark.parametrize("change", [{"uid": "another"}, {"name": "nobody"}, {"labels": {"a": "b"}}])
async def test_a_forged_request_changes_nothing(cluster: World, change: Json) -> None:
    """Neither a sync nor a finalize of something that the API server has not."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    before = copy.deepcopy(cluster.platform.store)
    forged = copy.deepcopy(item)
    forged["metadata"] |= change
    forged["spec"]["flavors"] = []
    await cluster.ask(forged)
    await cluster.ask(cluster.delete(forged), "finalize")
    assert cluster.platform.store == before


async def test_a_policy_that_is_not_accepted_is_not_sent(cluster: World) -> None:
    """What stands in status of the platform stays."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    before = item["status"]
    item["spec"] = {"type": "location", "locations": []}
    answer = await cluster.sync(item)
    assert conditions(answer)["Accepted"] == ("False", reasons.INVALID_SPEC)
    assert registered(answer) == ("True", reasons.UP_TO_DATE)
    assert answer["status"]["platform"] == before["platform"]
    assert len(cluster.platform.writes()) == 1
