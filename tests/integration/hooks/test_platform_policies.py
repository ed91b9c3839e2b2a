"""Registration of Policies with the platform, over sockets, and their status."""

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
    """Yield a platform and an API server."""
    with running() as both:
        yield both


@pytest.fixture
async def cluster(servers: tuple[Platform, ApiServer], tmp_path: Path) -> AsyncIterator[World]:
    """Yield a world with hooks and both servers."""
    async with world(*servers, tmp_path) as cluster:
        yield cluster


def conditions(response: Json) -> dict[str, tuple[str, str]]:
    """Return status and reason of every condition, in order."""
    return {one["type"]: (one["status"], one["reason"]) for one in response["status"]["conditions"]}


async def test_c21_a_policy_is_created_updated_and_deleted(cluster: World) -> None:
    """C21: the original never wrote a Policy's status; here it is complete, and at rest there are no requests."""
    platform, item = cluster.platform, cluster.apply(policy(**SPEC))
    response = await cluster.sync(item)
    assert response["children"] == []
    assert conditions(response) == {
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
    assert (await cluster.sync(item))["status"] == response["status"]
    assert len(platform.calls) == calls
    cluster.edit(item, flavors=[])
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
    stored = platform.policy()
    assert stored is not None
    assert stored["spec"]["flavors"] == []
    response = await cluster.sync(cluster.delete(item))
    assert response["finalized"]
    assert conditions(response)["Ready"] == ("False", reasons.TERMINATING)
    assert platform.store == {}


async def test_c21_a_failure_is_attempted_again(cluster: World) -> None:
    """C21: the original recorded a failure as a success; here it is attempted again."""
    cluster.platform.troubles(Trouble(500), on="POST")
    item = cluster.apply(policy(**SPEC))
    response = await cluster.sync(item)
    assert registered(response) == ("False", reasons.UNREACHABLE)
    assert response["status"]["platform"]["attempts"] == 1
    cluster.pass_time(response["resyncAfterSeconds"])
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)


async def test_an_equal_policy_of_another_client(cluster: World) -> None:
    """An equal policy of another client counts as registered, and is neither written nor deleted."""
    cluster.platform.put("policies", SENT)
    item = cluster.apply(policy(**SPEC))
    response = await cluster.sync(item)
    assert registered(response) == ("True", reasons.UP_TO_DATE)
    assert "it is left there" in message(response)
    assert (await cluster.sync(item))["status"] == response["status"]
    assert (await cluster.sync(cluster.delete(item)))["finalized"]
    assert cluster.platform.policy() is not None
    assert cluster.platform.writes() == []


async def test_c22_of_two_of_one_name_the_first_keeps_it(cluster: World) -> None:
    """C22: of two Policies of one name, the second is in conflict, and its deletion removes nothing."""
    first, second = cluster.apply(policy(**SPEC)), cluster.apply(policy(namespace="team-b", flavors=[]))
    second["metadata"]["uid"] = "another"
    await cluster.sync(first)
    response = await cluster.sync(second)
    assert registered(response) == ("False", reasons.CONFLICT)
    assert conditions(response)["Ready"] == ("True", reasons.ENFORCED)
    assert (await cluster.sync(cluster.delete(second)))["finalized"]
    stored = cluster.platform.policy()
    assert stored is not None
    assert stored["metadata"]["displayName"] == "Europe"


@pytest.mark.parametrize("end", ["sync", "finalize"])
@pytest.mark.parametrize("trouble", [Trouble(lost=True), Trouble(late=NEVER)])
async def test_a_creation_whose_response_was_lost(
    cluster: World, end: str, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a creation whose response was lost, the equal policy that the platform has counts as our own."""
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
    """The deletion of a Policy waits for five to eleven minutes at most."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    cluster.platform.always(Trouble(503))
    cluster.delete(item)
    begun = cluster.now
    response = await cluster.sync(item)
    while not response["finalized"]:
        cluster.pass_time(response["resyncAfterSeconds"])
        response = await cluster.sync(item)
    assert 300 <= (cluster.now - begun).total_seconds() <= 660
    assert "remove it by hand" in message(response)


async def test_a_deletion_with_an_invalid_specification(cluster: World) -> None:
    """A registered policy is removed although the specification has become invalid."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    item["spec"] = {"type": 1}
    response = await cluster.sync(cluster.delete(item))
    assert response["finalized"]
    assert cluster.platform.store == {}


@pytest.mark.parametrize("change", [{"uid": "another"}, {"name": "missing"}, {"labels": {"a": "b"}}])
async def test_a_forged_request_changes_nothing(cluster: World, change: Json) -> None:
    """A sync or finalize changes nothing when the request differs from the stored object."""
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
    """A Policy that is not accepted is not sent, and its registration stays in status."""
    item = cluster.apply(policy(**SPEC))
    await cluster.sync(item)
    before = item["status"]
    item["spec"] = {"type": "location", "locations": []}
    response = await cluster.sync(item)
    assert conditions(response)["Accepted"] == ("False", reasons.INVALID_SPEC)
    assert registered(response) == ("True", reasons.UP_TO_DATE)
    assert response["status"]["platform"] == before["platform"]
    assert len(cluster.platform.writes()) == 1
