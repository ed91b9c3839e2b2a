"""The response to customize: the related objects that a sync of a ModelDeployment needs to see."""

from collections.abc import Mapping
from typing import Any, Final

from hooks.api.common import AUTHORIZATION_GROUP, VERSION
from hooks.api.model_deployment import MOST_POLICIES, WORKLOAD_KINDS
from hooks.kube.unstructured import mapping, objects, text
from hooks.observation.observation import APPS, CORE, Parent
from hooks.protocol import CustomizeRequest, CustomizeResponse, RelatedRule

_WORKLOAD_RESOURCES: Final = {kind: f"{kind.lower()}s" for kind in WORKLOAD_KINDS}
"""Resource name of each kind of workload."""


def customize(request: CustomizeRequest) -> CustomizeResponse:
    """Return rules for the workload, the Services and the Policies that the specification names in its own namespace.

    Metacontroller keeps the response for as long as the specification stays the same, so it depends on nothing else.
    The specification was not validated: what it does not name properly is left out.
    """
    parent = Parent.of(request.parent)
    spec = parent.spec
    referenced: dict[tuple[str, str], set[str]] = {}
    source = mapping(spec, "modelSourceRef")
    kind = text(source, "kind")
    if kind in _WORKLOAD_RESOURCES:
        referenced[APPS, _WORKLOAD_RESOURCES[kind]] = {name_in_namespace(source, parent)}
    referenced[CORE, "services"] = {
        name_in_namespace(mapping(spec, field), parent) for field in ("serviceRef", "metricServiceRef")
    }
    referenced[f"{AUTHORIZATION_GROUP}/{VERSION}", "policies"] = {
        name_in_namespace(policy, parent)
        for policy in objects(spec, "policies", MOST_POLICIES)
        if policy.get("refType") == "localPolicy"
    }
    return CustomizeResponse(
        tuple(
            RelatedRule(api_version, resource, parent.namespace, tuple(sorted(names - {""})))
            for (api_version, resource), names in referenced.items()
            if names - {""}
        )
    )


def name_in_namespace(reference: Mapping[str, Any], parent: Parent) -> str:
    """Return the name in a reference to the parent's own namespace; empty when it leads to another namespace."""
    return text(reference, "name") if text(reference, "namespace") in ("", parent.namespace) else ""
