"""ModelDeployments on the platform, over sockets: what is sent and removed, when, and what status says."""

import copy
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hooks import reasons
from tests.builders import NAMESPACE, REMOTE, UID, Json, model_deployment, obeys, observed, policy, served, workload
from tests.integration.apiserver import ApiServer
from tests.platform import WORKSPACE, Call, Platform
from tests.registered import World, message, registered, running, world


@pytest.fixture
def servers() -> Iterator[tuple[Platform, ApiServer]]:
    """A platform and an API server."""
    with running() as both:
        yield both


@pytest.fixture
async def cluster(servers: tuple[Platform, ApiServer], tmp_path: Path) -> AsyncIterator[World]:
    """Hooks that know both, and a Deployment with a ready replica."""
    async with world(*servers, tmp_path) as cluster:
        cluster.related = [workload()]
        yield cluster


def other(**spec: Any) -> Json:
    """A ModelDeployment that is younger by a minute, in another namespace."""
    item = model_deployment(**spec)
    item["metadata"] |= {
        "namespace": "team-b", "name": "other", "uid": "uid-of-the-other", "creationTimestamp": "2026-03-01T11:01:00Z",
    }  # fmt: skip
    return item


async def test_a_model_is_created_updated_and_deleted(cluster: World) -> None:
    """Its whole life; at rest nothing is asked, and the status stays as it is."""
    platform, item = cluster.platform, cluster.apply(model_deployment())
    answer = await cluster.settle(item)
    assert registered(answer) == ("True", reasons.UP_TO_DATE)
    status = item["status"]
    assert status["workspace"] == WORKSPACE
    assert status["createdAtOnBeamlit"] == status["updatedAtOnBeamlit"] == "2026-02-01T00:00:01Z"
    assert status["platform"].keys() == {"name", "environment", "hash"}
    assert platform.writes() == [("POST", "/v0/models")]
    calls = len(platform.calls)
    cluster.pass_time(120)
    assert (await cluster.sync(item))["status"] == status
    assert len(platform.calls) == calls
    cluster.edit(item, serverlessConfig={"maxNumReplicas": 3})
    answer = await cluster.settle(item)
    assert platform.writes()[1:] == [("PUT", "/v0/models/llama")]
    assert item["status"]["updatedAtOnBeamlit"] == "2026-02-01T00:00:02Z"
    assert item["status"]["createdAtOnBeamlit"] == "2026-02-01T00:00:01Z"
    answer = await cluster.settle(cluster.delete(item))
    assert answer["children"] == []
    assert not answer["finalized"]
    answer = await cluster.settle(item)
    assert answer["finalized"]
    assert platform.model() is None
    assert platform.calls[-1] == Call("DELETE", "/v0/models/llama?environment=production")


async def test_what_is_sent(cluster: World) -> None:
    """Names, labels, ports, policies by their names, serverlessConfig, the pod template of the workload; no secret."""
    config = {"minNumReplicas": 1, "maxNumReplicas": 4, "metric": "rps", "target": "10"}
    inline = {"clientId": "i", "clientSecret": "canary", "tokenUrl": "https://t"}
    remote = REMOTE | {"authConfig": {"type": "oauth", "oauthConfig": inline}}
    policies = [*obeys("eu"), {"name": "theirs"}, *obeys("eu")]
    item = model_deployment(
        environment="development",
        serverlessConfig=config,
        policies=policies,
        offloadingConfig={"remoteBackend": remote},
    )
    item["metadata"]["labels"] = {"team": "search", "managed-by": "me"}
    cluster.related = [workload(), policy()]
    await cluster.settle(cluster.apply(item))
    (sent,) = [call.content for call in cluster.platform.calls if call.method == "POST"]
    assert sent == {
        "metadata": {
            "name": "llama",
            "environment": "development",
            "labels": {
                "team": "search",
                "managed-by": "beamlit-operator",
                "offloading-enabled": "true",
                "offloading": "false",
                "deployment.beamlit.com/namespace": NAMESPACE,
                "deployment.beamlit.com/name": "demo",
                "deployment.beamlit.com/uid": UID,
            },
        },
        "spec": {
            "enabled": True,
            "runtime": {"servingPort": 8000},
            "policies": ["eu", "theirs"],
            "serverlessConfig": config,
            "podTemplate": workload()["spec"]["template"],
        },
    }


async def test_a_server_of_our_own_without_offloading(cluster: World) -> None:
    """The template of spec.server is sent, and no label speaks of offloading where nothing is offloaded."""
    item = served(offloadingConfig=None)
    cluster.related = []
    await cluster.settle(cluster.apply(item))
    found = cluster.platform.model()
    assert found is not None
    assert found["spec"]["podTemplate"] == item["spec"]["server"]["template"]
    assert not {"offloading", "offloading-enabled"} & found["metadata"]["labels"].keys()


async def test_offloading_is_told(cluster: World) -> None:
    """The label follows the split, after the route has."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.set_ready(0)
    answer = await cluster.sync(item)
    assert answer["status"]["offloading"]["percentage"] == 100
    assert answer["resyncAfterSeconds"] == 1
    found = cluster.platform.model()
    assert found is not None
    assert found["metadata"]["labels"]["offloading"] == "false"
    await cluster.settle(item)
    found = cluster.platform.model()
    assert found is not None
    assert found["metadata"]["labels"]["offloading"] == "true"


async def test_the_children_come_first(cluster: World) -> None:
    """A sync whose children differ from the observed ones asks nobody and wants to be asked again in a second."""
    item = cluster.apply(model_deployment())
    answer = await cluster.sync(item)
    assert answer["resyncAfterSeconds"] == 1
    assert registered(answer) == ("Unknown", reasons.NOT_EVALUATED)
    assert cluster.platform.calls == []


async def test_a_child_that_never_appears_holds_nothing_up(cluster: World) -> None:
    """After ten seconds the model is registered nevertheless."""
    item = cluster.apply(model_deployment())
    await cluster.sync(item)
    cluster.children[UID] = []
    cluster.pass_time(5)
    await cluster.sync(item)
    cluster.children[UID] = []
    assert cluster.platform.calls == []
    cluster.pass_time(5)
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)


async def test_the_workspace_leads_the_way(cluster: World) -> None:
    """What the platform says of the workspace is in the route within a second."""
    item = cluster.apply(model_deployment(offloadingConfig={}))
    answer = await cluster.sync(item)
    answer = await cluster.sync(item)
    assert (answer["status"]["workspace"], answer["resyncAfterSeconds"]) == (WORKSPACE, 1)
    answer = await cluster.sync(item)
    (route,) = [child for child in answer["children"] if child["kind"] == "ConfigMap"]
    assert f"/{WORKSPACE}/llama" in route["data"]["route.json"]


@pytest.mark.parametrize("change", [{"enabled": False}, {"model": "other"}, {"environment": "development"}])
async def test_c22_what_was_registered_goes_when_the_name_does(cluster: World, change: Json) -> None:
    """The original kept its entry when spec.model changed: here the old name is removed, then the new one is there."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.edit(item, **change)
    answer = await cluster.settle(item)
    assert cluster.platform.model() is None
    if "enabled" in change:
        assert registered(answer) == ("False", reasons.DISABLED)
        assert cluster.platform.store == {}
        assert not {"platform", "workspace", "createdAtOnBeamlit"} & item["status"].keys()
        cluster.edit(item, enabled=True)
        answer = await cluster.settle(item)
        assert cluster.platform.model() is not None
    else:
        assert len(cluster.platform.store) == 1
    assert registered(answer) == ("True", reasons.UP_TO_DATE)


@pytest.mark.parametrize("config", [None, {"remoteBackend": REMOTE}])
async def test_c18_a_model_is_deleted_with_or_without_offloading(cluster: World, config: Json | None) -> None:
    """Without offloadingConfig the original never deleted the model: here it goes either way."""
    item = cluster.apply(model_deployment(offloadingConfig=config))
    await cluster.settle(item)
    assert cluster.platform.model() is not None
    await cluster.settle(cluster.delete(item))
    await cluster.settle(item)
    assert cluster.platform.store == {}


async def test_c18_deletion_is_bounded_and_says_why_it_waits(cluster: World) -> None:
    """With the platform down the original blocked deletion for ever: here it is tried for five minutes, and said."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.stop()
    await cluster.sync(cluster.delete(item))
    begun, attempts = cluster.now, set()
    for _ in range(100):
        answer = await cluster.sync(item)
        assert registered(answer)[1] == reasons.UNREACHABLE
        if answer["finalized"]:
            break
        assert "cannot be asked" in message(answer)
        attempts.add(answer["status"]["platform"]["attempts"])
        cluster.pass_time(answer["resyncAfterSeconds"])
        cluster.patience()
    else:
        pytest.fail("it waits for ever")
    assert len(attempts) >= 5
    assert 300 <= (cluster.now - begun).total_seconds() <= 600
    assert "remove it by hand" in message(answer)
    cluster.platform.start()


async def test_it_is_gone_already(cluster: World) -> None:
    """404 is fine."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.store.clear()
    await cluster.sync(cluster.delete(item))
    assert (await cluster.sync(item))["finalized"]


async def test_what_was_never_registered_goes_at_once(cluster: World) -> None:
    """A model that only ever failed leaves nothing to be deleted, and nobody is asked."""
    cluster.platform.put("models", {"metadata": {"name": "llama", "environment": "production"}, "spec": {}})
    item = cluster.apply(model_deployment())
    assert registered(await cluster.settle(item)) == ("False", reasons.CONFLICT)
    await cluster.sync(cluster.delete(item))
    calls = len(cluster.platform.calls)
    assert (await cluster.sync(item))["finalized"]
    assert len(cluster.platform.calls) == calls
    assert cluster.platform.model() is not None


async def test_c22_the_older_one_keeps_the_model(cluster: World) -> None:
    """The original ignored duplicates silently and compared names without namespace: here the younger is told, waits,
    and gets the model when it is free. Its deletion leaves the other's model alone."""
    older, younger = cluster.apply(model_deployment()), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(older)
    before = copy.deepcopy(cluster.platform.store)
    answer = await cluster.settle(younger)
    assert registered(answer) == ("False", reasons.CONFLICT)
    assert f"belongs to ModelDeployment demo in namespace {NAMESPACE}" in message(answer)
    assert answer["resyncAfterSeconds"] > 1
    assert cluster.platform.store == before
    cluster.edit(older, model="something-else")
    await cluster.settle(older)
    cluster.pass_time(answer["resyncAfterSeconds"])
    assert registered(await cluster.settle(younger)) == ("True", reasons.UP_TO_DATE)
    assert len(cluster.platform.store) == 2


async def test_c22_the_older_one_gets_its_model_back(cluster: World) -> None:
    """Age counts, not who came first; what the younger still believes to have, it neither writes nor deletes."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(older)
    assert registered(await cluster.settle(younger)) == ("True", reasons.UP_TO_DATE)
    cluster.edit(older, enabled=True)
    assert registered(await cluster.settle(older)) == ("True", reasons.UP_TO_DATE)
    found = copy.deepcopy(cluster.platform.model())
    assert found is not None
    assert found["metadata"]["labels"]["deployment.beamlit.com/uid"] == UID
    cluster.edit(younger, serverlessConfig={"maxNumReplicas": 1})
    assert registered(await cluster.settle(younger)) == ("False", reasons.CONFLICT)
    await cluster.sync(cluster.delete(younger))
    assert (await cluster.sync(younger))["finalized"]
    assert cluster.platform.model() == found


async def test_c22_the_younger_that_goes_takes_nothing_along(cluster: World) -> None:
    """Even when it has not learned yet that the model is the older one's by now; nor when its name changes."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.edit(older, enabled=True)
    await cluster.settle(older)
    found = copy.deepcopy(cluster.platform.model())
    renamed = copy.deepcopy(younger)
    cluster.edit(cluster.apply(renamed), model="renamed")
    assert registered(await cluster.settle(renamed)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.model() == found
    cluster.children["uid-of-the-other"] = []
    cluster.delete(cluster.apply(younger))
    assert (await cluster.sync(younger))["finalized"]
    assert cluster.platform.model() == found


async def test_an_owner_that_is_no_more_keeps_nothing(cluster: World) -> None:
    """A model of a ModelDeployment that was removed, or made anew, is taken over."""
    older = cluster.apply(model_deployment())
    await cluster.settle(older)
    anew = model_deployment()
    anew["metadata"] |= {"uid": "another-uid", "creationTimestamp": "2026-03-01T11:30:00Z"}
    assert registered(await cluster.settle(cluster.apply(anew))) == ("True", reasons.UP_TO_DATE)
    found = cluster.platform.model()
    assert found is not None
    assert found["metadata"]["labels"]["deployment.beamlit.com/uid"] == "another-uid"


async def test_an_owner_that_cannot_be_read_keeps_the_model(cluster: World) -> None:
    """One in a namespace that hooks may not look into may be there."""
    older, younger = cluster.apply(model_deployment()), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.remove(younger)
    cluster.api.refused[cluster.path(younger)] = 403
    assert registered(await cluster.settle(older)) == ("False", reasons.CONFLICT)


async def test_a_model_of_the_original_is_taken_over(cluster: World) -> None:
    """It has the original's label and no owner."""
    metadata = {"name": "llama", "environment": "production", "labels": {"managed-by": "beamlit-operator"}}
    cluster.platform.put("models", {"metadata": metadata, "spec": {"enabled": True}})
    item = cluster.apply(model_deployment())
    assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.writes() == [("PUT", "/v0/models/llama")]


async def test_a_model_made_by_hand_is_left_alone(cluster: World) -> None:
    """Nobody knows whose it is."""
    cluster.platform.put("models", {"metadata": {"name": "llama", "environment": "production"}, "spec": {}})
    answer = await cluster.settle(cluster.apply(model_deployment()))
    assert registered(answer) == ("False", reasons.CONFLICT)
    assert "was not made for this object" in message(answer)
    assert cluster.platform.writes() == []


async def test_what_is_not_accepted_keeps_what_there_is(cluster: World) -> None:
    """Neither written nor removed; what was said of it stays."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before = copy.deepcopy(cluster.platform.store)
    cluster.edit(item, serviceRef={"name": "x", "namespace": "elsewhere"})
    answer = await cluster.settle(item)
    assert registered(answer) == ("True", reasons.UP_TO_DATE)
    assert (item["status"]["workspace"], item["status"]["platform"]["name"]) == (WORKSPACE, "llama")
    assert cluster.platform.store == before


async def test_what_is_not_accepted_from_the_start(cluster: World) -> None:
    """Nothing is known of it yet."""
    item = cluster.apply(model_deployment(serviceRef={"name": "x", "namespace": "elsewhere"}))
    assert registered(await cluster.settle(item)) == ("Unknown", reasons.NOT_EVALUATED)
    assert cluster.platform.calls == []


# What is there according to the memory.


async def test_what_somebody_removed_is_there_again(cluster: World) -> None:
    """Within ten minutes or so; until then nobody looks."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    created = item["status"]["createdAtOnBeamlit"]
    cluster.platform.store.clear()
    calls = len(cluster.platform.calls)
    for _ in range(2):
        await cluster.sync(item)
        cluster.pass_time(100)
    assert len(cluster.platform.calls) == calls
    cluster.pass_time(600)
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.model() is not None
    assert item["status"]["createdAtOnBeamlit"] > created


async def test_a_look_changes_nothing_that_is_right(cluster: World) -> None:
    """Nor does one that fails."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before, writes = copy.deepcopy(item["status"]), cluster.platform.writes()
    calls = len(cluster.platform.calls)
    cluster.pass_time(1000)
    await cluster.sync(item)
    assert len(cluster.platform.calls) == calls + 1
    cluster.platform.stop()
    cluster.pass_time(1000)
    answer = await cluster.sync(item)
    assert item["status"] == before
    assert "resyncAfterSeconds" not in answer
    assert cluster.platform.writes() == writes
    cluster.platform.start()


async def test_c22_the_younger_learns_of_it(cluster: World) -> None:
    """A model that the older one took is no longer said to be registered, and comes back when it is free."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.edit(older, enabled=True)
    await cluster.settle(older)
    assert registered(await cluster.sync(younger)) == ("True", reasons.UP_TO_DATE)
    cluster.pass_time(1000)
    answer = await cluster.sync(younger)
    assert registered(answer) == ("False", reasons.CONFLICT)
    assert "name" not in younger["status"]["platform"]
    cluster.edit(older, enabled=False)
    await cluster.settle(older)
    cluster.pass_time(answer["resyncAfterSeconds"])
    assert registered(await cluster.sync(younger)) == ("True", reasons.UP_TO_DATE)


# Requests that somebody made up.


@dataclasses.dataclass(frozen=True, slots=True)
class Forgery:
    """What a request has that the object has not."""

    metadata: Json = dataclasses.field(default_factory=dict)
    spec: Json = dataclasses.field(default_factory=dict)
    status: Json = dataclasses.field(default_factory=dict)


FRESH: Json = {"platform": {}}


@pytest.mark.parametrize(
    "forgery",
    [
        Forgery(metadata={"uid": "somebody-else"}, status=FRESH),
        Forgery(metadata={"name": "nobody"}, status=FRESH),
        Forgery(metadata={"namespace": "elsewhere"}, status=FRESH),
        Forgery(metadata={"labels": {"team": "another"}}),
        Forgery(spec={"serverlessConfig": {"maxNumReplicas": 1}}),
        Forgery(spec={"environment": "of-somebody-else"}),
        Forgery(status=FRESH),
        Forgery(status={"platform": {"name": "of-somebody-else", "environment": "production", "hash": "0"}}),
    ],
    ids=repr,
)
async def test_a_forged_sync_writes_nothing(cluster: World, forgery: Forgery) -> None:
    """The object in the API server has another uid, specification, labels or memory, or is not there."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before, writes = copy.deepcopy(cluster.platform.store), cluster.platform.writes()
    forged = copy.deepcopy(item)
    forged["metadata"] |= forgery.metadata
    forged["spec"] |= forgery.spec
    forged["status"] |= forgery.status
    answer = await cluster.ask(forged)
    cluster.children[forged["metadata"]["uid"]] = [observed(child) for child in answer["children"]]
    tokens = len(cluster.api.tokens)
    for _ in range(3):
        await cluster.ask(forged)
    assert len(cluster.api.tokens) == tokens + 3
    assert cluster.platform.store == before
    assert cluster.platform.writes() == writes


@pytest.mark.parametrize("kind", ["nobody", "not being deleted", "another uid"])
async def test_a_forged_finalize_deletes_nothing(cluster: World, kind: str) -> None:
    """The object is not on its way out, or there is none, or it is another one."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before = copy.deepcopy(cluster.platform.store)
    forged = copy.deepcopy(item)
    cluster.delete(forged)
    cluster.children.clear()
    if kind == "nobody":
        cluster.remove(item)
    if kind == "another uid":
        item["metadata"]["uid"] = "another"
    for _ in range(3):
        answer = await cluster.ask(forged, "finalize")
        assert answer["finalized"] is (kind != "not being deleted")
    assert cluster.platform.store == before
