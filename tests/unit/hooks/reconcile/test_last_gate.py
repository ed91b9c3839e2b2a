"""The last gate: no response asks for a child that its parent may not have."""

from typing import Any

import pytest

from hooks.errors import ForbiddenChild
from hooks.reconcile.last_gate import check_children
from tests import builders
from tests.builders import Json, model_deployment


def gate(*children: Json, parent: Json | None = None) -> None:
    """Check children at the last gate."""
    check_children(children, builders.observation(parent or model_deployment(gateway={"serviceName": "gw"})))


def made(kind: str = "Service", name: str = "demo-local", **rest: Any) -> Json:
    """Return a child that has only its kind and metadata."""
    versions = {"Deployment": "apps/v1", "Service": "v1", "ConfigMap": "v1"}
    metadata = {"name": name, "namespace": builders.NAMESPACE}
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata} | rest


@pytest.mark.parametrize(
    "bad",
    [
        made("Secret", "demo"),
        made("ClusterRole", "demo"),
        made(apiVersion="v2"),
        made(metadata={"name": "demo-local", "namespace": "kube-system"}),
        made(metadata={"name": "demo-local"}),
        made(metadata={"namespace": builders.NAMESPACE}),
        made(name="kubernetes"),
        made("ConfigMap", "kube-root-ca.crt"),
        made("Deployment", "other"),
    ],
)
def test_the_gate_refuses_what_reaches_beyond_the_parent(bad: Json) -> None:
    """The last gate refuses a child of another kind or namespace, or with a name that is not derived."""
    with pytest.raises(ForbiddenChild) as forbidden:
        gate(bad)
    assert forbidden.value.status == 500


def test_the_gate_refuses_one_name_twice() -> None:
    """The last gate refuses two children of one name, of which Metacontroller would silently drop one."""
    with pytest.raises(ForbiddenChild, match="twice"):
        gate(made(), made())


def test_the_gate_lets_derived_names_pass() -> None:
    """The last gate lets children with derived names pass."""
    gate(made("Deployment", "demo"), made(), made(name="gw"), made("ConfigMap", "demo-route"))
