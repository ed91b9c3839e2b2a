"""What the platform shall have of a ModelDeployment, and whose it is what is there.

A model is registered while the ModelDeployment is in force and `spec.enabled` is true, whether or not it offloads: the
platform serves it too. It is removed when `spec.enabled` becomes false, when `spec.model` or `spec.environment` becomes
another (under the old name), and when the ModelDeployment is deleted, with or without `offloadingConfig`. While a
specification is not accepted, the platform keeps what it has.

A name on the platform belongs to one ModelDeployment, whatever its namespace: the older one. Whose it is stands on the
model there, in labels that name the owner and its uid, so it is known without a memory, to every replica, and to who
looks at it. Before each write they are read:

| the model there | what follows |
| --- | --- |
| has our uid | it is ours |
| has the uid of another, which is there, wants it still, and is older | Conflict; nothing is written or removed |
| has the uid of another, of which any of that does not hold | it becomes ours by writing it; it is not ours to remove |
| has no uid, and was created when status says that ours was | it is ours: the platform keeps no such labels |
| has no uid, and the label that this and the original controller give | it becomes ours by writing it, as above |
| has neither | Conflict: somebody made it by hand |

The age of both is that of their creationTimestamp, which nobody can choose, read from the API server; of two that are
equally old, the one whose namespace/name comes first is the older one. Policies have no labels on the platform, so of
them only the time of creation tells (`hooks.policy_reconcile`).
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
"""Label of every model that this controller, or the original one, registered."""


def model(
    spec: ModelDeploymentSpec,
    observation: Observation,
    *,
    offloading: bool,
    ports: Mapping[str, int | None],
    account: str,
) -> DesiredObject | None:
    """The model that the platform shall have; None when it shall have none.

    Args:
        spec: in force.
        observation: with the workload.
        offloading: whether requests go to the remote backend now.
        ports: servingPort and metricPort, as far as known.
        account: on the platform.
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
    thing = PlatformKey("models", spec.model, spec.environment)
    return DesiredObject.of(thing, {"metadata": metadata, "spec": parts}, account)


def policy_names(spec: ModelDeploymentSpec) -> list[str]:
    """The platform's names of the policies, each once. A Policy of the cluster has its own name there."""
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
    """That of the workload, as it is; empty while there is none."""
    if spec.server is not None:
        return spec.server.template
    kind, name = workload_name(spec, observation)
    workload = observation.related.get(observation.key(APPS, kind, name), {})
    return mapping(mapping(workload, "spec"), "template")


class Claim(Enum):
    """Whose something on the platform is."""

    OURS = "ours"
    FREE = "it may become ours"
    SAME = "not ours, and just what is wanted"
    FOREIGN = "of somebody unknown"


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that something on the platform says it belongs to."""

    namespace: str
    name: str
    uid: str


def claim(found: Object, parent: Parent, *, lost: bool, wanted: DesiredObject | None) -> Claim | Owner:
    """Whose it is what was found on the platform.

    Args:
        found: as the platform gives it.
        parent: our object.
        lost: whether it was to be created for ours, and no answer came.
        wanted: what ours wants there.
    """
    metadata = mapping(found, "metadata")
    labels = mapping(metadata, "labels")
    uid = text(labels, names.UID_LABEL)
    if uid:
        ours = Owner(text(labels, names.NAMESPACE_LABEL), text(labels, names.NAME_LABEL), uid)
        return Claim.OURS if uid == parent.uid else ours
    created, known = time(metadata, "createdAt"), time(parent.status, "createdAtOnBeamlit")
    if created is not None and known is not None and created.replace(microsecond=0) == known.replace(microsecond=0):
        return Claim.OURS
    if text(labels, MANAGED_BY[0]) == MANAGED_BY[1]:
        return Claim.FREE
    if wanted is not None and _is_same(found, wanted.body):
        return Claim.OURS if lost else Claim.SAME
    return Claim.FOREIGN


def _is_same(found: Object, body: Object) -> bool:
    """Whether a policy says the same. A model has more to it than what was sent."""
    if "environment" in body["metadata"]:
        return False
    there, wanted = mapping(found, "spec"), body["spec"]
    return all((there.get(key) or []) == value for key, value in wanted.items())


def keeps(owner: Owner, item: Object | None, ours: Object, thing: PlatformKey) -> bool:
    """Whether the owner keeps what it has although ours wants it too.

    Args:
        owner: whom it belongs to, as the platform says.
        item: the ModelDeployment of that name in the API server; None when there is none.
        ours: our own there.
        thing: what both want.
    """
    if item is None or text(mapping(item, "metadata"), "uid") != owner.uid:
        return False
    spec = mapping(item, "spec")
    wants = PlatformKey("models", text(spec, "model"), text(spec, "environment") or "production")
    return wants == thing and spec.get("enabled") is not False and _age(item) < _age(ours)


def _age(item: Object) -> tuple[datetime, str, str]:
    metadata = mapping(item, "metadata")
    created = time(metadata, "creationTimestamp") or datetime.max.replace(tzinfo=UTC)
    return created, text(metadata, "namespace"), text(metadata, "name")
