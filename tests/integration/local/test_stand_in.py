"""The stand-in with a scripted hook over HTTP: its protocol, children, status, manifests and crashes."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.backends import endpoints
from hooks.kube import files
from hooks.kube.pods import Pod
from metacontroller.local import errors
from metacontroller.local.__main__ import Options, StandIn
from metacontroller.local.apiserver.objects import Key
from tests.builders import Json
from tests.hook_server import HookServer, Request, Response, Script
from tests.integration.servers import until

WIDGETS = Key("widgets.example.com", "default", "one")
CHILD = Key("configmaps", "default", "one-child")

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "x-kubernetes-validations": [
                                    {"rule": "self.size >= oldSelf.size", "message": "size may not shrink"}
                                ],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                                    "color": {"type": "string", "enum": ["red", "green"]},
                                },
                                "default": {},
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "observedGeneration": {"type": "integer"},
                                    "word": {"type": "string"},
                                    "conditions": {
                                        "type": "array",
                                        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def hook(path: str) -> dict[str, Any]:
    """Return a strict v1 hook at a path."""
    return {"version": "v1", "webhook": {"url": f"http://hooks.invalid{path}", "responseUnMarshallMode": "strict"}}


def controller(**spec: Any) -> dict[str, Any]:
    """Return a CompositeController of widgets with ConfigMap, Service and Deployment children, changed by `spec`."""
    return {
        "apiVersion": "metacontroller.k8s.io/v1alpha1",
        "kind": "CompositeController",
        "metadata": {"name": "widget"},
        "spec": {
            "generateSelector": True,
            "parentResource": {"apiVersion": "example.com/v1", "resource": "widgets", "ignoreStatusChanges": True},
            "childResources": [
                {"apiVersion": "v1", "resource": "configmaps", "updateStrategy": {"method": "InPlace"}},
                {"apiVersion": "v1", "resource": "services", "updateStrategy": {"method": "InPlace"}},
                {"apiVersion": "apps/v1", "resource": "deployments", "updateStrategy": {"method": "InPlace"}},
            ],
            "hooks": {"sync": hook("/sync")},
            **spec,
        },
    }


def config_map(name: str = "one-child", **data: str) -> dict[str, Any]:
    """Return a desired ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data or {"key": "value"}}


def response(*children: dict[str, Any], **more: Any) -> Response:
    """Return a response with these children and an empty status."""
    return Response({"status": {}, "children": list(children)} | more)


class Bench:
    """State directory with one widget, and a way to run the stand-in on it."""

    def __init__(self, folder: Path, hook_url: str) -> None:
        self.state, self.installed, self.hook_url = folder / "state", folder / "installed", hook_url
        self.lines: list[str] = []
        self.installed.mkdir(exist_ok=True)
        (self.state / "manifests").mkdir(parents=True, exist_ok=True)
        self.install(controller())
        (self.installed / "crd.yaml").write_text(yaml.safe_dump(CRD))

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the flags with which the program runs on this directory."""
        installed = str(self.installed)
        return "--state", str(self.state), "--hooks", self.hook_url, "--crds", installed, "--controllers", installed

    def install(self, registration: dict[str, Any]) -> None:
        """Replace the CompositeController."""
        (self.installed / "controller.yaml").write_text(yaml.safe_dump(registration))

    def put(self, *items: dict[str, Any], name: str = "one.yaml") -> None:
        """Write a manifest."""
        (self.state / "manifests" / name).write_text(yaml.safe_dump_all(items))

    def widget(self, **spec: Any) -> None:
        """Write the manifest of the widget `one`."""
        self.put({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": spec})

    def stored(self, key: Key) -> dict[str, Any]:
        """Return an object as its file shows it."""
        path = self.state / "objects" / key.namespace / key.resource / f"{key.name}.yaml"
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        return content

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StandIn]:
        """Run a stand-in on this directory and yield it."""
        options = Options(
            self.state, self.hook_url, crds=self.installed, controllers=self.installed, report=self.lines.append
        )
        async with StandIn(options) as stand_in:
            yield stand_in


@asynccontextmanager
async def bench(folder: Path, script: Script) -> AsyncIterator[tuple[Bench, HookServer]]:
    """Yield a bench with a widget, and the scripted hook that it calls."""
    async with HookServer(script) as server:
        made = Bench(folder, server.url)
        made.widget()
        yield made, server


def constant(*children: dict[str, Any], **more: Any) -> Script:
    """Return a script that always returns the same response."""
    return lambda _: response(*children, **more)


async def test_first_sync_has_five_keys_and_every_group(tmp_path: Path) -> None:
    """The first request has the five keys, an empty group for each kind of child, and a parent without status."""
    async with bench(tmp_path, constant()) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        request = server.requests[0].content
        assert set(request) == {"controller", "parent", "children", "related", "finalizing"}
        assert request["children"] == {"ConfigMap.v1": {}, "Service.v1": {}, "Deployment.apps/v1": {}}
        assert request["related"] == {}
        assert request["finalizing"] is False
        assert "status" not in request["parent"]
        assert request["parent"]["spec"] == {"size": 3}
        assert request["parent"]["metadata"]["generation"] == 1
        assert server.requests[0].headers["content-type"] == "application/json"


async def test_second_sync_writes_nothing(tmp_path: Path) -> None:
    """A second sync writes nothing, although its children need defaults and canonical quantities."""
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {
            "containers": [
                {"name": "m", "image": "m:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "ports": [
                    {"containerPort": 80}]}
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }  # fmt: skip
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one"},
        "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}]},
    }
    script = constant(deployment, service, config_map(), status={"word": "hello"})
    async with bench(tmp_path, script) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        before, asked = stand_in.writes.total(), len(server.requests)
        stand_in.sync_all()
        await stand_in.quiesce()
        assert len(server.requests) > asked
        assert stand_in.writes.total() == before
        assert stand_in.loops == set()
        assert made.stored(Key("services", "default", "one"))["spec"]["clusterIP"].startswith("10.96.")
        assert made.stored(WIDGETS)["status"] == {"word": "hello", "observedGeneration": 1}


async def test_child_carries_owner_label_and_last_applied(tmp_path: Path) -> None:
    """A created child has its parent's label, the controller reference, and its last applied form in an annotation."""
    async with bench(tmp_path, constant(config_map())) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        child, parent = made.stored(CHILD), made.stored(WIDGETS)
        uid = parent["metadata"]["uid"]
        assert child["metadata"]["labels"] == {"controller-uid": uid}
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (uid, True, True)
        applied = json.loads(child["metadata"]["annotations"]["metacontroller.k8s.io/last-applied-configuration"])
        assert applied["data"] == {"key": "value"}


async def test_unwanted_children_are_deleted_before_new_ones_are_made(tmp_path: Path) -> None:
    """A child that is no longer in the response is deleted before the new one is created."""
    async with bench(tmp_path, constant(config_map())) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        server.script = constant(config_map("a-new-one"))
        stand_in.sync_all()
        await stand_in.quiesce()
        assert made.lines.index("deleted ConfigMap default/one-child") < made.lines.index(
            "created ConfigMap default/a-new-one"
        )
        assert stand_in.api.find(CHILD) is None


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        pytest.param(Response(status=500), "only 200 counts", id="500"),
        pytest.param(Response(status=201), "only 200 counts", id="201"),
        pytest.param(Response(status=204, body=b""), "only 200 counts", id="204"),
        pytest.param(Response(body=b""), "no valid JSON", id="empty"),
        pytest.param(Response(body=b'{"status": {"x": NaN}, "children": []}'), "NaN", id="nan"),
        pytest.param(Response(body=b'{"children": []} x'), "no valid JSON", id="trailing"),
        pytest.param(Response(body={"children": {}}), "children must be a list", id="children-object"),
        pytest.param(Response(body={"children": [None]}), "would crash", id="null-child"),
        pytest.param(Response(body={"Status": {}}), "unknown key 'Status'", id="wrong-case"),
        pytest.param(Response(body=b'{"status": {"a": 1, "a": 2}}'), "twice", id="duplicate"),
        pytest.param(Response(body={"children": [{"metadata": {"name": "x"}}]}), "no kind", id="no-kind"),
        pytest.param(Response(body={"resyncAfterSeconds": "5"}), "must be a number", id="text-number"),
    ],
)
async def test_bad_responses_change_nothing(tmp_path: Path, bad: Response, complaint: str) -> None:
    """A response that is not a usable 200 changes neither children nor status, is reported, and the hook is called
    again."""
    good = constant(config_map(), status={"word": "good"})
    async with bench(tmp_path, good) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        before = stand_in.writes.total()
        server.script = lambda _: bad
        stand_in.sync_all()
        await until(lambda: any(complaint in line for line in made.lines))
        asked = len(server.requests)
        await until(lambda: len(server.requests) > asked)
        assert stand_in.writes.total() == before
        assert made.stored(WIDGETS)["status"]["word"] == "good"
        server.script = good
        await stand_in.quiesce()
        assert any(line.endswith("sync works again") for line in made.lines)


@pytest.mark.parametrize("body", [b"{}", b"null", b'{"children": null}'])
async def test_empty_responses_delete_every_child(tmp_path: Path, body: bytes) -> None:
    """A response of `{}` or `null` is accepted and means that there are no children."""
    async with bench(tmp_path, constant(config_map())) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        server.script = lambda _: Response(body=body)
        stand_in.sync_all()
        await stand_in.quiesce()
        assert stand_in.api.find(CHILD) is None
        assert made.stored(WIDGETS)["status"] == {"observedGeneration": 1}


async def test_retry_after_is_honored_without_an_error(tmp_path: Path) -> None:
    """After a 429 with seconds in Retry-After the hook is called again that much later, and no error is reported."""
    calls: list[float] = []

    def script(_: Request) -> Response:
        calls.append(asyncio.get_running_loop().time())
        return Response(status=429, headers={"Retry-After": "1"}) if len(calls) == 1 else response()

    async with bench(tmp_path, script) as (made, _), made.running() as stand_in:
        await until(lambda: len(calls) == 2)
        await stand_in.quiesce()
        assert calls[1] - calls[0] >= 0.9
        assert not any("failed" in line for line in made.lines)


async def test_redirect_turns_the_post_into_a_get(tmp_path: Path) -> None:
    """A 302 turns a POST into a GET without a body, and a 307 behind it repeats that GET."""

    def script(request: Request) -> Response:
        if request.target == "/sync":
            return Response(status=302, headers={"Location": "/again"})
        if request.target == "/again":
            return Response(status=307, headers={"Location": "/there"})
        return response()

    async with bench(tmp_path, script) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        seen = [(request.method, request.target, bool(request.body)) for request in server.requests[:3]]
        assert seen == [("POST", "/sync", True), ("GET", "/again", False), ("GET", "/there", False)]


async def test_resync_after_seconds_calls_again(tmp_path: Path) -> None:
    """A response with resyncAfterSeconds makes the stand-in call the hook again after that time."""
    async with bench(tmp_path, constant(resyncAfterSeconds=0.2)) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        first = len(server.requests)
        await until(lambda: len(server.requests) > first + 1)


async def test_changing_responses_are_a_loop(tmp_path: Path) -> None:
    """A child that differs in every response is recognized as a loop and reported once."""
    count = iter(range(10**6))
    changing = lambda _: response(config_map(n=str(next(count))))  # noqa: E731
    async with bench(tmp_path, changing) as (made, _), made.running() as stand_in:
        await until(lambda: stand_in.loops == {WIDGETS})
        assert sum("without coming to rest" in line for line in made.lines) == 1


async def test_foreign_object_of_a_childs_name_is_left_alone(tmp_path: Path) -> None:
    """An object of the user that has the name of a child stays as it is and never appears among the children."""
    async with bench(tmp_path, constant(config_map())) as (made, server):
        made.put({**config_map(mine="yes"), "metadata": {"name": "one-child"}}, name="foreign.yaml")
        async with made.running() as stand_in:
            await stand_in.quiesce()
            assert made.stored(CHILD)["data"] == {"mine": "yes"}
            assert server.requests[-1].content["children"]["ConfigMap.v1"] == {}


async def test_immutable_fields_are_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A Service that would become headless is refused, while the other children and the status are written."""

    def service(**spec: Any) -> dict[str, Any]:
        ports = {"ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}, "spec": ports | spec}

    async with bench(tmp_path, constant(service())) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        server.script = constant(service(clusterIP="None"), config_map(), status={"word": "after"})
        stand_in.sync_all()
        await until(lambda: any("clusterIP cannot be changed" in line for line in made.lines))
        await until(lambda: made.stored(WIDGETS)["status"].get("word") == "after")
        assert stand_in.api.find(CHILD) is not None


async def test_annotations_of_a_child_have_a_limit(tmp_path: Path) -> None:
    """A ConfigMap whose last applied form in the annotation exceeds 256 KiB cannot be created."""
    async with bench(tmp_path, constant(config_map(big="x" * 262144))) as (made, _), made.running():
        await until(lambda: any("metadata.annotations must have at most" in line for line in made.lines))


async def test_related_objects_follow_the_rules_and_trigger_a_sync(tmp_path: Path) -> None:
    """The customize hook is called once for a generation, and a related object that appears triggers a sync."""

    def script(request: Request) -> Response:
        if request.target == "/customize":
            assert set(request.content) == {"controller", "parent"}
            rule = {"apiVersion": "v1", "resource": "secrets", "names": ["wanted"]}
            return Response({"relatedResources": [rule]})
        return response()

    async with bench(tmp_path, script) as (made, server):
        made.install(controller(hooks={"sync": hook("/sync"), "customize": hook("/customize")}))
        async with made.running() as stand_in:
            await stand_in.quiesce()
            assert server.of("/sync")[-1]["related"] == {"Secret.v1": {}}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wanted"}, "stringData": {"a": "b"}}
            made.put(secret, {**secret, "metadata": {"name": "other"}}, name="secrets.yaml")
            await stand_in.quiesce()
            related = server.of("/sync")[-1]["related"]["Secret.v1"]
            assert list(related) == ["wanted"]
            assert related["wanted"]["data"] == {"a": "Yg=="}
            assert len(server.of("/customize")) == 1


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"names": ["x"], "labelSelector": {}}, "names and a selector"),
        ({"namespace": "elsewhere", "names": ["x"]}, "not default"),
        ({"namespaceSelector": {}}, "does not know"),
        ({"resource": "nothings"}, "not installed"),
        ({"resources": "secrets"}, "unknown key 'resources'"),
    ],
)
async def test_illegal_related_rules_end_the_sync(tmp_path: Path, rule: dict[str, Any], complaint: str) -> None:
    """A rule that Metacontroller refuses keeps the sync hook from being called."""
    whole = {"apiVersion": "v1", "resource": "secrets"} | rule

    def script(request: Request) -> Response:
        return Response({"relatedResources": [whole]}) if request.target == "/customize" else response()

    async with bench(tmp_path, script) as (made, server):
        made.install(controller(hooks={"sync": hook("/sync"), "customize": hook("/customize")}))
        async with made.running():
            await until(lambda: any(complaint in line for line in made.lines))
            assert server.of("/sync") == []


async def test_finalizer_is_added_first_and_holds_the_parent(tmp_path: Path) -> None:
    """With a finalize hook a deleted parent stays until the hook returns `finalized`, then goes with its children."""
    done = False

    def script(request: Request) -> Response:
        if request.target == "/finalize":
            assert request.content["finalizing"] is True
            return response(config_map(), finalized=done)
        return response(config_map())

    async with bench(tmp_path, script) as (made, server):
        made.install(controller(hooks={"sync": hook("/sync"), "finalize": hook("/finalize")}))
        async with made.running() as stand_in:
            await stand_in.quiesce()
            finalizers = ["metacontroller.io/compositecontroller-widget"]
            assert server.of("/sync")[0]["parent"]["metadata"]["finalizers"] == finalizers
            (made.state / "manifests" / "one.yaml").unlink()
            await stand_in.quiesce()
            assert "deletionTimestamp" in made.stored(WIDGETS)["metadata"]
            assert stand_in.api.find(CHILD) is not None
            done = True
            stand_in.sync_all()
            await stand_in.quiesce()
            assert stand_in.api.all_keys() == ()


async def test_removing_a_manifest_collects_the_children(tmp_path: Path) -> None:
    """Without a finalizer the parent is deleted at once, and its children with it."""
    async with bench(tmp_path, constant(config_map())) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        (made.state / "manifests" / "one.yaml").unlink()
        await until(lambda: stand_in.api.all_keys() == ())
        assert list((made.state / "objects").rglob("*.yaml")) == []


async def test_owned_child_without_the_label_is_released(tmp_path: Path) -> None:
    """A child that loses its label controller-uid loses its owner reference too and is no longer among the children."""
    async with bench(tmp_path, constant(config_map())) as (made, server), made.running() as stand_in:
        await stand_in.quiesce()
        child = stand_in.api.find(CHILD)
        assert child is not None
        child["metadata"]["labels"] = {}
        stand_in.api.update(child)
        await stand_in.quiesce()
        assert "ownerReferences" not in made.stored(CHILD)["metadata"]
        assert server.requests[-1].content["children"]["ConfigMap.v1"] == {}


async def test_child_edited_by_another_is_repaired_and_extras_stay(tmp_path: Path) -> None:
    """In a child that another client has edited, desired fields are set back, and fields that were never set stay."""
    async with bench(tmp_path, constant(config_map())) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        child = stand_in.api.find(CHILD)
        assert child is not None
        child["data"] = {"key": "wrong", "extra": "stays"}
        stand_in.api.update(child)
        await stand_in.quiesce()
        assert made.stored(CHILD)["data"] == {"key": "value", "extra": "stays"}


@pytest.mark.parametrize("method", ["OnDelete", "Recreate"])
async def test_other_update_methods(tmp_path: Path, method: str) -> None:
    """With OnDelete a child is never updated; with Recreate it is deleted, and the next sync creates it again."""
    rules = [{"apiVersion": "v1", "resource": "configmaps", "updateStrategy": {"method": method}}]
    async with bench(tmp_path, constant(config_map(v="1"))) as (made, server):
        made.install(controller(childResources=rules))
        async with made.running() as stand_in:
            await stand_in.quiesce()
            uid = made.stored(CHILD)["metadata"]["uid"]
            server.script = constant(config_map(v="2"))
            stand_in.sync_all()
            await stand_in.quiesce()
            child = made.stored(CHILD)
            recreated = method == "Recreate"
            assert child["data"] == {"v": "2" if recreated else "1"}
            assert (child["metadata"]["uid"] != uid) is recreated


async def test_refused_edit_is_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    """A value outside the schema or against a transition rule prints one sentence that names the file and the field."""
    async with bench(tmp_path, constant()) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        before = made.stored(WIDGETS)
        for spec, complaint in (
            ({"size": 10}, "spec.size must be at most 9, not 10"),
            ({"color": "blue"}, "spec.color must be one of red, green, not 'blue'"),
            ({"size": 2}, "spec: size may not shrink"),
            ({"size": "x"}, "spec.size must be an integer, not 'x'"),
        ):
            count = len(made.lines)
            made.widget(**spec)
            await stand_in.quiesce()
            assert made.lines[count:] == [
                f"manifests/one.yaml: Widget default/one refused, nothing changed: {complaint}"
            ]
            assert made.stored(WIDGETS) == before
        made.widget(size=4)
        await stand_in.quiesce()
        assert made.stored(WIDGETS)["metadata"]["generation"] == 2


async def test_unreadable_manifest_deletes_nothing(tmp_path: Path) -> None:
    """A manifest that is broken YAML, of an unknown kind or empty leaves the object that it described before."""
    async with bench(tmp_path, constant()) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        for text, complaint in (
            ("a: [", "not read"),
            ("apiVersion: example.com/v1\nkind: Wodget\n", "no kind Wodget"),
            ("", "it is empty"),
        ):
            (made.state / "manifests" / "one.yaml").write_text(text)
            await stand_in.quiesce()
            assert any(complaint in line for line in made.lines)
            assert stand_in.api.find(WIDGETS) is not None


async def test_a_manifest_that_comes_back_while_its_object_leaves(tmp_path: Path) -> None:
    """A manifest that returns while a finalizer still holds its old object creates a new object once the old one is
    gone."""
    async with bench(tmp_path, constant()) as (made, _), made.running() as stand_in:
        await stand_in.quiesce()
        item = stand_in.api.find(WIDGETS)
        assert item is not None
        item["metadata"]["finalizers"] = ["example.com/slow"]
        stand_in.api.update(item)
        path = made.state / "manifests" / "one.yaml"
        text = path.read_text()
        path.unlink()
        await until(lambda: "deletionTimestamp" in (stand_in.api.find(WIDGETS) or {"metadata": {}})["metadata"])
        path.write_text(text)
        await stand_in.quiesce()
        leaving = stand_in.api.find(WIDGETS)
        assert leaving is not None
        leaving["metadata"]["finalizers"] = []
        stand_in.api.update(leaving)
        await until(lambda: (stand_in.api.find(WIDGETS) or leaving)["metadata"]["uid"] != leaving["metadata"]["uid"])


async def test_foreign_files_are_reported_and_left_alone(tmp_path: Path) -> None:
    """A file under `objects` that the stand-in did not write stays byte by byte, even where a child would be stored."""
    async with bench(tmp_path, constant(config_map())) as (made, _):
        path = made.state / "objects" / "default" / "configmaps" / "one-child.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("mine: true\n")
        async with made.running():
            await until(lambda: any("left alone: move it away" in line for line in made.lines))
        assert path.read_text() == "mine: true\n"
        assert any("is not ours and is left alone" in line for line in made.lines)


async def test_a_directory_has_one_stand_in(tmp_path: Path) -> None:
    """A second instance on the same directory is refused with one sentence that names the process of the first."""
    async with bench(tmp_path, constant()) as (made, _), made.running():
        with pytest.raises(errors.SetupError, match=rf"in use by another metacontroller.local \(pid {os.getpid()}\)"):
            async with made.running():
                pass


async def test_readiness_reaches_status_and_sync_quickly(tmp_path: Path) -> None:
    """A probed workload whose readiness changes triggers a sync with its new status; later probes write nothing."""
    labels = {"app": "x"}
    container = {"name": "m", "image": "m:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }
    healthy = False

    def script(request: Request) -> Response:
        if request.target == "/health":
            return Response(status=200 if healthy else 503)
        return response(workload)

    def ready(server: HookServer) -> int:
        children = server.of("/sync")[-1]["children"]["Deployment.apps/v1"]
        return int(children.get("one", {}).get("status", {}).get("readyReplicas", 0))

    async with bench(tmp_path, script) as (made, server):
        listed = {"kind": "Deployment", "namespace": "default", "name": "one", "readiness": f"{server.url}/health"}
        (made.state / "workloads.yaml").write_text(yaml.safe_dump({"workloads": [listed]}))
        async with made.running() as stand_in:
            await stand_in.quiesce()
            assert ready(server) == 0
            for state, count in ((True, 2), (False, 0)):
                healthy = state
                await until(lambda count=count: ready(server) == count)  # type: ignore[misc]
            writes = stand_in.writes.total()
            probes = len([request for request in server.requests if request.target == "/health"])
            await until(lambda: len([r for r in server.requests if r.target == "/health"]) > probes + 2)
            assert stand_in.writes.total() == writes


async def test_a_process_is_a_pod(tmp_path: Path) -> None:
    """A process with an address is written as a pod of its workload, ready while the process is; it is gone with the
    workload's replicas, and one without an address is none."""
    labels = {"app": "x"}
    container = {"name": "m", "image": "m:1", "ports": [{"name": "http", "containerPort": 9101}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    replicas = 2

    def deployment(name: str) -> Json:
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}

    healthy = False

    def script(request: Request) -> Response:
        if request.target == "/health":
            return Response(status=200 if healthy else 503)
        return response(deployment("one"), deployment("two"), resyncAfterSeconds=0.05)

    async with bench(tmp_path, script) as (made, server):
        file = made.state / "pods.yaml"
        listed = [
            {"name": "one", "readiness": f"{server.url}/health", "address": "127.0.0.1:9101"},
            {"name": "two", "readiness": f"{server.url}/health"},
        ]
        (made.state / "workloads.yaml").write_text(yaml.safe_dump({"workloads": listed}))

        def pods() -> list[tuple[str, str, bool, bool]]:
            found = [Pod.of(one) for one in files.read(file)] if file.exists() else []
            return [(pod.name, pod.address, pod.ready, pod.serves) for pod in found]

        async with made.running():
            await until(lambda: pods() == [("one-0", "127.0.0.1", False, False)])
            healthy = True
            await until(lambda: pods() == [("one-0", "127.0.0.1", True, True)])
            (pod,) = [Pod.of(one) for one in files.read(file)]
            assert [(port.name, port.number) for port in pod.ports] == [("http", 9101)]
            assert files.read(file)[0]["metadata"]["labels"] == labels
            replicas = 0
            await until(lambda: pods() == [])


async def test_processes_are_pods(tmp_path: Path) -> None:
    """Each process under `pods` is one replica; Services that select them have an EndpointSlice for each port, which
    goes with the Service."""
    labels = {"app": "x"}
    container = {"name": "m", "image": "m:1", "ports": [{"name": "http", "containerPort": 9101}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}, "spec": spec}
    own = {"app.kubernetes.io/managed-by": "beamlit-controller"}

    def service(name: str, app: str) -> Json:
        port = {"name": "http", "port": 80, "targetPort": 9101}
        item = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": own}}
        return item | {"spec": {"selector": {"app": app}, "ports": [port]}}

    healthy, services = {"/0"}, [service("front", "x"), service("other", "y")]

    def script(request: Request) -> Response:
        if request.target in ("/0", "/1"):
            return Response(status=200 if request.target in healthy else 503)
        return response(deployment, *services, resyncAfterSeconds=0.05)

    async with bench(tmp_path, script) as (made, server):
        pods = [
            {"address": "127.0.0.1:9101", "readiness": f"{server.url}/0"},
            {"address": "127.0.0.1:9103", "readiness": f"{server.url}/1"},
        ]
        (made.state / "workloads.yaml").write_text(yaml.safe_dump({"workloads": [{"name": "one", "pods": pods}]}))
        folder = made.state / "objects/default/endpointslices.discovery.k8s.io"

        def found() -> list[tuple[str, str, int, bool]]:
            read = [endpoints.read(yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yaml"))]
            return [
                (one.service, pod.name, pod.port, pod.state is endpoints.PodState.READY)
                for one in read
                if one is not None
                for pod in one.endpoints
            ]

        def ready(stand_in: StandIn) -> int:
            item = stand_in.api.find(Key("deployments.apps", "default", "one"))
            return 0 if item is None else int(item.get("status", {}).get("readyReplicas", 0))

        async with made.running() as stand_in:
            await until(lambda: found() == [("front", "one-0", 9101, True), ("front", "one-1", 9103, False)])
            await until(lambda: ready(stand_in) == 1)
            healthy = {"/0", "/1"}
            await until(lambda: [pod[3] for pod in found()] == [True, True] and ready(stand_in) == 2)
            written = [Pod.of(one) for one in files.read(made.state / "pods.yaml")]
            assert [(pod.name, pod.ports[0].number) for pod in written] == [("one-0", 9101), ("one-1", 9103)]
            services.clear()
            await until(lambda: found() == [])


@pytest.mark.parametrize("pods", [[], "one", [{"readiness": "http://127.0.0.1:1/"}], [7]])
async def test_pods_that_are_none(tmp_path: Path, pods: Any) -> None:
    """The pods of a workload must be processes with an address, and the message says so."""
    async with bench(tmp_path, constant()) as (made, _):
        (made.state / "workloads.yaml").write_text(yaml.safe_dump({"workloads": [{"name": "one", "pods": pods}]}))
        with pytest.raises(errors.SetupError, match=r"workloads\[0\]\.pods must be a list of processes with address"):
            async with made.running():
                pass


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:9101", "127.0.0.1:x", "http://127.0.0.1:9101", "", 9101])
async def test_an_address_that_is_none(tmp_path: Path, address: Any) -> None:
    """The address of a process must be an IP address with a port, and the message says so."""
    async with bench(tmp_path, constant()) as (made, _):
        listed = {"name": "one", "readiness": "http://127.0.0.1:1/", "address": address}
        (made.state / "workloads.yaml").write_text(yaml.safe_dump({"workloads": [listed]}))
        with pytest.raises(errors.SetupError, match=r"workloads\[0\]\.address must be an IP address with a port"):
            async with made.running():
                pass


async def test_restart_keeps_identity_and_makes_no_write(tmp_path: Path) -> None:
    """A new process on the same directory keeps every object as the old one left it and writes nothing."""
    async with bench(tmp_path, constant(config_map(), status={"word": "x"})) as (made, _):
        async with made.running() as stand_in:
            await stand_in.quiesce()
        before = {key: made.stored(key) for key in (WIDGETS, CHILD)}
        async with made.running() as stand_in:
            await stand_in.quiesce()
            assert stand_in.writes.total() == 0
        assert {key: made.stored(key) for key in (WIDGETS, CHILD)} == before


async def test_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """After kills at random moments every file is whole, uid and status are kept, and the last state is reached."""
    count = iter(range(10**6))

    def script(request: Request) -> Response:
        number = str(next(count))
        return response(
            *(config_map(f"one-{index}", n=number) for index in range(5)),
            status={"word": number},
            resyncAfterSeconds=0.01,
        )

    dice = random.Random(7)
    uid = None
    async with bench(tmp_path, script) as (made, server):
        revision = 0
        for _ in range(6):
            asked = len(server.requests)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "metacontroller.local", *made.arguments, stdout=asyncio.subprocess.DEVNULL
            )
            await until(lambda asked=asked: len(server.requests) > asked + 2)  # type: ignore[misc]
            await asyncio.sleep(dice.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            for path in (made.state / "objects").rglob("*.yaml"):
                content = yaml.safe_load(path.read_text())
                assert content["metadata"]["name"] == path.stem
            parent = made.stored(WIDGETS)
            assert uid in (None, parent["metadata"]["uid"])
            assert "word" in parent["status"]
            assert int(parent["metadata"]["resourceVersion"]) > revision
            uid, revision = parent["metadata"]["uid"], int(parent["metadata"]["resourceVersion"])
        server.script = constant(*(config_map(f"one-{index}", n="end") for index in range(5)), status={"word": "end"})
        async with made.running() as stand_in:
            await stand_in.quiesce()
            assert [key.name for key in stand_in.api.all_keys()] == [*(f"one-{index}" for index in range(5)), "one"]
        assert not list((made.state / "objects").rglob("*.partial"))


async def test_command_line_ends_cleanly_at_sigterm(tmp_path: Path) -> None:
    """SIGTERM ends the program with exit status 0 and an empty stderr; a wrong setting gives one line and exit status
    2."""
    async with bench(tmp_path, constant()) as (made, server):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "metacontroller.local", *made.arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await until(lambda: bool(server.requests))
        process.terminate()
        output, complaints = await process.communicate()
        assert (process.returncode, complaints) == (0, b"")
        assert b"Widget default/one created" in output
        wrong = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "metacontroller.local", "--state", made.state, "--crds", tmp_path / "none",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaints = await wrong.communicate()
        assert wrong.returncode == 2
        assert complaints.count(b"\n") == 1
        assert b"--crds" in complaints
