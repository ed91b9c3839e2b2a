"""Rights of each program: exactly those that it uses, and only where it uses them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import kind, rules, template
from tests.contract.metric_requests import MetricRequests
from tools.repository import ROOT

ALLOWED = ("--set=allowedNamespaces={a,b}", "--set=config.namespaces=a\\,b")
WRITES = {
    ("apps", "deployments", "create"),
    ("apps", "deployments", "update"),
    ("apps", "deployments", "delete"),
    *(("", resource, verb) for resource in ("services", "configmaps") for verb in ("create", "update", "delete")),
    ("deployment.beamlit.com", "modeldeployments", "update"),
    ("deployment.beamlit.com", "modeldeployments/status", "update"),
    ("deployment.beamlit.com", "modeldeployments/finalizers", "update"),
    ("authorization.beamlit.com", "policies", "update"),
    ("authorization.beamlit.com", "policies/status", "update"),
    ("", "events", "create"),
    ("", "events", "patch"),
}
READS = {
    (group, resource, verb)
    for group, resource, verbs in (
        ("metacontroller.k8s.io", "compositecontrollers", "list watch"),
        ("metacontroller.k8s.io", "decoratorcontrollers", "list watch"),
        ("metacontroller.k8s.io", "controllerrevisions", "list watch"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "list watch"),
        ("", "namespaces", "list watch"),
        ("deployment.beamlit.com", "modeldeployments", "get list watch"),
        ("apps", "deployments", "get list watch"),
        ("", "services", "get list watch"),
        ("", "configmaps", "get list watch"),
        ("apps", "statefulsets", "list watch"),
        ("apps", "daemonsets", "list watch"),
        ("apps", "replicasets", "list watch"),
        ("authorization.beamlit.com", "policies", "get list watch"),
    )
    for verb in verbs.split()
}
PAGES = ("--set=config.metricInformer.type=pods",)
PROMETHEUS = ("--set=config.metricInformer.type=prometheus", "--set=config.metricInformer.prometheus.address=p:9090")
EVENTS = {("", "events", "create"), ("", "events", "patch")}


def roles(objects: list[dict[str, Any]], suffix: str) -> dict[str | None, set[tuple[str, str, str]]]:
    """Return the rules of every role whose name ends with the suffix, by namespace; that of a ClusterRole is None."""
    return {
        one["metadata"].get("namespace"): rules(one)
        for one in objects
        if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"].endswith(suffix)
    }


def test_metacontroller(chart: Path) -> None:
    """Without allowedNamespaces one ClusterRole has exactly the rights that Metacontroller uses."""
    assert roles(template(chart), "-metacontroller") == {None: READS | WRITES}


def test_the_manifest_of_the_repository_says_the_same(chart: Path) -> None:
    """metacontroller/rbac.yaml, for installations without helm, has the rules of the chart."""
    manifest = list(yaml.safe_load_all((ROOT / "metacontroller/rbac.yaml").read_text()))
    assert rules(kind(manifest, "ClusterRole")) == rules(kind(template(chart), "ClusterRole", "-metacontroller"))


def test_what_it_watches_is_what_the_composite_controllers_name(chart: Path) -> None:
    """Metacontroller may list and watch all parents and children, without which no object is ever synced."""
    objects = template(chart)
    granted = rules(kind(objects, "ClusterRole", "-metacontroller"))
    specs = [one["spec"] for one in objects if one["kind"] == "CompositeController"]
    assert len(specs) == 2
    for spec in specs:
        parent, children = spec["parentResource"], spec.get("childResources", ())
        group = parent["apiVersion"].rpartition("/")[0]
        for subresource in ("", "/status"):
            assert (group, f"{parent['resource']}{subresource}", "update") in granted
        for resource in (parent, *children):
            group = resource["apiVersion"].rpartition("/")[0]
            for verb in ("get", "list", "watch"):
                assert (group, resource["resource"], verb) in granted
        for child in children:
            group = child["apiVersion"].rpartition("/")[0]
            for verb in ("create", "update", "delete"):
                assert (group, child["resource"], verb) in granted


def test_no_account_may_do_everything(chart: Path) -> None:
    """No rule has a wildcard except for names of metrics, no account may list Secrets, and the gateway gets single ones
    where it serves."""
    objects = template(chart)
    every = set().union(*(rules(one) for one in objects if one["kind"] in ("Role", "ClusterRole")))
    assert {rule for rule in every if any("*" in part for part in rule)} == {
        ("custom.metrics.k8s.io", "*", "get"),
        ("external.metrics.k8s.io", "*", "list"),
    }
    assert {rule for rule in every if rule[1] == "secrets"} == {("", "secrets", "get")}
    bound = {
        (one["roleRef"]["kind"], one["metadata"].get("namespace"), subject["namespace"], subject["name"])
        for one in objects
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in one["subjects"]
    }
    assert bound == {
        ("ClusterRole", None, "sys", "beamlit-metacontroller"),
        ("Role", "default", "sys", "beamlit-beamlit-controller-gateway"),
        ("Role", "default", "sys", "beamlit-beamlit-controller-hooks"),
    }


def test_every_binding_is_of_a_role_that_is_there(chart: Path) -> None:
    """Each binding refers to a role of its own namespace, and each role has a binding."""
    for words in (
        (),
        ALLOWED,
        ("--set=config.namespaces=",),
        PROMETHEUS,
        ("--set=metacontroller.commandArgs={--leader-election}",),
    ):
        objects = template(chart, *words)
        made = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects
                if one["kind"] in ("Role", "ClusterRole")}  # fmt: skip
        bound = {(one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]) for one in objects
                 if one["kind"] in ("RoleBinding", "ClusterRoleBinding")}  # fmt: skip
        assert made == bound


def test_writes_stay_in_the_allowed_namespaces(chart: Path) -> None:
    """With allowedNamespaces every write is in a Role there, and elsewhere only events of the CompositeController may
    be written."""
    assert roles(template(chart, *ALLOWED), "-metacontroller") == {
        None: READS,
        "a": WRITES,
        "b": WRITES,
        "default": EVENTS,
    }
    words = ("--set=allowedNamespaces={default}",)
    assert roles(template(chart, *words), "-metacontroller") == {None: READS, "default": WRITES}


@pytest.mark.parametrize(
    "flags", ["{--apply-strategy=server-side-apply}", "{--workers=5,--apply-strategy,server-side-apply}"]
)
def test_server_side_apply_patches(chart: Path, flags: str) -> None:
    """Metacontroller may patch children only with --apply-strategy=server-side-apply."""
    granted = roles(template(chart, f"--set=metacontroller.commandArgs={flags}"), "-metacontroller")[None]
    patched = {("apps", "deployments", "patch"), ("", "services", "patch"), ("", "configmaps", "patch")}
    assert granted - (READS | WRITES) == patched


def test_replicas_of_metacontroller_elect_a_leader(chart: Path) -> None:
    """With --leader-election Metacontroller may keep its lease in its own namespace."""
    assert not roles(template(chart), "-metacontroller-leader")
    words = ("--set=metacontroller.commandArgs={--leader-election}", "--set=metacontroller.namespaceOverride=mc")
    leases = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    assert roles(template(chart, *words), "-metacontroller-leader") == {"mc": leases | EVENTS}
    assert not roles(template(chart, "--set=metacontroller.commandArgs={--leader-election=false}"), "-leader")


def test_the_bearer_has_its_price(chart: Path) -> None:
    """Metacontroller may list Secrets only with the bearer token switched on."""
    granted = roles(template(chart, "--set=hooks.auth.bearer.enabled=true"), "-metacontroller")[None]
    assert granted - (READS | WRITES) == {("", "secrets", "list"), ("", "secrets", "watch")}


def test_a_metacontroller_that_is_there(chart: Path) -> None:
    """The rules are bound to the ServiceAccount of an existing Metacontroller, or to none where it has its rights
    already."""
    words = ("--set=metacontroller.enabled=false", "--set=existingMetacontroller.namespace=mc",
             "--set=existingMetacontroller.serviceAccount=boss")  # fmt: skip
    (subject,) = kind(template(chart, *words), "ClusterRoleBinding", "-metacontroller")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "boss", "namespace": "mc"}
    none = template(chart, "--set=metacontroller.enabled=false", "--set=existingMetacontroller.serviceAccount=")
    assert not roles(none, "-metacontroller")


ROUTES = {
    ("", "configmaps", "list"),
    ("", "configmaps", "watch"),
    ("", "secrets", "get"),
    ("deployment.beamlit.com", "modeldeployments", "get"),
}
SLICES = {("discovery.k8s.io", "endpointslices", "list"), ("discovery.k8s.io", "endpointslices", "watch")}
GATEWAY = ROUTES | SLICES


PODS = {("", "pods", "list")}
HOOKS = PODS | {
    ("metrics.k8s.io", "pods", "list"),
    ("custom.metrics.k8s.io", "*", "get"),
    ("external.metrics.k8s.io", "*", "list"),
}
"""Rights of hooks where metrics come from Kubernetes. The aggregated APIs see a metric of an object as a subresource
(`pods/requests`), which needs get, and an external one as a resource, which needs list.
https://github.com/kubernetes/metrics/blob/master/IMPLEMENTATIONS.md"""


@pytest.mark.parametrize(
    ("namespaces", "places"), [("default", {"default"}), ("a\\,b", {"a", "b"}), ("{c}", {"c"}), ("", {None})]
)
def test_hooks_and_the_gateway_read_where_they_serve(chart: Path, namespaces: str, places: set[str | None]) -> None:
    """hooks and the gateway have rights to read in the namespaces they serve, or everywhere when they serve all, and
    none to write."""
    objects = template(chart, f"--set=config.namespaces={namespaces}")
    assert roles(objects, "-gateway") == dict.fromkeys(places, GATEWAY)
    assert roles(objects, "-hooks") == dict.fromkeys(places, HOOKS)


def test_c34_hooks_may_read_what_it_reads_and_nothing_else(chart: Path) -> None:
    """hooks may read pods, and metrics of every type unless Prometheus has them, while Metacontroller reads workloads
    of every kind. The original could read no metrics and no workloads but Deployments."""
    for words in ((), ("--set=config.metricInformer=null",)):
        assert roles(template(chart, *words), "-hooks") == {"default": HOOKS}
    assert roles(template(chart, *PROMETHEUS), "-hooks") == {"default": PODS}
    assert {verb for _, _, verb in HOOKS} == {"get", "list"}
    watched = roles(template(chart), "-metacontroller")[None]
    for kind_ in ("deployments", "statefulsets", "daemonsets", "replicasets"):
        assert {("apps", kind_, "list"), ("apps", kind_, "watch")} <= watched


def question(path: str) -> tuple[str, str, str] | None:
    """Return group, resource with its subresource, and verb by which the API server authorizes a GET; None for
    discovery.

    The path is split as in apiserver's RequestInfoFactory: after the namespace come resource, name and subresource.
    """
    where, _, query = path.partition("?")
    _, prefix, *parts = where.split("/")
    group = "" if prefix == "api" else parts.pop(0)
    parts = parts[1:]  # without the version
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    if not parts:
        return None
    verb = "get" if len(parts) > 1 else "watch" if "watch=" in query else "list"
    return group, "/".join((parts[0], *parts[2:3])), verb


def allows(rule: tuple[str, str, str], call: tuple[str, str, str]) -> bool:
    """Return whether RBAC allows the call: a resource does not stand for its subresources, and `*` stands for both."""
    return (rule[0], rule[2]) == (call[0], call[2]) and rule[1] in ("*", call[1])


def test_c34_the_rights_of_hooks_are_those_of_its_calls(chart: Path, tmp_path: Path) -> None:
    """Every call that the sources make for any kind of metric is allowed, and every rule is needed for one."""
    named = {"name": "requests"}
    described = {"describedObject": {"kind": "Service", "name": "demo"}, "metric": named}
    itself = {"describedObject": {"kind": "Namespace", "name": "team-a"}, "metric": named}
    average, value = {"type": "AverageValue", "averageValue": 1}, {"type": "Value", "value": 1}
    metrics: list[dict[str, Any]] = [
        {"type": "Resource", "resource": {"name": "cpu", "target": average}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "a", "target": average}},
        {"type": "Pods", "pods": {"metric": named, "target": average}},
        {"type": "Object", "object": described | {"target": value}},
        {"type": "Object", "object": itself | {"target": value}},
        {"type": "External", "external": {"metric": named, "target": value}},
    ]
    with MetricRequests.running(tmp_path) as metric_requests:
        for type_, words in (("kubernetes", ()), ("prometheus", PROMETHEUS), ("pods", PAGES)):
            granted = roles(template(chart, *words), "-hooks")["default"]
            source = {"metricSource": {"type": "pods", "port": "metrics"}} if type_ == "pods" else {}
            asked = [
                path
                for path in metric_requests.of(type_, {"metrics": metrics, **source})
                if not path.startswith(("/api/v1/query", "/metrics"))
            ]
            calls = {call for call in map(question, asked) if call is not None}
            pairs = {(call, rule) for call in calls for rule in granted if allows(rule, call)}
            assert ({call for call, _ in pairs}, {rule for _, rule in pairs}) == (calls, granted)
            assert len(calls) == {"kubernetes": 6, "prometheus": 1, "pods": 5}[type_], calls


def test_hooks_outside_the_cluster_have_no_account(chart: Path) -> None:
    """For hooks outside the cluster there is no ServiceAccount and no role, and the gateway keeps its own."""
    objects = template(chart, "--set=hooks.url=http://192.0.2.1:8082")
    assert not roles(objects, "-hooks")
    assert roles(objects, "-gateway") == {"default": GATEWAY}


def test_endpoint_slices_are_read_only_where_pods_are_asked_for(chart: Path) -> None:
    """The gateway may read EndpointSlices unless it sends requests to the names of Services."""
    for value, expected in (("service", ROUTES), ("pods", GATEWAY)):
        objects = template(chart, f"--set=config.gateway.endpoints={value}")
        assert roles(objects, "-gateway") == {"default": expected}


def test_without_the_gateway_hooks_still_read(chart: Path) -> None:
    """Without the chart's gateway hooks have the same rights."""
    objects = template(chart, "--set=installBeamlitGateway=false")
    assert roles(objects, "-hooks") == {"default": HOOKS}
    assert not roles(objects, "-gateway")


def test_accounts_by_other_names(chart: Path) -> None:
    """An existing ServiceAccount gets the rights, and the chart creates none."""
    for component, other in (("hooks", "gateway"), ("gateway", "hooks")):
        words = (f"--set={component}.serviceAccount.create=false", f"--set={component}.serviceAccount.name=mine",
                 f"--set={other}.serviceAccount.annotations.role=cloud")  # fmt: skip
        objects = template(chart, *words)
        (subject,) = kind(objects, "RoleBinding", f"-{component}")["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "mine", "namespace": "sys"}
        pod = kind(objects, "Deployment", f"-{component}")["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "mine"
        assert not [one for one in objects if one["kind"] == "ServiceAccount" and one["metadata"]["name"] == "mine"]
        assert kind(objects, "ServiceAccount", f"-{other}")["metadata"]["annotations"] == {"role": "cloud"}


def test_users(chart: Path) -> None:
    """On request the cluster's own roles get ModelDeployments, but not by default, as a client secret may be in one."""
    assert not roles(template(chart), "-view")
    objects = template(chart, "--set=userRoles.aggregate=true")
    for role, verbs in (("view", {"get", "list", "watch"}), ("edit", {"create", "update", "patch", "delete",
                        "deletecollection"})):  # fmt: skip
        one = kind(objects, "ClusterRole", f"-{role}")
        assert one["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
        assert {verb for _, resource, verb in rules(one) if resource == "modeldeployments"} == verbs
    assert {resource for _, resource, _ in rules(kind(objects, "ClusterRole", "-admin"))} == {"policies"}
