"""Sync and finalize of a Policy: its status, and the policy that the platform should have."""

from typing import Any

import orjson
import pytest

from hooks import reasons
from hooks.api.policy import Policy
from hooks.observation.observation import InstallDefaults
from hooks.platform.registration import Registration
from hooks.platform.state import PlatformKey
from hooks.protocol import POLICY_KIND, FinalizeResponse, SyncRequest, SyncResponse
from hooks.reconcile.policy import decide_finalize, decide_sync, summary
from tests.builders import NOW, Json, policy, request_body
from tests.structural import crd_schema, problems, pruned


def request(item: Json, **rest: Any) -> SyncRequest:
    """Return the request about a Policy."""
    return SyncRequest.from_body(orjson.dumps(request_body(item, **rest)), POLICY_KIND)


def synced(item: Json, *, account: str | None = None, namespaces: frozenset[str] | None = None) -> SyncResponse:
    """Return the response to a sync."""
    decision = decide_sync(request(item), InstallDefaults(namespaces=namespaces), account=account, now=NOW)
    return decision.response(decision.registration)


def finalized(item: Json, *, account: str | None = "us") -> tuple[FinalizeResponse, Registration]:
    """Return the response to a finalize before its task is carried out, and the registration with the task."""
    decision = decide_finalize(request(item, finalizing=True), account=account, now=NOW)
    return decision.response(decision.registration), decision.registration


def condition(response: SyncResponse | FinalizeResponse, type_: str) -> tuple[str, str, str]:
    """Return status, reason and message of a condition."""
    (one,) = [one for one in response.status["conditions"] if one["type"] == type_]
    return one["status"], one["reason"], one["message"]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"locations": [{"type": "continent", "name": "eu"}, {"type": "country", "name": "FRA"}]},
            "only to a backend at continent eu or country FRA (FR), as far as",
        ),
        ({"locations": [{"type": "location", "name": "eu-west-3"}]}, "only to a backend at location eu-west-3,"),
        ({"flavors": [{"type": "gpu", "name": "t4"}]}, "only to a backend on gpu t4 alone, as far as"),
        (
            {"locations": [{"type": "location", "name": "a"}], "flavors": [{"type": "gpu", "name": "t4"}]},
            "at location a and on gpu t4 alone",
        ),
        (
            {"type": "flavor", "flavors": []},
            "Models that refer to it may be offloaded to any backend: it lists nothing.",
        ),
        (
            {"locations": [{"type": "location", "name": f"l-{number}"} for number in range(10)]},
            "location l-7 or 2 more, as far",
        ),
    ],
)
def test_summary(spec: Json, sentence: str) -> None:
    """The condition Accepted says what the policy means for the models that refer to it."""
    response = synced(policy(**spec))
    status, reason, message = condition(response, "Accepted")
    assert (status, reason) == ("True", reasons.ACCEPTED)
    assert sentence in message
    assert condition(response, "Ready")[:2] == ("True", reasons.ENFORCED)
    assert condition(response, "Registered")[:2] == ("False", reasons.DISABLED)
    assert (response.children, response.resync_after_seconds) == ((), None)


def test_a_place_that_does_not_exist() -> None:
    """A location that does not exist makes the policy not ready, and the rest of it is in force."""
    places = [
        {"type": "country", "name": "uk"},
        {"type": "continent", "name": "atlantis"},
        {"type": "country", "name": "fr"},
    ]
    response = synced(policy(locations=places))
    status, reason, message = condition(response, "Ready")
    assert (status, reason) == ("False", reasons.INVALID_LOCATION)
    assert "spec.locations[0]: uk is no code of a country" in message
    assert "spec.locations[1]: atlantis is no continent" in message
    assert condition(response, "Accepted")[0] == "True"


@pytest.mark.parametrize(
    "spec", [{"type": "location"}, {"type": "location", "locations": []}, {"type": "x"}, {"type": 1}, {"locations": 1}]
)
def test_what_is_not_accepted(spec: Json) -> None:
    """A specification that is not accepted has no task on the platform."""
    item = policy()
    item["spec"] = spec
    decision = decide_sync(request(item), InstallDefaults(), account="us", now=NOW)
    response = decision.response(decision.registration)
    assert condition(response, "Accepted")[:2] == ("False", reasons.INVALID_SPEC)
    assert condition(response, "Ready")[:2] == ("False", reasons.NOT_ACCEPTED)
    assert condition(response, "Registered")[:2] == ("Unknown", reasons.NOT_EVALUATED)
    assert decision.registration.task is None


def test_a_namespace_that_is_not_managed() -> None:
    """A Policy in a namespace that is not managed is not accepted."""
    response = synced(policy(), namespaces=frozenset({"elsewhere"}), account="us")
    assert condition(response, "Accepted")[:2] == ("False", reasons.NAMESPACE_NOT_MANAGED)


def test_a_deleted_policy_is_not_registered() -> None:
    """A Policy that is being deleted without a finalizer has no task."""
    decision = decide_sync(request(policy(deleting=True)), InstallDefaults(), account="us", now=NOW)
    assert decision.registration.task is None


def test_finalize_without_account() -> None:
    """Without an account a Policy may go at once, whatever its status records."""
    item = policy() | {"status": {"platform": {"name": "eu", "hash": "0"}, "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "It is."}]}}  # fmt: skip
    response, registration = finalized(item, account=None)
    assert (response.finalized, response.children, registration.task) == (True, (), None)
    assert condition(response, "Accepted") == ("True", "Accepted", "It is.")
    assert condition(response, "Ready")[:2] == ("False", reasons.TERMINATING)


def test_finalize_without_status() -> None:
    """A Policy that was never synced may go at once."""
    response, registration = finalized(policy(deleting=True))
    assert (response.finalized, registration.task) == (True, None)
    assert condition(response, "Accepted")[0] == "Unknown"


@pytest.mark.parametrize("spec", [{"type": "flavor"}, {"type": 1}])
def test_finalize_when_registered(spec: Json) -> None:
    """A registered Policy is removed first, whatever its specification is by now."""
    item = policy(deleting=True) | {"spec": spec, "status": {"platform": {"name": "eu", "hash": "0"}}}
    response, registration = finalized(item)
    assert not response.finalized
    task = registration.task
    assert task is not None
    assert (task.removal, task.final) == (PlatformKey("policies", "eu"), True)
    assert (task.expected is None) is (spec["type"] == 1)


def test_body_for_the_platform() -> None:
    """The platform is sent the documented body, with a display name where there is one."""
    places = [{"type": "country", "name": "FR"}]
    item = policy(locations=places, flavors=[{"type": "gpu", "name": "t4"}])
    for name in (None, "Europe"):
        item["spec"]["displayName"] = name
        task = decide_sync(request(item), InstallDefaults(), account="us", now=NOW).registration.task
        assert task is not None
        assert task.desired is not None
        assert task.desired.body == {
            "metadata": {"name": "eu"} | ({"displayName": name} if name else {}),
            "spec": {"type": "location", "locations": places, "flavors": [{"type": "gpu", "name": "t4"}]},
        }


def test_status_fits_the_schema() -> None:
    """The schema of the CustomResourceDefinition keeps the whole status, and a second sync does not change it."""
    item = policy() | {"status": {"workspace": "acme", "platform": {"name": "eu", "hash": "0", "attempts": 1}}}
    schema = crd_schema("policies")["properties"]["status"]
    for account in (None, "us"):
        status = synced(item, account=account).status
        assert problems(schema, status) == []
        assert pruned(schema, status) == status
        assert synced(item | {"status": status}, account=account).status == status


def test_without_a_generation() -> None:
    """Without a generation the status has no observedGeneration."""
    item = policy()
    del item["metadata"]["generation"]
    assert "observedGeneration" not in synced(item).status


def test_summary_of_an_empty_list() -> None:
    """A policy of type flavor without flavors allows every backend."""
    spec = Policy.read({"metadata": {"name": "p"}, "spec": {"type": "flavor"}}).spec
    assert "any backend" in summary(spec)
