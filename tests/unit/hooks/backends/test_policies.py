"""Policies: which remote backends they allow, and the messages of their refusals."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.remote_backend import Flavor, Location
from hooks.backends import policies
from hooks.observation.observation import DefaultRemote, InstallDefaults
from tests import builders
from tests.builders import (
    NAMESPACE,
    REMOTE,
    Cluster,
    Json,
    backends,
    condition,
    conditions,
    model_deployment,
    obeys,
    override,
    policy,
    sync,
    workload,
)

FIELD = "spec.offloadingConfig.remoteBackend"
T4 = {"type": "gpu", "name": "t4"}
A100 = {"type": "gpu", "name": "a100"}


def place(type_: str, name: str) -> Json:
    """Return an entry of a policy's locations."""
    return {"type": type_, "name": name}


def model(*names: str, ready: int = 1, **declared: Any) -> Json:
    """Return a ModelDeployment with these policies, whose remote backend declares these fields."""
    return model_deployment(policies=obeys(*names), offloadingConfig={"remoteBackend": REMOTE | declared})


def refusals(parent: Json, *stored: Json, **rest: Any) -> list[tuple[str, str]]:
    """Return reason and message of each refusal, with these Policies in the cluster."""
    seen = builders.observation(parent, related=stored, **rest)
    return [(one.reason, one.message) for one in policies.refusals(seen.read_spec(), seen)]


def reasons_of(parent: Json, *stored: Json, **rest: Any) -> list[str]:
    """Return the reason of each refusal, with these Policies in the cluster."""
    return [reason for reason, _ in refusals(parent, *stored, **rest)]


# ------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("location", "allowed", "expected"),
    [
        ({"country": "fr"}, [place("country", "fr")], []),
        ({"country": "FR"}, [place("country", "FRA")], []),
        ({"country": "fra"}, [place("country", "Fr")], []),
        ({"country": "fr"}, [place("country", "de"), place("country", "fr")], []),
        ({"country": "fr"}, [place("continent", "eu")], []),
        ({"country": "gb"}, [place("continent", "Europe")], []),
        ({"continent": "eu"}, [place("continent", "Europe")], []),
        ({"continent": "north-america"}, [place("continent", "NA")], []),
        ({"name": "EU-West-3"}, [place("location", "eu-west-3")], []),
        ({"name": "eu-west-3", "country": "fr"}, [place("location", "other"), place("country", "fr")], []),
        ({"country": "fr"}, [place("country", "de")], [reasons.LOCATION_NOT_ALLOWED]),
        ({"country": "us"}, [place("continent", "eu")], [reasons.LOCATION_NOT_ALLOWED]),
        # The same two letters: Namibia and North America, Saudi Arabia and South America, American Samoa and Asia.
        ({"country": "na"}, [place("continent", "na")], [reasons.LOCATION_NOT_ALLOWED]),
        ({"continent": "sa"}, [place("country", "sa")], [reasons.LOCATION_UNKNOWN]),
        ({"country": "as"}, [place("continent", "as")], [reasons.LOCATION_NOT_ALLOWED]),
        ({"name": "fr"}, [place("country", "fr")], [reasons.LOCATION_UNKNOWN]),
        ({"name": "eu-west-3"}, [place("continent", "eu")], [reasons.LOCATION_UNKNOWN]),
        ({"name": "eu-west-3"}, [place("location", "eu-west-33")], [reasons.LOCATION_NOT_ALLOWED]),
        ({"name": ""}, [place("location", "eu")], [reasons.LOCATION_UNKNOWN]),
        ({"country": "fr"}, [place("location", "fr")], [reasons.LOCATION_UNKNOWN]),
        ({"country": "fr"}, [place("location", "fr"), place("country", "de")], [reasons.LOCATION_NOT_ALLOWED]),
        ({"country": "fr"}, [place("country", "france")], [reasons.LOCATION_NOT_ALLOWED]),
        ({}, [place("continent", "eu")], [reasons.LOCATION_UNKNOWN]),
        (None, [place("continent", "eu")], [reasons.LOCATION_UNKNOWN]),
        (None, [place("country", "xx")], [reasons.LOCATION_UNKNOWN]),
        (None, [place("continent", "")], [reasons.INVALID_POLICY]),
    ],
)
def test_locations(location: Json | None, allowed: list[Json], expected: list[str]) -> None:
    """A location is allowed when one entry of the policy fits it; a location that is not declared fits none."""
    assert reasons_of(model("eu", location=location), policy(locations=allowed)) == expected


@pytest.mark.parametrize(
    ("declared", "allowed", "expected"),
    [
        ([T4], [T4], []),
        ([{"type": "GPU", "name": "T4"}], [T4], []),
        ([T4, A100], [A100, T4], []),
        ([T4, A100], [T4], [reasons.FLAVOR_NOT_ALLOWED]),
        ([{"type": "cpu", "name": "t4"}], [T4], [reasons.FLAVOR_NOT_ALLOWED]),
        ([], [T4], [reasons.FLAVORS_UNKNOWN]),
        ([A100], [], []),
        ([], [], []),
    ],
)
def test_flavors(declared: list[Json], allowed: list[Json], expected: list[str]) -> None:
    """Every declared flavor must be in the policy's list; an empty list allows all, and no declaration fits a list."""
    assert reasons_of(model("eu", flavors=declared), policy(type="flavor", flavors=allowed)) == expected


@pytest.mark.parametrize("type_", ["location", "flavor"])
def test_a_list_that_is_there_counts_whatever_the_type(type_: str) -> None:
    """Both lists of a policy count, whichever of them its type is about."""
    both = policy(type=type_, locations=[place("country", "fr")], flavors=[T4])
    assert reasons_of(model("eu", location={"country": "fr"}, flavors=[T4]), both) == []
    assert reasons_of(model("eu", location={"country": "de"}, flavors=[T4]), both) == [reasons.LOCATION_NOT_ALLOWED]
    assert reasons_of(model("eu", location={"country": "fr"}, flavors=[A100]), both) == [reasons.FLAVOR_NOT_ALLOWED]
    assert reasons_of(model("eu"), both) == [reasons.LOCATION_UNKNOWN, reasons.FLAVORS_UNKNOWN]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "location"},
        {"type": "location", "locations": []},
        {"type": "location", "flavors": [T4]},
        {"type": "mood"},
        {"type": "location", "locations": "eu"},
        {"type": "location", "locations": [{"type": "planet", "name": "earth"}]},
        {"type": "flavor", "flavors": [{"type": "gpu"}]},
    ],
)
def test_a_policy_that_cannot_be_understood(spec: Json) -> None:
    """A policy that cannot be understood allows nothing, and the message names it."""
    parent = model("eu", location={"country": "fr"}, flavors=[T4])
    ((reason, message),) = refusals(parent, policy() | {"spec": spec})
    assert reason == reasons.INVALID_POLICY
    assert message.startswith("Policy eu ")
    assert "spec." in message


@pytest.mark.parametrize("spec", [None, [], "x"])
def test_a_policy_without_a_specification(spec: Any) -> None:
    """A policy without a usable specification is invalid."""
    assert reasons_of(model("eu", location={"country": "fr"}), policy() | {"spec": spec}) == [reasons.INVALID_POLICY]


def test_a_malformed_status_makes_no_policy_unusable() -> None:
    """Only the specification of a policy is read, so a malformed status does no harm."""
    stored = policy() | {"status": {"conditions": "x"}}
    assert reasons_of(model("eu", location={"country": "fr"}), stored) == []


def test_all_policies_must_allow_a_backend() -> None:
    """A remote backend must be allowed by all policies; the refusals are in the order of spec.policies."""
    stored = [policy("eu"), policy("fr", locations=[place("country", "fr")]), policy("t4", flavors=[T4])]
    parent = model("t4", "fr", "eu", location={"country": "us"})
    assert reasons_of(parent, *stored) == [
        reasons.FLAVORS_UNKNOWN,
        reasons.LOCATION_NOT_ALLOWED,
        reasons.LOCATION_NOT_ALLOWED,
    ]
    assert reasons_of(model("t4", "fr", "eu", location={"country": "fr"}, flavors=[T4]), *stored) == []
    assert reasons_of(model("fr", "eu", location={"country": "de"}), *stored) == [reasons.LOCATION_NOT_ALLOWED]


def test_a_policy_that_is_named_twice_counts_once() -> None:
    """A policy that is named several times makes one refusal."""
    assert reasons_of(model("eu", "eu", "eu"), policy()) == [reasons.LOCATION_UNKNOWN]
    assert reasons_of(model_deployment(policies=[*obeys("eu"), {"name": "eu"}])) == [
        reasons.POLICY_MISSING,
        reasons.REMOTE_POLICY,
    ]


def test_a_policy_that_is_being_deleted_counts() -> None:
    """A policy that is being deleted counts until it is gone, and then it is missing."""
    parent = model("eu", location={"country": "fr"})
    assert reasons_of(parent, policy(deleting=True)) == []
    assert reasons_of(model("eu", location={"country": "us"}), policy(deleting=True)) == [reasons.LOCATION_NOT_ALLOWED]
    assert reasons_of(parent) == [reasons.POLICY_MISSING]


def test_a_policy_of_another_namespace_does_not_count() -> None:
    """A policy of another namespace does not count, even where it is among the related objects by mistake."""
    assert reasons_of(model("eu", location={"country": "fr"}), policy(namespace="team-b")) == [reasons.POLICY_MISSING]


@pytest.mark.parametrize(
    ("default", "stored", "expected"),
    [
        (DefaultRemote("h", location=Location(country="fr"), flavors=(Flavor(**T4),)), policy("p"), []),
        (DefaultRemote("h", location=Location(country="us")), policy("p"), [reasons.LOCATION_NOT_ALLOWED]),
        (DefaultRemote("h"), policy("p"), [reasons.LOCATION_UNKNOWN]),
        (DefaultRemote("h", flavors=(Flavor(**T4),)), policy("p", flavors=[T4]), []),
        (DefaultRemote("h", flavors=(Flavor(**T4),)), policy("p", flavors=[A100]), [reasons.FLAVOR_NOT_ALLOWED]),
        (DefaultRemote("h"), policy("p", flavors=[T4]), [reasons.FLAVORS_UNKNOWN]),
        (None, policy("p"), []),
    ],
)
def test_the_default_remote_backend(default: DefaultRemote | None, stored: Json, expected: list[str]) -> None:
    """The declared location and flavors of the default remote backend count for models without one of their own."""
    defaults = InstallDefaults(default_remote=default)
    parent = model_deployment(policies=obeys("p"), offloadingConfig={})
    assert reasons_of(parent, stored, defaults=defaults) == expected
    assert all(FIELD not in message for _, message in refusals(parent, stored, defaults=defaults))
    assert reasons_of(model("p"), stored, defaults=defaults) != []


def test_without_a_remote_backend_policies_must_be_there_all_the_same() -> None:
    """A policy that is missing or of another type is refused even where there is no remote backend yet."""
    parent = model_deployment(policies=[*obeys("eu", "gone"), {"name": "far"}], offloadingConfig=None)
    assert reasons_of(parent, policy()) == [reasons.POLICY_MISSING, reasons.REMOTE_POLICY]


# ---------------------------------------------------------------------------------------------------- the sentences


@pytest.mark.parametrize(
    ("parent", "stored", "expected"),
    [
        (
            model_deployment(policies=[{"name": "eu"}]),
            [],
            (
                "Policy eu is a remotePolicy, which only the remote platform can evaluate: create it as a Policy in"
                f" namespace {NAMESPACE} and refer to it with refType localPolicy."
            ),
        ),
        (
            model("eu"),
            [],
            f"Policy eu does not exist in namespace {NAMESPACE}: create it, or take it out of spec.policies.",
        ),
        (
            model("eu"),
            [policy(locations=[])],
            "Policy eu is of type location and allows no place: add one to its spec.locations.",
        ),
        (
            model("eu"),
            [policy(type="mood")],
            "Policy eu cannot be used: spec.type must be location or flavor, not 'mood'.",
        ),
        (
            model("eu"),
            [policy()],
            (
                f"Policy eu allows only continent eu, and {FIELD} does not declare its country: set"
                f" {FIELD}.location.country."
            ),
        ),
        (
            model("eu"),
            [policy(locations=[place("location", "a"), place("country", "fr"), place("continent", "eu")])],
            (
                f"Policy eu allows only location a, country fr or continent eu, and {FIELD} does not declare its name"
                f" or country: set {FIELD}.location.name or {FIELD}.location.country."
            ),
        ),
        (
            model("eu", location={"name": "us-east-1", "country": "us"}),
            [policy()],
            (
                f"Policy eu allows only continent eu, and {FIELD} declares name us-east-1, country us: use a backend at"
                " an allowed place, or add its place to the policy."
            ),
        ),
        (
            model("eu", location={"country": "gb"}),
            [policy(locations=[place("country", "uk"), place("country", "fr")])],
            (
                f"Policy eu allows only country uk or country fr, and {FIELD} declares country gb: use a backend at an"
                " allowed place, or add its place to the policy. In the policy, uk is no code of a country in ISO"
                " 3166-1."
            ),
        ),
        (
            model("eu", location={"country": "gb"}),
            [
                policy(
                    locations=[place("continent", "Atlantis"), *(place("country", code) for code in ("fr", "de", "it"))]
                )
            ],
            (
                f"Policy eu allows only continent Atlantis, country fr, country de or 1 more, and {FIELD} declares"
                " country gb: use a backend at an allowed place, or add its place to the policy. In the policy,"
                " Atlantis is no continent."
            ),
        ),
        (
            model("eu"),
            [policy(flavors=[T4])],
            f"Policy eu allows only gpu t4, and {FIELD} does not declare what it runs on: set {FIELD}.flavors.",
        ),
        (
            model("eu", flavors=[T4, A100]),
            [policy(flavors=[T4])],
            (
                f"Policy eu allows only gpu t4, and {FIELD}.flavors has gpu a100: use a backend without it, or add it"
                " to the policy."
            ),
        ),
        (
            model_deployment(policies=obeys("eu"), offloadingConfig={}),
            [policy()],
            (
                "Policy eu allows only continent eu, and defaultRemoteBackend does not declare its country: set"
                " defaultRemoteBackend.location.country in the controller's configuration."
            ),
        ),
    ],
)
def test_a_refusal_says_what_to_change(parent: Json, stored: list[Json], expected: str) -> None:
    """A refusal names the policy, what it allows, what is declared, and what to change."""
    ((_, message),) = refusals(parent, *stored)
    assert message == expected


def test_sentences_fit_into_status() -> None:
    """Messages stay within the limits of status, however long names are and however many policies there are."""
    long = "\U0001f30d" * 253
    names = [f"{number:02}-{'p' * 250}" for number in range(64)]
    stored = [
        policy(name, type="location", locations=[place("country", long)] * 256, flavors=[{"type": long, "name": long}])
        for name in names
    ]
    flavors = [{"type": long, "name": f"{long[:-1]}x"}]
    for parent, related in (
        (model(*names, location={"name": long, "country": "fr"}, flavors=flavors), stored),
        (model(*names), []),
    ):
        response = sync(parent, related=[workload(), *related])
        assert len(response.status["offloading"]["message"]) <= 4096
        assert all(len(one["message"]) <= 32768 for one in response.status["conditions"])
        message = condition(response, "PolicySatisfied")["message"]
        assert message.count("Policy ") == policies.MAX_TOLD
        assert message.endswith(f" {(128 if related else 64) - policies.MAX_TOLD} more are like it.")


# ------------------------------------------------------------------------------------------ what the controller does


@pytest.mark.parametrize("ready", [0, 1])
@pytest.mark.parametrize(
    "config", [{}, override(30), override(100), override(100, "Force"), {"behavior": {"percentage": 100}}]
)
def test_a_backend_that_is_not_allowed_is_in_no_route(config: Json, ready: int) -> None:
    """A remote backend that a policy forbids is in no route, whether a missing replica or an override asks for it."""
    remote = REMOTE | {"location": {"country": "us"}}
    parent = model_deployment(policies=obeys("eu"), offloadingConfig=config | {"remoteBackend": remote})
    response = sync(parent, related=[workload(ready=ready), policy()])
    assert "remote" not in backends(response)
    assert response.status["offloading"]["percentage"] == 0
    assert response.status["offloading"]["reason"] == reasons.LOCATION_NOT_ALLOWED
    assert conditions(response)["PolicySatisfied"] == ("False", reasons.LOCATION_NOT_ALLOWED)
    assert condition(response, "PolicySatisfied")["message"] == response.status["offloading"]["message"]
    allowed = sync(parent, related=[workload(ready=ready), policy(locations=[place("country", "us")])])
    assert "remote" in backends(allowed)
    assert conditions(allowed)["PolicySatisfied"] == ("True", reasons.POLICIES_SATISFIED)


def test_an_edited_policy_takes_the_remote_out_and_back() -> None:
    """An edited policy takes the remote backend out of the route or brings it back with the next sync."""
    cluster = Cluster(model("eu", location={"country": "us"}), related=[workload(ready=0)])
    assert conditions(cluster.settle())["PolicySatisfied"] == ("False", reasons.POLICY_MISSING)
    for places_, expected in (([place("country", "us")], {"remote"}), ([place("continent", "eu")], set())):
        cluster.related = [workload(ready=0), policy(locations=places_)]
        assert backends(cluster.settle()).keys() - {"local"} == expected


def test_a_missing_policy_is_a_reference_that_leads_nowhere() -> None:
    """A missing policy makes RefsResolved False; a model with ready local replicas is Ready all the same."""
    response = Cluster(model("eu", location={"country": "fr"}), related=[workload()]).settle()
    assert conditions(response)["RefsResolved"] == ("False", reasons.POLICY_MISSING)
    assert conditions(response)["Ready"] == ("True", reasons.SERVING)
    assert "Policy eu does not exist" in condition(response, "Ready")["message"]


def test_without_a_replica_a_model_that_may_go_nowhere_is_not_ready() -> None:
    """A model without a ready replica and without an allowed remote backend is not Ready."""
    response = Cluster(model("eu"), related=[workload(ready=0), policy()]).settle()
    assert conditions(response)["Ready"] == ("False", reasons.NO_BACKEND)


def test_a_specification_that_is_not_accepted_keeps_its_route() -> None:
    """The last applied route stays in force, policies included, while the specification is not accepted."""
    cluster = Cluster(model("eu", location={"country": "fr"}), related=[workload(), policy()])
    before = backends(cluster.settle())
    cluster.edit(offloadingConfig={"remoteBackend": REMOTE | {"location": {"country": "xx"}}})
    response = cluster.settle()
    assert backends(response) == before
    assert conditions(response)["Accepted"] == ("False", reasons.INVALID_LOCATION)
    assert conditions(response)["PolicySatisfied"] == ("Unknown", reasons.NOT_EVALUATED)


# ---------------------------------------------------------------------------------------- bugs of the original, by row


def test_c24_policies_gate_offloading() -> None:
    """C24: a local policy is found by name and counts before the route is written; a missing one forbids the remote."""
    manifest = {
        "refType": "localPolicy",
        "apiVersion": "authorization.beamlit.com/v1alpha1",
        "kind": "Policy",
        "namespace": NAMESPACE,
        "name": "eu",
    }
    parent = model_deployment(
        policies=[manifest], offloadingConfig={"remoteBackend": REMOTE | {"location": {"country": "us"}}}
    )
    (rule,) = [rule for rule in builders.customize(parent).related_resources if rule.resource == "policies"]
    assert rule.names == ("eu",)
    for stored in ([], [policy()]):
        response = sync(parent, related=[workload(ready=0), *stored])
        assert "remote" not in backends(response)
        assert condition(response, "PolicySatisfied")["message"].startswith("Policy eu ")
    assert "remote" in backends(sync(parent, related=[workload(), policy(locations=[place("country", "us")])]))


def test_c25_a_policy_on_flavors_needs_no_locations() -> None:
    """C25: a policy of type flavor needs no list of locations, and the remote backend no declared location."""
    for spec in ({"type": "flavor", "flavors": [T4]}, {"type": "flavor", "flavors": [T4], "locations": []}):
        assert reasons_of(model("p", flavors=[T4]), policy("p") | {"spec": spec}) == []
    assert reasons_of(model("p"), policy("p") | {"spec": {"type": "flavor"}}) == []
    assert reasons_of(model("p"), policy("p") | {"spec": {"type": "location"}}) == [reasons.INVALID_POLICY]


# ---------------------------------------------------------------------------------------------------- what always holds

COUNTRIES = st.sampled_from(["fr", "FRA", "us", "na", "jp"])
ENTRIES = st.one_of(
    st.builds(place, st.just("country"), st.one_of(COUNTRIES, st.just("uk"))),
    st.builds(place, st.just("continent"), st.sampled_from(["eu", "Europe", "na", "as", "nowhere"])),
    st.builds(place, st.just("location"), st.sampled_from(["a", "A", "fr"])),
)
FLAVORS = st.lists(st.sampled_from([T4, A100, {"type": "cpu", "name": "x86"}]), max_size=3)
POLICIES = st.fixed_dictionaries(
    {"type": st.sampled_from(["location", "flavor"])},
    optional={"locations": st.lists(ENTRIES, max_size=3), "flavors": FLAVORS},
)
LOCATIONS = st.fixed_dictionaries(
    {}, optional={"name": st.sampled_from(["a", "fr"]), "country": COUNTRIES}
) | st.fixed_dictionaries({"continent": st.sampled_from(["eu", "na"])})
REMOTES = st.fixed_dictionaries({}, optional={"location": LOCATIONS, "flavors": FLAVORS})


@given(REMOTES, st.lists(POLICIES, max_size=4), st.integers(0, 1))
def test_adding_a_policy_never_adds_a_backend(remote: Json, specs: list[Json], ready: int) -> None:
    """With each additional policy the route has the backends it had before, or fewer."""
    stored = [policy(f"p{number}") | {"spec": spec} for number, spec in enumerate(specs)]
    names = [item["metadata"]["name"] for item in stored]
    before = {"local", "remote"}
    for count in range(len(names) + 1):
        response = sync(model(*names[:count], **remote), related=[workload(ready=ready), *stored])
        present = set(backends(response))
        assert present <= before
        assert ("remote" in present) == (conditions(response)["PolicySatisfied"][0] == "True")
        before = present


@given(REMOTES, st.lists(POLICIES, min_size=1, max_size=3), st.data())
def test_allowing_another_place_forbids_nothing(remote: Json, specs: list[Json], data: st.DataObject) -> None:
    """A policy that allows a backend still allows it after a place is added to its list."""
    chosen = data.draw(st.integers(0, len(specs) - 1))
    entry = data.draw(ENTRIES)
    more = [
        spec | {"locations": [*spec["locations"], entry]} if number == chosen and spec.get("locations") else spec
        for number, spec in enumerate(specs)
    ]
    names = [f"p{number}" for number in range(len(specs))]

    def refused(variants: list[Json]) -> set[str]:
        related = [policy(name) | {"spec": spec} for name, spec in zip(names, variants, strict=True)]
        seen = builders.observation(model(*names, **remote), related=related)
        return {one.message.split()[1] for one in policies.refusals(seen.read_spec(), seen)}

    assert refused(more) <= refused(specs)


@given(LOCATIONS, st.lists(ENTRIES, min_size=1, max_size=4), st.randoms())
def test_the_order_of_places_does_not_matter(location: Json, entries: list[Json], random: Any) -> None:
    """The places of a policy may be in any order."""
    shuffled = random.sample(entries, len(entries))
    parent = model("eu", location=location)
    assert reasons_of(parent, policy(locations=entries)) == reasons_of(parent, policy(locations=shuffled))
