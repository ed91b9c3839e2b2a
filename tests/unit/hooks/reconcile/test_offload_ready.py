"""The conditions OffloadReady and Ready, from what gateways found in their drills."""

from typing import Any

import pytest

from hooks import reasons
from hooks.observation.drills import Drill, Reading
from hooks.reconcile.resync import RESYNC_SECONDS, SOON_SECONDS
from tests.builders import (
    NOW,
    Cluster,
    body_of,
    condition,
    conditions,
    model_deployment,
    obeys,
    override,
    sync,
    weights,
    workload,
)

PROVEN = Drill(reasons.PROVEN, "", 0)
REFUSED = Drill(reasons.TOKEN_REFUSED, "The token endpoint says invalid_client.", 3)
ONCE = Drill(reasons.TOKEN_REFUSED, "The token endpoint says invalid_client.", 1)
UNLISTED = Drill(reasons.MODEL_UNKNOWN, "It lists no model llama.", 9)


def offloading(ready: int = 1, **spec: Any) -> Cluster:
    """Return a cluster at rest with a model whose remote backend two rounds have proven."""
    cluster = Cluster(model_deployment(**spec), related=[workload(ready=ready)])
    cluster.settle()
    cluster.drill(PROVEN)
    cluster.drill(PROVEN)
    return cluster


def test_without_gateways_to_ask_it_is_unknown() -> None:
    """Where no gateway is asked, the condition is Unknown, the message says what to set, and nothing is synced for
    it."""
    response = sync(model_deployment(), related=[workload()])
    assert conditions(response)["OffloadReady"] == ("Unknown", reasons.NOT_EVALUATED)
    assert "proxyService.adminAddress" in condition(response, "OffloadReady")["message"]


def test_a_proof_is_written_after_two_rounds() -> None:
    """The condition becomes True with the second round that proves it, and from then on nothing is written."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    first = cluster.drill(PROVEN)
    assert conditions(first)["OffloadReady"] == ("Unknown", reasons.NOT_TRIED)
    assert first.resync_after_seconds == pytest.approx(SOON_SECONDS, rel=0.11)
    second = cluster.drill(PROVEN)
    assert conditions(second)["OffloadReady"] == ("True", reasons.PROVEN)
    assert second.resync_after_seconds == pytest.approx(RESYNC_SECONDS, rel=0.11)
    assert body_of(cluster.drill(PROVEN)) == body_of(second)


def test_a_wrong_secret() -> None:
    """A refused token makes the condition False after two rounds with the gateway's sentence, and changes no split."""
    cluster = offloading()
    before = cluster.sync()
    cluster.drill(REFUSED)
    response = cluster.drill(REFUSED)
    assert conditions(response)["OffloadReady"] == ("False", reasons.TOKEN_REFUSED)
    assert condition(response, "OffloadReady")["message"] == REFUSED.message
    assert conditions(response)["Ready"] == ("True", reasons.SERVING)
    assert response.children == before.children


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"offloadingConfig": None}, reasons.NOT_CONFIGURED),
        ({"enabled": False}, reasons.DISABLED),
        ({"policies": obeys("eu")}, reasons.POLICY_MISSING),
        ({"offloadingConfig": override(0, "Force")}, reasons.OVERRIDE_FORCED),
    ],
)
def test_without_a_remote_backend_it_is_false(spec: dict[str, Any], reason: str) -> None:
    """Where no request may ever reach a remote backend, the condition is False for that reason, and nothing is read."""
    cluster = Cluster(model_deployment(**spec), related=[workload()])
    cluster.settle()
    cluster.drill(PROVEN)
    response = cluster.drill(PROVEN)
    assert conditions(response)["OffloadReady"] == ("False", reason)
    if reason != reasons.OVERRIDE_FORCED:
        assert response.resync_after_seconds is None


def test_not_ready_while_nothing_serves() -> None:
    """Without a ready replica, a model is not ready once three drills in a row have failed, and is ready again when the
    remote backend is proven; all requests go to it all the time."""
    cluster = offloading(ready=0)
    assert conditions(cluster.sync())["Ready"] == ("True", reasons.SERVING)
    cluster.drill(ONCE)
    warned = cluster.drill(ONCE)
    assert conditions(warned)["Ready"] == ("True", reasons.SERVING)
    assert ONCE.message in condition(warned, "Ready")["message"]
    cluster.drill(REFUSED)
    failing = cluster.drill(REFUSED)
    assert conditions(failing)["Ready"] == ("False", reasons.REMOTE_FAILS)
    assert REFUSED.message in condition(failing, "Ready")["message"]
    assert weights(failing) == {"local": 0, "remote": 100}
    cluster.drill(PROVEN)
    assert conditions(cluster.sync())["Ready"] == ("False", reasons.REMOTE_FAILS)
    assert conditions(cluster.drill(PROVEN))["Ready"] == ("True", reasons.SERVING)


def test_a_replica_that_is_ready_again_serves() -> None:
    """A ready replica makes the model ready as soon as the gateway has the route, whatever drills say."""
    cluster = offloading(ready=0)
    cluster.drill(REFUSED)
    assert conditions(cluster.drill(REFUSED))["Ready"][0] == "False"
    cluster.set_ready(1)
    assert conditions(cluster.sync())["Ready"] == ("True", reasons.SERVING)


def test_an_override_that_takes_the_replicas_out() -> None:
    """With an override of mode Force that sends every request away, ready replicas serve none."""
    cluster = offloading(offloadingConfig=override(100, "Force"))
    cluster.drill(REFUSED)
    assert conditions(cluster.drill(REFUSED))["Ready"] == ("False", reasons.REMOTE_FAILS)


def test_a_model_that_is_not_listed_only_warns() -> None:
    """A remote backend that does not list the model may serve it: the model stays ready, with a warning."""
    cluster = offloading(ready=0)
    cluster.drill(UNLISTED)
    response = cluster.drill(UNLISTED)
    assert conditions(response)["OffloadReady"] == ("False", reasons.MODEL_UNKNOWN)
    assert conditions(response)["Ready"] == ("True", reasons.SERVING)
    assert UNLISTED.message in condition(response, "Ready")["message"]


def test_another_process_of_hooks_changes_nothing() -> None:
    """A process that has read once, or has no reading in time, keeps both conditions as they are."""
    cluster = offloading(ready=0)
    cluster.drill(REFUSED)
    before = cluster.drill(REFUSED)
    for drills in ((), (Reading(cluster.now, (PROVEN,)),)):
        cluster.drills = drills
        after = cluster.sync()
        assert after.status == before.status


def test_a_specification_that_is_not_accepted() -> None:
    """While the specification is not accepted, nothing is said of the remote backend."""
    response = sync(model_deployment(model=None), drills=(Reading(NOW, (PROVEN,)),) * 2)
    assert conditions(response)["OffloadReady"] == ("Unknown", reasons.NOT_EVALUATED)
