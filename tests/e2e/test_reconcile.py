"""hooks and the real Metacontroller on a real control plane with RBAC: coming to rest, staying at rest, and repair."""

import json
import time

import pytest

from tests.e2e import product as products
from tests.e2e.product import Product, model_deployment, set_pods_ready, workload
from tests.processes import poll


@pytest.fixture(scope="module")
def adopted(product: Product) -> str:
    """A ready ModelDeployment that adopts a Deployment."""
    product.plane.apply(workload("adopted"), model_deployment("adopted"))
    product.until("adopted", Ready="True", LocalReady="True", Synced="True")
    return "adopted"


@pytest.fixture(scope="module")
def served(product: Product) -> str:
    """A ready ModelDeployment with `spec.server`."""
    template = workload("x")["spec"]["template"]["spec"]
    server = {"replicas": 2, "port": 8000, "template": {"spec": template}}
    product.plane.apply(model_deployment("served", server=server, gateway={"serviceName": "ask-served"}))
    product.until("served", Ready="True", LocalReady="True", Synced="True")
    return "served"


def test_an_adopted_workload_is_served(product: Product, adopted: str) -> None:
    """The route of an adopted workload leads to the local Service, and kubectl's columns show it."""
    backend = {"id": "local", "port": 80, "service": "adopted-local", "weight": 100}
    assert product.route(adopted)["backends"][0] == backend
    service = product.plane.get("service", f"{adopted}-local")
    assert service["spec"]["selector"] == {"app": adopted}
    row = product.plane.kubectl("get", "md", adopted).splitlines()[1].split()
    assert row[2:5] == ["True", "0", "Local"]


def test_a_server_is_created(product: Product, served: str) -> None:
    """The Deployment of spec.server runs, and the Service to the gateway leads there by name."""
    assert product.plane.get("deployment", served)["status"]["readyReplicas"] == 2
    gateway = product.plane.get("service", "ask-served")["spec"]
    assert (gateway["type"], gateway["externalName"]) == (
        "ExternalName",
        "beamlit-gateway.beamlit-system.svc.cluster.local",
    )


@pytest.mark.own_plane
def test_rest_writes_nothing(product: Product, adopted: str, served: str) -> None:
    """Over five resyncs no resourceVersion changes, and the audit log has no write of Metacontroller."""
    before = {name: product.versions(name) for name in (adopted, served)}
    assert set(before[served]) == {
        "ModelDeployment/served", "Deployment/served", "Service/served-local", "Service/ask-served",
        "ConfigMap/served-route",
    }  # fmt: skip
    syncs, writes = product.syncs(), len(_writes(product))
    poll(lambda: product.syncs() >= syncs + 10, "five more syncs of two parents")
    assert {name: product.versions(name) for name in (adopted, served)} == before
    assert _writes(product)[writes:] == []


def _writes(product: Product) -> list[dict[str, object]]:
    user = f"system:serviceaccount:{products.SYSTEM}:{products.SYSTEM}"
    return [entry for entry in product.plane.writes() if entry["user"] == user]


@pytest.mark.own_plane
def test_rbac_suffices(product: Product, adopted: str, served: str) -> None:
    """Metacontroller is refused nothing under the project's rules."""
    log_start = len(product.metacontroller.log.read_text())
    syncs = product.syncs()
    poll(lambda: product.syncs() >= syncs + 4, "more syncs")
    assert [entry for entry in _writes(product) if entry["code"] == 403] == []
    assert "forbidden" not in product.metacontroller.log.read_text()[log_start:].lower()


def test_traffic_follows_readiness(product: Product, adopted: str) -> None:
    """When the pods lose their readiness, the route moves to the remote backend, and back when they are ready again."""
    plane = product.plane
    for ready, expected in ((False, 100), (True, 0)):
        set_pods_ready(plane, f"app={adopted}", ready)
        poll(lambda ready=ready: bool(_ready_replicas(product, adopted)) is ready, "the Deployment knows")  # type: ignore[misc]
        poll(lambda expected=expected: product.remote_weight(adopted) == expected, f"{expected} % remote")  # type: ignore[misc]
        product.until(adopted, Synced="True")


def _ready_replicas(product: Product, name: str) -> int:
    return int(product.plane.get("deployment", name)["status"].get("readyReplicas", 0))


@pytest.mark.parametrize("kind", ["service/served-local", "configmap/served-route", "deployment/served"])
def test_a_deleted_child_comes_back(product: Product, served: str, kind: str) -> None:
    """A child that a user deletes is created again."""
    plane = product.plane
    resource, name = kind.split("/")
    uid = plane.get(resource, name)["metadata"]["uid"]
    plane.kubectl("delete", resource, name)
    poll(lambda: plane.get(resource, name).get("metadata", {}).get("uid", uid) != uid, f"{kind} is back")
    product.until(served, Ready="True", Synced="True")


def test_an_edited_child_is_repaired(product: Product, served: str) -> None:
    """A desired field that a user changes is set back, and fields that a user adds stay."""
    plane = product.plane
    patch = {
        "metadata": {"annotations": {"team": "x"}},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]},
    }
    plane.kubectl("patch", "service", "served-local", "--type=merge", "-p", json.dumps(patch))
    poll(lambda: plane.get("service", "served-local")["spec"]["ports"][0]["targetPort"] == 8000, "it is repaired")
    assert plane.get("service", "served-local")["metadata"]["annotations"]["team"] == "x"
    plane.kubectl("scale", "deployment", "served", "--replicas=5")
    poll(lambda: plane.get("deployment", "served")["spec"]["replicas"] == 2, "replicas are ours where they are set")
    product.until(served, Ready="True", Synced="True")


def test_a_stripped_label_is_put_back(product: Product, served: str) -> None:
    """hooks put back the label of a route's ConfigMap, without which it would be no route."""
    plane, label = product.plane, "gateway.beamlit.com/route"
    plane.kubectl("label", "configmap", "served-route", f"{label}-")
    poll(lambda: label in plane.get("configmap", "served-route")["metadata"]["labels"], "it is back")
    product.until(served, Ready="True", Synced="True")


def test_a_child_let_go_is_named(product: Product, served: str) -> None:
    """A child without the label of Metacontroller's selector is named in a condition, and is created again once it is
    deleted."""
    plane = product.plane
    uid = plane.get("service", "served-local")["metadata"]["uid"]
    plane.kubectl("label", "service", "served-local", "controller-uid-")
    product.until(served, ChildConflict="True", Ready="False")
    held = product.parent(served)["status"]["conditions"]
    assert "Service served-local" in next(one["message"] for one in held if one["type"] == "ChildConflict")
    assert plane.get("service", "served-local")["metadata"]["uid"] == uid
    plane.kubectl("delete", "service", "served-local")
    product.until(served, Ready="True", Synced="True")


def test_a_foreign_object_of_the_same_name_is_named(product: Product) -> None:
    """An object that has a child's name is never overwritten, and a condition reports the conflict."""
    plane = product.plane
    plane.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "taken-route"}, "data": {"mine": "yes"}},
        workload("taken"),
        model_deployment("taken"),
    )
    product.until("taken", ChildConflict="True")
    assert product.conditions("taken")["Ready"][0] == "False"
    assert plane.get("configmap", "taken-route")["data"] == {"mine": "yes"}
    plane.kubectl("delete", "configmap", "taken-route")
    product.until("taken", Ready="True")
    assert "ChildConflict" not in product.conditions("taken")
    plane.kubectl("delete", "md", "taken")


def test_a_template_that_the_api_server_refuses(product: Product) -> None:
    """A pod template that the API server refuses is named in a condition, and an edit repairs it."""
    bad = {"spec": {"containers": [{"name": "Not_A_Name", "image": "x"}]}}
    plane = product.plane
    plane.apply(model_deployment("bad", server={"replicas": 1, "port": 8000, "template": bad}))
    product.until("bad", Ready="False", Synced="False")
    poll(lambda: product.conditions("bad").get("ChildConflict") or
         product.conditions("bad").get("Accepted", ("", ""))[0] == "False", "it is named")  # fmt: skip
    good = workload("x")["spec"]["template"]["spec"]
    plane.apply(model_deployment("bad", server={"replicas": 1, "port": 8000, "template": {"spec": good}}))
    product.until("bad", Ready="True")
    plane.kubectl("delete", "md", "bad")


def test_a_mistake_keeps_what_serves(product: Product, adopted: str) -> None:
    """A reference to another namespace makes Accepted False, and no child changes."""
    plane = product.plane
    before = {kind: version for kind, version in product.versions(adopted).items() if "ModelDeployment" not in kind}
    elsewhere = {"apiVersion": "apps/v1", "kind": "Deployment", "name": adopted, "namespace": "elsewhere"}
    plane.apply(model_deployment(adopted, modelSourceRef=elsewhere))
    product.until(adopted, Accepted="False")
    assert product.conditions(adopted)["Accepted"][1] == "CrossNamespaceReference"
    syncs = product.syncs()
    poll(lambda: product.syncs() > syncs + 4, "more syncs")
    after = product.versions(adopted)
    assert {kind: after[kind] for kind in before} == before
    plane.apply(model_deployment(adopted))
    product.until(adopted, Accepted="True", Ready="True", LocalReady="True", Synced="True")


def test_a_policy_is_obeyed_when_it_comes_changes_and_goes(product: Product) -> None:
    """Each event of a Policy syncs the unchanged ModelDeployment that names it, whose route has the remote backend only
    while the policy exists and allows it."""
    plane = product.plane
    backend = {"host": "models.example.com", "scheme": "https", "location": {"country": "fr"}}
    references = [{"refType": "localPolicy", "name": "where"}]
    config = {"remoteBackend": backend}
    plane.apply(workload("placed"), model_deployment("placed", policies=references, offloadingConfig=config))
    product.until("placed", Ready="True", LocalReady="True", PolicySatisfied="False")

    def settles(reason: str, *backends: str) -> None:
        poll(lambda: product.conditions("placed")["PolicySatisfied"][1] == reason, reason)
        assert [one["id"] for one in product.route("placed")["backends"]] == ["local", *backends]

    settles("PolicyMissing")
    generation = product.parent("placed")["metadata"]["generation"]
    for continent, reason, backends in (
        ("eu", "PoliciesSatisfied", ("remote",)),
        ("as", "LocationNotAllowed", ()),
        ("Europe", "PoliciesSatisfied", ("remote",)),
    ):
        spec = {"type": "location", "locations": [{"type": "continent", "name": continent}]}
        plane.apply(
            {
                "apiVersion": "authorization.beamlit.com/v1alpha1",
                "kind": "Policy",
                "metadata": {"name": "where", "namespace": "default"},
                "spec": spec,
            }
        )
        settles(reason, *backends)
    plane.kubectl("delete", "policies.authorization.beamlit.com", "where")
    settles("PolicyMissing")
    assert product.parent("placed")["metadata"]["generation"] == generation
    plane.kubectl("delete", "md,deployment", "placed")


@pytest.mark.own_plane
def test_hooks_down_changes_nothing(product: Product, adopted: str) -> None:
    """While hooks are down Metacontroller writes nothing, and afterwards syncs go on by themselves."""
    product.until(adopted, Ready="True", LocalReady="True", Synced="True")
    assert product.remote_weight(adopted) == 0
    product.hooks.stop()
    writes = len(_writes(product))
    set_pods_ready(product.plane, f"app={adopted}", False)
    time.sleep(3 * products.RESYNC_SECONDS)  # long enough for several syncs to fail
    assert _writes(product)[writes:] == []
    assert product.remote_weight(adopted) == 0
    product.hooks.start()
    poll(lambda: product.remote_weight(adopted) == 100, "it goes on")
    set_pods_ready(product.plane, f"app={adopted}", True)
    product.until(adopted, LocalReady="True", Synced="True")


@pytest.mark.own_plane
def test_metacontroller_restarted_writes_nothing(product: Product, adopted: str, served: str) -> None:
    """A restarted Metacontroller syncs everything without a write."""
    for name in (adopted, served):
        product.until(name, Ready="True", Synced="True")
    product.metacontroller.stop()
    writes, syncs = len(_writes(product)), product.syncs()
    product.metacontroller.start()
    poll(lambda: product.syncs() >= syncs + 6, "it syncs again")
    assert _writes(product)[writes:] == []


def test_children_go_with_their_parent(product: Product, served: str) -> None:
    """The children of a deleted ModelDeployment are garbage-collected without a finalizer of the project."""
    plane = product.plane
    assert not product.parent(served)["metadata"].get("finalizers")
    plane.kubectl("delete", "md", served)
    for resource, name in (("deployment", served), ("service", "served-local"), ("configmap", "served-route")):
        poll(lambda resource=resource, name=name: not plane.get(resource, name), f"{resource} {name} is gone")  # type: ignore[misc]
