"""What status says of a Policy, and what the platform shall have of it."""

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
    """A parsed request."""
    return SyncRequest.from_body(orjson.dumps(request_body(item, **rest)), POLICY_KIND)


def answer(item: Json, *, account: str | None = None, namespaces: frozenset[str] | None = None) -> SyncResponse:
    """The answer to a sync."""
    decision = decide_sync(request(item), InstallDefaults(namespaces=namespaces), account=account, now=NOW)
    return decision.response(decision.registration)


def finalized(item: Json, *, account: str | None = "us") -> tuple[FinalizeResponse, Registration]:
    """Return the response to a finalize before its task is carried out, and the registration with the task."""
    decision = decide_finalize(request(item, finalizing=True), account=account, now=NOW)
    return decision.response(decision.registration), decision.registration


def said(response: SyncResponse | FinalizeResponse, type_: str) -> tuple[str, str, str]:
    """A condition."""
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
def test_what_it_amounts_to(spec: Json, sentence: str) -> None:
    """People read it without the platform."""
    response = answer(policy(**spec))
    status, reason, message = said(response, "Accepted")
    assert (status, reason) == ("True", reasons.ACCEPTED)
    assert sentence in message
    assert said(response, "Ready")[:2] == ("True", reasons.ENFORCED)
    assert said(response, "Registered")[:2] == ("False", reasons.DISABLED)
    assert (response.children, response.resync_after_seconds) == ((), None)


def test_a_place_that_does_not_exist() -> None:
    """It is named, and the policy is in force as far as it goes."""
    places = [
        {"type": "country", "name": "uk"},
        {"type": "continent", "name": "atlantis"},
        {"type": "country", "name": "fr"},
    ]
    response = answer(policy(locations=places))
    status, reason, message = said(response, "Ready")
    assert (status, reason) == ("False", reasons.INVALID_LOCATION)
    assert "spec.locations[0]: uk is no code of a country" in message
    assert "spec.locations[1]: atlantis is no continent" in message
    assert said(response, "Accepted")[0] == "True"


@pytest.mark.parametrize(
    "spec", [{"type": "location"}, {"type": "location", "locations": []}, {"type": "x"}, {"type": 1}, {"locations": 1}]
)
def test_what_is_not_accepted(spec: Json) -> None:
    """It is said what to change; nothing is sent to the platform."""
    item = policy()
    item["spec"] = spec
    decision = decide_sync(request(item), InstallDefaults(), account="us", now=NOW)
    response = decision.response(decision.registration)
    assert said(response, "Accepted")[:2] == ("False", reasons.INVALID_SPEC)
    assert said(response, "Ready")[:2] == ("False", reasons.NOT_ACCEPTED)
    assert said(response, "Registered")[:2] == ("Unknown", reasons.NOT_EVALUATED)
    assert decision.registration.task is None


def test_a_namespace_that_is_not_managed() -> None:
    """As for a ModelDeployment."""
    response = answer(policy(), namespaces=frozenset({"elsewhere"}), account="us")
    assert said(response, "Accepted")[:2] == ("False", reasons.NAMESPACE_NOT_MANAGED)


def test_one_that_goes_is_not_sent() -> None:
    """A sync of one that is being deleted, where there is no finalizer."""
    decision = decide_sync(request(policy(deleting=True)), InstallDefaults(), account="us", now=NOW)
    assert decision.registration.task is None


def test_finalize_without_account() -> None:
    """At once, whatever is remembered."""
    item = policy() | {"status": {"platform": {"name": "eu", "hash": "0"}, "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "It is."}]}}  # fmt: skip
    response, found = finalized(item, account=None)
    assert (response.finalized, response.children, found.task) == (True, (), None)
    assert said(response, "Accepted") == ("True", "Accepted", "It is.")
    assert said(response, "Ready")[:2] == ("False", reasons.TERMINATING)


def test_finalize_of_one_that_was_never_seen() -> None:
    """There is nothing to wait for."""
    response, found = finalized(policy(deleting=True))
    assert (response.finalized, found.task) == (True, None)
    assert said(response, "Accepted")[0] == "Unknown"


@pytest.mark.parametrize("spec", [{"type": "flavor"}, {"type": 1}])
def test_finalize_of_one_that_is_registered(spec: Json) -> None:
    """It is to be removed, whatever its specification is by now."""
    item = policy(deleting=True) | {"spec": spec, "status": {"platform": {"name": "eu", "hash": "0"}}}
    response, found = finalized(item)
    assert not response.finalized
    task = found.task
    assert task is not None
    assert (task.removal, task.final) == (PlatformKey("policies", "eu"), True)
    assert (task.expected is None) is (spec["type"] == 1)


def test_what_is_to_be_sent() -> None:
    """The body of the documented API; a name for people where there is one."""
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


def test_status_is_one_that_the_schema_takes() -> None:
    """All of it is stored, and a second sync changes nothing."""
    item = policy() | {"status": {"workspace": "acme", "platform": {"name": "eu", "hash": "0", "attempts": 1}}}
    schema = crd_schema("policies")["properties"]["status"]
    for account in (None, "us"):
        status = answer(item, account=account).status
        assert problems(schema, status) == []
        assert pruned(schema, status) == status
        assert answer(item | {"status": status}, account=account).status == status


def test_without_a_generation() -> None:
    """Nothing is said of it."""
    item = policy()
    del item["metadata"]["generation"]
    assert "observedGeneration" not in answer(item).status


def test_nothing_is_listed() -> None:
    """A policy of flavors without flavors allows everything."""
    spec = Policy.read({"metadata": {"name": "p"}, "spec": {"type": "flavor"}}).spec
    assert "any backend" in summary(spec)
