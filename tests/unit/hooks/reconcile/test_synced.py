"""What became of the children that were asked for."""

import pytest

from hooks import reasons
from tests import builders
from tests.builders import Cluster, body_of, condition, conditions, model_deployment, served, workload

LOCAL = ("Service", "demo-local")
ROUTE = ("ConfigMap", "demo-route")


def adopted(**rest: object) -> Cluster:
    """A cluster in which the adopted Deployment is ready."""
    return Cluster(model_deployment(), related=[workload()], **rest)  # type: ignore[arg-type]


def awaiting(reason: str, since: str) -> builders.Json:
    """A status that waits for the local Service, for this reason and since then."""
    message = "Waiting to appear: Service demo-local."
    synced = {"type": "Synced", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since}
    return {"conditions": [synced]}


def test_a_new_route_is_pending_until_it_is_observed() -> None:
    """Synced says whether the gateway can know the present route."""
    cluster = adopted()
    assert conditions(cluster.sync())["Synced"] == ("False", reasons.CHILD_PENDING)
    assert conditions(cluster.sync())["Synced"] == ("True", reasons.IN_SYNC)
    assert conditions(cluster.edit(model="other"))["Synced"] == ("False", reasons.ROUTE_PENDING)
    assert conditions(cluster.sync())["Synced"] == ("True", reasons.IN_SYNC)


@pytest.mark.parametrize("taken", [LOCAL, ROUTE])
def test_a_taken_name_is_noticed(taken: tuple[str, str]) -> None:
    """A child that was asked for and does not appear in ten seconds is a conflict, until it appears."""
    cluster = adopted(taken=[taken])
    assert cluster.sync().resync_after_seconds == 10
    answer = cluster.after(9.5)
    assert ("ChildConflict" in conditions(answer), answer.resync_after_seconds) == (False, 0.5)
    answer = cluster.after(0.5)
    assert conditions(answer)["ChildConflict"] == ("True", reasons.NAME_TAKEN)
    assert " ".join(taken) in condition(answer, "ChildConflict")["message"]
    assert conditions(answer)["Ready"] == ("False", reasons.NOT_SYNCED)
    assert len(answer.children) == 2

    later = cluster.after(3600)
    assert (later.status, later.children) == (answer.status, answer.children)

    cluster._taken.clear()
    cluster.sync()
    answer = cluster.sync()
    assert ("ChildConflict" in conditions(answer), conditions(answer)["Ready"][0]) == (False, "True")


def test_a_child_that_is_asked_for_later_is_given_its_time() -> None:
    """What was not asked for yet cannot be in conflict."""
    cluster = adopted(taken=[("Service", "gw")])
    cluster.settle()
    cluster.after(3600)
    answer = cluster.edit(gateway={"serviceName": "gw"})
    assert conditions(answer)["Synced"] == ("False", reasons.CHILD_PENDING)
    assert "ChildConflict" not in conditions(answer)
    assert "ChildConflict" not in conditions(cluster.after(5))
    assert condition(cluster.after(5), "ChildConflict")["message"].startswith(
        "Asked for and never appeared: Service gw."
    )


def test_only_what_was_awaited_is_in_conflict() -> None:
    """While one child is overdue, another that is new is not."""
    cluster = adopted(taken=[LOCAL, ("Service", "gw")])
    cluster.sync()
    cluster.after(60)
    answer = cluster.edit(gateway={"serviceName": "gw"})
    assert "Service gw" not in condition(answer, "ChildConflict")["message"]


def test_another_reason_for_not_being_in_sync_is_no_conflict() -> None:
    """Only the reason ChildPending says that a child was awaited."""
    parent = model_deployment(status=awaiting("RoutePending", "2026-03-01T10:00:00Z"))
    assert "ChildConflict" not in conditions(builders.sync(parent, related=[workload()]))


def test_a_parent_that_goes_has_no_conflicts() -> None:
    """Nothing is created for a parent that is being deleted, so nothing is missed."""
    cluster = adopted(taken=[LOCAL])
    cluster.sync()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    answer = cluster.after(60)
    assert "ChildConflict" not in conditions(answer)
    assert conditions(answer)["Ready"] == ("False", reasons.TERMINATING)


def test_a_child_that_goes_stays_desired() -> None:
    """A child with a deletionTimestamp is asked for again, is not in sync, and not ready."""
    cluster = Cluster(served())
    cluster.settle()
    before = cluster.set_ready(1)
    for child in cluster.children:
        child["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    answer = cluster.sync()
    assert {item["kind"] for item in answer.children} == {item["kind"] for item in before.children}
    assert conditions(answer)["Synced"] == ("False", reasons.TERMINATING)
    assert conditions(answer)["LocalReady"] == ("False", reasons.TERMINATING)


def test_a_damaged_transition_time_starts_the_wait_anew() -> None:
    """A time that cannot be read is as if nothing had been awaited."""
    parent = model_deployment(status=awaiting("ChildPending", "long ago"))
    answer = builders.sync(parent, related=[workload()])
    assert ("ChildConflict" in conditions(answer), answer.resync_after_seconds) == (False, 10)
    assert body_of(answer)
