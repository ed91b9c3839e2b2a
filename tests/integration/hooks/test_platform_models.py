"""Registration of ModelDeployments with the platform, over sockets: requests, their times, and status."""

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
    """Yield a platform and an API server."""
    with running() as both:
        yield both


@pytest.fixture
async def cluster(servers: tuple[Platform, ApiServer], tmp_path: Path) -> AsyncIterator[World]:
    """Yield a world with hooks, both servers, and a Deployment with a ready replica."""
    async with world(*servers, tmp_path) as cluster:
        cluster.related = [workload()]
        yield cluster


def other(**spec: Any) -> Json:
    """Return a ModelDeployment in another namespace that is a minute younger."""
    item = model_deployment(**spec)
    item["metadata"] |= {
        "namespace": "team-b", "name": "other", "uid": "uid-of-the-other", "creationTimestamp": "2026-03-01T11:01:00Z",
    }  # fmt: skip
    return item


async def test_a_model_is_created_updated_and_deleted(cluster: World) -> None:
    """A model is created, updated and deleted; at rest the platform gets no request and the status stays."""
    platform, item = cluster.platform, cluster.apply(model_deployment())
    response = await cluster.settle(item)
    assert registered(response) == ("True", reasons.UP_TO_DATE)
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
    response = await cluster.settle(item)
    assert platform.writes()[1:] == [("PUT", "/v0/models/llama")]
    assert item["status"]["updatedAtOnBeamlit"] == "2026-02-01T00:00:02Z"
    assert item["status"]["createdAtOnBeamlit"] == "2026-02-01T00:00:01Z"
    response = await cluster.settle(cluster.delete(item))
    assert response["children"] == []
    assert not response["finalized"]
    response = await cluster.settle(item)
    assert response["finalized"]
    assert platform.model() is None
    assert platform.calls[-1] == Call("DELETE", "/v0/models/llama?environment=production")


async def test_body_for_the_platform(cluster: World) -> None:
    """The body for the platform has the documented fields of the model, and no secret."""
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
    """The pod template of spec.server is sent, and without offloadingConfig no label of offloading is."""
    item = served(offloadingConfig=None)
    cluster.related = []
    await cluster.settle(cluster.apply(item))
    model = cluster.platform.model()
    assert model is not None
    assert model["spec"]["podTemplate"] == item["spec"]["server"]["template"]
    assert not {"offloading", "offloading-enabled"} & model["metadata"]["labels"].keys()


async def test_the_label_of_offloading_follows_the_split(cluster: World) -> None:
    """The label of offloading follows the split, after the route document has."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.set_ready(0)
    response = await cluster.sync(item)
    assert response["status"]["offloading"]["percentage"] == 100
    assert response["resyncAfterSeconds"] == 1
    model = cluster.platform.model()
    assert model is not None
    assert model["metadata"]["labels"]["offloading"] == "false"
    await cluster.settle(item)
    model = cluster.platform.model()
    assert model is not None
    assert model["metadata"]["labels"]["offloading"] == "true"


async def test_the_children_come_first(cluster: World) -> None:
    """A sync whose children are not observed yet sends no request, and comes again in a second."""
    item = cluster.apply(model_deployment())
    response = await cluster.sync(item)
    assert response["resyncAfterSeconds"] == 1
    assert registered(response) == ("Unknown", reasons.NOT_EVALUATED)
    assert cluster.platform.calls == []


async def test_a_missing_child_does_not_prevent_the_registration(cluster: World) -> None:
    """A model is registered after ten seconds although a child does not appear."""
    item = cluster.apply(model_deployment())
    await cluster.sync(item)
    cluster.children[UID] = []
    cluster.pass_time(5)
    await cluster.sync(item)
    cluster.children[UID] = []
    assert cluster.platform.calls == []
    cluster.pass_time(5)
    assert registered(await cluster.sync(item)) == ("True", reasons.UP_TO_DATE)


async def test_the_workspace_is_in_the_route(cluster: World) -> None:
    """The workspace that the platform responds with is in the route document within a second."""
    item = cluster.apply(model_deployment(offloadingConfig={}))
    response = await cluster.sync(item)
    response = await cluster.sync(item)
    assert (response["status"]["workspace"], response["resyncAfterSeconds"]) == (WORKSPACE, 1)
    response = await cluster.sync(item)
    (route,) = [child for child in response["children"] if child["kind"] == "ConfigMap"]
    assert f"/{WORKSPACE}/llama" in route["data"]["route.json"]


@pytest.mark.parametrize("change", [{"enabled": False}, {"model": "other"}, {"environment": "development"}])
async def test_c22_the_old_name_is_removed(cluster: World, change: Json) -> None:
    """C22: the original kept the old name of a renamed model; here it is removed, then the new one is registered."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.edit(item, **change)
    response = await cluster.settle(item)
    assert cluster.platform.model() is None
    if "enabled" in change:
        assert registered(response) == ("False", reasons.DISABLED)
        assert cluster.platform.store == {}
        assert not {"platform", "workspace", "createdAtOnBeamlit"} & item["status"].keys()
        cluster.edit(item, enabled=True)
        response = await cluster.settle(item)
        assert cluster.platform.model() is not None
    else:
        assert len(cluster.platform.store) == 1
    assert registered(response) == ("True", reasons.UP_TO_DATE)


@pytest.mark.parametrize("config", [None, {"remoteBackend": REMOTE}])
async def test_c18_a_model_is_deleted_with_or_without_offloading(cluster: World, config: Json | None) -> None:
    """C18: without offloadingConfig the original never deleted the model; here it is deleted either way."""
    item = cluster.apply(model_deployment(offloadingConfig=config))
    await cluster.settle(item)
    assert cluster.platform.model() is not None
    await cluster.settle(cluster.delete(item))
    await cluster.settle(item)
    assert cluster.platform.store == {}


async def test_c18_deletion_is_bounded(cluster: World) -> None:
    """C18: with the platform down the original blocked a deletion for ever; here it waits five minutes and says why."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.stop()
    await cluster.sync(cluster.delete(item))
    begun, attempts = cluster.now, set()
    for _ in range(100):
        response = await cluster.sync(item)
        assert registered(response)[1] == reasons.UNREACHABLE
        if response["finalized"]:
            break
        assert "cannot be asked" in message(response)
        attempts.add(response["status"]["platform"]["attempts"])
        cluster.pass_time(response["resyncAfterSeconds"])
        cluster.close_circuit()
    else:
        pytest.fail("it waits for ever")
    assert len(attempts) >= 5
    assert 300 <= (cluster.now - begun).total_seconds() <= 600
    assert "remove it by hand" in message(response)
    cluster.platform.start()


async def test_a_model_that_is_gone_already(cluster: World) -> None:
    """A model that the platform no longer has does not delay the deletion."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    cluster.platform.store.clear()
    await cluster.sync(cluster.delete(item))
    assert (await cluster.sync(item))["finalized"]


async def test_a_model_that_was_never_registered(cluster: World) -> None:
    """A model that was never registered is deleted at once, without a request."""
    cluster.platform.put("models", {"metadata": {"name": "llama", "environment": "production"}, "spec": {}})
    item = cluster.apply(model_deployment())
    assert registered(await cluster.settle(item)) == ("False", reasons.CONFLICT)
    await cluster.sync(cluster.delete(item))
    calls = len(cluster.platform.calls)
    assert (await cluster.sync(item))["finalized"]
    assert len(cluster.platform.calls) == calls
    assert cluster.platform.model() is not None


async def test_c22_the_older_one_keeps_the_model(cluster: World) -> None:
    """C22: the original ignored duplicates; here the younger ModelDeployment is in conflict until the name is free.

    Its deletion leaves the model of the other alone."""
    older, younger = cluster.apply(model_deployment()), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(older)
    before = copy.deepcopy(cluster.platform.store)
    response = await cluster.settle(younger)
    assert registered(response) == ("False", reasons.CONFLICT)
    assert f"belongs to ModelDeployment demo in namespace {NAMESPACE}" in message(response)
    assert response["resyncAfterSeconds"] > 1
    assert cluster.platform.store == before
    cluster.edit(older, model="something-else")
    await cluster.settle(older)
    cluster.pass_time(response["resyncAfterSeconds"])
    assert registered(await cluster.settle(younger)) == ("True", reasons.UP_TO_DATE)
    assert len(cluster.platform.store) == 2


async def test_c22_the_older_one_gets_its_model_back(cluster: World) -> None:
    """C22: an older ModelDeployment takes over the model, which the younger one then neither writes nor deletes."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(older)
    assert registered(await cluster.settle(younger)) == ("True", reasons.UP_TO_DATE)
    cluster.edit(older, enabled=True)
    assert registered(await cluster.settle(older)) == ("True", reasons.UP_TO_DATE)
    model = copy.deepcopy(cluster.platform.model())
    assert model is not None
    assert model["metadata"]["labels"]["deployment.beamlit.com/uid"] == UID
    cluster.edit(younger, serverlessConfig={"maxNumReplicas": 1})
    assert registered(await cluster.settle(younger)) == ("False", reasons.CONFLICT)
    await cluster.sync(cluster.delete(younger))
    assert (await cluster.sync(younger))["finalized"]
    assert cluster.platform.model() == model


async def test_c22_the_deletion_of_the_younger_one(cluster: World) -> None:
    """C22: a younger ModelDeployment that is deleted or renamed leaves a model alone that was taken over meanwhile."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.edit(older, enabled=True)
    await cluster.settle(older)
    model = copy.deepcopy(cluster.platform.model())
    renamed = copy.deepcopy(younger)
    cluster.edit(cluster.apply(renamed), model="renamed")
    assert registered(await cluster.settle(renamed)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.model() == model
    cluster.children["uid-of-the-other"] = []
    cluster.delete(cluster.apply(younger))
    assert (await cluster.sync(younger))["finalized"]
    assert cluster.platform.model() == model


async def test_an_owner_that_was_created_again(cluster: World) -> None:
    """A model whose owner was deleted and created again is taken over."""
    older = cluster.apply(model_deployment())
    await cluster.settle(older)
    anew = model_deployment()
    anew["metadata"] |= {"uid": "another-uid", "creationTimestamp": "2026-03-01T11:30:00Z"}
    assert registered(await cluster.settle(cluster.apply(anew))) == ("True", reasons.UP_TO_DATE)
    model = cluster.platform.model()
    assert model is not None
    assert model["metadata"]["labels"]["deployment.beamlit.com/uid"] == "another-uid"


async def test_an_owner_that_cannot_be_read_keeps_the_model(cluster: World) -> None:
    """An owner in a namespace that hooks may not read keeps its model."""
    older, younger = cluster.apply(model_deployment()), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.remove(younger)
    cluster.api.refused[cluster.path(younger)] = 403
    assert registered(await cluster.settle(older)) == ("False", reasons.CONFLICT)


async def test_a_model_of_the_original_is_taken_over(cluster: World) -> None:
    """A model that the original controller made, with its label and without an owner, is taken over."""
    metadata = {"name": "llama", "environment": "production", "labels": {"managed-by": "beamlit-operator"}}
    cluster.platform.put("models", {"metadata": metadata, "spec": {"enabled": True}})
    item = cluster.apply(model_deployment())
    assert registered(await cluster.settle(item)) == ("True", reasons.UP_TO_DATE)
    assert cluster.platform.writes() == [("PUT", "/v0/models/llama")]


async def test_a_model_made_by_hand_is_left_alone(cluster: World) -> None:
    """A model that was made by hand is a conflict and is not written."""
    cluster.platform.put("models", {"metadata": {"name": "llama", "environment": "production"}, "spec": {}})
    response = await cluster.settle(cluster.apply(model_deployment()))
    assert registered(response) == ("False", reasons.CONFLICT)
    assert "was not made for this object" in message(response)
    assert cluster.platform.writes() == []


async def test_a_specification_that_is_not_accepted_keeps_its_model(cluster: World) -> None:
    """While a specification is not accepted, its model is neither written nor removed, and the condition stays."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before = copy.deepcopy(cluster.platform.store)
    cluster.edit(item, serviceRef={"name": "x", "namespace": "elsewhere"})
    response = await cluster.settle(item)
    assert registered(response) == ("True", reasons.UP_TO_DATE)
    assert (item["status"]["workspace"], item["status"]["platform"]["name"]) == (WORKSPACE, "llama")
    assert cluster.platform.store == before


async def test_a_specification_that_was_never_accepted(cluster: World) -> None:
    """A specification that was never accepted sends no request."""
    item = cluster.apply(model_deployment(serviceRef={"name": "x", "namespace": "elsewhere"}))
    assert registered(await cluster.settle(item)) == ("Unknown", reasons.NOT_EVALUATED)
    assert cluster.platform.calls == []


# Rechecks.


async def test_a_removed_model_is_created_again(cluster: World) -> None:
    """A model that another client removed is created again at the next recheck, and not before."""
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


async def test_a_recheck_changes_nothing(cluster: World) -> None:
    """A recheck changes nothing when the model is there, nor when it fails."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before, writes = copy.deepcopy(item["status"]), cluster.platform.writes()
    calls = len(cluster.platform.calls)
    cluster.pass_time(1000)
    await cluster.sync(item)
    assert len(cluster.platform.calls) == calls + 1
    cluster.platform.stop()
    cluster.pass_time(1000)
    response = await cluster.sync(item)
    assert item["status"] == before
    assert "resyncAfterSeconds" not in response
    assert cluster.platform.writes() == writes
    cluster.platform.start()


async def test_c22_a_recheck_notices_another_owner(cluster: World) -> None:
    """C22: a recheck notices that a model was taken over, and it is registered again when it is free."""
    older, younger = cluster.apply(model_deployment(enabled=False)), cluster.apply(other())
    cluster.related = [workload(), workload() | {"metadata": workload()["metadata"] | {"namespace": "team-b"}}]
    await cluster.settle(younger)
    cluster.edit(older, enabled=True)
    await cluster.settle(older)
    assert registered(await cluster.sync(younger)) == ("True", reasons.UP_TO_DATE)
    cluster.pass_time(1000)
    response = await cluster.sync(younger)
    assert registered(response) == ("False", reasons.CONFLICT)
    assert "name" not in younger["status"]["platform"]
    cluster.edit(older, enabled=False)
    await cluster.settle(older)
    cluster.pass_time(response["resyncAfterSeconds"])
    assert registered(await cluster.sync(younger)) == ("True", reasons.UP_TO_DATE)


# Forged requests.


@dataclasses.dataclass(frozen=True, slots=True)
class Forgery:
    """Fields of a request that differ from those of the stored object."""

    metadata: Json = dataclasses.field(default_factory=dict)
    spec: Json = dataclasses.field(default_factory=dict)
    status: Json = dataclasses.field(default_factory=dict)


FRESH: Json = {"platform": {}}


@pytest.mark.parametrize(
    "forgery",
    [
        Forgery(metadata={"uid": "another"}, status=FRESH),
        Forgery(metadata={"name": "missing"}, status=FRESH),
        Forgery(metadata={"namespace": "elsewhere"}, status=FRESH),
        Forgery(metadata={"labels": {"team": "another"}}),
        Forgery(spec={"serverlessConfig": {"maxNumReplicas": 1}}),
        Forgery(spec={"environment": "of-another"}),
        Forgery(status=FRESH),
        Forgery(status={"platform": {"name": "of-another", "environment": "production", "hash": "0"}}),
    ],
    ids=repr,
)
async def test_a_forged_sync_writes_nothing(cluster: World, forgery: Forgery) -> None:
    """A sync writes nothing when the stored object differs from the one in the request, or does not exist."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before, writes = copy.deepcopy(cluster.platform.store), cluster.platform.writes()
    forged = copy.deepcopy(item)
    forged["metadata"] |= forgery.metadata
    forged["spec"] |= forgery.spec
    forged["status"] |= forgery.status
    response = await cluster.ask(forged)
    cluster.children[forged["metadata"]["uid"]] = [observed(child) for child in response["children"]]
    tokens = len(cluster.api.tokens)
    for _ in range(3):
        await cluster.ask(forged)
    assert len(cluster.api.tokens) == tokens + 3
    assert cluster.platform.store == before
    assert cluster.platform.writes() == writes


@pytest.mark.parametrize("kind", ["missing", "not being deleted", "another uid"])
async def test_a_forged_finalize_deletes_nothing(cluster: World, kind: str) -> None:
    """A finalize removes nothing when the stored object is not being deleted, does not exist, or is another one."""
    item = cluster.apply(model_deployment())
    await cluster.settle(item)
    before = copy.deepcopy(cluster.platform.store)
    forged = copy.deepcopy(item)
    cluster.delete(forged)
    cluster.children.clear()
    if kind == "missing":
        cluster.remove(item)
    if kind == "another uid":
        item["metadata"]["uid"] = "another"
    for _ in range(3):
        response = await cluster.ask(forged, "finalize")
        assert response["finalized"] is (kind != "not being deleted")
    assert cluster.platform.store == before
