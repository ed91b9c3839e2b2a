"""The children of one parent: claim the existing ones, and bring them to the desired state."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from metacontroller.local import errors
from metacontroller.local.apiserver import selectors
from metacontroller.local.apiserver.objects import Kind, Object, controller_of, copy, equal, key_of
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.controller import dynamic_apply
from metacontroller.local.controller.composite_controller import CompositeController, Method

ChildId = tuple[str, str, str, str]
"""Identity of a child: apiVersion, kind, namespace and name."""


@dataclass(frozen=True, slots=True)
class Children:
    """The part of a CompositeController that claims and applies the children of its parents."""

    api: ApiServer
    registration: CompositeController
    report: Callable[[str], None]
    """Function that takes one line for each child created, changed or deleted."""

    def claim(self, parent: Object, selector: Object) -> list[tuple[Kind, Object]]:
        """Return all children of the parent, after adopting matching orphans and releasing children that match no
        longer."""
        uid, namespace = parent["metadata"]["uid"], parent["metadata"].get("namespace")
        claimed: list[tuple[Kind, Object]] = []
        for kind, _ in self.registration.children:
            for _, item in self.api.all_of(kind, namespace):
                owner = controller_of(item)
                fits = selectors.matches(selector, item["metadata"].get("labels"))
                if owner is not None and owner.get("uid") == uid:
                    if fits:
                        claimed.append((kind, item))
                    elif "deletionTimestamp" not in parent["metadata"]:
                        self._release(item, uid)
                elif owner is None and fits and self._may_adopt(parent, item):
                    claimed.append((kind, self._adopt(item, parent)))
        return claimed

    def desired(self, parent: Object, selector: Object, wanted: Sequence[Object]) -> dict[ChildId, Object]:
        """Return the desired children by identity, with namespace and label filled in. Of two with the same identity
        the last counts.

        Raises errors.SyncError when a child's labels are no strings or do not match the selector.
        """
        result: dict[ChildId, Object] = {}
        for child in wanted:
            item = copy(child)
            metadata = item["metadata"] = {} if item.get("metadata") is None else item["metadata"]
            if not isinstance(metadata, dict):
                raise errors.SyncError(f"the metadata of a {item['kind']} is no object")
            metadata["namespace"] = metadata.get("namespace") or parent["metadata"].get("namespace", "")
            labels = metadata.get("labels", {})
            # Labels that are null are refused as well: leave them out.
            if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
                raise errors.SyncError(f"the labels of the {item['kind']} {metadata.get('name')} are no map of strings")
            if self.registration.generate_selector and "controller-uid" not in labels:
                labels = metadata["labels"] = {**labels, "controller-uid": parent["metadata"]["uid"]}
            if not selectors.matches(selector, labels):
                raise errors.SyncError(f"labels of the {item['kind']} {metadata.get('name')} do not match the selector")
            result[_id(item)] = item
        return result

    def manage(self, parent: Object, observed: Sequence[Object], desired: dict[ChildId, Object]) -> list[str]:
        """Delete the children that are not desired, then create and update the desired ones. Return the failures, one
        text each."""
        methods = {(kind.api_version, kind.name): method for kind, method in self.registration.children}
        there = {_id(item): item for item in observed}
        failures: list[str] = []
        for child in sorted(there.keys() - desired.keys(), key=_order):
            with _collecting(failures, child):
                self._delete(there[child])
        for child in sorted(desired, key=_order):
            with _collecting(failures, child):
                if child in there:
                    self._update(there[child], desired[child], methods.get(child[:2], "OnDelete"))
                else:
                    self._create(parent, desired[child])
        return failures

    def _create(self, parent: Object, wanted: Object) -> None:
        item = dynamic_apply.remembering(wanted)
        owners = item["metadata"].setdefault("ownerReferences", [])
        if not any(owner.get("uid") == parent["metadata"]["uid"] for owner in owners):
            owners.append(_reference(parent))
        try:
            self.api.create(item)
        except errors.AlreadyExists:
            return  # Metacontroller logs this and goes on: a foreign object of this name hides our child
        self.report(f"created {_shown(wanted)}")

    def _update(self, before: Object, wanted: Object, method: Method) -> None:
        if "deletionTimestamp" in before["metadata"]:
            return
        after = dynamic_apply.updated(before, wanted)
        if method == "OnDelete" or equal(after, before):
            return
        if method == "Recreate":
            self._delete(before)  # created again by the next sync
            return
        stored = self.api.update(after)
        if stored["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            self.report(f"updated {_shown(wanted)}")

    def _delete(self, item: Object) -> None:
        if "deletionTimestamp" in item["metadata"]:
            return
        kind = self.api.kind_named(item["apiVersion"], item["kind"])
        metadata = item["metadata"]
        self.api.delete(key_of(kind, item), uid=metadata["uid"])
        self.report(f"deleted {_shown(item)}")

    def _may_adopt(self, parent: Object, item: Object) -> bool:
        return "deletionTimestamp" not in parent["metadata"] and "deletionTimestamp" not in item["metadata"]

    def _adopt(self, item: Object, parent: Object) -> Object:
        adopted = copy(item)
        adopted["metadata"].setdefault("ownerReferences", []).append(_reference(parent))
        self.report(f"adopted {_shown(item)}")
        return self.api.update(adopted)

    def _release(self, item: Object, uid: str) -> None:
        released = copy(item)
        owners = released["metadata"]["ownerReferences"]
        released["metadata"]["ownerReferences"] = [owner for owner in owners if owner.get("uid") != uid]
        self.report(f"released {_shown(item)}: its labels no longer match")
        self.api.update(released)


@contextmanager
def _collecting(failures: list[str], child: ChildId) -> Iterator[None]:
    """Collect the failure of one child without stopping the others. A lost race is no failure: the newer object's event
    brings a sync."""
    try:
        yield
    except (errors.Conflict, errors.NotFound):
        pass
    except errors.Refused as exc:
        failures.append(f"{child[1]} {child[3]}: {exc}")


def _id(item: Object) -> ChildId:
    metadata = item["metadata"]
    return str(item.get("apiVersion")), item["kind"], str(metadata.get("namespace", "")), str(metadata.get("name"))


def _order(child: ChildId) -> tuple[str, str, str, str, str]:
    """Return the sorting key of a child: group, version, kind, the core group first."""
    group, _, version = child[0].rpartition("/")
    return group, version, *child[1:]


def _reference(parent: Object) -> Object:
    metadata = parent["metadata"]
    return {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _shown(item: Object) -> str:
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace')}/{metadata.get('name')}"
