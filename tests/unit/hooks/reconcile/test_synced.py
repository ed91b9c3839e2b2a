"""Comparison of the desired children with the observed ones, and the conditions that follow."""

import pytest

from hooks import reasons
from tests import builders
from tests.builders import Cluster, body_of, condition, conditions, model_deployment, served, workload

LOCAL = ("Service", "demo-local")
ROUTE = ("ConfigMap", "demo-route")


def adopted(**rest: object) -> Cluster:
    """Return a cluster in which the adopted Deployment is ready."""
    return Cluster(model_deployment(), related=[workload()], **rest)  # type: ignore[arg-type]


def awaiting(reason: str, since: str) -> builders.Json:
    """Return a status that has awaited the local Service, with this reason and since this time."""
    message = "Waiting to appear: Service demo-local."
    synced = {"type": "Synced", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since}
    return {"conditions": [synced]}


def test_a_new_route_is_pending_until_it_is_observed() -> None:
    """The condition Synced is False until the present route document is observed."""
    cluster = adopted()
    assert conditions(cluster.sync())["Synced"] == ("False", reasons.CHILD_PENDING)
    assert conditions(cluster.sync())["Synced"] == ("True", reasons.IN_SYNC)
    assert conditions(cluster.edit(model="other"))["Synced"] == ("False", reasons.ROUTE_PENDING)
    assert conditions(cluster.sync())["Synced"] == ("True", reasons.IN_SYNC)


@pytest.mark.parametrize("taken", [LOCAL, ROUTE])
def test_a_taken_name_is_noticed(taken: tuple[str, str]) -> None:
    """A desired child that does not appear in ten seconds is a conflict until it does."""
    cluster = adopted(taken=[taken])
    assert cluster.sync().resync_after_seconds == 10
    response = cluster.after(9.5)
    assert ("ChildConflict" in conditions(response), response.resync_after_seconds) == (False, 0.5)
    response = cluster.after(0.5)
    assert conditions(response)["ChildConflict"] == ("True", reasons.NOT_CREATED)
    assert " ".join(taken) in condition(response, "ChildConflict")["message"]
    assert conditions(response)["Ready"] == ("False", reasons.NOT_SYNCED)
    assert len(response.children) == 2

    later = cluster.after(3600)
    assert (later.status, later.children) == (response.status, response.children)

    cluster._taken.clear()
    cluster.sync()
    response = cluster.sync()
    assert ("ChildConflict" in conditions(response), conditions(response)["Ready"][0]) == (False, "True")


def test_a_child_that_is_desired_later_has_its_time() -> None:
    """A child that is desired later has its own ten seconds."""
    cluster = adopted(taken=[("Service", "gw")])
    cluster.settle()
    cluster.after(3600)
    response = cluster.edit(gateway={"serviceName": "gw"})
    assert conditions(response)["Synced"] == ("False", reasons.CHILD_PENDING)
    assert "ChildConflict" not in conditions(response)
    assert "ChildConflict" not in conditions(cluster.after(5))
    assert condition(cluster.after(5), "ChildConflict")["message"].startswith(
        "Asked for and never appeared: Service gw."
    )


def test_only_an_awaited_child_is_in_conflict() -> None:
    """A child that is new is not in conflict while another one is."""
    cluster = adopted(taken=[LOCAL, ("Service", "gw")])
    cluster.sync()
    cluster.after(60)
    response = cluster.edit(gateway={"serviceName": "gw"})
    assert "Service gw" not in condition(response, "ChildConflict")["message"]


def test_another_reason_for_not_being_in_sync_is_no_conflict() -> None:
    """A condition Synced with a reason other than ChildPending does not record an awaited child."""
    parent = model_deployment(status=awaiting("RoutePending", "2026-03-01T10:00:00Z"))
    assert "ChildConflict" not in conditions(builders.sync(parent, related=[workload()]))


def test_a_deleted_parent_has_no_conflicts() -> None:
    """A parent that is being deleted has no conflicts, for no child is created for it."""
    cluster = adopted(taken=[LOCAL])
    cluster.sync()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    response = cluster.after(60)
    assert "ChildConflict" not in conditions(response)
    assert conditions(response)["Ready"] == ("False", reasons.TERMINATING)


def test_a_deleted_child_stays_desired() -> None:
    """A child that is being deleted stays desired, is not in sync, and makes the model not ready."""
    cluster = Cluster(served())
    cluster.settle()
    before = cluster.set_ready(1)
    for child in cluster.children:
        child["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    response = cluster.sync()
    assert {item["kind"] for item in response.children} == {item["kind"] for item in before.children}
    assert conditions(response)["Synced"] == ("False", reasons.TERMINATING)
    assert conditions(response)["LocalReady"] == ("False", reasons.TERMINATING)


def test_a_damaged_transition_time_starts_the_wait_anew() -> None:
    """A transition time that cannot be read counts as if no child had been awaited."""
    parent = model_deployment(status=awaiting("ChildPending", "long ago"))
    response = builders.sync(parent, related=[workload()])
    assert ("ChildConflict" in conditions(response), response.resync_after_seconds) == (False, 10)
    assert body_of(response)
