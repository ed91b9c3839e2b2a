"""The last gate: whatever was decided, no response asks for a child that its parent may not have."""

from hooks import names
from hooks.errors import ForbiddenChild
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import mapping, text
from hooks.observation.observation import Observation
from hooks.reconcile.children import KINDS


def check_children(children: tuple[Object, ...], observation: Observation) -> None:
    """Refuse a child of another kind, in another namespace, under a name that is not derived, or twice.

    Raises:
        ForbiddenChild: there is such a child.
    """
    parent = observation.parent
    derived = {
        "Deployment": {names.deployment(parent.name)},
        "Service": {names.local_service(parent.name), text(mapping(parent.spec, "gateway"), "serviceName")},
        "ConfigMap": {names.route(parent.name)},
    }
    seen: set[Key] = set()
    for child in children:
        key = key_of(child)
        if key is None or (key.api_version, key.kind) not in KINDS:
            raise ForbiddenChild("a child is of a kind that is never created")
        if key.namespace != parent.namespace:
            raise ForbiddenChild(f"{key} is not in the namespace of its parent")
        # An observed child belongs to this parent already: its name was checked here when it was created.
        if key.name not in derived[key.kind] and key not in observation.children:
            raise ForbiddenChild(f"{key} has a name that is not derived from its parent")
        if key in seen:
            raise ForbiddenChild(f"{key} is asked for twice")
        seen.add(key)
