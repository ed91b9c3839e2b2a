"""The model that the platform should have for a ModelDeployment, and the owner of the object that it has."""

from typing import Any

import pytest

from hooks import names
from hooks.observation.observation import Parent
from hooks.platform.ownership import MANAGED_BY, Claim, Owner, claim, desired_model, is_kept_by, policy_names
from hooks.platform.state import DesiredObject, PlatformKey
from tests import builders
from tests.builders import UID, Json, model_deployment, served, workload

KEY = PlatformKey("models", "llama", "production")
PORTS = {"servingPort": 8000, "metricPort": None}
CREATED = "2026-02-01T00:00:01.123Z"


def desired(parent: Json, *, offloading: bool = False, **rest: Any) -> DesiredObject | None:
    """Return the model that the platform should have."""
    observation = builders.observation(parent, **rest)
    return desired_model(observation.read_spec(), observation, offloading=offloading, ports=PORTS, account="us")


def body(parent: Json, **rest: Any) -> Json:
    """Return the body of that model."""
    model = desired(parent, **rest)
    assert model is not None
    return model.body


def test_disabled() -> None:
    """The platform should have no model for a disabled ModelDeployment."""
    assert desired(model_deployment(enabled=False)) is None


@pytest.mark.parametrize("config", [None, {}, {"remoteBackend": builders.REMOTE}])
@pytest.mark.parametrize("offloading", [False, True])
def test_labels_of_offloading(config: Json | None, offloading: bool) -> None:
    """The labels of offloading are sent where offloading is configured, and not elsewhere."""
    labels = body(model_deployment(offloadingConfig=config), offloading=offloading)["metadata"]["labels"]
    expected = {} if config is None else {"offloading-enabled": "true", "offloading": str(offloading).lower()}
    assert {key: value for key, value in labels.items() if key.startswith("offloading")} == expected


def test_labels_of_the_owner_cannot_be_replaced() -> None:
    """Labels of the ModelDeployment are sent, and cannot replace those that name the owner."""
    item = model_deployment()
    forged = {names.UID_LABEL: "x", names.NAMESPACE_LABEL: "x", names.NAME_LABEL: "x", "managed-by": "x", "team": "x"}
    item["metadata"]["labels"] = {**forged, "number": 1}
    labels = body(item)["metadata"]["labels"]
    assert [key for key, value in labels.items() if value == "x"] == ["team"]
    assert "number" not in labels


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_the_pod_template_is_that_of_the_workload(kind: str) -> None:
    """The pod template is that of the workload, of whatever kind; without a workload none is sent."""
    item = model_deployment(modelSourceRef={"kind": kind, "name": "demo"})
    related = workload(kind)
    assert body(item, related=[related])["spec"]["podTemplate"] == related["spec"]["template"]
    assert "podTemplate" not in body(item)["spec"]
    assert body(served())["spec"]["podTemplate"] == builders.TEMPLATE


def test_ports_that_are_known() -> None:
    """Only ports that are known are sent, and no empty object when none is."""
    observation = builders.observation(model_deployment())
    spec = observation.read_spec()
    assert body(model_deployment())["spec"]["runtime"] == {"servingPort": 8000}
    model = desired_model(spec, observation, offloading=False, ports={"servingPort": None}, account="us")
    assert model is not None
    assert "runtime" not in model.body["spec"]


def test_the_hash_follows_what_is_sent() -> None:
    """The hash changes with everything that is sent, and with nothing else."""
    item = model_deployment(policies=[{"name": "a"}])
    hashes = {getattr(desired(item), "hash", "")}
    same = model_deployment(policies=[{"name": "a"}], offloadingConfig={"remoteBackend": {"host": "elsewhere"}})
    assert getattr(desired(same), "hash", "") in hashes
    for other in (
        model_deployment(model="other", policies=[{"name": "a"}]),
        model_deployment(environment="development", policies=[{"name": "a"}]),
        model_deployment(policies=[{"name": "b"}]),
        model_deployment(policies=[{"name": "a"}], serverlessConfig={}),
    ):
        fresh = getattr(desired(other), "hash", "")
        assert fresh not in hashes
        hashes.add(fresh)
    assert getattr(desired(item, offloading=True), "hash", "") not in hashes
    assert getattr(desired(item, related=[workload()]), "hash", "") not in hashes


def test_c24_local_policies_have_their_names() -> None:
    """C24: the original sent empty names for local policies; here each has its own name, once, in order."""
    item = model_deployment(policies=[{"name": "theirs"}, *builders.obeys("eu", "gpu", "eu"), {"name": ""}])
    assert policy_names(builders.observation(item).read_spec()) == ["theirs", "eu", "gpu"]


def test_c23_no_secret_of_the_remote_backend_is_sent() -> None:
    """C23: nothing of offloadingConfig is sent to the platform."""
    oauth = {"clientId": "canary", "clientSecret": "canary", "tokenUrl": "https://canary"}
    remote = builders.REMOTE | {
        "authConfig": {"type": "oauth", "oauthConfig": oauth},
        "headersToAdd": {"x-key": "canary"},
        "headers": [{"name": "x-other", "value": "canary"}],
    }
    assert "canary" not in repr(body(model_deployment(offloadingConfig={"remoteBackend": remote})))


# Claims and owners.


def platform_model(uid: str = "", *, managed: bool = False, created: str = CREATED) -> Json:
    """Return a model as the platform responds with it."""
    labels = {names.UID_LABEL: uid, names.NAMESPACE_LABEL: "n", names.NAME_LABEL: "m"} if uid else {}
    labels |= {MANAGED_BY[0]: MANAGED_BY[1]} if managed or uid else {}
    return {"metadata": {"name": "llama", "labels": labels, "createdAt": created}, "spec": {"enabled": True}}


@pytest.mark.parametrize(
    ("existing", "known", "expected"),
    [
        (platform_model(UID), "", Claim.OURS),
        (platform_model("another"), "", Owner("n", "m", "another")),
        (platform_model("another"), CREATED, Owner("n", "m", "another")),
        (platform_model(), "2026-02-01T00:00:01Z", Claim.OURS),
        (platform_model(), "2026-02-01T01:00:01+01:00", Claim.OURS),
        (platform_model(), "2026-02-01T00:00:02Z", Claim.FOREIGN),
        (platform_model(created=""), "", Claim.FOREIGN),
        (platform_model(managed=True), "", Claim.FREE),
        (platform_model(managed=True), "2026-02-01T00:00:02Z", Claim.FREE),
        ({}, "", Claim.FOREIGN),
        ({"metadata": {"labels": [], "createdAt": 1}}, "", Claim.FOREIGN),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_claims_of_a_model(existing: Json, known: str, expected: Claim | Owner, lost: bool) -> None:
    """The claim to a model is the one that the table of the module names."""
    parent = Parent.of(model_deployment(status={"createdAtOnBeamlit": known}))
    assert claim(existing, parent, lost=lost, desired=desired(model_deployment())) == expected


T4 = [{"type": "gpu", "name": "t4"}]


@pytest.mark.parametrize(
    ("spec", "lost", "expected"),
    [
        ({"type": "flavor", "flavors": T4}, False, Claim.SAME),
        ({"type": "flavor", "flavors": T4}, True, Claim.OURS),
        ({"type": "flavor", "flavors": T4, "locations": None, "more": 1}, False, Claim.SAME),
        ({"type": "flavor", "flavors": []}, True, Claim.FOREIGN),
        ({"type": "location", "flavors": T4}, True, Claim.FOREIGN),
        ({}, True, Claim.FOREIGN),
    ],
)
def test_claims_of_a_policy(spec: Json, lost: bool, expected: Claim) -> None:
    """An equal policy counts as shared, and as made by hooks where the response to their request was lost."""
    ours = {"metadata": {"name": "eu"}, "spec": {"type": "flavor", "locations": [], "flavors": T4}}
    existing = {"metadata": {"name": "eu", "createdAt": CREATED}, "spec": spec}
    parent = Parent.of(builders.policy())
    assert (
        claim(existing, parent, lost=lost, desired=DesiredObject.of(PlatformKey("policies", "eu"), ours, "us"))
        is expected
    )
    assert claim(existing, parent, lost=lost, desired=None) is Claim.FOREIGN


OWNER = Owner("team-a", "demo", UID)


def aged(created: str = "2026-03-01T10:00:00Z", **spec: Any) -> Json:
    """Return the owner of KEY, created at this time and with this specification."""
    item = model_deployment(**spec)
    item["metadata"]["creationTimestamp"] = created
    return item


OURS = aged("2026-03-01T11:00:00Z")
OURS["metadata"] |= {"namespace": "team-b", "uid": "another"}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (aged(), True),
        (aged("2026-03-01T11:00:00Z"), True),
        (aged("2026-03-01T11:00:01Z"), False),
        (aged("no time"), False),
        (aged(enabled=False), False),
        (aged(enabled=True), True),
        (aged(model="other"), False),
        (aged(environment="development"), False),
        (aged(environment="production"), True),
        (None, False),
        ({}, False),
    ],
)
def test_an_owner_keeps_its_object(item: Json | None, expected: bool) -> None:
    """An owner keeps an object while it exists, specifies it and is older, or as old and the first by name."""
    assert is_kept_by(OWNER, item, OURS, KEY) is expected


def test_an_owner_that_was_created_again() -> None:
    """An owner that was deleted and created again is another owner."""
    assert not is_kept_by(Owner("team-a", "demo", "before"), aged(), OURS, KEY)
