"""Protocol of the webhooks: requests of Metacontroller are read leniently, and responses are whole."""

from typing import Any

import orjson
import pytest

from hooks import errors
from hooks.kube.objects import Key
from hooks.protocol import CustomizeRequest, CustomizeResponse, FinalizeResponse, RelatedRule, SyncRequest, SyncResponse
from metacontroller.local.controller import responses
from tests import builders

DEMO = Key("apps/v1", "Deployment", "team-a", "demo")


def test_both_hook_versions_mean_the_same() -> None:
    """Objects are indexed by their own kind and name, whatever key they arrive under."""
    for version in ("v1", "v2"):
        body = builders.request_body(builders.model_deployment(), related=[builders.workload()], version=version)
        assert SyncRequest.from_body(orjson.dumps(body)).related == {DEMO: builders.workload()}


def test_what_is_absent_or_null_is_empty() -> None:
    """Groups that are absent, null or of a wrong type count as empty, and unknown keys are ignored."""
    odd: list[Any] = [None, {}, [], {"Deployment.apps/v1": None}, {"Deployment.apps/v1": {"demo": None}}]
    for groups in odd:
        content = {"parent": builders.model_deployment(), "children": groups, "related": groups, "new": 1}
        request = SyncRequest.from_body(orjson.dumps(content))
        assert (request.controller, request.children, request.related, request.finalizing) == ({}, {}, {}, False)


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "Deployment", "metadata": {"name": "demo", "namespace": "team-a"}},
        {"apiVersion": "apps/v1", "metadata": {"name": "demo", "namespace": "team-a"}},
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "team-a"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "demo", "namespace": 1}},
    ],
)
def test_an_object_without_identity_is_ignored(item: builders.Json) -> None:
    """An object without API version, kind or name is ignored."""
    content = {"parent": builders.model_deployment(), "related": {"Deployment.apps/v1": {"demo": item}}}
    assert SyncRequest.from_body(orjson.dumps(content)).related == {}


def test_finalizing_and_controller_are_read() -> None:
    """The flag `finalizing` and the CompositeController are read."""
    request = builders.sync_request(builders.model_deployment(), finalizing=True)
    assert (request.finalizing, request.controller["kind"]) == (True, "CompositeController")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b'"text"',
        b'{"parent": NaN}',
        b"{}",
        b'{"parent": null}',
        b'{"parent": []}',
        b'{"parent": {"apiVersion": "deployment.beamlit.com/v1alpha1", "kind": "ModelDeployment"}}',
        (
            b'{"parent": {"apiVersion": "deployment.beamlit.com/v1alpha1", "kind": "ModelDeployment",'
            b' "metadata": {"name": "demo"}}}'
        ),
    ],
)
def test_a_body_that_is_no_webhook_request(body: bytes) -> None:
    """A body that is not a webhook request is refused with a 400, in sync and in customize."""
    for parse in (SyncRequest.from_body, CustomizeRequest.from_body):
        with pytest.raises(errors.NotMetacontroller) as refused:
            parse(body)
        assert refused.value.status == 400


@pytest.mark.parametrize("parent", [{"apiVersion": "v1", "kind": "ModelDeployment"}, {}, {"kind": "Policy"}])
def test_a_miswired_controller(parent: builders.Json) -> None:
    """A parent of another kind is refused with a 422 that names the expected one."""
    with pytest.raises(errors.WrongParent, match=r"ModelDeployment of deployment\.beamlit\.com/v1alpha1") as refused:
        SyncRequest.from_body(orjson.dumps({"parent": parent}))
    assert refused.value.status == 422


def test_a_sync_response_never_has_finalized() -> None:
    """The response to a sync never has the key `finalized`."""
    assert SyncResponse({"a": 1}, ({"kind": "X"},), None).as_json() == {"status": {"a": 1}, "children": [{"kind": "X"}]}
    assert SyncResponse({}, (), 30.0).as_json() == {"status": {}, "children": [], "resyncAfterSeconds": 30.0}


def test_a_finalize_response_always_has_finalized() -> None:
    """The response to a finalize always has the key `finalized`."""
    assert FinalizeResponse({}, (), finalized=True, resync_after_seconds=None).as_json() == {
        "status": {},
        "children": [],
        "finalized": True,
    }
    waiting = FinalizeResponse({}, (), finalized=False, resync_after_seconds=5.0).as_json()
    assert waiting == {"status": {}, "children": [], "finalized": False, "resyncAfterSeconds": 5.0}


def test_responses_pass_the_strict_decoder() -> None:
    """Every response passes Metacontroller's strict decoder and keeps its meaning."""
    sync = builders.sync(builders.served(gateway={"serviceName": "demo-gw"}))
    decoded = responses.decode_sync(orjson.dumps(sync.as_json()), strict=True)
    assert (decoded.children, decoded.finalized) == (sync.children, False)
    assert decoded.resync_after_seconds == sync.resync_after_seconds

    finalize = FinalizeResponse({"a": 1}, (), finalized=True, resync_after_seconds=None)
    assert responses.decode_sync(orjson.dumps(finalize.as_json()), strict=True).finalized is True

    customize = CustomizeResponse((RelatedRule("v1", "services", "team-a", ("demo",)),))
    (rule,) = responses.decode_customize(orjson.dumps(customize.as_json()), strict=True)
    assert (rule.api_version, rule.resource, rule.namespace, rule.names) == ("v1", "services", "team-a", ("demo",))
