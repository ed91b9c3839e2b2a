"""The model that the platform should have for a ModelDeployment, and the owner of the object that it has.

A model is registered while the ModelDeployment is in force and `spec.enabled` is true, whether or not it offloads: the
platform serves it too. It is removed when `spec.enabled` becomes false, when `spec.model` or `spec.environment` changes
(under the old name), and when the ModelDeployment is deleted, with or without `offloadingConfig`. While a specification
is not accepted, the platform keeps what it has.

A name on the platform belongs to one ModelDeployment, in whatever namespace it is: the older one. The owner and its uid
are in the labels of the model on the platform, so every replica of hooks, and everyone who looks at the model, knows
them without other records. They are read before each write:

| the model on the platform | what follows |
| --- | --- |
| has our uid | it is ours |
| has the uid of another, which exists, still specifies it, and is older | Conflict; nothing is written or removed |
| has the uid of another, of which one of these is not true | it becomes ours by a write; it is not ours to remove |
| has no uid, and was created at the time that status has as that of ours | it is ours: this platform keeps no labels |
| has no uid, and the label that this and the original controller set | it becomes ours by a write, as above |
| has neither | Conflict: it was made by hand |

The age of a ModelDeployment is that of its creationTimestamp, which no user can choose, read from the API server. Of
two that are equally old, the older one is the one whose namespace/name comes first. Policies have no labels on the
platform, so only their time of creation tells the owner (`hooks.reconcile.policy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from hooks import names
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends.local import workload_name
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, text, time
from hooks.observation.observation import APPS, Observation, Parent
from hooks.platform.state import DesiredObject, PlatformKey

MANAGED_BY: Final = ("managed-by", "beamlit-operator")
"""Label of every model that this controller, or the original one, registered: its name and its value."""


def desired_model(
    spec: ModelDeploymentSpec,
    observation: Observation,
    *,
    offloading: bool,
    ports: Mapping[str, int | None],
    account: str,
) -> DesiredObject | None:
    """Return the model that the platform should have; None when it should have none.

    Args:
        spec: the specification in force.
        observation: the facts, for the workload and the labels.
        offloading: whether requests go to the remote backend now.
        ports: the values of servingPort and metricPort, None where one is not known.
        account: the account on the platform.
    """
    if not spec.enabled:
        return None
    parts: Object = {"enabled": True, "policies": policy_names(spec)}
    runtime = {name: port for name, port in ports.items() if port is not None}
    if runtime:
        parts["runtime"] = runtime
    if spec.serverless_config is not None:
        parts["serverlessConfig"] = spec.serverless_config.model_dump(mode="json", by_alias=True, exclude_none=True)
    template = _pod_template(spec, observation)
    if template:
        parts["podTemplate"] = template
    labels = _labels(spec, observation.parent, offloading=offloading)
    metadata = {"name": spec.model, "environment": spec.environment, "labels": labels}
    key = PlatformKey("models", spec.model, spec.environment)
    return DesiredObject.of(key, {"metadata": metadata, "spec": parts}, account)


def policy_names(spec: ModelDeploymentSpec) -> list[str]:
    """Return the names of the policies on the platform, each once. A Policy of the cluster has the same name there."""
    return list(dict.fromkeys(policy.name for policy in spec.policies if policy.name))


def _labels(spec: ModelDeploymentSpec, parent: Parent, *, offloading: bool) -> dict[str, str]:
    labels = {
        **parent.labels,
        MANAGED_BY[0]: MANAGED_BY[1],
        names.NAMESPACE_LABEL: parent.namespace,
        names.NAME_LABEL: parent.name,
        names.UID_LABEL: parent.uid,
    }
    if spec.offloading_config is not None:
        labels |= {"offloading-enabled": "true", "offloading": "true" if offloading else "false"}
    return labels


def _pod_template(spec: ModelDeploymentSpec, observation: Observation) -> Mapping[str, Any]:
    """Return the pod template of the workload as it is stored; empty while there is no workload."""
    if spec.server is not None:
        return spec.server.template
    kind, name = workload_name(spec, observation)
    workload = observation.related.get(observation.key(APPS, kind, name), {})
    return mapping(mapping(workload, "spec"), "template")


class Claim(Enum):
    """Claim of a Kubernetes object to the object of its name on the platform."""

    OURS = "ours"
    """It belongs to the Kubernetes object."""
    FREE = "free"
    """It belongs to no known owner, and a write makes it ours."""
    SAME = "same"
    """It is not ours, and equals the desired object: it counts as registered and is left alone."""
    FOREIGN = "foreign"
    """It belongs to an unknown owner."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that an object on the platform names as its owner."""

    namespace: str
    name: str
    uid: str


def claim(present: Object, parent: Parent, *, lost: bool, desired: DesiredObject | None) -> Claim | Owner:
    """Return the claim of a Kubernetes object to an object on the platform, or its owner where it names another one.

    Args:
        present: the object that the platform has.
        parent: the Kubernetes object.
        lost: whether the Kubernetes object had it created, and the response was lost.
        desired: the object that the platform should have.
    """
    metadata = mapping(present, "metadata")
    labels = mapping(metadata, "labels")
    uid = text(labels, names.UID_LABEL)
    if uid:
        owner = Owner(text(labels, names.NAMESPACE_LABEL), text(labels, names.NAME_LABEL), uid)
        return Claim.OURS if uid == parent.uid else owner
    created, known = time(metadata, "createdAt"), time(parent.status, "createdAtOnBeamlit")
    if created is not None and known is not None and created.replace(microsecond=0) == known.replace(microsecond=0):
        return Claim.OURS
    if text(labels, MANAGED_BY[0]) == MANAGED_BY[1]:
        return Claim.FREE
    if desired is not None and _is_same(present, desired.body):
        return Claim.OURS if lost else Claim.SAME
    return Claim.FOREIGN


def _is_same(present: Object, body: Object) -> bool:
    """Return whether a policy on the platform equals the body that would be sent.

    A model never does, because the platform adds fields to it.
    """
    if "environment" in body["metadata"]:
        return False
    spec, desired = mapping(present, "spec"), body["spec"]
    return all((spec.get(key) or []) == value for key, value in desired.items())


def is_kept_by(owner: Owner, item: Object | None, ours: Object, key: PlatformKey) -> bool:
    """Return whether another owner keeps an object on the platform although our ModelDeployment specifies it too.

    Args:
        owner: the owner that the object on the platform names.
        item: the ModelDeployment of that name in the API server; None when there is none.
        ours: our ModelDeployment in the API server.
        key: the object that both specify.
    """
    if item is None or text(mapping(item, "metadata"), "uid") != owner.uid:
        return False
    spec = mapping(item, "spec")
    specified = PlatformKey("models", text(spec, "model"), text(spec, "environment") or "production")
    return specified == key and spec.get("enabled") is not False and _age(item) < _age(ours)


def _age(item: Object) -> tuple[datetime, str, str]:
    metadata = mapping(item, "metadata")
    created = time(metadata, "creationTimestamp") or datetime.max.replace(tzinfo=UTC)
    return created, text(metadata, "namespace"), text(metadata, "name")
