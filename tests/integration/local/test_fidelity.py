"""Details in which the stand-in does what the real Metacontroller and API server do."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from metacontroller.local import errors
from metacontroller.local.apiserver import schema, selectors
from metacontroller.local.apiserver.objects import BUILT_IN, Key, Kind
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.apiserver.store import Store
from metacontroller.local.controller import children, dynamic_apply, gojson, responses, webhook
from metacontroller.local.controller.composite_controller import CompositeController

Json = dict[str, Any]

STATUS = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "ratio": {"type": "number"}, "kept": {"nullable": True}},
}
WIDGET = Kind(
    "example.com", "v1", "Widget", "widgets", status=True, generation=True,
    schema={"type": "object", "properties": {"spec": {"type": "object"}, "status": STATUS}},
)  # fmt: skip
LABELS = {"app": "one"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """Yield an API server with widgets."""
    store = Store(tmp_path / "state", lambda _: None)
    yield ApiServer(store, (*BUILT_IN, WIDGET))
    store.close()


def config_map(name: str = "one", **metadata: Any) -> Json:
    """Return a ConfigMap."""
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", **metadata}}
    return {**head, "data": {"key": "value"}}


def workload(kind: str = "Deployment", container: Json | None = None, **pod: Any) -> Json:
    """Return a workload with one container."""
    first = {"name": "server", "image": "example.com/server:1", **(container or {})}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [first], **pod}}
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "one", "namespace": "default"},
        "spec": {"selector": {"matchLabels": LABELS}, "template": template},
    }  # fmt: skip


def service(**spec: Any) -> Json:
    """Return a Service."""
    head = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one", "namespace": "default"}}
    return {**head, "spec": {"ports": [{"port": 80}], **spec}}


def pod(item: Json) -> Json:
    """Return the pod specification of a workload."""
    found: Json = item["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": None}, '{"a":null,"b":1}'),
        ("<a&b> \u2028é\x7f", '"\\u003ca\\u0026b\\u003e \\u2028é\x7f"'),
        ([1.0, 0.5, 123456.75, -2.0], "[1,0.5,123456.75,-2]"),
        ([1e21, 1.5e-7, 1e-6, 1e20], "[1e+21,1.5e-7,0.000001,100000000000000000000]"),
        ([True, False], "[true,false]"),
        (9007199254740993, "9007199254740993"),
    ],
)
def test_json_is_what_go_writes(value: Any, text: str) -> None:
    """JSON is encoded as Go encodes it, because the text of the annotation decides whether a child is written."""
    assert gojson.encode(value) == text


def test_request_keeps_the_order_of_its_outermost_keys() -> None:
    """The outermost keys of a request, which are fields of a Go type, keep their order, and all others are sorted."""
    request = {"controller": {"b": 1, "a": 2}, "parent": {}, "children": {}}
    assert webhook.encode(request) == b'{"controller":{"a":2,"b":1},"parent":{},"children":{}}'


def test_a_date_in_retry_after_is_rounded_up() -> None:
    """A date in Retry-After is rounded up to whole seconds from now."""
    now = datetime(2026, 1, 1, 12, 0, 0, 400_000, tzinfo=UTC)
    assert webhook.retry_after("Thu, 01 Jan 2026 12:00:02 GMT", now) == 2.0


@pytest.mark.parametrize(
    ("observed", "applied", "desired", "merged"),
    [
        ({"a": "1", "b": "2"}, {"a": "1"}, "text", {"b": "2"}),
        ({"a": "1"}, "text", {"b": "2"}, {"a": "1", "b": "2"}),
        ([{"port": 80}, {"port": 81}], [{"port": 80}], {"http": 80}, [{"port": 81}]),
        ([{"port": 80}], [], [{"port": 80.0, "name": "a"}], [{"port": 80.0, "name": "a"}]),
        ("text", "text", {"a": "1"}, {"a": "1"}),
        ([{"name": "a", "n": 1}, {"name": "a", "n": 2}], [], [{"name": "a"}], [{"name": "a", "n": 2}] * 2),
    ],
)
def test_a_value_of_another_type_counts_as_none(observed: Any, applied: Any, desired: Any, merged: Any) -> None:
    """A value of another type than the observed map or list counts as none in a merge, without an error."""
    assert dynamic_apply.merge(observed, applied, desired) == merged


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "1"])
def test_a_damaged_annotation_ends_all_updates(text: str) -> None:
    """A last-applied annotation that is damaged is an error until a person removes it."""
    observed = config_map(annotations={dynamic_apply.LAST_APPLIED: text})
    with pytest.raises(errors.Invalid, match="remove it"):
        dynamic_apply.updated(observed, config_map())


@pytest.mark.parametrize("text", ["", "null"])
def test_an_empty_annotation_means_that_nothing_was_applied(text: str) -> None:
    """An empty last-applied annotation means that nothing was applied before."""
    assert dynamic_apply.last_applied(config_map(annotations={dynamic_apply.LAST_APPLIED: text})) == {}


def test_an_echoed_annotation_is_not_applied() -> None:
    """The last-applied annotation that a hook sends back is not part of what was applied."""
    observed = dynamic_apply.remembering(config_map())
    applied = dynamic_apply.last_applied(dynamic_apply.updated(observed, observed))
    assert dynamic_apply.LAST_APPLIED not in applied["metadata"].get("annotations", {})


@pytest.mark.parametrize(
    "body",
    [
        b'{"resyncAfterSeconds": 1e999}',
        b'{"status": {"ratio": -1e999}}',
        b'\xef\xbb\xbf{"children": []}',
    ],
)
def test_what_go_cannot_decode_is_refused(body: bytes) -> None:
    """A response with a number out of range or with a byte order mark, which Go does not decode, is refused."""
    with pytest.raises(errors.HookError, match="no valid JSON"):
        responses.decode_sync(body, strict=True)


def test_text_that_is_no_unicode_is_replaced() -> None:
    """In a response, bytes that are no UTF-8 and half a surrogate pair become U+FFFD."""
    body = b'{"status": {"bytes": "\xff", "half": "\\ud800", "whole": "\\ud83d\\ude00", "large": 9223372036854775808}}'
    status = responses.decode_sync(body, strict=True).status
    assert status == {"bytes": "\ufffd", "half": "\ufffd", "whole": "😀", "large": 9223372036854775808.0}
    assert isinstance(status["large"], float)


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"a b": "c"}},
        {"matchLabels": {"a": "b c"}},
        {"matchExpressions": [{"key": "a", "operator": "Is"}]},
        {"matchExpressions": [{"key": "a", "operator": "In"}]},
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
    ],
)
def test_a_selector_that_cannot_be_used_is_refused(selector: Json) -> None:
    """A selector with invalid labels, operators or values is refused before it selects anything."""
    with pytest.raises(errors.SyncError):
        selectors.check(selector)


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"a": 1}},
        {"matchLabels": []},
        {"matchExpressions": {}},
        {"matchExpressions": ["x"]},
        {"matchExpressions": [{"key": 1}]},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]},
        {"same": True},
    ],
)
def test_a_selector_of_wrong_types_is_refused(selector: Json) -> None:
    """A selector with values of a wrong type or with an unknown key is refused."""
    rule = {"apiVersion": "v1", "resource": "secrets", "namespaceSelector": selector}
    with pytest.raises(errors.HookError):
        responses.decode_customize(json.dumps({"relatedResources": [rule]}).encode(), strict=True)


def test_nulls_are_absent_and_whole_numbers_whole(api: ApiServer) -> None:
    """In custom resources a null counts as absent unless its field is nullable, and 1.0 comes back as 1."""
    head = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one", "namespace": "default"}}
    made = api.create(head)
    made["status"] = {"word": None, "ratio": 1.0, "kept": None}
    status = api.update_status(made)["status"]
    assert status == {"ratio": 1, "kept": None}
    assert isinstance(status["ratio"], int)


def test_metadata_of_a_new_object(api: ApiServer) -> None:
    """A new object with a resourceVersion is refused; of others uid and selfLink are dropped and generation is kept."""
    with pytest.raises(errors.Invalid, match="resourceVersion"):
        api.create(config_map(resourceVersion="1"))
    metadata = api.create(config_map(generation=7, selfLink="/x", uid="x"))["metadata"]
    assert metadata["generation"] == 7
    assert metadata["uid"] != "x"
    assert "selfLink" not in metadata


def test_an_owner_in_another_namespace_does_not_count(api: ApiServer) -> None:
    """An object whose owner is in another namespace is deleted at once."""
    owner = api.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    api.create({**config_map(ownerReferences=[reference]), "metadata": {
        "name": "one", "namespace": "elsewhere", "ownerReferences": [reference]}})  # fmt: skip
    assert [key.name for key in api.all_keys()] == ["owner"]
    api.create(config_map("owned", ownerReferences=[reference]))
    assert [key.name for key in api.all_keys()] == ["owned", "owner"]


def test_a_limit_is_no_request(api: ApiServer) -> None:
    """A limit in the template of a workload does not become a request, as it would in a pod."""
    made = api.create(workload(container={"resources": {"limits": {"cpu": "1000m"}}}))
    assert pod(made)["containers"][0]["resources"] == {"limits": {"cpu": "1"}}


def test_defaults_below_a_pod(api: ApiServer) -> None:
    """Lifecycle hooks, probes and volumes of a pod template get their defaults."""
    field = {"fieldPath": "metadata.name"}
    made = pod(api.create(workload(
        container={"lifecycle": {"preStop": {"httpGet": {"port": 80}}}, "startupProbe": {"grpc": {"port": 80}}},
        volumes=[
            {"name": "a", "downwardAPI": {"items": [{"path": "n", "fieldRef": field}]}},
            {"name": "b", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": field}]}},
            ]}},
        ],
    )))  # fmt: skip
    container, (down, projected) = made["containers"][0], made["volumes"]
    assert container["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert container["startupProbe"]["grpc"] == {"port": 80, "service": ""}
    assert down["downwardAPI"]["defaultMode"] == 420
    assert down["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] == "v1"
    token, items = projected["projected"]["sources"]
    assert token["serviceAccountToken"]["expirationSeconds"] == 3600
    assert items["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] == "v1"


def test_templates_of_a_daemon_set_are_counted(api: ApiServer) -> None:
    """The templates of a DaemonSet are counted from 1 in an annotation, which changes only with the template."""
    made = api.create(workload("DaemonSet"))
    counts = [made["metadata"]["annotations"]]
    made["metadata"]["labels"] = {"a": "b"}
    made = api.update(made)
    counts.append(made["metadata"]["annotations"])
    pod(made)["containers"][0]["image"] = "example.com/server:2"
    counts.append(api.update(made)["metadata"]["annotations"])
    assert [list(each.values()) for each in counts] == [["1"], ["1"], ["2"]]


def test_session_affinity_has_a_timeout(api: ApiServer) -> None:
    """A Service has the default timeout of session affinity as long as its affinity is ClientIP."""
    made = api.create(service(sessionAffinity="ClientIP"))
    assert made["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    del made["spec"]["sessionAffinity"]
    assert "sessionAffinityConfig" not in api.update(made)["spec"]


def test_top_level_fields_that_a_kind_does_not_have(api: ApiServer) -> None:
    """A top-level field that a kind does not have is dropped."""
    assert "unknown" not in api.create({**config_map(), "unknown": 1})


@pytest.mark.parametrize(
    "item",
    [
        config_map() | {"data": {"a/b": "x"}},
        config_map() | {"data": {"..": "x"}},
        workload(container={"name": "Not_A_Name"}),
        workload(container={"ports": [{"containerPort": 80, "name": "UPPER"}]}),
        workload(container={"ports": [{"containerPort": 80, "name": "longer-than-fifteen"}]}),
        workload(container={"ports": [{"containerPort": 80, "name": "80"}]}),
        service(ports=[{"name": "a", "port": 80}, {"name": "b", "port": 80}]),
        service(ports=[{"name": "a", "port": 80}, {"name": "a", "port": 81}]),
    ],
)
def test_names_inside_an_object(api: ApiServer, item: Json) -> None:
    """An object with an invalid or repeated name of a data key, container or port is refused."""
    with pytest.raises(errors.Invalid):
        api.create(item)


def test_a_service_may_begin_with_a_digit(api: ApiServer) -> None:
    """The name of a Service may begin with a digit."""
    item = service()
    item["metadata"]["name"] = "1st"
    assert api.create(item)["metadata"]["name"] == "1st"


class Manager:
    """Stand-in's management of the children of one widget."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        hooks = {"sync": {"webhook": {"url": "http://hooks.invalid/sync"}}}
        rule = {"apiVersion": "v1", "resource": "configmaps", "updateStrategy": {"method": "InPlace"}}
        parent = {"apiVersion": "example.com/v1", "resource": "widgets"}
        spec = {"generateSelector": True, "parentResource": parent, "childResources": [rule], "hooks": hooks}
        manifest = {"metadata": {"name": "widget"}, "spec": spec}
        self.registration = CompositeController.from_manifest(manifest, api, None)
        self.children = children.Children(api, self.registration, lambda _: None)
        head = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one", "namespace": "default"}}
        head["metadata"]["finalizers"] = ["example.com/wait"]  # type: ignore[index]
        self.parent = api.create(head)
        self.selector = {"matchLabels": {"controller-uid": self.parent["metadata"]["uid"]}}

    def make(self, *items: Json) -> None:
        """Apply these children."""
        desired = self.children.desired(self.parent, self.selector, items)
        assert self.children.manage(self.parent, [], desired) == []


@pytest.mark.parametrize("labels", [None, [], "x", {"a": 1}, {"a": None}])
def test_labels_that_are_no_map_of_strings(api: ApiServer, labels: Any) -> None:
    """A child whose labels are no map of strings, or null, fails the sync before anything is applied."""
    manager = Manager(api)
    child = {**config_map(), "metadata": {"name": "one", "labels": labels}}
    with pytest.raises(errors.SyncError, match="no map of strings"):
        manager.children.desired(manager.parent, manager.selector, [child])


def test_a_deleting_parent_releases_nothing(api: ApiServer) -> None:
    """A child that no longer matches the selector keeps its owner while that owner is being deleted."""
    manager = Manager(api)
    key = Key("configmaps", "default", "one")
    manager.make(config_map())
    api.delete(Key("widgets.example.com", "default", "one"))
    going = api.find(Key("widgets.example.com", "default", "one"))
    child = api.find(key)
    assert going is not None
    assert child is not None
    child["metadata"]["labels"] = {}
    api.update(child)
    assert manager.children.claim(going, manager.selector) == []
    assert (api.find(key) or {})["metadata"]["ownerReferences"]
    assert manager.children.claim(manager.parent, manager.selector) == []
    assert "ownerReferences" not in (api.find(key) or {})["metadata"]


def test_the_controller_is_sent_as_its_go_type_prints_it(api: ApiServer) -> None:
    """The controller in a request has an empty status, and empty statusChecks in every update strategy."""
    manifest = Manager(api).registration.manifest
    assert manifest["status"] == {}
    assert manifest["spec"]["childResources"][0]["updateStrategy"] == {"method": "InPlace", "statusChecks": {}}


def test_a_pattern_is_described_in_its_message() -> None:
    """The message about a value that a pattern of a CRD refuses has the field's description instead of the pattern."""
    described = {"type": "string", "pattern": "^a+$", "description": "Name of it, such as aa. More about it."}
    assert list(schema.problems(described, "b", ".spec.name")) == [
        "spec.name cannot be 'b'; it is: Name of it, such as aa"
    ]
    del described["description"]
    assert list(schema.problems(described, "b", ".spec.name")) == [
        "spec.name cannot be 'b'; it is: what the pattern ^a+$ allows"
    ]
